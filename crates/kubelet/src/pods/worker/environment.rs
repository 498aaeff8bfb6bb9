//! A container's environment: what its pod refers to is fetched for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Service};

use super::PodWorker;
use crate::generate::env::{self, EnvInputs, Sources};
use crate::generate::fields::Addresses;
use crate::generate::{env_size, service_env};
use crate::pod_ref;
use crate::volumes::env_file;

impl PodWorker {
    /// The variables of `container`. While it has none for want of what they refer to, that is watched.
    pub(super) async fn environment(
        &mut self,
        container: &Container,
    ) -> Result<BTreeMap<String, String>, String> {
        let namespace = pod_ref::namespace(&self.pod);
        let services = if crate::static_pods::is_static(&self.pod) {
            // It runs even when there is no API (POD-51).
            self.ctx.objects.services_so_far()
        } else {
            self.ctx
                .objects
                .services()
                .await
                .ok_or("services have not yet been read at least once, cannot construct envvars")?
        };
        let references: Vec<&Service> = services.iter().map(Arc::as_ref).collect();
        let links = pod_ref::spec(&self.pod).enable_service_links.unwrap_or(true);
        let service_variables = service_env::variables(&service_env::visible(references, namespace, links));
        let mut sources = Sources::default();
        let wanted = env::references(container);
        for name in wanted.config_maps.clone() {
            if let Some(object) =
                self.ctx.objects.config_map(namespace, &name).await.map_err(|error| error.to_string())?
            {
                sources.config_maps.insert(name, object);
            }
        }
        for name in wanted.secrets.clone() {
            if let Some(object) =
                self.ctx.objects.secret(namespace, &name).await.map_err(|error| error.to_string())?
            {
                sources.secrets.insert(name, object);
            }
        }
        let volumes = self.volumes.lock().await;
        for (volume, path) in &wanted.files {
            let dir = volumes
                .path(volume)
                .ok_or_else(|| format!("cannot find the volume {volume:?} referenced by FileKeyRef"))?;
            if let Some(read) = env_file::read(dir, path).transpose() {
                sources.files.insert((volume.clone(), path.clone()), read);
            }
        }
        drop(volumes);
        let pod_ips = match pod_ref::is_host_network(&self.pod) {
            true => self.ctx.host_ips.clone(),
            false => self.runtime.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default(),
        };
        let addresses = Addresses { pod_ips, host_ips: self.ctx.host_ips.clone() };
        let inputs = EnvInputs {
            pod: &self.pod,
            services: &service_variables,
            sources: &sources,
            addresses: &addresses,
            allocatable: &self.ctx.allocatable,
        };
        let environment = env::environment(container, &inputs).and_then(|environment| {
            env_size::check(&environment, &service_variables)?;
            Ok(environment)
        });
        if environment.is_err() {
            let whose = (namespace, container.name.as_str());
            self.awaited.watch(&self.ctx.config.client, &self.inbox, whose, wanted, &sources);
        }
        environment
    }
}
