//! Two connections that talk through random chunks: many streams, windows, resets, and invariants at every step. A seed that fails
//! is printed.

use std::collections::BTreeMap;

use http::Method;

use super::*;
use crate::message::name::Name;

/// A message on its way: what is still to be sent of it, and what came.
#[derive(Debug, Default)]
struct Way {
    unsent: Vec<u8>,
    ended: bool,
    got: Vec<u8>,
    got_end: bool,
    trailers: bool,
}

struct Exchange {
    number: u32,
    client: StreamKey,
    server: Option<StreamKey>,
    request: Way,
    response: Way,
    answered: bool,
    interims: u32,
    interims_got: u32,
    cancelled: bool,
    heard: bool,
}

struct World {
    random: fastrand::Rng,
    now: Instant,
    client: Connection,
    server: Connection,
    /// Bytes between them.
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    exchanges: BTreeMap<u32, Exchange>,
    opened: u32,
    done: u32,
    seed: u64,
}

/// What is sent in that exchange, that way.
fn body(number: u32, way: u32, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(number) * 2 + u64::from(way));
    (0..length).map(|_| random.u8(..)).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let now = Instant::now();
        let settings = Settings {
            stream_window_bytes: random.u32(1000..65_535),
            stream_window_bytes_max: random.u32(65_535..1 << 20),
            connection_window_bytes: random.u32(65_535..1 << 21),
            ..Settings::default()
        };
        let limits = Limits { streams_max: random.u32(1..40), resets_max: u32::MAX, ..Limits::default() };
        let client = Connection::client(&settings, &limits, now);
        let server = Connection::server(&settings, &limits, now);
        let (to_server, to_client) = (Vec::new(), Vec::new());
        Self { random, now, client, server, to_server, to_client, exchanges: BTreeMap::new(), opened: 0, done: 0, seed }
    }

    fn length(&mut self) -> usize {
        match self.random.u8(..10) {
            0..3 => 0,
            3..8 => self.random.usize(..3000),
            _ => self.random.usize(..300_000),
        }
    }

    fn open(&mut self) {
        if !self.client.can_open() {
            return;
        }
        let (number, request_length) = (self.opened, self.length());
        let end = request_length == 0 && self.random.bool();
        let fields = (0..self.random.u32(..6)).map(|place| (format!("X-{place}"), "v".repeat(self.random.usize(..50))));
        let mut head = RequestHead::new(Method::POST, Version::HTTP_11, b"/some/path", fields.collect());
        head.set_authority(b"a.example");
        head.fields.push(b"x-number", number.to_string().as_bytes());
        let client = self.client.send_request(&head, end, self.now).unwrap();
        let request = Way { unsent: body(number, 0, request_length), ended: end, ..Way::default() };
        let response_length = self.length();
        let response = Way { unsent: body(number, 1, response_length), ..Way::default() };
        let (answered, cancelled, heard) = (false, false, false);
        let exchange = Exchange {
            number,
            client,
            server: None,
            request,
            response,
            answered,
            interims: 0,
            interims_got: 0,
            cancelled,
            heard,
        };
        self.exchanges.insert(number, exchange);
        self.opened += 1;
    }

    fn step(&mut self) {
        match self.random.u8(..12) {
            0 if self.opened < 120 => self.open(),
            1..3 => deliver(&mut self.random, &mut self.client, &mut self.to_server, &mut self.server, self.now),
            3..5 => deliver(&mut self.random, &mut self.server, &mut self.to_client, &mut self.client, self.now),
            _ => self.exchange(),
        }
        self.events();
        self.client.check_invariants();
        self.server.check_invariants();
    }

    fn events(&mut self) {
        while let Some(event) = self.server.next_event() {
            if let Event::Request { stream, head } = event {
                let number: u32 =
                    std::str::from_utf8(head.fields.named(b"x-number").unwrap()).unwrap().parse().unwrap();
                assert_eq!((head.path(), &head.method), (b"/some/path".as_slice(), &Method::POST));
                match self.exchanges.get_mut(&number) {
                    Some(exchange) => exchange.server = Some(stream),
                    None => self.server.release(stream),
                }
            }
        }
        while self.client.next_event().is_some() {}
    }

    /// One thing happens to one exchange.
    fn exchange(&mut self) {
        let numbers: Vec<u32> = self.exchanges.keys().copied().collect();
        if numbers.is_empty() {
            return;
        }
        let number = numbers[self.random.usize(..numbers.len())];
        let mut exchange = self.exchanges.remove(&number).unwrap();
        match self.random.u16(..400) {
            0 => {
                let code = if self.random.bool() { Code::CANCEL } else { Code::NO_ERROR };
                self.client.reset(exchange.client, code);
                exchange.cancelled = true;
            }
            1 if exchange.server.is_some() => {
                self.server.reset(exchange.server.unwrap(), Code::INTERNAL_ERROR);
                exchange.cancelled = true;
            }
            2..100 => send(&mut self.random, &mut self.client, exchange.client, &mut exchange.request),
            100..200 => self.receive_response(&mut exchange),
            200..300 => self.receive_request(&mut exchange),
            _ => self.answer(&mut exchange),
        }
        let is_over = exchange.cancelled || (exchange.request.got_end && exchange.response.got_end);
        if is_over {
            if !exchange.cancelled {
                assert!(exchange.request.got == body(exchange.number, 0, exchange.request.got.len()));
                assert!(exchange.response.got == body(exchange.number, 1, exchange.response.got.len()));
                assert!(exchange.request.unsent.is_empty() && exchange.response.unsent.is_empty());
                assert!(exchange.heard && exchange.interims == exchange.interims_got, "seed {}", self.seed);
            }
            self.client.release(exchange.client);
            if let Some(key) = exchange.server {
                self.server.release(key);
            }
            self.done += 1;
        } else {
            self.exchanges.insert(number, exchange);
        }
    }

    fn answer(&mut self, exchange: &mut Exchange) {
        let Some(key) = exchange.server else { return };
        if !exchange.answered {
            let is_interim = self.random.u8(..4) == 0;
            let status = if is_interim { StatusCode::EARLY_HINTS } else { StatusCode::OK };
            let fields = [("content-type", "text/plain"), ("X-Served-By", "one")].into_iter().collect();
            self.server.send_response(key, &ResponseHead::new(status, Version::HTTP_11, fields), false).unwrap();
            exchange.interims += u32::from(is_interim);
            exchange.answered = !is_interim;
        } else {
            send(&mut self.random, &mut self.server, key, &mut exchange.response);
        }
    }

    fn receive_request(&mut self, exchange: &mut Exchange) {
        let Some(key) = exchange.server else { return };
        match self.server.read(key) {
            Some(Received::Frame(frame)) => exchange.request.take(frame),
            Some(Received::End) => exchange.request.got_end = true,
            Some(Received::Reset(reset)) => assert!(exchange.cancelled, "seed {}: {reset:?}", self.seed),
            Some(Received::Head(head)) => panic!("{head:?}"),
            None => {}
        }
    }

    fn receive_response(&mut self, exchange: &mut Exchange) {
        match self.client.read(exchange.client) {
            Some(Received::Head(head)) if head.status.is_informational() => exchange.interims_got += 1,
            Some(Received::Head(head)) => {
                assert_eq!(head.fields.get(Name::ContentType), Some(b"text/plain".as_slice()));
                exchange.heard = true;
            }
            Some(Received::Frame(frame)) => exchange.response.take(frame),
            Some(Received::End) => exchange.response.got_end = true,
            // Refused before the server's settings had come: nobody saw it.
            Some(Received::Reset(reset)) => {
                assert!(reset.code == Code::REFUSED_STREAM && !reset.seen, "seed {}: {reset:?}", self.seed);
                exchange.cancelled = true;
            }
            None => {}
        }
    }
}

