use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;

use super::support::*;

#[tokio::test]
async fn failures_are_tried_again_elsewhere() {
    let good = Backend::saying(200, "good").await;
    let bad = Backend::saying(503, "bad").await;
    let resetting = Backend::raw(async |mut stream| {
        read_request(&mut stream).await;
    })
    .await;
    let refusing = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for failing in [bad.address, resetting.address, refusing] {
        let settings = "lb: round_robin, outlier: { consecutive_5xx: 0 }";
        let mesh = Mesh::http(&[failing, good.address], settings).await;
        for _ in 0..6 {
            assert_eq!(get(mesh.proxy, "web", "/").await.text(), "good");
        }
        // A retry takes the turn of the good one, so that it is the failing one's turn again.
        let retries = mesh.metric("mesh_retries_total", &[]).await;
        assert!((5.0..=6.0).contains(&retries), "{failing}: {retries}");
    }
}

#[tokio::test]
async fn a_post_is_not_sent_twice_once_it_was_sent() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let resetting = Backend::raw(move |mut stream| {
        let counted = Arc::clone(&counted);
        async move {
            if read_request(&mut stream).await.is_some() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let mesh = Mesh::http(&[resetting.address], "retry: { attempts: 5 }").await;
    let answer = send(mesh.proxy, request("POST", "web", "/", "pay")).await;
    assert_eq!((answer.status, seen.load(Ordering::SeqCst)), (503, 1));
    assert!(answer.headers["proxy-status"].to_str().unwrap().contains("\"UC "), "{answer:?}");

    // A PUT with a body is: it is idempotent, and its body is remembered.
    let good = Backend::answering(async |request| full_of(request).await).await;
    let mesh = Mesh::http(&[resetting.address, good.address], "lb: round_robin").await;
    for _ in 0..2 {
        assert_eq!(send(mesh.proxy, request("PUT", "web", "/", "whole body")).await.text(), "whole body");
    }
}

#[tokio::test]
async fn a_body_is_kept_as_far_as_is_said() {
    let bad = Backend::answering(async |request| {
        let mut response = full_of(request).await;
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response
    })
    .await;
    let body: &'static str = String::leak("x".repeat(3000));
    for (bytes, tries) in [("2KiB", 1), ("3KiB", 3)] {
        let before = bad.count();
        let settings = format!("retry: {{ attempts: 2, max_body_bytes: {bytes} }}, outlier: {{ consecutive_5xx: 0 }}");
        let mesh = Mesh::http(&[bad.address], &settings).await;
        assert_eq!(send(mesh.proxy, request("PUT", "web", "/", body)).await.status, 503);
        assert_eq!(bad.count() - before, tries, "{bytes}");
        let expected = if tries == 1 { 1.0 } else { 0.0 };
        assert_eq!(mesh.metric("mesh_retry_bodies_not_kept_total", &["web"]).await, expected, "{bytes}");
    }
}

async fn full_of(request: http::Request<hyper::body::Incoming>) -> http::Response<BoxedBody> {
    use http_body_util::BodyExt;
    http::Response::new(full(request.into_body().collect().await.unwrap().to_bytes()))
}

#[tokio::test]
async fn a_connection_that_closes_under_a_request_is_no_failed_try() {
    // Answers one request on each connection, then closes as soon as the next one comes.
    let backend = Backend::raw(async |mut stream| {
        if read_request(&mut stream).await.is_some() {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            read_request(&mut stream).await;
        }
    })
    .await;
    // No retries at all: what is replayed is not one.
    let mesh = Mesh::http(&[backend.address], "retry: { attempts: 0 }").await;
    let mut client = h1(mesh.proxy).await;
    for _ in 0..5 {
        let answer = whole(client.send_request(request("GET", "web", "/", "")).await.unwrap()).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
}

#[tokio::test]
async fn the_budget_ends_retries() {
    let bad = Backend::saying(503, "bad").await;
    let settings = "retry: { attempts: 2, budget: 0% }, outlier: { consecutive_5xx: 0 }";
    let mesh = Mesh::http(&[bad.address], settings).await;
    for _ in 0..30 {
        assert_eq!(get(mesh.proxy, "web", "/").await.status, 503);
    }
    // Ten a second are always allowed.
    assert!(mesh.metric("mesh_retry_budget_exhausted_total", &["web"]).await > 0.0);
    assert!(bad.count() < 30 * 3);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_upstream() {
    struct Gone(Arc<AtomicBool>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let gone = Arc::new(AtomicBool::new(false));
    let dropped = Arc::clone(&gone);
    let backend = Backend::answering(move |_| {
        let guard = Gone(Arc::clone(&dropped));
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    })
    .await;
    let mesh = Mesh::http(&[backend.address], "lb: round_robin").await;
    let asking = tokio::spawn(get(mesh.proxy, "web", "/"));
    eventually("it is asked", async || backend.count() == 1).await;
    asking.abort();
    eventually("it is told", async || gone.load(Ordering::SeqCst)).await;
    eventually("it is counted", async || mesh.metric("mesh_requests_total", &["reason=\"DC\""]).await == 1.0).await;
}
