//! A node on another machine: its pods, their network and names are the cluster's.

use crate::fixture::{Node, free_port, peer::Peer};

const PODS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {selector: {app: far}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec: {selector: {app: near}, ports: [{port: 80, targetPort: 8080}]}
---
"#;

fn web(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  nodeName: {node}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: sampan.local/toolbox\n    command: [httpd, -p, '8080']\n---\n"
    )
}

#[test]
fn pods_of_two_machines_are_one_cluster() {
    let machine = Peer::start();
    let mut server = Node::prepare(&["--stop-pods=true"]);
    server.replace_option("127.0.0.1", &machine.host.to_string());
    let range = server.option("--cluster-cidr").trim_end_matches("0/24").to_owned();
    server.add_option("--pod-cidr", &format!("{range}0/25"));
    server.launch();
    let mut agent = Node::join(&server, &machine, &format!("{range}128/25"));
    server.apply(&format!("{PODS}{}{}", web("far", agent.name()), web("near", server.name())));
    for pod in ["far", "near"] {
        server.wait_for(&format!("pod/{pod}"), "{.status.conditions[?(@.type==\"Ready\")].status}", "True");
    }
    assert_eq!(server.field("pod/far", "{.status.hostIP}"), machine.address.to_string());
    assert!(server.field("pod/far", "{.status.podIP}").starts_with(&range));

    // Each finds the other by name, through its Service, and by address: the far one asks the server's DNS.
    for (from, to) in [("near", "far"), ("far", "near")] {
        let address = server.field(&format!("pod/{to}"), "{.status.podIP}");
        for url in [format!("http://{to}.default.svc/"), format!("http://{address}:8080/")] {
            let page = crate::fixture::eventually(&format!("{from} to reach {url}"), || {
                let said = server.kubectl(&["exec", from, "--", "wget", "-q", "-O-", &url]);
                (said.code == 0).then_some(said.out)
            });
            assert!(!page.is_empty(), "{from} {url}");
        }
    }
    // The one that was asked has seen the asker's own address.
    let near = server.field("pod/near", "{.status.podIP}");
    assert!(
        server.kubectl(&["logs", "far"]).ok().contains(&near),
        "{}",
        server.kubectl(&["logs", "far"]).out
    );
    let top = format!("/api/v1/nodes/{}/proxy/stats/summary", agent.name());
    assert!(server.kubectl(&["get", "--raw", &top]).ok().contains("\"far\""));

    // It may write what is its own, and nothing of others.
    let other = agent.kubectl(&["label", "node", server.name(), "x=y"]);
    assert!(other.code != 0 && other.err.contains("Forbidden"), "{}{}", other.out, other.err);

    // The agent may die and come back: its pod does not notice.
    let before = server.field("pod/far", "{.status.containerStatuses[0].containerID}");
    agent.kill_9();
    agent.launch();
    assert_eq!(server.kubectl(&["exec", "far", "--", "hostname"]).ok(), "far\n");
    assert_eq!(server.field("pod/far", "{.status.containerStatuses[0].containerID}"), before);
    server.kubectl(&["delete", "pod", "far", "near", "--timeout=60s"]).ok();

    // POD-51: it begins without the server, too, and runs what is its own.
    let (manifests, port) = (agent.path("manifests"), free_port());
    std::fs::create_dir(&manifests).unwrap();
    std::fs::write(
        manifests.join("own.yaml"),
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: own}}\nspec:\n  hostNetwork: true\n  terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: sampan.local/toolbox\n    command: [httpd, -p, '{port}']\n"
        ),
    )
    .unwrap();
    agent.add_option("--pod-manifest-path", manifests.to_str().unwrap());
    server.kill_9();
    agent.kill_9();
    agent.spawn();
    let own = std::net::SocketAddr::from((machine.address, port));
    crate::fixture::eventually("the agent's own pod", || machine.get(own));
    server.launch();
    server.wait_for(&format!("pod/own-{}", agent.name()), "{.status.phase}", "Running");
    let node = format!("node/{}", agent.name());
    server.wait_for(&node, "{.status.conditions[?(@.type==\"Ready\")].status}", "True");
}

#[test]
fn an_agent_says_what_is_wrong_with_its_identity() {
    let machine = Peer::start();
    let mut server = Node::prepare(&["--stop-pods=true"]);
    server.replace_option("127.0.0.1", &machine.host.to_string());
    server.launch();
    let data = server.path("data").display().to_string();
    let url = format!("https://{}:{}", machine.host, server.option("--https-listen-port"));
    let kubeconfig = |args: &[&str]| {
        let said = server.sampan_alone(&[&["kubeconfig", "--data-dir", &data], args].concat());
        std::fs::write(server.path("joining"), &said.out).unwrap();
        said
    };
    let path = server.path("joining").display().to_string();
    let run = server.path("other-run").display().to_string();
    let agent = |name: &str| {
        let dir = server.path("other").display().to_string();
        let args =
            ["agent", "--kubeconfig", &path, "--node-name", name, "--data-dir", &dir, "--run-dir", &run];
        server.sampan_alone(&args)
    };
    kubeconfig(&["--server", &url, "--node", "n2"]).ok();
    let other = agent("n3");
    assert!(other.code == 1 && other.err.contains("give --node-name n2"), "{}", other.err);
    let missing = server.sampan_alone(&["agent", "--data-dir", &data, "--run-dir", &run]);
    assert!(missing.err.contains("sampan kubeconfig --node NAME"), "{}", missing.err);
    let nowhere =
        server.sampan_alone(&["kubeconfig", "--server", &url, "--node", "n2", "--data-dir", "/nonexistent"]);
    assert!(nowhere.code == 1 && nowhere.err.contains("no certificate authority"), "{}", nowhere.err);
    let user = kubeconfig(&["--server", &url, "--user", "jane", "--group", "readers"]).ok();
    assert!(user.contains("jane@sampan"), "{user}");
    let who = server.kubectl(&["--kubeconfig", &path, "auth", "whoami"]).ok();
    assert!(who.contains("jane") && who.contains("readers"), "{who}");
}

