//! One listener: LDS.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{Http2ProtocolOptions, HttpProtocolOptions, KeepaliveSettings};
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::config::listener::v3::{filter, listener_filter};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol as ProxyProtocolFilter;
use envoy_types::pb::envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier, ServerHeaderTransformation, UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier};
use envoy_types::pb::google::protobuf::{BoolValue, UInt64Value};
use ipnet::IpNet;
use mesh_core::config::duration as go_duration;
use mesh_core::model::forwarded::{ForwardPolicy, ForwardedHeaders};
use mesh_core::model::limits::H2Limits;
use mesh_core::model::protocol::ListenProtocol;
use mesh_core::model::resource::{Bind, Limits, Listener};
use prost::{Message, Name};
use serde::{Deserialize, Serialize};

use super::{EncodeError, duration, number, over_ads, pack, socket};
use crate::kind::Kind;
use crate::metadata;
use crate::packed::{Packed, version_of};

/// Where an original-destination listener's connections go when nobody listens at their destination. No cluster is called
/// that, so they are closed; our own proxy decides by itself.
pub(crate) const NO_LISTENER_CLUSTER: &str = "no-listener-at-destination";

/// The network filter that bounds connections.
const CONNECTION_LIMIT: &str = "envoy.filters.network.connection_limit";

/// What Envoy takes as a window, or as a number of streams.
const WINDOWS: (u32, u32) = (65_535, (1 << 31) - 1);

/// Envoy's highest `max_request_headers_kb`.
const HEADERS_KB_MAX: usize = 8192;

/// What a listener carries for us.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Extra {
    pub protocol: ListenProtocol,
    /// Whom the PROXY protocol is believed; Envoy believes everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol_trusted: Option<Vec<IpNet>>,
    /// As exact as the wire's own; told here too since a listener for one protocol has no such field on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detect_timeout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forwarded_headers: Option<ForwardedHeaders>,
    pub limits: ExtraLimits,
}

/// [`Limits`], durations as people write them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExtraLimits {
    // What an older control plane does not tell keeps its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_timeout: Option<String>,
    pub header_timeout: String,
    pub body_idle_timeout: String,
    pub idle_timeout: String,
    pub header_bytes_max: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_count_max: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread_body_bytes_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linger_timeout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_closed_timeout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub h2: Option<H2Limits>,
}

/// Encodes one listener.
///
/// # Errors
/// [`EncodeError::ListenerWithTls`]: only a proxy's own file has such listeners. [`EncodeError::ListenerToNowhere`].
pub fn listener(listener: &Listener) -> Result<Packed, EncodeError> {
    if listener.tls.is_some() {
        return Err(EncodeError::ListenerWithTls { listener: listener.name.clone() });
    }
    let mut message = pb::Listener {
        name: listener.name.to_string(),
        metadata: Some(metadata::carrying(&extra(listener))),
        ..pb::Listener::default()
    };
    if listener.proxy_protocol.is_some() {
        let filter = listener_filter("envoy.filters.listener.proxy_protocol", &ProxyProtocolFilter::default());
        message.listener_filters.push(filter);
    }
    match listener.bind {
        Bind::Api => {
            let manager = connection_manager(listener).ok_or_else(|| to_nowhere(listener))?;
            message.api_listener = Some(pb::ApiListener { api_listener: Some(pack(&manager)) });
        }
        Bind::Address(address) => {
            message.address = Some(socket(address));
            set_chains(&mut message, listener)?;
        }
        Bind::Captured(address) => {
            message.address = Some(socket(address));
            message.bind_to_port = Some(BoolValue { value: false });
            set_chains(&mut message, listener)?;
        }
        Bind::OriginalDestination(address) => {
            message.address = Some(socket(address));
            message.use_original_dst = Some(BoolValue { value: true });
            let original = listener_filter("envoy.filters.listener.original_dst", &OriginalDst::default());
            message.listener_filters.insert(0, original);
            if listener.routes.is_none() && listener.tcp_cluster.is_none() {
                message.filter_chains = vec![chain(listener, tcp_proxy(&listener.name, NO_LISTENER_CLUSTER))];
            } else {
                set_chains(&mut message, listener)?;
            }
        }
    }
    Ok(Packed { name: listener.name.clone(), version: version_of(Kind::Listener, listener), body: pack(&message) })
}

