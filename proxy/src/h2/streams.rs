//! The streams of a connection: where they are kept, and what is known of each (RFC 9113 section 5.1).
//!
//! ```text
//!   (idle) ──HEADERS──▶ open ──END_STREAM received──▶ half closed (remote) ──END_STREAM sent──▶ closed
//!                        │ └──END_STREAM sent──────▶ half closed (local) ───END_STREAM received──▶ closed
//!                        └──RST_STREAM, either way──▶ closed
//! ```
//! A closed stream keeps its place until whoever holds it has let go, and its last byte is on its way.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use super::error::Reset;
use crate::message::fields::Fields;
use crate::message::{Frame, ResponseHead};

/// One stream of one connection, for as long as it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamKey {
    pub id: u32,
    pub(super) slot: u32,
}

impl StreamKey {
    /// A small number of its own among the streams that are held.
    #[must_use]
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What a reader finds on a stream.
#[derive(Debug)]
pub enum Received {
    /// A response head, interim ones (1xx) included.
    Head(ResponseHead),
    Frame(Frame),
    End,
    Reset(Reset),
}

/// Unread pieces are joined while they are shorter than this, so that many small frames take no more memory than few large ones.
const JOINED_BYTES_MAX: usize = 4096;

/// What came and was not read yet.
#[derive(Debug)]
pub(super) enum Unread {
    Head(Box<ResponseHead>),
    Data(Vec<u8>),
    Trailers(Fields),
}

#[derive(Debug)]
pub(super) struct Stream {
    pub id: u32,
    pub opened_at: Instant,
    /// The caller has its key.
    pub held: bool,

    pub received_end: bool,
    /// The head of the message that the peer sends is there; interim ones do not count.
    pub received_head: bool,
    pub interims: u32,
    /// What Content-Length promised and did not come yet.
    pub length_left: Option<u64>,
    /// Neither Content-Length nor DATA mean anything: a response to HEAD, 204, 304.
    pub bodiless: bool,
    pub unread: VecDeque<Unread>,
    pub unread_bytes: u32,
    /// How much the peer may send.
    pub receive_window: i64,
    /// How large that is kept.
    pub receive_target: u32,
    /// What was read, and not given back to the peer yet.
    pub owed: u32,
    /// The reader found nothing, and wants to be told of more.
    pub reader_waits: bool,

    pub sent_end: bool,
    pub sent_head: bool,
    pub send_window: i64,
    pub unsent: VecDeque<Bytes>,
    pub unsent_bytes: usize,
    /// Behind `unsent`.
    pub unsent_trailers: Option<Fields>,
    /// Behind `unsent`, there is nothing more.
    pub unsent_end: bool,
    pub writer_waits: bool,
    /// It stands in the ring of those that may send.
    pub in_ring: bool,

    pub reset: Option<Reset>,
}

impl Stream {
    fn new(id: u32, now: Instant) -> Self {
        Self {
            id,
            opened_at: now,
            held: false,
            received_end: false,
            received_head: false,
            interims: 0,
            length_left: None,
            bodiless: false,
            unread: VecDeque::new(),
            unread_bytes: 0,
            receive_window: 0,
            receive_target: 0,
            owed: 0,
            reader_waits: false,
            sent_end: false,
            sent_head: false,
            send_window: 0,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            unsent_trailers: None,
            unsent_end: false,
            writer_waits: false,
            in_ring: false,
            reset: None,
        }
    }

    pub fn is_closed(&self) -> bool {
        self.reset.is_some() || (self.received_end && self.sent_end)
    }

    /// Whether nothing more may be sent.
    pub fn is_done_sending(&self) -> bool {
        self.reset.is_some() || self.sent_end || self.unsent_end
    }

    /// Has something to send, and the window for it.
    pub fn can_send(&self) -> bool {
        self.unsent_bytes > 0 && self.send_window > 0
    }

    pub fn push_data(&mut self, piece: &[u8]) {
        self.unread_bytes += piece.len() as u32;
        match self.unread.back_mut() {
            Some(Unread::Data(last)) if last.len() + piece.len() <= JOINED_BYTES_MAX => last.extend_from_slice(piece),
            _ => self.unread.push_back(Unread::Data(piece.to_vec())),
        }
    }

    /// Nothing of it will be sent or read any more.
    pub fn clear(&mut self) {
        self.unread.clear();
        self.unread_bytes = 0;
        self.unsent.clear();
        self.unsent_bytes = 0;
        self.unsent_trailers = None;
    }
}

/// All streams that have not been let go.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    index: Index,
    /// Slots that may send, each for one frame before its turn comes again.
    pub ring: VecDeque<u32>,
    /// Those that are not closed.
    pub active: u32,
}

