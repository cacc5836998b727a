//! One listener of the proxy's file: where connections come from, what they speak, and what they may take of us.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mesh_core::config::section::{Section, text_of};
use mesh_core::model::forwarded::{ForwardPolicy, ForwardedHeaders};
use mesh_core::model::protocol::ListenProtocol;
use mesh_core::model::resource::{
    Bind, ClientCertificate, Listener, ProxyProtocol, TlsCertificate, TlsServer, TlsVersion,
};

use super::file::Locate;
use super::limits;

pub(super) fn read(
    section: &Section<'_>,
    listen: Option<SocketAddr>,
    service: Option<&str>,
    locate: &Locate<'_>,
) -> Option<Listener> {
    let words = [("http", ListenProtocol::Http), ("tcp", ListenProtocol::Tcp), ("auto", ListenProtocol::Auto)];
    let protocol = section.word("protocol", &words).unwrap_or_default();
    let tls = read_tls(section, locate);
    let proxy_protocol = read_proxy_protocol(section);
    let detect_timeout = read_detect_timeout(section, protocol, tls.is_some());
    let forwarded_headers = read_forwarded_headers(section);
    let (limits, h2_limits) = limits::read(section);
    let (listen, service) = (listen?, service?);
    Some(Listener {
        name: listen.to_string().into(),
        bind: Bind::Address(listen),
        protocol,
        routes: (protocol != ListenProtocol::Tcp).then(|| service.into()),
        tcp_cluster: (protocol != ListenProtocol::Http).then(|| service.into()),
        tls,
        proxy_protocol,
        detect_timeout,
        forwarded_headers,
        limits,
        h2_limits,
    })
}

fn read_detect_timeout(section: &Section<'_>, protocol: ListenProtocol, has_tls: bool) -> Duration {
    let Some(timeout) = section.optional("detect_timeout") else { return Listener::DETECT_TIMEOUT };
    if protocol != ListenProtocol::Auto || has_tls {
        let wanted = "is of use only with `protocol: auto` and without tls, where the client's first bytes are awaited";
        section.problem("detect_timeout", wanted);
    }
    if timeout == Duration::ZERO {
        section.problem("detect_timeout", "more than 0s is wanted; `protocol: tcp` looks at no byte");
    }
    timeout
}

