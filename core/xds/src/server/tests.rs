use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc::Status;

use super::{Flavor, NOT_FOUND, RequestError, Response, Session, Verdict};
use crate::kind::Kind;
use crate::packed::{Packed, ResourceSet};

/// A set written `cluster/a=1 route/x=2 +listener/api=1`: kind, name, content; `+` for on demand.
fn set(text: &str) -> Arc<ResourceSet> {
    let mut set = ResourceSet::default();
    for word in text.split_whitespace() {
        let (path, version) = word.split_once('=').unwrap();
        let (kind, name) = path.trim_start_matches('+').split_once('/').unwrap();
        let kind = Kind::ALL.into_iter().find(|one| one.short() == kind).unwrap();
        let resource = Packed { name: name.into(), version: version.into(), body: Default::default() };
        if path.starts_with('+') { set.offer_on_demand(kind, resource) } else { set.offer(kind, resource) }
    }
    Arc::new(set)
}

fn told(responses: &[Response]) -> String {
    let one = |response: &Response| {
        let resources = response.resources.iter().map(|one| format!(" {}={}", one.name, one.version));
        let removed = response.removed.iter().map(|name| format!(" -{name}"));
        format!("{}{}", response.kind, resources.chain(removed).collect::<String>())
    };
    responses.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn delta(kind: Kind, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: subscribe.iter().map(ToString::to_string).collect(),
        resource_names_unsubscribe: unsubscribe.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn ask(session: &mut Session, request: &DeltaDiscoveryRequest) -> Vec<Response> {
    session.delta_request(request).unwrap().responses
}

/// Answers every response with ACK until the server has no more to say; returns all it said.
fn ack_all(session: &mut Session, mut responses: Vec<Response>) -> String {
    let mut all = Vec::new();
    while let Some(response) = (!responses.is_empty()).then(|| responses.remove(0)) {
        let request =
            DeltaDiscoveryRequest { response_nonce: response.nonce.clone(), ..delta(response.kind, &[], &[]) };
        all.push(response);
        responses.extend(ask(session, &request));
    }
    told(&all)
}

fn subscribed(text: &str) -> Session {
    let mut session = Session::new(Flavor::Delta, set(text));
    for kind in [Kind::Cluster, Kind::Listener] {
        let responses = ask(&mut session, &delta(kind, &[], &[]));
        ack_all(&mut session, responses);
    }
    session
}

#[test]
fn a_first_request_without_names_is_a_wildcard_for_some_types_only() {
    for (kind, expected) in [
        (Kind::Cluster, "cds a=1 b=1"),
        (Kind::Listener, "lds l=1"),
        (Kind::Capture, "capture capture=1"),
        (Kind::Assignment, ""),
        (Kind::Route, ""),
    ] {
        let mut session =
            Session::new(Flavor::Delta, set("cds/a=1 cds/b=1 eds/a=1 lds/l=1 +lds/api=1 rds/r=1 capture/capture=1"));
        assert_eq!(told(&ask(&mut session, &delta(kind, &[], &[]))), expected);
    }
}

#[test]
fn an_empty_wildcard_is_answered_all_the_same() {
    let mut session = Session::new(Flavor::Delta, set(""));
    assert_eq!(told(&ask(&mut session, &delta(Kind::Listener, &[], &[]))), "lds");
}

#[test]
fn names_bring_what_is_on_demand_and_absence_is_told() {
    let mut session = Session::new(Flavor::Delta, set("lds/l=1 +lds/api=1"));
    let responses = ask(&mut session, &delta(Kind::Listener, &["api", "nobody"], &[]));
    assert_eq!(ack_all(&mut session, responses), "lds api=1 -nobody");
    let appeared = session.update(set("lds/l=1 +lds/nobody=2"));
    assert_eq!(ack_all(&mut session, appeared), "lds nobody=2 -api");
}

#[test]
fn one_response_per_type_is_under_way_and_changes_gather() {
    let mut session = Session::new(Flavor::Delta, set("cds/a=1"));
    let first = ask(&mut session, &delta(Kind::Cluster, &[], &[]));
    assert_eq!(told(&first), "cds a=1");
    assert!(session.update(set("cds/a=2")).is_empty());
    assert!(session.update(set("cds/a=3 cds/b=1")).is_empty());
    assert_eq!(ack_all(&mut session, first), "cds a=1; cds a=3 b=1");
}

#[test]
fn clusters_come_before_listeners_and_go_after_them() {
    let mut session = subscribed("cds/old=1 lds/l=1");
    let responses = session.update(set("cds/new=1 lds/l=2"));
    assert_eq!(told(&responses), "cds new=1", "listeners wait for the ACK of clusters");
    assert_eq!(ack_all(&mut session, responses), "cds new=1; lds l=2; cds -old");
}

#[test]
fn endpoints_come_before_listeners_when_asked_for_before_the_ack() {
    let mut session = subscribed("cds/a=1 eds/a=1 lds/l=1");
    let responses = session.update(set("cds/a=1 cds/b=1 eds/a=1 eds/b=1 lds/l=2"));
    let mut all = ask(&mut session, &delta(Kind::Assignment, &["b"], &[]));
    assert_eq!(told(&all), "eds b=1");
    all.extend(responses);
    assert_eq!(ack_all(&mut session, all), "eds b=1; cds b=1; lds l=2");
}

#[test]
fn a_rejected_resource_is_not_sent_again_and_nothing_is_broken_meanwhile() {
    let mut session = subscribed("cds/old=1 lds/l=1");
    let responses = session.update(set("lds/l=2"));
    assert_eq!(told(&responses), "lds l=2");
    let nack = DeltaDiscoveryRequest {
        response_nonce: responses[0].nonce.clone(),
        error_detail: Some(Status { message: "no".to_owned(), ..Status::default() }),
        ..delta(Kind::Listener, &[], &[])
    };
    let outcome = session.delta_request(&nack).unwrap();
    assert!(
        matches!(outcome.verdict, Some(Verdict::Rejected { kind: Kind::Listener, ref words, .. }) if words == "no")
    );
    assert_eq!(told(&outcome.responses), "", "the cluster stays while the old listener is in use");
    assert_eq!(session.status()[1].rejected.as_deref(), Some("no"));
    let better = session.update(set("lds/l=3"));
    assert_eq!(ack_all(&mut session, better), "lds l=3; cds -old");
    assert_eq!(session.status()[1].rejected, None);
}

#[test]
fn what_the_client_still_has_is_not_sent_again() {
    let mut session = Session::new(Flavor::Delta, set("cds/a=1 cds/b=2"));
    let versions = [("a", "1"), ("b", "1"), ("gone", "7")].map(|(name, version)| (name.to_owned(), version.to_owned()));
    let request =
        DeltaDiscoveryRequest { initial_resource_versions: versions.into(), ..delta(Kind::Cluster, &[], &[]) };
    assert_eq!(told(&ask(&mut session, &request)), "cds b=2 -gone");
}

#[test]
fn who_subscribes_again_gets_it_again_and_who_unsubscribes_gets_no_more() {
    let mut session = Session::new(Flavor::Delta, set("eds/a=1 eds/b=1"));
    let responses = ask(&mut session, &delta(Kind::Assignment, &["a", "b"], &[]));
    ack_all(&mut session, responses);
    let responses = ask(&mut session, &delta(Kind::Assignment, &["a"], &["b"]));
    assert_eq!(ack_all(&mut session, responses), "eds a=1");
    let responses = session.update(set("eds/a=2 eds/b=2"));
    assert_eq!(ack_all(&mut session, responses), "eds a=2");
}

#[test]
fn a_name_dropped_under_a_wildcard_is_told_again() {
    let mut session = Session::new(Flavor::Delta, set("lds/l=1 +lds/api=1"));
    let responses = ask(&mut session, &delta(Kind::Listener, &["*", "l", "api"], &[]));
    assert_eq!(ack_all(&mut session, responses), "lds api=1 l=1");
    let responses = ask(&mut session, &delta(Kind::Listener, &[], &["l", "api"]));
    assert_eq!(ack_all(&mut session, responses), "lds l=1 -api");
}

#[test]
fn an_unknown_type_is_refused_by_name() {
    let mut session = Session::new(Flavor::Delta, set(""));
    let request = DeltaDiscoveryRequest { type_url: "type.example/x".to_owned(), ..DeltaDiscoveryRequest::default() };
    let expected = RequestError::UnknownType { type_url: "type.example/x".to_owned() };
    assert_eq!(session.delta_request(&request), Err(expected));
}

fn sotw(session: &mut Session, kind: Kind, names: &[&str], nonce: &str) -> Vec<Response> {
    let request = DiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names: names.iter().map(ToString::to_string).collect(),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    };
    session.sotw_request(&request).unwrap().responses
}

#[test]
fn the_state_of_the_world_is_whole_for_clusters_and_listeners() {
    let mut session = Session::new(Flavor::StateOfTheWorld, set("cds/a=1 cds/b=1"));
    let first = sotw(&mut session, Kind::Cluster, &[], "");
    assert_eq!(told(&first), "cds a=1 b=1");
    assert!(sotw(&mut session, Kind::Cluster, &[], &first[0].nonce).is_empty());
    let second = session.update(set("cds/a=2 cds/b=1"));
    assert_eq!(told(&second), "cds a=2 b=1");
    assert_ne!(first[0].version, second[0].version);
    assert!(sotw(&mut session, Kind::Cluster, &[], &first[0].nonce).is_empty(), "a stale nonce answers nothing");
    assert!(session.update(set("cds/a=3 cds/b=1")).is_empty(), "the second is still under way");
    assert_eq!(told(&sotw(&mut session, Kind::Cluster, &[], &second[0].nonce)), "cds a=3 b=1");
}

#[test]
fn the_state_of_the_world_names_only_what_changed_of_endpoints() {
    let mut session = Session::new(Flavor::StateOfTheWorld, set("eds/a=1 eds/b=1"));
    assert!(sotw(&mut session, Kind::Assignment, &[], "").is_empty());
    let first = sotw(&mut session, Kind::Assignment, &["a"], "");
    assert_eq!(told(&first), "eds a=1");
    let second = sotw(&mut session, Kind::Assignment, &["a", "b", "nobody"], &first[0].nonce);
    assert_eq!(told(&second), "eds b=1 -nobody", "the absence is noted, though this variant has no word for it");
    assert!(sotw(&mut session, Kind::Assignment, &["a", "b", "nobody"], &second[0].nonce).is_empty());
    assert_eq!(told(&session.update(set("eds/a=2 eds/b=1 eds/nobody=1"))), "eds a=2 nobody=1");
}

#[test]
fn the_state_of_the_world_tells_a_named_listener_that_is_not_there() {
    let mut session = Session::new(Flavor::StateOfTheWorld, set("lds/l=1 +lds/api=1"));
    let first = sotw(&mut session, Kind::Listener, &["nobody"], "");
    assert_eq!(told(&first), "lds -nobody", "an answer without it says that it does not exist");
    let error = &first[0].clone().into_sotw().resource_errors[0];
    assert_eq!(error.resource_name.as_ref().unwrap().name, "nobody");
    let status = error.error_detail.as_ref().unwrap();
    assert_eq!((status.code, status.message.as_str()), (NOT_FOUND, "the mesh has no nobody"));
    let second = sotw(&mut session, Kind::Listener, &["nobody", "api"], &first[0].nonce);
    assert_eq!(second[0].resources.len(), 1);
    assert!(second[0].clone().into_sotw().resource_errors.is_empty(), "a client remembers what it was told");
    assert!(sotw(&mut session, Kind::Listener, &[], &second[0].nonce).is_empty(), "no name is no longer a wildcard");
    assert!(session.update(set("lds/l=2 +lds/api=2")).is_empty());
}

#[test]
fn the_state_of_the_world_leaves_out_what_a_wildcard_no_longer_brings() {
    let mut session = Session::new(Flavor::StateOfTheWorld, set("lds/l=1 lds/m=1"));
    let first = sotw(&mut session, Kind::Listener, &[], "");
    sotw(&mut session, Kind::Listener, &[], &first[0].nonce);
    let second = session.update(set("lds/l=1"));
    assert_eq!(told(&second), "lds l=1", "nobody asked for m, so its end is no error");
}

#[test]
fn the_end_of_a_named_listener_is_told_in_the_state_of_the_world() {
    let mut session = Session::new(Flavor::StateOfTheWorld, set("+lds/api=1"));
    let first = sotw(&mut session, Kind::Listener, &["api"], "");
    assert!(sotw(&mut session, Kind::Listener, &["api"], &first[0].nonce).is_empty());
    assert_eq!(told(&session.update(set(""))), "lds -api");
}
