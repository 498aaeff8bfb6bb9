//! Services and names, as pods, the machine and the outside use them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::{Duration, Instant},
};

use crate::fixture::{Node, eventually, peer};

/// A web server that says its name.
fn web(name: &str, more: &str) -> String {
    format!(
        r"apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 1
{more}  containers:
  - name: web
    image: sampan.local/toolbox
    command: [httpd, -p, '8080']
    ports: [{{name: http, containerPort: 8080}}]
---
"
    )
}

fn client(name: &str, more: &str) -> String {
    format!(
        r"apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
{more}  containers:
  - {{name: c, image: sampan.local/toolbox, command: [sleep, '600']}}
---
"
    )
}

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

const PORTS: &str = "ports: [{name: http, port: 80, targetPort: http}]";

/// What a pod fetches.
fn fetch(node: &Node, pod: &str, url: &str) -> Result<String, String> {
    let said = node.kubectl(&["exec", pod, "--", "wget", "-q", "-T", "3", "-O", "-", url]);
    if said.code == 0 { Ok(said.out.trim().to_owned()) } else { Err(said.err) }
}

#[track_caller]
fn reaches(node: &Node, pod: &str, url: &str) -> String {
    let mut last = String::new();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(20) {
        match fetch(node, pod, url) {
            Ok(said) => return said,
            Err(error) => last = error,
        }
    }
    panic!("{pod} does not reach {url}: {last}\n{}", node.log());
}

/// Runs a program in a pod's network namespace.
fn in_pods_network(node: &Node, pod: &str, command: &[&str]) -> std::process::Output {
    let id = node.field(&format!("pod/{pod}"), "{.metadata.uid}");
    let process = eventually("the pod's process", || {
        let entries = std::fs::read_dir("/proc").ok()?.flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
            let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            cgroup.contains(&id) || cgroup.contains(&id.replace('-', "_"))
        })
    });
    Command::new("nsenter").args(["--net", "--target", &process.to_string()]).args(command).output().unwrap()
}

#[test]
fn env_36_services_are_found_by_name_and_reached() {
    let node = Node::start();
    node.apply(
        &[
            web("one", ""),
            web("two", "  hostname: two\n  subdomain: pods\n"),
            client("c", ""),
            service("web", &format!("{{selector: {{app: web}}, {PORTS}}}")),
            service("pods", &format!("{{clusterIP: None, selector: {{app: web}}, {PORTS}}}")),
            service("alias", "{type: ExternalName, externalName: web.default.svc.cluster.local}"),
            service("empty", &format!("{{selector: {{app: nothing}}, {PORTS}}}")),
        ]
        .concat(),
    );
    for pod in ["one", "two", "c"] {
        node.wait_for(&format!("pod/{pod}"), r#"{.status.conditions[?(@.type=="Ready")].status}"#, "True");
    }
    // Short, with the namespace, and in full; both pods answer.
    for name in ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local"] {
        let said = reaches(&node, "c", &format!("http://{name}/hostname"));
        assert!(["one", "two"].contains(&said.as_str()), "{said}");
    }
    let mut seen = std::collections::BTreeSet::new();
    eventually("both endpoints", || {
        seen.insert(reaches(&node, "c", "http://web/hostname"));
        (seen.len() == 2).then_some(())
    });
    // A pod of the headless Service by its hostname, and an alias.
    assert_eq!(reaches(&node, "c", "http://two.pods:8080/hostname"), "two");
    reaches(&node, "c", "http://alias/hostname");
    let dashed = node.field("pod/one", "{.status.podIP}").replace('.', "-");
    assert_eq!(
        reaches(&node, "c", &format!("http://{dashed}.default.pod.cluster.local:8080/hostname")),
        "one"
    );
    // A pod that reaches itself, the machine, a pod on the machine's network.
    let ip = node.field("service/web", "{.spec.clusterIP}");
    for _ in 0..4 {
        reaches(&node, "one", "http://web/hostname");
    }
    let front = SocketAddr::new(ip.parse().unwrap(), 80);
    assert!(peer::http_get(front).unwrap().ends_with("ok\n"));
    node.apply(&client("host", "  hostNetwork: true\n  dnsPolicy: ClusterFirstWithHostNet\n"));
    node.wait_for("pod/host", "{.status.phase}", "Running");
    reaches(&node, "host", "http://web/hostname");
    // Nobody there: refused at once, by address and by name.
    let started = Instant::now();
    assert!(fetch(&node, "c", "http://empty/").unwrap_err().contains("refused"));
    assert!(fetch(&node, "c", "http://no-such-service/").is_err());
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    // A new name, within a second of its Service; a deleted one is gone.
    node.apply(&service("late", &format!("{{selector: {{app: web}}, {PORTS}}}")));
    let started = Instant::now();
    reaches(&node, "c", "http://late/hostname");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    node.kubectl(&["delete", "service", "late"]).ok();
    eventually("the name to go", || fetch(&node, "c", "http://late/").is_err().then_some(()));
    // An endpoint that is not ready any more gets nothing.
    node.kubectl(&["delete", "pod", "two"]).ok();
    assert!((0..8).all(|_| reaches(&node, "c", "http://web/hostname") == "one"));
    assert_eq!(node.events("c", "MissingClusterDNS"), [""; 0]);
}

