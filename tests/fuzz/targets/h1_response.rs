//! Responses of HTTP/1.1: one verdict however the input is cut, the same message when it is written again, with one framing at most, and
//! nothing that hyper would read in another way, or end in another place.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use mesh_fuzz::chunks::{self, End};
use mesh_fuzz::{cuts, peer};
use mesh_proxy::h1::framing::{self, Length};
use mesh_proxy::h1::head::{BadHead, HeadLimits, Scan, Whole};
use mesh_proxy::h1::write;
use mesh_proxy::message::ResponseHead;
use mesh_proxy::message::fields::Fields;
use mesh_proxy::message::name::Name;

/// Fields as many as hyper takes.
const LIMITS: HeadLimits = HeadLimits { bytes_max: 16 * 1024, fields_max: 100 };
/// Such that inputs are beyond them.
const NARROW: HeadLimits = HeadLimits { bytes_max: 60, fields_max: 2 };

/// What we refuse and hyper takes, each for a reason. Everything else that one takes and the other does not is a finding.
const STRICTER: [(&str, &str); 8] = [
    (
        "a line ends in a bare LF (RFC 9112 section 2.2)",
        "a recipient may take it for a line's end, and one that does not sees other lines",
    ),
    (
        "a response does not begin with HTTP/",
        "empty lines: RFC 9112 section 2.2 has them passed over before requests alone",
    ),
    ("a status is not from 100 to 599 (RFC 9110 section 15)", "the section calls all others invalid"),
    ("both Transfer-Encoding and Content-Length (RFC 9112 section 6.3)", "the section has it handled as an error"),
    ("Content-Length twice (RFC 9112 section 6.3)", "RFC 9110 section 8.6 lets even those be refused that agree"),
    (
        "Content-Length is no number (RFC 9112 section 6.3)",
        "nor is a list, or one beyond 63 bits; hyper looks only where it needs it",
    ),
    (
        "Transfer-Encoding does not end in one chunked (RFC 9112 section 6.3)",
        "nobody asked for another coding (RFC 9110 section 10.1.4)",
    ),
    (CODING, "the same"),
];
const CODING: &str = "a coding that is not known";

type Read = Result<Option<Whole<ResponseHead>>, BadHead>;

fuzz_target!(|bytes: &[u8]| {
    let [seed, input @ ..] = bytes else { return };
    let limits = if seed & 0x80 == 0 { LIMITS } else { NARROW };
    let method = [Method::GET, Method::HEAD, Method::POST][usize::from(seed % 3)].clone();
    let whole = read(input, cuts::WHOLE, limits);
    for seed in [cuts::BYTES, 2 + seed % 64] {
        let cut = read(input, seed, limits);
        assert_eq!(verdict(&cut), verdict(&whole), "cut by {seed}: {cut:?}");
    }
    if let Ok(Some(read)) = &whole
        && let Ok(length) = framing::of_response(&read.head, &method)
    {
        check_written(&read.head, length, &method);
    }
    if limits == LIMITS {
        compare(input, &method);
    }
});

fn read(input: &[u8], seed: u8, limits: HeadLimits) -> Read {
    let mut scan = Scan::default();
    for arrived in cuts::ends(input.len(), seed) {
        if let Some(whole) = scan.response(&input[..arrived], limits)? {
            return Ok(Some(whole));
        }
    }
    Ok(None)
}

/// The same for the same verdict. Why something is refused may well depend on what was there to be looked at.
fn verdict(read: &Read) -> String {
    match read {
        Ok(Some(Whole { head, length })) => {
            let reason = head.reason().escape_ascii();
            format!("whole: {length} {:?} {} {reason} {:?}", head.version, head.status, head.fields)
        }
        Ok(None) => "incomplete".to_owned(),
        Err(_) => "refused".to_owned(),
    }
}

fn check_written(head: &ResponseHead, length: Length, method: &Method) {
    let mut written = Vec::new();
    write::response(&mut written, head, length, None);
    peer::check_lines(&written);
    let Ok(Some(Whole { head: read, length: end })) = read(&written, cuts::WHOLE, LIMITS) else {
        panic!("what is written cannot be read: {}", written.escape_ascii());
    };
    assert_eq!((end, read.status, read.reason()), (written.len(), head.status, head.reason()));
    assert_eq!(framing::of_response(&read, method), Ok(length));
    let lengths = read.fields.all(Name::ContentLength).count();
    let codings = read.fields.all(Name::TransferEncoding).count();
    match length {
        // Of a body that would have been.
        Length::None => assert!(lengths <= 1 && codings == 0),
        Length::UntilClose => assert_eq!((lengths, codings), (0, 0)),
        Length::Sized(_) => assert_eq!((lengths, codings), (1, 0)),
        Length::Chunked => assert_eq!((lengths, codings), (0, 1)),
    }
    assert_eq!(own(&read.fields), own(&head.fields));
}

