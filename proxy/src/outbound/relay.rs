//! Bytes both ways, and the end of both connections.

use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::h2::Duplex;
use crate::listen::stream::ClientStream;
use crate::tcp::forward::{self, Copied, Scratch};

/// What bytes come from and go to.
pub(super) trait End: AsyncRead + AsyncWrite + Unpin {
    /// Its other end is to hear that it broke off. One that is gone already needs no telling.
    fn break_off(&mut self);
}

impl End for ClientStream {
    fn break_off(&mut self) {
        self.flags().reset_on_close();
    }
}

impl End for TcpStream {
    fn break_off(&mut self) {
        // It is told when the socket closes.
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
    }
}

impl End for Duplex {
    fn break_off(&mut self) {
        Self::break_off(self);
    }
}

/// Copies until both are over, and closes them as they ended: whoever is left when the other one broke off is told by a reset. An
/// orderly end would make what was cut look whole.
pub(super) async fn relay(
    mut client: impl End,
    mut upstream: impl End,
    read_ahead: Bytes,
    scratch: &Scratch,
) -> Copied {
    let copied = forward::copy(&mut client, &mut upstream, read_ahead, scratch).await;
    if copied.broken.is_some() {
        client.break_off();
        upstream.break_off();
    }
    copied
}
