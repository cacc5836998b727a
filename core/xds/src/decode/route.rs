//! Which cluster a request goes to, by its authority: RDS.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use mesh_core::model::policy::{RetryMethods, RetryOn};
use mesh_core::model::resource::{RouteTable, VirtualHost};

use super::{At, DecodeError};

/// What Envoy takes where a route says nothing.
const ENVOY_TIMEOUT: Duration = Duration::from_secs(15);

/// A table, and what its routes say that is a cluster's in ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedRoutes {
    pub table: Arc<RouteTable>,
    /// By cluster; where several routes lead to one, the first that does.
    pub policies: BTreeMap<Arc<str>, RoutePolicy>,
}

/// Timeout and retries, as a route has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePolicy {
    pub timeout: Option<Duration>,
    pub retry_on: BTreeSet<RetryOn>,
    pub attempts: u32,
    pub methods: RetryMethods,
}

pub(crate) fn route_table(at: At<'_>, value: &[u8]) -> Result<DecodedRoutes, DecodeError> {
    let message: pb::RouteConfiguration = at.message("route_configuration", value)?;
    if message.vhds.is_some() {
        return Err(at.unsupported("vhds", "set", "all virtual hosts in the table are wanted"));
    }
    let mut hosts = Vec::new();
    let mut policies = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for host in &message.virtual_hosts {
        let (host, policy) = virtual_host(at, host)?;
        for domain in &host.domains {
            if !seen.insert(domain.clone()) {
                return Err(at.invalid("virtual_hosts.domains", domain, "each domain once is wanted"));
            }
        }
        policies.entry(host.cluster.clone()).or_insert(policy);
        hosts.push(host);
    }
    Ok(DecodedRoutes { table: Arc::new(RouteTable { name: message.name.into(), hosts }), policies })
}

/// All routes of a host have to lead to one cluster, and the last of them has to take every path: nothing else can be told
/// apart in a [`VirtualHost`].
fn virtual_host(at: At<'_>, message: &pb::VirtualHost) -> Result<(VirtualHost, RoutePolicy), DecodeError> {
    let domains: Result<Vec<Arc<str>>, DecodeError> = message.domains.iter().map(|name| domain(at, name)).collect();
    let domains = domains?;
    if domains.is_empty() {
        return Err(at.missing("virtual_hosts.domains", "a domain or * is wanted"));
    }
    let Some((last, narrower)) = message.routes.split_last() else {
        return Err(at.missing("virtual_hosts.routes", "a route to a cluster is wanted"));
    };
    let (cluster, fallback) = route(at, message, last)?;
    if !takes_everything(last) {
        return Err(at.unsupported("virtual_hosts.routes.match", shown(last), "a last route with prefix / is wanted"));
    }
    for other in narrower {
        let (to, _) = route(at, message, other)?;
        if to != cluster {
            return Err(at.unsupported("virtual_hosts.routes", to, "one cluster for a whole host is wanted"));
        }
    }
    let policy = match narrower {
        [first] if is_by_method(first) => {
            let (_, policy) = route(at, message, first)?;
            RoutePolicy { methods: RetryMethods::Idempotent, ..policy }
        }
        _ => fallback,
    };
    let name = message.name.as_str().into();
    Ok((VirtualHost { name, domains, cluster: cluster.into() }, policy))
}

fn domain(at: At<'_>, name: &str) -> Result<Arc<str>, DecodeError> {
    if name != "*" && name.contains('*') {
        let wanted = "an exact authority or * is wanted";
        return Err(at.unsupported("virtual_hosts.domains", name, wanted));
    }
    Ok(name.to_ascii_lowercase().into())
}

fn takes_everything(route: &pb::Route) -> bool {
    route.r#match.as_ref().is_some_and(|matched| {
        let every_path = match &matched.path_specifier {
            Some(PathSpecifier::Prefix(prefix)) => prefix.is_empty() || prefix == "/",
            _ => false,
        };
        let narrowed = matched.runtime_fraction.is_some() || matched.grpc.is_some() || matched.tls_context.is_some();
        let filtered = !matched.dynamic_metadata.is_empty() || !matched.filter_state.is_empty();
        let named = !matched.headers.is_empty() || !matched.query_parameters.is_empty() || !matched.cookies.is_empty();
        every_path && !(narrowed || filtered || named)
    })
}

/// Our own first route: the methods that may be repeated.
fn is_by_method(route: &pb::Route) -> bool {
    route.r#match.as_ref().is_some_and(|matched| matches!(&matched.headers[..], [one] if one.name == ":method"))
}

fn shown(route: &pb::Route) -> String {
    match route.r#match.as_ref().and_then(|matched| matched.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix)) => format!("prefix {prefix}"),
        Some(PathSpecifier::Path(path)) => format!("path {path}"),
        Some(_) => "a pattern".to_owned(),
        None => "nothing".to_owned(),
    }
}

fn route(at: At<'_>, host: &pb::VirtualHost, message: &pb::Route) -> Result<(String, RoutePolicy), DecodeError> {
    let wanted = "a route to one cluster is wanted";
    let action = match &message.action {
        Some(Action::Route(action)) => action,
        Some(_) => return Err(at.unsupported("virtual_hosts.routes.action", "no route", wanted)),
        None => return Err(at.missing("virtual_hosts.routes.action", wanted)),
    };
    let rewrites = !action.prefix_rewrite.is_empty()
        || action.regex_rewrite.is_some()
        || action.path_rewrite_policy.is_some()
        || action.host_rewrite_specifier.is_some();
    if rewrites {
        let field = "virtual_hosts.routes.route";
        return Err(at.unsupported(field, "a rewrite", "requests pass unchanged"));
    }
    let cluster = match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(cluster)) => cluster.clone(),
        Some(_) => return Err(at.unsupported("virtual_hosts.routes.route.cluster_specifier", "several", wanted)),
        None => return Err(at.missing("virtual_hosts.routes.route.cluster", wanted)),
    };
    let timeout = match &action.timeout {
        Some(timeout) => at.duration("virtual_hosts.routes.route.timeout", timeout)?,
        None => ENVOY_TIMEOUT,
    };
    let retry = action.retry_policy.as_ref().or(host.retry_policy.as_ref());
    let policy = RoutePolicy {
        timeout: (!timeout.is_zero()).then_some(timeout),
        retry_on: retry.map(retry_on).unwrap_or_default(),
        attempts: retry.map_or(0, |retry| retry.num_retries.as_ref().map_or(1, |count| count.value)),
        methods: RetryMethods::Any,
    };
    Ok((cluster, policy))
}

/// Words that we do not know are passed over, as Envoy and gRPC do with each other's: each of them only ever adds a case in
/// which a request is tried again.
fn retry_on(policy: &pb::RetryPolicy) -> BTreeSet<RetryOn> {
    let words = policy.retry_on.split(',').map(str::trim);
    words.filter_map(|word| RetryOn::ALL.into_iter().find(|on| on.as_str() == word)).collect()
}
