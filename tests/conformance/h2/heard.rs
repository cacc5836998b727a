//! What one end of an h2 connection has said, read to the letter (RFC 9113). It shares no code with the proxy and forgives nothing:
//! whatever it takes has one meaning only.

use std::collections::BTreeMap;

use super::frame::{self, FRAME_BYTES_MAX, Frame, PREFACE, flag, kind, setting};
use super::hpack::Decoder;
use crate::wire::Fields;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    Client,
    Server,
}

/// Frames that a failing test shows.
const SHOWN_FRAMES: usize = 200;

/// What was said on one stream.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Interim ones, and the final one behind them.
    pub heads: Vec<Fields>,
    pub body: Vec<u8>,
    pub data_frames: usize,
    pub trailers: Option<Fields>,
    /// END_STREAM was there.
    pub whole: bool,
    pub reset: Option<u32>,
}

impl Said {
    /// The head that counts.
    pub fn head(&self) -> Option<&Fields> {
        self.heads.iter().find(|head| !is_interim(head))
    }

    /// All values of a field of that head.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.head().map(|head| head.all(name)).unwrap_or_default()
    }

    pub fn first(&self, name: &str) -> &str {
        self.all(name).first().copied().unwrap_or_default()
    }

    pub fn status(&self) -> &str {
        self.first(":status")
    }

    pub fn text(&self) -> String {
        crate::wire::text(&self.body)
    }

    /// Nothing more can come.
    pub fn is_over(&self) -> bool {
        self.whole || self.reset.is_some()
    }

    /// Looks like a message that came to its end.
    pub fn is_entire(&self) -> bool {
        self.whole && self.reset.is_none_or(|code| code == frame::code::NO_ERROR)
    }
}

/// One direction of a connection.
#[derive(Debug)]
pub struct Heard {
    speaker: Speaker,
    buffer: Vec<u8>,
    preface_left: usize,
    /// What the reading end has said that it takes.
    frame_bytes_max: usize,
    decoder: Decoder,
    block: Option<(Frame, Vec<u8>)>,
    pub settings: BTreeMap<u16, u32>,
    pub settings_frames: usize,
    pub settings_acks: usize,
    pub pings: usize,
    pub pongs: Vec<Vec<u8>>,
    /// Last stream and code.
    pub goaways: Vec<(u32, u32)>,
    /// By how much it enlarged the windows of streams, and of the connection.
    pub windows: BTreeMap<u32, u64>,
    pub streams: BTreeMap<u32, Said>,
    pub frames: Vec<Frame>,
    /// Why what came has no one meaning.
    pub broken: Option<String>,
    /// Nothing more comes.
    pub ended: bool,
}

impl Heard {
    pub fn new(speaker: Speaker, settings: &[(u16, u32)]) -> Self {
        let told = |name: u16| settings.iter().find(|(told, _)| *told == name).map(|(_, value)| *value as usize);
        Self {
            speaker,
            buffer: Vec::new(),
            preface_left: if speaker == Speaker::Client { PREFACE.len() } else { 0 },
            frame_bytes_max: told(setting::MAX_FRAME_SIZE).unwrap_or(FRAME_BYTES_MAX),
            decoder: Decoder::new(told(setting::HEADER_TABLE_SIZE).unwrap_or(4096).max(4096)),
            block: None,
            settings: BTreeMap::new(),
            settings_frames: 0,
            settings_acks: 0,
            pings: 0,
            pongs: Vec::new(),
            goaways: Vec::new(),
            windows: BTreeMap::new(),
            streams: BTreeMap::new(),
            frames: Vec::new(),
            broken: None,
            ended: false,
        }
    }

    pub fn on(&self, stream: u32) -> Option<&Said> {
        self.streams.get(&stream)
    }

