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
use crate::upstream::request_body::ClientFault;
use crate::upstream::response_body::UpstreamBody;

/// All tries, within the deadline of the whole request.
pub(super) async fn exchange(walk: &Walk, record: &mut Record) -> Result<(ResponseHead, UpstreamBody), ProxyError> {
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
            record.judge(Outcome::LocalFailure, now);
            Err(ProxyError::RequestTimeout { after })
        } else {
            // Nobody can answer what has not been asked yet.
            Err(ProxyError::ClientIdle { after })
        }
    })
}

async fn tries(walk: &Walk, record: &mut Record) -> Result<(ResponseHead, UpstreamBody), ProxyError> {
    let policy = &walk.cluster.live.policy().retry;
    let idempotent = is_idempotent(walk.head.method.as_str());
    let mut tried: Vec<EndpointId> = Vec::new();
    let mut cluster = Rc::clone(&walk.cluster);
    let (mut attempt, mut raced, mut fresh) = (0, false, false);
    loop {
        // Which endpoint, and on what; both may have to be waited for, behind those who wait already.
        let found = if cluster.places.anyone_waits() || !record.is_under_way() {
            None
        } else {
            choice::find(walk, &cluster, &mut tried, fresh, &mut None)?
        };
        let Chosen { endpoint, address, is_only, carrier } = match found {
            Some(chosen) => chosen,
            // In a box: most requests do not, and shall not make room for it.
            None => Box::pin(pending::wait(walk, &mut cluster, &mut tried, fresh, record)).await?,
        };
        fresh = false;
        record.trying(&endpoint, address);
        let ready = match carrier {
            Carrier::Ready(ready) => Ok(ready),
            Carrier::Yet(yet) => Box::pin(attempt::open(walk, &cluster, &endpoint, address, *yet)).await,
        };
        let outcome = match ready {
            Ok(ready) => attempt::run(walk, ready).await,
            Err(error) => Err(error.into()),
        };
        if outcome.as_ref().is_err_and(FailedTry::found_no_place) {
            record.withdraw();
            continue;
        }
        let now = Instant::now();
        let failure = match &outcome {
            Ok((head, _)) => {
                let status = grpc::status(&head.fields).unwrap_or(head.status.as_u16());
                record.judge(Outcome::of_status(status), now);
                if status < 500 {
                    return into_result(outcome);
                }
                Failure::Status(status)
            }
            Err(failed) => match walk.client_fault() {
                Some(fault) => return Err(fault),
                None => {
                    let address = &address;
                    tracing::debug!(%address, error = %chain(&failed.error), "a try failed");
                    let lost_race = !raced && failed.lost_race(idempotent || policy.methods == RetryMethods::Any);
                    if lost_race && walk.body.is_replayable() {
                        (raced, fresh) = (true, true);
                        walk.cluster.metrics.counts.retried(RetryOn::Reset);
                        tried.push(endpoint.id().clone());
                        continue;
                    }
                    match failed.failure() {
                        Some(failure) => {
                            record.judge(Outcome::LocalFailure, now);
                            failure
                        }
                        None => return into_result(outcome),
                    }
                }
            },
        };
        // Nobody else may take what is meant for one endpoint, and who dials one directly gets no second try either.
        if is_only {
            return into_result(outcome);
        }
        // Once more, where that may help and the budget allows it.
        let request = Request { idempotent, replayable: walk.body.is_replayable(), attempt };
        match decide(policy, request, failure) {
            Verdict::Retry { charged: true, .. } if !budget::withdraw(&walk.cluster.live, now) => {
                walk.cluster.metrics.counts.budget_exhausted.increase();
                return into_result(outcome);
            }
            Verdict::Retry { on, .. } => {
                walk.cluster.metrics.counts.retried(on);
                tried.push(endpoint.id().clone());
                attempt += 1;
                fresh = outcome.is_err();
                if let Ok((_, body)) = outcome {
                    body.discard();
                }
            }
            Verdict::No(Refusal::Attempts) if attempt > 0 => {
                return outcome.map_err(|failed| ProxyError::RetriesExhausted {
                    attempts: record.attempts(),
                    last: Box::new(failed.error),
                });
            }
            Verdict::No(refusal) => {
                if refusal == Refusal::NotReplayable {
                    walk.cluster.metrics.counts.bodies_not_kept.increase();
                }
                return into_result(outcome);
            }
        }
    }
}

fn into_result(
    outcome: Result<(ResponseHead, UpstreamBody), FailedTry>,
) -> Result<(ResponseHead, UpstreamBody), ProxyError> {
    outcome.map_err(|failed| failed.error)
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
