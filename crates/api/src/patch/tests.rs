#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::scheme;

fn strategic(doc: Value, patch: Value) -> Value {
    let pods = scheme::find("", "v1", "pods").unwrap();
    strategic_merge_patch(pods, &doc, &patch).unwrap()
}

#[test]
fn merge_patches_follow_rfc_7386() {
    let doc = json!({"a": {"b": 1, "c": 2}, "l": [1]});
    let out = merge_patch(&doc, &json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [2]})).unwrap();
    assert_eq!(out, json!({"a": {"c": 2, "d": {"f": 1}}, "l": [2]}));
    assert!(merge_patch(&doc, &json!([])).is_err());
}

#[test]
fn json_patches() {
    let doc = json!({"a": [1, 2], "m": {"x/y": 1}});
    let patch = json!([{"op": "test", "path": "/a/0", "value": 1}, {"op": "add", "path": "/a/-", "value": 3},
        {"op": "remove", "path": "/m/x~1y"}, {"op": "copy", "from": "/a", "path": "/b"},
        {"op": "move", "from": "/b/0", "path": "/a/0"}, {"op": "replace", "path": "/a/1", "value": null}]);
    assert_eq!(json_patch(&doc, &patch).unwrap(), json!({"a": [1, null, 2, 3], "m": {}, "b": [2, 3]}));
    let error = |patch| json_patch(&doc, &patch).unwrap_err().to_string();
    assert_eq!(
        error(json!([{"op": "replace", "path": "/z", "value": 1}])),
        "replace operation does not apply: doc is missing key: /z: missing value"
    );
    assert_eq!(
        error(json!([{"op": "test", "path": "/a/0", "value": 9}])),
        "testing value /a/0 failed: test failed"
    );
}

#[test]
fn containers_merge_by_name() {
    let doc = json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}});
    let out = strategic(
        doc,
        json!({"spec": {"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c"}]}}),
    );
    let names: Vec<&str> =
        out["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(out["spec"]["containers"][0]["image"], "2");
    assert_eq!(out["spec"]["containers"][0]["env"].as_array().unwrap().len(), 2);
}

#[test]
fn directives() {
    let doc = json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "a"}, {"name": "b"}], "nodeSelector": {"x": "1"}}});
    let out = strategic(
        doc.clone(),
        json!({
            "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]},
            "spec": {
                "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}],
                "containers": [{"name": "a", "$patch": "delete"}, {"name": "c"}],
                "volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}],
                "nodeSelector": {"$patch": "replace", "y": "2"},
            },
        }),
    );
    assert_eq!(out["metadata"]["finalizers"], json!(["b", "c"]));
    assert_eq!(out["spec"]["containers"], json!([{"name": "c"}, {"name": "b"}]));
    assert_eq!(out["spec"]["volumes"], json!([{"name": "v", "hostPath": {"path": "/"}}]));
    assert_eq!(out["spec"]["nodeSelector"], json!({"y": "2"}));
    let out = strategic(doc, json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}));
    assert_eq!(out["spec"]["containers"], json!([{"name": "z"}]));
}

#[test]
fn an_item_without_its_key_is_refused() {
    let pods = scheme::find("", "v1", "pods").unwrap();
    let error = strategic_merge_patch(pods, &json!({}), &json!({"spec": {"containers": [{"image": "x"}]}}));
    assert_eq!(
        error.unwrap_err().to_string(),
        "map: {\"image\":\"x\"} does not contain declared merge key: name"
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|n| n.into()),
        "[a-z$]{0,4}".prop_map(Value::String)
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let key = prop::sample::select(vec![
            "spec",
            "metadata",
            "containers",
            "name",
            "env",
            "$patch",
            "finalizers",
            "labels",
            "volumes",
            "$retainKeys",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((key, inner), 0..4).prop_map(|entries| Value::Object(
                entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            ))
        ]
    })
}

proptest! {
    #[test]
    fn no_patch_panics(doc in any_json(), patch in any_json()) {
        let pods = scheme::find("", "v1", "pods").unwrap();
        let _ = strategic_merge_patch(pods, &doc, &patch);
        let _ = json_patch(&doc, &patch);
        let _ = merge_patch(&doc, &patch);
    }

    #[test]
    fn an_empty_patch_changes_nothing(doc in any_json()) {
        prop_assume!(doc.is_object());
        let pods = scheme::find("", "v1", "pods").unwrap();
        prop_assert_eq!(&strategic_merge_patch(pods, &doc, &json!({})).unwrap(), &doc);
        prop_assert_eq!(&merge_patch(&doc, &json!({})).unwrap(), &doc);
        prop_assert_eq!(&json_patch(&doc, &json!([])).unwrap(), &doc);
    }
}
