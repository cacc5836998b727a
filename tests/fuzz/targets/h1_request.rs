//! Requests of HTTP/1.1: one verdict however the input is cut, the same message when it is written again, with one `Host` and one framing,
//! and nothing that hyper would read in another way, or end in another place.
#![no_main]

use http::{Method, Uri, Version};
use libfuzzer_sys::fuzz_target;
use mesh_fuzz::chunks::{self, End};
use mesh_fuzz::cuts;
use mesh_fuzz::peer::{self, Asked};
use mesh_proxy::h1::framing::{self, Length};
use mesh_proxy::h1::head::{BadHead, HeadLimits, Scan, Whole};
use mesh_proxy::h1::target::is_authority;
use mesh_proxy::h1::write;
use mesh_proxy::message::RequestHead;
use mesh_proxy::message::fields::Fields;
use mesh_proxy::message::name::Name;

/// Fields as many as hyper takes.
const LIMITS: HeadLimits = HeadLimits { bytes_max: 16 * 1024, fields_max: 100 };
/// Such that inputs are beyond them.
const NARROW: HeadLimits = HeadLimits { bytes_max: 60, fields_max: 2 };

/// Of what is written: it may have a `Host` that it was read without.
const WRITTEN: HeadLimits = HeadLimits { bytes_max: 32 * 1024, fields_max: 101 };

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n";

/// What we refuse and hyper takes, each for a reason. Everything else that one takes and the other does not is a finding.
const STRICTER: [(&str, &str); 12] = [
    (
        "a line ends in a bare LF (RFC 9112 section 2.2)",
        "a recipient may take it for a line's end, and one that does not sees other lines",
    ),
    (
        "too many empty lines before a request",
        "RFC 9112 section 2.2 has one passed over; without end they cost, and say nothing",
    ),
    (
        "both Transfer-Encoding and Content-Length (RFC 9112 section 6.1)",
        "the section lets a server refuse what looks like smuggling",
    ),
    ("Content-Length twice (RFC 9112 section 6.3)", "RFC 9110 section 8.6 lets even those be refused that agree"),
    (
        "Content-Length is no number (RFC 9112 section 6.3)",
        "one beyond 63 bits: RFC 9110 section 8.6 wants no overflow on the way",
    ),
    (
        "Transfer-Encoding does not end in one chunked (RFC 9112 section 6.3)",
        "chunked twice, or elements that are none: section 6.1",
    ),
    (CODING, "RFC 9112 section 6.1: a coding that is not known is answered 501"),
    (
        "a character in the target that no target has (RFC 3986 section 2)",
        "fragments, and what is beyond ASCII: RFC 9112 section 3.2",
    ),
    ("CONNECT wants host:port (RFC 9112 section 3.2.3)", "no other form is for CONNECT"),
    (
        "a target has none of the forms of RFC 9112 section 3.2",
        "other schemes; an authority, or `*`, for the wrong method",
    ),
    (
        "the authority of the target is none (RFC 3986 section 3.2)",
        "user information (RFC 9110 section 4.2.4), ports beyond 65535",
    ),
    (
        "an absolute target without an authority",
        "`http:1` is an authority for hyper, and belongs to CONNECT (RFC 9112 section 3.2.3)",
    ),
];
const CODING: &str = "a coding that is not known";

type Read = Result<Option<Whole<RequestHead>>, BadHead>;

fuzz_target!(|bytes: &[u8]| {
    let [seed, input @ ..] = bytes else { return };
    let limits = if seed & 0x80 == 0 { LIMITS } else { NARROW };
    let whole = read(input, cuts::WHOLE, limits);
    for seed in [cuts::BYTES, 2 + seed % 64] {
        let cut = read(input, seed, limits);
        assert_eq!(verdict(&cut), verdict(&whole), "cut by {seed}: {cut:?}");
    }
    if let Ok(Some(read)) = &whole
        && let Ok(length) = framing::of_request(&read.head)
    {
        check_written(&read.head, length);
    }
    if limits == LIMITS {
        compare(input, whole);
    }
});

fn read(input: &[u8], seed: u8, limits: HeadLimits) -> Read {
    let mut scan = Scan::default();
    for arrived in cuts::ends(input.len(), seed) {
        if let Some(whole) = scan.request(&input[..arrived], limits)? {
            return Ok(Some(whole));
        }
    }
    Ok(None)
}

/// The same for the same verdict. Why something is refused may well depend on what was there to be looked at.
fn verdict(read: &Read) -> String {
    match read {
        Ok(Some(Whole { head, length })) => {
            let target = (head.scheme(), head.authority(), head.path());
            format!("whole: {length} {} {:?} {target:?} {:?}", head.method, head.version, head.fields)
        }
        Ok(None) => "incomplete".to_owned(),
        Err(_) => "refused".to_owned(),
    }
}

fn check_written(head: &RequestHead, length: Length) {
    // Its tunnel is made here.
    if head.method == Method::CONNECT {
        return;
    }
    let named = head.authority().or_else(|| head.fields.get(Name::Host));
    let authority = named.filter(|text| is_authority(text)).unwrap_or(b"a");
    let mut written = Vec::new();
    write::request(&mut written, head, authority, length);
    peer::check_lines(&written);
    let Ok(Some(Whole { head: read, length: end })) = read(&written, cuts::WHOLE, WRITTEN) else {
        panic!("what is written cannot be read: {}", written.escape_ascii());
    };
    assert_eq!(end, written.len());
    assert_eq!((&read.method, read.path(), read.version), (&head.method, head.path(), Version::HTTP_11));
    assert_eq!(read.fields.all(Name::Host).collect::<Vec<_>>(), [authority]);
    assert_eq!(framing::of_request(&read), Ok(length));
    let framings = read.fields.all(Name::ContentLength).chain(read.fields.all(Name::TransferEncoding)).count();
    assert_eq!(framings, usize::from(length != Length::None));
    assert_eq!(own(&read.fields), own(&head.fields));
}

