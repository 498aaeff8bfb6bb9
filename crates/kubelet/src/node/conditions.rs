//! The node's conditions, with upstream's reasons and messages.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sampan_cri::v1;

/// What the conditions are made from.
pub(crate) struct NodeHealth {
    /// Why the runtime is not ready, if it is not.
    pub(crate) runtime_problem: Option<String>,
    /// Whether the machine is going down.
    pub(crate) shutting_down: bool,
    /// Whether memory, disk or process ids are short.
    pub(crate) memory_pressure: bool,
    pub(crate) disk_pressure: bool,
    pub(crate) pid_pressure: bool,
}

impl NodeHealth {
    /// Reads the runtime's own status.
    pub(crate) fn of_runtime(status: Result<&v1::StatusResponse, &tonic::Status>) -> Option<String> {
        let status = match status {
            Ok(status) => status,
            Err(error) => return Some(format!("container runtime is down: {}", error.message())),
        };
        let conditions =
            status.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let problems: Vec<String> = [
            ("RuntimeReady", "container runtime not ready"),
            ("NetworkReady", "container runtime network not ready"),
        ]
        .into_iter()
        .filter_map(|(type_, text)| match conditions.iter().find(|condition| condition.r#type == type_) {
            Some(condition) if condition.status => None,
            Some(condition) => Some(format!(
                "{text}: {type_}=false reason:{} message:{}",
                condition.reason, condition.message
            )),
            None => Some(format!("{text}: {type_} is unknown")),
        })
        .collect();
        (!problems.is_empty()).then(|| problems.join(", "))
    }

    /// The conditions; transition times are kept from `old` where the status is the same.
    pub(crate) fn conditions(&self, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
        let pressure = |type_: &str, pressed: bool, reasons: [(&'static str, &'static str); 2]| {
            let (reason, message) = reasons[usize::from(pressed)];
            (type_.to_owned(), pressed, reason.to_owned(), message.to_owned())
        };
        let shutdown = self.shutting_down.then(|| "node is shutting down".to_owned());
        let problems: Vec<String> = self.runtime_problem.clone().into_iter().chain(shutdown).collect();
        let ready = match problems.as_slice() {
            [] => (
                "Ready".to_owned(),
                true,
                "KubeletReady".to_owned(),
                "kubelet is posting ready status".to_owned(),
            ),
            problems => ("Ready".to_owned(), false, "KubeletNotReady".to_owned(), problems.join(", ")),
        };
        let all = [
            pressure(
                "MemoryPressure",
                self.memory_pressure,
                [
                    ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
                    ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                ],
            ),
            pressure(
                "DiskPressure",
                self.disk_pressure,
                [
                    ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
                    ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ],
            ),
            pressure(
                "PIDPressure",
                self.pid_pressure,
                [
                    ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
                    ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                ],
            ),
            ready,
        ];
        all.into_iter()
            .map(|(type_, status, reason, message)| {
                let status = if status { "True" } else { "False" }.to_owned();
                let before = old.iter().find(|before| before.type_ == type_ && before.status == status);
                NodeCondition {
                    last_heartbeat_time: Some(Time(now)),
                    last_transition_time: before
                        .and_then(|before| before.last_transition_time.clone())
                        .or(Some(Time(now))),
                    type_,
                    status,
                    reason: Some(reason),
                    message: Some(message),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reasons_and_messages_are_upstreams() {
        let health = NodeHealth {
            runtime_problem: None,
            shutting_down: false,
            memory_pressure: false,
            disk_pressure: true,
            pid_pressure: false,
        };
        let conditions = health.conditions(&[], Timestamp::from_second(5).unwrap());
        let texts: Vec<_> = conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_deref().unwrap()))
            .collect();
        assert_eq!(
            texts,
            [
                ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                ("DiskPressure", "True", "KubeletHasDiskPressure"),
                ("PIDPressure", "False", "KubeletHasSufficientPID"),
                ("Ready", "True", "KubeletReady"),
            ]
        );
        let later = health.conditions(&conditions, Timestamp::from_second(9).unwrap());
        assert_eq!(later[0].last_transition_time, conditions[0].last_transition_time);
        assert_ne!(later[0].last_heartbeat_time, conditions[0].last_heartbeat_time);
        let down = NodeHealth { shutting_down: true, ..health };
        let ready = down.conditions(&[], Timestamp::from_second(5).unwrap()).pop().unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("KubeletNotReady")));
        assert_eq!(ready.message.as_deref(), Some("node is shutting down"));
    }

    #[test]
    fn a_network_that_is_not_ready_is_named() {
        let status = v1::StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: vec![
                    v1::RuntimeCondition {
                        r#type: "RuntimeReady".into(),
                        status: true,
                        ..Default::default()
                    },
                    v1::RuntimeCondition {
                        r#type: "NetworkReady".into(),
                        status: false,
                        reason: "NetworkPluginNotReady".into(),
                        message: "cni".into(),
                    },
                ],
            }),
            ..Default::default()
        };
        assert_eq!(
            NodeHealth::of_runtime(Ok(&status)).unwrap(),
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni"
        );
    }
}