impl Streams {
    /// Streams that have a place, closed ones included.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn open(&mut self, id: u32, now: Instant) -> StreamKey {
        let slot = match self.free.pop() {
            Some(slot) => {
                let stream = &mut self.slots[slot as usize];
                // The queues' memory is used again.
                let (unread, unsent) = (std::mem::take(&mut stream.unread), std::mem::take(&mut stream.unsent));
                *stream = Stream { unread, unsent, ..Stream::new(id, now) };
                slot
            }
            None => {
                self.slots.push(Stream::new(id, now));
                self.slots.len() as u32 - 1
            }
        };
        self.index.insert(id, slot);
        self.active += 1;
        StreamKey { id, slot }
    }

    /// The place of a stream that the peer names.
    pub fn find(&self, id: u32) -> Option<StreamKey> {
        self.index.get(id).map(|slot| StreamKey { id, slot })
    }

    pub fn get(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slots.get_mut(key.slot as usize).filter(|stream| stream.id == key.id)
    }

    pub fn peek(&self, key: StreamKey) -> Option<&Stream> {
        self.slots.get(key.slot as usize).filter(|stream| stream.id == key.id)
    }

    pub fn key_of(&self, slot: u32) -> StreamKey {
        StreamKey { id: self.slots[slot as usize].id, slot }
    }

    pub fn remove(&mut self, key: StreamKey) {
        self.index.remove(key.id);
        self.leave_ring(key);
        let stream = &mut self.slots[key.slot as usize];
        stream.clear();
        stream.id = 0;
        self.free.push(key.slot);
        if self.len() == 0 && self.slots.len() > 32 {
            // A burst is over.
            *self = Self::default();
        }
    }

    /// Gives the stream a turn, if it has something that may be sent.
    pub fn enter_ring(&mut self, key: StreamKey) {
        if let Some(stream) = self.get(key)
            && !stream.in_ring
            && stream.can_send()
        {
            stream.in_ring = true;
            self.ring.push_back(key.slot);
        }
    }

    pub fn leave_ring(&mut self, key: StreamKey) {
        if let Some(stream) = self.get(key)
            && std::mem::take(&mut stream.in_ring)
        {
            self.ring.retain(|slot| *slot != key.slot);
        }
    }

    pub fn keys(&self) -> impl Iterator<Item = StreamKey> {
        let streams = self.slots.iter().enumerate().filter(|(_, stream)| stream.id != 0);
        streams.map(|(slot, stream)| StreamKey { id: stream.id, slot: slot as u32 })
    }
}

/// From ids to slots: open addressing, by the id itself. Ids come in order, so that neighbours seldom collide.
#[derive(Debug, Default)]
struct Index {
    /// Id and slot; id 0 is nobody's.
    places: Vec<(u32, u32)>,
    len: usize,
}

impl Index {
    fn home(&self, id: u32) -> usize {
        (id >> 1) as usize & (self.places.len() - 1)
    }

    fn get(&self, id: u32) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let mut place = self.home(id);
        loop {
            match self.places[place] {
                (found, slot) if found == id => return Some(slot),
                (0, _) => return None,
                _ => place = (place + 1) & (self.places.len() - 1),
            }
        }
    }

    fn insert(&mut self, id: u32, slot: u32) {
        if (self.len + 1) * 2 > self.places.len() {
            let doubled = (self.places.len() * 2).max(16);
            let old = std::mem::replace(&mut self.places, vec![(0, 0); doubled]);
            self.len = 0;
            for (id, slot) in old.into_iter().filter(|(id, _)| *id != 0) {
                self.insert(id, slot);
            }
        }
        let mut place = self.home(id);
        while self.places[place].0 != 0 {
            place = (place + 1) & (self.places.len() - 1);
        }
        self.places[place] = (id, slot);
        self.len += 1;
    }

    /// Those behind it move up, so that no search ends too early.
    fn remove(&mut self, id: u32) {
        if self.len == 0 {
            return;
        }
        let mask = self.places.len() - 1;
        let mut hole = self.home(id);
        while self.places[hole].0 != id {
            if self.places[hole].0 == 0 {
                return;
            }
            hole = (hole + 1) & mask;
        }
        let mut next = (hole + 1) & mask;
        while self.places[next].0 != 0 {
            let home = self.home(self.places[next].0);
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                self.places[hole] = self.places[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.places[hole] = (0, 0);
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_index_holds_what_a_map_holds() {
        for seed in 0..30 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut index, mut expected) = (Index::default(), BTreeMap::new());
            for turn in 0..2000 {
                let id = random.u32(1..300);
                if random.bool() && !expected.contains_key(&id) {
                    index.insert(id, turn);
                    expected.insert(id, turn);
                } else {
                    index.remove(id);
                    expected.remove(&id);
                }
                let probe = random.u32(1..300);
                assert_eq!(index.get(probe), expected.get(&probe).copied(), "seed {seed}, turn {turn}");
                assert_eq!(index.len, expected.len());
            }
        }
    }
}
