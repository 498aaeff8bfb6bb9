#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::{defaulting, scheme};

fn resource(group: &str, plural: &str) -> &'static Resource {
    scheme::resources().iter().find(|r| r.group == group && r.plural == plural).unwrap()
}

fn create(group: &str, plural: &str, mut object: Value) -> Vec<String> {
    let resource = resource(group, plural);
    defaulting::apply_defaults(resource, &mut object);
    validate_create(resource, &object).iter().map(ToString::to_string).collect()
}

fn pod_with(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    change(&mut pod);
    defaulting::apply_defaults(resource("", "pods"), &mut pod);
    pod
}

fn pod(change: impl FnOnce(&mut Value)) -> Vec<String> {
    validate_create(resource("", "pods"), &pod_with(change)).iter().map(ToString::to_string).collect()
}

#[test]
fn a_plain_pod_is_valid() {
    assert!(pod(|_| {}).is_empty());
}

#[test]
fn img_22_image_text_is_checked_lightly() {
    assert_eq!(
        pod(|p| p["spec"]["containers"][0]["image"] = "".into()),
        ["spec.containers[0].image: Required value"]
    );
    assert_eq!(
        pod(|p| p["spec"]["containers"][0]["image"] = " a".into()),
        ["spec.containers[0].image: Invalid value: \" a\": must not have leading or trailing whitespace"]
    );
    assert!(pod(|p| p["spec"]["containers"][0]["image"] = "FAILED_IMAGE".into()).is_empty());
}

#[test]
fn img_21_pull_policy() {
    assert_eq!(
        pod(|p| p["spec"]["containers"][0]["imagePullPolicy"] = "X".into()),
        [
            "spec.containers[0].imagePullPolicy: Unsupported value: \"X\": supported values: \"Always\", \"IfNotPresent\", \"Never\""
        ]
    );
}

#[test]
fn img_55_docker_secrets() {
    let secret = |data: Value| json!({"metadata": {"name": "s", "namespace": "d"}, "type": "kubernetes.io/dockerconfigjson", "data": data});
    assert_eq!(create("", "secrets", secret(json!({}))), ["data[.dockerconfigjson]: Required value"]);
    let errors = create("", "secrets", secret(json!({".dockerconfigjson": "eA=="})));
    assert_eq!(
        errors,
        [
            "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid character 'x' looking for beginning of value"
        ]
    );
    assert!(create("", "secrets", secret(json!({".dockerconfigjson": "e30="}))).is_empty());
}

