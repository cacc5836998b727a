//! One listener: LDS.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::config::listener::v3::filter;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol as ProxyProtocolFilter;
use envoy_types::pb::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier};
use envoy_types::pb::google::protobuf::{Any, UInt32Value};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_core::config::duration as go_duration;
use mesh_core::model::forwarded::{ForwardPolicy, ForwardedHeaders};
use mesh_core::model::limits::H2Limits;
use mesh_core::model::protocol::ListenProtocol;
use mesh_core::model::resource::{Bind, Limits, Listener, ProxyProtocol};
use prost::Name as _;

use super::{At, DecodeError};
use crate::encode::listener::{Extra, ExtraLimits, NO_LISTENER_CLUSTER};

const PROXY_PROTOCOL: &str = "envoy.filters.listener.proxy_protocol";

/// Listener filters that change nothing but what is known of a connection.
const KNOWN_LISTENER_FILTERS: [&str; 4] = [
    PROXY_PROTOCOL,
    "envoy.filters.listener.original_dst",
    "envoy.filters.listener.http_inspector",
    "envoy.filters.listener.tls_inspector",
];

/// What the filter chains lead to.
#[derive(Debug, Default)]
struct Destinations {
    routes: Option<Arc<str>>,
    tcp_cluster: Option<Arc<str>>,
    forwarded_headers: Option<ForwardedHeaders>,
    limits: Limits,
    h2_limits: H2Limits,
}

pub(crate) fn listener(at: At<'_>, value: &[u8]) -> Result<Listener, DecodeError> {
    let message: pb::Listener = at.message("listener", value)?;
    let mut to = Destinations::default();
    let bind = if let Some(api) = &message.api_listener {
        let any = api.api_listener.as_ref().ok_or_else(|| at.missing("api_listener.api_listener", "HCM is wanted"))?;
        network_filter(at, "api_listener.api_listener", any, &mut to)?;
        Bind::Api
    } else {
        refuse_what_is_not_done(at, &message)?;
        chains(at, &message, &mut to)?;
        bind(at, &message)?
    };
    if to.tcp_cluster.as_deref() == Some(NO_LISTENER_CLUSTER) {
        to.tcp_cluster = None;
    } else if to.routes.is_none() && to.tcp_cluster.is_none() {
        return Err(at.missing("filter_chains", "a chain with HCM or tcp_proxy is wanted"));
    }
    let extra: Option<Extra> = at.extra("metadata", message.metadata.as_ref())?;
    let trusted = extra.as_ref().and_then(|extra| extra.proxy_protocol_trusted.clone());
    let proxy_protocol = proxy_protocol(at, &message, trusted)?;
    let detect_timeout = match extra.as_ref().and_then(|extra| extra.detect_timeout.as_deref()) {
        Some(text) => extra_duration(at, "detect_timeout", text)?,
        None => detect_timeout(at, &message)?,
    };
    let told = to.forwarded_headers.take();
    let forwarded_headers = match extra.as_ref().and_then(|extra| extra.forwarded_headers.clone()).or(told) {
        Some(told) if ForwardedHeaders::is_via_name(&told.via_name) => told,
        Some(told) => return Err(at.invalid("via", &told.via_name, "a name such as mesh is wanted")),
        None if matches!(bind, Bind::Captured(_) | Bind::OriginalDestination(_)) => ForwardedHeaders::captured(),
        None => ForwardedHeaders::default(),
    };
    let (protocol, limits) = match &extra {
        Some(extra) => (extra.protocol, exact_limits(at, &extra.limits)?),
        None => (protocol_of(&to), to.limits),
    };
    let h2_exactly = extra.and_then(|extra| extra.limits.h2);
    let (name, Destinations { routes, tcp_cluster, h2_limits, .. }) = (message.name.into(), to);
    let h2_limits = h2_exactly.unwrap_or(h2_limits);
    let tls = None;
    Ok(Listener {
        name,
        bind,
        protocol,
        routes,
        tcp_cluster,
        tls,
        proxy_protocol,
        detect_timeout,
        forwarded_headers,
        limits,
        h2_limits,
    })
}

/// Zero lets Envoy wait for ever; a server that speaks first would never be heard, so ours stays.
fn detect_timeout(at: At<'_>, message: &pb::Listener) -> Result<Duration, DecodeError> {
    let told = message.listener_filters_timeout.as_ref().map(|told| at.duration("listener_filters_timeout", told));
    Ok(told.transpose()?.filter(|told| !told.is_zero()).unwrap_or(Listener::DETECT_TIMEOUT))
}

