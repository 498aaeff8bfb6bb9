//! Cluster addresses and node ports of Services.
//!
//! What is taken is read from the Services themselves, under one lock that is held until the write is done: there
//! is no second record that could disagree with them, and a deleted Service's address is free at once.

use std::collections::HashSet;
use std::net::IpAddr;

use rand::Rng;
use sampan_api::{FieldError, Status, meta, scheme};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::Scope;
use crate::Cidr;

/// Gives out addresses and ports.
pub struct Allocator {
    cidr: Cidr,
    ports: (u16, u16),
    lock: Mutex<()>,
}

/// What other Services hold.
#[derive(Default)]
struct Taken {
    addresses: HashSet<IpAddr>,
    ports: HashSet<u16>,
}

impl Allocator {
    /// An allocator for an address range and a port range (both ends included).
    pub fn new(cidr: Cidr, ports: (u16, u16)) -> Self {
        Self { cidr, ports, lock: Mutex::default() }
    }

    /// The address of the Service `kubernetes`.
    pub fn first_address(&self) -> Option<IpAddr> {
        self.cidr.nth(1)
    }

    /// Gives a Service what it lacks and checks what it asks for. `old` is what it holds already.
    fn allocate(&self, service: &mut Value, old: Option<&Value>, taken: &Taken) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let kind = meta::str_at(service, "/spec/type").to_owned();
        if kind == "ExternalName" {
            release(service);
            return errors;
        }
        self.check_families(service, &mut errors);
        let wanted = meta::str_at(service, "/spec/clusterIP").to_owned();
        let wanted =
            if wanted.is_empty() { meta::str_at(service, "/spec/clusterIPs/0").to_owned() } else { wanted };
        let held = old.map(|old| meta::str_at(old, "/spec/clusterIP").to_owned()).unwrap_or_default();
        let address = match wanted.as_str() {
            "" => match self.free_address(taken) {
                Some(address) => address.to_string(),
                None => {
                    errors.push(FieldError::internal(
                        "spec.clusterIPs",
                        "failed to allocate a serviceIP: range is full",
                    ));
                    return errors;
                }
            },
            "None" => wanted.clone(),
            asked if asked == held => wanted.clone(),
            asked => {
                if let Some(why) = self.refuses(asked, taken) {
                    let detail = format!("failed to allocate IP {asked}: {why}");
                    errors.push(FieldError::invalid("spec.clusterIPs", json!([asked]), detail));
                }
                wanted.clone()
            }
        };
        let spec = meta::object_mut(&mut service["spec"]);
        spec.insert("clusterIP".into(), json!(address));
        spec.insert("clusterIPs".into(), json!([address]));
        spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
        spec.entry("ipFamilies").or_insert_with(|| json!([self.family()]));
        self.node_ports(service, old, taken, &mut errors);
        errors
    }

    /// Refuses what a server with one address family cannot give, instead of giving less than was asked for.
    fn check_families(&self, service: &Value, errors: &mut Vec<FieldError>) {
        let (family, spec) = (self.family(), &service["spec"]);
        let addresses = meta::items(spec, "clusterIPs");
        let headless = meta::str_of(spec, "clusterIP") == "None";
        if headless
            && spec.get("selector").and_then(Value::as_object).is_none_or(|selector| selector.is_empty())
        {
            // Its endpoints are written by hand, of whatever family.
            return;
        }
        let first = addresses.first().and_then(Value::as_str).unwrap_or_default();
        let address = meta::str_of(spec, "clusterIP");
        if !first.is_empty() && !address.is_empty() && first != address {
            let why = "first value must match `clusterIP`";
            errors.push(FieldError::invalid("spec.clusterIPs[0]", json!(addresses), why));
        }
        let policy = meta::str_of(spec, "ipFamilyPolicy");
        if addresses.len() > 1 && !matches!(policy, "RequireDualStack" | "PreferDualStack") {
            let why =
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified";
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy, why));
        } else if addresses.len() > 1 || policy == "RequireDualStack" {
            let why = "this cluster is not configured for dual-stack services";
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy, why));
        }
        for (index, asked) in meta::items(spec, "ipFamilies").iter().enumerate() {
            if asked != family {
                let (field, why) = (format!("spec.ipFamilies[{index}]"), "not configured on this cluster");
                errors.push(FieldError::invalid(field, asked.clone(), why));
            }
        }
    }

    fn family(&self) -> &'static str {
        if self.cidr.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    fn node_ports(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        taken: &Taken,
        errors: &mut Vec<FieldError>,
    ) {
        let wants = has_node_ports(service);
        let held: HashSet<u16> = old.map(node_ports).unwrap_or_default().into_iter().collect();
        let mut mine: HashSet<(u16, String)> = HashSet::new();
        let Some(ports) = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else { return };
        for (index, port) in ports.iter_mut().enumerate() {
            let protocol = meta::str_of(port, "protocol").to_owned();
            let asked = port.get("nodePort").and_then(Value::as_u64).unwrap_or_default();
            let field = format!("spec.ports[{index}].nodePort");
            if asked != 0 {
                let Some(asked) =
                    u16::try_from(asked).ok().filter(|port| (self.ports.0..=self.ports.1).contains(port))
                else {
                    let (low, high) = self.ports;
                    let detail = format!(
                        "provided port is not in the valid range. The range of valid ports is {low}-{high}"
                    );
                    errors.push(FieldError::invalid(field, asked, detail));
                    continue;
                };
                let shared = mine.iter().any(|(port, other)| *port == asked && *other != protocol);
                if !held.contains(&asked) && !shared && taken.ports.contains(&asked) {
                    errors.push(FieldError::invalid(field, asked, "provided port is already allocated"));
                }
                mine.insert((asked, protocol));
            } else if wants {
                let is_free =
                    |port: &u16| !taken.ports.contains(port) && !mine.iter().any(|(other, _)| other == port);
                let (low, high) = self.ports;
                let start = rand::rng().random_range(low..=high);
                match (start..=high).chain(low..start).find(is_free) {
                    Some(free) => {
                        meta::object_mut(port).insert("nodePort".into(), json!(free));
                        mine.insert((free, protocol));
                    }
                    None => errors
                        .push(FieldError::internal(field, "failed to allocate a nodePort: range is full")),
                }
            } else {
                meta::object_mut(port).remove("nodePort");
            }
        }
    }

    /// Why an address cannot be had.
    fn refuses(&self, asked: &str, taken: &Taken) -> Option<&'static str> {
        let Ok(address) = asked.parse::<IpAddr>() else { return Some("not a valid IP address") };
        match self.cidr.offset(address) {
            None => Some("the provided network does not match the current range"),
            Some(_) if taken.addresses.contains(&address) => Some("provided IP is already allocated"),
            Some(_) => None,
        }
    }

    /// A free address: from the upper part of the range first, so that fixed ones from its beginning stay free.
    fn free_address(&self, taken: &Taken) -> Option<IpAddr> {
        let size = self.cidr.size().min(1 << 16);
        // Neither the network's own address nor the last one.
        let last = size.checked_sub(2).filter(|last| *last >= 1)?;
        let reserved = (size / 16).clamp(16, 256).min(last);
        let start = rand::rng().random_range(reserved..=last);
        (start..=last)
            .chain(reserved..start)
            .chain(1..reserved)
            .filter_map(|offset| self.cidr.nth(offset))
            .find(|address| !taken.addresses.contains(address) && Some(*address) != self.first_address())
    }
}