#[test]
fn env_19_and_29_sources_of_variables() {
    let env = |from: Value| {
        pod(move |p| p["spec"]["containers"][0]["env"] = json!([{"name": "A", "valueFrom": from}]))
    };
    assert_eq!(
        env(json!({"fieldRef": {"fieldPath": "x"}})),
        [
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"x\": error converting fieldPath: field label not supported: x"
        ]
    );
    assert!(env(json!({"fieldRef": {"fieldPath": "metadata.labels['a']"}})).is_empty());
    assert!(
        env(json!({"fieldRef": {"fieldPath": "metadata.labels"}}))[0]
            .contains("Unsupported value: \"metadata.labels\": supported values: \"metadata.name\"")
    );
    assert!(env(json!({}))[0].contains("must specify one of: `fieldRef`"));
    let two = json!({"fieldRef": {"fieldPath": "metadata.name"}, "secretKeyRef": {"name": "s", "key": "k"}});
    assert!(env(two)[0].ends_with("may not have more than one field specified at a time"));
    let errors = pod(|p| {
        p["spec"]["containers"][0]["env"] =
            json!([{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    });
    assert!(errors[0].ends_with("may not be specified when `value` is not empty"), "{errors:?}");
}

#[test]
fn env_28_names_of_variables() {
    let env = |name: &str| pod(|p| p["spec"]["containers"][0]["env"] = json!([{"name": name, "value": "x"}]));
    for good in ["A", "1bad.key", "with space", "a:b"] {
        assert!(env(good).is_empty(), "{good}");
    }
    for bad in ["A=B", "\u{e4}", "tab\t"] {
        let errors = env(bad);
        let message = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        assert!(errors[0].contains(message), "{errors:?}");
    }
}

#[test]
fn env_43_files_of_variables_are_in_volumes_that_containers_write() {
    let file = |volume: &str, path: &str| {
        let reference = json!({"volumeName": volume, "path": path, "key": "K"});
        pod(move |p| {
            p["spec"]["volumes"] =
                json!([{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}}]);
            p["spec"]["containers"][0]["env"] =
                json!([{"name": "A", "valueFrom": {"fileKeyRef": reference}}]);
        })
    };
    let at = "spec.containers[0].env[0].valueFrom.fileKeyRef";
    assert_eq!(file("e", "a/b.env"), [""; 0]);
    assert_eq!(file("no", "a"), [format!("{at}.volumeName: Not found: \"no\"")]);
    assert_eq!(
        file("c", "a"),
        [format!("{at}.volumeName: Invalid value: \"c\": referenced volume must be of type emptyDir")]
    );
    assert_eq!(file("e", "/a"), [format!("{at}.path: Invalid value: \"/a\": must be a relative path")]);
    assert!(file("e", "../a")[0].ends_with("must not contain '..'"));
}

#[test]
fn user_namespaces_exclude_those_of_the_host_and_unmasked_proc_needs_one() {
    let with = |fields: Value, proc_mount: &str| {
        let proc_mount = proc_mount.to_owned();
        pod(move |p| {
            for (name, value) in fields.as_object().unwrap() {
                p["spec"][name] = value.clone();
            }
            p["spec"]["containers"][0]["securityContext"] = json!({"procMount": proc_mount});
        })
    };
    let own = json!({"hostUsers": false});
    assert_eq!(with(own, "Unmasked"), [""; 0]);
    assert_eq!(
        with(json!({}), "Unmasked"),
        [
            "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"
        ]
    );
    let errors = with(json!({"hostUsers": false, "hostPID": true, "hostIPC": true}), "Default");
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(errors[0], "spec.hostPID: Forbidden: when `hostUsers` is false");
}

#[test]
fn env_22_divisors() {
    let errors = pod(|p| {
        p["spec"]["containers"][0]["env"] = json!([{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}]);
    });
    assert!(
        errors[0].ends_with("only divisor's values 1m and 1 are supported with the cpu resource"),
        "{errors:?}"
    );
}

#[test]
fn env_52_and_54_mounts() {
    let errors = pod(|p| {
        p["spec"]["volumes"] = json!([{"name": "v"}]);
        p["spec"]["containers"][0]["volumeMounts"] = json!([
            {"name": "v", "mountPath": "/a", "subPath": "/x"},
            {"name": "w", "mountPath": "/a", "subPath": "../x"}]);
    });
    assert_eq!(
        errors,
        [
            "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"/x\": must be a relative path",
            "spec.containers[0].volumeMounts[1].name: Not found: \"w\"",
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "spec.containers[0].volumeMounts[1].subPath: Invalid value: \"../x\": must not contain '..'",
        ]
    );
}

#[test]
fn hook_14_and_35_handlers() {
    let hook =
        |handler: Value| pod(move |p| p["spec"]["containers"][0]["lifecycle"] = json!({"preStop": handler}));
    assert_eq!(
        hook(json!({})),
        ["spec.containers[0].lifecycle.preStop: Required value: must specify a handler type"]
    );
    assert_eq!(
        hook(json!({"sleep": {"seconds": 31}})),
        [
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)"
        ]
    );
    assert!(hook(json!({"sleep": {"seconds": 30}})).is_empty());
    assert_eq!(
        hook(json!({"exec": {"command": []}, "tcpSocket": {"port": 80}})),
        [
            "spec.containers[0].lifecycle.preStop.exec.command: Required value",
            "spec.containers[0].lifecycle.preStop.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ]
    );
}

#[test]
fn hook_01_only_sidecars_among_init_containers_have_hooks() {
    let errors = pod(|p| {
        p["spec"]["initContainers"] = json!([{"name": "i", "image": "i", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}},
            {"name": "s", "image": "i", "restartPolicy": "Always", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]);
    });
    assert_eq!(
        errors,
        [
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always"
        ]
    );
}

#[test]
fn hook_32_stop_signals_belong_to_a_system() {
    let signal = |os: Value, signal: &str| {
        let signal = signal.to_owned();
        pod(move |p| {
            if os.is_object() {
                p["spec"]["os"] = os;
            }
            p["spec"]["containers"][0]["lifecycle"] = json!({"stopSignal": signal});
        })
    };
    for good in ["SIGUSR1", "SIGRTMIN+15", "SIGRTMAX-14", "SIGRTMAX"] {
        assert!(signal(json!({"name": "linux"}), good).is_empty(), "{good}");
    }
    assert_eq!(
        signal(Value::Null, "SIGUSR1"),
        [
            "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`"
        ]
    );
    for bad in ["USR1", "SIGRTMIN+16", "SIGRTMIN++1", "10"] {
        let errors = signal(json!({"name": "linux"}), bad);
        assert!(errors[0].contains(&format!("stopSignal: Unsupported value: \"{bad}\"")), "{errors:?}");
    }
}

#[test]
fn pod_29_restart_rules() {
    let rules = |policy: Option<&str>, rules: Value| {
        let policy = policy.map(str::to_owned);
        pod(move |p| {
            let container = &mut p["spec"]["containers"][0];
            container["restartPolicyRules"] = rules;
            if let Some(policy) = policy {
                container["restartPolicy"] = policy.into();
            }
        })
    };
    let rule = |action: &str| json!({"action": action, "exitCodes": {"operator": "In", "values": [1]}});
    assert!(rules(Some("Never"), json!([rule("Restart"), rule("RestartAllContainers")])).is_empty());
    assert_eq!(
        rules(None, json!([rule("Restart")])),
        [
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"
        ]
    );
    let errors = rules(
        Some("Never"),
        json!([rule("Stop"), {"action": "Restart"}, {"action": "Restart", "exitCodes": {"operator": "Is"}}]),
    );
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors[0].contains("restartPolicyRules[0].action: Unsupported value: \"Stop\""), "{errors:?}");
    assert_eq!(
        errors[1],
        "spec.containers[0].restartPolicyRules[1].exitCodes: Required value: must be specified"
    );
    assert!(errors[2].contains("exitCodes.operator: Unsupported value: \"Is\""), "{errors:?}");
    let many: Vec<Value> = (0..21).map(|_| rule("Restart")).collect();
    assert!(rules(Some("Never"), many.into())[0].contains("Too many: 21: must have at most 20 items"));
}

#[test]
fn pod_42_probe_grace_is_not_for_readiness() {
    let errors = pod(|p| {
        p["spec"]["containers"][0]["readinessProbe"] =
            json!({"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 5});
        p["spec"]["containers"][0]["livenessProbe"] =
            json!({"exec": {"command": ["x"]}, "successThreshold": 2});
    });
    assert_eq!(
        errors,
        [
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
        ]
    );
}

#[test]
fn pod_44_updates_change_images_and_little_else() {
    let pods = resource("", "pods");
    let old = pod_with(|_| {});
    let update = |change: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        validate_update(pods, &new, &old).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(update(&|p| p["spec"]["containers"][0]["image"] = "j".into()).is_empty());
    assert!(update(&|p| p["spec"]["activeDeadlineSeconds"] = 5.into()).is_empty());
    assert!(update(&|p| p["spec"]["tolerations"] = json!([{"operator": "Exists"}])).is_empty());
    let errors = update(&|p| p["spec"]["runtimeClassName"] = "x".into());
    assert!(errors[0].starts_with(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    ));
    assert!(errors[0].ends_with("+ \tspec.runtimeClassName: \"x\""), "{errors:?}");
    let errors = update(&|p| p["metadata"]["uid"] = "other".into());
    assert_eq!(errors, ["metadata.uid: Invalid value: \"other\": field is immutable"]);
}

#[test]
fn pod_47_ephemeral_containers_are_limited() {
    let pods = resource("", "pods");
    let old = pod_with(|_| {});
    let new = pod_with(|p| {
        p["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "i", "targetContainerName": "z",
        "ports": [{"containerPort": 1}]}])
    });
    let errors: Vec<String> = validate_subresource(pods, "ephemeralcontainers", &new, &old)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        errors,
        [
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"z\"",
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ]
    );
    let errors = validate_subresource(pods, "ephemeralcontainers", &old, &new);
    assert_eq!(errors[0].body(), "Forbidden: existing ephemeral containers \"e\" may not be removed\n");
}

