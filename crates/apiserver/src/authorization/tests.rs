#![allow(clippy::unwrap_used)]

use sampan_store::embedded::Embedded;
use sampan_store::{Op, Txn};
use serde_json::{Value, json};

use super::*;
use crate::user::UserInfo;

struct Fixture {
    authorization: Authorization,
    store: Arc<dyn Store>,
    _dir: tempfile::TempDir,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Embedded::open(dir.path()).unwrap();
    let authorization = Authorization::over(store.clone());
    authorization.start().await.unwrap();
    Fixture { authorization, store, _dir: dir }
}

impl Fixture {
    async fn put(&self, group: &str, plural: &str, namespace: &str, object: Value) {
        let resource = scheme::find(group, "v1", plural).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let key = bytes::Bytes::from(key::key(resource, namespace, &name));
        let op = Op::Put { key, value: codec::encode(resource, &object), lease: 0 };
        self.store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }

    async fn rbac(&self, plural: &str, namespace: &str, object: Value) {
        self.put("rbac.authorization.k8s.io", plural, namespace, object).await;
    }

    async fn may(
        &self,
        user: &UserInfo,
        verb: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Decision {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let ask = Attributes {
            is_resource: true,
            verb,
            resource,
            subresource,
            namespace,
            name,
            ..Attributes::default()
        };
        self.authorization.check(user, &ask).await
    }
}

fn user(name: &str) -> UserInfo {
    UserInfo::new(name, [] as [&str; 0])
}

fn role(name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name, "uid": "1"}, "rules": rules})
}

fn binding(name: &str, kind: &str, role: &str, subjects: Value) -> Value {
    json!({"metadata": {"name": name}, "subjects": subjects,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}})
}

#[tokio::test]
async fn a_role_holds_in_its_namespace_as_soon_as_it_is_written() {
    let f = fixture().await;
    let ann = user("ann");
    assert!(!f.may(&ann, "get", "pods", "a", "x").await.is_allowed());
    f.rbac(
        "roles",
        "a",
        role("reader", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])),
    )
    .await;
    f.rbac("rolebindings", "a", binding("b", "Role", "reader", json!([{"kind": "User", "name": "ann"}])))
        .await;
    assert_eq!(
        f.may(&ann, "get", "pods", "a", "x").await,
        Decision::Allow("RBAC: allowed by RoleBinding \"b/a\" of Role \"reader\" to User \"ann\"".into())
    );
    assert!(!f.may(&ann, "get", "pods", "b", "x").await.is_allowed());
    assert!(!f.may(&ann, "get", "pods/log", "a", "x").await.is_allowed());
    assert!(!f.may(&user("bob"), "get", "pods", "a", "x").await.is_allowed());
}

#[tokio::test]
async fn the_default_roles_are_there_and_aggregated() {
    let f = fixture().await;
    f.rbac(
        "clusterrolebindings",
        "",
        binding("v", "ClusterRole", "view", json!([{"kind": "Group", "name": "viewers"}])),
    )
    .await;
    f.rbac(
        "rolebindings",
        "a",
        binding("e", "ClusterRole", "edit", json!([{"kind": "ServiceAccount", "name": "bot"}])),
    )
    .await;
    let viewer = UserInfo::new("v", ["viewers"]);
    assert!(f.may(&viewer, "list", "pods", "a", "").await.is_allowed());
    assert!(f.may(&viewer, "get", "pods/log", "a", "x").await.is_allowed());
    assert!(!f.may(&viewer, "get", "secrets", "a", "x").await.is_allowed());
    assert!(!f.may(&viewer, "delete", "pods", "a", "x").await.is_allowed());
    // A ServiceAccount subject without a namespace is meant in the binding's.
    let bot = user("system:serviceaccount:a:bot");
    assert!(f.may(&bot, "delete", "pods", "a", "x").await.is_allowed());
    assert!(f.may(&bot, "list", "pods", "a", "").await.is_allowed());
    assert!(!f.may(&bot, "list", "pods", "b", "").await.is_allowed());
    let discovery = Attributes { verb: "get", path: "/apis/apps", ..Attributes::default() };
    assert!(f.authorization.check(&user("x"), &discovery).await.is_allowed());
}

