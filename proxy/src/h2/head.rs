//! From field lines to heads and trailers, to the letter of RFC 9113 sections 8.2 and 8.3.
//!
//! A message that breaks a rule is malformed, and its stream ends: nothing of it reaches anybody. What passes here can be written as
//! HTTP/1.1 without a name, value, method, path or authority becoming a line of its own.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use http::{Method, StatusCode, Version};
use thiserror::Error;

use super::hpack::table::{ENTRY_OVERHEAD_BYTES, Line, Meaning};
use super::limits::Limits;
use crate::h1::target::{self, Form, is_authority};
use crate::message::fields::{Field, Fields, Span};
use crate::message::name::Name;
use crate::message::{RequestHead, ResponseHead, Target};

/// Which part of a message a header block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Request,
    Response,
    Trailers,
}

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeadError {
    /// RFC 9113 section 8.1.1.
    #[error("{0} (RFC 9113 section 8.1.1)")]
    Malformed(&'static str),
    #[error("the head is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("the head has more than {fields_max} fields")]
    TooManyFields { fields_max: u32 },
}

/// A head that is being read.
#[derive(Debug)]
pub struct Assembly {
    part: Part,
    bytes_max: usize,
    fields_max: u32,
    fields_count: u32,
    /// As RFC 9113 section 6.5.2 counts.
    bytes: usize,
    fields: Fields,
    target: Target,
    path: Option<Span>,
    method: Option<Method>,
    status: Option<StatusCode>,
    /// A field that is no pseudo-header was there.
    regular: bool,
    content_length: Option<u64>,
    flaw: Option<&'static str>,
}

impl Assembly {
    /// `text_bytes`: how much room its text will probably need.
    #[must_use]
    pub fn new(part: Part, limits: &Limits, text_bytes: usize) -> Self {
        Self {
            part,
            bytes_max: limits.head_bytes_max,
            fields_max: limits.head_fields_max,
            fields_count: 0,
            bytes: 0,
            fields: Fields::with_capacity(text_bytes, text_bytes / 32 + 4),
            target: Target::default(),
            path: None,
            method: None,
            status: None,
            regular: false,
            content_length: None,
            flaw: None,
        }
    }

    /// One more line. Behind the first flaw, and past the limit, lines are only counted.
    pub fn line(&mut self, line: Line<'_>) {
        self.bytes += line.name.len() + line.value.len() + ENTRY_OVERHEAD_BYTES;
        self.fields_count += u32::from(matches!(line.meaning, Meaning::Field(_)));
        if self.flaw.is_some() || self.bytes > self.bytes_max || self.fields_count > self.fields_max {
            return;
        }
        self.flaw = match line.meaning {
            _ if !line.sound => Some("a character that may not stand in a field"),
            Meaning::Field(name) => self.field(name, line),
            pseudo => self.pseudo(pseudo, line.value),
        };
    }

    fn pseudo(&mut self, pseudo: Meaning, value: &[u8]) -> Option<&'static str> {
        if self.part == Part::Trailers {
            return Some("a pseudo-header in trailers");
        }
        if self.regular {
            return Some("a pseudo-header behind a field");
        }
        let of = if pseudo == Meaning::Status { Part::Response } else { Part::Request };
        if of != self.part || pseudo == Meaning::UnknownPseudo {
            return Some("a pseudo-header that does not belong there");
        }
        let taken = match pseudo {
            Meaning::Method => match Method::from_bytes(value) {
                Ok(method) => self.method.replace(method).is_some(),
                Err(_) => return Some("a method that is no token"),
            },
            Meaning::Status => match status(value) {
                Some(status) => self.status.replace(status).is_some(),
                None => return Some("a status that is none"),
            },
            Meaning::Path => self.path.replace(self.fields.store(value)).is_some(),
            Meaning::Authority => self.target.authority.replace(self.fields.store(value)).is_some(),
            Meaning::Scheme => self.target.scheme.replace(self.fields.store(value)).is_some(),
            _ => self.target.protocol.replace(self.fields.store(value)).is_some(),
        };
        taken.then_some("a pseudo-header that is there twice")
    }

    fn field(&mut self, name: Name, line: Line<'_>) -> Option<&'static str> {
        self.regular = true;
        match name {
            Name::Connection
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::TransferEncoding
            | Name::Upgrade
            | Name::Http2Settings => return Some("a field of the connection (RFC 9113 section 8.2.2)"),
            Name::Te if !line.value.eq_ignore_ascii_case(b"trailers") => return Some("a TE other than trailers"),
            Name::Host if self.part == Part::Request && self.fields.has(Name::Host) => return Some("two Host fields"),
            Name::ContentLength => match content_length(line.value) {
                Some(length) if self.content_length.is_none() => self.content_length = Some(length),
                Some(_) => return Some("two Content-Length fields"),
                None => return Some("a Content-Length that is no number"),
            },
            _ => {}
        }
        self.fields.push_field(Field { name, letters: line.name, value: line.value, secret: line.secret });
        None
    }

    fn check(&self) -> Result<(), HeadError> {
        match self.flaw {
            Some(flaw) => Err(HeadError::Malformed(flaw)),
            None if self.bytes > self.bytes_max => Err(HeadError::TooLarge { bytes_max: self.bytes_max }),
            None if self.fields_count > self.fields_max => {
                Err(HeadError::TooManyFields { fields_max: self.fields_max })
            }
            None => Ok(()),
        }
    }

    /// The head of a request, and its Content-Length. `extended_connect`: whether we allow it (RFC 8441).
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn request(mut self, extended_connect: bool) -> Result<(RequestHead, Option<u64>), HeadError> {
        self.check()?;
        let method = self.method.take().ok_or(HeadError::Malformed("no :method"))?;
        let flaw = match (&method, self.target.protocol) {
            (&Method::CONNECT, None) => self.connect_flaw(),
            (&Method::CONNECT, Some(_)) if !extended_connect => Some(":protocol, which was not offered"),
            (&Method::CONNECT, Some(protocol)) if !is_token(self.fields.text(protocol)) => Some("a wrong :protocol"),
            (_, Some(_)) if method != Method::CONNECT => Some(":protocol without CONNECT"),
            _ => self.target_flaw(&method),
        };
        if let Some(flaw) = flaw {
            return Err(HeadError::Malformed(flaw));
        }
        self.target.path = self.path.unwrap_or_default();
        Ok((RequestHead::of_target(method, Version::HTTP_2, self.target, self.fields), self.content_length))
    }

    /// RFC 9113 section 8.5.
    fn connect_flaw(&self) -> Option<&'static str> {
        if self.path.is_some() || self.target.scheme.is_some() {
            return Some("CONNECT with :path or :scheme");
        }
        let authority = self.target.authority.map_or(b"".as_slice(), |span| self.fields.text(span));
        let fits = matches!(target::form(authority, &Method::CONNECT), Ok(Form::Authority));
        (!fits).then_some("CONNECT without a host and a port")
    }

    /// RFC 9113 section 8.3.1.
    fn target_flaw(&self, method: &Method) -> Option<&'static str> {
        let text = |span: Span| self.fields.text(span);
        let (Some(scheme), Some(path)) = (self.target.scheme.map(text), self.path.map(text)) else {
            return Some("no :scheme or no :path");
        };
        if !scheme_is_valid(scheme) {
            return Some("a wrong :scheme");
        }
        // In an extended CONNECT there is a path as in any other request.
        let method = if self.target.protocol.is_some() { &Method::GET } else { method };
        if !matches!(target::form(path, method), Ok(Form::Origin | Form::Asterisk)) {
            return Some("a wrong :path");
        }
        let (authority, host) = (self.target.authority.map(text), self.fields.get(Name::Host));
        if authority.into_iter().chain(host).any(|authority| !is_authority(authority)) {
            return Some("a wrong :authority or Host");
        }
        match (authority, host) {
            (None, None) => Some("neither :authority nor Host"),
            (None, _) if self.target.protocol.is_some() => Some("no :authority"),
            (Some(authority), Some(host)) if !is_same_host(authority, host, scheme) => {
                Some("a Host other than :authority")
            }
            _ => None,
        }
    }

    /// The head of a response, and its Content-Length.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn response(self) -> Result<(ResponseHead, Option<u64>), HeadError> {
        self.check()?;
        match self.status {
            None => Err(HeadError::Malformed("no :status")),
            Some(StatusCode::SWITCHING_PROTOCOLS) => Err(HeadError::Malformed("101, which h2 does not have")),
            Some(status) => Ok((ResponseHead::new(status, Version::HTTP_2, self.fields), self.content_length)),
        }
    }

    /// # Errors
    /// [`HeadError`].
    pub fn trailers(self) -> Result<Fields, HeadError> {
        self.check()?;
        Ok(self.fields)
    }
}

