//! A refusal, as a response: status, `Proxy-Status` (RFC 9209) with the reason code, and a short text for people.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::error::ProxyError;

pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// What the client is told. A gRPC client gets it as gRPC tells things: 200 and `grpc-status` UNAVAILABLE.
#[must_use]
pub fn response(error: &ProxyError, grpc: bool) -> Response<Bytes> {
    let text = Bytes::from(format!("{} {}: {error}\n", error.reason().flag(), error.reason().words()));
    let mut response = Response::new(if grpc { Bytes::new() } else { text });
    let headers = response.headers_mut();
    headers.insert(PROXY_STATUS, proxy_status(error));
    if grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(grpc_status(error.status())));
        if let Ok(message) = HeaderValue::from_str(&percent_encoded(&error.to_string())) {
            headers.insert("grpc-message", message);
        }
    } else {
        let length = response.body().len();
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        *response.status_mut() = error.status();
    }
    response
}

/// `mesh; error=destination_unavailable; details="NR no_route_found"`.
#[must_use]
pub fn proxy_status(error: &ProxyError) -> HeaderValue {
    let reason = error.reason();
    let text = format!("mesh; error={}; details=\"{} {}\"", reason.proxy_status(), reason.flag(), reason.words());
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("mesh"))
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