fn read_tls(listener: &Section<'_>, locate: &Locate<'_>) -> Option<TlsServer> {
    let section = listener.section("tls")?;
    let certificates = read_certificates(&section, locate);
    let client_certificate = read_client_certificate(&section, locate);
    let versions = [("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
    let min_version = section.word("min_version", &versions).unwrap_or_default();
    section.finish();
    Some(TlsServer { certificates: certificates?, client_certificate: client_certificate?, min_version })
}

/// One beside the other keys of `tls`, or a list.
fn read_certificates(section: &Section<'_>, locate: &Locate<'_>) -> Option<Vec<TlsCertificate>> {
    if section.raw("certificates").is_none() {
        return Some(vec![read_certificate(section, locate)?]);
    }
    for key in ["certificate", "key", "server_names"] {
        if section.raw(key).is_some() {
            section.problem(key, "stands beside certificates; one of them is wanted");
        }
    }
    let list = section.sections("certificates");
    if list.is_empty() {
        let wanted = "at least one is wanted, such as `[{ certificate: certificate.pem, key: key.pem }]`";
        section.problem("certificates", wanted);
    }
    let read = |one: Section<'_>| {
        let certificate = read_certificate(&one, locate);
        one.finish();
        certificate
    };
    // Every one is read before the first mistake counts.
    let read: Vec<Option<TlsCertificate>> = list.into_iter().map(read).collect();
    read.into_iter().collect()
}

fn read_certificate(section: &Section<'_>, locate: &Locate<'_>) -> Option<TlsCertificate> {
    let certificate = section.required("certificate").and_then(|path| located(section, "certificate", path, locate));
    let key = section.required("key").and_then(|path| located(section, "key", path, locate));
    let server_names = read_server_names(section);
    Some(TlsCertificate { certificate: certificate?, key: key?, server_names })
}

fn read_server_names(section: &Section<'_>) -> Vec<Arc<str>> {
    let names: Vec<String> = section.values("server_names").unwrap_or_default();
    let name = |(at, name): (usize, String)| {
        let name = name.to_ascii_lowercase();
        let host = name.strip_prefix("*.").unwrap_or(&name);
        let is_host = host.parse::<std::net::IpAddr>().is_err()
            && host.split('.').all(|label| {
                !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            });
        if !is_host {
            let path = section.path_of(&format!("server_names[{at}]"));
            let wanted =
                "a host name such as shop.example is wanted, or `*.` in front of one: addresses are never asked for";
            section.note(path, Some(&name.as_str().into()), wanted);
        }
        Arc::from(name)
    };
    names.into_iter().enumerate().map(name).collect()
}

#[derive(Clone, Copy)]
enum Asked {
    None,
    Optional,
    Required,
}

/// Whoever names authorities alone wants certificates of theirs.
fn read_client_certificate(section: &Section<'_>, locate: &Locate<'_>) -> Option<ClientCertificate> {
    let has_ca = section.raw("client_ca").is_some();
    let ca = section.optional("client_ca").and_then(|path| located(section, "client_ca", path, locate));
    let words = [("none", Asked::None), ("optional", Asked::Optional), ("required", Asked::Required)];
    let asked = section.word("client_certificate", &words);
    match asked.unwrap_or(if has_ca { Asked::Required } else { Asked::None }) {
        Asked::None if has_ca => {
            let wanted =
                "is of use only with `client_certificate: required`, which is the default beside it, or `optional`";
            section.problem("client_ca", wanted);
            None
        }
        Asked::None => Some(ClientCertificate::None),
        Asked::Optional | Asked::Required if !has_ca => {
            let wanted =
                "client_ca is missing beside it: the PEM file of the authorities that sign clients' certificates";
            section.problem("client_certificate", wanted);
            None
        }
        Asked::Optional => Some(ClientCertificate::Optional { ca: ca? }),
        Asked::Required => Some(ClientCertificate::Required { ca: ca? }),
    }
}

fn located(section: &Section<'_>, key: &str, path: PathBuf, locate: &Locate<'_>) -> Option<PathBuf> {
    let located = locate(&path);
    located.map_err(|why| section.problem(key, format!("{why}; the path of a PEM file is wanted"))).ok()
}

/// Without a word on whom to believe, whoever may connect could claim to be anybody.
fn read_proxy_protocol(listener: &Section<'_>) -> Option<ProxyProtocol> {
    const KEY: &str = "proxy_protocol";
    let missing = "the addresses or networks whose word is taken are missing, such as `{ trusted: [10.0.0.0/8] }`";
    match listener.raw(KEY)?.as_bool() {
        Some(true) => {
            listener.problem(KEY, missing);
            return None;
        }
        Some(false) => return None,
        None => {}
    }
    let section = listener.section(KEY)?;
    let trusted = read_networks(&section, "trusted");
    if section.list("trusted").is_empty() {
        listener.problem(KEY, missing);
    }
    section.finish();
    Some(ProxyProtocol { trusted })
}

fn read_networks(section: &Section<'_>, key: &str) -> Vec<IpNet> {
    let read = |(path, value): (String, &_)| {
        let network = text_of(value).as_deref().and_then(network);
        if network.is_none() {
            let wanted = "an address such as 10.0.0.5, or a network such as 10.0.0.0/8, is wanted";
            section.note(path, Some(value), wanted);
        }
        network
    };
    section.list(key).into_iter().filter_map(read).collect()
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.into()))
}

fn read_forwarded_headers(listener: &Section<'_>) -> ForwardedHeaders {
    use ForwardPolicy::{Append, Drop, Keep, Replace};
    let words = [("append", Append), ("keep", Keep), ("replace", Replace), ("drop", Drop)];
    let defaults = ForwardedHeaders::default();
    let Some(section) = listener.section("forwarded_headers") else { return defaults };
    let headers = ForwardedHeaders {
        trusted: read_networks(&section, "trusted"),
        x_forwarded: section.word("x_forwarded", &words).unwrap_or(defaults.x_forwarded),
        forwarded: section.word("forwarded", &words).unwrap_or(defaults.forwarded),
        via: section.word("via", &words).unwrap_or(defaults.via),
        via_name: read_via_name(&section).unwrap_or(defaults.via_name),
    };
    let is_written = matches!(headers.via, Append | Replace);
    if section.has("via_name") && !is_written {
        section.problem("via_name", "is of use only with `via: append` or `via: replace`");
    }
    section.finish();
    headers
}

fn read_via_name(section: &Section<'_>) -> Option<Arc<str>> {
    let name: String = section.optional("via_name")?;
    if !ForwardedHeaders::is_via_name(&name) {
        let wanted =
            "a name such as mesh or edge.example:8080 is wanted: letters, digits and few other signs, 64 at most";
        section.problem("via_name", wanted);
    }
    Some(name.into())
}