/// Fields, as they are written, without what frames a message.
fn own(fields: &Fields) -> Vec<(&[u8], &[u8])> {
    let framing = [Name::Host, Name::ContentLength, Name::TransferEncoding];
    let kept = fields.iter().filter(|field| !framing.contains(&field.name));
    kept.map(|field| (field.letters, field.value)).collect()
}

fn compare(input: &[u8], read: Read) {
    let refused = match read {
        Ok(Some(Whole { head, length: end })) => match framing::of_request(&head) {
            Ok(length) => return compare_message(input, &head, end, length),
            Err(bad) => bad,
        },
        Ok(None) => {
            let asked = peer::served(input);
            return assert!(asked.is_empty(), "hyper finds a request: {asked:?}");
        }
        Err(bad) => bad,
    };
    if let [asked, ..] = &peer::served(input)[..] {
        let problem = match refused {
            BadHead::Malformed { problem } => problem,
            BadHead::Coding => CODING,
            _ => panic!("hyper takes it, {asked:?}: {refused}"),
        };
        assert!(STRICTER.iter().any(|(known, _)| *known == problem), "hyper takes it, {asked:?}: {problem}");
    }
}

fn compare_message(input: &[u8], head: &RequestHead, end: usize, length: Length) {
    let (body, until) = body(&input[end..], length);
    let behind = if body.is_some() { NEXT } else { &[] };
    let (spoken, replaced) = spoken(&input[..end], head);
    let mut asked = peer::served(&[&spoken, &input[end..end + until], behind].concat()).into_iter();
    let theirs = asked.next().unwrap_or_else(|| panic!("hyper does not take {}", spoken.escape_ascii()));
    assert_eq!((&head.method, head.version), (&theirs.method, theirs.version));
    if !replaced {
        compare_target(head, &theirs);
    }
    assert_eq!(peer::ours(&head.fields), peer::theirs(&theirs.fields));
    if head.method == Method::CONNECT {
        return;
    }
    assert_eq!(theirs.body.as_ref().map(|body| &body.data), body.as_ref());
    let keeps_alive = head.version == Version::HTTP_11 && !head.fields.has_member(Name::Connection, b"close");
    if body.is_some() && keeps_alive {
        let next = asked.next().expect("another request follows");
        assert_eq!((next.target.path(), asked.next().is_none()), ("/next", true));
    }
}

/// The body, if it is whole, and how much of the input belongs to it.
fn body(input: &[u8], length: Length) -> (Option<Vec<u8>>, usize) {
    match length {
        Length::None => (Some(Vec::new()), 0),
        Length::Sized(length) => match usize::try_from(length).ok().filter(|length| *length <= input.len()) {
            Some(length) => (Some(input[..length].to_vec()), length),
            None => (None, input.len()),
        },
        Length::Chunked => match chunks::read(input, cuts::WHOLE, LIMITS) {
            chunks::Read { data, end: End::Whole { length, .. } } => (Some(data), length),
            // What is refused is the matter of another target.
            _ => (None, 0),
        },
        Length::UntilClose => panic!("a request ends somewhere"),
    }
}

/// The head as hyper can read it, and whether its target is another.
fn spoken(head: &[u8], read: &RequestHead) -> (Vec<u8>, bool) {
    let start = head.iter().position(|byte| !b"\r\n".contains(byte)).expect("a request line");
    let end = start + head[start..].iter().position(|byte| *byte == b'\r').expect("its end");
    let parts: Vec<_> = head[start..end].split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { panic!("a request line has three parts") };
    // hyper speaks no minor version that it does not know; RFC 9110 section 6.2 has it taken for the highest that is known.
    let version: &[u8] = if version == b"HTTP/1.0" { version } else { b"HTTP/1.1" };
    let replaced = Uri::try_from(target).is_err();
    // These stand in no URI (RFC 3986 section 2), but clients send them in paths: they are passed on as they came.
    let is_loose = target.iter().any(|byte| b"\"<>\\^`{|}".contains(byte));
    assert!(!replaced || is_loose || !target.starts_with(b"/"), "hyper does not take {}", target.escape_ascii());
    let target: &[u8] = match (replaced, read.method == Method::CONNECT) {
        (false, _) => target,
        (true, true) => b"a:1",
        (true, false) => b"/",
    };
    let line = [method, b" ", target, b" ", version].concat();
    ([&head[..start], &line, &head[end..]].concat(), replaced)
}

fn compare_target(head: &RequestHead, theirs: &Asked) {
    let uri = &theirs.target;
    assert_eq!(head.authority(), uri.authority().map(|authority| authority.as_str().as_bytes()));
    let scheme = head.scheme().map(<[u8]>::to_ascii_lowercase);
    assert_eq!(scheme.as_deref(), uri.scheme_str().map(str::as_bytes));
    let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    // OPTIONS about a whole server (RFC 9112 section 3.2.4).
    let is_about_all = head.method == Method::OPTIONS && head.authority().is_some() && head.path() == b"*";
    let ours: &[u8] = if is_about_all { b"/" } else { head.path() };
    assert_eq!(ours, path.as_bytes(), "{}", String::from_utf8_lossy(ours));
}
