//! Rule sets as `nft` reads them: what is written incrementally is what a whole replacement would write.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use proptest::{prelude::*, test_runner::TestRunner};
use sampan_network::{Protocol, ServicePort, TrafficPolicy};

use crate::fixture::Fixture;

/// The listing without what the order of insertion decides: chains sorted, maps' elements sorted.
fn sorted(listing: &str) -> BTreeSet<String> {
    let mut blocks = BTreeSet::new();
    // The last block ends with the table.
    let listing = listing.trim_end().trim_end_matches('}');
    for block in listing.split("\n\n") {
        let text: String = block.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = match text.split_once("elements = {") {
            Some((head, elements)) if head.contains("map ") || head.contains("set ") => {
                let mut elements: Vec<&str> =
                    elements.trim_end_matches([' ', '}']).split(',').map(str::trim).collect();
                elements.sort_unstable();
                format!("{head} {}", elements.join(", "))
            }
            _ => text,
        };
        blocks.insert(text.trim_start_matches(|c| c != 'c' && c != 'm' && c != 's').to_owned());
    }
    blocks
}

fn services() -> impl Strategy<Value = BTreeMap<u8, ServicePort>> {
    let policy = || prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)];
    let one = (
        prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)],
        prop::bool::ANY,
        prop::bool::ANY,
        (policy(), policy()),
        prop::option::of(1..100u64),
        prop::collection::btree_set((1..200u8, 1..3u16), 0..4),
        prop::bool::ANY,
    );
    let one = one.prop_map(|(protocol, external, node_port, policies, affinity, endpoints, local)| {
        let endpoints: Vec<_> = endpoints
            .into_iter()
            .map(|(last, port)| SocketAddrV4::new(Ipv4Addr::new(10, 208, 0, last), port))
            .collect();
        ServicePort {
            name: String::new(),
            protocol,
            port: 80,
            cluster_ips: Vec::new(),
            external_ips: if external { vec![Ipv4Addr::new(192, 0, 2, 1)] } else { Vec::new() },
            node_port: node_port.then_some(30_000),
            internal_policy: policies.0,
            external_policy: policies.1,
            affinity: affinity.map(Duration::from_secs),
            local_endpoints: if local { endpoints.clone() } else { Vec::new() },
            endpoints,
        }
    });
    prop::collection::btree_map(0..6u8, one, 0..6).prop_map(|mut services| {
        for (number, service) in &mut services {
            service.name = format!("ns/s{number}/tcp/p");
            service.cluster_ips = vec![Ipv4Addr::new(10, 224, 0, *number + 1)];
            // Two Services with one external address or node port: who has it depends on who was first.
            service.external_ips.retain(|_| *number < 1);
            service.node_port = service.node_port.filter(|_| *number < 1);
        }
        services
    })
}

#[test]
fn changes_lead_to_the_same_rules_as_a_replacement() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let net = runtime.block_on(Fixture::new());
    let rules = net.network.rules().clone();
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let histories = prop::collection::vec(services(), 1..4);
    let checked = TestRunner::new(config).run(&histories, |history| {
        runtime.block_on(rules.replace_services(Vec::new())).unwrap();
        let mut before = BTreeMap::new();
        for now in history {
            let mut changes: HashMap<String, Option<ServicePort>> =
                now.values().map(|service| (service.name.clone(), Some(service.clone()))).collect();
            for (number, service) in before {
                if !now.contains_key(&number) {
                    let service: ServicePort = service;
                    changes.insert(service.name, None);
                }
            }
            runtime.block_on(rules.change_services(changes)).unwrap();
            before = now;
        }
        let changed = net.listing();
        runtime.block_on(rules.replace_services(before.into_values().collect())).unwrap();
        prop_assert_eq!(sorted(&changed), sorted(&net.listing()));
        Ok(())
    });
    checked.unwrap();
    runtime.block_on(net.clean(&[]));
}