    /// Takes what came, and tells what good manners answer to it: acknowledgements, and windows.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.buffer.extend_from_slice(bytes);
        let mut manners = Vec::new();
        if self.preface_left > 0 {
            let there = self.buffer.len().min(PREFACE.len());
            if self.buffer[..there] != PREFACE[..there] {
                self.broken = Some("no preface".into());
            }
            if there < PREFACE.len() {
                return manners;
            }
            self.buffer.drain(..there);
            self.preface_left = 0;
        }
        let mut at = 0;
        while self.broken.is_none()
            && let Some((frame, length)) = Frame::read(&self.buffer[at..])
        {
            at += length;
            match self.take(&frame) {
                Ok(answer) => manners.extend(answer),
                Err(why) => self.broken = Some(format!("{why}: {frame:?}")),
            }
            if self.frames.len() < SHOWN_FRAMES {
                let payload = frame.payload[..frame.payload.len().min(100)].to_vec();
                self.frames.push(Frame { payload, ..frame });
            }
        }
        self.buffer.drain(..at);
        manners
    }

    fn take(&mut self, frame: &Frame) -> Result<Vec<u8>, String> {
        if self.settings_frames == 0 && (frame.kind != kind::SETTINGS || frame.has(flag::ACK)) {
            return Err("SETTINGS come first (9113 3.4)".into());
        }
        if frame.payload.len() > self.frame_bytes_max {
            return Err("a frame longer than was allowed (9113 4.2)".into());
        }
        let within = self.block.as_ref().map(|(begun, _)| begun.stream);
        if within.is_some_and(|stream| frame.kind != kind::CONTINUATION || frame.stream != stream) {
            return Err("a frame within a header block (9113 4.3)".into());
        }
        let length = frame.payload.len();
        match frame.kind {
            kind::DATA => return self.data(frame),
            kind::HEADERS => self.headers(frame)?,
            kind::CONTINUATION if within.is_some() => self.continuation(frame)?,
            kind::SETTINGS => return self.settings(frame),
            kind::PING if length == 8 && frame.stream == 0 => {
                if frame.has(flag::ACK) {
                    self.pongs.push(frame.payload.clone());
                } else {
                    self.pings += 1;
                    return Ok(frame::frame(kind::PING, flag::ACK, 0, &frame.payload));
                }
            }
            kind::RST_STREAM if length == 4 => {
                let said = self.streams.get_mut(&frame.stream).filter(|_| frame.stream != 0);
                // One that was refused at its head has said nothing.
                let said = match said {
                    Some(said) => said,
                    None if self.speaker == Speaker::Server => self.streams.entry(frame.stream).or_default(),
                    None => return Err("RST_STREAM on an idle stream (9113 6.4)".into()),
                };
                said.reset = said.reset.or(frame.number(0));
            }
            kind::GOAWAY if length >= 8 && frame.stream == 0 => {
                let (last, code) = (frame.number(0).unwrap_or(0), frame.number(4).unwrap_or(0));
                if self.goaways.last().is_some_and(|(before, _)| last > *before) {
                    return Err("a GOAWAY for more streams than the one before (9113 6.8)".into());
                }
                self.goaways.push((last, code));
            }
            kind::WINDOW_UPDATE if length == 4 => {
                let increment = frame.number(0).filter(|increment| *increment > 0).ok_or("no increment (9113 6.9)")?;
                *self.windows.entry(frame.stream).or_default() += u64::from(increment);
            }
            kind::PRIORITY if length == 5 => {}
            known if known <= kind::CONTINUATION => return Err("a frame that may not be so".into()),
            _ => {}
        }
        Ok(Vec::new())
    }

    fn settings(&mut self, frame: &Frame) -> Result<Vec<u8>, String> {
        if frame.stream != 0 || !frame.payload.len().is_multiple_of(6) {
            return Err("SETTINGS that may not be so (9113 6.5)".into());
        }
        if frame.has(flag::ACK) {
            self.settings_acks += 1;
            return Ok(Vec::new());
        }
        self.settings_frames += 1;
        for entry in frame.payload.chunks(6) {
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            self.settings.insert(u16::from_be_bytes([entry[0], entry[1]]), value);
        }
        Ok(frame::settings_ack())
    }

    /// The stream of a frame that belongs to a message.
    fn message(&mut self, frame: &Frame) -> Result<&mut Said, String> {
        let opens = self.speaker == Speaker::Client && frame.kind == kind::HEADERS;
        if frame.stream == 0 || frame.stream.is_multiple_of(2) {
            return Err("a stream that is nobody's".into());
        }
        let highest = self.streams.keys().next_back().copied().unwrap_or(0);
        if opens && !self.streams.contains_key(&frame.stream) && frame.stream < highest {
            return Err("a stream lower than the last (9113 5.1.1)".into());
        }
        let said = self.streams.entry(frame.stream).or_default();
        if said.is_over() {
            return Err("more on a stream that is over (9113 5.1)".into());
        }
        Ok(said)
    }

    fn data(&mut self, frame: &Frame) -> Result<Vec<u8>, String> {
        let ends = frame.has(flag::END_STREAM);
        let length = frame.payload.len() as u32;
        let said = self.message(frame)?;
        if said.head().is_none() {
            return Err("DATA before a head (9113 8.1)".into());
        }
        let mut payload = &frame.payload[..];
        if frame.has(flag::PADDED) {
            let padding = usize::from(*payload.first().ok_or("no padding length")?);
            payload = payload[1..].len().checked_sub(padding).map(|end| &payload[1..=end]).ok_or("too much padding")?;
        }
        said.body.extend_from_slice(payload);
        said.data_frames += 1;
        if ends {
            end(said)?;
        }
        if length == 0 {
            return Ok(Vec::new());
        }
        let stream = if ends { Vec::new() } else { frame::window_update(frame.stream, length) };
        Ok([frame::window_update(0, length), stream].concat())
    }

    fn headers(&mut self, frame: &Frame) -> Result<(), String> {
        let mut payload = &frame.payload[..];
        if frame.has(flag::PADDED) {
            let padding = usize::from(*payload.first().ok_or("no padding length")?);
            payload = payload[1..].len().checked_sub(padding).map(|end| &payload[1..=end]).ok_or("too much padding")?;
        }
        if frame.has(flag::PRIORITY) {
            payload = payload.get(5..).ok_or("no priority")?;
        }
        let begun = Frame { payload: Vec::new(), ..frame.clone() };
        if frame.has(flag::END_HEADERS) {
            return self.lines(&begun, payload);
        }
        self.block = Some((begun, payload.to_vec()));
        Ok(())
    }

    fn continuation(&mut self, frame: &Frame) -> Result<(), String> {
        if let Some((_, block)) = &mut self.block {
            block.extend_from_slice(&frame.payload);
        }
        if frame.has(flag::END_HEADERS)
            && let Some((begun, block)) = self.block.take()
        {
            return self.lines(&begun, &block);
        }
        Ok(())
    }

    fn lines(&mut self, frame: &Frame, block: &[u8]) -> Result<(), String> {
        let lines = self.decoder.decode(block)?;
        let (ends, speaker) = (frame.has(flag::END_STREAM), self.speaker);
        let said = self.message(frame)?;
        if said.head().is_some() {
            if !ends {
                return Err("trailers that do not end the stream (9113 8.1)".into());
            }
            sound(&lines, &[])?;
            said.trailers = Some(lines);
        } else {
            let pseudo: &[&str] = match speaker {
                Speaker::Client if lines.has(":protocol") => {
                    &[":method", ":scheme", ":path", ":authority", ":protocol"]
                }
                Speaker::Client if lines.first(":method") == Some("CONNECT") => &[":method", ":authority"],
                Speaker::Client => &[":method", ":scheme", ":path", ":authority"],
                Speaker::Server => &[":status"],
            };
            sound(&lines, pseudo)?;
            if ends && is_interim(&lines) {
                return Err("an interim response that ends the stream (9113 8.1)".into());
            }
            said.heads.push(lines);
        }
        if ends { end(said) } else { Ok(()) }
    }
}

