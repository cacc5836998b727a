//! What a message of HTTP/1.1 is, to the letter (RFC 9112): the strict reader that both ends of the proxy are held to. It shares
//! no code with the proxy and forgives nothing, so that whatever it takes has one meaning only.

use std::fmt;

/// Bytes as text, one character a byte, so that a table can name any of them.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// Bytes as a failing test shows them.
pub fn shown(bytes: &[u8]) -> String {
    let end = bytes.len().min(1500);
    let rest = if end < bytes.len() { format!(" … {} bytes in all", bytes.len()) } else { String::new() };
    format!("{}{rest}", bytes[..end].escape_ascii())
}

/// Field lines in their order, names as written.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Whether a list field has this member.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name).iter().flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(member))
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.0.iter().map(|(name, value)| format!("{name}: {value}"))).finish()
    }
}

/// How far a message has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Its head is not whole.
    Head,
    /// Its head is, its body is not.
    Body,
    /// All of it is there: so many bytes.
    Whole(usize),
    /// A body that ends with the connection.
    UntilClose,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
}

#[derive(Clone)]
pub struct Response {
    pub version: String,
    pub status: u16,
    pub reason: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
}

impl fmt::Debug for Response {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, reason, fields, body, trailers, .. } = self;
        write!(out, "{status} {reason} {fields:?} {:?} {trailers:?}", shown(body))
    }
}

/// Body and trailers, as far as they have come.
struct Content {
    body: Vec<u8>,
    trailers: Fields,
    progress: Progress,
}

/// How the length of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// Reads the request at the beginning of `bytes`; none while its head is not whole.
pub fn request(bytes: &[u8]) -> Result<(Option<Request>, Progress), String> {
    let Some(head) = head(bytes)? else { return Ok((None, Progress::Head)) };
    let (line, fields) = (head.line, head.fields);
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = parts[..] else { return Err(format!("a request line of three words: {line:?}")) };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(format!("a method is a token: {line:?}"));
    }
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(format!("a target is printable ASCII without a fragment: {line:?}"));
    }
    if !(target.starts_with('/') || target == "*" && method == "OPTIONS") {
        return Err(format!("an origin is asked in origin-form: {line:?}"));
    }
    if version != "HTTP/1.1" {
        return Err(format!("a proxy tells its own version: {line:?}"));
    }
    if fields.all("host").len() != 1 {
        return Err(format!("exactly one Host: {fields:?}"));
    }
    let framing = framing(&fields, Framing::None)?;
    let content = content(&bytes[head.length..], framing)?;
    let request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        fields,
        body: content.body,
        trailers: content.trailers,
    };
    Ok((Some(request), content.progress.behind(head.length)))
}

/// Reads the response at the beginning of `bytes`, to a request of that method.
pub fn response(bytes: &[u8], method: &str) -> Result<(Option<Response>, Progress), String> {
    let Some(head) = head(bytes)? else { return Ok((None, Progress::Head)) };
    let (line, fields) = (head.line, head.fields);
    let (version, rest) = line.split_once(' ').ok_or_else(|| format!("a status line: {line:?}"))?;
    let (code, reason) = rest.split_once(' ').ok_or_else(|| format!("a space behind the status: {line:?}"))?;
    // A client of HTTP/1.0 may be answered in either.
    if !["HTTP/1.1", "HTTP/1.0"].contains(&version) {
        return Err(format!("a proxy tells its own version: {line:?}"));
    }
    if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("a status of three digits: {line:?}"));
    }
    let status: u16 = code.parse().map_err(|_| line.clone())?;
    let bodyless = method == "HEAD" || status < 200 || status == 204 || status == 304;
    if (status < 200 || status == 204) && (fields.has("content-length") || fields.has("transfer-encoding")) {
        return Err(format!("{status} has neither Content-Length nor Transfer-Encoding: {fields:?}"));
    }
    let told = framing(&fields, Framing::UntilClose)?;
    let content = content(&bytes[head.length..], if bodyless { Framing::None } else { told })?;
    let response = Response {
        version: version.to_owned(),
        status,
        reason: reason.to_owned(),
        fields,
        body: content.body,
        trailers: content.trailers,
    };
    Ok((Some(response), content.progress.behind(head.length)))
}