fn to_nowhere(listener: &Listener) -> EncodeError {
    EncodeError::ListenerToNowhere { listener: listener.name.clone() }
}

/// With both a table and a cluster, the first bytes decide, within the time for it.
fn set_chains(message: &mut pb::Listener, listener: &Listener) -> Result<(), EncodeError> {
    let http =
        connection_manager(listener).map(|m| network_filter("envoy.filters.network.http_connection_manager", &m));
    let tcp = listener.tcp_cluster.as_ref().map(|cluster| tcp_proxy(&listener.name, cluster));
    match (http, tcp) {
        (None, None) => return Err(to_nowhere(listener)),
        (Some(only), None) | (None, Some(only)) => message.filter_chains = vec![chain(listener, only)],
        (Some(http), Some(tcp)) => {
            let protocols = ["http/1.0", "http/1.1", "h2c"].map(str::to_owned).to_vec();
            let matched = pb::FilterChainMatch { application_protocols: protocols, ..pb::FilterChainMatch::default() };
            message.filter_chains =
                vec![pb::FilterChain { filter_chain_match: Some(matched), ..chain(listener, http) }];
            message.default_filter_chain = Some(chain(listener, tcp));
            let inspector = listener_filter("envoy.filters.listener.http_inspector", &HttpInspector::default());
            message.listener_filters.push(inspector);
            message.listener_filters_timeout = Some(duration(listener.detect_timeout));
            message.continue_on_listener_filters_timeout = true;
        }
    }
    Ok(())
}

fn chain(listener: &Listener, filter: pb::Filter) -> pb::FilterChain {
    let Limits { connections_max, handshake_timeout, .. } = listener.limits;
    let mut filters = vec![filter];
    if connections_max != Limits::default().connections_max {
        // Envoy's counts a chain's connections where ours counts the listener's.
        let limit = ConnectionLimit {
            stat_prefix: listener.name.to_string(),
            max_connections: Some(UInt64Value { value: connections_max.into() }),
            ..ConnectionLimit::default()
        };
        filters.insert(0, network_filter(CONNECTION_LIMIT, &limit));
    }
    let transport_socket_connect_timeout = Some(duration(handshake_timeout));
    pb::FilterChain { filters, transport_socket_connect_timeout, ..pb::FilterChain::default() }
}

fn network_filter<M: Message + Name>(name: &str, config: &M) -> pb::Filter {
    pb::Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(pack(config))) }
}

fn listener_filter<M: Message + Name>(name: &str, config: &M) -> pb::ListenerFilter {
    pb::ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack(config))),
        ..pb::ListenerFilter::default()
    }
}

fn tcp_proxy(stat_prefix: &str, cluster: &str) -> pb::Filter {
    let config = TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..TcpProxy::default()
    };
    network_filter("envoy.filters.network.tcp_proxy", &config)
}

