//! Bytes both ways, and the end of both connections.

use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::listen::stream::ClientStream;
use crate::tcp::forward::{self, Copied, Scratch};

/// Copies until both connections are over, and closes them as they ended: whoever is left when the other one broke off is told by
/// a reset. An orderly end would make what was cut look whole.
pub(super) async fn relay(
    mut client: ClientStream,
    mut upstream: TcpStream,
    read_ahead: Bytes,
    scratch: &Scratch,
) -> Copied {
    let copied = forward::copy(&mut client, &mut upstream, read_ahead, scratch).await;
    if copied.broken.is_some() {
        client.flags().reset_on_close();
        // One that is gone already needs no telling.
        let _ = SockRef::from(&upstream).set_linger(Some(Duration::ZERO));
    }
    copied
}
