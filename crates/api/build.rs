//! Makes the schema of every kind out of k8s-openapi: a compact type table (Rust statics, no pointers) and the
//! definitions with their documentation, compressed, one JSON object a line.
#![allow(clippy::unwrap_used)] // a failed build is the report

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// (Go type name as it appears in errors, kind or "" , group, version) by definition.
struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    definition: String,
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=schema/merge_facts.txt");
    println!("cargo::rerun-if-changed=schema/enums.txt");
    let mut generator = schemars::generate::SchemaSettings::draft07().into_generator();
    let mut kinds = Vec::new();
    collect(&mut generator, &mut kinds);
    let facts = merge_facts();
    let mut definitions: BTreeMap<String, Value> = BTreeMap::new();
    for (name, schema) in generator.take_definitions(false) {
        definitions.insert(name.clone(), definition(&name, &schema, &facts));
    }
    add_enums(&mut definitions);
    for k in &kinds {
        let gvk = json!([{"group": k.group, "kind": k.kind, "version": k.version}]);
        definitions.get_mut(&k.definition).unwrap()["x-kubernetes-group-version-kind"] = gvk;
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap());
    std::fs::write(out.join("types.rs"), type_table(&definitions, &kinds, &facts)).unwrap();

    let mut lines = String::new();
    for (name, definition) in &definitions {
        let _ = writeln!(lines, "{name}\t{definition}");
    }
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(lines.as_bytes()).unwrap();
    std::fs::write(out.join("definitions.deflate"), encoder.finish().unwrap()).unwrap();
    let hash = lines
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    std::fs::write(out.join("hash.txt"), format!("{hash:016X}")).unwrap();
}

fn collect(generator: &mut SchemaGenerator, kinds: &mut Vec<Kind>) {
    use k8s_openapi::api::{
        admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
        authorization::v1 as authorization, autoscaling::v1 as autoscaling1, autoscaling::v2 as autoscaling2,
        batch::v1 as batch, certificates::v1 as certificates, certificates::v1beta1 as certificates_beta,
        coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
        networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
        scheduling::v1 as scheduling, storage::v1 as storage,
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
    macro_rules! kinds {
        ($($module:ident: $($kind:ident)*;)*) => {
            $($(kinds.push(kind::<$module::$kind>(generator));)*)*
        };
    }
    kinds! {
        core: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
            PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
        apps: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
        events: Event;
        authentication: SelfSubjectReview TokenRequest TokenReview;
        authorization: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview;
        autoscaling1: HorizontalPodAutoscaler Scale;
        autoscaling2: HorizontalPodAutoscaler;
        batch: CronJob Job;
        certificates: CertificateSigningRequest;
        certificates_beta: ClusterTrustBundle;
        networking: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
        policy: Eviction PodDisruptionBudget;
        rbac: ClusterRole ClusterRoleBinding Role RoleBinding;
        storage: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment VolumeAttributesClass;
        admission: MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration
            ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
        scheduling: PriorityClass;
        coordination: Lease;
        node: RuntimeClass;
        discovery: EndpointSlice;
    }
    generator.subschema_for::<meta::DeleteOptions>();
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<meta::ListMeta>();
    generator.subschema_for::<meta::LabelSelector>();
}

fn kind<K: JsonSchema + k8s_openapi::Resource>(generator: &mut SchemaGenerator) -> Kind {
    generator.subschema_for::<K>();
    Kind { group: K::GROUP, version: K::VERSION, kind: K::KIND, definition: K::schema_name().into_owned() }
}

struct Fact {
    strategy: String,
    key: String,
    map_keys: String,
}

fn merge_facts() -> BTreeMap<(String, String), Fact> {
    let text = std::fs::read_to_string("schema/merge_facts.txt").unwrap();
    let rows = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    rows.map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let word = |i: usize| if words[i] == "-" { String::new() } else { words[i].to_owned() };
        let map_keys = if words[4] == "-" { word(3) } else { word(4) };
        (
            (format!("io.k8s.{}", words[0]), words[1].to_owned()),
            Fact { strategy: word(2), key: word(3), map_keys },
        )
    })
    .collect()
}

/// One definition in the form of OpenAPI v2, with the patch facts as extensions.
fn definition(name: &str, schema: &Value, facts: &BTreeMap<(String, String), Fact>) -> Value {
    let mut value = schema.clone();
    rewrite_refs(&mut value);
    let map = value.as_object_mut().unwrap();
    map.remove("title");
    map.remove("$schema");
    // k8s-openapi has no objects without metadata; to the API it is optional.
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|field| field != "metadata");
        if required.is_empty() {
            map.remove("required");
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        for (field, schema) in properties {
            let Some(fact) = facts.get(&(name.to_owned(), field.clone())) else { continue };
            let schema = schema.as_object_mut().unwrap();
            schema.insert("x-kubernetes-patch-strategy".into(), fact.strategy.clone().into());
            if !fact.key.is_empty() {
                schema.insert("x-kubernetes-patch-merge-key".into(), fact.key.clone().into());
                let keys: Vec<&str> = fact.map_keys.split(',').collect();
                schema.insert("x-kubernetes-list-map-keys".into(), json!(keys));
                schema.insert("x-kubernetes-list-type".into(), "map".into());
            }
        }
    }
    if name.ends_with(".IntOrString") {
        map.remove("x-kubernetes-int-or-string");
        map.insert("type".into(), "string".into());
        map.insert("format".into(), "int-or-string".into());
    } else if name.ends_with(".Quantity") {
        map.remove("x-kubernetes-int-or-string");
        map.insert("type".into(), "string".into());
    }
    value
}

