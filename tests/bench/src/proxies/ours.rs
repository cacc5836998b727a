//! Weft with everything on that a request can pass through.

use std::fmt::Write;

use super::{ClientSide, Site, UpstreamSide};

pub(super) fn file(site: &Site<'_>) -> String {
    let protocol = if site.shape.client == ClientSide::Tcp { "tcp" } else { "http" };
    let mut text = format!(
        "workers: {workers}\nadmin: {{ listen: \"{admin}\" }}\naccess_log: false\nlisteners:\n  - listen: {listen}\n    \
         protocol: {protocol}\n    service: web\n",
        workers = site.shape.workers,
        admin = site.admin,
        listen = site.listen,
    );
    if site.shape.client == ClientSide::Mtls {
        let files = site.files;
        let (certificate, key, authority) =
            (files.certificate.display(), files.key.display(), files.authority.display());
        let _ = write!(
            text,
            "    tls:\n      certificate: {certificate}\n      key: {key}\n      client_certificate: required\n      client_ca: {authority}\n"
        );
    }
    text.push_str("services:\n  web:\n    lb: least_request\n");
    text.push_str(match site.shape.upstream {
        UpstreamSide::Http1 => "    protocol: http1\n",
        UpstreamSide::Http2 => "    protocol: http2\n",
    });
    text.push_str(
        "    timeout: 15s
    retry: { on: [connect-failure, refused-stream, reset, gateway-error], attempts: 2, budget: 20%, methods: idempotent }
    circuit: { max_connections: 4096, max_pending: 4096, max_requests: 4096 }
    outlier: { consecutive_5xx: 5, base_ejection_time: 30s, max_ejection_percent: 50% }
    endpoints:\n",
    );
    for endpoint in site.endpoints {
        let _ = writeln!(text, "      - {{ address: \"{endpoint}\" }}");
    }
    text
}