#[tokio::test]
async fn a_new_role_with_the_label_is_aggregated() {
    let f = fixture().await;
    f.rbac(
        "clusterrolebindings",
        "",
        binding("v", "ClusterRole", "view", json!([{"kind": "User", "name": "ann"}])),
    )
    .await;
    let mut extra =
        role("crd-view", json!([{"apiGroups": [""], "resources": ["widgets"], "verbs": ["get"]}]));
    extra["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    f.rbac("clusterroles", "", extra).await;
    for _ in 0..100 {
        if f.may(&user("ann"), "get", "widgets", "a", "x").await.is_allowed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the rule never arrived in the role view");
}

#[tokio::test]
async fn a_second_start_writes_nothing_and_an_old_role_gets_new_rules() {
    let f = fixture().await;
    let before = f.store.revision().await.unwrap();
    reconcile::run(&*f.store).await.unwrap();
    assert_eq!(f.store.revision().await.unwrap(), before);

    let resource = scheme::find("rbac.authorization.k8s.io", "v1", "clusterroles").unwrap();
    let key = key::key(resource, "", "system:kube-dns");
    let read = async || {
        let request = RangeRequest { range: KeyRange::key(&key), at: None, limit: 1, count_only: false };
        let kv = f.store.range(request).await.unwrap().kvs.remove(0);
        serde_json::from_slice::<Value>(&kv.value).unwrap()
    };
    let mut object = read().await;
    let uid = object["metadata"]["uid"].clone();
    assert!(uid.as_str().is_some_and(|uid| uid.len() == 36));
    object["rules"] = json!([{"apiGroups": ["mine"], "resources": ["x"], "verbs": ["get"]}]);
    f.rbac("clusterroles", "", object).await;
    reconcile::run(&*f.store).await.unwrap();
    let object = read().await;
    assert_eq!(object["rules"].as_array().unwrap().len(), 3);
    assert_eq!(object["rules"][0]["apiGroups"][0], "mine");
    assert_eq!(object["metadata"]["uid"], uid);

    let mut object = object;
    object["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false".into();
    object["rules"] = json!([]);
    f.rbac("clusterroles", "", object).await;
    reconcile::run(&*f.store).await.unwrap();
    assert_eq!(read().await["rules"], json!([]));
}

#[tokio::test]
async fn a_kubelet_reaches_only_what_its_pods_refer_to() {
    let f = fixture().await;
    let pod = |name: &str, node: &str, secret: &str| {
        json!({"metadata": {"name": name, "namespace": "a", "uid": name}, "spec": {
            "nodeName": node, "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}],
            "volumes": [{"name": "v", "secret": {"secretName": secret}}, {"name": "p", "persistentVolumeClaim": {"claimName": "claim"}}]}})
    };
    f.put("", "pods", "a", pod("mine", "n1", "s1")).await;
    f.put("", "pods", "a", pod("other", "n2", "s2")).await;
    f.put("", "persistentvolumes", "", json!({"metadata": {"name": "pv"}, "spec": {
        "claimRef": {"namespace": "a", "name": "claim"}, "csi": {"nodePublishSecretRef": {"name": "vs", "namespace": "b"}}}})).await;
    let n1 = UserInfo::node("n1");
    for (verb, resource, namespace, name) in [
        ("get", "secrets", "a", "s1"),
        ("watch", "secrets", "a", "s1"),
        ("get", "secrets", "a", "pull"),
        ("get", "configmaps", "a", "cm"),
        ("get", "pods", "a", "mine"),
        ("create", "serviceaccounts/token", "a", "sa"),
        ("get", "persistentvolumeclaims", "a", "claim"),
        ("get", "persistentvolumes", "", "pv"),
        ("get", "secrets", "b", "vs"),
        ("get", "nodes", "", "n1"),
        ("patch", "nodes/status", "", "n1"),
        ("patch", "pods/status", "a", "mine"),
        ("create", "events", "a", ""),
        ("list", "services", "", ""),
        // Routes lead to other nodes' pods (the role of kube-proxy, which nodes are themselves).
        ("get", "nodes", "", "n2"),
        ("list", "nodes", "", ""),
    ] {
        assert!(
            f.may(&n1, verb, resource, namespace, name).await.is_allowed(),
            "{verb} {resource} {namespace}/{name}"
        );
    }
    for (verb, resource, namespace, name) in [
        ("get", "secrets", "a", "s2"),
        ("list", "secrets", "a", ""),
        ("list", "secrets", "", ""),
        ("update", "secrets", "a", "s1"),
        ("get", "pods", "a", "other"),
        ("list", "pods", "", ""),
        ("create", "serviceaccounts/token", "a", "default"),
        ("delete", "nodes", "", "n1"),
        ("create", "deployments", "a", ""),
    ] {
        assert!(
            !f.may(&n1, verb, resource, namespace, name).await.is_allowed(),
            "{verb} {resource} {namespace}/{name}"
        );
    }
    assert_eq!(
        f.may(&n1, "get", "secrets", "a", "s2").await,
        Decision::NoOpinion("no relationship found between node 'n1' and this object".into())
    );
    let own = Attributes {
        is_resource: true,
        verb: "watch",
        resource: "pods",
        field_selector: "spec.nodeName=n1",
        ..Attributes::default()
    };
    assert!(f.authorization.check(&n1, &own).await.is_allowed());
    let others = Attributes { field_selector: "spec.nodeName=n2", ..own };
    assert!(!f.authorization.check(&n1, &others).await.is_allowed());
    let lease = Attributes {
        is_resource: true,
        verb: "update",
        group: "coordination.k8s.io",
        resource: "leases",
        namespace: "kube-node-lease",
        name: "n1",
        ..Attributes::default()
    };
    assert!(f.authorization.check(&n1, &lease).await.is_allowed());
    assert!(!f.authorization.check(&n1, &Attributes { name: "n2", ..lease }).await.is_allowed());
}

#[tokio::test]
async fn what_a_deleted_pod_referred_to_is_closed_again() {
    let f = fixture().await;
    let pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": "n", "volumes": [{"secret": {"secretName": "s"}}]}});
    f.put("", "pods", "a", pod).await;
    let node = UserInfo::node("n");
    assert!(f.may(&node, "get", "secrets", "a", "s").await.is_allowed());
    f.store.txn(Txn { then: vec![Op::Delete("/registry/pods/a/p".into())], ..Txn::default() }).await.unwrap();
    f.authorization.catch_up().await;
    assert!(!f.may(&node, "get", "secrets", "a", "s").await.is_allowed());
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    let f = fixture().await;
    let ann = user("ann");
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
    f.rbac("roles", "a", role("mine", rules.clone())).await;
    f.rbac("rolebindings", "a", binding("b", "Role", "mine", json!([{"kind": "User", "name": "ann"}]))).await;
    f.authorization.catch_up().await;
    let check = |resource: &str, new: Value, old: Option<Value>| {
        check_escalation(&f.authorization, &ann, resource, "a", &new, old.as_ref())
    };
    assert_eq!(check("roles", role("new", rules.clone()), None), Ok(()));
    let more =
        json!([{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "list", "watch"]}]);
    assert_eq!(
        check("roles", role("new", more.clone()), None),
        Err(Escalation::Forbidden(
            "user \"ann\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"watch\"]}\n\
             {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\" \"watch\"]}"
                .into()
        ))
    );
    // Nothing is granted by a change of something else.
    assert_eq!(check("roles", role("new", more.clone()), Some(role("new", more))), Ok(()));
    let to_bob = json!([{"kind": "User", "name": "bob"}]);
    assert_eq!(check("rolebindings", binding("x", "Role", "mine", to_bob.clone()), None), Ok(()));
    assert!(check("rolebindings", binding("x", "ClusterRole", "admin", to_bob.clone()), None).is_err());
    assert_eq!(
        check("rolebindings", binding("x", "Role", "none", to_bob), None).unwrap_err().to_string(),
        "roles.rbac.authorization.k8s.io \"none\" not found"
    );
    let admin = UserInfo::admin();
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    assert_eq!(check_escalation(&f.authorization, &admin, "roles", "a", &role("x", all), None), Ok(()));
}

#[test]
fn the_403_has_upstreams_words() {
    let info = RequestInfo {
        is_resource: true,
        verb: "list".into(),
        resource: "pods".into(),
        namespace: "default".into(),
        ..RequestInfo::default()
    };
    assert_eq!(
        forbidden(&user("x"), &info, "").message,
        "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let node = RequestInfo {
        namespace: String::new(),
        verb: "get".into(),
        resource: "nodes".into(),
        name: "n".into(),
        ..info
    };
    assert_eq!(
        forbidden(&user("x"), &node, "why").message,
        "nodes \"n\" is forbidden: User \"x\" cannot get resource \"nodes\" in API group \"\" at the cluster scope: why"
    );
    let path = RequestInfo { path: "/metrics".into(), verb: "get".into(), ..RequestInfo::default() };
    assert_eq!(
        forbidden(&user("x"), &path, "").message,
        "forbidden: User \"x\" cannot get path \"/metrics\""
    );
    assert_eq!(forbidden(&UserInfo::anonymous(), &path, "").code, 401);
}
