//! Between the seam's words and etcd's messages.

use bytes::Bytes;

use super::proto;
use crate::{Error, KeyValue, Op, Revision};

/// A key as etcd sends it.
pub(super) fn key_value(kv: proto::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        version: kv.version,
        lease: kv.lease,
    }
}

/// The write of a transaction.
pub(super) fn put_or_delete(op: Op) -> proto::RequestOp {
    use proto::request_op::Request;
    let request = match op {
        Op::Put { key, value, lease } => Request::RequestPut(proto::PutRequest { key, value, lease }),
        Op::Delete(key) => Request::RequestDeleteRange(proto::DeleteRangeRequest { key }),
    };
    proto::RequestOp { request: Some(request) }
}

/// The read of one key in a transaction.
pub(super) fn read(key: Bytes) -> proto::RequestOp {
    let range = proto::RangeRequest { key, ..Default::default() };
    proto::RequestOp { request: Some(proto::request_op::Request::RequestRange(range)) }
}

/// The store's revision in an answer.
pub(super) fn revision(
    operation: &'static str,
    header: Option<proto::ResponseHeader>,
) -> Result<Revision, Error> {
    header.map(|header| Revision(header.revision)).ok_or(Error::Answer { operation, missing: "a header" })
}

/// What etcd's refusal of `operation` (at the revision `at`) means. Its texts are part of its protocol.
pub(super) fn refused(operation: &'static str, at: Revision, status: tonic::Status) -> Error {
    if status.message().contains("required revision has been compacted") {
        return Error::Compacted { requested: at, oldest: Revision(0) };
    }
    if status.message().contains("required revision is a future revision") {
        return Error::Future(at);
    }
    Error::Etcd { operation, source: Box::new(status) }
}
