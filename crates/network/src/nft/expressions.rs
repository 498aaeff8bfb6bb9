//! The expressions of a rule: what `nft` calls statements and matches, as the kernel's virtual machine has them.
//!
//! Registers have four bytes; [`Register`] counts them from 0. A concatenated key lies in registers side by side.

use super::LIST_ELEMENT;
use crate::{Ipv4Cidr, netlink::Attributes};

/// `NFT_REG32_00`.
const FIRST_REGISTER: u32 = 8;
/// `RTN_LOCAL`: an address of this machine.
const LOCAL: u32 = 2;
/// `IPS_DST_NAT`: the connection's destination was translated.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// ICMP "port unreachable": a TCP client sees "connection refused".
const PORT_UNREACHABLE: u8 = 3;

/// One of the sixteen registers of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register(pub(crate) u32);

/// Which address of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Source,
    Destination,
}

impl Address {
    /// Its offset in the IPv4 header.
    fn offset(self) -> u32 {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }
}

/// The expressions of one rule, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expressions(Vec<Expression>);

#[derive(Clone, Debug)]
enum Expression {
    Meta { key: u32, to: Register },
    Payload { base: u32, offset: u32, length: u32, to: Register },
    Bitwise { mask: u32, register: Register },
    Compare { register: Register, equal: bool, to: Vec<u8> },
    Lookup { set: String, id: u32, key: Register, to: Option<Register> },
    LookupVerdict { set: String, id: u32, key: Register },
    Immediate { value: Vec<u8>, to: Register },
    Verdict(super::Verdict),
    LocalAddress { which: Address, to: Register },
    TrackStatus { to: Register },
    Random { below: u32, to: Register },
    Remember { set: String, key: Register },
    DestinationNat { address: Register, port: Register },
    Masquerade,
    Reject,
}

impl Expressions {
    fn and(mut self, expression: Expression) -> Self {
        self.0.push(expression);
        self
    }

    /// The packet comes in over this interface, or goes out over it.
    pub(crate) fn interface(self, which: Address, name: &str) -> Self {
        let key = if which == Address::Source { 6 } else { 7 };
        let mut padded = name.as_bytes().to_vec();
        padded.resize(16, 0);
        let register = Register(0);
        self.and(Expression::Meta { key, to: register }).and(Expression::Compare {
            register,
            equal: true,
            to: padded,
        })
    }

    /// The address is in the range, or is not.
    pub(crate) fn within(self, which: Address, range: Ipv4Cidr, wanted: bool) -> Self {
        let register = Register(0);
        let mask = u32::MAX << (32 - u32::from(range.prefix()));
        self.load_address(which, register)
            .and(Expression::Bitwise { mask, register })
            .and(Expression::Compare { register, equal: wanted, to: range.network().octets().to_vec() })
    }

    /// The address is one of this machine.
    pub(crate) fn machine_has(self, which: Address) -> Self {
        let register = Register(0);
        let to = LOCAL.to_ne_bytes().to_vec();
        self.and(Expression::LocalAddress { which, to: register }).and(Expression::Compare {
            register,
            equal: true,
            to,
        })
    }

    /// The connection was led elsewhere by a rule like those of this table.
    pub(crate) fn translated(self) -> Self {
        let (register, mask) = (Register(0), DESTINATION_TRANSLATED.to_be());
        let to = vec![0; 4];
        self.and(Expression::TrackStatus { to: register })
            .and(Expression::Bitwise { mask, register })
            .and(Expression::Compare { register, equal: false, to })
    }

    pub(crate) fn load_address(self, which: Address, to: Register) -> Self {
        self.and(Expression::Payload { base: 1, offset: which.offset(), length: 4, to })
    }

    /// The transport protocol's number.
    pub(crate) fn load_protocol(self, to: Register) -> Self {
        self.and(Expression::Meta { key: 16, to })
    }

    /// The destination port.
    pub(crate) fn load_port(self, to: Register) -> Self {
        self.and(Expression::Payload { base: 2, offset: 2, length: 2, to })
    }

    /// Bytes into registers.
    pub(crate) fn load(self, value: Vec<u8>, to: Register) -> Self {
        self.and(Expression::Immediate { value, to })
    }

    /// A random number below this.
    pub(crate) fn load_random(self, below: u32, to: Register) -> Self {
        self.and(Expression::Random { below, to })
    }

    /// The key is in the set; the rule ends otherwise.
    pub(crate) fn in_set(self, set: &str, id: u32, key: Register) -> Self {
        self.and(Expression::Lookup { set: set.to_owned(), id, key, to: None })
    }

