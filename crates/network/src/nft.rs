//! nf_tables: tables, chains, sets, maps and rules, gathered into one transaction.
//!
//! Numbers are those of `linux/netfilter/nf_tables.h`. The program `nft` is never run; tests read with it what is
//! written here, so sets carry the types that it needs to print them.

mod expressions;
mod key;

use std::{io, sync::Arc};

pub(crate) use self::{
    expressions::{Address, Expressions, Register},
    key::{Field, KeyType, concatenated},
};
use crate::netlink::{APPEND, Attribute, Attributes, CREATE, DUMP, Messages, Socket, attributes, kind};

/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u8 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = kind(NFTABLES, 0);
const GET_TABLE: u16 = kind(NFTABLES, 1);
const DELETE_TABLE: u16 = kind(NFTABLES, 2);
const NEW_CHAIN: u16 = kind(NFTABLES, 3);
const DELETE_CHAIN: u16 = kind(NFTABLES, 5);
const NEW_RULE: u16 = kind(NFTABLES, 6);
const DELETE_RULE: u16 = kind(NFTABLES, 8);
const NEW_SET: u16 = kind(NFTABLES, 9);
const DELETE_SET: u16 = kind(NFTABLES, 11);
const NEW_ELEMENTS: u16 = kind(NFTABLES, 12);
const GET_ELEMENTS: u16 = kind(NFTABLES, 13);
const DELETE_ELEMENTS: u16 = kind(NFTABLES, 14);
const FAMILY_IPV4: u8 = 2;

const SET_ANONYMOUS: u32 = 0x1;
const SET_CONSTANT: u32 = 0x2;
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_DYNAMIC: u32 = 0x20;
/// The data type of maps to verdicts.
const VERDICTS: u32 = 0xffff_ff00;
/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// How many elements rules may add to a map: whoever sends from many addresses must not fill the memory.
pub(crate) const MOST_REMEMBERED: u32 = 1 << 16;
/// Elements beyond this go into a further message: an attribute's length has 16 bits.
const LONGEST_LIST: usize = 60_000;

/// Where a base chain hangs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hook {
    /// `nat` or `filter`.
    pub(crate) kind: &'static str,
    /// `NF_INET_PRE_ROUTING` (0), `LOCAL_OUT` (3), `POST_ROUTING` (4).
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// What happens to a packet that an element of a verdict map matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It vanishes.
    Drop,
    /// It goes on in another chain and does not come back.
    Goto(String),
    /// It comes back when the other chain is at its end.
    Jump(String),
}

/// What an element of a map leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// Nothing: the element of a set.
    None,
    /// Bytes for registers.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// A set or a map, as it is declared.
#[derive(Clone, Debug)]
pub(crate) struct Set<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: &'a [Field],
    /// Empty for a set; for a map of values what they are.
    pub(crate) data: KeyType<'a>,
    /// Elements are added by rules, at most [`MOST_REMEMBERED`], and go after this many milliseconds.
    pub(crate) timeout: Option<u64>,
}

/// Whether the table is there.
pub(crate) fn table_exists(table: &str) -> io::Result<bool> {
    let mut request = Messages::default();
    request.add(GET_TABLE, 0, FAMILY_IPV4, 0, |message| {
        message.text(1, table);
    });
    match Socket::open()?.send(&request) {
        Ok(()) => Ok(true),
        Err(refused) if refused.source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(refused) => Err(refused.source),
    }
}

/// Elements that rules added to a set, with the milliseconds that each has left; none when there is no such set.
pub(crate) fn remembered(table: &str, set: &str) -> io::Result<Vec<(Vec<u8>, u64)>> {
    let mut request = Messages::default();
    request.add(GET_ELEMENTS, DUMP, FAMILY_IPV4, 0, |message| {
        message.text(1, table).text(2, set);
    });
    let mut found = Vec::new();
    let dumped = Socket::open()?.dump(&request, |reply| {
        let lists = attributes(reply.body).filter(|attribute| attribute.kind == 3);
        for element in lists.flat_map(Attribute::nested) {
            let field = |kind| element.nested().find(|field| field.kind == kind);
            let key = field(1).and_then(|key| key.nested().find(|value| value.kind == 1));
            let left = field(5).and_then(|left| left.value.try_into().ok()).map(u64::from_be_bytes);
            found.extend(key.zip(left).map(|(key, left)| (key.value.to_vec(), left)));
        }
    });
    match dumped {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(found),
    }
}