impl Way {
    fn take(&mut self, frame: Frame) {
        assert!(!self.got_end && !self.trailers);
        match frame {
            Frame::Data(data) => self.got.extend_from_slice(&data),
            Frame::Trailers(fields) => {
                assert_eq!(fields.get(Name::GrpcStatus), Some(b"0".as_slice()));
                self.trailers = true;
            }
        }
    }
}

/// Sends some of a body, its trailers, or its end.
fn send(random: &mut fastrand::Rng, connection: &mut Connection, key: StreamKey, way: &mut Way) {
    if way.ended || !connection.has_room(key) {
        return;
    }
    if way.unsent.is_empty() && random.bool() {
        let sent = connection.send_trailers(key, [("grpc-status", "0")].into_iter().collect());
        way.ended = true;
        return assert!(matches!(sent, Ok(()) | Err(SendError::Over)));
    }
    let rest = way.unsent.split_off(way.unsent.len().min(random.usize(..40_000)));
    let piece = std::mem::replace(&mut way.unsent, rest);
    way.ended = way.unsent.is_empty() && random.bool();
    // A stream that was refused is over; its reader says so.
    let sent = connection.send_data(key, Bytes::from(piece), way.ended);
    assert!(matches!(sent, Ok(()) | Err(SendError::Over)));
}

/// Some of what one wrote reaches the other.
fn deliver(random: &mut fastrand::Rng, from: &mut Connection, way: &mut Vec<u8>, to: &mut Connection, now: Instant) {
    way.extend(drain(from));
    let cut = match random.u8(..3) {
        0 => way.len(),
        1 => random.usize(..=way.len()),
        _ => random.usize(..=way.len().min(20)),
    };
    let rest = way.split_off(cut);
    to.receive(&std::mem::replace(way, rest), now).unwrap();
}

#[test]
fn many_streams_through_random_chunks() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        let mut steps = 0;
        while world.done < 120 {
            world.step();
            steps += 1;
            assert!(steps < 400_000, "seed {seed}: {} of {} are done", world.done, world.opened);
        }
        for connection in [&world.client, &world.server] {
            assert_eq!(connection.failed(), None);
        }
    }
}
