//! HAProxy: the less loaded of two, connections reused always, retries on connection failures and 5xx, errors observed on live traffic.

use std::fmt::Write;

use super::{ClientSide, Site, UpstreamSide};

pub(super) fn file(site: &Site<'_>) -> String {
    let http = site.shape.client != ClientSide::Tcp;
    let mut text = format!(
        "global
    nbthread {workers}
    maxconn 8192
    ssl-default-bind-curves P-256
    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    # Nothing is resumed, so nothing is remembered.
    tune.ssl.cachesize 0

defaults
    mode {mode}
    timeout connect 5s
    timeout client 120s
    timeout server 15s
    timeout http-keep-alive 120s
    timeout queue 5s
    retries 2
    option redispatch 1
",
        workers = site.shape.workers,
        mode = if http { "http" } else { "tcp" },
    );
    if http {
        text.push_str(
            "    retry-on conn-failure empty-response 502 503 504
    http-reuse always
    option forwardfor
    unique-id-format %{+X}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
    unique-id-header X-Request-Id
",
        );
    }
    let tls = match site.shape.client {
        ClientSide::Mtls => {
            let (both, authority) = (site.files.both.display(), site.files.authority.display());
            format!(" ssl crt {both} ca-file {authority} verify required alpn http/1.1")
        }
        ClientSide::Http2 => " proto h2".to_owned(),
        ClientSide::Http1 | ClientSide::Tcp => String::new(),
    };
    let _ = writeln!(text, "\nfrontend web\n    bind {}{tls}\n    default_backend web\n", site.listen);
    text.push_str("backend web\n    balance random(2)\n");
    if site.shape.upstream == UpstreamSide::Http2 {
        // A check has to speak h2, too.
        text.push_str("    option httpchk\n    http-check send meth GET uri /\n");
    }
    let observe = if http { "layer7" } else { "layer4" };
    let _ = writeln!(
        text,
        "    default-server check inter 10s observe {observe} error-limit 5 on-error mark-down maxconn 4096 pool-max-conn 1024"
    );
    let proto = if site.shape.upstream == UpstreamSide::Http2 { " proto h2 check-proto h2" } else { "" };
    for (index, endpoint) in site.endpoints.iter().enumerate() {
        let _ = writeln!(text, "    server web{index} {endpoint}{proto}");
    }
    text
}
