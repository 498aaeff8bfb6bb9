//! From a question to an answer, as far as the zone goes.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT},
    },
};
use rand::seq::SliceRandom;

use crate::{
    TTL,
    zone::{Data, Found, Inner, Zone},
};

/// How many aliases are followed: more is a loop.
pub(crate) const LONGEST_CHAIN: usize = 8;
/// What clients may send and get over UDP without fragments.
pub(crate) const PAYLOAD: u16 = 1232;
/// The version of the Kubernetes DNS specification.
const SCHEMA_VERSION: &str = "1.1.0";

/// What to do with a packet.
#[derive(Debug)]
pub(crate) enum Step {
    /// Not worth an answer: no query at all.
    Ignore,
    /// The answer is complete.
    Done(Box<Message>),
    /// The rest of the answer is known to others: this name and type.
    Ask(Box<Message>, Name, RecordType),
}

/// Reads a packet and answers it from the zone.
pub(crate) fn step(zone: &Zone, packet: &[u8]) -> Step {
    let [id_high, id_low, flags, ..] = packet else { return Step::Ignore };
    // A response: whoever answers those answers himself.
    if packet.len() < 12 || flags & 0x80 != 0 {
        return Step::Ignore;
    }
    let id = u16::from_be_bytes([*id_high, *id_low]);
    let refused = |code| Step::Done(Box::new(Message::error_msg(id, OpCode::Query, code)));
    let Ok(query) = Message::from_vec(packet) else { return refused(ResponseCode::FormErr) };
    let mut answer = Message::response(id, query.op_code);
    answer.metadata.recursion_desired = query.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.queries.clone_from(&query.queries);
    if let Some(edns) = &query.edns {
        let mut ours = Edns::new();
        ours.set_max_payload(PAYLOAD);
        if edns.version() != 0 {
            answer.edns = Some(ours);
            return done(answer, ResponseCode::BADVERS);
        }
        answer.edns = Some(ours);
    }
    if query.op_code != OpCode::Query {
        return done(answer, ResponseCode::NotImp);
    }
    let [question] = &query.queries[..] else { return done(answer, ResponseCode::FormErr) };
    let question = question.clone();
    if question.query_class() != DNSClass::IN {
        return done(answer, ResponseCode::Refused);
    }
    if matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR) {
        return done(answer, ResponseCode::Refused);
    }
    resolve(zone, answer, &question)
}

fn done(mut answer: Message, code: ResponseCode) -> Step {
    answer.metadata.response_code = code;
    Step::Done(Box::new(answer))
}

/// Adds what the zone has for the question, following aliases.
fn resolve(zone: &Zone, mut answer: Message, question: &Query) -> Step {
    let kind = question.query_type();
    let mut name = question.name().clone();
    let zone = zone.read();
    for _ in 0..LONGEST_CHAIN {
        let Some(text) = plain(&name) else {
            // No name of ours has such labels.
            return elsewhere_or_missing(&zone, answer, name, kind);
        };
        if kind == RecordType::PTR
            && let Some(address) = address_of(&text)
        {
            return match zone.names_of(address) {
                None => Step::Ask(Box::new(answer), name, kind),
                Some(names) if names.is_empty() && !zone.is_complete() => failure(answer),
                Some(names) if names.is_empty() => negative(&zone, answer, ResponseCode::NXDomain),
                Some(names) => {
                    let names = names.iter().filter_map(|found| absolute(found));
                    let records =
                        names.map(|found| Record::from_rdata(name.clone(), TTL, RData::PTR(PTR(found))));
                    answer.answers.extend(records);
                    answer.metadata.authoritative = true;
                    done(answer, ResponseCode::NoError)
                }
            };
        }
        let has = match zone.find(&text) {
            Found::Elsewhere => return Step::Ask(Box::new(answer), name, kind),
            Found::Nothing => return negative(&zone, answer, ResponseCode::NXDomain),
            Found::NotYet => return failure(answer),
            Found::Name(has) => has,
        };
        answer.metadata.authoritative = true;
        let alias = has.iter().find_map(|data| match data {
            Data::Alias(target) => absolute(target),
            _ => None,
        });
        if let Some(target) = alias {
            answer.answers.push(Record::from_rdata(name, TTL, RData::CNAME(CNAME(target.clone()))));
            if kind == RecordType::CNAME {
                return done(answer, ResponseCode::NoError);
            }
            name = target;
            continue;
        }
        let mut found: Vec<Record> = has.iter().filter_map(|data| record(&zone, &name, kind, data)).collect();
        found.extend(own_record(&zone, &text, &name, kind));
        // Clients take the first one.
        found.shuffle(&mut rand::rng());
        if found.is_empty() {
            return negative(&zone, answer, ResponseCode::NoError);
        }
        if kind == RecordType::SRV {
            answer.additionals = addresses_of(&zone, &has);
        }
        answer.answers.extend(found);
        return done(answer, ResponseCode::NoError);
    }
    failure(answer)
}

