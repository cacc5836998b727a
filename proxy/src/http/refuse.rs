//! A refusal, as a response: status, `Proxy-Status` (RFC 9209) with the reason code, and a short text for people.

use bytes::Bytes;
use http::{StatusCode, Version};

use super::date;
use crate::error::{ProxyError, chain};
use crate::message::ResponseHead;
use crate::message::fields::Fields;
use crate::message::name::Name;

/// What the client is told. A gRPC client gets it as gRPC tells things: 200 and `grpc-status` UNAVAILABLE.
#[must_use]
pub fn response(error: &ProxyError, grpc: bool) -> (ResponseHead, Bytes) {
    let mut fields = Fields::with_capacity(256, 4);
    date::ensure(&mut fields);
    fields.add(Name::ProxyStatus, proxy_status(error).as_bytes());
    if grpc {
        fields.add(Name::ContentType, b"application/grpc");
        fields.add(Name::GrpcStatus, grpc_status(error.status()).as_bytes());
        fields.add(Name::GrpcMessage, percent_encoded(&chain(error)).as_bytes());
        return (ResponseHead::new(StatusCode::OK, Version::HTTP_11, fields), Bytes::new());
    }
    let text = Bytes::from(format!("{} {}: {}\n", error.reason().flag(), error.reason().words(), chain(error)));
    fields.add(Name::ContentType, b"text/plain; charset=utf-8");
    fields.add(Name::ContentLength, text.len().to_string().as_bytes());
    (ResponseHead::new(error.status(), Version::HTTP_11, fields), text)
}

/// `mesh; error=destination_unavailable; details="NR no_route_found"`.
#[must_use]
pub fn proxy_status(error: &ProxyError) -> String {
    let reason = error.reason();
    format!("mesh; error={}; details=\"{} {}\"", reason.proxy_status(), reason.flag(), reason.words())
}

fn grpc_status(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "12",
        StatusCode::BAD_REQUEST => "13",
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "4",
        _ => "14",
    }
}

/// As gRPC wants `grpc-message` (its protocol over HTTP/2, "Percent-Encoded").
fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'%';
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
