//! How the endpoints of a cluster are spoken to: `HttpProtocolOptions` among its extension options.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::HttpProtocolOptions as Common;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use mesh_core::model::policy::Upstream;
use mesh_core::model::protocol::UpstreamProtocol;

use super::{At, DecodeError};
use crate::encode::cluster::HTTP_OPTIONS;

const FIELD: &str = "typed_extension_protocol_options";

pub(super) struct HttpOptions {
    pub(super) protocol: UpstreamProtocol,
    /// Our own defaults where nothing is said.
    pub(super) upstream: Upstream,
}

impl HttpOptions {
    pub(super) fn of(at: At<'_>, message: &Cluster) -> Result<Self, DecodeError> {
        let Some(any) = message.typed_extension_protocol_options.get(HTTP_OPTIONS) else {
            return Ok(Self { protocol: UpstreamProtocol::Http1, upstream: Upstream::default() });
        };
        let options: HttpProtocolOptions =
            at.unpack(FIELD, any)?.ok_or_else(|| at.unsupported(FIELD, &any.type_url, WANTED))?;
        let protocol = protocol(at, options.upstream_protocol_options)?;
        let upstream = match &options.common_http_protocol_options {
            Some(common) => upstream(at, common)?,
            None => Upstream::default(),
        };
        Ok(Self { protocol, upstream })
    }
}

const WANTED: &str = "explicit HTTP/1.1, explicit HTTP/2 or use_downstream_protocol_config is wanted";

fn protocol(at: At<'_>, options: Option<UpstreamProtocolOptions>) -> Result<UpstreamProtocol, DecodeError> {
    match options {
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => Ok(UpstreamProtocol::AsDownstream),
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match explicit.protocol_config {
            None | Some(ProtocolConfig::HttpProtocolOptions(_)) => Ok(UpstreamProtocol::Http1),
            Some(ProtocolConfig::Http2ProtocolOptions(_)) => Ok(UpstreamProtocol::Http2),
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => Err(at.unsupported(FIELD, "HTTP/3", WANTED)),
        },
        // It is decided by ALPN, and without TLS there is none: Envoy speaks HTTP/1.1 then.
        Some(UpstreamProtocolOptions::AutoConfig(_)) | None => Ok(UpstreamProtocol::Http1),
    }
}

fn upstream(at: At<'_>, common: &Common) -> Result<Upstream, DecodeError> {
    let idle = common.idle_timeout.as_ref().map(|idle| at.duration("common_http_protocol_options.idle_timeout", idle));
    let defaults = Upstream::default();
    // The bounds are those that Envoy's own field rules state.
    let header_bytes_max = match common.max_response_headers_kb {
        Some(kib) if !(1..=8192).contains(&kib.value) => {
            let field = "common_http_protocol_options.max_response_headers_kb";
            return Err(at.invalid(field, kib.value, "1 to 8192 is wanted"));
        }
        Some(kib) => kib.value * 1024,
        None => defaults.header_bytes_max,
    };
    let header_count_max = match common.max_headers_count {
        Some(count) if count.value == 0 => {
            let field = "common_http_protocol_options.max_headers_count";
            return Err(at.invalid(field, count.value, "at least 1 is wanted"));
        }
        Some(count) => count.value,
        None => defaults.header_count_max,
    };
    Ok(Upstream {
        // 0 is "none" there; connections that wait for ever are not kept here.
        idle_timeout: idle.transpose()?.filter(|idle| !idle.is_zero()),
        header_bytes_max,
        header_count_max,
        ..defaults
    })
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::UInt32Value;

    use super::*;
    use crate::kind::Kind;

    #[test]
    fn limits_of_heads_are_within_envoys_bounds() {
        let at = At { kind: Kind::Cluster, resource: "web" };
        let number = |value: Option<u32>| value.map(|value| UInt32Value { value });
        let check = |kib, count, expected: Result<(u32, u32), &str>| {
            let common =
                Common { max_response_headers_kb: number(kib), max_headers_count: number(count), ..Common::default() };
            match (upstream(at, &common), expected) {
                (Ok(found), Ok(expected)) => assert_eq!((found.header_bytes_max, found.header_count_max), expected),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, expected) => panic!("{found:?} instead of {expected:?}"),
            }
        };
        let defaults = Upstream::default();
        check(None, None, Ok((defaults.header_bytes_max, defaults.header_count_max)));
        check(Some(8192), Some(1), Ok((8192 * 1024, 1)));
        check(Some(0), None, Err("max_response_headers_kb"));
        check(Some(8193), None, Err("1 to 8192"));
        check(None, Some(0), Err("max_headers_count"));
    }
}
