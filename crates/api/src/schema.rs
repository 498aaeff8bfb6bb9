//! The schema of every kind: fields, their types, how lists merge. Made by build.rs from k8s-openapi.
//!
//! Two forms: a compact type table in the binary's read-only data (decoding, strategic merge), and the documents
//! with descriptions, compressed, from which the OpenAPI answers are written on demand ([`openapi`]). Neither is
//! kept on the heap.

pub mod decode;
pub mod openapi;
mod types;

pub use decode::{DecodeError, Decoded, decode_json, decode_value, decode_yaml};
pub use openapi::{openapi_v2_json, openapi_v2_protobuf, openapi_v3, openapi_v3_index};
pub use types::{Base, Field, Shape, Type, merge_facts, type_named, type_of, type_of_kind};
