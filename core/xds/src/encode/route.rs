//! Which cluster a request goes to, by its authority: RDS. Timeout and retries belong to a cluster in ours and to a route in
//! xDS, so encoding a table takes the policies of the clusters it leads to.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::retry_policy::{RetryHostPredicate, retry_host_predicate};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern};
use mesh_core::model::policy::{Policy, Retry, RetryMethods, RetryOn};
use mesh_core::model::resource::{RouteTable, VirtualHost};

use super::{duration, number, pack};
use crate::kind::Kind;
use crate::packed::{Packed, version_of};

/// Methods that may be sent twice (RFC 9110 section 9.2.2), as Envoy matches them.
const IDEMPOTENT_METHODS: &str = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";

/// How often Envoy draws again when it drew an endpoint that has had this request already.
const HOST_DRAWS_MAX: i64 = 5;

/// Who reads the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Envoy, or our own proxy.
    Proxy,
    /// A gRPC client: all its calls are POSTs, and it refuses matches on `:method`. It repeats by itself what no server has
    /// seen, so the table carries a retry policy only where every method may be repeated.
    Grpc,
}

/// Encodes one table; a cluster without a policy in `policies` has the default one.
#[must_use]
pub fn route_table(table: &RouteTable, policies: &BTreeMap<Arc<str>, &Policy>, reader: Reader) -> Packed {
    let unknown = Policy::default();
    let policy_of = |cluster: &Arc<str>| policies.get(cluster).copied().unwrap_or(&unknown);
    let virtual_hosts = table.hosts.iter().map(|host| virtual_host(host, policy_of(&host.cluster), reader)).collect();
    let message =
        pb::RouteConfiguration { name: table.name.to_string(), virtual_hosts, ..pb::RouteConfiguration::default() };
    let decided: Vec<_> = table.hosts.iter().map(|host| policy_of(&host.cluster)).collect();
    let decided: Vec<_> = decided.into_iter().map(|policy| (policy.timeout, &policy.retry)).collect();
    let version = version_of(Kind::Route, &(table, decided, reader == Reader::Grpc));
    Packed { name: table.name.clone(), version, body: pack(&message) }
}

fn virtual_host(host: &VirtualHost, policy: &Policy, reader: Reader) -> pb::VirtualHost {
    pb::VirtualHost {
        name: host.name.to_string(),
        domains: host.domains.iter().map(ToString::to_string).collect(),
        routes: routes(host, policy, reader),
        ..pb::VirtualHost::default()
    }
}

/// One route, or two where only idempotent methods may be repeated: those first, then the others, of which only what no
/// application has seen is repeated.
fn routes(host: &VirtualHost, policy: &Policy, reader: Reader) -> Vec<pb::Route> {
    let retry = &policy.retry;
    let safe: Vec<RetryOn> = retry.on.iter().copied().filter(|on| is_safe_for_any_method(*on)).collect();
    let all: Vec<RetryOn> = retry.on.iter().copied().collect();
    let route = |headers: Vec<pb::HeaderMatcher>, on: &[RetryOn]| {
        let action = action(&host.cluster, policy.timeout, retry_policy(retry, on));
        pb::Route { r#match: Some(any_path(headers)), action: Some(Action::Route(action)), ..pb::Route::default() }
    };
    match (retry.methods, reader) {
        (RetryMethods::Any, _) => vec![route(Vec::new(), &all)],
        (RetryMethods::Idempotent, Reader::Grpc) => vec![route(Vec::new(), &[])],
        (RetryMethods::Idempotent, Reader::Proxy) if safe.len() == all.len() => vec![route(Vec::new(), &all)],
        (RetryMethods::Idempotent, Reader::Proxy) => {
            vec![route(vec![idempotent_method()], &all), route(Vec::new(), &safe)]
        }
    }
}

fn is_safe_for_any_method(on: RetryOn) -> bool {
    matches!(on, RetryOn::ConnectFailure | RetryOn::RefusedStream)
}

fn any_path(headers: Vec<pb::HeaderMatcher>) -> pb::RouteMatch {
    pb::RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), headers, ..pb::RouteMatch::default() }
}

fn idempotent_method() -> pb::HeaderMatcher {
    let regex = RegexMatcher { regex: IDEMPOTENT_METHODS.to_owned(), ..RegexMatcher::default() };
    let matcher = StringMatcher { match_pattern: Some(MatchPattern::SafeRegex(regex)), ignore_case: false };
    pb::HeaderMatcher {
        name: ":method".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(matcher)),
        ..pb::HeaderMatcher::default()
    }
}

/// A timeout is always written: Envoy takes 15 s where none is, and 0 s for none.
fn action(cluster: &str, timeout: Option<Duration>, retry_policy: Option<pb::RetryPolicy>) -> pb::RouteAction {
    pb::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: Some(duration(timeout.unwrap_or(Duration::ZERO))),
        retry_policy,
        ..pb::RouteAction::default()
    }
}

/// None where nothing is repeated: gRPC refuses a policy of 0 retries.
fn retry_policy(retry: &Retry, on: &[RetryOn]) -> Option<pb::RetryPolicy> {
    if retry.attempts == 0 || on.is_empty() {
        return None;
    }
    let predicate = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack(&PreviousHostsPredicate {}))),
    };
    Some(pb::RetryPolicy {
        retry_on: on.iter().map(|on| on.as_str()).collect::<Vec<_>>().join(","),
        num_retries: Some(number(retry.attempts)),
        retry_host_predicate: vec![predicate],
        host_selection_retry_max_attempts: HOST_DRAWS_MAX,
        ..pb::RetryPolicy::default()
    })
}
