//! Services between namespaces: who reaches which endpoint, and as whom.

use std::{
    collections::{HashMap, HashSet},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    path::Path,
    time::Duration,
};

use sampan_network::{Network, Protocol, ServicePort, TrafficPolicy};

use crate::fixture::{Fixture, greet, greet_from, inside, serve_as, serve_udp};

fn service(name: &str, ip: Ipv4Addr, endpoints: &[SocketAddrV4]) -> ServicePort {
    ServicePort {
        name: name.to_owned(),
        protocol: Protocol::Tcp,
        port: 80,
        cluster_ips: vec![ip],
        external_ips: Vec::new(),
        node_port: None,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        endpoints: endpoints.to_vec(),
        local_endpoints: endpoints.to_vec(),
    }
}

fn at(ip: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip, port)
}

async fn set(net: &Fixture, service: &ServicePort) {
    let changes = HashMap::from([(service.name.clone(), Some(service.clone()))]);
    net.network.rules().change_services(changes).await.unwrap();
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_cluster_ip_leads_to_all_endpoints_and_the_client_keeps_its_address() {
    let net = Fixture::new().await;
    let (a, a_ip) = net.sandbox("a", vec![]).await;
    let (b, b_ip) = net.sandbox("b", vec![]).await;
    let (c, c_ip) = net.sandbox("c", vec![]).await;
    serve_as(&a, 8080, "a");
    serve_as(&b, 8080, "b");
    let front = net.service_ip(20);
    net.network.rules().replace_services(Vec::new()).await.unwrap();
    let refused = greet_from(&c, (front, 80)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "no Service yet");
    let web = service("default/web/tcp/http", front, &[at(a_ip, 8080), at(b_ip, 8080)]);
    set(&net, &web).await;
    let answers: HashSet<_> = (0..40).map(|_| greet_from(&c, (front, 80)).unwrap()).collect();
    assert_eq!(answers, HashSet::from([format!("a {c_ip}"), format!("b {c_ip}")]));
    // The host, over its route; and a pod that reaches itself.
    assert!(greet((front, 80)).unwrap().ends_with(&net.network.gateway().to_string()));
    for _ in 0..10 {
        greet_from(&a, (front, 80)).unwrap();
    }
    // Another port of the address, another address of the range.
    for nobody in [(front, 81), (net.service_ip(21), 80)] {
        for refused in [greet_from(&c, nobody).unwrap_err(), greet(nobody).unwrap_err()] {
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        }
    }
    // One endpoint less, none, and one again.
    set(&net, &ServicePort { endpoints: vec![at(b_ip, 8080)], ..web.clone() }).await;
    assert!((0..20).all(|_| greet_from(&c, (front, 80)).unwrap() == format!("b {c_ip}")));
    assert!(greet_from(&b, (front, 80)).unwrap().starts_with("b "), "only itself");
    set(&net, &service(&web.name, front, &[])).await;
    assert_eq!(
        greet_from(&c, (front, 80)).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused,
        "no endpoints"
    );
    assert_eq!(greet((front, 80)).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    set(&net, &web).await;
    greet_from(&c, (front, 80)).unwrap();
    // A restart of the daemon: what is there keeps working until the Services are known again.
    let again = Network::new(net.config.clone()).await.unwrap();
    greet_from(&c, (front, 80)).unwrap();
    again.rules().replace_services(vec![web.clone()]).await.unwrap();
    greet_from(&c, (front, 80)).unwrap();
    again.rules().replace_services(Vec::new()).await.unwrap();
    assert!(greet_from(&c, (front, 80)).is_err());
    assert!(!net.listing().contains("default/web"));
    net.clean(&["a", "b", "c"]).await;
}

#[tokio::test]
async fn node_ports_and_external_addresses_lead_inside_and_local_policy_stays_on_the_node() {
    let net = Fixture::new().await;
    let (a, a_ip) = net.sandbox("a", vec![]).await;
    let (c, c_ip) = net.sandbox("c", vec![]).await;
    serve_as(&a, 8080, "a");
    net.network.rules().replace_services(Vec::new()).await.unwrap();
    let (port, gateway, external) = (free_port(), net.network.gateway(), Ipv4Addr::new(192, 0, 2, 77));
    let mut web = service("default/web/tcp/", net.service_ip(30), &[at(a_ip, 8080)]);
    web.node_port = Some(port);
    web.external_ips = vec![external];
    set(&net, &web).await;
    assert_eq!(greet((Ipv4Addr::LOCALHOST, port)).unwrap(), format!("a {gateway}"), "on loopback");
    assert!(greet((gateway, port)).is_ok());
    assert_eq!(greet_from(&c, (gateway, port)).unwrap(), format!("a {c_ip}"));
    assert_eq!(greet_from(&c, (external, 80)).unwrap(), format!("a {c_ip}"));
    assert!(greet_from(&a, (gateway, port)).is_ok(), "from itself");
    // Local, and there is no endpoint here: from outside it is dropped, from pods and the host it is not outside.
    web.external_policy = TrafficPolicy::Local;
    web.local_endpoints = vec![];
    set(&net, &web).await;
    assert!(greet_from(&c, (gateway, port)).is_ok());
    assert!(greet((gateway, port)).is_ok());
    let listing = net.listing();
    let external_chain = listing.split("chain external-default/web/tcp/ {").nth(1).unwrap();
    assert!(external_chain.split('}').next().unwrap().trim_end().ends_with("drop"), "{listing}");
    web.internal_policy = TrafficPolicy::Local;
    set(&net, &web).await;
    let dropped = greet_from(&c, (net.service_ip(30), 80)).unwrap_err();
    assert_eq!(dropped.kind(), std::io::ErrorKind::TimedOut, "dropped, not refused");
    web.local_endpoints = web.endpoints.clone();
    set(&net, &web).await;
    assert!(greet_from(&c, (net.service_ip(30), 80)).is_ok());
    // Another Service with the same external address has it when this one is gone.
    let mut other = service("default/zother/tcp/", net.service_ip(31), &[at(a_ip, 8080)]);
    other.external_ips = vec![external];
    set(&net, &other).await;
    let gone = HashMap::from([(web.name.clone(), None)]);
    net.network.rules().change_services(gone).await.unwrap();
    assert!(greet_from(&c, (external, 80)).is_ok());
    assert!(greet((gateway, port)).is_err());
    net.clean(&["a", "c"]).await;
}

#[tokio::test]
async fn a_client_stays_with_its_endpoint_while_that_is_one() {
    let net = Fixture::new().await;
    let mut ips = Vec::new();
    for id in ["a", "b", "c", "d"] {
        let (netns, ip) = net.sandbox(id, vec![]).await;
        serve_as(&netns, 8080, id);
        ips.push(at(ip, 8080));
    }
    let (client, _) = net.sandbox("client", vec![]).await;
    let front = net.service_ip(40);
    let mut web = service("default/web/tcp/", front, &ips);
    web.affinity = Some(Duration::from_secs(60));
    net.network.rules().replace_services(vec![web.clone()]).await.unwrap();
    let ask = |netns: &Path| greet_from(netns, (front, 80)).unwrap();
    let first = ask(&client);
    assert!((0..20).all(|_| ask(&client) == first));
    // Its endpoint goes: another one, and that for good.
    let index = ["a", "b", "c", "d"].iter().position(|id| first.starts_with(id)).unwrap();
    web.endpoints.remove(index);
    set(&net, &web).await;
    let second = ask(&client);
    assert_ne!(second, first);
    assert!((0..20).all(|_| ask(&client) == second));
    // Others go and come: it stays.
    web.endpoints.push(ips[index]);
    set(&net, &web).await;
    assert!((0..20).all(|_| ask(&client) == second));
    // The daemon starts anew and makes all rules again.
    let again = Network::new(net.config.clone()).await.unwrap();
    again.rules().replace_services(vec![web.clone()]).await.unwrap();
    assert!((0..20).all(|_| ask(&client) == second));
    // With a short time, it is forgotten.
    web.affinity = Some(Duration::from_secs(1));
    set(&net, &web).await;
    ask(&client);
    assert!(net.listing().contains("timeout 1s"), "{}", net.listing());
    web.affinity = None;
    set(&net, &web).await;
    assert!(!net.listing().contains("affinity-"), "{}", net.listing());
    let all: HashSet<_> = (0..60).map(|_| ask(&client)).collect();
    assert_eq!(all.len(), 4);
    net.clean(&["a", "b", "c", "d", "client"]).await;
}

#[tokio::test]
async fn more_clients_than_can_be_remembered_are_served_all_the_same() {
    let net = Fixture::new().await;
    let (a, a_ip) = net.sandbox("a", vec![]).await;
    let (client, _) = net.sandbox("client", vec![]).await;
    serve_as(&a, 8080, "a");
    let front = net.service_ip(1);
    let mut web = service("default/web/tcp/http", front, &[at(a_ip, 8080)]);
    web.affinity = Some(Duration::from_secs(3600));
    net.network.rules().replace_services(vec![web]).await.unwrap();
    // As many addresses as the set takes.
    let clients: Vec<String> =
        (0..1_u32 << 16).map(|n| Ipv4Addr::from(0x0101_0000 + n).to_string()).collect();
    let set = format!("affinity-default/web/tcp/http/{a_ip}/8080");
    let fill = format!("add element ip {} {set} {{ {} }}\n", net.config.bridge, clients.join(", "));
    let script = net.dir.path().join("fill");
    std::fs::write(&script, fill).unwrap();
    let filled = std::process::Command::new("nft").arg("-f").arg(&script).output().unwrap();
    assert!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
    assert!(greet_from(&client, (front, 80)).unwrap().starts_with("a "));
    net.clean(&["a", "client"]).await;
}

#[tokio::test]
async fn a_udp_flow_follows_the_endpoints() {
    let net = Fixture::new().await;
    let (a, a_ip) = net.sandbox("a", vec![]).await;
    let (b, b_ip) = net.sandbox("b", vec![]).await;
    let (client, client_ip) = net.sandbox("client", vec![]).await;
    serve_udp(&a, 53, "a");
    serve_udp(&b, 53, "b");
    let front = net.service_ip(10);
    let mut dns = service("kube-system/dns/udp/dns", front, &[at(a_ip, 53)]);
    (dns.protocol, dns.port) = (Protocol::Udp, 53);
    net.network.rules().replace_services(vec![dns.clone()]).await.unwrap();
    // One socket, and so one flow.
    let socket = inside(&client, move || UdpSocket::bind((client_ip, 0)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let ask = || {
        socket.send_to(b"?", (front, 53)).unwrap();
        let mut answer = [0; 8];
        socket.recv_from(&mut answer).map(|(length, from)| (answer[..length].to_vec(), from.ip()))
    };
    assert_eq!(ask().unwrap(), (b"a".to_vec(), front.into()));
    dns.endpoints = vec![at(b_ip, 53)];
    set(&net, &dns).await;
    assert_eq!(ask().unwrap(), (b"b".to_vec(), front.into()));
    net.clean(&["a", "b", "client"]).await;
}

#[tokio::test]
async fn a_service_on_the_machines_loopback_is_reached_and_loopback_itself_is_not() {
    let net = Fixture::new().await;
    let (client, client_ip) = net.sandbox("client", vec![]).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = listener.accept() {
            let _ = std::io::Write::write_all(&mut stream, format!("api {}", peer.ip()).as_bytes());
        }
    });
    let front = net.service_ip(1);
    let api = service("default/kubernetes/tcp/https", front, &[at(Ipv4Addr::LOCALHOST, port)]);
    net.network.rules().replace_services(vec![api]).await.unwrap();
    assert_eq!(greet_from(&client, (front, 80)).unwrap(), format!("api {client_ip}"));
    assert!(greet((front, 80)).unwrap().starts_with("api "));
    // A pod that sends packets for 127.0.0.1 over its link.
    let gateway = net.network.gateway();
    let forged = inside(&client, move || {
        let ip = |args: &[&str]| {
            assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
        };
        std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
        ip(&["link", "set", "lo", "down"]);
        let _ = std::process::Command::new("ip")
            .args(["route", "del", "table", "local", "local", "127.0.0.0/8"])
            .output();
        ip(&[
            "route",
            "add",
            "127.0.0.0/8",
            "via",
            &gateway.to_string(),
            "dev",
            "eth0",
            "src",
            &client_ip.to_string(),
        ]);
        greet((Ipv4Addr::LOCALHOST, port))
    });
    assert_eq!(forged.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    net.clean(&["client"]).await;
}

#[tokio::test]
async fn rules_hold_whatever_endpoints_and_addresses_are_asked_for() {
    let net = Fixture::new().await;
    let (a, a_ip) = net.sandbox("a", vec![]).await;
    let (client, client_ip) = net.sandbox("client", vec![]).await;
    serve_as(&a, 8080, "a");
    let (front, other) = (net.service_ip(50), net.service_ip(51));
    // Elsewhere one is ready; here only one that ends is left.
    let mut web = service("default/web/tcp/", front, &[at([192, 0, 2, 9].into(), 8080)]);
    web.local_endpoints = vec![at(a_ip, 8080)];
    (web.internal_policy, web.affinity) = (TrafficPolicy::Local, Some(Duration::from_secs(60)));
    net.network.rules().replace_services(vec![web.clone()]).await.unwrap();
    assert_eq!(greet_from(&client, (front, 80)).unwrap(), format!("a {client_ip}"));
    // Calling another Service's address external does not lead its clients away.
    let mut thief = service("a/thief/tcp/", other, &[at(client_ip, 8080)]);
    thief.external_ips = vec![front];
    net.network.rules().replace_services(vec![thief, web]).await.unwrap();
    assert_eq!(greet_from(&client, (front, 80)).unwrap(), format!("a {client_ip}"));
    net.clean(&["a", "client"]).await;
}
