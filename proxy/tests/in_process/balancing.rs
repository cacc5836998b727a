use super::support::*;

#[tokio::test]
async fn round_robin_keeps_weights_exactly() {
    let (heavy, light) = (Backend::saying(200, "heavy").await, Backend::saying(200, "light").await);
    let service = format!(
        "lb: round_robin, endpoints: [ {{ address: \"{}\", weight: 3 }}, {{ address: \"{}\", weight: 1 }} ]",
        heavy.address, light.address
    );
    let mesh = Mesh::start(&yaml("protocol: http", &service)).await;
    let mut client = h1(mesh.proxy).await;
    for _ in 0..40 {
        whole(client.send_request(request("GET", "web", "/", "")).await.unwrap()).await.unwrap();
    }
    assert_eq!((heavy.count(), light.count()), (30, 10));
    assert_eq!(heavy.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "one connection is used again");
}

#[tokio::test]
async fn a_failing_endpoint_is_ejected_but_never_the_last() {
    let (good, bad) = (Backend::saying(200, "good").await, Backend::saying(500, "bad").await);
    let settings = "lb: round_robin, outlier: { consecutive_5xx: 3, max_ejection_percent: 100% }";
    let mesh = Mesh::http(&[good.address, bad.address], settings).await;
    for _ in 0..20 {
        assert_eq!(get(mesh.proxy, "web", "/").await.status, 200);
    }
    assert_eq!(bad.count(), 3);
    assert_eq!(mesh.metric("mesh_ejections_total", &[]).await, 1.0);

    let alone = Mesh::http(&[bad.address], settings).await;
    for _ in 0..10 {
        assert_eq!(get(alone.proxy, "web", "/").await.text(), "bad");
    }
    assert_eq!(alone.metric("mesh_ejections_total", &[]).await, 0.0);
}
