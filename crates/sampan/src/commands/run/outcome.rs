//! What a run comes to: the exit code.

use std::process::ExitCode;

use k8s_openapi::api::core::v1::Pod;

/// How the pods of a run ended.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The last state of each pod that was followed.
    pub(super) pods: Vec<Pod>,
    /// Whether Ctrl-C ended the run.
    pub(super) interrupted: bool,
}

impl Outcome {
    /// The container's exit code when the run was one pod that ran to completion; else 0 when nothing
    /// failed, 1 otherwise.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        let failed = |pod: &Pod| phase(pod) == "Failed";
        match self.pods.as_slice() {
            [pod] if matches!(phase(pod), "Succeeded" | "Failed") && !restarts_always(pod) => {
                container_code(pod).unwrap_or(u8::from(failed(pod)))
            }
            // A pod that Ctrl-C has stopped did not fail.
            pods => u8::from(!self.interrupted && pods.iter().any(failed)),
        }
    }
}

/// The phase, empty before there is one.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

fn restarts_always(pod: &Pod) -> bool {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    policy.unwrap_or("Always") == "Always"
}

/// The first code that is not 0: of the init containers when one of them failed, else of the others.
fn container_code(pod: &Pod) -> Option<u8> {
    let status = pod.status.as_ref()?;
    let statuses = [&status.init_container_statuses, &status.container_statuses];
    let codes: Vec<i32> = statuses
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|container| Some(container.state.as_ref()?.terminated.as_ref()?.exit_code))
        .collect();
    let code = codes.iter().copied().find(|code| *code != 0).or(codes.first().copied())?;
    Some(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(policy: &str, phase: &str, codes: &[i32]) -> Pod {
        let statuses: Vec<_> = codes
            .iter()
            .map(|code| serde_json::json!({"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "spec": {"restartPolicy": policy, "containers": []},
            "status": {"phase": phase, "containerStatuses": statuses},
        }))
        .unwrap()
    }

    fn code(pods: Vec<Pod>, interrupted: bool) -> u8 {
        Outcome { pods, interrupted }.code()
    }

    #[test]
    fn one_pod_that_ran_to_completion_gives_its_containers_code() {
        assert_eq!(code(vec![pod("Never", "Succeeded", &[0])], false), 0);
        assert_eq!(code(vec![pod("Never", "Failed", &[0, 3])], false), 3);
        assert_eq!(code(vec![pod("OnFailure", "Failed", &[])], false), 1);
    }

    #[test]
    fn several_pods_give_0_or_1_and_an_interrupted_run_has_not_failed() {
        let (good, bad) = (pod("Never", "Succeeded", &[0]), pod("Never", "Failed", &[7]));
        assert_eq!(code(vec![good.clone(), bad.clone()], false), 1);
        assert_eq!(code(vec![good.clone(), good.clone()], false), 0);
        assert_eq!(code(vec![good, bad], true), 0);
        assert_eq!(code(vec![pod("Always", "Failed", &[143])], true), 0);
    }
}