/// Envoy believes whoever connects; so does who is told nothing else.
fn proxy_protocol(
    at: At<'_>,
    message: &pb::Listener,
    trusted: Option<Vec<IpNet>>,
) -> Result<Option<ProxyProtocol>, DecodeError> {
    let Some(filter) = message.listener_filters.iter().find(|one| one.name == PROXY_PROTOCOL) else { return Ok(None) };
    let field = "listener_filters.proxy_protocol";
    if let Some(pb::listener_filter::ConfigType::TypedConfig(any)) = &filter.config_type
        && let Some(config) = at.unpack::<ProxyProtocolFilter>(field, any)?
    {
        if config.allow_requests_without_proxy_protocol {
            return Err(at.unsupported(field, "allow_requests_without_proxy_protocol", "false is wanted"));
        }
        if !config.disallowed_versions.is_empty() {
            return Err(at.unsupported(field, "disallowed_versions", "both versions are taken"));
        }
    }
    let everybody = || vec![IpNet::from(Ipv4Net::default()), IpNet::from(Ipv6Net::default())];
    Ok(Some(ProxyProtocol { trusted: trusted.filter(|networks| !networks.is_empty()).unwrap_or_else(everybody) }))
}

fn protocol_of(to: &Destinations) -> ListenProtocol {
    match (&to.routes, &to.tcp_cluster) {
        (Some(_), None) => ListenProtocol::Http,
        (None, Some(_)) => ListenProtocol::Tcp,
        (Some(_), Some(_)) | (None, None) => ListenProtocol::Auto,
    }
}

fn exact_limits(at: At<'_>, extra: &ExtraLimits) -> Result<Limits, DecodeError> {
    let defaults = Limits::default();
    let duration = |field: &str, text: &str| extra_duration(at, &format!("limits.{field}"), text);
    let optional =
        |field: &str, text: &Option<String>, default| text.as_deref().map_or(Ok(default), |text| duration(field, text));
    Ok(Limits {
        connections_max: extra.connections_max.unwrap_or(defaults.connections_max),
        handshake_timeout: optional("handshake_timeout", &extra.handshake_timeout, defaults.handshake_timeout)?,
        header_timeout: duration("header_timeout", &extra.header_timeout)?,
        body_idle_timeout: duration("body_idle_timeout", &extra.body_idle_timeout)?,
        idle_timeout: duration("idle_timeout", &extra.idle_timeout)?,
        header_bytes_max: extra.header_bytes_max,
        header_count_max: extra.header_count_max.unwrap_or(defaults.header_count_max),
        unread_body_bytes_max: extra.unread_body_bytes_max.unwrap_or(defaults.unread_body_bytes_max),
        linger_timeout: optional("linger_timeout", &extra.linger_timeout, defaults.linger_timeout)?,
        half_closed_timeout: optional("half_closed_timeout", &extra.half_closed_timeout, defaults.half_closed_timeout)?,
    })
}

fn extra_duration(at: At<'_>, field: &str, text: &str) -> Result<Duration, DecodeError> {
    let field = format!("metadata.filter_metadata.mesh.{field}");
    go_duration::parse(text).map_err(|_| at.invalid(&field, text, "a duration such as 5s is wanted"))
}

fn bind(at: At<'_>, message: &pb::Listener) -> Result<Bind, DecodeError> {
    let address = at.socket("address", message.address.as_ref())?;
    let is_true = |flag: Option<&envoy_types::pb::google::protobuf::BoolValue>| flag.is_some_and(|flag| flag.value);
    if is_true(message.use_original_dst.as_ref()) {
        return Ok(Bind::OriginalDestination(address));
    }
    let captured = message.bind_to_port.as_ref().is_some_and(|flag| !flag.value);
    Ok(if captured { Bind::Captured(address) } else { Bind::Address(address) })
}

fn refuse_what_is_not_done(at: At<'_>, message: &pb::Listener) -> Result<(), DecodeError> {
    if !message.additional_addresses.is_empty() {
        return Err(at.unsupported("additional_addresses", "set", "one address per listener is wanted"));
    }
    if message.udp_listener_config.is_some() {
        return Err(at.unsupported("udp_listener_config", "set", "a TCP listener is wanted"));
    }
    if message.filter_chain_matcher.is_some() {
        return Err(at.unsupported("filter_chain_matcher", "set", "filter_chains alone are wanted"));
    }
    let unknown = message.listener_filters.iter().find(|one| !KNOWN_LISTENER_FILTERS.contains(&one.name.as_str()));
    match unknown {
        Some(filter) => Err(at.unsupported("listener_filters", &filter.name, "original_dst or inspectors are wanted")),
        None => Ok(()),
    }
}