fn connection_manager(listener: &Listener) -> Option<hcm::HttpConnectionManager> {
    let routes = listener.routes.as_ref()?;
    let router = hcm::HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(pack(&Router::default()))),
        ..hcm::HttpFilter::default()
    };
    let (limits, forwarded) = (listener.limits, &listener.forwarded_headers);
    // Envoy appends, or leaves it all as it came; gRPC clients want to hear nothing of it.
    let appends = matches!(forwarded.x_forwarded, ForwardPolicy::Append | ForwardPolicy::Replace);
    let use_remote_address = (listener.bind != Bind::Api).then_some(BoolValue { value: appends });
    let via = if forwarded.via == ForwardPolicy::Append { forwarded.via_name.to_string() } else { String::new() };
    Some(hcm::HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: listener.name.to_string(),
        route_specifier: Some(RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(over_ads()),
            route_config_name: routes.to_string(),
        })),
        http_filters: vec![router],
        use_remote_address,
        via,
        // The answer's own `server` header stays.
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }],
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: Some(duration(limits.idle_timeout)),
            max_headers_count: Some(number(limits.header_count_max)),
            ..HttpProtocolOptions::default()
        }),
        http2_protocol_options: http2_options(&listener.h2_limits),
        request_headers_timeout: Some(duration(limits.header_timeout)),
        // Envoy's would also end a silent WebSocket and a slow answer; ours is about bodies only, and carried beside.
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        max_request_headers_kb: Some(number(headers_kb(limits.header_bytes_max))),
        ..hcm::HttpConnectionManager::default()
    })
}

/// What Envoy has a word for, where it is not the default: Envoy's own are for an Envoy.
fn http2_options(limits: &H2Limits) -> Option<Http2ProtocolOptions> {
    let defaults = H2Limits::default();
    let H2Limits { streams_max, stream_window_bytes_max, connection_window_bytes, keepalive_interval, .. } = limits;
    let window = |bytes: u32, default: u32| (bytes != default).then(|| number(bytes.clamp(WINDOWS.0, WINDOWS.1)));
    let interval = keepalive_interval.filter(|_| limits.keepalive_interval != defaults.keepalive_interval);
    let options = Http2ProtocolOptions {
        max_concurrent_streams: (*streams_max != defaults.streams_max)
            .then(|| number((*streams_max).clamp(1, WINDOWS.1))),
        initial_stream_window_size: window(*stream_window_bytes_max, defaults.stream_window_bytes_max),
        initial_connection_window_size: window(*connection_window_bytes, defaults.connection_window_bytes),
        connection_keepalive: interval.map(|interval| KeepaliveSettings {
            interval: Some(duration(interval.max(Duration::from_millis(1)))),
            timeout: Some(duration(limits.keepalive_timeout.max(Duration::from_millis(1)))),
            ..KeepaliveSettings::default()
        }),
        ..Http2ProtocolOptions::default()
    };
    (options != Http2ProtocolOptions::default()).then_some(options)
}

fn headers_kb(bytes: usize) -> u32 {
    bytes.div_ceil(1024).clamp(1, HEADERS_KB_MAX).try_into().unwrap_or(u32::MAX)
}

fn extra(listener: &Listener) -> Extra {
    let Limits {
        connections_max,
        handshake_timeout,
        header_timeout,
        body_idle_timeout,
        idle_timeout,
        header_bytes_max,
        header_count_max,
        unread_body_bytes_max,
        linger_timeout,
        half_closed_timeout,
    } = listener.limits;
    Extra {
        protocol: listener.protocol,
        proxy_protocol_trusted: listener.proxy_protocol.as_ref().map(|proxied| proxied.trusted.clone()),
        detect_timeout: Some(go_duration::format(listener.detect_timeout)),
        forwarded_headers: Some(listener.forwarded_headers.clone()),
        limits: ExtraLimits {
            connections_max: Some(connections_max),
            handshake_timeout: Some(go_duration::format(handshake_timeout)),
            header_timeout: go_duration::format(header_timeout),
            body_idle_timeout: go_duration::format(body_idle_timeout),
            idle_timeout: go_duration::format(idle_timeout),
            header_bytes_max,
            header_count_max: Some(header_count_max),
            unread_body_bytes_max: Some(unread_body_bytes_max),
            linger_timeout: Some(go_duration::format(linger_timeout)),
            half_closed_timeout: Some(go_duration::format(half_closed_timeout)),
            h2: Some(listener.h2_limits.clone()),
        },
    }
}
