//! A connection that becomes something else (RFC 9110 section 7.8): after a 101 both ends are copied to each other, until both
//! are done. No timeout ends it.

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::record::Record;
use super::relay::relay;
use super::way;
use crate::error::ProxyError;
use crate::listen::stream::ClientStream;
use crate::tcp::forward::Copied;
use crate::upstream::response_body::UpstreamBody;

/// Starts copying as soon as the client has got its 101. The task ends with either connection; the record it owns holds the
/// proxy's drain open until then.
pub(super) fn begin(body: UpstreamBody, switching: OnUpgrade, record: Record) {
    tokio::task::spawn_local(async move {
        let mut record = record;
        let gone = record.way().gone.clone();
        tokio::select! {
            ended = run(body, switching, &mut record) => match ended {
                Ok(copied) => record.copied(&copied),
                Err(error) => record.broke_off(&error, std::time::Instant::now()),
            },
            () = way::gone(gone) => record.abandoned(),
        }
    });
}

async fn run(body: UpstreamBody, switching: OnUpgrade, record: &mut Record) -> Result<Copied, ProxyError> {
    let address = body.address();
    let failed = |source| ProxyError::Upgrade { address, source };
    let upgraded = switching.await.map_err(failed)?;
    let not_ours = || ProxyError::BadResponse { problem: "the switched connection is none of ours" };
    let connection = body.into_connection().ok_or_else(not_ours)?;
    let (upstream, read_ahead, _open) = connection.into_stream().await?;
    let parts = upgraded.downcast::<TokioIo<ClientStream>>().map_err(|_| not_ours())?;
    let mut client = parts.io.into_inner();
    client.put_back(parts.read_buf);
    Ok(relay(client, upstream, read_ahead, record.scratch()).await)
}