/// The last frame of a message has come.
fn end(said: &mut Said) -> Result<(), String> {
    said.whole = true;
    let lengths = said.all("content-length");
    let is_request = said.head().is_some_and(|head| head.has(":method"));
    match lengths[..] {
        [] => Ok(()),
        [length] if !is_request || length == said.body.len().to_string() => Ok(()),
        _ => Err(format!("Content-Length {lengths:?} of {} bytes (9113 8.1.1)", said.body.len())),
    }
}

fn is_interim(head: &Fields) -> bool {
    head.first(":status").is_some_and(|status| status.starts_with('1'))
}

/// Lines as they may stand in a head with these pseudo-headers, or in trailers (RFC 9113 sections 8.2 and 8.3).
fn sound(lines: &Fields, pseudo: &[&str]) -> Result<(), String> {
    let count = lines.0.iter().take_while(|(name, _)| name.starts_with(':')).count();
    let mut found: Vec<&str> = lines.0[..count].iter().map(|(name, _)| name.as_str()).collect();
    let mut wanted = pseudo.to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    if found != wanted {
        return Err(format!("pseudo-headers {found:?} instead of {wanted:?} (9113 8.3)"));
    }
    for (name, value) in &lines.0 {
        let bare = name.strip_prefix(':').unwrap_or(name);
        let is_name = !bare.is_empty()
            && bare
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte));
        let is_value = !value.chars().any(|letter| (letter < ' ' && letter != '\t') || letter == '\u{7f}')
            && value.trim_matches([' ', '\t']) == value;
        if !is_name || !is_value {
            return Err(format!("the line {name:?}: {value:?} (9113 8.2.1)"));
        }
        let of_connection = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
        if of_connection.contains(&name.as_str()) || (name == "te" && value != "trailers") {
            return Err(format!("the line {name:?}: {value:?} (9113 8.2.2)"));
        }
    }
    if lines.0[count..].iter().any(|(name, _)| name.starts_with(':')) {
        return Err("a pseudo-header behind a field (9113 8.3)".into());
    }
    match (lines.first(":authority"), &lines.all("host")[..]) {
        (_, []) => Ok(()),
        (Some(authority), [host]) if authority == *host => Ok(()),
        _ => Err("Host and :authority (9113 8.3.1)".into()),
    }
}
