//! Which protocol a client wants and which one it gets: the headers of the upgrade request.

use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName};

use super::status::ErrorFormat;

/// The header in which a SPDY client lists its protocols, most wanted first.
pub(super) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Protocols of port-forward.
pub(super) const PORT_FORWARD_V1: &str = "portforward.k8s.io";
/// Port-forward's SPDY connection inside a WebSocket.
pub(super) const PORT_FORWARD_TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// Exec and attach over WebSocket.
pub(super) const WEBSOCKET_REMOTE_COMMAND: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
];
/// Exec and attach over SPDY.
pub(super) const SPDY_REMOTE_COMMAND: &[&str] =
    &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// Port-forward over WebSocket: tunnelled, or two channels per port.
pub(super) const WEBSOCKET_PORT_FORWARD: &[&str] =
    &[PORT_FORWARD_TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
/// Port-forward over SPDY.
pub(super) const SPDY_PORT_FORWARD: &[&str] = &[PORT_FORWARD_V1];

/// The transport that an upgrade request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// WebSocket, with the client's key.
    WebSocket {
        /// `Sec-WebSocket-Key`.
        key: String,
    },
    /// SPDY/3.1.
    Spdy,
}

/// The transport of a request, or the text of the refusal.
pub(super) fn transport(headers: &HeaderMap) -> Result<Transport, String> {
    let upgrade = joined(headers, &UPGRADE).to_ascii_lowercase();
    let connection = joined(headers, &CONNECTION).to_ascii_lowercase();
    if !connection.contains("upgrade") || upgrade.is_empty() {
        return Err("unable to upgrade: missing upgrade headers in request".to_owned());
    }
    if upgrade.contains("websocket") {
        let key = joined(headers, &SEC_WEBSOCKET_KEY);
        if key.is_empty() {
            return Err("unable to upgrade: missing Sec-WebSocket-Key".to_owned());
        }
        return Ok(Transport::WebSocket { key });
    }
    if upgrade.contains("spdy/3.1") {
        return Ok(Transport::Spdy);
    }
    Err(format!("unable to upgrade: unknown protocol {upgrade:?}"))
}

/// The first of the client's protocols that the server has. `Ok(None)` when the client named none, which the
/// oldest clients do.
pub(super) fn protocol(
    headers: &HeaderMap,
    header: &HeaderName,
    supported: &'static [&'static str],
) -> Result<Option<&'static str>, String> {
    let wanted = joined(headers, header);
    let wanted: Vec<&str> = wanted.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if wanted.is_empty() {
        return Ok(None);
    }
    wanted.iter().find_map(|name| supported.iter().find(|have| *have == name).copied()).map(Some).ok_or_else(
        || {
            format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                wanted.join(" "),
                supported.join(" ")
            )
        },
    )
}

/// The header of the WebSocket's protocols.
pub(super) const WEBSOCKET_PROTOCOL: HeaderName = SEC_WEBSOCKET_PROTOCOL;

/// What a protocol's error stream carries.
pub(super) fn error_format(protocol: Option<&str>) -> ErrorFormat {
    match protocol {
        Some(name) if name.starts_with("v4.") || name.starts_with("v5.") => ErrorFormat::Json,
        _ => ErrorFormat::Text,
    }
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().expect("a header value"));
        }
        map
    }

    #[test]
    fn the_clients_order_decides() {
        let map = headers(&[
            ("x-stream-protocol-version", "v9.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ]);
        assert_eq!(protocol(&map, &STREAM_PROTOCOL, SPDY_REMOTE_COMMAND), Ok(Some("v3.channel.k8s.io")));
        let refused =
            protocol(&headers(&[("x-stream-protocol-version", "v9")]), &STREAM_PROTOCOL, SPDY_PORT_FORWARD);
        assert!(refused.expect_err("nothing in common").contains("client supports [v9]"));
        assert_eq!(protocol(&HeaderMap::new(), &STREAM_PROTOCOL, SPDY_REMOTE_COMMAND), Ok(None));
    }

    #[test]
    fn transports_are_told_apart() {
        let spdy = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]);
        assert_eq!(transport(&spdy), Ok(Transport::Spdy));
        let websocket = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "k"),
        ]);
        assert_eq!(transport(&websocket), Ok(Transport::WebSocket { key: "k".to_owned() }));
        assert!(transport(&HeaderMap::new()).is_err());
    }
}
