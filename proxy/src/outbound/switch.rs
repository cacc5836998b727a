//! A connection that becomes something else (RFC 9110 section 7.8): after a 101 both ends are copied to each other, until both
//! are done. No timeout ends it.

use super::record::Record;
use super::relay::relay;
use crate::listen::stream::ClientStream;
use crate::upstream::h1::H1Connection;

/// The endpoint's side of it, and the record that is written when it is over.
pub struct Switched {
    connection: Box<H1Connection>,
    record: Record,
}

impl Switched {
    pub(super) fn new(connection: Box<H1Connection>, record: Record) -> Self {
        Self { connection, record }
    }

    /// Copies until both sides are done. The client has got its 101.
    pub async fn run(self, client: ClientStream) {
        let Self { connection, mut record } = self;
        let (upstream, read_ahead, _open) = connection.into_stream();
        let copied = relay(client, upstream, read_ahead, record.scratch()).await;
        record.copied(&copied);
    }
}
