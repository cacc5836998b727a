use super::support::*;

#[tokio::test]
async fn an_unknown_authority_is_told_the_known_names() {
    let backend = Backend::saying(200, "hello").await;
    let text = format!(
        "listeners:\n  - {{ listen: \"127.0.0.1:0\", protocol: http, service: web }}\nservices:\n  web: {{ {} }}\n",
        endpoints(&[backend.address])
    );
    let mut told = (*resources(&text)).clone();
    let (name, table) = told.routes.iter().next().map(|(name, table)| (name.clone(), (**table).clone())).unwrap();
    let mut table = table;
    table.hosts[0].domains = vec!["web".into(), "web.shop".into()];
    told.routes.insert(name, table.into());
    let mesh = Mesh::start_from(told.into(), PATIENCE).await;

    assert_eq!(get(mesh.proxy, "web:8080", "/").await.text(), "hello");
    let refused = get(mesh.proxy, "nobody", "/").await;
    assert_eq!(refused.status, 404);
    assert!(refused.text().contains("web, web.shop"), "{}", refused.text());
    let status = refused.headers["proxy-status"].to_str().unwrap();
    assert_eq!(status, "mesh; error=destination_unavailable; details=\"NR no_route_found\"");
    assert_eq!(mesh.metric("mesh_requests_total", &["reason=\"NR\"", "code_class=\"4xx\""]).await, 1.0);
}

#[tokio::test]
async fn nobody_there_is_service_unavailable() {
    let mesh = Mesh::http(&[], "lb: round_robin").await;
    let refused = get(mesh.proxy, "web", "/").await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers["proxy-status"].to_str().unwrap().contains("\"UH "), "{refused:?}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let backend = Backend::saying(200, "hello").await;
    let mesh = Mesh::http(&[backend.address], "lb: round_robin").await;
    let check = async |text: &str, expected: &str| {
        let mut stream = tokio::net::TcpStream::connect(mesh.proxy).await.unwrap();
        write(&mut stream, text).await;
        let mut answer = vec![0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {expected}"), "{text:?}");
    };
    check("GET / HTTP/1.1\r\n\r\n", "400").await;
    check("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "400").await;
    check("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", "405").await;
    check("nonsense\r\n\r\n", "400").await;
    check("GET http://elsewhere/ HTTP/1.1\r\nhost: other\r\n\r\n", "200").await;
    assert_eq!(backend.count(), 1);
    eventually("both kinds counted", async || mesh.metric("mesh_requests_total", &["reason=\"DPE\""]).await == 3.0)
        .await;
}

#[tokio::test]
async fn beyond_the_circuit_the_refusal_is_immediate() {
    let backend = Backend::answering(|_| std::future::pending()).await;
    let mesh = Mesh::http(&[backend.address], "circuit: { max_requests: 1 }").await;
    let first = tokio::spawn(get(mesh.proxy, "web", "/"));
    eventually("the first is under way", async || backend.count() == 1).await;
    let refused = get(mesh.proxy, "web", "/").await;
    assert_eq!(refused.status, 503);
    assert!(refused.headers["proxy-status"].to_str().unwrap().contains("\"UO "), "{refused:?}");
    assert_eq!(mesh.metric("mesh_circuit_overflows_total", &["limit=\"requests\""]).await, 1.0);
    first.abort();
    eventually("its place comes back", async || mesh.metric("mesh_upstream_requests_active", &[]).await == 0.0).await;
}
