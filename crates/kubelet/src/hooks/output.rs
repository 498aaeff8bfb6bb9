//! What a handler printed, bounded: the beginning and the end are worth more than the middle.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::http_get::HttpAnswer;

/// Bytes that are kept of each stream: half from the beginning, half from the end.
const MAX_KEPT: usize = 32 << 10;

/// Output by stream, in the order in which it is shown.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) streams: Vec<(&'static str, Vec<u8>)>,
}

impl Output {
    pub(super) fn stdout(&mut self, bytes: Vec<u8>) {
        self.keep("stdout", bytes);
    }

    pub(super) fn stderr(&mut self, bytes: Vec<u8>) {
        self.keep("stderr", bytes);
    }

    /// Status and body of an HTTP answer.
    pub(super) fn http(&mut self, answer: &HttpAnswer) {
        self.keep("stdout", format!("HTTP {}\n{}", answer.status, answer.body).into_bytes());
    }

    fn keep(&mut self, stream: &'static str, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.streams.push((stream, shortened(bytes)));
        }
    }
}

fn shortened(bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() <= MAX_KEPT {
        return bytes;
    }
    let (half, left_out) = (MAX_KEPT / 2, bytes.len() - MAX_KEPT);
    let mut kept = bytes[..half].to_vec();
    kept.extend_from_slice(format!("\n[{left_out} bytes left out]\n").as_bytes());
    kept.extend_from_slice(&bytes[bytes.len() - half..]);
    kept
}

/// A port as it stands in the manifest.
pub(super) fn port(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_output_keeps_its_beginning_and_its_end() {
        let mut bytes = b"first".to_vec();
        bytes.resize(1 << 20, b'.');
        bytes.extend_from_slice(b"last");
        let kept = shortened(bytes);
        assert!(kept.len() < MAX_KEPT + 64 && kept.starts_with(b"first") && kept.ends_with(b"last"));
        assert!(String::from_utf8_lossy(&kept).contains("bytes left out]"));
    }
}
