//! What the node has given to a pod, which is not always what its spec asks for (KEP-1287): a resize that the node has
//! not taken yet, and one that the containers do not have yet. It is written down, so that neither a restart of the
//! daemon nor `kill -9` takes a wish for a fact.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};

use crate::pod_ref;
use crate::quantities;

/// In the pod's directory.
const FILE: &str = "allocation.json";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Allocation {
    /// The pod's own resources, if it has any.
    pub pod: Option<ResourceRequirements>,
    /// What containers and sidecars may have.
    pub containers: BTreeMap<String, ResourceRequirements>,
    /// What they were started with, or brought to since, once that is not simply what they may have.
    pub actuated: BTreeMap<String, ResourceRequirements>,
    /// The same of the pod's own resources.
    pub actuated_pod: Option<ResourceRequirements>,
    /// The generation of the resize that is being carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resizing: Option<i64>,
    /// Runs that are being stopped so that another one takes their place: their end is not the container's.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub replaced: BTreeSet<String>,
}

/// Containers whose resources can change while they run: regular ones and sidecars.
pub fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = pod_ref::init_containers(pod).iter().filter(|container| pod_ref::is_sidecar(container));
    sidecars.chain(pod_ref::containers(pod))
}

impl Allocation {
    /// A new pod gets what it asks for.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let mut allocation = Self::default();
        allocation.accept(pod);
        allocation.actuated_pod.clone_from(&allocation.pod);
        allocation
    }

    /// A pod that runs although nothing is written of it (by an older version): it has what its status says.
    #[must_use]
    pub fn recovered(pod: &Pod) -> Self {
        let mut allocation = Self::of(pod);
        let status = pod.status.as_ref();
        let lists = status.map(|status| [&status.init_container_statuses, &status.container_statuses]);
        let told: Vec<&ContainerStatus> =
            lists.into_iter().flatten().filter_map(Option::as_ref).flatten().collect();
        for (name, resources) in &mut allocation.containers {
            let of = told.iter().find(|status| status.name == *name);
            if let Some(told) = of.and_then(|status| status.resources.clone()) {
                *resources = told;
            }
        }
        allocation
    }

    /// Gives the pod what its spec asks for now.
    pub fn accept(&mut self, pod: &Pod) {
        for (name, had) in &self.containers {
            self.actuated.entry(name.clone()).or_insert_with(|| had.clone());
        }
        self.pod.clone_from(&pod_ref::spec(pod).resources);
        self.containers = resizable(pod)
            .map(|container| (container.name.clone(), container.resources.clone().unwrap_or_default()))
            .collect();
    }

    /// Whether the pod has been given what its spec asks for.
    #[must_use]
    pub fn grants(&self, pod: &Pod) -> bool {
        let of_pod = same(self.pod.as_ref(), pod_ref::spec(pod).resources.as_ref());
        of_pod
            && resizable(pod).all(|container| {
                let allocated = self.containers.get(&container.name);
                allocated.is_none() || same(allocated, container.resources.as_ref())
            })
    }

    /// Whether the container `name` runs with what it has been given.
    #[must_use]
    pub fn is_actuated(&self, name: &str) -> bool {
        self.changes(name).is_empty()
    }

    /// Of which resources the container `name` has something else than it has been given.
    #[must_use]
    pub fn changes(&self, name: &str) -> Vec<&'static str> {
        let Some(has) = self.actuated.get(name) else { return Vec::new() };
        let (has, given) = (amounts(Some(has)), amounts(self.containers.get(name)));
        let differs = |resource: &usize| (0..2).any(|part| has[part][*resource] != given[part][*resource]);
        (0..2).filter(differs).map(|resource| RESOURCES[resource]).collect()
    }

    /// What the containers of `pod` ask for differently: (resource, requirement, operation), as metrics name them.
    #[must_use]
    pub fn differences(&self, pod: &Pod) -> Vec<[&'static str; 3]> {
        let mut found = Vec::new();
        for container in resizable(pod) {
            let had = amounts(self.containers.get(&container.name));
            let wants = amounts(container.resources.as_ref());
            for (part, requirement) in ["requests", "limits"].into_iter().enumerate() {
                for (index, resource) in RESOURCES.into_iter().enumerate() {
                    let operation = match (had[part][index], wants[part][index]) {
                        (had, wants) if had == wants => continue,
                        (None, _) => "add",
                        (_, None) => "remove",
                        (had, wants) if wants > had => "increase",
                        _ => "decrease",
                    };
                    found.push([resource, requirement, operation]);
                }
            }
        }
        found
    }

    /// The pod with what it has been given in the place of what it asks for.
    #[must_use]
    pub fn apply(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if self.grants(pod) {
            return Arc::clone(pod);
        }
        Arc::new(with(pod, self.pod.as_ref(), &self.containers))
    }

    /// The pod with what its containers have.
    #[must_use]
    pub fn as_actuated(&self, pod: &Pod) -> Pod {
        with(pod, self.actuated_pod.as_ref(), &self.actuated)
    }

    /// Reads what was written of the pod in `dir`.
    ///
    /// # Errors
    /// A file that cannot be understood.
    pub fn load(dir: &Path) -> Result<Option<Self>, String> {
        crate::checkpoint::read(&dir.join(FILE))
    }

    /// Writes it into the pod's directory.
    ///
    /// # Errors
    /// The file, and why it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), String> {
        std::fs::create_dir_all(dir).map_err(|error| format!("mkdir {}: {error}", dir.display()))?;
        crate::checkpoint::write(&dir.join(FILE), self)
    }
}