    /// What the map has for the key, into registers; the rule ends when it has nothing.
    pub(crate) fn load_from(self, map: &str, id: u32, key: Register, to: Register) -> Self {
        self.and(Expression::Lookup { set: map.to_owned(), id, key, to: Some(to) })
    }

    /// What the map has for the key is done with the packet.
    pub(crate) fn verdict_from(self, map: &str, id: u32, key: Register) -> Self {
        self.and(Expression::LookupVerdict { set: map.to_owned(), id, key })
    }

    pub(crate) fn verdict(self, verdict: super::Verdict) -> Self {
        self.and(Expression::Verdict(verdict))
    }

    /// Adds an element to a set, or lets the one that is there live for a full time again.
    pub(crate) fn remember(self, set: &str, key: Register) -> Self {
        self.and(Expression::Remember { set: set.to_owned(), key })
    }

    /// Leads the connection to the address and the port in these registers.
    pub(crate) fn lead_to(self, address: Register, port: Register) -> Self {
        self.and(Expression::DestinationNat { address, port })
    }

    /// Gives the connection the machine's own address as its source.
    pub(crate) fn masquerade(self) -> Self {
        self.and(Expression::Masquerade)
    }

    /// Answers that nobody listens.
    pub(crate) fn reject(self) -> Self {
        self.and(Expression::Reject)
    }

    pub(super) fn write(&self, list: &mut Attributes<'_>) {
        for expression in &self.0 {
            list.nested(LIST_ELEMENT, |element| {
                element.text(1, expression.name());
                element.nested(2, |data| expression.write(data));
            });
        }
    }
}

impl Expression {
    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Bitwise { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Lookup { .. } | Self::LookupVerdict { .. } => "lookup",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::LocalAddress { .. } => "fib",
            Self::TrackStatus { .. } => "ct",
            Self::Random { .. } => "numgen",
            Self::Remember { .. } => "dynset",
            Self::DestinationNat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Reject => "reject",
        }
    }

    fn write(&self, to: &mut Attributes<'_>) {
        let number = |register: &Register| FIRST_REGISTER + register.0;
        let value = |bytes: &[u8]| {
            let bytes = bytes.to_vec();
            move |to: &mut Attributes<'_>| {
                to.bytes(1, &bytes);
            }
        };
        match self {
            Self::Meta { key, to: register } => {
                to.u32(1, number(register)).u32(2, *key);
            }
            Self::Payload { base, offset, length, to: register } => {
                to.u32(1, number(register)).u32(2, *base).u32(3, *offset).u32(4, *length);
            }
            Self::Bitwise { mask, register } => {
                to.u32(1, number(register)).u32(2, number(register)).u32(3, 4);
                to.nested(4, value(&mask.to_be_bytes())).nested(5, value(&[0; 4]));
            }
            Self::Compare { register, equal, to: bytes } => {
                to.u32(1, number(register)).u32(2, u32::from(!equal)).nested(3, value(bytes));
            }
            Self::Lookup { set, id, key, to: register } => {
                to.text(1, set).u32(2, number(key));
                if let Some(register) = register {
                    to.u32(3, number(register));
                }
                if *id != 0 {
                    to.u32(4, *id);
                }
            }
            // Register 0 is the verdict.
            Self::LookupVerdict { set, id, key } => {
                to.text(1, set).u32(2, number(key)).u32(3, 0);
                if *id != 0 {
                    to.u32(4, *id);
                }
            }
            Self::Immediate { value: bytes, to: register } => {
                to.u32(1, number(register)).nested(2, value(bytes));
            }
            Self::Verdict(verdict) => {
                to.u32(1, 0).nested(2, |to| {
                    to.nested(2, |to| verdict.write(to));
                });
            }
            Self::LocalAddress { which, to: register } => {
                let flag = if *which == Address::Source { 1 } else { 2 };
                to.u32(1, number(register)).u32(2, 3).u32(3, flag);
            }
            Self::TrackStatus { to: register } => {
                to.u32(1, number(register)).u32(2, 2);
            }
            Self::Random { below, to: register } => {
                to.u32(1, number(register)).u32(2, *below).u32(3, 1);
            }
            // Operation 1 is "update".
            Self::Remember { set, key } => {
                to.text(1, set).u32(3, 1).u32(4, number(key));
            }
            Self::DestinationNat { address, port } => {
                to.u32(1, 1).u32(2, u32::from(super::FAMILY_IPV4));
                to.u32(3, number(address)).u32(5, number(port));
            }
            Self::Masquerade => {}
            Self::Reject => {
                to.u32(1, 0).u8(2, PORT_UNREACHABLE);
            }
        }
    }
}
