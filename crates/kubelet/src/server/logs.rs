//! `/containerLogs`: a container's log, from its CRI log files (POD-54).

mod hooks;
mod options;
mod reader;

use std::path::PathBuf;

use http::{Response, StatusCode, header};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::Server;
use super::body::{self, Body, text};
use crate::{log_paths, pod_ref};
use options::LogOptions;
use reader::LogReader;

impl Server {
    pub(super) async fn container_logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        query: &str,
    ) -> Response<Body> {
        let options = match LogOptions::parse(query, self.ctx.config.clock.now()) {
            Ok(options) => options,
            Err(error) => return text(StatusCode::UNPROCESSABLE_ENTITY, error),
        };
        let Some(found) = self.workers.find(namespace, pod) else {
            return text(StatusCode::NOT_FOUND, format!("pod {pod:?} not found\n"));
        };
        if pod_ref::find_container(&found, container).is_none() {
            return text(
                StatusCode::NOT_FOUND,
                format!("container {container:?} not found in pod {pod:?}\n"),
            );
        }
        if options.hooks {
            let logs = log_paths::of_pod(&self.ctx.config.log_dir, &found).join(container);
            return text(StatusCode::OK, hooks::read(&logs, &options));
        }
        let (id, log) = match self.log_file(&found, container, options.previous).await {
            Ok(found) => found,
            Err(error) => return text(StatusCode::BAD_REQUEST, error),
        };
        let chunks = LogReader::start(self.ctx.config.cri.clone(), id, log, options);
        let mut response = Response::new(body::stream(chunks));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
        response
    }

    /// The container's id and log.
    async fn log_file(
        &self,
        pod: &Pod,
        container: &str,
        previous: bool,
    ) -> Result<(String, PathBuf), String> {
        let status = self.ctx.status.current(pod_ref::uid(pod)).unwrap_or_default();
        let id = container_with_logs(&status, pod_ref::name(pod), container, previous)?;
        let answer = self.ctx.config.cri.container_status(&id).await;
        if let Err(status) = &answer
            && status.code() == tonic::Code::NotFound
            && previous
            && let Some(log) = self.log_of_forgotten_run(pod, container)
        {
            return Ok((id, log));
        }
        let status = answer.map_err(|status| {
            format!(
                "unable to retrieve container logs for {}://{id}: {}",
                self.ctx.runtime_name,
                status.message()
            )
        })?;
        Ok((id, PathBuf::from(status.log_path)))
    }
}

impl Server {
    /// The log of a container's last run but one that the runtime has forgotten (POD-29).
    fn log_of_forgotten_run(&self, pod: &Pod, container: &str) -> Option<PathBuf> {
        let status = self.ctx.status.current(pod_ref::uid(pod))?;
        let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let count = u32::try_from(all.find(|status| status.name == container)?.restart_count).ok()?;
        let run = log_paths::in_pod(container, count.checked_sub(1)?);
        let log = log_paths::of_pod(&self.ctx.config.log_dir, pod).join(run);
        log.is_file().then_some(log)
    }
}

/// The id of the container whose logs are wanted, or upstream's words for why there are none.
fn container_with_logs(
    status: &PodStatus,
    pod: &str,
    container: &str,
    previous: bool,
) -> Result<String, String> {
    let all =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let found = all.into_iter().flatten().flatten().find(|status| status.name == container);
    let status = found.ok_or_else(|| format!("container {container:?} in pod {pod:?} is not available"))?;
    let terminated = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| {
        state
            .and_then(|state| state.terminated.as_ref())
            .and_then(|state| bare_id(state.container_id.as_deref()))
    };
    let last = terminated(status.last_state.as_ref());
    if previous {
        return last
            .ok_or_else(|| format!("previous terminated container {container:?} in pod {pod:?} not found"));
    }
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some())
        && let Some(id) = bare_id(status.container_id.as_deref())
    {
        return Ok(id);
    }
    if let Some(id) = terminated(state).or(last) {
        return Ok(id);
    }
    Err(why_no_logs(status, pod, container))
}

fn why_no_logs(status: &ContainerStatus, pod: &str, container: &str) -> String {
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.terminated.is_some()) {
        return format!("container {container:?} in pod {pod:?} is terminated");
    }
    let reason = state
        .and_then(|state| state.waiting.as_ref())
        .and_then(|waiting| waiting.reason.as_deref())
        .unwrap_or("ContainerCreating");
    let why = match reason {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        reason => reason,
    };
    format!("container {container:?} in pod {pod:?} is waiting to start: {why}")
}

/// `<runtime>://<id>` without the runtime.
pub(super) fn bare_id(id: Option<&str>) -> Option<String> {
    let id = id?;
    let id = id.split_once("://").map_or(id, |(_, id)| id);
    (!id.is_empty()).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn which(state: serde_json::Value, last: serde_json::Value, previous: bool) -> Result<String, String> {
        let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "containerID": "sampan://now", "state": state, "lastState": last}]}))
        .unwrap();
        container_with_logs(&status, "p", "c", previous)
    }

    #[test]
    fn pod_54_whose_logs() {
        let ended =
            |id: &str| json!({"terminated": {"exitCode": 0, "containerID": format!("sampan://{id}")}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        let none = || json!({});
        assert_eq!(which(json!({"running": {}}), none(), false).unwrap(), "now");
        assert_eq!(which(ended("x"), none(), false).unwrap(), "x");
        assert_eq!(which(waiting("CrashLoopBackOff"), ended("old"), false).unwrap(), "old");
        assert_eq!(which(json!({"running": {}}), ended("old"), true).unwrap(), "old");
        assert_eq!(
            which(json!({"running": {}}), none(), true).unwrap_err(),
            "previous terminated container \"c\" in pod \"p\" not found"
        );
        assert_eq!(
            which(waiting("ContainerCreating"), none(), false).unwrap_err(),
            "container \"c\" in pod \"p\" is waiting to start: ContainerCreating"
        );
        assert_eq!(
            which(waiting("ImagePullBackOff"), none(), false).unwrap_err(),
            "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image"
        );
        assert_eq!(
            which(waiting("ErrImagePull"), none(), false).unwrap_err(),
            "container \"c\" in pod \"p\" is waiting to start: image can't be pulled"
        );
    }
}
