//! The words of HTTP that every stage shares, whatever version carries them: heads with their fields, and bodies in frames.
//!
//! A head is one piece of memory with marks in it. It is written once, when it is read off a connection, and copied once, onto the
//! next one; nothing in between makes a string, a map or a node of it. Order, case and repetition of fields stay as they came.

pub mod fields; // fields, in order, in one piece of memory
pub mod name; // the names that mean something to a proxy
pub mod trailers; // what may stand behind a body
pub mod body; // a body on its way

use bytes::Bytes;
use http::{Method, StatusCode, Version};

use fields::{Fields, Span};

/// The head of a request (RFC 9110 section 6.2), apart from how its version writes it.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub method: Method,
    /// As the client spoke it.
    pub version: Version,
    /// In the text of `fields`.
    target: Target,
    pub fields: Fields,
}

/// What a request is about (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Target {
    /// `:path`; `/path?query`, `*`, or empty for CONNECT.
    pub(crate) path: Span,
    /// `:authority`, or that of an absolute-form or authority-form target; none where only `Host` says it.
    pub(crate) authority: Option<Span>,
    /// `:scheme`, or that of an absolute-form target.
    pub(crate) scheme: Option<Span>,
    /// `:protocol` of an extended CONNECT (RFC 8441 section 4).
    pub(crate) protocol: Option<Span>,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub version: Version,
    /// What the peer wrote behind the status; empty for the usual words.
    reason: Span,
    pub fields: Fields,
}

/// A piece of a body.
#[derive(Debug, Clone)]
pub enum Frame {
    /// Never empty.
    Data(Bytes),
    /// The last frame, where there is one (RFC 9110 section 6.5).
    Trailers(Fields),
}

impl RequestHead {
    /// A head whose target is `path`.
    #[must_use]
    pub fn new(method: Method, version: Version, path: &[u8], mut fields: Fields) -> Self {
        let path = fields.store(path);
        Self { method, version, target: Target { path, ..Target::default() }, fields }
    }

    /// A head whose target is in the text of `fields` already.
    #[must_use]
    pub(crate) fn of_target(method: Method, version: Version, target: Target, fields: Fields) -> Self {
        Self { method, version, target, fields }
    }

    /// `/path?query`, or `*`.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.fields.text(self.target.path)
    }

    #[must_use]
    pub fn authority(&self) -> Option<&[u8]> {
        self.target.authority.map(|span| self.fields.text(span))
    }

    #[must_use]
    pub fn scheme(&self) -> Option<&[u8]> {
        self.target.scheme.map(|span| self.fields.text(span))
    }

    /// The protocol of an extended CONNECT.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.target.protocol.map(|span| self.fields.text(span))
    }

    pub fn set_path(&mut self, path: &[u8]) {
        self.target.path = self.fields.store(path);
    }

    pub fn set_authority(&mut self, authority: &[u8]) {
        self.target.authority = Some(self.fields.store(authority));
    }

    /// Its authority is what `Host` says; empty where there is none.
    pub fn take_authority_of_host(&mut self) {
        self.target.authority = Some(self.fields.span(name::Name::Host).unwrap_or_default());
    }

    pub fn set_scheme(&mut self, scheme: &[u8]) {
        self.target.scheme = Some(self.fields.store(scheme));
    }

    pub fn set_protocol(&mut self, protocol: &[u8]) {
        self.target.protocol = Some(self.fields.store(protocol));
    }
}

impl ResponseHead {
    #[must_use]
    pub fn new(status: StatusCode, version: Version, fields: Fields) -> Self {
        Self { status, version, reason: Span::default(), fields }
    }

    /// The words behind the status, as the peer wrote them, or those that usually stand there.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        match self.fields.text(self.reason) {
            [] => self.status.canonical_reason().unwrap_or_default().as_bytes(),
            reason => reason,
        }
    }

    pub fn set_reason(&mut self, reason: &[u8]) {
        self.reason = self.fields.store(reason);
    }
}
