//! Envoy: least request, retries, circuit breakers with a retry budget, outlier detection, timeouts; the router as its one filter.

use std::fmt::Write;

use super::{ClientSide, Site, UpstreamSide};

pub(super) fn file(site: &Site<'_>) -> String {
    let (address, port) = (site.listen.ip(), site.listen.port());
    let mut text = format!(
        "static_resources:
  listeners:
  - name: web
    address: {{ socket_address: {{ address: {address}, port_value: {port} }} }}
    filter_chains:
    - filters:
"
    );
    text.push_str(if site.shape.client == ClientSide::Tcp { TCP } else { HTTP });
    if site.shape.client == ClientSide::Mtls {
        text.push_str(&tls(site));
    }
    text.push_str(CLUSTER);
    if site.shape.upstream == UpstreamSide::Http2 {
        text.push_str(HTTP2);
    }
    text.push_str("    load_assignment:\n      cluster_name: web\n      endpoints:\n      - lb_endpoints:\n");
    for endpoint in site.endpoints {
        let (address, port) = (endpoint.ip(), endpoint.port());
        let _ = writeln!(
            text,
            "        - endpoint: {{ address: {{ socket_address: {{ address: {address}, port_value: {port} }} }} }}"
        );
    }
    text
}

fn tls(site: &Site<'_>) -> String {
    format!(
        "      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          disable_stateless_session_resumption: true
          disable_stateful_session_resumption: true
          common_tls_context:
            alpn_protocols: [http/1.1]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [P-256] }}
            tls_certificates:
            - certificate_chain: {{ filename: {certificate} }}
              private_key: {{ filename: {key} }}
            validation_context: {{ trusted_ca: {{ filename: {authority} }} }}
",
        certificate = site.files.certificate.display(),
        key = site.files.key.display(),
        authority = site.files.authority.display(),
    )
}

const HTTP: &str = "      \
- name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          codec_type: AUTO
          use_remote_address: true
          generate_request_id: true
          common_http_protocol_options: { idle_timeout: 600s }
          request_headers_timeout: 10s
          stream_idle_timeout: 60s
          route_config:
            name: web
            virtual_hosts:
            - name: web
              domains: [\"*\"]
              routes:
              - match: { prefix: / }
                route:
                  cluster: web
                  timeout: 15s
                  retry_policy:
                    retry_on: connect-failure,refused-stream,reset,gateway-error
                    num_retries: 2
                    retry_host_predicate:
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config:
                        \"@type\": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
";

const TCP: &str = "      \
- name: envoy.filters.network.tcp_proxy
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: web
          cluster: web
          idle_timeout: 600s
          max_connect_attempts: 3
";

const CLUSTER: &str = "  clusters:
  - name: web
    type: STATIC
    connect_timeout: 5s
    lb_policy: LEAST_REQUEST
    circuit_breakers:
      thresholds:
      - max_connections: 4096
        max_pending_requests: 4096
        max_requests: 4096
        retry_budget: { budget_percent: { value: 20 }, min_retry_concurrency: 10 }
    outlier_detection: { consecutive_5xx: 5, base_ejection_time: 30s, max_ejection_percent: 50 }
";

const HTTP2: &str = "    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
";
