#![allow(clippy::unwrap_used)]
use super::*;

#[test]
fn every_group_version_has_a_document_with_its_kinds() {
    for (group, versions) in scheme::groups() {
        for version in versions {
            let path = group_version_path(group, version);
            let document: Value = serde_json::from_slice(&openapi_v3(&path).unwrap()).unwrap();
            let schemas = document["components"]["schemas"].as_object().unwrap();
            for resource in scheme::resources().iter().filter(|r| r.group == group && r.version == version) {
                let name = type_of_kind(group, version, resource.kind).unwrap().name();
                assert_eq!(schemas[name]["x-kubernetes-group-version-kind"][0]["kind"], resource.kind);
            }
            let text = document.to_string();
            for reference in text.split("#/components/schemas/").skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(schemas.contains_key(name), "{path}: {name} is not defined");
            }
            assert!(!text.contains("#/definitions/"));
        }
    }
    assert!(openapi_v3("apis/none/v1").is_none());
}

#[test]
fn patches_of_pods_take_field_validation_and_merge_keys_are_there() {
    let document: Value = serde_json::from_slice(&openapi_v3("api/v1").unwrap()).unwrap();
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
    let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(spec["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
}

#[test]
fn v2_is_json_and_protobuf() {
    let document: Value = serde_json::from_slice(&openapi_v2_json()).unwrap();
    assert!(document["definitions"]["io.k8s.api.core.v1.PodList"].is_object());
    let bytes = openapi_v2_protobuf();
    assert!(bytes.starts_with(b"\x0a\x032.0"));
}

#[test]
fn every_merge_fact_is_in_the_table() {
    let facts = include_str!("../../../schema/merge_facts.txt");
    let rows = facts.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).count();
    assert_eq!(crate::schema::merge_facts().count(), rows);
}

#[test]
fn fields_with_few_values_list_them() {
    let document: Value = serde_json::from_slice(&openapi_v3("api/v1").unwrap()).unwrap();
    let schemas = &document["components"]["schemas"];
    let policy = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["restartPolicy"];
    assert_eq!(policy["enum"], json!(["Always", "Never", "OnFailure"]));
    let description = policy["description"].as_str().unwrap();
    assert!(
        description
            .ends_with("\n\nPossible enum values:\n - `\"Always\"`\n - `\"Never\"`\n - `\"OnFailure\"`"),
        "{description}"
    );
    let modes = &schemas["io.k8s.api.core.v1.PersistentVolumeSpec"]["properties"]["accessModes"];
    assert_eq!(modes["items"]["enum"][0], "ReadOnlyMany");
    let host_path = &schemas["io.k8s.api.core.v1.HostPathVolumeSource"]["properties"]["type"];
    assert_eq!(host_path["enum"][0], "");
}