#[test]
fn env_16_env_17_the_resolver_of_a_pod_is_what_its_policy_says() {
    let node = Node::start();
    let config = "  dnsConfig: {nameservers: [192.0.2.53], searches: [corp.example], options: [{name: ndots, value: '2'}]}\n";
    node.apply(
        &[
            client("cluster", ""),
            client("own", &format!("  dnsPolicy: None\n{config}")),
            client("merged", config),
            client("default", "  dnsPolicy: Default\n"),
            client("host", "  hostNetwork: true\n"),
        ]
        .concat(),
    );
    let resolv = |pod: &str| {
        node.wait_for(&format!("pod/{pod}"), "{.status.phase}", "Running");
        node.kubectl(&["exec", pod, "--", "cat", "/etc/resolv.conf"]).ok()
    };
    let dns = node
        .kubectl(&["get", "service", "kube-dns", "-n", "kube-system", "-o", "jsonpath={.spec.clusterIP}"])
        .ok();
    assert!(dns.ends_with(".10"), "{dns}");
    let cluster = resolv("cluster");
    assert!(cluster.contains(&format!("nameserver {dns}\n")), "{cluster}");
    assert!(
        cluster.contains("search default.svc.cluster.local svc.cluster.local cluster.local"),
        "{cluster}"
    );
    assert!(cluster.contains("options ndots:5"), "{cluster}");
    let own = resolv("own");
    assert!(own.contains("nameserver 192.0.2.53") && !own.contains(&dns), "{own}");
    assert!(own.contains("search corp.example") && own.contains("ndots:2"), "{own}");
    let merged = resolv("merged");
    assert!(merged.contains(&format!("nameserver {dns}\nnameserver 192.0.2.53")), "{merged}");
    assert!(merged.contains("cluster.local corp.example") && merged.contains("ndots:2"), "{merged}");
    let machine = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    for server in machine.lines().filter(|line| line.starts_with("nameserver")) {
        assert!(resolv("default").contains(server) && resolv("host").contains(server));
    }
    assert!(!resolv("host").contains(&dns));
}

