use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::support::*;

/// A family as the golden file has it: `name type {labels}: help`. `le` is a histogram's own.
fn families(text: &str) -> String {
    let word = |line: &str, keyword: &str| {
        let (name, rest) = line.strip_prefix(keyword)?.split_once(' ')?;
        Some((name.to_owned(), rest.to_owned()))
    };
    let help: BTreeMap<String, String> = text.lines().filter_map(|line| word(line, "# HELP ")).collect();
    let kinds = text.lines().filter_map(|line| word(line, "# TYPE "));
    let family = |(name, kind): (String, String)| {
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        let names: Vec<String> = suffixes.iter().map(|suffix| format!("{name}{suffix}{{")).collect();
        let samples = text.lines().filter_map(|line| names.iter().find_map(|name| line.strip_prefix(name.as_str())));
        let labels: BTreeSet<&str> = samples.flat_map(label_names).filter(|label| *label != "le").collect();
        let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
        format!("{name} {kind} {{{labels}}}: {}\n", help[&name])
    };
    kinds.map(family).collect()
}

/// Of a sample, after its `{`. Values here are names and numbers: none has a quote or a comma in it.
fn label_names(sample: &str) -> Vec<&str> {
    let labels = sample.rsplit_once('}').map_or("", |(labels, _)| labels);
    labels.split(',').filter_map(|pair| Some(pair.split_once('=')?.0)).collect()
}

/// An address that refuses connections.
async fn dead() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn every_family_is_in_the_golden_file() {
    let backend = Backend::saying(200, "hello").await;
    let endpoints = endpoints(&[dead().await, backend.address]);
    let mesh = Mesh::start(&yaml("protocol: auto", &format!("{endpoints}, lb: round_robin"))).await;
    // Requests, of which some are repeated elsewhere; then bytes.
    eventually("a retry", async || {
        assert_eq!(get(mesh.proxy, "web", "/").await.status, 200);
        mesh.metric("mesh_retries_total", &["web"]).await > 0.0
    })
    .await;
    let mut raw = TcpStream::connect(mesh.proxy).await.unwrap();
    write(&mut raw, "\0not HTTP\r\n\r\n").await;
    let _ = tokio::time::timeout(PATIENCE, raw.read_to_end(&mut Vec::new())).await.expect("an end");
    drop(raw);
    eventually("a counted connection of bytes", async || {
        mesh.metric("mesh_requests_total", &["protocol=\"tcp\""]).await > 0.0
    })
    .await;

    let families = families(&mesh.metrics().await);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &families).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(families, golden, "a metric was renamed or is new; UPDATE_GOLDEN=1 writes {}", path.display());
}
