//! Names that are not ours: asked of the machine's own servers, remembered for as long as they say.
//!
//! A question that is being asked already is not asked again: everybody waits for the same answer. That also ends
//! loops: when a server asks us what we ask it, its question waits for its own answer, and both time out.

mod cache;
mod exchange;
mod upstreams;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, Record, RecordType},
};

use self::{cache::Cache, upstreams::UpstreamList};

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;
/// How many questions may be out at the same time.
const MOST_IN_FLIGHT: usize = 512;

/// Who is asked.
#[derive(Clone, Debug)]
pub enum Upstreams {
    /// The name servers in this file, read again when it changes.
    ResolvConf(std::path::PathBuf),
    /// These.
    Fixed(Vec<std::net::SocketAddr>),
}

type Question = (Name, RecordType);
type Asking = Shared<BoxFuture<'static, Arc<Outcome>>>;

/// What others answered.
#[derive(Debug)]
pub(crate) struct Outcome {
    code: ResponseCode,
    answers: Vec<Record>,
    /// The SOA of an answer without records.
    authorities: Vec<Record>,
}

/// Asks other servers.
pub(crate) struct Forwarder {
    upstreams: UpstreamList,
    cache: Mutex<Cache>,
    in_flight: Mutex<HashMap<Question, Asking>>,
}

impl Forwarder {
    /// `own` are addresses under which this server is known: it does not ask itself.
    pub(crate) fn new(upstreams: Upstreams, own: Vec<IpAddr>) -> Arc<Self> {
        let upstreams = UpstreamList::new(upstreams, own);
        Arc::new(Self { upstreams, cache: Mutex::default(), in_flight: Mutex::default() })
    }

    /// Completes an answer from the cache, if it is there.
    pub(crate) fn complete_from_cache(&self, answer: &mut Message, name: &Name, kind: RecordType) -> bool {
        let question = (name.to_lowercase(), kind);
        let cached = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&question);
        let Some((outcome, age)) = cached else { return false };
        outcome.complete(answer, age);
        true
    }

    /// Completes an answer with what other servers say.
    pub(crate) async fn complete(self: &Arc<Self>, answer: &mut Message, name: Name, kind: RecordType) {
        let question = (name.to_lowercase(), kind);
        let asking = {
            let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
            let full = in_flight.len() >= MOST_IN_FLIGHT;
            match in_flight.get(&question) {
                Some(asking) => Some(asking.clone()),
                None if full => None,
                None => {
                    let asking = self.clone().ask(question.clone()).boxed().shared();
                    in_flight.insert(question.clone(), asking.clone());
                    Some(asking)
                }
            }
        };
        let Some(asking) = asking else {
            answer.metadata.response_code = ResponseCode::ServFail;
            return;
        };
        // On a task of its own: when the first who asks goes away, the others still get their answer.
        match tokio::spawn(asking).await {
            Ok(outcome) => outcome.complete(answer, 0),
            Err(_) => answer.metadata.response_code = ResponseCode::ServFail,
        }
    }

    async fn ask(self: Arc<Self>, question: Question) -> Arc<Outcome> {
        let outcome = Arc::new(self.ask_all(&question).await);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).put(question.clone(), outcome.clone());
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(&question);
        outcome
    }

    async fn ask_all(&self, (name, kind): &Question) -> Outcome {
        let servers = self.upstreams.current();
        let mut last = ResponseCode::ServFail;
        for server in std::iter::repeat_n(&servers, ROUNDS).flatten() {
            match tokio::time::timeout(PATIENCE, exchange::exchange(*server, name, *kind)).await {
                Ok(Ok(reply)) => match reply.response_code {
                    ResponseCode::NoError | ResponseCode::NXDomain => return Outcome::from(reply),
                    code => last = code,
                },
                Ok(Err(error)) => tracing::debug!(%server, %name, %error, "a name server does not answer"),
                Err(_) => tracing::debug!(%server, %name, "a name server does not answer in time"),
            }
        }
        let code = if last == ResponseCode::Refused { ResponseCode::Refused } else { ResponseCode::ServFail };
        Outcome { code, answers: Vec::new(), authorities: Vec::new() }
    }
}

impl From<Message> for Outcome {
    fn from(reply: Message) -> Self {
        let soa = |record: &Record| record.record_type() == RecordType::SOA;
        Self {
            code: reply.response_code,
            authorities: reply.authorities.into_iter().filter(soa).collect(),
            answers: reply.answers,
        }
    }
}

impl Outcome {
    /// Adds this to an answer, some seconds after it came.
    fn complete(&self, answer: &mut Message, age: u32) {
        let aged = |record: &Record| {
            let mut record = record.clone();
            record.ttl = record.ttl.saturating_sub(age);
            record
        };
        answer.metadata.response_code = self.code;
        answer.metadata.authoritative = false;
        answer.answers.extend(self.answers.iter().map(aged));
        answer.authorities.extend(self.authorities.iter().map(aged));
    }

    /// For how many seconds it may be remembered.
    fn lifetime(&self) -> u32 {
        use hickory_proto::rr::RData;
        let negative = self.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum).min(cache::LONGEST_NEGATIVE)),
            _ => None,
        });
        match self.code {
            ResponseCode::NoError if !self.answers.is_empty() => {
                let shortest = self.answers.iter().map(|record| record.ttl).min();
                shortest.unwrap_or(0).min(cache::LONGEST)
            }
            ResponseCode::NoError | ResponseCode::NXDomain => negative.unwrap_or(0),
            _ => 0,
        }
    }

    fn records(&self) -> usize {
        self.answers.len() + self.authorities.len()
    }
}
