//! Sandboxes: their links, addresses and host ports.

use std::{
    collections::HashSet,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    thread,
};

use sampan_network::{Error, Network, PortMapping, Protocol, SandboxNetwork};

use crate::fixture::{Fixture, greet, greet_from, serve};

#[tokio::test]
async fn sandboxes_reach_each_other_and_the_host_and_the_host_reaches_them() {
    let net = Fixture::new().await;
    let (a, a_ip) = net.sandbox("a", vec![]).await;
    let (b, b_ip) = net.sandbox("b", vec![]).await;
    assert_ne!(a_ip, b_ip);
    serve(&a, 8080);
    assert_eq!(greet_from(&b, (a_ip, 8080)).unwrap(), format!("hello {b_ip}"));
    assert_eq!(greet((a_ip, 8080)).unwrap(), format!("hello {}", net.network.gateway()));

    let host = TcpListener::bind((net.network.gateway(), 0)).unwrap();
    let port = host.local_addr().unwrap().port();
    let gateway = net.network.gateway();
    thread::spawn(move || {
        let (mut stream, peer) = host.accept().unwrap();
        write!(stream, "from {}", peer.ip()).unwrap();
    });
    assert_eq!(greet_from(&b, (gateway, port)).unwrap(), format!("from {b_ip}"));
    assert!(greet_from(&b, (Ipv4Addr::LOCALHOST, 1)).is_err(), "loopback is up and nobody listens");
    net.clean(&["a", "b"]).await;
}

#[tokio::test]
async fn host_ports_lead_inside_from_everywhere_and_are_exclusive() {
    let net = Fixture::new().await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mapping = PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: free, host_ip: None };
    let (a, _) = net.sandbox("a", vec![mapping]).await;
    let (b, _) = net.sandbox("b", vec![]).await;
    serve(&a, 80);
    let gateway = net.network.gateway();
    assert_eq!(greet((Ipv4Addr::LOCALHOST, free)).unwrap(), format!("hello {gateway}"));
    let (c, c_ip) = net.sandbox("other", vec![]).await;
    assert_eq!(greet_from(&c, (gateway, free)).unwrap(), format!("hello {c_ip}"), "the client's own address");
    assert!(greet((gateway, free)).is_ok(), "by an address of the host");
    assert!(greet_from(&b, (gateway, free)).is_ok(), "from another sandbox");
    assert!(greet_from(&a, (gateway, free)).is_ok(), "from the sandbox itself");

    let c = SandboxNetwork { id: "c".into(), netns: net.netns("c"), port_mappings: vec![mapping] };
    let refused = net.network.setup(&c).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("host port {free}/TCP is used by another pod"));
    net.network.teardown("a").await.unwrap();
    net.network.setup(&c).await.unwrap();
    net.clean(&["a", "b", "c", "other"]).await;
}

#[tokio::test]
async fn a_restart_keeps_addresses_and_ports_and_reconcile_frees_the_dead() {
    let net = Fixture::new().await;
    let (a, a_ip) = net.sandbox("a", vec![]).await;
    net.sandbox("dead", vec![]).await;
    serve(&a, 80);
    let again = Network::new(net.config.clone()).await.unwrap();
    assert!(greet((a_ip, 80)).is_ok(), "the running sandbox is not disturbed");
    again.reconcile(&HashSet::from(["a".to_owned()])).await.unwrap();
    assert!(greet((a_ip, 80)).is_ok());
    let leases: Vec<_> = std::fs::read_dir(net.dir.path().join("state/leases")).unwrap().collect();
    assert_eq!(leases.len(), 1);
    net.clean(&["a", "dead"]).await;
}

#[tokio::test]
async fn a_missing_namespace_leaves_no_lease_and_says_which_file() {
    let net = Fixture::new().await;
    let netns = net.dir.path().join("nowhere");
    let sandbox = SandboxNetwork { id: "a".into(), netns: netns.clone(), port_mappings: vec![] };
    let error = net.network.setup(&sandbox).await.unwrap_err();
    assert!(matches!(&error, Error::Netns { path, .. } if *path == netns), "{error}");
    assert_eq!(std::fs::read_dir(net.dir.path().join("state/leases")).unwrap().count(), 0);
    net.clean(&[]).await;
}