/// Fields, as they are written, without what frames a message.
fn own(fields: &Fields) -> Vec<(&[u8], &[u8])> {
    let kept = fields.iter().filter(|field| !matches!(field.name, Name::ContentLength | Name::TransferEncoding));
    kept.map(|field| (field.letters, field.value)).collect()
}

/// The answer itself, behind those that only tell that it is coming, and where its head ends.
fn last(input: &[u8], method: &Method) -> Result<Option<(ResponseHead, usize, Length)>, BadHead> {
    let mut start = 0;
    while let Some(Whole { head, length }) = read(&input[start..], cuts::WHOLE, LIMITS)? {
        start += length;
        if !head.status.is_informational() || head.status.as_u16() == 101 {
            let length = framing::of_response(&head, method)?;
            return Ok(Some((head, start, length)));
        }
    }
    Ok(None)
}

fn compare(input: &[u8], method: &Method) {
    match last(input, method) {
        Ok(Some((head, end, length))) => compare_message(input, method, &head, end, length),
        Ok(None) => {
            let answered = peer::answered(&spoken(input), method);
            assert!(answered.is_none(), "hyper finds a response: {answered:?}");
        }
        Err(refused) => {
            let Some(answered) = peer::answered(input, method) else { return };
            let problem = match refused {
                BadHead::Malformed { problem } => problem,
                BadHead::Coding => CODING,
                _ => panic!("hyper takes it, {answered:?}: {refused}"),
            };
            assert!(STRICTER.iter().any(|(known, _)| *known == problem), "hyper takes it, {answered:?}: {problem}");
        }
    }
}

fn compare_message(input: &[u8], method: &Method, head: &ResponseHead, end: usize, length: Length) {
    let (body, until) = body(&input[end..], length);
    let spoken = spoken(&input[..end + until]);
    let theirs = peer::answered(&spoken, method);
    let theirs = theirs.unwrap_or_else(|| panic!("hyper does not take {}", spoken.escape_ascii()));
    assert_eq!((head.status, head.version), (theirs.status, theirs.version));
    // hyper leaves out words that are not ASCII.
    let words = if head.reason().is_ascii() { head.reason() } else { b"" };
    let usual = head.status.canonical_reason().unwrap_or_default().as_bytes();
    match theirs.reason.as_deref() {
        None => assert_eq!(words, usual),
        Some(b"") => assert!(words.is_empty() || words == usual),
        Some(reason) => assert_eq!(words, reason),
    }
    assert_eq!(peer::ours(&head.fields), peer::theirs(&theirs.fields));
    if head.status.as_u16() == 101 {
        return;
    }
    assert_eq!(theirs.body.map(|body| body.data), body);
    if until > 0 && body.is_some() && length != Length::UntilClose {
        let cut = peer::answered(&spoken[..spoken.len() - 1], method).expect("its head is there");
        assert_eq!(cut.body, None, "hyper finds an end before it");
    }
}

/// The body, if it is whole, and how much of the input belongs to it.
fn body(input: &[u8], length: Length) -> (Option<Vec<u8>>, usize) {
    match length {
        Length::None => (Some(Vec::new()), 0),
        Length::UntilClose => (Some(input.to_vec()), input.len()),
        Length::Sized(length) => match usize::try_from(length).ok().filter(|length| *length <= input.len()) {
            Some(length) => (Some(input[..length].to_vec()), length),
            None => (None, input.len()),
        },
        Length::Chunked => match chunks::read(input, cuts::WHOLE, LIMITS) {
            chunks::Read { data, end: End::Whole { length, .. } } => (Some(data), length),
            // What is refused is the matter of another target.
            _ => (None, 0),
        },
    }
}

/// Responses as hyper can read them: it speaks no minor version that it does not know; RFC 9110 section 6.2 has it taken for the highest
/// that is known.
fn spoken(input: &[u8]) -> Vec<u8> {
    let mut spoken = input.to_vec();
    let mut start = 0;
    while let Ok(Some(whole)) = read(&input[start..], cuts::WHOLE, LIMITS) {
        let minor = &mut spoken[start + b"HTTP/1.".len()];
        if *minor != b'0' {
            *minor = b'1';
        }
        start += whole.length;
        if !whole.head.status.is_informational() {
            break;
        }
    }
    spoken
}