#[test]
fn pod_48_a_mirror_pod_takes_no_ephemeral_containers() {
    let old = pod_with(|p| p["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"}));
    let mut new = old.clone();
    new["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "i"}]);
    let errors = validate_subresource(resource("", "pods"), "ephemeralcontainers", &new, &old);
    assert_eq!(errors[0].body(), "Forbidden: static pods do not support ephemeral containers");
}

#[test]
fn rtc_03_to_05_runtime_classes() {
    let class = |object: Value| create("node.k8s.io", "runtimeclasses", object);
    assert_eq!(class(json!({"metadata": {"name": "a"}})), ["handler: Required value"]);
    assert!(
        class(json!({"metadata": {"name": "a"}, "handler": "A"}))[0]
            .starts_with("handler: Invalid value: \"A\": a lowercase RFC 1123 label")
    );
    let r = resource("node.k8s.io", "runtimeclasses");
    let old = json!({"metadata": {"name": "a"}, "handler": "x"});
    let new = json!({"metadata": {"name": "a"}, "handler": "y"});
    assert_eq!(
        validate_update(r, &new, &old)[0].to_string(),
        "handler: Invalid value: \"y\": field is immutable"
    );
    let t = json!({"key": "k", "operator": "Exists"});
    let errors =
        class(json!({"metadata": {"name": "a"}, "handler": "x", "scheduling": {"tolerations": [t, t]}}));
    assert!(errors[0].starts_with("scheduling.tolerations[1]: Duplicate value"));
    let errors =
        class(json!({"metadata": {"name": "a"}, "handler": "x", "overhead": {"podFixed": {"cpu": "-1"}}}));
    assert_eq!(errors, ["overhead.podFixed[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"]);
}