fn with(
    pod: &Pod,
    own: Option<&ResourceRequirements>,
    containers: &BTreeMap<String, ResourceRequirements>,
) -> Pod {
    let mut pod = pod.clone();
    if let Some(spec) = &mut pod.spec {
        spec.resources = own.cloned();
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            if let Some(resources) = containers.get(&container.name) {
                container.resources = Some(resources.clone());
            }
        }
    }
    pod
}

/// What can change.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Requests and limits, each of cpu and memory.
fn amounts(resources: Option<&ResourceRequirements>) -> [[Option<i128>; 2]; 2] {
    let lists = [resources.and_then(|r| r.requests.as_ref()), resources.and_then(|r| r.limits.as_ref())];
    lists.map(|list| RESOURCES.map(|name| quantities::nanos(&list?.get(name)?.0)))
}

/// Whether these are the same amounts, whatever they are written as.
fn same(one: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>) -> bool {
    amounts(one) == amounts(other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(cpu: &str) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
                "initContainers": [{"name": "i", "resources": {"requests": {"cpu": cpu}}}],
                "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}}]}}))
            .unwrap(),
        )
    }

    fn cpu(pod: &Pod, name: &str) -> String {
        let (_, container) = pod_ref::find_container(pod, name).unwrap();
        container.resources.unwrap().requests.unwrap()["cpu"].0.clone()
    }

    #[test]
    fn a_wish_is_no_fact_until_it_is_accepted() {
        let mut allocation = Allocation::of(&pod("1"));
        assert!(allocation.grants(&pod("1000m")), "the same amount in other words");
        let wish = pod("2");
        assert!(!allocation.grants(&wish));
        let given = allocation.apply(&wish);
        assert_eq!((cpu(&given, "c"), cpu(&given, "i")), ("1".to_owned(), "2".to_owned()));
        assert_eq!(allocation.differences(&wish), [["cpu", "requests", "increase"]]);
        allocation.accept(&wish);
        assert!(allocation.grants(&wish) && !allocation.is_actuated("c"));
        assert_eq!(allocation.changes("c"), ["cpu"]);
        assert_eq!(cpu(&allocation.as_actuated(&wish), "c"), "1");
    }

    #[test]
    fn what_was_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Allocation::load(dir.path()), Ok(None));
        let mut allocation = Allocation::of(&pod("1"));
        allocation.resizing = Some(3);
        allocation.replaced.insert("id".to_owned());
        allocation.save(dir.path()).unwrap();
        assert_eq!(Allocation::load(dir.path()), Ok(Some(allocation)));
    }

    #[test]
    fn a_pod_of_an_older_version_has_what_its_status_says() {
        let mut wish = Pod::clone(&pod("2"));
        wish.status =
            serde_json::from_value(json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "",
            "ready": true, "restartCount": 0, "resources": {"requests": {"cpu": "1"}}}]}))
            .unwrap();
        let recovered = Allocation::recovered(&wish);
        assert!(!recovered.grants(&wish) && recovered.is_actuated("c"));
    }
}
