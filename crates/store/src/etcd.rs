//! The store in a real etcd (v3), for those who have one: the same seam over gRPC.

mod convert;
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto {
    //! Generated from `proto/etcd.proto`.
    tonic::include_proto!("etcdserverpb");
}
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use self::convert::{key_value, put_or_delete, read, refused, revision};
use self::proto::kv_client::KvClient;
use self::proto::lease_client::LeaseClient;
use self::proto::watch_client::WatchClient;
use crate::{
    Compare, Error, KeyRange, RangeRequest, RangeResponse, Revision, Store, Txn, TxnResponse, Watch,
};

/// The largest answer that is taken: a range of a large cluster in one piece.
const LARGEST_ANSWER: usize = 512 << 20;

/// What the connection to an etcd with TLS needs; all PEM.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The certificates that the server's one must come from.
    pub ca: Vec<u8>,
    /// The client's certificate and key, when the server wants one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// A store that lives in etcd.
#[derive(Clone, Debug)]
pub struct Etcd {
    channel: Channel,
}

impl Etcd {
    /// Connects to `endpoint`, a URL such as `http://127.0.0.1:2379`.
    ///
    /// # Errors
    /// [`Error::Connect`] when it is no URL, the TLS files are unusable or nobody answers within 5 s.
    pub async fn connect(endpoint: &str, tls: Option<Tls>) -> Result<Arc<Self>, Error> {
        let failed = |source| Error::Connect { endpoint: endpoint.to_owned(), source: Box::new(source) };
        let mut target = Endpoint::from_shared(endpoint.to_owned())
            .map_err(failed)?
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10));
        if let Some(tls) = tls {
            let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(tls.ca));
            if let Some((certificate, key)) = tls.identity {
                config = config.identity(Identity::from_pem(certificate, key));
            }
            target = target.tls_config(config).map_err(failed)?;
        }
        Ok(Arc::new(Self { channel: target.connect().await.map_err(failed)? }))
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }
}

#[async_trait]
impl Store for Etcd {
    async fn revision(&self) -> Result<Revision, Error> {
        let nothing = RangeRequest { range: KeyRange::key([0]), at: None, limit: 0, count_only: true };
        Ok(self.range(nothing).await?.revision)
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        let at = request.at.unwrap_or_default();
        let empty = request.range.start >= request.range.end;
        // An empty end would mean a single key: ask for one that cannot exist, for the revision.
        let range = if empty { KeyRange::key([0]) } else { request.range };
        let answer = self
            .kv()
            .range(proto::RangeRequest {
                key: if range.start.is_empty() { vec![0].into() } else { range.start },
                range_end: range.end,
                limit: i64::try_from(request.limit).unwrap_or(i64::MAX),
                revision: at.0,
                count_only: request.count_only || empty,
            })
            .await
            .map_err(|status| refused("range", at, status))?
            .into_inner();
        Ok(RangeResponse {
            revision: revision("range", answer.header)?,
            kvs: answer.kvs.into_iter().map(key_value).collect(),
            more: answer.more,
            count: usize::try_from(answer.count).unwrap_or(0),
        })
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, Error> {
        if let Some(key) = txn.duplicate_key() {
            return Err(Error::DuplicateKey(String::from_utf8_lossy(key).into_owned()));
        }
        let lease = txn.lease();
        let compare = txn.when.into_iter().map(|Compare::ModRevision(key, revision)| proto::Compare {
            result: proto::compare::CompareResult::Equal.into(),
            target: proto::compare::CompareTarget::Mod.into(),
            key,
            target_union: Some(proto::compare::TargetUnion::ModRevision(revision.0)),
        });
        let reads: Vec<_> = txn.read.into_iter().map(read).collect();
        let wanted = reads.len();
        let request = proto::TxnRequest {
            compare: compare.collect(),
            success: txn.then.into_iter().map(put_or_delete).chain(reads.iter().cloned()).collect(),
            failure: reads,
        };
        let answer = self
            .kv()
            .txn(request)
            .await
            .map_err(|status| match status.code() {
                tonic::Code::NotFound => Error::LeaseNotFound(lease),
                _ => refused("txn", Revision(0), status),
            })?
            .into_inner();
        let mut read = Vec::with_capacity(wanted);
        for response in answer.responses {
            if let Some(proto::response_op::Response::ResponseRange(range)) = response.response {
                read.push(range.kvs.into_iter().next().map(key_value));
            }
        }
        if read.len() != wanted {
            return Err(Error::Answer { operation: "txn", missing: "a range that was asked for" });
        }
        Ok(TxnResponse { succeeded: answer.succeeded, revision: revision("txn", answer.header)?, read })
    }

    async fn watch(&self, range: KeyRange, from: Option<Revision>) -> Result<Watch, Error> {
        let client = WatchClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER);
        watch::open(client, range, from).await
    }

    async fn compact(&self, at: Revision) -> Result<(), Error> {
        let request = proto::CompactionRequest { revision: at.0 };
        self.kv().compact(request).await.map_err(|status| refused("compact", at, status))?;
        Ok(())
    }

    async fn grant_lease(&self, ttl_seconds: i64) -> Result<i64, Error> {
        let request = proto::LeaseGrantRequest { ttl: ttl_seconds.max(1), id: 0 };
        let mut client = LeaseClient::new(self.channel.clone());
        let answer = client
            .lease_grant(request)
            .await
            .map_err(|status| refused("grant lease", Revision(0), status))?;
        Ok(answer.into_inner().id)
    }

    async fn revoke_lease(&self, id: i64) -> Result<(), Error> {
        let mut client = LeaseClient::new(self.channel.clone());
        client.lease_revoke(proto::LeaseRevokeRequest { id }).await.map_err(|status| {
            match status.code() {
                tonic::Code::NotFound => Error::LeaseNotFound(id),
                _ => refused("revoke lease", Revision(0), status),
            }
        })?;
        Ok(())
    }
}
