//! h2 from the outside (RFC 9113, RFC 7541): frames of our own making against the proxy, whole or byte by byte, on both of its sides.

pub mod huffman; // text, coded
pub mod hpack; // field lines, compressed
pub mod frame; // what stands on the wire
pub mod heard; // what one end has said
pub mod transport; // a socket, or TLS over one
pub mod client; // a client that sends what it is given
pub mod origin; // an origin that answers as it is told
pub mod world; // one proxy before one h2 origin
mod table; // rows of frames
mod frames; // each kind of frame
mod streams; // states of streams, and of the connection
mod windows; // flow control
mod messages; // requests
mod compression; // header blocks
mod hostile; // peers that mean harm

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let rows = [frames::rows(), streams::rows(), windows::rows(), messages::rows(), compression::rows()];
    let rows = table::trials("h2", rows.into_iter().flatten().collect());
    let scenarios =
        [streams::SCENARIOS, windows::SCENARIOS, messages::SCENARIOS, compression::SCENARIOS, hostile::SCENARIOS];
    rows.chain(scenarios.into_iter().flat_map(|all| table::scenarios("h2", all))).collect()
}