impl Progress {
    fn behind(self, length: usize) -> Self {
        match self {
            Self::Whole(own) => Self::Whole(own + length),
            other => other,
        }
    }
}

struct Head {
    line: String,
    fields: Fields,
    length: usize,
}

fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some(first) = line(bytes)? else { return Ok(None) };
    let Some((fields, length)) = field_lines(&bytes[first.chars().count() + 2..])? else { return Ok(None) };
    Ok(Some(Head { length: length + first.chars().count() + 2, line: first, fields }))
}

/// A line up to CRLF, one character a byte; an error if it has what no line may have.
fn line(bytes: &[u8]) -> Result<Option<String>, String> {
    let lf = bytes.iter().position(|byte| *byte == b'\n');
    let end = lf.and_then(|lf| lf.checked_sub(1)).filter(|cr| bytes[*cr] == b'\r');
    if lf.is_some() && end.is_none() {
        return Err(format!("a bare LF: {}", shown(bytes)));
    }
    let own = &bytes[..end.unwrap_or(bytes.len())];
    let own = if end.is_none() { own.strip_suffix(b"\r").unwrap_or(own) } else { own };
    match own.iter().find(|byte| byte.is_ascii_control() && **byte != b'\t') {
        Some(byte) => Err(format!("byte {byte:#04x} in the line {:?}", shown(own))),
        None => Ok(end.map(|end| text(&bytes[..end]))),
    }
}

/// Field lines and the empty line behind them.
fn field_lines(bytes: &[u8]) -> Result<Option<(Fields, usize)>, String> {
    let (mut fields, mut at) = (Fields::default(), 0);
    loop {
        let Some(line) = line(&bytes[at..])? else { return Ok(None) };
        at += line.chars().count() + 2;
        if line.is_empty() {
            return Ok(Some((fields, at)));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| format!("a field line: {line:?}"))?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("a field name is a token: {line:?}"));
        }
        fields.0.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn framing(fields: &Fields, otherwise: Framing) -> Result<Framing, String> {
    let (lengths, codings) = (fields.all("content-length"), fields.all("transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(otherwise),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        ([length], []) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
            length.parse().map(Framing::Length).map_err(|_| format!("Content-Length {length}"))
        }
        _ => Err(format!("its length is ambiguous: {fields:?}")),
    }
}

fn content(bytes: &[u8], framing: Framing) -> Result<Content, String> {
    let plain =
        |length: usize, progress| Ok(Content { body: bytes[..length].to_vec(), trailers: Fields::default(), progress });
    match framing {
        Framing::None => plain(0, Progress::Whole(0)),
        Framing::Length(length) if bytes.len() >= length => plain(length, Progress::Whole(length)),
        Framing::Length(_) => plain(bytes.len(), Progress::Body),
        Framing::UntilClose => plain(bytes.len(), Progress::UntilClose),
        Framing::Chunked => chunked(bytes),
    }
}

fn chunked(bytes: &[u8]) -> Result<Content, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    let unfinished = |body| Ok(Content { body, trailers: Fields::default(), progress: Progress::Body });
    loop {
        let Some(size) = line(&bytes[at..])? else { return unfinished(body) };
        if size.is_empty() || size.len() > 15 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("a chunk size is hexadecimal digits alone: {size:?}"));
        }
        at += size.len() + 2;
        let size = usize::from_str_radix(&size, 16).map_err(|error| error.to_string())?;
        if size == 0 {
            let Some((trailers, length)) = field_lines(&bytes[at..])? else { return unfinished(body) };
            return Ok(Content { body, trailers, progress: Progress::Whole(at + length) });
        }
        let there = size.min(bytes.len() - at);
        body.extend_from_slice(&bytes[at..at + there]);
        at += there;
        match &bytes[at..] {
            _ if there < size => return unfinished(body),
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] => return unfinished(body),
            other => return Err(format!("chunk data ends with CRLF, not {:?}", shown(&other[..other.len().min(8)]))),
        }
    }
}