/// What a Service of type ExternalName does not have.
fn release(service: &mut Value) {
    let spec = meta::object_mut(&mut service["spec"]);
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
        spec.remove(field);
    }
}

fn node_ports(service: &Value) -> Vec<u16> {
    let ports = meta::list(service, "/spec/ports").iter();
    ports
        .filter_map(|port| u16::try_from(port.get("nodePort")?.as_u64()?).ok())
        .filter(|port| *port != 0)
        .collect()
}

fn is_service(scope: &Scope<'_>) -> bool {
    scope.storage().group.is_empty() && scope.storage().plural == "services"
}

/// Allocates for a new Service. The guard is held until it is written.
pub(super) async fn on_create<'a>(
    scope: &Scope<'a>,
    object: &mut Value,
) -> Result<Option<MutexGuard<'a, ()>>, Status> {
    if !is_service(scope) {
        return Ok(None);
    }
    allocate(scope, object, None).await.map(Some)
}

fn has_addresses(service: &Value) -> bool {
    matches!(meta::str_at(service, "/spec/type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn has_node_ports(service: &Value) -> bool {
    match meta::str_at(service, "/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

/// Whether something outside leads to the Service.
fn is_external(service: &Value) -> bool {
    let kind = meta::str_at(service, "/spec/type");
    matches!(kind, "NodePort" | "LoadBalancer")
        || kind == "ClusterIP" && !meta::list(service, "/spec/externalIPs").is_empty()
}

/// Takes away what the former type had and the new one has not, when the client only left it as it was: so that
/// `type` alone can be patched (upstream's `dropTypeDependentFields`).
fn drop_fields_of_former_type(object: &mut Value, old: &Value) {
    let mut dropped = Vec::new();
    if has_addresses(old) && !has_addresses(object) {
        dropped.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if is_external(old) && !is_external(object) {
        dropped.push("externalTrafficPolicy");
    }
    if meta::str_at(old, "/spec/type") == "LoadBalancer"
        && meta::str_at(object, "/spec/type") != "LoadBalancer"
    {
        dropped.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    let node_ports_go =
        has_node_ports(old) && !has_node_ports(object) && node_ports(old) == node_ports(object);
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for field in dropped {
        if spec.get(field) == old["spec"].get(field) {
            spec.remove(field);
        }
    }
    if node_ports_go {
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            meta::object_mut(port).remove("nodePort");
        }
    }
}

/// Lets a Service keep its address (and ports their node ports) when a client leaves them out, as a manifest does, and
/// lose what its type does not have.
pub(super) fn keep(scope: &Scope<'_>, object: &mut Value, old: &Value) {
    if !is_service(scope) || !scope.subresource.is_empty() {
        return;
    }
    drop_fields_of_former_type(object, old);
    let (kind, before) = (meta::str_at(object, "/spec/type").to_owned(), meta::str_at(old, "/spec/type"));
    if kind == "ExternalName" || before == "ExternalName" {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let absent = object["spec"].get(field).is_none_or(|value| {
            value.is_null()
                || value == ""
                || value.as_array().is_some_and(|list| list.iter().all(|item| item == ""))
        });
        if absent && let Some(held) = old["spec"].get(field).cloned() {
            meta::object_mut(&mut object["spec"]).insert(field.into(), held);
        }
    }
    if !matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        return;
    }
    let held: Vec<Value> = meta::list(old, "/spec/ports").to_vec();
    for port in object.pointer_mut("/spec/ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let same =
            held.iter().find(|held| held["port"] == port["port"] && held["protocol"] == port["protocol"]);
        let absent = port.get("nodePort").and_then(Value::as_u64).unwrap_or_default() == 0;
        if absent && let Some(number) = same.and_then(|held| held.get("nodePort")).cloned() {
            meta::object_mut(port).insert("nodePort".into(), number);
        }
    }
}

/// Allocates for a Service that changes its type, address or ports.
pub(super) async fn on_update<'a>(
    scope: &Scope<'a>,
    object: &mut Value,
    old: &Value,
) -> Result<Option<MutexGuard<'a, ()>>, Status> {
    if !is_service(scope) || !scope.subresource.is_empty() || object.get("spec") == old.get("spec") {
        return Ok(None);
    }
    allocate(scope, object, Some(old)).await.map(Some)
}

async fn allocate<'a>(
    scope: &Scope<'a>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<MutexGuard<'a, ()>, Status> {
    let registry = &scope.server.registry;
    let guard = registry.allocation.lock.lock().await;
    if !registry.catch_up().await? {
        return Err(Status::server_timeout("", "services", "allocate", 1));
    }
    let mut taken = Taken::default();
    let services = scheme::find("", "v1", "services").and_then(|services| registry.cache(services));
    if let Some(services) = services {
        let (namespace, name) = (meta::namespace(object), meta::name(object));
        for service in services.snapshot("", 0).objects {
            if service.namespace() == namespace && service.name() == name {
                continue;
            }
            let service = service.value();
            taken.ports.extend(node_ports(&service));
            let addresses = meta::list(&service, "/spec/clusterIPs").iter().filter_map(Value::as_str);
            taken.addresses.extend(addresses.filter_map(|address| address.parse::<IpAddr>().ok()));
        }
    }
    let errors = registry.allocation.allocate(object, old, &taken);
    if errors.is_empty() {
        Ok(guard)
    } else {
        Err(Status::invalid("", "Service", meta::name(object), &errors))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn allocator() -> Allocator {
        Allocator::new("10.43.0.0/28".parse().unwrap(), (30000, 30001))
    }

    #[test]
    fn addresses_are_unique_until_the_range_is_full() {
        let allocator = allocator();
        let mut taken = Taken::default();
        for _ in 0..13 {
            let mut service = json!({"spec": {"type": "ClusterIP"}});
            assert_eq!(allocator.allocate(&mut service, None, &taken), []);
            let address: IpAddr = meta::str_at(&service, "/spec/clusterIP").parse().unwrap();
            assert!(taken.addresses.insert(address));
            assert_ne!(Some(address), allocator.first_address());
        }
        let mut service = json!({"spec": {"type": "ClusterIP"}});
        assert_eq!(allocator.allocate(&mut service, None, &taken).len(), 1);
    }

    #[test]
    fn one_family_is_not_two() {
        let refused = |spec: Value| -> Vec<String> {
            let mut service = json!({"spec": spec});
            let errors = allocator().allocate(&mut service, None, &Taken::default());
            errors.iter().map(ToString::to_string).collect()
        };
        let both = json!({"type": "ClusterIP", "ipFamilyPolicy": "RequireDualStack"});
        assert_eq!(
            refused(both),
            [
                r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#
            ]
        );
        let other = json!({"type": "ClusterIP", "ipFamilies": ["IPv6"]});
        assert_eq!(
            refused(other),
            [r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#]
        );
        let several = json!({"type": "ClusterIP", "clusterIPs": ["10.43.0.4", "10.43.0.5"]});
        assert!(refused(several)[0].contains("when multiple cluster IPs are specified"));
        let unlike = json!({"type": "ClusterIP", "clusterIP": "10.43.0.4", "clusterIPs": ["10.43.0.5"]});
        assert!(refused(unlike)[0].contains("first value must match `clusterIP`"));
        for fine in [
            json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"]}),
            json!({"type": "ClusterIP", "clusterIP": "None", "ipFamilies": ["IPv6"]}),
        ] {
            assert_eq!(refused(fine), [] as [&str; 0]);
        }
    }

    #[test]
    fn what_is_asked_for_is_checked() {
        let allocator = allocator();
        let taken = Taken { addresses: ["10.43.0.5".parse().unwrap()].into(), ports: [30000].into() };
        let mut service = json!({"spec": {"type": "NodePort", "clusterIP": "10.43.0.5",
            "ports": [{"port": 1, "nodePort": 30000}, {"port": 2}, {"port": 3, "nodePort": 1}]}});
        let errors: Vec<_> =
            allocator.allocate(&mut service, None, &taken).iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                r#"spec.clusterIPs: Invalid value: ["10.43.0.5"]: failed to allocate IP 10.43.0.5: provided IP is already allocated"#,
                "spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated",
                "spec.ports[2].nodePort: Invalid value: 1: provided port is not in the valid range. The range of valid ports is 30000-30001",
            ]
        );
        assert_eq!(service["spec"]["ports"][1]["nodePort"], 30001);
    }
}
