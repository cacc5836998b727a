//! Tries, until one answers: each on another endpoint, within the attempts and the budget of the policy.
//!
//! One kind of failure is told apart. A connection that waited in the pool may be closed by its peer just when a request is sent
//! on it; that says nothing about the endpoint and is no failed try. Such a request goes again once, on a new connection,
//! if no byte of it was sent or its method is idempotent (RFC 9112 section 9.3.1).

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use mesh_core::model::names::EndpointId;
use mesh_core::model::policy::{RetryMethods, RetryOn};

use super::attempt::{self, FailedTry};
use super::choice::{self, Carrier, Chosen};
use super::record::Record;
use super::{Walk, pending};
use crate::error::{ProxyError, Replay, chain};
use crate::http::{grpc, timer};
use crate::message::ResponseHead;
use crate::resilience::breaker::Limit;
use crate::resilience::budget;
use crate::resilience::outlier::Outcome;
use crate::resilience::retry::{Failure, Refusal, Request, Verdict, decide, is_idempotent};
use crate::state::local::LocalCluster;
use crate::upstream::request_body::ClientFault;
use crate::upstream::response_body::UpstreamBody;

/// The answer to a request, or why there is none.
type Answer = Result<(ResponseHead, UpstreamBody), ProxyError>;

/// What came of one try.
type Tried = Result<(ResponseHead, UpstreamBody), FailedTry>;

/// All tries, within the deadline of the whole request.
pub(super) async fn exchange(walk: &Walk, record: &mut Record) -> Answer {
    budget::note_request(&walk.cluster.live, record.started());
    let answered = {
        let mut trying = pin!(tries(walk, record));
        match walk.deadlines.response_head() {
            None => Some(trying.await),
            Some(deadline) => timer::within(&walk.client.timer, deadline, trying.as_mut()).await,
        }
    };
    answered.unwrap_or_else(|| {
        let now = Instant::now();
        let after = now.saturating_duration_since(record.started());
        if let Some(since) = record.waits_since() {
            Err(pending::too_long(&walk.cluster, now.saturating_duration_since(since)))
        } else if walk.body.is_whole() {
            if !record.has_waited() {
                record.judge(Outcome::LocalFailure, now);
            }
            Err(ProxyError::RequestTimeout { after })
        } else {
            // Nobody can answer what has not been asked yet.
            Err(ProxyError::ClientIdle { after })
        }
    })
}

/// One request's tries so far.
struct Tries<'w> {
    walk: &'w Walk,
    /// As it stands by now.
    cluster: Rc<LocalCluster>,
    idempotent: bool,
    tried: Vec<EndpointId>,
    /// Those that the policy allowed, after the first.
    attempt: u32,
    /// It went again once, for a connection that was closed under it.
    raced: bool,
    /// The next try goes on a new connection.
    fresh: bool,
}

async fn tries(walk: &Walk, record: &mut Record) -> Answer {
    let mut tries = Tries {
        walk,
        cluster: Rc::clone(&walk.cluster),
        idempotent: is_idempotent(walk.head.method.as_str()),
        tried: Vec::new(),
        attempt: 0,
        raced: false,
        fresh: false,
    };
    loop {
        let Chosen { endpoint, address, is_only, carrier } = tries.choose(record).await?;
        record.trying(&endpoint, address);
        let ready = match carrier {
            Carrier::Ready(ready) => Ok(ready),
            Carrier::Yet(yet) => Box::pin(attempt::open(walk, &tries.cluster, &endpoint, address, *yet)).await,
        };
        let tried = match ready {
            Ok(ready) => attempt::run(walk, ready).await,
            Err(error) => Err(error.into()),
        };
        if tried.as_ref().is_err_and(FailedTry::found_no_place) {
            record.withdraw();
            continue;
        }
        if let Some(answer) = tries.judge(tried, endpoint.id(), is_only, record) {
            return answer;
        }
    }
}

