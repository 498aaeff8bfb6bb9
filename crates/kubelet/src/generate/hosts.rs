//! The `/etc/hosts` file that containers get (ENV-13, ENV-14, ENV-15).

use k8s_openapi::api::core::v1::HostAlias;

/// The file of a pod on the pod network.
#[must_use]
pub fn pod_hosts(pod_ips: &[String], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut file = String::from(
        "# Kubernetes-managed hosts file.\n\
         127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    for ip in pod_ips {
        if domain.is_empty() {
            file.push_str(&format!("{ip}\t{hostname}\n"));
        } else {
            file.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n"));
        }
    }
    file.push_str(&alias_block(aliases));
    file
}

/// The file of a pod on the host's network: the node's own, and the aliases.
#[must_use]
pub fn host_network_hosts(node_hosts: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}{}", alias_block(aliases))
}

/// How much of a hosts file is looked at: containers may write what they like into theirs.
const LOOKED_AT: u64 = 64 << 10;

/// Whether a pod's hosts file has a line for the address.
pub(crate) fn has_address(file: &std::path::Path, ip: &str) -> bool {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    read.is_ok() && text.lines().any(|line| line.split_whitespace().next() == Some(ip))
}

fn alias_block(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut block = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        block.push_str(&format!(
            "{}\t{}\n",
            alias.ip,
            alias.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t")
        ));
    }
    block
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn env_13_an_address_is_a_whole_field_and_a_huge_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc-hosts");
        assert!(!has_address(&path, "10.0.0.2"), "no file");
        std::fs::write(&path, "10.0.0.21\tp\n# 10.0.0.2\n").unwrap();
        assert!(!has_address(&path, "10.0.0.2") && has_address(&path, "10.0.0.21"));
        // A container's `truncate -s 30G /etc/hosts` costs no disk, and would cost us as much memory.
        std::fs::File::options().write(true).open(&path).unwrap().set_len(30 << 30).unwrap();
        assert!(has_address(&path, "10.0.0.21"));
    }

    #[test]
    fn env_13_14_pod_network() {
        let aliases = [HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["foo".into(), "bar".into()]) }];
        let file = pod_hosts(&["10.0.0.2".into()], "p", "", &aliases);
        assert_eq!(
            file,
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
             10.0.0.2\tp\n\n# Entries added by HostAliases.\n1.2.3.4\tfoo\tbar\n"
        );
        let file = pod_hosts(&["10.0.0.2".into(), "fd::2".into()], "p", "s.n.svc.d", &[]);
        assert!(file.ends_with("10.0.0.2\tp.s.n.svc.d\tp\nfd::2\tp.s.n.svc.d\tp\n"));
    }

    #[test]
    fn env_15_host_network() {
        let aliases = [HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["foo".into()]) }];
        assert_eq!(
            host_network_hosts("127.0.0.1 localhost\n", &aliases),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n\n# Entries added by HostAliases.\n1.2.3.4\tfoo\n"
        );
    }
}