/// k8s-openapi's schemas do not have them.
fn add_enums(definitions: &mut BTreeMap<String, Value>) {
    let text = std::fs::read_to_string("schema/enums.txt").unwrap();
    for row in text.lines().filter(|row| !row.starts_with('#') && !row.is_empty()) {
        let words: Vec<&str> = row.split_whitespace().collect();
        let property = definitions
            .get_mut(&format!("io.k8s.{}", words[0]))
            .and_then(|definition| definition["properties"].get_mut(words[1]))
            .unwrap_or_else(|| panic!("enums.txt: there is no {} {}", words[0], words[1]));
        let values: Vec<&str> = words[2..].iter().map(|word| word.trim_matches('"')).collect();
        let mut description = property["description"].as_str().unwrap_or_default().to_owned();
        description.push_str("\n\nPossible enum values:");
        for value in &values {
            let _ = write!(description, "\n - `\"{value}\"`");
        }
        property["description"] = description.into();
        let described = if property["type"] == "array" { &mut property["items"] } else { property };
        described["enum"] = json!(values);
    }
}

fn rewrite_refs(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref") {
                *target = format!("#/definitions/{}", target.rsplit('/').next().unwrap());
            }
            // A reference with a description comes wrapped in `allOf`; plain siblings are OpenAPI v2's way.
            if let Some(Value::Array(all)) = map.remove("allOf") {
                for mut part in all {
                    rewrite_refs(&mut part);
                    map.extend(part.as_object().cloned().unwrap_or_default());
                }
            }
            map.values_mut().for_each(rewrite_refs);
        }
        Value::Array(items) => items.iter_mut().for_each(rewrite_refs),
        _ => {}
    }
}

struct Table {
    strings: String,
    offsets: BTreeMap<String, u32>,
}

impl Table {
    fn intern(&mut self, text: &str) -> (u32, u8) {
        let strings = &mut self.strings;
        let offset = *self.offsets.entry(text.to_owned()).or_insert_with(|| {
            let at = u32::try_from(strings.len()).unwrap();
            strings.push_str(text);
            at
        });
        (offset, u8::try_from(text.len()).unwrap())
    }
}

fn type_table(
    definitions: &BTreeMap<String, Value>,
    kinds: &[Kind],
    facts: &BTreeMap<(String, String), Fact>,
) -> String {
    let index: BTreeMap<&str, usize> = definitions.keys().enumerate().map(|(i, n)| (n.as_str(), i)).collect();
    let mut table = Table { strings: String::new(), offsets: BTreeMap::new() };
    let (mut types, mut fields, mut count) = (String::new(), String::new(), 0);
    for (name, definition) in definitions {
        let empty = Map::new();
        let properties = definition.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let (at, len) = table.intern(name);
        let _ = writeln!(
            types,
            "TypeRow {{ name: ({at}, {len}), first: {count}, count: {} }},",
            properties.len()
        );
        for (field, schema) in properties {
            let (shape, base, target) = shape(schema, &index);
            let (at, len) = table.intern(field);
            let fact = facts.get(&(name.clone(), field.clone()));
            let strategy = fact.map_or(0, |f| {
                u8::from(f.strategy.contains("merge")) | (u8::from(f.strategy.contains("retainKeys")) << 1)
            });
            let (key_at, key_len) = fact.map_or((0, 0), |f| table.intern(&f.key));
            let _ = writeln!(
                fields,
                "FieldRow {{ name: ({at}, {len}), shape: Shape::{shape}, base: Base::{base}, target: {target}, \
                 strategy: {strategy}, key: ({key_at}, {key_len}) }},"
            );
            count += 1;
        }
    }
    let mut kind_rows = String::new();
    for k in kinds {
        let _ = writeln!(
            kind_rows,
            "({:?}, {:?}, {:?}, {}),",
            k.group,
            k.version,
            k.kind,
            index[k.definition.as_str()]
        );
    }
    format!(
        "static STRINGS: &str = {:?};\nstatic TYPES: &[TypeRow] = &[\n{types}];\nstatic FIELDS: &[FieldRow] = \
         &[\n{fields}];\nstatic KINDS: &[(&str, &str, &str, u16)] = &[\n{kind_rows}];\n",
        table.strings
    )
}

/// (shape, base type, index of the definition) of a field.
fn shape(schema: &Value, index: &BTreeMap<&str, usize>) -> (&'static str, &'static str, usize) {
    let outer = schema["type"].as_str().unwrap_or_default();
    if outer == "array" {
        let (inner, base, target) = shape(&schema["items"], index);
        assert_eq!(inner, "One", "a list of lists");
        return ("List", base, target);
    }
    if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
        let (inner, base, target) = shape(values, index);
        return (if inner == "List" { "MapOfLists" } else { "Map" }, base, target);
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        let base = match name.rsplit('.').next().unwrap() {
            "Quantity" => "Quantity",
            "IntOrString" => "IntOrString",
            "Time" => "Time",
            "MicroTime" => "MicroTime",
            "FieldsV1" | "RawExtension" | "JSON" => "Any",
            _ => "Object",
        };
        return ("One", base, index[name]);
    }
    let base = match (outer, schema["format"].as_str().unwrap_or_default()) {
        ("string", "byte") => "Bytes",
        ("string", "date-time") => "Time",
        ("string", _) => "String",
        ("boolean", _) => "Bool",
        ("integer", "int32") => "Int32",
        ("integer", _) => "Int64",
        ("number", _) => "Double",
        _ => "Any",
    };
    ("One", base, 0)
}
