//! What must hold of every endpoint that is picked, and of every one that is taken out, found out without the balancer and the
//! outlier detector.

use std::sync::Arc;

use mesh_core::model::endpoint::EndpointState;
use mesh_core::model::names::EndpointId;
use mesh_proxy::balance::{Pick, Unavailable};
use mesh_proxy::endpoint::{LiveCluster, LiveEndpoint};
use mesh_proxy::resilience::outlier::{self, Outcome, Verdict};

use crate::sky::Sky;

pub fn check_pick(sky: &Sky, cluster: &LiveCluster, tried: &[EndpointId], picked: Result<&Pick<'_>, &Unavailable>) {
    let name = cluster.name();
    let takers: Vec<&Arc<LiveEndpoint>> = cluster.endpoints().iter().filter(|one| one.takes_requests()).collect();
    let is_out = |one: &LiveEndpoint| cluster.ejected_for(one, sky.instant()).is_some();
    let pick = match picked {
        Ok(pick) => pick,
        Err(why) => {
            assert!(takers.is_empty(), "{sky}: {name}: {why}, and yet there is {}", takers[0].id());
            return;
        }
    };
    let (id, priority) = (pick.endpoint.id(), pick.endpoint.target.priority);
    assert!(takers.iter().any(|one| one.id() == id), "{sky}: {name}: {id} takes no requests, and is picked");
    assert_eq!(pick.again, tried.contains(id), "{sky}: {name}: {id}");
    // Nobody is tried again while another was not tried at all, be it one that is out.
    let untried = takers.iter().find(|one| !tried.contains(one.id()));
    assert_eq!(pick.again, untried.is_none(), "{sky}: {name}: {id}: {:?} was not tried", untried.map(|one| one.id()));
    // Among those, one that is not out, if there is one; of the best priority.
    let may_be = |one: &&&Arc<LiveEndpoint>| pick.again || !tried.contains(one.id());
    let is_serving = takers.iter().filter(may_be).any(|one| !is_out(one));
    assert_eq!(pick.panic, !is_serving, "{sky}: {name}: {id}: panic");
    assert!(pick.panic || !is_out(pick.endpoint), "{sky}: {name}: {id} is out, and others are not");
    let fitting = takers.iter().filter(may_be).filter(|one| pick.panic || !is_out(one));
    let best = fitting.map(|one| one.target.priority).min();
    assert_eq!(Some(priority), best, "{sky}: {name}: {id} is of another priority");
}

/// Tells how a try ended. True when the endpoint is taken out for it.
pub fn judge(sky: &mut Sky, cluster: &LiveCluster, endpoint: &LiveEndpoint, outcome: Outcome) -> bool {
    let now = sky.instant();
    let (row, before) = (endpoint.stats.consecutive_failures(), endpoint.stats.ejections_total());
    let verdict = outlier::record(cluster, endpoint, outcome, now);
    let (name, id) = (cluster.name(), endpoint.id());
    let Verdict::Ejected { duration, .. } = verdict else {
        assert_eq!(endpoint.stats.ejections_total(), before, "{sky}: {name}: {id} is out: {verdict:?}");
        return false;
    };
    let outlier = &cluster.policy().outlier;
    assert!(outcome != Outcome::Success, "{sky}: {name}: {id} is taken out for a success");
    assert!(row + 1 >= outlier.consecutive_5xx, "{sky}: {name}: {id} is taken out after {row} failures and one");
    assert!(duration <= outlier.max_ejection_time, "{sky}: {name}: {id} is out for {duration:?}");
    let is_out = |one: &&Arc<LiveEndpoint>| cluster.ejected_for(one, now).is_some();
    let ready = cluster.endpoints().iter().filter(|one| one.target.state == EndpointState::Ready);
    let out = ready.clone().filter(is_out).count() as u64;
    let allowed = outlier.max_ejection_percent.of(ready.clone().count() as u64);
    assert!(out <= allowed, "{sky}: {name}: with {id} {out} are out, {allowed} may be");
    let left = cluster.endpoints().iter().filter(|one| one.takes_requests() && !is_out(one)).count();
    assert!(left > 0, "{sky}: {name}: {id} was the last one, and is taken out");
    sky.tell(format_args!("{name}: {id} is taken out for {duration:?}"));
    true
}
