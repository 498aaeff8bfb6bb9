//! Netfilter's netlink, as far as rule sets and connection tracking need it: messages made of nested attributes, and a
//! socket that sends a batch or reads a dump.
//!
//! The crates that wrap it either cost minutes to compile or put a map's elements into one attribute, whose length has
//! 16 bits. What is needed of the protocol fits into this module; numbers are those of `linux/netlink.h` and
//! `linux/netfilter/nfnetlink.h`.

mod attributes;
mod socket;

pub(crate) use self::{
    attributes::{Attribute, Attributes, attributes},
    socket::{Reply, Socket},
};

/// Length of a netlink header and of netfilter's own after it, in bytes.
const HEADERS: usize = 20;
/// The header of a message of netfilter that follows netlink's, without the 16 bits of the resource.
const NFNETLINK_V0: u8 = 0;

/// `NLM_F_REQUEST`: every message of ours is one.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`: answer also when all went well.
pub(crate) const ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`: all objects, not one.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`: after the others.
pub(crate) const APPEND: u16 = 0x800;

/// The kind of a message: the subsystem of netfilter in the high byte, its message in the low one.
pub(crate) const fn kind(subsystem: u8, message: u8) -> u16 {
    (subsystem as u16) << 8 | message as u16
}

/// Several messages, one behind the other.
#[derive(Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Messages {
    /// Adds a message of a family (`AF_INET` or unspecified) and fills it. Returns its sequence number.
    pub(crate) fn add(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) -> u32 {
        self.sequence += 1;
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, NFNETLINK_V0]);
        self.bytes.extend(resource.to_be_bytes());
        fill(&mut Attributes::over(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).expect("a message is far below 4 GiB");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.sequence
    }

    /// All of them, as they are sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