#[test]
fn rtc_06_deprecated_node_labels_warn() {
    let r = resource("node.k8s.io", "runtimeclasses");
    let object = json!({"scheduling": {"nodeSelector": {"beta.kubernetes.io/arch": "amd64"}}});
    assert_eq!(
        warnings(r, &object),
        ["scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/arch\" instead"]
    );
}

#[test]
fn img_71_empty_pull_secret_names_warn() {
    let object = json!({"spec": {"imagePullSecrets": [{"name": ""}, {"name": "x"}, {"name": "x"}]}});
    assert_eq!(
        warnings(resource("", "pods"), &object),
        [
            "spec.imagePullSecrets[0].name: invalid empty name \"\"",
            "spec.imagePullSecrets[2].name: duplicate name \"x\""
        ]
    );
}

#[test]
fn metadata_of_every_kind() {
    assert_eq!(
        create("", "configmaps", json!({"metadata": {"namespace": "d"}})),
        ["metadata.name: Required value: name or generateName is required"]
    );
    assert_eq!(
        create("", "nodes", json!({"metadata": {"name": "a", "namespace": "d"}})),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
    let errors =
        create("", "configmaps", json!({"metadata": {"name": "A", "namespace": "d", "finalizers": ["x"]}}));
    assert!(
        errors[0].starts_with("metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must")
    );
    assert_eq!(
        errors[1],
        "metadata.finalizers: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified"
    );
    assert!(
        create(
            "rbac.authorization.k8s.io",
            "clusterroles",
            json!({"metadata": {"name": "system:A"}, "rules": []})
        )
        .is_empty()
    );
}

#[test]
fn workloads_need_selectors_that_match() {
    let deployment = |spec: Value| {
        create("apps", "deployments", json!({"metadata": {"name": "a", "namespace": "d"}, "spec": spec}))
    };
    let template =
        json!({"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let errors = deployment(json!({"selector": {"matchLabels": {"a": "b"}}, "template": template}));
    assert_eq!(
        errors,
        [
            "spec.template.metadata.labels: Invalid value: map[string]string{\"a\":\"c\"}: `selector` does not match template `labels`"
        ]
    );
    assert_eq!(deployment(json!({"template": template})), ["spec.selector: Required value"]);
    assert!(deployment(json!({"selector": {"matchLabels": {"a": "c"}}, "template": template})).is_empty());
}

#[test]
fn cron_schedules() {
    let job = |schedule: &str| {
        let template = json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        create(
            "batch",
            "cronjobs",
            json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"schedule": schedule, "jobTemplate": template}}),
        )
    };
    for good in ["* * * * *", "*/5 0-3 1,15 jan-mar MON", "@hourly", "@every 5m"] {
        assert!(job(good).is_empty(), "{good}: {:?}", job(good));
    }
    assert_eq!(
        job("* *"),
        ["spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]"]
    );
    assert!(job("61 * * * *")[0].contains("end of range (61) above maximum (59): 61"));
}

