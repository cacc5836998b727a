//! What is still to come of a message's body, and its next piece out of what was read.

use super::chunked::{BadChunk, Chunked, Step};
use super::framing::Length;
use super::head::HeadLimits;
use super::inbox::Inbox;
use crate::message::Frame;

/// A body, as far as it was read.
#[derive(Debug, Clone, Copy)]
pub enum Unread {
    Nothing,
    Sized(u64),
    Chunked(Chunked),
    /// Until the connection ends.
    UntilClose,
    /// Where it ends cannot be known any more.
    Lost,
}

/// What comes next.
#[derive(Debug)]
pub enum Piece {
    Frame(Frame),
    /// The body was whole.
    End,
    /// It has to be read on; so many bytes at least are known to come.
    Wanting(u64),
}

/// For a body of which nobody knows how long it is: it may well be long.
const UNKNOWN_BYTES: u64 = 0;

impl Unread {
    #[must_use]
    pub fn of(length: Length) -> Self {
        match length {
            Length::None | Length::Sized(0) => Self::Nothing,
            Length::Sized(left) => Self::Sized(left),
            Length::Chunked => Self::Chunked(Chunked::default()),
            Length::UntilClose => Self::UntilClose,
        }
    }

    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// How much is still to come, where that is known.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::Nothing => Some(0),
            Self::Sized(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose | Self::Lost => None,
        }
    }

    /// The next piece out of `inbox`.
    ///
    /// # Errors
    /// [`BadChunk`]; nothing more can be read then.
    pub fn next(&mut self, inbox: &mut Inbox, limits: HeadLimits) -> Result<Piece, BadChunk> {
        match self {
            Self::Nothing | Self::Lost => Ok(Piece::End),
            Self::Sized(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(inbox.bytes().len());
                if length == 0 {
                    return Ok(Piece::Wanting(*left));
                }
                *left -= length as u64;
                if *left == 0 {
                    *self = Self::Nothing;
                }
                Ok(Piece::Frame(Frame::Data(inbox.take(length))))
            }
            Self::UntilClose if inbox.is_empty() => Ok(Piece::Wanting(UNKNOWN_BYTES)),
            Self::UntilClose => Ok(Piece::Frame(Frame::Data(inbox.take_all()))),
            Self::Chunked(chunked) => match chunked.step(inbox.bytes(), limits) {
                Ok(Step::Data { skip, length }) => {
                    inbox.skip(skip);
                    Ok(Piece::Frame(Frame::Data(inbox.take(length))))
                }
                Ok(Step::End { skip, trailers }) => {
                    inbox.skip(skip);
                    *self = Self::Nothing;
                    Ok(trailers.map_or(Piece::End, |trailers| Piece::Frame(Frame::Trailers(trailers))))
                }
                Ok(Step::More { skip }) => {
                    inbox.skip(skip);
                    Ok(Piece::Wanting(chunked.left_bytes()))
                }
                Err(bad) => {
                    *self = Self::Lost;
                    Err(bad)
                }
            },
        }
    }

    /// The connection has ended: whether that was the body's end.
    pub fn ended(&mut self) -> bool {
        let is_whole = matches!(self, Self::Nothing | Self::UntilClose);
        *self = if is_whole { Self::Nothing } else { Self::Lost };
        is_whole
    }
}
