//! The proxy against RFC 9110, 9112 and 3986: bytes in, and what becomes of them on the other side. One row of a table is one
//! test; its name begins with the section that it comes from.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

mod wire; // what a message is, to the letter
mod backend; // an origin that keeps every byte
mod client; // a client that sends what it is given
mod world; // one proxy between both
mod asked; // rows of requests
mod request_line; // methods, targets, versions
mod host; // whom a request is for
mod fields; // field lines and their ends
mod framing; // where a body ends
mod chunked; // chunks and trailers

use libtest_mimic::Arguments;

/// Cases wait for sockets, not for a core.
const THREADS: usize = 16;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    let trials = [
        asked::trials("request line", request_line::rows()),
        asked::trials("host", host::rows()),
        asked::trials("fields", fields::rows()),
        asked::trials("framing", framing::rows()),
        asked::trials("chunked", chunked::rows()),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}
