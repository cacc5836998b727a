//! Heads and bodies as hyper has them, for h2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, Uri, Version, request};
use hyper::body::{Body as HyperBody, Incoming, SizeHint};

use super::body::Body;
use super::fields::Fields;
use super::name::{Name, Names};
use super::{Frame, RequestHead, ResponseHead};
use crate::error::Broken;

/// What h2 has no field for (RFC 9113 section 8.2.2).
const NOT_IN_H2: Names = Names::of(&[
    Name::Connection,
    Name::Host,
    Name::Http2Settings,
    Name::KeepAlive,
    Name::ProxyConnection,
    Name::TransferEncoding,
    Name::Upgrade,
]);

/// A request that hyper read; its body where one is to come.
#[must_use]
pub fn read_request(request: Request<Incoming>) -> (RequestHead, Option<IncomingBody>) {
    let (parts, body) = request.into_parts();
    let request::Parts { method, uri, version, headers, .. } = parts;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut head = RequestHead::new(method, version, path.as_bytes(), read_fields(&headers, uri.path().len() + 200));
    if let Some(scheme) = uri.scheme_str() {
        head.set_scheme(scheme.as_bytes());
    }
    if let Some(authority) = uri.authority() {
        head.set_authority(authority.as_str().as_bytes());
    }
    let body = (!body.is_end_stream()).then(|| IncomingBody(body));
    (head, body)
}

/// A response that hyper read.
#[must_use]
pub fn read_response(response: Response<Incoming>) -> (ResponseHead, IncomingBody) {
    let (parts, body) = response.into_parts();
    let fields = read_fields(&parts.headers, 64);
    (ResponseHead::new(parts.status, parts.version, fields), IncomingBody(body))
}

fn read_fields(headers: &HeaderMap, more_bytes: usize) -> Fields {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let mut fields = Fields::with_capacity(bytes + more_bytes, headers.len() + 4);
    for (name, value) in headers {
        fields.push(name.as_str().as_bytes(), value.as_bytes());
    }
    fields
}

/// A request for hyper to write in h2; none where the authority is no URI's.
#[must_use]
pub fn write_request<B>(head: &RequestHead, body: B) -> Option<Request<B>> {
    let uri = Uri::builder()
        .scheme("http")
        .authority(head.authority().unwrap_or_default())
        .path_and_query(head.path())
        .build()
        .ok()?;
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = write_fields(&head.fields);
    Some(request)
}

/// A response for hyper to write in h2.
#[must_use]
pub fn write_response<B>(head: &ResponseHead, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = write_fields(&head.fields);
    response
}

fn write_fields(fields: &Fields) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields.iter().filter(|field| !NOT_IN_H2.has(field.name)) {
        // Both were checked when they were read.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(field.letters), HeaderValue::from_bytes(field.value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// A body that hyper reads.
#[derive(Debug)]
pub struct IncomingBody(Incoming);

impl Body for IncomingBody {
    type Error = Broken;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Broken>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(source)) => return Poll::Ready(Some(Err(Broken::Http2 { source }))),
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(Frame::Data(data)))),
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(Some(Ok(Frame::Trailers(read_fields(&trailers, 0)))));
                    }
                }
            }
        }
    }

    fn is_end(&self) -> bool {
        self.0.is_end_stream()
    }

    fn length(&self) -> Option<u64> {
        self.0.size_hint().exact()
    }
}

/// A body of ours that hyper writes.
pub struct Carried<B>(pub B);

impl<B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin> HyperBody for Carried<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, B::Error>>> {
        self.0.poll_frame(cx).map_ok(|frame| match frame {
            Frame::Data(data) => hyper::body::Frame::data(data),
            Frame::Trailers(trailers) => hyper::body::Frame::trailers(write_fields(&trailers)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
