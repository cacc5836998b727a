//! nginx: the less loaded of two, kept connections upstream, the next endpoint on errors, an endpoint left out after failures.

use std::fmt::Write;

use super::{ClientSide, Site};

pub(super) fn file(site: &Site<'_>) -> String {
    let mut text = format!(
        "daemon off;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
",
        workers = site.shape.workers,
        folder = site.folder.display(),
    );
    let mut endpoints = String::new();
    for endpoint in site.endpoints {
        let _ = writeln!(endpoints, "        server {endpoint} max_fails=5 fail_timeout=30s max_conns=4096;");
    }
    let several = if site.shape.workers > 1 { " reuseport" } else { "" };
    if site.shape.client == ClientSide::Tcp {
        let _ = write!(
            text,
            "stream {{
    access_log off;
    upstream web {{
        zone web 256k;
        random two least_conn;
{endpoints}    }}
    server {{
        listen {listen}{several};
        proxy_connect_timeout 5s;
        proxy_timeout 120s;
        proxy_next_upstream on;
        proxy_pass web;
    }}
}}
",
            listen = site.listen,
        );
        return module("stream") + &text;
    }
    let (way, tls) = match site.shape.client {
        ClientSide::Http2 => (" http2", String::new()),
        ClientSide::Mtls => (" ssl", tls(site)),
        ClientSide::Http1 | ClientSide::Tcp => ("", String::new()),
    };
    let _ = write!(
        text,
        "http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    upstream web {{
        zone web 256k;
        random two least_conn;
{endpoints}        keepalive 512;
        keepalive_requests 100000000;
    }}
    server {{
        listen {listen}{way}{several};
        keepalive_requests 100000000;
        keepalive_timeout 120s;
{tls}        location / {{
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_set_header X-Request-Id $request_id;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_connect_timeout 5s;
            proxy_read_timeout 15s;
            proxy_next_upstream error timeout http_502 http_503 http_504;
            proxy_next_upstream_tries 3;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
",
        folder = site.folder.display(),
        listen = site.listen,
    );
    text
}

fn tls(site: &Site<'_>) -> String {
    format!(
        "        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_client_certificate {authority};
        ssl_verify_client on;
        ssl_protocols TLSv1.3;
        ssl_ecdh_curve prime256v1;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
        ssl_session_cache off;
        ssl_session_tickets off;
",
        certificate = site.files.certificate.display(),
        key = site.files.key.display(),
        authority = site.files.authority.display(),
    )
}

/// Debian builds some modules as files of their own.
fn module(name: &str) -> String {
    let path = format!("/usr/lib/nginx/modules/ngx_{name}_module.so");
    if std::path::Path::new(&path).exists() { format!("load_module {path};\n") } else { String::new() }
}
