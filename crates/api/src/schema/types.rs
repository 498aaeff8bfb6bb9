//! The type table: what fields a type has and what they hold. Indices instead of pointers, so that it is plain
//! read-only data which costs memory only where it is looked at.

use std::fmt;

use crate::scheme::Resource;

include!(concat!(env!("OUT_DIR"), "/types.rs"));

/// How a field holds its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    One,
    /// A list.
    List,
    /// A map with string keys.
    Map,
    /// A map of lists.
    MapOfLists,
}

/// What a single value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Text.
    String,
    /// Base64 of bytes.
    Bytes,
    /// true or false.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point.
    Double,
    /// A quantity.
    Quantity,
    /// An integer or text.
    IntOrString,
    /// A time in whole seconds.
    Time,
    /// A time with microseconds.
    MicroTime,
    /// Anything.
    Any,
    /// A structure with fields.
    Object,
}

struct TypeRow {
    name: (u32, u8),
    first: u16,
    count: u8,
}

struct FieldRow {
    name: (u32, u8),
    shape: Shape,
    base: Base,
    target: u16,
    strategy: u8,
    key: (u32, u8),
}

fn text((at, len): (u32, u8)) -> &'static str {
    &STRINGS[at as usize..at as usize + len as usize]
}

/// A structure type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Type(u16);

/// A field of a structure type.
#[derive(Clone, Copy)]
pub struct Field(&'static FieldRow);

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Type {
    fn row(self) -> &'static TypeRow {
        &TYPES[self.0 as usize]
    }

    /// Full name, e.g. `io.k8s.api.core.v1.Pod`.
    pub fn name(self) -> &'static str {
        text(self.row().name)
    }

    /// Last part of the name, e.g. `Pod`: the name of the Go structure.
    pub fn short_name(self) -> &'static str {
        self.name().rsplit('.').next().unwrap_or_default()
    }

    /// The type as Go prints it, e.g. `v1.Pod`.
    pub fn go_name(self) -> &'static str {
        let name = self.name();
        let package = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
        &name[package..]
    }

    /// The fields, sorted by name.
    pub fn fields(self) -> impl Iterator<Item = Field> {
        let row = self.row();
        FIELDS[row.first as usize..row.first as usize + row.count as usize].iter().map(Field)
    }

    /// The field of that name.
    pub fn field(self, name: &str) -> Option<Field> {
        let row = self.row();
        let fields = &FIELDS[row.first as usize..row.first as usize + row.count as usize];
        fields.binary_search_by(|f| text(f.name).cmp(name)).ok().map(|at| Field(&fields[at]))
    }

    /// The types that this one mentions directly.
    pub fn mentions(self) -> impl Iterator<Item = Type> {
        self.fields().filter_map(|f| f.referenced())
    }
}

impl Field {
    /// Name in JSON.
    pub fn name(self) -> &'static str {
        text(self.0.name)
    }

    /// How values are held.
    pub fn shape(self) -> Shape {
        self.0.shape
    }

    /// What a single value is.
    pub fn base(self) -> Base {
        self.0.base
    }

    /// The structure of a single value.
    pub fn object_type(self) -> Option<Type> {
        (self.0.base == Base::Object).then_some(Type(self.0.target))
    }

    /// The definition that the field refers to, be it a structure or a special scalar (Quantity, Time).
    pub fn referenced(self) -> Option<Type> {
        let scalar = matches!(
            self.0.base,
            Base::String | Base::Bytes | Base::Bool | Base::Int32 | Base::Int64 | Base::Double
        );
        (self.0.base == Base::Object || !scalar && self.0.target != 0).then_some(Type(self.0.target))
    }

    /// Whether lists of this field are merged by strategic merge patch rather than replaced.
    pub fn merges(self) -> bool {
        self.0.strategy & 1 != 0
    }

    /// Whether a patch may carry `$retainKeys`.
    pub fn retains_keys(self) -> bool {
        self.0.strategy & 2 != 0
    }

    /// The key by which list items are told apart when merging; None for plain values.
    pub fn merge_key(self) -> Option<&'static str> {
        Some(text(self.0.key)).filter(|k| !k.is_empty())
    }
}

/// The type of a resource's objects.
pub fn type_of(resource: &Resource) -> Option<Type> {
    type_of_kind(resource.group, resource.version, resource.kind)
}

/// The type of a kind, also of those that are no resource of their own (`Scale`, `Eviction`, `TokenRequest`).
pub fn type_of_kind(group: &str, version: &str, kind: &str) -> Option<Type> {
    KINDS.iter().find(|k| (k.0, k.1, k.2) == (group, version, kind)).map(|k| Type(k.3))
}

/// The type with that full name.
pub fn type_named(name: &str) -> Option<Type> {
    TYPES.binary_search_by(|t| text(t.name).cmp(name)).ok().map(|at| Type(at as u16))
}

/// All fields with a patch strategy, as (type, field).
pub fn merge_facts() -> impl Iterator<Item = (Type, Field)> {
    (0..TYPES.len() as u16)
        .flat_map(|t| Type(t).fields().map(move |f| (Type(t), f)))
        .filter(|(_, f)| f.0.strategy != 0)
}
