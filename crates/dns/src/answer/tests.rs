#![allow(clippy::unwrap_used)]
use hickory_proto::op::MessageType;
use proptest::prelude::*;

use super::*;
use crate::Records;

fn zone() -> Zone {
    let server: IpAddr = "10.43.0.10".parse().unwrap();
    let zone = Zone::new("cluster.local", Some(server), &[("10.43.0.0".parse().unwrap(), 16)]);
    let address = |text: &str| Data::Address(text.parse().unwrap());
    let service = |port, target: &str| Data::Service { port, target: target.to_owned() };
    zone.set(
        "default/web",
        Records {
            forward: vec![
                ("web.default.svc".into(), address("10.43.0.7")),
                ("_http._tcp.web.default.svc".into(), service(80, "web.default.svc")),
            ],
            reverse: vec![("10.43.0.7".parse().unwrap(), "web.default.svc".into())],
        },
    );
    let alias = |name: &str, target: &str| (format!("{name}.default.svc"), Data::Alias(target.to_owned()));
    zone.set(
        "default/aliases",
        Records {
            forward: vec![
                alias("out", "example.com"),
                alias("in", "web.default.svc.cluster.local"),
                alias("loop", "pool.default.svc.cluster.local"),
                alias("pool", "loop.default.svc.cluster.local"),
            ],
            reverse: vec![],
        },
    );
    zone
}

fn ask(name: &str, kind: RecordType) -> Step {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    step(&zone(), &query.to_vec().unwrap())
}

fn answered(name: &str, kind: RecordType) -> Message {
    match ask(name, kind) {
        Step::Done(answer) => *answer,
        other => panic!("{other:?}"),
    }
}

fn said(name: &str, kind: RecordType) -> Vec<String> {
    answered(name, kind).answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn env_36_services_have_addresses_ports_and_reverse_names() {
    assert_eq!(said("web.default.svc.cluster.local.", RecordType::A), ["10.43.0.7"]);
    assert_eq!(said("WEB.Default.svc.cluster.LOCAL.", RecordType::A), ["10.43.0.7"]);
    let ports = answered("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV);
    assert_eq!(ports.answers[0].data.to_string(), "0 100 80 web.default.svc.cluster.local.");
    assert_eq!(ports.additionals[0].data.to_string(), "10.43.0.7");
    assert_eq!(said("7.0.43.10.in-addr.arpa.", RecordType::PTR), ["web.default.svc.cluster.local."]);
    assert_eq!(said("dns-version.cluster.local.", RecordType::TXT), ["1.1.0"]);
    assert_eq!(said("cluster.local.", RecordType::NS), ["ns.dns.cluster.local."]);
    assert_eq!(said("ns.dns.cluster.local.", RecordType::A), ["10.43.0.10"]);
    assert_eq!(said("10-42-0-9.default.pod.cluster.local.", RecordType::A), ["10.42.0.9"]);
}

#[test]
fn what_is_not_there_is_told_with_the_zones_soa_for_five_seconds() {
    for (name, kind, code) in [
        ("no.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
        ("web.default.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError),
        ("default.svc.cluster.local.", RecordType::A, ResponseCode::NoError),
        ("8.0.43.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain),
        ("a\\.b.cluster.local.", RecordType::A, ResponseCode::NXDomain),
    ] {
        let answer = answered(name, kind);
        assert_eq!((answer.response_code, answer.answers.len()), (code, 0), "{name}");
        let soa = &answer.authorities[0];
        assert_eq!(
            (soa.ttl, soa.record_type(), soa.name.to_ascii().as_str()),
            (TTL, RecordType::SOA, "cluster.local.")
        );
        assert!(answer.authoritative);
    }
}

#[test]
fn env_36_aliases_are_followed_and_loops_end() {
    assert_eq!(
        said("in.default.svc.cluster.local.", RecordType::A),
        ["web.default.svc.cluster.local.", "10.43.0.7"]
    );
    let Step::Ask(answer, name, _) = ask("out.default.svc.cluster.local.", RecordType::A) else { panic!() };
    assert_eq!((name.to_ascii().as_str(), answer.answers.len()), ("example.com.", 1));
    assert_eq!(said("out.default.svc.cluster.local.", RecordType::CNAME), ["example.com."]);
    let answer = answered("loop.default.svc.cluster.local.", RecordType::A);
    assert_eq!((answer.response_code, answer.answers.len()), (ResponseCode::ServFail, 0));
}

#[test]
fn other_names_are_for_others() {
    for name in ["example.com.", "local.", ".", "1.2.0.192.in-addr.arpa.", "a\\.b.example."] {
        let kind = if name.ends_with("arpa.") { RecordType::PTR } else { RecordType::A };
        assert!(matches!(ask(name, kind), Step::Ask(..)), "{name}");
    }
}

#[test]
fn what_is_no_proper_query_gets_an_error_or_nothing() {
    let mut query = Message::query();
    query.metadata.id = 7;
    let code = |query: &Message| match step(&zone(), &query.to_vec().unwrap()) {
        Step::Done(answer) => (answer.id, answer.response_code),
        other => panic!("{other:?}"),
    };
    assert_eq!(code(&query), (7, ResponseCode::FormErr), "no question");
    let name = Name::from_ascii("web.default.svc.cluster.local.").unwrap();
    query.add_query(Query::query(name.clone(), RecordType::A));
    query.metadata.op_code = OpCode::Notify;
    assert_eq!(code(&query), (7, ResponseCode::NotImp));
    query.metadata.op_code = OpCode::Query;
    query.add_query(Query::query(name, RecordType::A));
    assert_eq!(code(&query), (7, ResponseCode::FormErr), "two questions");
    query.queries.pop();
    query.queries[0].query_class = DNSClass::CH;
    assert_eq!(code(&query), (7, ResponseCode::Refused));
    query.queries[0].query_class = DNSClass::IN;
    query.queries[0].query_type = RecordType::AXFR;
    assert_eq!(code(&query), (7, ResponseCode::Refused));
    query.queries[0].query_type = RecordType::A;
    let mut edns = Edns::new();
    edns.set_version(1);
    query.set_edns(edns);
    assert_eq!(code(&query), (7, ResponseCode::BADVERS));
    query.metadata.message_type = MessageType::Response;
    assert!(matches!(step(&zone(), &query.to_vec().unwrap()), Step::Ignore));
    for short in [&[][..], &[0; 5], &[0; 11]] {
        assert!(matches!(step(&zone(), short), Step::Ignore));
    }
    // A name that points at itself.
    let looping = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[0xc0, 12, 0, 1, 0, 1]].concat();
    assert!(
        matches!(step(&zone(), &looping), Step::Done(answer) if answer.response_code == ResponseCode::FormErr)
    );
}

proptest! {
    #[test]
    fn no_packet_is_too_strange(packet in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Step::Done(answer) | Step::Ask(answer, ..) = step(&zone(), &packet) {
            prop_assert!(answer.to_vec().is_ok());
        }
    }

    #[test]
    fn a_query_with_a_wrong_byte_is_survived(at in 0..60usize, byte in any::<u8>()) {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii("in.default.svc.cluster.local.").unwrap(), RecordType::A));
        query.set_edns(Edns::new());
        let mut packet = query.to_vec().unwrap();
        let at = at % packet.len();
        packet[at] = byte;
        let _ = step(&zone(), &packet);
    }
}