impl Tries<'_> {
    /// Which endpoint, and on what; both may have to be waited for, behind those who wait already.
    async fn choose(&mut self, record: &mut Record) -> Result<Chosen, ProxyError> {
        let Self { walk, cluster, tried, .. } = self;
        let fresh = std::mem::take(&mut self.fresh);
        let found = if cluster.places.anyone_waits() || !record.is_under_way() {
            None
        } else {
            choice::find(walk, cluster, tried, fresh, &mut None)?
        };
        match found {
            Some(chosen) => Ok(chosen),
            // In a box: most requests do not, and shall not make room for it.
            None => Box::pin(pending::wait(walk, cluster, tried, fresh, record)).await,
        }
    }

    /// What one try comes to: the request's answer; none where it goes once more.
    fn judge(&mut self, tried: Tried, by: &EndpointId, is_only: bool, record: &mut Record) -> Option<Answer> {
        let now = Instant::now();
        let failure = match &tried {
            Ok((head, _)) => {
                let status = grpc::status(&head.fields).unwrap_or(head.status.as_u16());
                record.judge(Outcome::of_status(status), now);
                if status < 500 {
                    return Some(into_answer(tried));
                }
                Failure::Status(status)
            }
            Err(failed) => {
                if let Some(fault) = self.walk.client_fault() {
                    return Some(Err(fault));
                }
                tracing::debug!(endpoint = %by.unit, error = %chain(&failed.error), "a try failed");
                if record.has_waited() && self.walk.deadlines.expired(now) {
                    let after = now.saturating_duration_since(record.started());
                    return Some(Err(ProxyError::RequestTimeout { after }));
                }
                if self.races_again(failed, by) {
                    return None;
                }
                let Some(failure) = failed.failure() else { return Some(into_answer(tried)) };
                record.judge(Outcome::LocalFailure, now);
                failure
            }
        };
        // Nobody else may take what is meant for one endpoint, and who dials one directly gets no second try either.
        if is_only {
            return Some(into_answer(tried));
        }
        self.once_more(tried, failure, by, record, now)
    }

    /// Whether it goes again, once, since its connection was closed while it was on its way.
    fn races_again(&mut self, failed: &FailedTry, by: &EndpointId) -> bool {
        let harmless = self.idempotent || self.walk.cluster.live.policy().retry.methods == RetryMethods::Any;
        if self.raced || !failed.lost_race(harmless) || !self.walk.body.is_replayable() {
            return false;
        }
        (self.raced, self.fresh) = (true, true);
        self.walk.cluster.metrics.counts.retried(RetryOn::Reset);
        self.tried.push(by.clone());
        true
    }

    /// Once more, where that may help and the budget allows it; else this was the answer.
    fn once_more(
        &mut self,
        tried: Tried,
        failure: Failure,
        by: &EndpointId,
        record: &Record,
        now: Instant,
    ) -> Option<Answer> {
        if self.walk.deadlines.expired(now) {
            return Some(Err(ProxyError::RequestTimeout { after: now.saturating_duration_since(record.started()) }));
        }
        let counts = &self.walk.cluster.metrics.counts;
        let replayable = self.walk.body.is_replayable();
        let request = Request { idempotent: self.idempotent, replayable, attempt: self.attempt };
        match decide(&self.walk.cluster.live.policy().retry, request, failure) {
            Verdict::Retry { charged: true, .. } if !budget::withdraw(&self.walk.cluster.live, now) => {
                counts.budget_exhausted.increase();
                Some(into_answer(tried))
            }
            Verdict::Retry { on, .. } => {
                counts.retried(on);
                self.tried.push(by.clone());
                self.attempt += 1;
                self.fresh = tried.is_err();
                if let Ok((_, body)) = tried {
                    body.discard();
                }
                None
            }
            Verdict::No(Refusal::Attempts) if self.attempt > 0 => {
                let attempts = record.attempts();
                let exhausted =
                    |failed: FailedTry| ProxyError::RetriesExhausted { attempts, last: Box::new(failed.error) };
                Some(tried.map_err(exhausted))
            }
            Verdict::No(refusal) => {
                if refusal == Refusal::NotReplayable {
                    counts.bodies_not_kept.increase();
                }
                Some(into_answer(tried))
            }
        }
    }
}

fn into_answer(tried: Tried) -> Answer {
    tried.map_err(|failed| failed.error)
}

impl Walk {
    /// Whether it was the client that broke the exchange off.
    fn client_fault(&self) -> Option<ProxyError> {
        self.body.take_fault().map(|fault| match fault {
            ClientFault::Cut(source) => ProxyError::ClientCut { source },
            ClientFault::Idle(after) => ProxyError::ClientIdle { after },
        })
    }
}

impl FailedTry {
    /// Whoever was connecting for it has no room for it, and there is no place for another connection.
    fn found_no_place(&self) -> bool {
        matches!(self.error, ProxyError::Overflow { limit: Limit::Connections, .. })
    }

    /// The peer closed a waiting connection while the request was on its way.
    fn lost_race(&self, harmless: bool) -> bool {
        let never_sent = self.error.replay() == Replay::Safe && matches!(self.error, ProxyError::NotSent { .. });
        let may_have_been_seen = self.error.replay() == Replay::IfConnectionWasReused && harmless;
        self.reused && !self.response_begun && (never_sent || !self.bytes_sent || may_have_been_seen)
    }

    /// What the retry rule is told; none for what no retry helps against.
    fn failure(&self) -> Option<Failure> {
        let reset = Failure::Reset {
            connection_reused: self.reused,
            bytes_sent: self.bytes_sent,
            response_begun: self.response_begun,
        };
        match self.error {
            ProxyError::Connect { .. } | ProxyError::ConnectTimeout { .. } => Some(Failure::Connect),
            ProxyError::StreamRefused { .. } => Some(Failure::RefusedStream),
            ProxyError::NotSent { .. }
            | ProxyError::Closed { .. }
            | ProxyError::StreamReset { .. }
            | ProxyError::Protocol { .. } => Some(reset),
            _ => None,
        }
    }
}
