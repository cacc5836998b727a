//! A connection, or a stream, that becomes something else (RFC 9110 section 7.8, RFC 8441): once that is answered both ends are copied
//! to each other, until both are done. No timeout ends it.

use bytes::Bytes;

use super::record::Record;
use super::relay::{End, relay};
use crate::h2::Duplex;
use crate::http::asked::Tunnel;
use crate::listen::stream::ClientStream;
use crate::upstream::response_body::Bare;

/// The endpoint's side of it, and the record that is written when it is over.
pub struct Switched {
    endpoint: Bare,
    record: Record,
}

impl Switched {
    pub(super) fn new(endpoint: Bare, record: Record) -> Self {
        Self { endpoint, record }
    }

    /// Copies until both sides are done. The client has got its 101.
    pub async fn run(self, client: ClientStream) {
        self.copy(client).await;
    }

    async fn copy(self, client: impl End) {
        let Self { endpoint, mut record } = self;
        let copied = match endpoint {
            Bare::Connection(connection) => {
                let (upstream, read_ahead, _open) = connection.into_stream();
                relay(client, upstream, read_ahead, record.scratch()).await
            }
            Bare::Stream(stream, _place) => relay(client, Duplex::new(stream), Bytes::new(), record.scratch()).await,
        };
        record.copied(&copied);
    }
}

impl Tunnel for Switched {
    /// The same on a stream. The client has got its 200.
    async fn carry(self, client: Duplex) {
        self.copy(client).await;
    }
}
