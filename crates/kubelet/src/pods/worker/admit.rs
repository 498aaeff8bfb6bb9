//! The first thing that happens to a new pod: the node takes it, or it is Failed without having run (POD-55).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use sampan_api::resources;

use super::{Life, PodWorker};
use crate::cgroups::as_value;
use crate::events::EventType;
use crate::node::admission::{NodeView, Rejection, admit};
use crate::node::capacity;
use crate::pod_ref;
use crate::pods::allocation::Allocation;
use crate::status::pod_status::Verdict;

impl PodWorker {
    /// Judges the pod once. One that began before this daemon was taken then.
    pub(super) async fn admit(&mut self) {
        if std::mem::replace(&mut self.admitted, true) {
            return;
        }
        let ctx = Arc::clone(&self.ctx);
        let began = self.pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
        if began && self.allocation.is_none() {
            self.allocation = Some(Allocation::recovered(&self.pod));
            self.take_news();
        }
        let requests = resources::pod_requests(&as_value(&self.pod));
        let labels = self.node_labels(!began).await;
        let mut others = ctx.admitted.pods.lock().await;
        if !began {
            let pressure = ctx.pressure.borrow().clone();
            let node = NodeView {
                config: &ctx.config,
                apparmor: capacity::apparmor(),
                labels: &labels,
                allocatable: &ctx.node_allocatable(),
                pressure: &pressure,
                others: &others,
            };
            let judged = match *ctx.shutting_down.borrow() {
                true => Err(Rejection::shutting_down()),
                false => admit(&self.pod, &requests, &node),
            };
            if let Err(rejection) = judged {
                drop(others);
                tracing::info!(pod = %pod_ref::full_name(&self.pod), reason = rejection.reason, message = rejection.message, "pod not taken");
                let labels = [("reason", rejection.reason.clone())];
                ctx.metrics.node.rejections.get_or_create(&labels).inc();
                self.record(EventType::Warning, &rejection.reason, rejection.message.clone());
                self.verdict = Some(Verdict {
                    reason: rejection.reason,
                    message: format!("Pod was rejected: {}", rejection.message),
                });
                self.rejected = true;
                self.life = Life::Terminating;
                return;
            }
        }
        others.insert(self.uid.clone(), requests);
        drop(others);
        let allocation = self.allocation.get_or_insert_with(|| Allocation::of(&self.pod));
        if let Err(error) = allocation.save(&ctx.pod_dir(&self.uid)) {
            tracing::warn!(pod = %pod_ref::full_name(&self.pod), error, "what the pod was given is not written down");
        }
    }

    /// Gives back what the pod asked for: nothing of it runs any more.
    pub(super) async fn release(&self) {
        self.ctx.admitted.pods.lock().await.remove(&self.uid);
    }

    /// The Node's labels, asked for only when the pod is choosy; without an API those that are configured.
    async fn node_labels(&self, wanted: bool) -> BTreeMap<String, String> {
        let spec = pod_ref::spec(&self.pod);
        let choosy =
            spec.node_selector.is_some() || spec.affinity.as_ref().is_some_and(|a| a.node_affinity.is_some());
        if !wanted || !choosy {
            return BTreeMap::new();
        }
        let nodes: Api<Node> = Api::all(self.ctx.config.client.clone());
        match nodes.get_opt(&self.ctx.config.node_name).await {
            Ok(Some(node)) => node.metadata.labels.unwrap_or_default(),
            _ => crate::node::labels(&self.ctx.config),
        }
    }
}
