//! h2 over plain TCP: many requests under way on a connection; those that are due together leave with one write.

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::pace::Pace;
use super::{Due, Run};
use crate::certificates::NAME;
use crate::frame::{self, Frame};

/// What the proxy may send before it is told that more was read.
const WINDOW: u32 = 1 << 30;

/// Streams of an open load on one connection: what servers allow at least.
const STREAMS_MAX: usize = 100;

struct Connection<'r> {
    run: &'r Run,
    out: Vec<u8>,
    under_way: Vec<Stream>,
    stream_next: u32,
    /// Read since the window was last widened.
    unreported: u32,
    later_block: Vec<u8>,
}

struct Stream {
    id: u32,
    due: Due,
    ok: bool,
    body: usize,
}

pub(super) async fn drive(run: &Run, streams: usize) -> anyhow::Result<()> {
    let mut stream = run.connect().await?;
    let streams = if run.plan.rate.is_some() { STREAMS_MAX } else { streams };
    let mut connection = Connection::new(run);
    let mut input = Vec::with_capacity(128 << 10);
    loop {
        connection.fill(streams);
        if !connection.out.is_empty() {
            stream.write_all(&connection.out).await.context("sending requests")?;
            connection.out.clear();
        }
        if connection.under_way.is_empty() {
            match run.next().await {
                Some(due) => connection.send(due),
                None => return Ok(()),
            }
            continue;
        }
        if !connection.wait(&mut stream, &mut input, streams).await? {
            continue;
        }
        let mut taken = 0;
        while let Some(frame) = Frame::first_of(&input[taken..]) {
            taken += frame::HEAD + frame.payload.len();
            connection.take(frame)?;
        }
        input.drain(..taken);
    }
}

impl<'r> Connection<'r> {
    fn new(run: &'r Run) -> Self {
        let mut out = Vec::with_capacity(16 << 10);
        out.extend_from_slice(frame::PREFACE);
        frame::put_settings(&mut out, &[(frame::ENABLE_PUSH, 0), (frame::INITIAL_WINDOW_SIZE, 1 << 20)]);
        frame::put_window(&mut out, 0, WINDOW);
        // GET / over http, and the fields remembered from the first request.
        let mut later_block = vec![0x82, 0x86, 0x84];
        (1..=3).rev().for_each(|number| frame::put_again(&mut later_block, number));
        Self { run, out, under_way: Vec::new(), stream_next: 1, unreported: 0, later_block }
    }

    /// Sends what is due now.
    fn fill(&mut self, streams: usize) {
        while self.under_way.len() < streams {
            let Some(due) = self.run.pace.try_next(&self.run.told) else { return };
            self.send(due);
        }
    }

    fn send(&mut self, due: Due) {
        let id = self.stream_next;
        self.stream_next += 2;
        let flags = frame::END_HEADERS | frame::END_STREAM;
        if id == 1 {
            let mut block = vec![0x82, 0x86, 0x84];
            for (name, value) in [(1, NAME), (58, "bench/1.0"), (19, "*/*")] {
                frame::put_remembered(&mut block, name, value);
            }
            frame::put(&mut self.out, frame::HEADERS, flags, id, &block);
        } else {
            frame::put(&mut self.out, frame::HEADERS, flags, id, &self.later_block);
        }
        self.under_way.push(Stream { id, due, ok: false, body: 0 });
    }

    /// Waits for something to read (true), or, while there is room for another stream, for a request to be due.
    async fn wait(&mut self, stream: &mut TcpStream, input: &mut Vec<u8>, streams: usize) -> anyhow::Result<bool> {
        input.reserve(64 << 10);
        let room = self.under_way.len() < streams;
        let due = match &self.run.pace {
            Pace::Open { .. } if room && !self.run.pace.is_ended(&self.run.told) => Some(self.run.next()),
            _ => None,
        };
        let read = match due {
            None => stream.read_buf(input).await,
            Some(due) => tokio::select! {
                biased;
                read = stream.read_buf(input) => read,
                due = due => {
                    if let Some(due) = due {
                        self.send(due);
                    }
                    return Ok(false);
                }
            },
        };
        ensure!(read.context("reading responses")? > 0, "the connection ended under {} streams", self.under_way.len());
        Ok(true)
    }

    fn take(&mut self, frame: Frame<'_>) -> anyhow::Result<()> {
        match frame.kind {
            frame::HEADERS => {
                let stream = self.stream(frame.stream)?;
                // Trailers would be a second block; the backend sends none.
                ensure!(!stream.ok && frame::is_ok(frame.block()), "stream {}: not a 200", frame.stream);
                stream.ok = true;
            }
            frame::DATA => {
                self.unreported += frame.payload.len() as u32;
                if self.unreported > WINDOW / 2 {
                    frame::put_window(&mut self.out, 0, self.unreported);
                    self.unreported = 0;
                }
                self.stream(frame.stream)?.body += frame.payload.len();
            }
            frame::SETTINGS if !frame.has(frame::ACK) => {
                frame::put(&mut self.out, frame::SETTINGS, frame::ACK, 0, &[]);
            }
            frame::PING if !frame.has(frame::ACK) => {
                frame::put(&mut self.out, frame::PING, frame::ACK, 0, frame.payload);
            }
            frame::RST_STREAM => bail!("stream {} was reset: {:?}", frame.stream, frame.payload),
            frame::GOAWAY => bail!("the proxy goes away: {:?}", frame.payload),
            _ => {}
        }
        if matches!(frame.kind, frame::HEADERS | frame::DATA) && frame.has(frame::END_STREAM) {
            self.end(frame.stream)?;
        }
        Ok(())
    }

    fn stream(&mut self, id: u32) -> anyhow::Result<&mut Stream> {
        self.under_way.iter_mut().find(|stream| stream.id == id).with_context(|| format!("stream {id} is not ours"))
    }

    fn end(&mut self, id: u32) -> anyhow::Result<()> {
        let position = self.under_way.iter().position(|stream| stream.id == id);
        let stream = self.under_way.swap_remove(position.with_context(|| format!("stream {id} is not ours"))?);
        let right = self.run.plan.body;
        ensure!(stream.ok && stream.body == right, "a body of {} bytes; {right} are right", stream.body);
        self.run.answered(stream.due);
        Ok(())
    }
}
