//! Keys of sets and maps: fields one behind the other, each padded to the four bytes of a register.

use std::net::Ipv4Addr;

/// A part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// An IPv4 address.
    Ipv4,
    /// The number of a transport protocol.
    Protocol,
    /// A port.
    Port,
    /// A number in the host's order.
    Number,
}

/// What a map leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyType<'a> {
    /// It is a set.
    None,
    /// A verdict.
    Verdict,
    /// Values for registers.
    Value(&'a [Field]),
}

impl KeyType<'_> {
    pub(super) fn is_none(self) -> bool {
        matches!(self, Self::None)
    }
}

impl Field {
    /// The number of `nft` for the type, so that it can print it; and its length in bytes.
    fn nft(self) -> (u32, u32) {
        match self {
            Self::Ipv4 => (7, 4),
            Self::Protocol => (12, 1),
            Self::Port => (13, 2),
            Self::Number => (4, 4),
        }
    }
}

/// The number of `nft` for a key of these fields, and its length in bytes.
pub(super) fn of(fields: &[Field]) -> (u32, u32) {
    match fields {
        [one] => one.nft(),
        fields => {
            let number = fields.iter().fold(0, |number, field| number << 6 | field.nft().0);
            let length = fields.iter().map(|field| field.nft().1.next_multiple_of(4)).sum();
            (number, length)
        }
    }
}

/// The bytes of a key of several fields.
pub(crate) fn concatenated(address: Option<Ipv4Addr>, protocol: Option<u8>, port: Option<u16>) -> Vec<u8> {
    let mut key = Vec::with_capacity(12);
    if let Some(address) = address {
        key.extend(address.octets());
    }
    if let Some(protocol) = protocol {
        key.extend([protocol, 0, 0, 0]);
    }
    if let Some(port) = port {
        key.extend(port.to_be_bytes());
        key.extend([0, 0]);
    }
    key
}
