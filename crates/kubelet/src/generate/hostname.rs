//! A pod's host name and domain (ENV-06 to ENV-11).

use k8s_openapi::api::core::v1::Pod;

use crate::pod_ref;

/// The longest host name that the kernel takes, minus its final NUL.
const KERNEL_LIMIT: usize = 64;

/// A pod's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// The short name, as `hostname` prints it.
    pub hostname: String,
    /// `<subdomain>.<ns>.svc.<domain>`, empty without a subdomain.
    pub domain: String,
    /// What the kernel is given: the short name, or the full one with `setHostnameAsFQDN`.
    pub kernel: String,
}

/// Computes the names of `pod`.
///
/// # Errors
/// A full name that the kernel does not take (ENV-10).
pub fn host_name(pod: &Pod, cluster_domain: &str) -> Result<HostName, String> {
    let spec = pod_ref::spec(pod);
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return Ok(HostName { hostname: name.to_owned(), domain: String::new(), kernel: name.to_owned() });
    }
    let wanted = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(pod_ref::name(pod));
    let hostname = truncate(wanted);
    let domain = match spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{}.svc.{cluster_domain}", pod_ref::namespace(pod)),
        None => String::new(),
    };
    let kernel = if spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        let full = format!("{hostname}.{domain}");
        if full.len() > KERNEL_LIMIT {
            return Err(format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long \
                 ({KERNEL_LIMIT} characters is the max, {} characters requested)",
                full.len()
            ));
        }
        full
    } else {
        hostname.clone()
    };
    Ok(HostName { hostname, domain, kernel })
}

/// At most 63 characters, not ending in `-` or `.`.
fn truncate(name: &str) -> String {
    match name.char_indices().nth(63) {
        Some((at, _)) => name[..at].trim_end_matches(['-', '.']).to_owned(),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})).unwrap()
    }

    fn names(spec: serde_json::Value) -> (String, String, String) {
        let HostName { hostname, domain, kernel } = host_name(&pod(spec), "cluster.local").unwrap();
        (hostname, domain, kernel)
    }

    #[test]
    fn env_06_07_08_09_11_host_names() {
        let s = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(names(json!({"containers": []})), s("p", "", "p"));
        assert_eq!(names(json!({"containers": [], "hostname": "h"})), s("h", "", "h"));
        let domain = "s.n.svc.cluster.local";
        assert_eq!(names(json!({"containers": [], "subdomain": "s"})), s("p", domain, "p"));
        let full = format!("p.{domain}");
        assert_eq!(
            names(json!({"containers": [], "subdomain": "s", "setHostnameAsFQDN": true})),
            s("p", domain, &full)
        );
        assert_eq!(names(json!({"containers": [], "setHostnameAsFQDN": true})), s("p", "", "p"));
        assert_eq!(
            names(json!({"containers": [], "hostnameOverride": "a.b", "subdomain": "s"})),
            s("a.b", "", "a.b")
        );
        let long = format!("{}-x", "a".repeat(62));
        assert_eq!(names(json!({"containers": [], "hostname": long})).0, "a".repeat(62));
    }

    #[test]
    fn env_10_a_full_name_over_64_is_refused() {
        let spec = json!({"containers": [], "hostname": "h".repeat(50), "subdomain": "s", "setHostnameAsFQDN": true});
        let full = format!("{}.s.n.svc.cluster.local", "h".repeat(50));
        assert_eq!(
            host_name(&pod(spec), "cluster.local").unwrap_err(),
            format!(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long (64 characters is the max, {} characters requested)",
                full.len()
            )
        );
    }
}
