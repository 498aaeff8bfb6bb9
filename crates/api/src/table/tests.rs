#![allow(clippy::unwrap_used)]
use super::*;
use crate::scheme;

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn cells(group: &str, plural: &str, object: Value) -> Vec<Value> {
    let resource = scheme::resources().iter().find(|r| r.group == group && r.plural == plural).unwrap();
    let table = table(resource, &[object], now(), IncludeObject::Metadata);
    table["rows"][0]["cells"].as_array().unwrap().clone()
}

#[test]
fn every_row_has_as_many_cells_as_columns() {
    for resource in scheme::resources() {
        let row = row(resource, &json!({}), now(), IncludeObject::None);
        assert_eq!(
            row["cells"].as_array().unwrap().len(),
            columns(resource).len(),
            "{}",
            resource.group_kind()
        );
    }
}

fn pod(status: Value) -> Value {
    json!({"metadata": {"name": "p", "creationTimestamp": "2026-11-22T09:58:00Z"},
        "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]},
        "status": status})
}

fn line(pod: Value) -> String {
    let cells = cells("", "pods", pod);
    cells[1..4].iter().map(|c| c.as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn pod_states() {
    assert_eq!(line(pod(json!({"phase": "Pending"}))), "0/2 Pending 0");
    let init = |state: Value| {
        pod(json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": state}]}))
    };
    assert_eq!(line(init(json!({"running": {}}))), "0/2 Init:0/2 0");
    assert_eq!(line(init(json!({"waiting": {"reason": "CrashLoopBackOff"}}))), "0/2 Init:CrashLoopBackOff 0");
    assert_eq!(line(init(json!({"terminated": {"exitCode": 3}}))), "0/2 Init:ExitCode:3 0");
    let running = json!({"phase": "Running", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 0}}},
            {"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
        "containerStatuses": [{"name": "c", "ready": true, "restartCount": 3, "state": {"running": {}},
            "lastState": {"terminated": {"finishedAt": "2026-11-22T09:55:00Z"}}}]});
    assert_eq!(line(pod(running.clone())), "2/2 Running 3 (5m ago)");
    let mut deleting = pod(running);
    deleting["metadata"]["deletionTimestamp"] = "2026-11-22T09:59:00Z".into();
    assert_eq!(line(deleting), "2/2 Terminating 3 (5m ago)");
    let crash = pod(json!({"phase": "Running", "containerStatuses": [
        {"name": "c", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}));
    assert_eq!(line(crash), "0/2 CrashLoopBackOff 1");
}

#[test]
fn rtc_01_runtime_class_columns() {
    let r = scheme::find("node.k8s.io", "v1", "runtimeclasses").unwrap();
    assert_eq!(columns(r).iter().map(|c| c.name).collect::<Vec<_>>(), ["Name", "Handler", "Age"]);
}

#[test]
fn services_nodes_and_events() {
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1",
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}], "selector": {"a": "b"}}});
    let cells_ = cells("", "services", service);
    assert_eq!(
        cells_,
        ["s", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP", "<unknown>", "a=b"].map(Value::from)
    );
    let node = json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let cells_ = cells("", "nodes", node);
    assert_eq!((&cells_[1], &cells_[2]), (&"Ready,SchedulingDisabled".into(), &"control-plane".into()));
    let event = json!({"involvedObject": {"kind": "Pod", "name": "p"}, "lastTimestamp": "2026-11-22T09:59:30Z",
        "message": " m ", "source": {"component": "kubelet", "host": "n"}});
    let cells_ = cells("", "events", event);
    assert_eq!((&cells_[0], &cells_[3], &cells_[6]), (&"30s".into(), &"pod/p".into(), &"m".into()));
}
