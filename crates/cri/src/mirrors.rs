//! Credentials for mirrors, beside those that CRI carries for the image's own registry: they travel in the
//! metadata of `PullImage`, where runtimes that do not know them do not look.

use prost::Message as _;
use tonic::Request;
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::progress::{MirrorLogin, MirrorLogins};

const KEY: &str = "sampan-mirrors-bin";
/// Metadata is a header, and those are bounded (16 KiB in all, a third more for base64).
const MAX: usize = 8 << 10;

/// Sends the logins along; those beyond the bound are left out, which a warning says.
pub fn attach<T>(request: &mut Request<T>, mut logins: Vec<MirrorLogin>) {
    let mut message = MirrorLogins { logins: logins.clone() };
    while message.encoded_len() > MAX {
        let host = logins.pop().map(|login| login.host);
        tracing::warn!(?host, "too many credentials for mirrors; one is left out");
        message.logins.clone_from(&logins);
    }
    if !message.logins.is_empty() {
        let mut value = MetadataValue::from_bytes(&message.encode_to_vec());
        value.set_sensitive(true);
        request.metadata_mut().insert_bin(KEY, value);
    }
}

/// The logins that came along; what cannot be read is none.
pub fn logins(metadata: &MetadataMap) -> Vec<MirrorLogin> {
    let bytes = metadata.get_bin(KEY).and_then(|value| value.to_bytes().ok());
    bytes.and_then(|bytes| MirrorLogins::decode(bytes).ok()).map(|message| message.logins).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_along_bounded_and_unseen() {
        let login = |host: &str, length| MirrorLogin {
            host: host.to_owned(),
            username: "u".to_owned(),
            password: "p".repeat(length),
            ..Default::default()
        };
        let mut request = Request::new(());
        attach(&mut request, vec![login("a", 3000), login("b", 3000), login("c", 3000)]);
        let hosts: Vec<String> = logins(request.metadata()).into_iter().map(|login| login.host).collect();
        assert_eq!(hosts, ["a", "b"]);
        let shown = format!("{request:?} {:?}", logins(request.metadata()));
        assert!(!shown.contains("ppp"), "{shown}");
        assert!(logins(&MetadataMap::new()).is_empty());
    }
}