/// Changes of one table that become true together or not at all.
pub(crate) struct Transaction {
    table: Arc<str>,
    messages: Messages,
    /// What each message is about, for the error of the one that is refused.
    subjects: Vec<(u32, String)>,
    anonymous: u32,
}

impl Transaction {
    pub(crate) fn new(table: Arc<str>) -> Self {
        let mut messages = Messages::default();
        messages.add(BATCH_BEGIN, 0, 0, u16::from(NFTABLES), |_| {});
        Self { table, messages, subjects: Vec::new(), anonymous: 0 }
    }

    pub(crate) fn add_table(&mut self) {
        self.message(NEW_TABLE, CREATE, "making the table", |table, message| {
            message.text(1, table).u32(2, 0);
        });
    }

    /// Only for a table that is there: [`add_table`](Self::add_table) first makes that certain.
    pub(crate) fn delete_table(&mut self) {
        self.message(DELETE_TABLE, 0, "deleting the table", |table, message| {
            message.text(1, table);
        });
    }

    pub(crate) fn add_chain(&mut self, name: &str, hook: Option<Hook>) {
        self.message(NEW_CHAIN, CREATE, name, |table, message| {
            message.text(1, table).text(3, name);
            if let Some(hook) = hook {
                message.nested(4, |to| {
                    to.u32(1, hook.number).bytes(2, &hook.priority.to_be_bytes());
                });
                message.text(7, hook.kind);
            }
        });
    }

    /// Only for a chain without rules that nothing leads to.
    pub(crate) fn delete_chain(&mut self, name: &str) {
        self.message(DELETE_CHAIN, 0, name, |table, message| {
            message.text(1, table).text(3, name);
        });
    }

    /// Deletes all rules of a chain.
    pub(crate) fn flush_chain(&mut self, name: &str) {
        self.message(DELETE_RULE, 0, name, |table, message| {
            message.text(1, table).text(2, name);
        });
    }

    /// Adds a rule at the end of a chain. Anonymous sets that its expressions use were added just before.
    pub(crate) fn add_rule(&mut self, chain: &str, rule: &Expressions) {
        self.message(NEW_RULE, CREATE | APPEND, chain, |table, message| {
            message.text(1, table).text(2, chain);
            message.nested(4, |list| rule.write(list));
        });
    }

    pub(crate) fn add_set(&mut self, set: &Set<'_>) {
        self.declare(set, 0, 0);
    }

    pub(crate) fn delete_set(&mut self, name: &str) {
        self.message(DELETE_SET, 0, name, |table, message| {
            message.text(1, table).text(2, name);
        });
    }

    /// Adds a set without a name, for the rule that comes next; its id is what that rule knows it by.
    pub(crate) fn add_anonymous(
        &mut self,
        key: &[Field],
        data: KeyType<'_>,
        elements: &[(Vec<u8>, Data)],
    ) -> u32 {
        self.anonymous += 1;
        let name = if data.is_none() { "__set%d" } else { "__map%d" };
        let set = Set { name, key, data, timeout: None };
        self.declare(&set, SET_ANONYMOUS | SET_CONSTANT, self.anonymous);
        self.elements(NEW_ELEMENTS, CREATE, name, self.anonymous, elements);
        self.anonymous
    }

    pub(crate) fn add_elements(&mut self, set: &str, elements: &[(Vec<u8>, Data)]) {
        self.elements(NEW_ELEMENTS, CREATE, set, 0, elements);
    }

    /// Adds elements that go after so many milliseconds.
    pub(crate) fn add_remembered(&mut self, set: &str, elements: &[(Vec<u8>, u64)]) {
        // An element takes 36 bytes.
        for elements in elements.chunks(LONGEST_LIST / 64) {
            self.message(NEW_ELEMENTS, CREATE, set, |table, message| {
                message.text(1, table).text(2, set);
                message.nested(3, |list| {
                    for (key, left) in elements {
                        list.nested(LIST_ELEMENT, |element| {
                            element.nested(1, |value| {
                                value.bytes(1, key);
                            });
                            element.u64(5, *left);
                        });
                    }
                });
            });
        }
    }