/// All kinds of Services in one table, as `nft` reads it back: what a packet meets, word by word.
#[tokio::test]
async fn the_whole_table_is_what_it_was() {
    let net = Fixture::new().await;
    let pod = |last: u32, port: u16| SocketAddrV4::new(net.config.pod_cidr.nth(last), port);
    let port = |name: &str, number: u32, endpoints: &[SocketAddrV4]| ServicePort {
        name: name.to_owned(),
        protocol: Protocol::Tcp,
        port: 80,
        cluster_ips: vec![net.service_ip(number)],
        external_ips: Vec::new(),
        node_port: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        endpoints: endpoints.to_vec(),
        local_endpoints: endpoints.to_vec(),
    };
    let elsewhere = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 9), 8080);
    let services = vec![
        port("ns/one/tcp/http", 1, &[pod(2, 8080)]),
        ServicePort {
            protocol: Protocol::Udp,
            port: 53,
            ..port("ns/two/udp/", 2, &[pod(2, 53), pod(3, 53)])
        },
        port("ns/none/tcp/", 3, &[]),
        ServicePort {
            affinity: Some(Duration::from_secs(10_800)),
            ..port("ns/sticky/tcp/", 4, &[pod(2, 8080), pod(3, 8080)])
        },
        ServicePort {
            node_port: Some(30_080),
            external_ips: vec![Ipv4Addr::new(192, 0, 2, 1)],
            external_policy: TrafficPolicy::Local,
            endpoints: vec![pod(2, 8080), elsewhere],
            ..port("ns/outside/tcp/web", 5, &[pod(2, 8080)])
        },
    ];
    net.network.rules().replace_services(services).await.unwrap();
    let prefix =
        |ip: Ipv4Addr| ip.to_string().rsplit_once('.').map(|(prefix, _)| format!("{prefix}.")).unwrap();
    let listing = net
        .listing()
        .replace(&net.config.bridge, "BRIDGE")
        .replace(&prefix(net.config.pod_cidr.nth(0)), "POD.")
        .replace(&prefix(net.service_ip(0)), "SERVICE.");
    let table: String = sorted(&listing).iter().map(|block| format!("{block}\n")).collect();
    // How much a set may hold when nothing is said is the kernel's choice.
    let table = [" size 65535", " size 65536"].iter().fold(table, |table, size| table.replace(size, ""));
    let expected = include_str!("rules/table.txt");
    assert_eq!(table, expected, "\n{table}");
    net.clean(&[]).await;
}

#[tokio::test]
async fn thousands_of_services_and_endpoints_fit_and_each_change_is_small() {
    let net = Fixture::new().await;
    let endpoint = |number: u32| {
        let [_, _, high, low] = number.to_be_bytes();
        SocketAddrV4::new(Ipv4Addr::new(10, 99, high, low), 8080)
    };
    let service = |number: u32, endpoints: u32| ServicePort {
        name: format!("ns/s{number}/tcp/"),
        protocol: Protocol::Tcp,
        port: u16::try_from(number).unwrap(),
        cluster_ips: vec![net.service_ip(1)],
        external_ips: Vec::new(),
        node_port: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        endpoints: (0..endpoints).map(|index| endpoint(number * 5 + index)).collect(),
        local_endpoints: Vec::new(),
    };
    let rules = net.network.rules();
    // More elements than one attribute holds, in the shared maps and in one Service's own.
    let mut many: Vec<_> = (1..3000).map(|number| service(number, 2)).collect();
    many.push(service(3000, 5000));
    rules.replace_services(many).await.unwrap();
    let listing = net.listing();
    assert_eq!(listing.matches("chain service-").count(), 3000);
    assert!(listing.contains("numgen random mod 5000 map { 0 :"), "numbers are in the host's order");
    let started = std::time::Instant::now();
    let change = HashMap::from([("ns/s7/tcp/".to_owned(), Some(service(7, 3)))]);
    rules.change_services(change).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    assert!(net.listing().contains("numgen random mod 3 "));
    // Somebody deletes the table: the next change brings everything back.
    let nft = std::process::Command::new("nft").args(["delete", "table", "ip", &net.config.bridge]).status();
    assert!(nft.unwrap().success());
    let change = HashMap::from([("ns/s7/tcp/".to_owned(), Some(service(7, 4)))]);
    rules.change_services(change).await.unwrap();
    assert_eq!(net.listing().matches("chain service-").count(), 3000);
    net.clean(&[]).await;
}
