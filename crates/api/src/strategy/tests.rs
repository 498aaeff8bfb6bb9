#![allow(clippy::unwrap_used)]
use super::*;
use crate::scheme;

#[test]
fn pod_57_generation_counts_spec_changes_only() {
    let pods = scheme::find("", "v1", "pods").unwrap();
    let mut pod =
        json!({"metadata": {"generation": 7}, "spec": {"containers": []}, "status": {"phase": "Running"}});
    prepare_for_create(pods, &mut pod);
    assert_eq!(pod["metadata"]["generation"], 1);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    let mut labelled = pod.clone();
    meta::set_label(&mut labelled, "a", "b");
    prepare_for_update(pods, &mut labelled, &pod, None);
    assert_eq!(labelled["metadata"]["generation"], 1);
    let mut changed = pod.clone();
    changed["spec"]["activeDeadlineSeconds"] = 5.into();
    changed["status"]["phase"] = "Failed".into();
    prepare_for_update(pods, &mut changed, &pod, None);
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(changed["status"]["phase"], "Pending");
}

#[test]
fn pod_46_the_status_subresource_changes_the_status_alone() {
    let pods = scheme::find("", "v1", "pods").unwrap();
    let old = json!({"metadata": {"generation": 1}, "spec": {"nodeName": "a"}, "status": {"qosClass": "Burstable"}});
    let mut new =
        json!({"metadata": {"generation": 1}, "spec": {"nodeName": "b"}, "status": {"phase": "Running"}});
    prepare_for_update(pods, &mut new, &old, Some("status"));
    assert_eq!(new["spec"]["nodeName"], "a");
    assert_eq!(new["status"], json!({"phase": "Running", "qosClass": "Burstable"}));
    assert_eq!(new["metadata"]["generation"], 1);
}

#[test]
fn pod_36_negative_grace_becomes_one() {
    let pods = scheme::find("", "v1", "pods").unwrap();
    let mut pod = json!({"spec": {"terminationGracePeriodSeconds": -5}});
    prepare_for_create(pods, &mut pod);
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 1);
}

#[test]
fn namespaces_start_active_with_their_finalizer() {
    let namespaces = scheme::find("", "v1", "namespaces").unwrap();
    let mut ns = json!({"metadata": {"name": "a"}});
    prepare_for_create(namespaces, &mut ns);
    assert_eq!(ns["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(ns["status"]["phase"], "Active");
}

#[test]
fn jobs_select_their_pods_by_uid() {
    let jobs = scheme::find("batch", "v1", "jobs").unwrap();
    let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {}});
    prepare_for_create(jobs, &mut job);
    assert_eq!(job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "u");
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "j");
}
