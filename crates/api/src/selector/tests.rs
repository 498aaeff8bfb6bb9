#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::scheme;

fn selects(selector: &str, labels: serde_json::Value) -> bool {
    LabelSelector::parse(selector).unwrap().matches(&json!({"metadata": {"labels": labels}}))
}

#[test]
fn label_selectors_match() {
    assert!(selects("", json!({})));
    assert!(selects("a=b, c != d", json!({"a": "b"})));
    assert!(selects("a in (x, y),!z", json!({"a": "y"})));
    assert!(!selects("a notin (x,y)", json!({"a": "y"})));
    assert!(selects("a notin (x,y)", json!({})));
    assert!(selects("a", json!({"a": ""})));
    assert!(selects("a=", json!({"a": ""})));
    assert!(selects("n>4,n<6", json!({"n": "5"})));
    assert!(!selects("a=b", json!({})));
}

#[test]
fn label_selector_errors_are_upstreams() {
    let error = |s: &str| LabelSelector::parse(s).unwrap_err().to_string();
    assert_eq!(error("a,"), "found '', expected: identifier after ','");
    assert_eq!(error(",a"), "found ',', expected: !, identifier, or 'end of string'");
    assert_eq!(
        error("a b"),
        "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
    );
    assert_eq!(error("a in b"), "unable to parse requirement: found 'b' expected: '('");
    assert_eq!(error("a=b c"), "found 'c', expected: ',' or 'end of string'");
    assert!(
        error("-a=b")
            .starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must")
    );
}

#[test]
fn absent_selector_object_selects_nothing() {
    assert!(!LabelSelector::from_object(None).unwrap().matches(&json!({})));
    assert!(LabelSelector::from_object(Some(&json!({}))).unwrap().matches(&json!({})));
    let s = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]});
    let s = LabelSelector::from_object(Some(&s)).unwrap();
    assert!(s.matches(&json!({"metadata": {"labels": {"a": "2"}}})));
    assert_eq!(s.to_string(), "a in (1,2)");
}

#[test]
fn field_selectors() {
    let pods = scheme::find("", "v1", "pods").unwrap();
    let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
    let s = FieldSelector::parse("spec.nodeName=n,status.phase!=Failed").unwrap().check(pods).unwrap();
    assert!(s.matches(&pod));
    assert_eq!(s.requires_exact("spec.nodeName"), Some("n"));
    let e = FieldSelector::parse("spec.foo=x").unwrap().check(pods).unwrap_err();
    assert_eq!(e.to_string(), "field label not supported: spec.foo");
    let maps = scheme::find("", "v1", "configmaps").unwrap();
    let e = FieldSelector::parse("data.x=1").unwrap().check(maps).unwrap_err();
    assert_eq!(
        e.to_string(),
        "\"data.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    );
    let e = FieldSelector::parse("abc").unwrap_err();
    assert_eq!(e.to_string(), "invalid selector: 'abc'; can't understand 'abc'");
}

proptest! {
    #[test]
    fn printed_selectors_parse_back(key in "[a-z]{1,8}", values in prop::collection::vec("[a-z0-9]{1,5}", 1..4)) {
        let text = format!("{key} in ({})", values.join(","));
        let s = LabelSelector::parse(&text).unwrap();
        prop_assert_eq!(&s, &LabelSelector::parse(&s.to_string()).unwrap());
    }

    #[test]
    fn any_text_parses_or_fails_without_panic(text in ".{0,40}") {
        let _ = LabelSelector::parse(&text);
        let _ = FieldSelector::parse(&text);
    }
}