/// Joins the crumbs of a cookie into one field, as every other version of HTTP wants it (RFC 9113 section 8.2.3).
pub fn join_cookies(fields: &mut Fields) {
    if fields.all(Name::Cookie).nth(1).is_some() {
        // An empty one would leave white space at an end, where no value has any.
        let crumbs: Vec<&[u8]> = fields.all(Name::Cookie).filter(|crumb| !crumb.is_empty()).collect();
        let joined = crumbs.join(b"; ".as_slice());
        fields.set(Name::Cookie, &joined);
    }
}

/// From 100 to 599 (RFC 9110 section 15), as HTTP/1.1 takes it.
fn status(value: &[u8]) -> Option<StatusCode> {
    StatusCode::from_bytes(value).ok().filter(|status| status.as_u16() < 600)
}

/// RFC 9110 section 8.6; lists of equal numbers are not taken.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    let number =
        value.iter().try_fold(0u64, |all, digit| digit.is_ascii_digit().then(|| all * 10 + u64::from(digit - b'0')));
    // As HTTP/1.1 takes it: many recipients count in 63 bits.
    number.filter(|length| i64::try_from(*length).is_ok())
}

fn is_token(text: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_token)
}

/// RFC 3986 section 3.1.
fn scheme_is_valid(scheme: &[u8]) -> bool {
    match scheme {
        b"http" | b"https" => true,
        [first, rest @ ..] => {
            let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
            first.is_ascii_alphabetic() && rest.iter().all(fits)
        }
        [] => false,
    }
}

/// Whether they name the same, with or without the scheme's usual port.
fn is_same_host(authority: &[u8], host: &[u8], scheme: &[u8]) -> bool {
    let port: &[u8] = if scheme == b"https" { b":443" } else { b":80" };
    let bare = |text: &'_ [u8]| text.strip_suffix(port).unwrap_or(text).to_ascii_lowercase();
    authority == host || bare(authority) == bare(host)
}