/// At most one chain for HTTP and one for bytes; nothing but the protocol may tell them apart.
fn chains(at: At<'_>, message: &pb::Listener, to: &mut Destinations) -> Result<(), DecodeError> {
    for chain in message.filter_chains.iter().chain(&message.default_filter_chain) {
        if chain.transport_socket.is_some() {
            return Err(at.unsupported("filter_chains.transport_socket", "TLS", "a listener in plain text is wanted"));
        }
        if let Some(matched) = &chain.filter_chain_match {
            let application_protocols = matched.application_protocols.clone();
            let alone = pb::FilterChainMatch { application_protocols, ..pb::FilterChainMatch::default() };
            if *matched != alone {
                let wanted = "a match on application_protocols alone is wanted";
                return Err(at.unsupported("filter_chains.filter_chain_match", "more", wanted));
            }
        }
        if let Some(timeout) = &chain.transport_socket_connect_timeout {
            let timeout = at.duration("filter_chains.transport_socket_connect_timeout", timeout)?;
            if !timeout.is_zero() {
                to.limits.handshake_timeout = timeout;
            }
        }
        let only = match &chain.filters[..] {
            [only] => only,
            [first, only] if connection_limit(at, first, &mut to.limits)? => only,
            more => {
                let wanted = "one network filter is wanted: HCM or tcp_proxy, after connection_limit at most";
                return Err(at.unsupported("filter_chains.filters", more.len(), wanted));
            }
        };
        match &only.config_type {
            Some(filter::ConfigType::TypedConfig(any)) => network_filter(at, "filter_chains.filters", any, to)?,
            Some(filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(at.unsupported(
                    "filter_chains.filters.config_discovery",
                    &only.name,
                    "typed_config is wanted",
                ));
            }
            None => return Err(at.missing("filter_chains.filters.typed_config", "HCM or tcp_proxy is wanted")),
        }
    }
    Ok(())
}

/// Whether it bounds connections; the limit is noted.
fn connection_limit(at: At<'_>, filter: &pb::Filter, limits: &mut Limits) -> Result<bool, DecodeError> {
    let field = "filter_chains.filters.connection_limit";
    let Some(filter::ConfigType::TypedConfig(any)) = &filter.config_type else { return Ok(false) };
    let Some(limit) = at.unpack::<ConnectionLimit>(field, any)? else { return Ok(false) };
    if let Some(max) = &limit.max_connections {
        limits.connections_max = u32::try_from(max.value).unwrap_or(u32::MAX);
    }
    Ok(true)
}

fn network_filter(at: At<'_>, field: &str, any: &Any, to: &mut Destinations) -> Result<(), DecodeError> {
    let twice = |what: &str| at.unsupported(field, what, "one chain for HTTP and one for bytes at most are wanted");
    if let Some(manager) = at.unpack::<hcm::HttpConnectionManager>(field, any)? {
        if to.routes.is_some() {
            return Err(twice("a second HCM"));
        }
        to.routes = Some(routes(at, field, &manager)?);
        to.forwarded_headers = forwarded_headers(&manager);
        limits(at, &manager, &mut to.limits)?;
        h2_limits(at, &manager, &mut to.h2_limits)?;
        Ok(())
    } else if let Some(proxy) = at.unpack::<TcpProxy>(field, any)? {
        if to.tcp_cluster.is_some() {
            return Err(twice("a second tcp_proxy"));
        }
        match proxy.cluster_specifier {
            Some(ClusterSpecifier::Cluster(cluster)) => to.tcp_cluster = Some(cluster.into()),
            _ => return Err(at.unsupported(field, "weighted or no clusters", "one cluster is wanted")),
        }
        Ok(())
    } else {
        Err(at.unsupported(field, &any.type_url, "HCM or tcp_proxy is wanted"))
    }
}

fn routes(at: At<'_>, field: &str, manager: &hcm::HttpConnectionManager) -> Result<Arc<str>, DecodeError> {
    for http_filter in &manager.http_filters {
        let router = match &http_filter.config_type {
            Some(hcm::http_filter::ConfigType::TypedConfig(any)) => any.type_url == Router::type_url(),
            _ => false,
        };
        if !router && !http_filter.is_optional && !http_filter.disabled {
            return Err(at.unsupported("http_filters", &http_filter.name, "the router alone is wanted"));
        }
    }
    match &manager.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => {
            at.over_ads("rds.config_source", rds.config_source.as_ref())?;
            Ok(rds.route_config_name.as_str().into())
        }
        Some(RouteSpecifier::RouteConfig(_)) => Err(at.unsupported("route_config", "inline", "`rds` is wanted")),
        Some(RouteSpecifier::ScopedRoutes(_)) => Err(at.unsupported("scoped_routes", "set", "`rds` is wanted")),
        None => Err(at.missing(field, "`rds` is wanted")),
    }
}

