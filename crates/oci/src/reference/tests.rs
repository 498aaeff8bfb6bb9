//! The grammar of image names, one test per behaviour.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn parts(name: &str) -> (String, String, String) {
    let r = Reference::parse(name).unwrap();
    (
        r.repository().to_owned(),
        r.tag().unwrap_or_default().to_owned(),
        r.digest().map(ToString::to_string).unwrap_or_default(),
    )
}

fn cause(name: &str) -> String {
    let error = Reference::parse(name).unwrap_err();
    let prefix = format!("couldn't parse image name {}: ", go_quote(name));
    error.to_string().strip_prefix(&prefix).unwrap().to_owned()
}

fn sha(c: char) -> String {
    format!("sha256:{}", c.to_string().repeat(64))
}

#[test]
fn img_01_img_02_img_03_names_without_a_host_belong_to_docker_hub() {
    assert_eq!(parts("root"), ("docker.io/library/root".into(), "latest".into(), String::new()));
    assert_eq!(parts("root:tag").0, "docker.io/library/root");
    assert_eq!(parts("root:tag").1, "tag");
    assert_eq!(parts("user/repo"), ("docker.io/user/repo".into(), "latest".into(), String::new()));
    assert_eq!(parts("docker.io/ubuntu").0, "docker.io/library/ubuntu");
    assert_eq!(parts("quay.io/ubuntu").0, "quay.io/ubuntu");
}

#[test]
fn img_04_what_counts_as_a_host() {
    assert_eq!(parts("foo:5000").0, "docker.io/library/foo");
    assert_eq!(parts("foo:5000").1, "5000");
    assert_eq!(parts("localhost/x").0, "localhost/x");
    assert_eq!(parts("Host/x").0, "Host/x");
    assert_eq!(parts("a.b/x").0, "a.b/x");
    assert_eq!(parts("a:1/x").0, "a:1/x");
    assert_eq!(parts("ab/x").0, "docker.io/ab/x");
}

#[test]
fn img_05_the_legacy_hub_host() {
    assert_eq!(parts("index.docker.io/busybox").0, "docker.io/library/busybox");
    assert_eq!(parts("index.docker.io/a/b").0, "docker.io/a/b");
}

#[test]
fn img_06_ipv6_hosts_are_bracketed() {
    assert_eq!(parts("[::1]:5000/x").0, "[::1]:5000/x");
    assert_eq!(parts("[fe80::1]/x:t").1, "t");
    assert_eq!(cause("[fe80::1%eth0]/x"), "invalid reference format");
    assert_eq!(cause("::1/x"), "invalid reference format");
    assert_eq!(cause("-a.b/x"), "invalid reference format");
    assert_eq!(cause("a-.b/x"), "invalid reference format");
    assert_eq!(parts("a-b.c/x").0, "a-b.c/x");
}

#[test]
fn img_07_the_port_stays_in_the_repository() {
    assert_eq!(parts("url:5000/repo"), ("url:5000/repo".into(), "latest".into(), String::new()));
    assert_eq!(parts("url:5000/repo:tag"), ("url:5000/repo".into(), "tag".into(), String::new()));
    let r = Reference::parse("url:5000/a/b").unwrap();
    assert_eq!((r.host(), r.path()), ("url:5000", "a/b"));
}

#[test]
fn img_08_long_paths() {
    let path = format!("a/{}", "b".repeat(253));
    assert!(Reference::parse(&format!("h.io/{path}")).is_ok());
    assert_eq!(cause(&format!("h.io/{path}b")), "repository name must not be more than 255 characters");
}

#[test]
fn img_09_tags() {
    for tag in ["_x", "1.0-a_b", "A", &"t".repeat(128)] {
        assert_eq!(parts(&format!("root:{tag}")).1, tag);
    }
    for tag in [".x", "-x", "", "a b", "ä", &"t".repeat(129)] {
        assert_eq!(cause(&format!("root:{tag}")), "invalid reference format", "{tag:?}");
    }
}

#[test]
fn img_10_path_components() {
    for ok in ["a.b", "a_b", "a__b", "a-b", "a---b", "0/1"] {
        assert!(Reference::parse(ok).is_ok(), "{ok}");
    }
    for bad in ["a..b", "a___b", "a._b", ".a", "a.", "_a", "a-", "a//b", "/a", "a/", "", "a b", "a/.b"] {
        assert_eq!(cause(bad), "invalid reference format", "{bad:?}");
    }
}

#[test]
fn img_11_upper_case_is_rejected() {
    assert_eq!(cause("ROOT"), "invalid reference format: repository name (library/ROOT) must be lowercase");
    assert_eq!(
        cause("FAILED_IMAGE"),
        "invalid reference format: repository name (library/FAILED_IMAGE) must be lowercase"
    );
    assert_eq!(cause("h.io/A/b:t"), "invalid reference format: repository name (A/b) must be lowercase");
}

#[test]
fn img_12_img_17_digests() {
    let d = sha('a');
    assert_eq!(parts(&format!("root@{d}")), ("docker.io/library/root".into(), String::new(), d.clone()));
    assert_eq!(parts(&format!("root:t@{d}")), ("docker.io/library/root".into(), "t".into(), d.clone()));
    assert_eq!(Reference::parse(&format!("root:t@{d}")).unwrap().version(), d);
    assert_eq!(cause(&format!("root@sha256:{}", "a".repeat(40))), "invalid checksum digest length");
    assert_eq!(cause("root@sha256:abc"), "invalid reference format");
    assert_eq!(cause(&format!("root@md5:{}", "a".repeat(32))), "unsupported digest algorithm");
    assert_eq!(cause(&format!("root@{}", sha('A'))), "invalid checksum digest format");
}

#[test]
fn img_13_ids_and_schemes_are_no_names() {
    let id = "0".repeat(64);
    assert_eq!(
        cause(&id),
        format!("invalid repository name ({id}), cannot specify 64-byte hexadecimal strings")
    );
    assert_eq!(cause("http://root"), "invalid reference format");
}

#[test]
fn img_14_the_name_is_quoted_as_written() {
    assert_eq!(
        Reference::parse("http://root").unwrap_err().to_string(),
        "couldn't parse image name \"http://root\": invalid reference format"
    );
}

#[test]
fn img_15_img_16_the_default_tag_is_appended_to_what_was_written() {
    let d = sha('b');
    assert_eq!(with_default_tag("root").unwrap(), "root:latest");
    assert_eq!(with_default_tag("url:5000/repo").unwrap(), "url:5000/repo:latest");
    for same in ["root:tag", "root:latest", &format!("root@{d}"), &format!("root:latest@{d}")] {
        assert_eq!(with_default_tag(same).unwrap(), *same);
    }
    assert!(with_default_tag("ROOT").is_err());
}

#[test]
fn img_49_architecture_suffixes_mean_nothing() {
    assert_eq!(parts("h.io/pause-amd64:3").0, "h.io/pause-amd64");
}

proptest! {
    #[test]
    fn parsing_never_panics_and_displays_what_parses_again(s in "[a-zA-Z0-9./:@_\\-\\[\\]]{0,80}") {
        if let Ok(r) = Reference::parse(&s) {
            prop_assert_eq!(Reference::parse(&r.to_string()).unwrap(), r);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(s in "\\PC{0,60}") {
        let _ = Reference::parse(&s);
    }
}