#[test]
fn env_33_env_34_env_35_service_variables_lead_to_services() {
    let node = Node::start();
    node.apply(
        &[web("one", ""), service("my-web", &format!("{{selector: {{app: web}}, {PORTS}}}"))].concat(),
    );
    node.wait_for("pod/one", r#"{.status.conditions[?(@.type=="Ready")].status}"#, "True");
    node.apply(&[client("linked", ""), client("unlinked", "  enableServiceLinks: false\n")].concat());
    let env = |pod: &str| {
        node.wait_for(&format!("pod/{pod}"), "{.status.phase}", "Running");
        node.kubectl(&["exec", pod, "--", "env"]).ok()
    };
    let ip = node.field("service/my-web", "{.spec.clusterIP}");
    let linked = env("linked");
    for variable in [
        format!("MY_WEB_SERVICE_HOST={ip}"),
        "MY_WEB_SERVICE_PORT=80".to_owned(),
        "MY_WEB_SERVICE_PORT_HTTP=80".to_owned(),
        format!("MY_WEB_PORT=tcp://{ip}:80"),
        format!("MY_WEB_PORT_80_TCP_ADDR={ip}"),
    ] {
        assert!(linked.lines().any(|line| line == variable), "{variable} in {linked}");
    }
    assert_eq!(reaches(&node, "linked", &format!("http://{ip}:80/hostname")), "one");
    let unlinked = env("unlinked");
    assert!(!unlinked.contains("MY_WEB"), "{unlinked}");
    assert!(
        unlinked.contains("KUBERNETES_SERVICE_HOST=") && unlinked.contains("KUBERNETES_SERVICE_PORT=443")
    );
    // A Service that came later is no variable of a container that is there.
    node.apply(&service("later", &format!("{{selector: {{app: web}}, {PORTS}}}")));
    assert!(!env("linked").contains("LATER_SERVICE_HOST"));
}

#[test]
fn the_api_is_reached_from_pods_with_the_pods_own_credentials() {
    let node = Node::start();
    let found = Command::new("which").arg("kubectl").output().unwrap();
    let kubectl = std::fs::canonicalize(String::from_utf8(found.stdout).unwrap().trim()).unwrap();
    // The real client inside of a pod: token, CA, address and name are all it has.
    let manifest = format!(
        r"apiVersion: v1
kind: Pod
metadata: {{name: inside}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: sampan.local/toolbox
    command: [sleep, '600']
    volumeMounts: [{{name: kubectl, mountPath: /kubectl}}]
  volumes: [{{name: kubectl, hostPath: {{path: {}, type: File}}}}]
",
        kubectl.display()
    );
    node.apply(&manifest);
    node.kubectl(&[
        "create",
        "clusterrolebinding",
        "inside",
        "--clusterrole=view",
        "--serviceaccount=default:default",
    ])
    .ok();
    node.wait_for("pod/inside", "{.status.phase}", "Running");
    let inside = |args: &[&str]| {
        node.kubectl(&[&["exec", "inside", "--", "/kubectl", "--cache-dir=/tmp"], args].concat())
    };
    let said = eventually("an answer", || {
        let said = inside(&["get", "pods", "-o", "name"]);
        (said.code == 0).then_some(said.out)
    });
    assert_eq!(said, "pod/inside\n");
    // By name, with the CA that every pod has.
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    let token = node.kubectl(&["exec", "inside", "--", "cat", &format!("{account}/token")]).ok();
    for name in
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    {
        let server = format!("--server=https://{name}");
        let ca = format!("--certificate-authority={account}/ca.crt");
        let said = inside(&[&server, &ca, &format!("--token={token}"), "get", "pods", "-o", "name"]);
        assert_eq!(said.out, "pod/inside\n", "{name}: {}", said.err);
    }
    // What the role does not allow is refused, by name of the account.
    let refused = inside(&["delete", "pod", "inside"]).fails();
    assert!(refused.contains("system:serviceaccount:default:default"), "{refused}");
}

#[test]
fn node_ports_lead_in_from_outside_and_clashes_are_told() {
    let mut node = Node::start();
    let outside = peer::Peer::start();
    let port = 30_000 + u16::try_from(std::process::id() % 2700).unwrap();
    let spec = |address: &str, port: u16| {
        format!(
            "{{type: NodePort, {address}selector: {{app: web}}, ports: [{{port: 80, targetPort: http, nodePort: {port}}}]}}"
        )
    };
    node.apply(&[web("one", ""), client("c", ""), service("web", &spec("", port))].concat());
    for pod in ["one", "c"] {
        node.wait_for(&format!("pod/{pod}"), r#"{.status.conditions[?(@.type=="Ready")].status}"#, "True");
    }
    let to = SocketAddr::new(outside.host.into(), port);
    let greeted = |said: Option<String>| said.is_some_and(|said| said.ends_with("ok\n"));
    eventually("the node port", || greeted(outside.get(to)).then_some(()));
    assert!(greeted(peer::http_get(to)), "from the machine");
    assert!(greeted(peer::http_get(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))), "on loopback");
    assert_eq!(reaches(&node, "c", &format!("http://{}:{port}/hostname", outside.host)), "one");
    // The same port, the same address.
    let ip = node.field("service/web", "{.spec.clusterIP}");
    let clash = node.with_manifest(&["create"], &service("other", &spec("", port))).fails();
    assert!(clash.contains("provided port is already allocated"), "{clash}");
    let clash = node
        .with_manifest(&["create"], &service("other", &spec(&format!("clusterIP: {ip}, "), port + 1)))
        .fails();
    assert!(clash.contains("provided IP is already allocated"), "{clash}");
    let range = node.with_manifest(&["create"], &service("other", &spec("", 80))).fails();
    assert!(range.contains("The range of valid ports is 30000-32767"), "{range}");
    // Rules outlive the daemon, and a firewall that flushes them.
    node.kill_9();
    assert!(greeted(outside.get(to)), "without a daemon");
    node.launch();
    assert!(greeted(outside.get(to)), "after a restart");
    let bridge = node.option("--bridge").to_owned();
    assert!(Command::new("nft").args(["delete", "table", "ip", &bridge]).status().unwrap().success());
    eventually("the rules to come back", || greeted(outside.get(to)).then_some(()));
    node.kubectl(&["delete", "service", "web"]).ok();
    eventually("the node port to close", || outside.get(to).is_none().then_some(()));
}

#[test]
fn services_without_a_selector_lead_where_their_slices_say() {
    let node = Node::start();
    let outside = peer::Peer::start();
    node.apply(&[
        client("c", ""),
        service("legacy", "{ports: [{port: 80, targetPort: 7777}]}"),
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: legacy-1, labels: {{kubernetes.io/service-name: legacy}}}}\n\
             addressType: IPv4\nports: [{{name: '', port: 7777, protocol: TCP}}]\nendpoints: [{{addresses: [{}]}}]\n---\n",
            outside.address
        ),
    ]
    .concat());
    node.wait_for("pod/c", "{.status.phase}", "Running");
    let telling = outside.tell_the_source(7777);
    // The answer finds its way back through the machine.
    assert_eq!(reaches(&node, "c", "http://legacy/"), outside.host.to_string());
    telling.join().unwrap();
    // Endpoints that somebody wrote by hand become slices.
    node.apply(&[
        service("older", "{ports: [{port: 80, targetPort: 7778}]}"),
        format!(
            "apiVersion: v1\nkind: Endpoints\nmetadata: {{name: older}}\nsubsets: [{{addresses: [{{ip: {}}}], ports: [{{port: 7778}}]}}]\n---\n",
            outside.address
        ),
    ]
    .concat());
    let telling = outside.tell_the_source(7778);
    assert_eq!(reaches(&node, "c", "http://older/"), outside.host.to_string());
    telling.join().unwrap();
}