    /// Deletes all elements of a set.
    pub(crate) fn flush_set(&mut self, set: &str) {
        self.message(DELETE_ELEMENTS, 0, set, |table, message| {
            message.text(1, table).text(2, set);
        });
    }

    /// Only for elements that are there. Data does not matter.
    pub(crate) fn delete_elements(&mut self, set: &str, elements: &[(Vec<u8>, Data)]) {
        self.elements(DELETE_ELEMENTS, 0, set, 0, elements);
    }

    fn declare(&mut self, set: &Set<'_>, flags: u32, id: u32) {
        let flags = flags
            | if set.data.is_none() { 0 } else { SET_MAP }
            | if set.timeout.is_some() { SET_TIMEOUT | SET_DYNAMIC } else { 0 };
        self.message(NEW_SET, CREATE, set.name, |table, message| {
            let (key, length) = key::of(set.key);
            message.text(1, table).text(2, set.name).u32(3, flags).u32(4, key).u32(5, length);
            match set.data {
                KeyType::None => {}
                KeyType::Verdict => {
                    message.u32(6, VERDICTS);
                }
                KeyType::Value(fields) => {
                    let (data, length) = key::of(fields);
                    message.u32(6, data).u32(7, length);
                }
            }
            message.u32(10, id);
            if let Some(timeout) = set.timeout {
                message.nested(9, |limits| {
                    limits.u32(1, MOST_REMEMBERED);
                });
                message.u64(11, timeout);
            }
            if set.key == [Field::Number] {
                // For `nft`: numbers of ours are in the host's order (tag, length, value).
                message.bytes(13, &[0, 4, 1, 0, 0, 0]);
            }
        });
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, id: u32, mut elements: &[(Vec<u8>, Data)]) {
        while !elements.is_empty() {
            let mut taken = 0;
            self.message(kind, flags, set, |table, message| {
                message.text(1, table).text(2, set);
                if id != 0 {
                    message.u32(4, id);
                }
                message.nested(3, |list| {
                    let start = list.len();
                    for (key, data) in elements {
                        if list.len() - start > LONGEST_LIST {
                            break;
                        }
                        list.nested(LIST_ELEMENT, |element| {
                            element.nested(1, |value| {
                                value.bytes(1, key);
                            });
                            if !matches!(data, Data::None) {
                                element.nested(2, |value| data.write(value));
                            }
                        });
                        taken += 1;
                    }
                });
            });
            elements = &elements[taken..];
        }
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        subject: &str,
        fill: impl FnOnce(&str, &mut Attributes<'_>),
    ) {
        let table = self.table.clone();
        let sequence = self.messages.add(kind, flags, FAMILY_IPV4, 0, |message| fill(&table, message));
        self.subjects.push((sequence, subject.to_owned()));
    }

    /// Makes it true. The error is that of the first message that was refused, with what it was about.
    pub(crate) fn commit(mut self) -> Result<(), (String, io::Error)> {
        self.messages.add(BATCH_END, 0, 0, u16::from(NFTABLES), |_| {});
        let socket = Socket::open().map_err(|source| ("opening a socket".to_owned(), source))?;
        socket.send(&self.messages).map_err(|refused| {
            let found = self.subjects.iter().find(|(sequence, _)| *sequence == refused.sequence);
            (found.map_or("the transaction", |(_, subject)| subject).to_owned(), refused.source)
        })
    }
}

impl Data {
    fn write(&self, to: &mut Attributes<'_>) {
        match self {
            Self::None => {}
            Self::Value(value) => {
                to.bytes(1, value);
            }
            Self::Verdict(verdict) => {
                to.nested(2, |to| verdict.write(to));
            }
        }
    }
}

impl Verdict {
    fn write(&self, to: &mut Attributes<'_>) {
        let (code, chain): (i32, _) = match self {
            Self::Drop => (0, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
        };
        to.bytes(1, &code.to_be_bytes());
        if let Some(chain) = chain {
            to.text(2, chain);
        }
    }
}
