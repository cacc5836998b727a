//! Real sockets on loopback: what is refused is asked again, what accepted is never asked again.

use tokio::net::TcpListener;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn target(addresses: &[SocketAddr]) -> ProbeTarget {
    ProbeTarget { id: EndpointId::new("c1", 1), addresses: addresses.to_vec() }
}

async fn next(verdicts: &mut mpsc::Receiver<(EndpointId, Verdict)>) -> Verdict {
    timeout(PATIENCE, verdicts.recv()).await.expect("a verdict in time").expect("the prober lives").1
}

#[tokio::test]
async fn what_does_not_listen_yet_is_tried_until_it_does_and_never_after() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (sender, mut verdicts) = mpsc::channel(16);
    let mut prober = Prober::new(sender);
    prober.probe_only(vec![target(&[address])]);
    assert_eq!(next(&mut verdicts).await, Verdict::Waiting);
    let listener = TcpListener::bind(address).await.unwrap();
    assert_eq!(next(&mut verdicts).await, Verdict::Accepted);
    // The probe's own connection is the only one that ever comes: its task has ended.
    let ended = async {
        while !prober.running.values().all(|probe| probe.task.is_finished()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ended).await.expect("the probe ends once it is decided");
    drop(timeout(PATIENCE, listener.accept()).await.expect("the probe came").unwrap());
    assert!(timeout(PROBE_INTERVAL * 2, listener.accept()).await.is_err(), "asked again after it had accepted");
}

#[tokio::test]
async fn what_is_no_longer_wanted_is_no_longer_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (sender, mut verdicts) = mpsc::channel(16);
    let mut prober = Prober::new(sender);
    prober.probe_only(vec![target(&[address])]);
    assert_eq!(next(&mut verdicts).await, Verdict::Waiting);
    prober.probe_only(Vec::new());
    assert!(prober.running.is_empty());
    let listener = TcpListener::bind(address).await.unwrap();
    assert!(timeout(PROBE_INTERVAL * 2, listener.accept()).await.is_err(), "tried after it was taken off the list");
}