#[test]
fn the_dns_server_answers_pods_and_the_machine_but_nobody_outside() {
    let node = Node::start();
    let outside = peer::Peer::start();
    node.apply(&client("c", ""));
    node.wait_for("pod/c", "{.status.phase}", "Running");
    let slice = ["get", "endpointslice", "kube-dns", "-n", "kube-system", "-o"];
    let endpoint = |path: &str| node.kubectl(&[&slice[..], &[path]].concat()).ok();
    let address = endpoint("jsonpath={.endpoints[0].addresses[0]}");
    let port: u16 = endpoint("jsonpath={.ports[0].port}").parse().unwrap();
    // A query for the API's address, by hand: what matters is who gets an answer.
    let ask = "import socket,sys\n\
        s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(2)\n\
        q=b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0'+b''.join(bytes([len(l)])+l for l in b'kubernetes.default.svc.cluster.local'.split(b'.'))+b'\\0\\0\\1\\0\\1'\n\
        s.sendto(q,(sys.argv[1],int(sys.argv[2])))\n\
        print(socket.inet_ntoa(s.recv(512)[-4:]))\n";
    let api = node.field("service/kubernetes", "{.spec.clusterIP}");
    let service = node
        .kubectl(&["get", "service", "kube-dns", "-n", "kube-system", "-o", "jsonpath={.spec.clusterIP}"])
        .ok();
    let said = |output: std::process::Output| String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let query = |to: &str, port: u16| {
        let port = port.to_string();
        ["python3", "-c", ask, to, &port].map(str::to_owned)
    };
    let in_pod = |to: &str, port: u16| {
        let command = query(to, port);
        said(in_pods_network(&node, "c", &command.each_ref().map(String::as_str)))
    };
    assert_eq!(in_pod(&service, 53), api);
    assert_eq!(in_pod(&address, port), api);
    let here = query(&service, 53);
    assert_eq!(said(Command::new(&here[0]).args(&here[1..]).output().unwrap()), api);
    let there = query(&address, port);
    assert_eq!(said(outside.run(&there.each_ref().map(String::as_str))), "", "outside");
    // Nobody takes the cluster's DNS away with its slice.
    node.kubectl(&["delete", "endpointslice", "kube-dns", "-n", "kube-system"]).ok();
    eventually("the slice again", || {
        (node.kubectl(&[&slice[..], &["name"]].concat()).code == 0).then_some(())
    });
    eventually("an answer again", || (in_pod(&service, 53) == api).then_some(()));
}

/// The example, with a node port that nobody else has.
#[test]
fn the_guestbook_example_runs_with_one_command() {
    let node = Node::start();
    let port = 32_700 + std::process::id() % 60;
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/guestbook.yaml"));
    node.apply(&text.unwrap().replace("30080", &port.to_string()));
    node.wait_for("pod/visitor", "{.status.phase}", "Succeeded");
    assert_eq!(node.kubectl(&["logs", "visitor"]).ok(), "Hello from visitor\n");
    let said = Command::new("curl").args(["-s", &format!("http://127.0.0.1:{port}/")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "Hello from visitor\n");
}
