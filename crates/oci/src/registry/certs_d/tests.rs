//! The layout as containerd documents it, and files that are wrong.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn hosts(&self) -> CertsD {
        CertsD::new(vec![self.0.path().to_path_buf()], BTreeSet::new())
    }
}

fn urls(hosts: &CertsD, host: &str, capability: Capability) -> Vec<String> {
    let endpoints = hosts.endpoints(host, capability).unwrap();
    endpoints.iter().map(|e| format!("{}{}", e.origin, e.path)).collect()
}

#[test]
fn mirrors_come_in_the_order_of_the_file_and_the_server_last() {
    let dir = Dir::new();
    dir.write(
        "docker.io/hosts.toml",
        r#"
        server = "https://registry-1.docker.io"
        [host."https://z-first.lan"]
          capabilities = ["pull", "resolve"]
        [host."http://a-second.lan:5000/docker-hub"]
          capabilities = ["pull"]
        [host."https://third.lan/v2/proxy"]
          override_path = true
        [host."fourth.lan"]
          skip_verify = true
          dial_timeout = "500ms"
        "#,
    );
    let hosts = dir.hosts();
    assert_eq!(
        urls(&hosts, "docker.io", Capability::Pull),
        [
            "https://z-first.lan/v2",
            "http://a-second.lan:5000/docker-hub/v2",
            "https://third.lan/v2/proxy",
            "https://fourth.lan/v2",
            "https://registry-1.docker.io/v2"
        ]
    );
    assert_eq!(urls(&hosts, "docker.io", Capability::Resolve).len(), 4, "the second cannot resolve");
    let all = hosts.endpoints("docker.io", Capability::Pull).unwrap();
    assert_eq!(all[0].namespace.as_deref(), Some("docker.io"));
    assert!(!all[0].credentials && all[4].credentials, "credentials are not for mirrors");
    assert_eq!((all[4].namespace.as_deref(), all[3].skip_verify), (None, true));
    assert_eq!(all[3].connect_timeout, Some(std::time::Duration::from_millis(500)));
    assert_eq!(urls(&hosts, "quay.io", Capability::Pull), ["https://quay.io/v2"]);
}

#[test]
fn directories_for_ports_and_for_all_others() {
    let dir = Dir::new();
    dir.write("a.lan_5000_/hosts.toml", "server = \"http://one\"");
    dir.write("b.lan:5000/hosts.toml", "server = \"http://two\"");
    dir.write("_default/hosts.toml", "[host.\"http://cache.lan\"]");
    let hosts = dir.hosts();
    assert_eq!(urls(&hosts, "a.lan:5000", Capability::Pull), ["http://one/v2"]);
    assert_eq!(urls(&hosts, "b.lan:5000", Capability::Pull), ["http://two/v2"]);
    assert_eq!(urls(&hosts, "c.lan", Capability::Pull), ["http://cache.lan/v2", "https://c.lan/v2"]);
    assert_eq!(urls(&hosts, "../x", Capability::Pull)[0], "http://cache.lan/v2");
    assert_eq!(directories_of("[::1]:5000"), ["[1]_5000_", "[::1]:5000", "_default"]);
    assert_eq!(directories_of("[::1]"), ["[::1]", "_default"]);
}

#[test]
fn changes_are_seen_without_a_restart() {
    let dir = Dir::new();
    let hosts = dir.hosts();
    assert_eq!(urls(&hosts, "h.lan", Capability::Pull), ["https://h.lan/v2"]);
    dir.write("h.lan/hosts.toml", "[host.\"http://m1\"]");
    assert_eq!(urls(&hosts, "h.lan", Capability::Pull)[0], "http://m1/v2");
    dir.write("h.lan/hosts.toml", "[host.\"http://mirror2\"]\nca = \"own.pem\"");
    assert!(hosts.endpoints("h.lan", Capability::Pull).unwrap_err().reason.contains("no such file"));
    dir.write("h.lan/own.pem", "pem");
    let endpoints = hosts.endpoints("h.lan", Capability::Pull).unwrap();
    assert_eq!(endpoints[0].tls.as_ref().unwrap().authorities, [b"pem".to_vec()]);
    fs::remove_dir_all(dir.0.path().join("h.lan")).unwrap();
    assert_eq!(urls(&hosts, "h.lan", Capability::Pull), ["https://h.lan/v2"]);
}