/// A listener with `use_remote_address: false` is for callers who are believed. Where it is not said, Envoy believes everybody; ours
/// nobody. None: nothing is said of any of it.
fn forwarded_headers(manager: &hcm::HttpConnectionManager) -> Option<ForwardedHeaders> {
    let hcm::HttpConnectionManager { use_remote_address, xff_num_trusted_hops, skip_xff_append, via, .. } = manager;
    if use_remote_address.is_none() && *xff_num_trusted_hops == 0 && !skip_xff_append && via.is_empty() {
        return None;
    }
    let uses_remote = use_remote_address.is_none_or(|flag| flag.value);
    let mut headers = match (uses_remote, xff_num_trusted_hops) {
        (true, 0) => ForwardedHeaders::default(),
        // Whoever reaches such a listener is the last of these hops.
        (true, _) => ForwardedHeaders { x_forwarded: ForwardPolicy::Append, ..ForwardedHeaders::captured() },
        (false, _) => ForwardedHeaders::captured(),
    };
    if *skip_xff_append {
        headers.x_forwarded = ForwardPolicy::Keep;
    }
    // Envoy writes it as it stands, so that some put a version in front of the name.
    if let Some(name) = via.split_ascii_whitespace().next_back() {
        (headers.via, headers.via_name) = (ForwardPolicy::Append, name.into());
    }
    Some(headers)
}

fn limits(at: At<'_>, manager: &hcm::HttpConnectionManager, limits: &mut Limits) -> Result<(), DecodeError> {
    let set = |limit: &mut Duration, field: &str, value: Option<&_>| {
        if let Some(value) = value {
            let value = at.duration(field, value)?;
            // Zero turns a limit off in xDS; ours are always on, so the default stays.
            if !value.is_zero() {
                *limit = value;
            }
        }
        Ok::<(), DecodeError>(())
    };
    set(&mut limits.header_timeout, "request_headers_timeout", manager.request_headers_timeout.as_ref())?;
    set(&mut limits.body_idle_timeout, "stream_idle_timeout", manager.stream_idle_timeout.as_ref())?;
    let common = manager.common_http_protocol_options.as_ref();
    let idle = common.and_then(|common| common.idle_timeout.as_ref());
    set(&mut limits.idle_timeout, "common_http_protocol_options.idle_timeout", idle)?;
    if let Some(kb) = &manager.max_request_headers_kb {
        limits.header_bytes_max = kb.value as usize * 1024;
    }
    if let Some(count) = common.and_then(|common| common.max_headers_count.as_ref()) {
        limits.header_count_max = count.value;
    }
    Ok(())
}

/// What Envoy has a word for.
fn h2_limits(at: At<'_>, manager: &hcm::HttpConnectionManager, limits: &mut H2Limits) -> Result<(), DecodeError> {
    let Some(options) = &manager.http2_protocol_options else { return Ok(()) };
    let set = |limit: &mut u32, value: Option<&UInt32Value>| *limit = value.map_or(*limit, |value| value.value);
    set(&mut limits.streams_max, options.max_concurrent_streams.as_ref());
    set(&mut limits.stream_window_bytes_max, options.initial_stream_window_size.as_ref());
    set(&mut limits.connection_window_bytes, options.initial_connection_window_size.as_ref());
    if let Some(keepalive) = &options.connection_keepalive {
        let field = "http2_protocol_options.connection_keepalive";
        let time = |value: Option<&_>| value.map(|value| at.duration(field, value)).transpose();
        limits.keepalive_interval = time(keepalive.interval.as_ref())?.filter(|interval| !interval.is_zero());
        limits.keepalive_timeout = time(keepalive.timeout.as_ref())?.unwrap_or(limits.keepalive_timeout);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::BoolValue;

    use super::*;

    #[test]
    fn who_is_believed_is_what_envoy_is_told() {
        let check = |remote: Option<bool>, hops, skip, via: &str, expected: Option<ForwardedHeaders>| {
            let manager = hcm::HttpConnectionManager {
                use_remote_address: remote.map(|value| BoolValue { value }),
                xff_num_trusted_hops: hops,
                skip_xff_append: skip,
                via: via.to_owned(),
                ..hcm::HttpConnectionManager::default()
            };
            assert_eq!(forwarded_headers(&manager), expected, "{remote:?} {hops} {skip} {via}");
        };
        let (nobody, everybody) = (ForwardedHeaders::default(), ForwardedHeaders::captured());
        let appended = |to: &ForwardedHeaders| ForwardedHeaders { x_forwarded: ForwardPolicy::Append, ..to.clone() };
        check(None, 0, false, "", None);
        check(Some(true), 0, false, "", Some(nobody.clone()));
        check(Some(true), 1, false, "", Some(appended(&everybody)));
        check(Some(true), 1, true, "", Some(everybody.clone()));
        check(Some(false), 0, false, "", Some(everybody.clone()));
        check(Some(false), 2, false, "", Some(everybody));
        for via in ["edge", "1.1 edge"] {
            let named = ForwardedHeaders { via: ForwardPolicy::Append, via_name: "edge".into(), ..nobody.clone() };
            check(None, 0, false, via, Some(named));
        }
    }
}