#[test]
fn immutable_config_maps_stay() {
    let r = resource("", "configmaps");
    let old = json!({"metadata": {"name": "a"}, "immutable": true, "data": {"a": "1"}});
    let new = json!({"metadata": {"name": "a"}, "immutable": true, "data": {"a": "2"}});
    assert_eq!(
        validate_update(r, &new, &old)[0].to_string(),
        "data: Forbidden: field is immutable when `immutable` is set"
    );
}

#[test]
fn errors_gather_in_a_status() {
    let errors = validate_create(resource("", "pods"), &pod_with(|p| p["spec"]["containers"] = json!([])));
    let status = crate::Status::invalid("", "Pod", "p", &errors);
    assert_eq!(status.message, "Pod \"p\" is invalid: spec.containers: Required value");
    assert_eq!(status.details.unwrap().causes[0].reason, "FieldValueRequired");
}

#[test]
fn nothing_panics_on_odd_objects() {
    for r in scheme::resources() {
        for object in [json!({}), Value::Null, json!({"spec": null}), json!({"spec": [], "metadata": 1})] {
            let _ =
                (validate_create(r, &object), validate_update(r, &object, &json!({})), warnings(r, &object));
        }
    }
}

#[test]
fn services_lead_to_nothing_that_only_the_machine_reaches() {
    let slice = |name: &str, address: &str| {
        create(
            "discovery.k8s.io",
            "endpointslices",
            json!({"metadata": {"name": name, "namespace": "default"}, "addressType": "IPv4",
                "endpoints": [{"addresses": [address]}], "ports": []}),
        )
    };
    assert_eq!(
        slice("x", "127.0.0.1"),
        [
            r#"endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#
        ]
    );
    assert!(slice("x", "169.254.169.254")[0].contains("may not be in the link-local range"));
    assert!(slice("x", "::ffff:127.0.0.1")[0].contains("may not be in the loopback range"));
    assert!(slice("x", "224.0.0.1")[0].contains("link-local multicast"));
    assert!(slice("x", "0.0.0.0")[0].contains("may not be unspecified (0.0.0.0)"));
    assert!(slice("x", "10.0.0.1").is_empty());
    let (old, mut new) = (json!({"addressType": "IPv4", "endpoints": []}), json!({"addressType": "IPv6"}));
    new["metadata"] = json!({"name": "x", "namespace": "d"});
    let found = validate_update(resource("discovery.k8s.io", "endpointslices"), &new, &old);
    assert!(
        found.iter().any(|error| error.to_string().starts_with("addressType: Invalid value")),
        "{found:?}"
    );
    // The API server may listen on this machine only.
    assert!(slice("kubernetes", "127.0.0.1").is_empty());
    let endpoints = json!({"metadata": {"name": "x", "namespace": "d"}, "subsets": [
        {"addresses": [{"ip": "127.0.0.1", "hostname": "a.b"}], "ports": [{"port": 1}]}]});
    let found = create("", "endpoints", endpoints);
    assert_eq!(found.len(), 2, "{found:?}");
    let service = json!({"metadata": {"name": "x", "namespace": "d"},
        "spec": {"externalIPs": ["127.0.0.1"], "ports": [{"port": 1}]}});
    assert!(create("", "services", service)[0].starts_with("spec.externalIPs[0]: Invalid value"));
    let inside = json!({"metadata": {"name": "x", "namespace": "d"},
        "spec": {"externalTrafficPolicy": "Local", "ports": [{"port": 1}]}});
    assert_eq!(
        create("", "services", inside),
        [
            r#"spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services"#
        ]
    );
}

