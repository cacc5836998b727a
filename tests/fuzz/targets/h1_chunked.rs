//! Chunked bodies: one verdict however the input is cut, data and trailers that are the same when they are written again, and nothing that
//! hyper would read in another way, or end in another place.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_fuzz::chunks::{self, End, Read};
use mesh_fuzz::{cuts, peer};
use mesh_proxy::h1::chunked::BadChunk;
use mesh_proxy::h1::head::{BadHead, HeadLimits};
use mesh_proxy::h1::write;
use mesh_proxy::message::fields::Fields;
use mesh_proxy::message::name::Name;
use mesh_proxy::message::trailers::may_trail;

/// Those of hyper.
const LIMITS: HeadLimits = HeadLimits { bytes_max: 16 * 1024, fields_max: 100 };
/// Such that inputs are beyond them.
const NARROW: HeadLimits = HeadLimits { bytes_max: 40, fields_max: 2 };

const HEAD: &[u8] = b"POST /first HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n";

/// What we refuse and hyper takes, each for a reason. Everything else that one takes and the other does not is a finding.
const STRICTER: [(&str, &str); 3] = [
    (
        "a chunk's size or extension is malformed (RFC 9112 section 7.1.1)",
        "hyper takes any bytes for extensions, and spaces behind a size",
    ),
    ("a chunk's size line is too long", "RFC 9112 section 7.1.1 has extensions limited; hyper allows 16 KiB of them"),
    (
        "a line of the trailers does not end in CRLF (RFC 9112 section 2.2)",
        "a bare LF is an end for some and none for others",
    ),
];

fuzz_target!(|bytes: &[u8]| {
    let [seed, body @ ..] = bytes else { return };
    let limits = if seed & 0x80 == 0 { LIMITS } else { NARROW };
    let read = chunks::read(body, cuts::WHOLE, limits);
    for seed in [cuts::BYTES, 2 + seed % 64] {
        let cut = chunks::read(body, seed, limits);
        assert_eq!((&cut.data, cut.end.verdict()), (&read.data, read.end.verdict()), "cut by {seed}: {:?}", cut.end);
    }
    if let End::Whole { trailers, .. } = &read.end {
        check_written(&read.data, trailers.as_ref());
    }
    if limits == LIMITS {
        compare(body, &read);
    }
});

/// Written again, in chunks of other sizes.
fn check_written(data: &[u8], trailers: Option<&Fields>) {
    let mut written = Vec::new();
    for piece in data.chunks(3) {
        write::chunk_size(&mut written, piece.len());
        written.extend_from_slice(piece);
        written.extend_from_slice(b"\r\n");
    }
    let end = written.len();
    write::last_chunk(&mut written, trailers);
    if trailers.is_some() {
        peer::check_lines(&written[end..]);
    }
    let Read { data: same, end } = chunks::read(&written, cuts::WHOLE, LIMITS);
    let End::Whole { length, trailers: read } = end else { panic!("what is written cannot be read: {end:?}") };
    assert_eq!((same.as_slice(), length), (data, written.len()));
    assert_eq!(read.as_ref().map(peer::ours), trailers.map(peer::ours));
}

fn compare(body: &[u8], read: &Read) {
    let (until, behind) = match read.end {
        End::Whole { length, .. } => (length, NEXT),
        End::Incomplete | End::Refused(_) => (body.len(), &[][..]),
    };
    let mut asked = peer::served(&[HEAD, &body[..until], behind].concat()).into_iter();
    let theirs = asked.next().expect("the head is one").body;
    match (&read.end, theirs) {
        (End::Whole { trailers, .. }, Some(theirs)) => {
            assert_eq!(theirs.data, read.data);
            let mut found = theirs.trailers.as_ref().map(peer::theirs).unwrap_or_default();
            found.retain(|(name, _)| may_trail(Name::of(name.as_bytes()), name.as_bytes()));
            assert_eq!(trailers.as_ref().map(peer::ours).unwrap_or_default(), found);
            let next = asked.next().expect("another request follows");
            assert_eq!((next.target.path(), asked.next().is_none()), ("/next", true));
        }
        (End::Whole { .. }, None) => panic!("hyper does not take it"),
        (End::Incomplete | End::Refused(_), None) => {}
        (End::Incomplete, Some(theirs)) => panic!("hyper finds an end: {theirs:?}"),
        (End::Refused(bad), Some(theirs)) => {
            let problem = match bad {
                BadChunk::Malformed { problem } | BadChunk::Trailers { source: BadHead::Malformed { problem } } => {
                    problem
                }
                other => panic!("hyper takes it: {other}"),
            };
            assert!(STRICTER.iter().any(|(known, _)| known == problem), "hyper takes it, {theirs:?}: {problem}");
        }
    }
}
