//! Who may do what, asked through the API.

use http::Method;
use sampan_apiserver::UserInfo;
use serde_json::{Value, json};

use crate::harness::{Answer, Api};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn ann() -> UserInfo {
    UserInfo::new("ann", ["dev"])
}

async fn post_as(api: &Api, user: &UserInfo, path: &str, body: Value) -> Answer {
    api.call_as(user, Method::POST, path, &[("content-type", "application/json")], body.to_string().into())
        .await
}

async fn get_as(api: &Api, user: &UserInfo, path: &str) -> Answer {
    api.call_as(user, Method::GET, path, &[], vec![]).await
}

async fn bind(api: &Api, role: &str, user: &str) {
    let binding = json!({"metadata": {"name": format!("{role}-{user}")}, "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}});
    api.post(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await.expect(201);
}

#[tokio::test]
async fn a_denial_is_a_403_with_upstreams_text() {
    let api = Api::start().await;
    let denied = get_as(&api, &ann(), "/api/v1/namespaces/default/pods").await;
    let status = denied.expect(403);
    assert_eq!(
        status["message"],
        "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(
        (status["reason"].clone(), status["details"]["kind"].clone()),
        (json!("Forbidden"), json!("pods"))
    );
    bind(&api, "view", "ann").await;
    get_as(&api, &ann(), "/api/v1/namespaces/default/pods").await.expect(200);
    assert_eq!(get_as(&api, &ann(), "/api/v1/namespaces/default/secrets").await.code, 403);
    assert_eq!(get_as(&api, &ann(), "/api/v1/pods").await.code, 403);
}

#[tokio::test]
async fn the_default_roles_can_be_read_and_are_complete() {
    let api = Api::start().await;
    let admin = api.get(&format!("{RBAC}/clusterroles/admin")).await.expect(200);
    assert!(admin["rules"].as_array().unwrap().len() > 15);
    assert!(admin["metadata"]["uid"].is_string());
    assert_eq!(admin["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"], "true");
    let roles = api.get(&format!("{RBAC}/clusterroles")).await.expect(200);
    assert!(roles["items"].as_array().unwrap().len() > 50);
    api.get(&format!("{RBAC}/namespaces/kube-system/roles/extension-apiserver-authentication-reader"))
        .await
        .expect(200);
}

#[tokio::test]
async fn nobody_grants_more_than_they_hold() {
    let api = Api::start().await;
    bind(&api, "admin", "ann").await;
    let role = |resources: Value| json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": resources, "verbs": ["get"]}]});
    let path = format!("{RBAC}/namespaces/default/roles");
    let refused = post_as(&api, &ann(), &path, role(json!(["nodes"]))).await;
    let message = refused.message();
    assert_eq!(refused.code, 403, "{message}");
    assert!(
        message.starts_with("roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"ann\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"),
        "{message}"
    );
    post_as(&api, &ann(), &path, role(json!(["pods"]))).await.expect(201);
}

#[tokio::test]
async fn reviews_answer_who_may_do_what() {
    let api = Api::start().await;
    bind(&api, "view", "ann").await;
    let access = "/apis/authorization.k8s.io/v1";
    let ask = |verb: &str| json!({"spec": {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}});
    let own = format!("{access}/selfsubjectaccessreviews");
    let yes = post_as(&api, &ann(), &own, ask("list")).await.expect(201);
    assert_eq!(yes["status"]["allowed"], true);
    assert_eq!(
        yes["status"]["reason"],
        "RBAC: allowed by RoleBinding \"view-ann/default\" of ClusterRole \"view\" to User \"ann\""
    );
    assert_eq!(post_as(&api, &ann(), &own, ask("delete")).await.expect(201)["status"]["allowed"], false);
    assert_eq!(post_as(&api, &ann(), &own, json!({"spec": {}})).await.code, 422);

    let mut others = ask("list");
    others["spec"]["user"] = "ann".into();
    assert_eq!(
        api.post(&format!("{access}/subjectaccessreviews"), others.clone()).await.expect(201)["status"]["allowed"],
        true
    );
    assert_eq!(post_as(&api, &ann(), &format!("{access}/subjectaccessreviews"), others).await.code, 403);

    let rules = json!({"spec": {"namespace": "default"}});
    let rules = post_as(&api, &ann(), &format!("{access}/selfsubjectrulesreviews"), rules).await.expect(201);
    assert!(rules["status"]["resourceRules"].as_array().unwrap().len() > 5);
    assert_eq!(rules["status"]["incomplete"], false);

    let whoami = post_as(&api, &ann(), "/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({}))
        .await
        .expect(201);
    assert_eq!(whoami["status"]["userInfo"]["username"], "ann");
    assert_eq!(whoami["status"]["userInfo"]["groups"], json!(["dev", "system:authenticated"]));
}

#[tokio::test]
async fn a_service_accounts_token_is_issued_reviewed_and_bound() {
    let api = Api::start().await;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let issued = api.post(path, json!({"spec": {}})).await.expect(201);
    let token = issued["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(issued["spec"]["expirationSeconds"], 3600);
    assert_eq!(issued["kind"], "TokenRequest");
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = api.post(reviews, json!({"spec": {"token": token}})).await.expect(201);
    assert_eq!(review["status"]["authenticated"], true);
    assert_eq!(review["status"]["user"]["username"], "system:serviceaccount:default:default");
    let elsewhere =
        api.post(reviews, json!({"spec": {"token": token, "audiences": ["vault"]}})).await.expect(201);
    assert!(elsewhere["status"]["authenticated"].is_null());

    let short = api.post(path, json!({"spec": {"expirationSeconds": 60}})).await;
    assert_eq!(short.code, 422);
    assert_eq!(api.post("/api/v1/namespaces/default/serviceaccounts/none/token", json!({})).await.code, 404);

    let pod = api.pod("p", None).await;
    let bound = |uid: &Value| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}}});
    let conflict = api.post(path, bound(&json!("other"))).await;
    assert_eq!(conflict.code, 409);
    assert!(conflict.message().contains("does not match the UID in record"), "{}", conflict.message());
    let issued = api.post(path, bound(&pod["metadata"]["uid"])).await.expect(201);
    let token = issued["status"]["token"].clone();
    let review = || api.post(reviews, json!({"spec": {"token": token}}));
    assert_eq!(review().await.expect(201)["status"]["authenticated"], true);
    api.delete_with("/api/v1/namespaces/default/pods/p", json!({"gracePeriodSeconds": 0})).await.expect(200);
    assert!(review().await.expect(201)["status"]["authenticated"].is_null());
    let wrong =
        json!({"spec": {"boundObjectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    assert_eq!(
        api.post(path, wrong).await.message(),
        "cannot bind token to object of type apps/v1, Kind=Deployment"
    );
}

#[tokio::test]
async fn health_discovery_and_version_answer() {
    let api = Api::start().await;
    let text = |answer: Answer| String::from_utf8(answer.bytes).unwrap();
    assert_eq!(text(api.get("/healthz").await), "ok");
    let verbose = text(api.get("/readyz?verbose").await);
    assert!(verbose.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n"), "{verbose}");
    assert!(verbose.ends_with("readyz check passed\n"), "{verbose}");
    assert_eq!(text(api.get("/livez/ping").await), "ok");
    assert_eq!(api.get("/livez/nothing").await.code, 404);
    assert!(text(api.get("/livez?verbose&exclude=etcd").await).contains("[+]etcd excluded: ok\n"));
    let version = api.get("/version").await.expect(200);
    assert_eq!((version["major"].clone(), version["minor"].clone()), (json!("1"), json!("36")));
    let groups = api.get("/apis").await.expect(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|group| group["name"] == "apps"));
    assert_eq!(api.get("/api/v1").await.expect(200)["kind"], "APIResourceList");
    assert_eq!(api.get("/apis/nothing.example").await.code, 404);
    assert!(api.get("/").await.expect(200)["paths"].as_array().unwrap().len() > 20);
    let index = api.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = api.get(&url).await;
    assert_eq!(document.headers["cache-control"], "public, immutable");
    assert_eq!(document.expect(200)["openapi"], "3.0.0");
    let etag = {
        let v2 = api.get("/openapi/v2").await;
        let etag = v2.headers["etag"].to_str().unwrap().to_owned();
        assert_eq!(v2.expect(200)["swagger"], "2.0");
        etag
    };
    assert_eq!(api.call(Method::GET, "/openapi/v2", &[("if-none-match", &etag)], vec![]).await.code, 304);
    let jwks = api.get("/openid/v1/jwks").await.expect(200);
    assert_eq!(jwks["keys"][0]["alg"], "ES256");
    let issuer = api.get("/.well-known/openid-configuration").await.expect(200);
    assert_eq!(issuer["issuer"], "https://kubernetes.default.svc.cluster.local");
}

/// Grants verbs on a resource (of the core group unless it says another) in the namespace default, perhaps by name.
async fn grant(api: &Api, user: &str, resource: &str, verbs: Value, names: Value) {
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let name = format!("{}-{user}", resource.replace('/', "-"));
    let rules =
        json!([{"apiGroups": [group], "resources": [resource], "verbs": verbs, "resourceNames": names}]);
    let role = json!({"metadata": {"name": name}, "rules": rules});
    api.post(&format!("{RBAC}/clusterroles"), role).await.expect(201);
    bind(api, &name, user).await;
}

#[tokio::test]
async fn who_may_see_one_object_sees_no_other() {
    let api = Api::start().await;
    grant(&api, "ann", "secrets", json!(["get", "list", "watch"]), json!(["own"])).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["own", "other"] {
        api.post(secrets, json!({"metadata": {"name": name}})).await.expect(201);
    }
    let list =
        get_as(&api, &ann(), &format!("{secrets}?fieldSelector=metadata.name%3Down")).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(get_as(&api, &ann(), secrets).await.code, 403);
    // A term that only looks like one: it is part of another's value.
    for selector in ["type!%3Da%5C,metadata.name%3Down", "metadata.name!%3Down", "metadata.name%3Down%5C,x"] {
        assert_eq!(get_as(&api, &ann(), &format!("{secrets}?fieldSelector={selector}")).await.code, 403);
    }
    // The old form of a watch names its object in the path.
    let path = "/api/v1/watch/namespaces/default/secrets/own";
    let watch = get_as(&api, &ann(), &format!("{path}?timeoutSeconds=1&resourceVersion=0")).await;
    let text = String::from_utf8(watch.bytes).unwrap();
    assert_eq!(watch.code, 200, "{text}");
    assert!(text.contains("\"name\":\"own\"") && !text.contains("\"name\":\"other\""), "{text}");
}

#[tokio::test]
async fn bindings_bind_what_one_holds_or_may_bind() {
    let api = Api::start().await;
    grant(&api, "ann", "rolebindings.rbac.authorization.k8s.io", json!(["*"]), Value::Null).await;
    let path = format!("{RBAC}/namespaces/default/rolebindings");
    let binding = |role: &str| {
        json!({"metadata": {"name": role}, "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
    };
    // Everything about bindings is nothing about roles: `escalate` is a verb of roles.
    let refused = post_as(&api, &ann(), &path, binding("cluster-admin")).await;
    assert_eq!(refused.code, 403, "{}", refused.message());
    grant(&api, "ann", "clusterroles.rbac.authorization.k8s.io", json!(["bind"]), json!(["edit"])).await;
    post_as(&api, &ann(), &path, binding("edit")).await.expect(201);
    assert_eq!(post_as(&api, &ann(), &path, binding("admin")).await.code, 403);
}

#[tokio::test]
async fn an_impersonation_that_cannot_be_read_is_refused() {
    let api = Api::start().await;
    let whoami = |name: &[u8]| {
        let mut request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("content-type", "application/json")
            .body(kube::client::Body::from(b"{}".to_vec()))
            .unwrap();
        let name = http::HeaderValue::from_bytes(name).unwrap();
        request.headers_mut().insert("impersonate-user", name);
        request
    };
    let admin = UserInfo::admin();
    let answer = api.send(&admin, whoami("j\u{fc}rgen".as_bytes())).await;
    assert_eq!(answer.status(), 201);
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(review["status"]["userInfo"]["username"], "j\u{fc}rgen");
    assert_eq!(api.send(&admin, whoami(b"j\xfcrgen")).await.status(), 400, "Latin-1");
}

#[tokio::test]
async fn who_may_only_read_runs_no_commands() {
    let api = Api::start().await;
    api.pod("p", None).await;
    grant(&api, "ann", "*", json!(["get", "list", "watch"]), Value::Null).await;
    for part in ["exec?command=id", "attach", "portforward"] {
        let path = format!("/api/v1/namespaces/default/pods/p/{part}");
        let refused = get_as(&api, &ann(), &path).await;
        assert_eq!(refused.code, 403, "{part}: {}", refused.message());
        assert!(refused.message().contains("cannot create resource"), "{}", refused.message());
        let by_watch = path.replace("/v1/", "/v1/watch/");
        assert_eq!(get_as(&api, &ann(), &by_watch).await.code, 403);
    }
    grant(&api, "ann", "pods/exec", json!(["create"]), Value::Null).await;
    let allowed = get_as(&api, &ann(), "/api/v1/namespaces/default/pods/p/exec?command=id").await;
    assert_eq!(allowed.code, 400, "it is no upgrade: {}", allowed.message());
}

#[tokio::test]
async fn a_kubelet_gets_tokens_for_its_own_pods_only() {
    let api = Api::start().await;
    for node in ["a", "b"] {
        api.post("/api/v1/nodes", json!({"metadata": {"name": node}})).await.expect(201);
    }
    let (mine, theirs) = (api.pod("mine", Some("a")).await, api.pod("theirs", Some("b")).await);
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let bound = |pod: &Value| {
        let metadata = &pod["metadata"];
        json!({"spec": {"boundObjectRef":
            {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}}})
    };
    let node = UserInfo::node("a");
    post_as(&api, &node, path, bound(&mine)).await.expect(201);
    let mut nameless = bound(&mine);
    nameless["spec"]["boundObjectRef"]["uid"] = Value::Null;
    for (ask, why) in [
        (json!({"spec": {}}), "requested token not bound to a pod"),
        (nameless, "requested token with a pod binding without a uid"),
        (bound(&theirs), "requested token bound to a pod scheduled on a different node"),
    ] {
        let refused = post_as(&api, &node, path, ask).await;
        assert_eq!(refused.code, 403);
        let text = format!("serviceaccounts \"default\" is forbidden: node \"a\" {why}");
        assert_eq!(refused.message(), text);
    }
    // Its own pods, and not all pods by a selector that only looks like it.
    let pods = "/api/v1/pods?fieldSelector=";
    assert_eq!(get_as(&api, &node, &format!("{pods}spec.nodeName%3Da")).await.code, 200);
    assert_eq!(get_as(&api, &node, &format!("{pods}status.phase!%3Dx%5C,spec.nodeName%3Da")).await.code, 403);
}