#[test]
fn env_49_projected_sources_do_not_share_a_path() {
    let volume = |sources: Value| {
        pod(|p| p["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": sources}}]))
    };
    let token = json!({"serviceAccountToken": {"path": "same"}});
    let map = json!({"configMap": {"name": "m", "items": [{"key": "k", "path": "same"}]}});
    let secret = json!({"secret": {"name": "s", "items": [{"key": "k", "path": "same"}]}});
    let down =
        json!({"downwardAPI": {"items": [{"path": "same", "fieldRef": {"fieldPath": "metadata.name"}}]}});
    let bundle = json!({"clusterTrustBundle": {"name": "b", "path": "same"}});
    let all = [(&token, "same"), (&map, "m"), (&secret, "s"), (&down, "same"), (&bundle, "same")];
    for (source, shown) in all {
        assert!(volume(json!([source])).is_empty(), "{source}");
        let other = json!({"serviceAccountToken": {"path": "same"}});
        assert_eq!(
            volume(json!([other, source])),
            [format!("spec.volumes[0].projected: Invalid value: \"{shown}\": conflicting duplicate paths")]
        );
    }
    let twice =
        json!([{"secret": {"name": "s", "items": [{"key": "a", "path": "x"}, {"key": "b", "path": "x"}]}}]);
    assert_eq!(volume(twice).len(), 1);
    let long =
        volume(json!([{"serviceAccountToken": {"path": "t", "expirationSeconds": (1_i64 << 32) + 1}}]));
    assert!(long[0].contains("may not specify a duration larger than 2^32 seconds"), "{long:?}");
}

#[test]
fn env_49_trust_bundle_sources_name_a_bundle_or_a_signer() {
    let source = |source: Value| {
        pod(|p| {
            p["spec"]["volumes"] =
                json!([{"name": "v", "projected": {"sources": [{"clusterTrustBundle": source}]}}])
        })
    };
    for valid in [
        json!({"name": "b", "path": "p"}),
        json!({"name": "example.com:s:b", "path": "p"}),
        json!({"signerName": "example.com/s", "path": "p", "optional": true}),
        json!({"signerName": "example.com/s", "labelSelector": {"matchLabels": {"a": "b"}}, "path": "p"}),
    ] {
        assert_eq!(source(valid.clone()), [""; 0], "{valid}");
    }
    for (wrong, text) in [
        (json!({"path": "p"}), "either name or signerName must be specified"),
        (json!({"name": "b", "signerName": "example.com/s", "path": "p"}), "only one of name and signerName"),
        (
            json!({"name": "b", "labelSelector": {}, "path": "p"}),
            "labelSelector must be unset if name is specified",
        ),
        (json!({"name": "B", "path": "p"}), "clusterTrustBundle.name: Invalid value: \"B\""),
        (json!({"signerName": "s", "path": "p"}), "must be a fully qualified domain and path"),
        (json!({"signerName": "Example.com/s", "path": "p"}), "validating label \"Example\""),
        (
            json!({"signerName": "example.com/s", "labelSelector": {"matchExpressions": [{"key": "a", "operator": "x"}]}, "path": "p"}),
            "not a valid selector operator",
        ),
        (json!({"name": "b"}), "clusterTrustBundle.path: Required value"),
        (json!({"name": "b", "path": "../x"}), "must not contain '..'"),
    ] {
        let errors = source(wrong);
        assert!(errors.iter().any(|error| error.contains(text)), "{text}: {errors:?}");
    }
}
