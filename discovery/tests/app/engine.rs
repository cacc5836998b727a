//! A start beside an engine that is silent or not there, and beside a file that broke: what is told, and what is not.

use std::os::unix::net::UnixListener;

use mesh_discovery::provider::docker::DockerProviderConfig;
use mesh_discovery::store::embedded::Embedded;
use mesh_discovery::store::{Expect, Store, Write};
use tokio::net::UdpSocket;

use super::*;

fn beside_engine(socket: &Path, file: &Path, state: &Path) -> Config {
    let url = format!("unix://{}", socket.display()).parse().unwrap();
    let docker = DockerProviderConfig { url, ..DockerProviderConfig::default() };
    Config { docker: Some(docker), state: State::Folder(state.to_owned()), ..of_file(file) }
}

/// Waits until the condition on this object says it.
async fn until_told(running: &Running, object: &str, words: &str) -> String {
    let told = async {
        loop {
            let conditions = running.json("/v1/conditions").await["items"].as_array().unwrap().clone();
            let messages =
                conditions.iter().filter(|one| one["object"] == object).map(|one| one["message"].to_string());
            if let Some(message) = messages.into_iter().find(|message| message.contains(words)) {
                return message;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // between two looks
        }
    };
    timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("nobody says {words:?} of {object}"))
}

/// The response code of a question for one of our names.
async fn dns_code(server: SocketAddr) -> u8 {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["web", "shop", "svc", "mesh", "internal"] {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&query, server).await.unwrap();
    let mut answer = [0; 512];
    timeout(PATIENCE, socket.recv(&mut answer)).await.expect("an answer").unwrap();
    answer[3] & 0x0f
}

const SERVFAIL: u8 = 2;

#[tokio::test]
async fn a_silent_engine_holds_up_the_catalogue_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, file) = (folder.path().join("docker.sock"), folder.path().join("mesh.yaml"));
    fs::write(&file, SHOP).unwrap();
    // It takes connections, by the kernel's hand, and never says a word.
    let _silent = UnixListener::bind(&socket).unwrap();
    let config = beside_engine(&socket, &file, &folder.path().join("state"));
    let running = timeout(Duration::from_secs(5), start(config, &[])).await.expect("a start that waits for nobody");
    let (status, text) = running.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("waits for the first look at the Docker engine"), "{text}");
    assert_eq!(dns_code(running.dns).await, SERVFAIL);
    let message = until_told(&running, "provider/docker", "it has not answered yet").await;
    assert!(message.contains("nothing is told before it has been seen"), "{message}");
    // Longer than any patience of ours.
    until_told(&running, "provider/docker", "no answer within 10 s").await;
    assert_eq!(running.json("/v1/services").await["snapshot"], 0);
    let (status, text) = running.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!text.contains("reading of the file"), "{text}");
    assert!(running.get("/metrics").await.1.contains("mesh_discovery_docker_up 0"));
    running.stop().await;
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_awaited_only_where_it_was_there_before() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, file) = (folder.path().join("docker.sock"), folder.path().join("mesh.yaml"));
    let state = folder.path().join("state");
    fs::write(&file, SHOP).unwrap();
    let running = start(beside_engine(&socket, &file, &state), &[]).await;
    running.watch(0).await;
    assert_eq!(running.get("/readyz").await.0, StatusCode::OK);
    until_told(&running, "provider/docker", "No such file or directory").await;
    assert_eq!(dns_code(running.dns).await, 0);
    running.stop().await;

    // As the run before would have left it, had it seen the engine.
    let store = Embedded::open(&state).unwrap();
    let seen = Write::put("provider/docker", format!("unix://{}", socket.display()), Expect::Absent);
    store.apply(vec![seen]).await.unwrap();
    drop(store);
    let running = start(beside_engine(&socket, &file, &state), &[]).await;
    let message = until_told(&running, "provider/docker", "nothing is told before it has been seen").await;
    assert!(message.contains("start with --docker none"), "{message}");
    assert_eq!(running.json("/v1/services").await["snapshot"], 0);
    assert_eq!(dns_code(running.dns).await, SERVFAIL);
    running.stop().await;

    for _ in 0..2 {
        // The second time proves that it was forgotten: nobody is awaited who is not configured.
        let running = start(Config { docker: None, ..beside_engine(&socket, &file, &state) }, &[]).await;
        running.watch(0).await;
        running.stop().await;
    }
    let running = start(beside_engine(&socket, &file, &state), &[]).await;
    running.watch(0).await;
    running.stop().await;
}

#[tokio::test]
async fn a_file_that_broke_while_nobody_looked_takes_nothing_away() {
    let folder = tempfile::tempdir().unwrap();
    let (file, state) = (folder.path().join("mesh.yaml"), folder.path().join("state"));
    let config = || Config { state: State::Folder(state.clone()), ..of_file(&file) };
    let object = format!("file/{}", file.display());
    // Where nothing was ever told there is nothing to lose.
    fs::write(&file, "nonsense").unwrap();
    let running = start(config(), &[]).await;
    let number = running.watch(0).await;
    until_told(&running, &object, "nothing is known from it").await;
    fs::write(&file, SHOP).unwrap();
    running.watch(number).await;
    running.stop().await;

    fs::write(&file, "nonsense").unwrap();
    let running = start(config(), &[]).await;
    let message = until_told(&running, &object, "nothing is told before it has been seen").await;
    assert!(message.contains("start without --file"), "{message}");
    assert_eq!(running.json("/v1/services").await["snapshot"], 0);
    fs::write(&file, SHOP).unwrap();
    running.watch(0).await;
    assert_eq!(running.json("/v1/services").await["items"].as_array().unwrap().len(), 2);
    assert_eq!(running.json("/v1/conditions").await["items"], serde_json::json!([]));
    running.stop().await;
}
