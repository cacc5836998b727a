//! A chunked body, as we read it, in whatever pieces it arrives.

use mesh_proxy::h1::chunked::{BadChunk, Chunked, Step};
use mesh_proxy::h1::head::HeadLimits;
use mesh_proxy::message::fields::Fields;

use crate::cuts;

/// What became of a body.
#[derive(Debug)]
pub struct Read {
    /// Of all that could be read.
    pub data: Vec<u8>,
    pub end: End,
}

#[derive(Debug)]
pub enum End {
    Whole { length: usize, trailers: Option<Fields> },
    Incomplete,
    Refused(BadChunk),
}

impl End {
    /// The same for the same verdict. Why something is refused may well depend on what was there to be looked at.
    #[must_use]
    pub fn verdict(&self) -> String {
        match self {
            Self::Whole { length, trailers } => format!("whole: {length} {trailers:?}"),
            Self::Incomplete => "incomplete".to_owned(),
            Self::Refused(_) => "refused".to_owned(),
        }
    }
}

/// Reads the body at the start of `input`.
///
/// # Panics
/// When a step is none.
#[must_use]
pub fn read(input: &[u8], seed: u8, limits: HeadLimits) -> Read {
    let (mut chunked, mut data, mut used) = (Chunked::default(), Vec::new(), 0);
    for arrived in cuts::ends(input.len(), seed) {
        loop {
            match chunked.step(&input[used..arrived], limits) {
                Ok(Step::Data { skip, length }) => {
                    assert!(length > 0, "data is never empty");
                    data.extend_from_slice(&input[used + skip..arrived][..length]);
                    used += skip + length;
                }
                Ok(Step::More { skip }) => {
                    used += skip;
                    assert!(used <= arrived && !chunked.is_over());
                    let again = chunked.step(&input[used..arrived], limits);
                    assert!(matches!(again, Ok(Step::More { skip: 0 })), "nothing new came, and yet {again:?}");
                    break;
                }
                Ok(Step::End { skip, trailers }) => {
                    used += skip;
                    assert!(used <= arrived && chunked.is_over() && chunked.left_bytes() == 0);
                    return Read { data, end: End::Whole { length: used, trailers } };
                }
                Err(bad) => return Read { data, end: End::Refused(bad) },
            }
        }
    }
    Read { data, end: End::Incomplete }
}