/// No answer for now: whoever asks tries again.
fn failure(mut answer: Message) -> Step {
    answer.answers.clear();
    done(answer, ResponseCode::ServFail)
}

fn elsewhere_or_missing(zone: &Inner, answer: Message, name: Name, kind: RecordType) -> Step {
    match absolute(&zone.domain) {
        Some(domain) if domain.zone_of(&name) => negative(zone, answer, ResponseCode::NXDomain),
        _ => Step::Ask(Box::new(answer), name, kind),
    }
}

/// An answer without records of the type: with the zone's SOA, so that clients know how long that holds.
fn negative(zone: &Inner, mut answer: Message, code: ResponseCode) -> Step {
    answer.metadata.authoritative = true;
    answer.authorities.extend(soa(zone));
    done(answer, code)
}

fn soa(zone: &Inner) -> Option<Record> {
    let server = absolute(&zone.absolute("ns.dns"))?;
    let mailbox = absolute(&zone.absolute("hostmaster"))?;
    let data = SOA::new(server, mailbox, 1, 7200, 1800, 86_400, TTL);
    Some(Record::from_rdata(absolute(&zone.domain)?, TTL, RData::SOA(data)))
}

/// Records that the zone itself has.
fn own_record(zone: &Inner, text: &str, name: &Name, kind: RecordType) -> Option<Record> {
    let at_top = text == zone.domain;
    match kind {
        RecordType::SOA if at_top => soa(zone),
        RecordType::NS if at_top => {
            let server = absolute(&zone.absolute("ns.dns"))?;
            Some(Record::from_rdata(name.clone(), TTL, RData::NS(NS(server))))
        }
        RecordType::TXT if text == zone.absolute("dns-version") => {
            let version = TXT::new(vec![SCHEMA_VERSION.to_owned()]);
            Some(Record::from_rdata(name.clone(), TTL, RData::TXT(version)))
        }
        _ => None,
    }
}

/// A record of the zone, if it is of the type that was asked for.
fn record(zone: &Inner, name: &Name, kind: RecordType, data: &Data) -> Option<Record> {
    let data = match (data, kind) {
        (Data::Address(IpAddr::V4(ip)), RecordType::A | RecordType::ANY) => RData::A(A(*ip)),
        (Data::Address(IpAddr::V6(ip)), RecordType::AAAA | RecordType::ANY) => RData::AAAA(AAAA(*ip)),
        (Data::Service { port, target }, RecordType::SRV | RecordType::ANY) => {
            RData::SRV(SRV::new(0, 100, *port, absolute(&zone.absolute(target))?))
        }
        _ => return None,
    };
    Some(Record::from_rdata(name.clone(), TTL, data))
}

/// The addresses of the hosts that SRV records name.
fn addresses_of(zone: &Inner, has: &[Data]) -> Vec<Record> {
    let mut records = Vec::new();
    for data in has {
        let Data::Service { target, .. } = data else { continue };
        let target = zone.absolute(target);
        let (Some(name), Found::Name(hosts)) = (absolute(&target), zone.find(&target)) else { continue };
        for host in &hosts {
            let kinds = [RecordType::A, RecordType::AAAA];
            records.extend(kinds.into_iter().filter_map(|kind| record(zone, &name, kind, host)));
        }
    }
    records.sort_by(|a, b| a.name.cmp(&b.name));
    records.dedup();
    records
}

/// The name in lower case without the final dot; none when a label has bytes that our names cannot have.
fn plain(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(*byte)),
                b'A'..=b'Z' => text.push(char::from(byte.to_ascii_lowercase())),
                _ => return None,
            }
        }
    }
    Some(text)
}

/// The address in a name of the reverse zones.
fn address_of(text: &str) -> Option<IpAddr> {
    if let Some(digits) = text.strip_suffix(".in-addr.arpa") {
        let parts: Vec<&str> = digits.split('.').rev().collect();
        return parts.join(".").parse().ok().map(IpAddr::V4).filter(|_| parts.len() == 4);
    }
    let nibbles: Vec<&str> = text.strip_suffix(".ip6.arpa")?.split('.').rev().collect();
    if nibbles.len() != 32 || nibbles.iter().any(|nibble| nibble.len() != 1) {
        return None;
    }
    let number = u128::from_str_radix(&nibbles.concat(), 16).ok()?;
    Some(IpAddr::V6(number.into()))
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
#[path = "answer/tests.rs"]
mod tests;
