//! The fuzzers' entry points with seeded mutations of good documents: bounded, and the same every time.
#![allow(clippy::unwrap_used)]

use sampan_oci::fuzzing;

/// A small generator of numbers that is the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % sides.max(1)
    }
}

const TOKENS: [&[u8]; 20] = [
    b"null",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"/",
    b"@",
    b"sha256:",
    b"\xff",
    b"\0",
    b"-1",
    b"1e400",
    b"18446744073709551616",
    b"=",
    b"..",
    b"\\u0000",
    b"true",
];

fn mutated(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len() + 1);
        match dice.roll(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..at, TOKENS[dice.roll(TOKENS.len())].iter().copied())),
            3 => {
                let end = (at + dice.roll(20)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + dice.roll(40)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = dice.roll(bytes.len() + 1);
                drop(bytes.splice(to..to, piece));
            }
        }
    }
    bytes
}

fn run(entry: fn(&[u8]), seeds: &[&str]) {
    let mut dice = Dice(0x5eed_5eed);
    for seed in seeds {
        entry(seed.as_bytes());
        for _ in 0..1500 {
            entry(&mutated(seed.as_bytes(), &mut dice));
        }
    }
}

const D: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

#[test]
fn references() {
    run(
        fuzzing::reference,
        &["busybox", "h.io:5000/a/b-c__d:1.0@", "[::1]:5000/x:y", "linux/arm/v7", &format!("a/b@{D}")],
    );
}

#[test]
fn manifests_and_configurations() {
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"{D}","size":2}},"layers":[{{"digest":"{D}","size":3,"urls":["http://x"]}}]}}"#
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{D}","size":3,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
    );
    run(fuzzing::manifest, &[&manifest, &index, r#"{"schemaVersion":1}"#]);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"],"Volumes":{{"/x":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":["{D}"]}}}}"#
    );
    run(fuzzing::config, &[&config]);
}

#[test]
fn hosts_files() {
    run(
        fuzzing::hosts,
        &[
            "server = \"https://a\"\n[host.\"https://b/c\"]\n capabilities = [\"pull\", \"resolve\"]\n ca = [\"x\"]\n",
            "client = [[\"a\", \"b\"]]\ndial_timeout = \"3s\"\n[header]\n x = [\"1\"]\n",
        ],
    );
}

#[test]
fn challenges() {
    run(
        fuzzing::challenge,
        &[
            r#"Bearer realm="https://a/token",service="reg",scope="repository:a/b:pull,push""#,
            r#"Digest realm="a\"b", qop=auth, Basic realm="x", Bearer realm="c" , service=d"#,
        ],
    );
}
