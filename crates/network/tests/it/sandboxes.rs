//! Sandboxes: their links, addresses and host ports.

use std::{
    collections::HashSet,
    io::Write,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    thread,
    time::Duration,
};

use sampan_network::{Error, Network, PortMapping, Protocol, SandboxNetwork};

use crate::fixture::{Fixture, greet, greet_from, inside, serve, serve_udp};

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
async fn a_udp_flow_to_a_host_port_follows_its_sandbox() {
    let net = Fixture::new().await;
    let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mapping =
        PortMapping { protocol: Protocol::Udp, container_port: 514, host_port: free, host_ip: None };
    // One socket, and so one flow, from before there is anybody.
    let (client, _) = net.sandbox("client", vec![]).await;
    let gateway = net.network.gateway();
    let socket = inside(&client, || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let ask = || {
        socket.send_to(b"?", (gateway, free)).unwrap();
        let mut answer = [0; 8];
        socket.recv_from(&mut answer).map(|(length, _)| answer[..length].to_vec())
    };
    socket.send_to(b"?", (gateway, free)).unwrap();
    let (a, _) = net.sandbox("a", vec![mapping]).await;
    serve_udp(&a, 514, "a");
    assert_eq!(ask().unwrap(), b"a");
    net.network.teardown("a").await.unwrap();
    let (b, _) = net.sandbox("b", vec![mapping]).await;
    serve_udp(&b, 514, "b");
    assert_eq!(ask().unwrap(), b"b");
    net.clean(&["a", "b", "client"]).await;
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