#[test]
fn certificates_headers_and_docker_style_directories() {
    let dir = Dir::new();
    dir.write(
        "reg.lan/hosts.toml",
        r#"
        ca = ["a.pem", "b.pem"]
        client = [["c.pem", "c.key"]]
        [header]
          x-one = "1"
          authorization = ["Basic c2VjcmV0"]
        "#,
    );
    for (name, text) in [("a.pem", "a"), ("b.pem", "b"), ("c.pem", "cert"), ("c.key", "key")] {
        dir.write(&format!("reg.lan/{name}"), text);
    }
    dir.write("old.lan/ca.crt", "authority");
    dir.write("old.lan/me.cert", "cert");
    dir.write("old.lan/me.key", "key");
    let hosts = dir.hosts();
    let endpoint = hosts.endpoints("reg.lan", Capability::Pull).unwrap().remove(0);
    let tls = endpoint.tls.clone().unwrap();
    assert_eq!((tls.authorities.len(), tls.client.clone()), (2, Some((b"cert".into(), b"key".into()))));
    assert_eq!(endpoint.headers.get("x-one").unwrap(), "1");
    assert!(!format!("{endpoint:?}").contains("c2VjcmV0"), "headers may be secrets");
    let old = hosts.endpoints("old.lan", Capability::Pull).unwrap().remove(0).tls.unwrap();
    assert_eq!(old.authorities, [b"authority".to_vec()]);
    assert!(old.client.is_some());
}

#[test]
fn what_is_wrong_is_named_with_file_and_key() {
    let dir = Dir::new();
    let cases = [
        ("server = 1", "server: must be a string"),
        ("[host.\"https://m\"]\ncapabilities = \"pull\"", "capabilities: must be a list"),
        ("[host.\"https://m\"]\ncapabilities = [\"pul\"]", "unknown capability \"pul\""),
        ("[host.\"ftp://m\"]", "scheme must be http or https"),
        ("[host.\"https://joe:hunter2@m\"]", "must not carry user and password"),
        ("skip_verify = \"yes\"", "skip_verify: must be true or false"),
        ("dial_timeout = \"soon\"", "is not a duration"),
        ("a = \n[[", "line 1"),
        ("host = 3", "must be tables"),
        ("[header]\n\"a b\" = \"x\"", "no header name"),
    ];
    for (text, expected) in cases {
        dir.write("h.lan/hosts.toml", text);
        let error = dir.hosts().endpoints("h.lan", Capability::Pull).unwrap_err().to_string();
        assert!(error.contains("h.lan/hosts.toml: ") && error.contains(expected), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    // What another runtime knows is not our mistake to report.
    dir.write("h.lan/hosts.toml", "future_key = true\n[host.\"https://m\".rewrite]\n\"a\" = \"b\"");
    assert_eq!(dir.hosts().endpoints("h.lan", Capability::Pull).unwrap().len(), 2);
}

#[test]
fn timeouts_are_in_go_notation() {
    let timeout = |text: &str| HostsFile::parse(format!("dial_timeout = {text:?}").as_bytes());
    for (text, millis) in
        [("500ms", 500), ("3s", 3_000), ("1m30s", 90_000), ("1.5h", 5_400_000), (".5s", 500), ("2000µs", 2)]
    {
        let expected = Some(std::time::Duration::from_millis(millis));
        assert_eq!(timeout(text).unwrap().server.dial_timeout, expected, "{text}");
    }
    for bad in ["", "0", "0s", "10", "s", "1x", "-1s", "1m30", "1..5s", "1e3s"] {
        assert!(timeout(bad).unwrap_err().contains("is not a duration"), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = HostsFile::parse(&bytes);
    }

    #[test]
    fn any_file_of_its_words_is_read_or_refused(
        words in proptest::collection::vec(prop_oneof![
            Just("server"), Just("="), Just("\"https://h\""), Just("[host.\"m\"]"), Just("\n"), Just("ca"),
            Just("["), Just("]"), Just("client"), Just("true"), Just("capabilities"), Just("[header]"), Just(","),
            Just("\"pull\""), Just("dial_timeout"), Just("\"1e999s\""),
        ], 0..40)
    ) {
        let _ = HostsFile::parse(words.concat().as_bytes());
    }
}
