//! The proxy against RFC 9110, 9112 and 3986: bytes in, and what becomes of them on the other side. One row of a table is one
//! test; its name begins with the section that it comes from.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

mod wire; // what a message is, to the letter
mod watched; // what threads write down, and a test waits for
mod backend; // an origin that keeps every byte
mod client; // a client that sends what it is given
mod world; // one proxy between both
mod asked; // rows of requests
mod answered; // rows of responses
mod scenario; // what no row can tell
mod request_line; // methods, targets, versions
mod host; // whom a request is for
mod fields; // field lines and their ends
mod framing; // where a body ends
mod codings; // transfer codings
mod chunked; // chunks and trailers
mod response_head; // status lines and fields of a response
mod response_body; // where it ends
mod response_chunks; // its chunks and trailers, and how it is cut
mod hop_by_hop; // what ends at a proxy
mod forwarded; // who called, as an origin hears it
mod interim; // what comes before a response
mod connection; // more than one message
mod exchange; // one message, while it is under way
mod waiting; // for a connection, where there may be no more
mod upgrade; // connections that become something else
mod tunnel; // streams that do
mod hostile; // peers that mean harm
mod bounded; // and what they cost
mod h2; // frames
mod downgrade; // one version on one side, another on the other
mod grpc; // calls

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
        answered::trials("response head", response_head::rows()),
        asked::trials("codings", codings::rows()),
        answered::trials("response body", response_body::rows()),
        answered::trials("response chunks", response_chunks::rows()),
        asked::trials("hop by hop", hop_by_hop::requests()),
        answered::trials("hop by hop", hop_by_hop::responses()),
        forwarded::trials(),
        scenario::trials("forwarded", forwarded::SCENARIOS),
        answered::trials("interim", interim::rows()),
        scenario::trials("interim", interim::SCENARIOS),
        asked::trials("connection", connection::rows()),
        scenario::trials("connection", connection::SCENARIOS),
        scenario::trials("exchange", exchange::SCENARIOS),
        scenario::trials("waiting", waiting::SCENARIOS),
        asked::trials("upgrade", upgrade::rows()),
        scenario::trials("upgrade", upgrade::SCENARIOS),
        scenario::trials("hostile", hostile::SCENARIOS),
        scenario::trials("bounded", bounded::SCENARIOS),
        downgrade::trials(),
        h2::trials(),
        grpc::trials(),
        tunnel::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}