#[test]
fn an_agent_renews_its_certificates() {
    let machine = Peer::start();
    let mut server = Node::prepare(&["--stop-pods=true"]);
    server.replace_option("127.0.0.1", &machine.host.to_string());
    let range = server.option("--cluster-cidr").trim_end_matches("0/24").to_owned();
    server.add_option("--pod-cidr", &format!("{range}0/25"));
    server.launch();
    let mut agent = Node::join(&server, &machine, &format!("{range}128/25"));
    // Of a certificate for a minute, which counts from five minutes ago, 90 % are over within 24 s.
    let url = format!("https://{}:{}", machine.host, server.option("--https-listen-port"));
    let data = server.path("data").display().to_string();
    let args = ["kubeconfig", "--node", agent.name(), "--server", &url, "--data-dir", &data];
    let short = server.sampan_alone(&[&args[..], &["--expiration-seconds", "60"]].concat()).ok();
    agent.kill_9();
    std::fs::write(agent.path("kubeconfig"), short).unwrap();
    agent.launch();
    let renewed = ["agent-client.pem", "agent-serving.pem"].map(|name| agent.path("data/pki").join(name));
    crate::fixture::eventually("both certificates", || {
        renewed.iter().all(|file| file.exists()).then_some(())
    });
    // The one that it was given is good for nothing any more.
    crate::fixture::eventually("the end of the first one", || {
        let said = agent.kubectl(&["get", "node", agent.name()]);
        (said.code != 0).then_some(())
    });
    server.apply(&web("far", agent.name()));
    server.wait_for("pod/far", "{.status.conditions[?(@.type==\"Ready\")].status}", "True");
    assert_eq!(server.kubectl(&["exec", "far", "--", "hostname"]).ok(), "far\n");
    let requests = "jsonpath={range .items[*]}{.spec.signerName} {.spec.username} {.status.conditions[0].type}{\"\\n\"}{end}";
    let listed = server.kubectl(&["get", "csr", "-o", requests]).ok();
    for signer in ["kube-apiserver-client-kubelet", "kubelet-serving"] {
        let line = format!("kubernetes.io/{signer} system:node:{} Approved", agent.name());
        assert!(listed.lines().any(|listed| listed == line), "{listed}");
    }
    server.kubectl(&["delete", "pod", "far", "--timeout=60s"]).ok();
}

#[test]
fn what_somebody_approves_is_signed() {
    let server = Node::start();
    let key = rcgen::KeyPair::generate().unwrap();
    let request = |group: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem)
    };
    let csr = |name: &str, request: &str| {
        format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec:\n  username: somebody-else\n  signerName: kubernetes.io/kube-apiserver-client\n  usages: [digital signature, client auth]\n  request: {request}\n---\n"
        )
    };
    server.apply(&[csr("jane", &request("readers")), csr("root", &request("system:masters"))].concat());
    assert_eq!(
        server.field("csr/jane", "{.spec.username}"),
        "kubernetes-admin",
        "who asks is not for them to say"
    );
    assert_eq!(server.field("csr/jane", "{.status.certificate}"), "", "nobody has approved it");
    server.kubectl(&["certificate", "approve", "jane", "root"]).ok();
    let signed = server.field("csr/jane", "{.status.certificate}");
    let pem = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, signed).unwrap();
    let (certificate, secret) = (server.path("jane.crt"), server.path("jane.key"));
    std::fs::write(&certificate, pem).unwrap();
    std::fs::write(&secret, key.serialize_pem()).unwrap();
    let config = server.path("jane.kubeconfig");
    let admin = std::fs::read_to_string(server.path("kubeconfig")).unwrap();
    let as_jane: String = admin
        .lines()
        .map(|line| match line.trim().split(':').next() {
            Some("client-certificate-data") => format!("    client-certificate: {}\n", certificate.display()),
            Some("client-key-data") => format!("    client-key: {}\n", secret.display()),
            _ => format!("{line}\n"),
        })
        .collect();
    std::fs::write(&config, as_jane).unwrap();
    let who = server.kubectl(&["--kubeconfig", config.to_str().unwrap(), "auth", "whoami"]).ok();
    assert!(who.contains("jane") && who.contains("readers"), "{who}");
    assert_eq!(server.field("csr/root", "{.status.certificate}"), "");
    assert_eq!(
        server.field("csr/root", "{.status.conditions[?(@.type==\"Failed\")].reason}"),
        "SignerValidationFailure"
    );
    let none = server.with_manifest(&["create"], &csr("none", "bm9uZQ==")).fails();
    assert!(none.contains("spec.request"), "{none}");
}
