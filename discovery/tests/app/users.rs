//! Who may ask for what: the same request from this user, and from one who is nobody here.

use super::*;

/// Status and body of what `curl` is answered when user 65534 runs it; none, with the reason printed, where this user cannot
/// become another.
fn as_nobody(arguments: &[&str]) -> Option<(u16, String)> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "-sS", "--max-time", "20"]);
    let output = command.args(["-w", "\n%{http_code}"]).args(arguments).output();
    let reason = match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8(output.stdout).unwrap();
            let (body, code) = text.rsplit_once('\n').unwrap();
            return Some((code.parse().unwrap(), body.to_owned()));
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    assert!(std::env::var_os("MESH_E2E").is_none_or(|value| value != "1"), "cannot ask as another user: {reason}");
    eprintln!("skipped: cannot ask as another user: {reason}");
    None
}

const PROJECT: &str = "name: shop\nx-mesh: { runtime: process }\nservices: { web: { command: [sleep, '60'] } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_user_may_look_and_plan_and_change_nothing() {
    use mesh_core::compose::{Overrides, read};
    let folder = tempfile::tempdir().unwrap();
    let process = Some(mesh_discovery::runtime::process::ProcessSettings::new(folder.path()));
    let running = start(Config { process, ..Config::ephemeral() }, &[]).await;
    running.watch(0).await;
    let overrides = Overrides { directory: "/".into(), ..Overrides::default() };
    let project = read("compose.yaml", PROJECT, &std::collections::BTreeMap::new(), &overrides).unwrap();
    let body = serde_json::to_string(&project).unwrap();
    let json = ("content-type", "application/json");
    let path = "/v1/projects/shop";
    let api = running.api;
    let asked = body.clone();
    let foreign = tokio::task::spawn_blocking(move || {
        let ask = |method: &str, path: &str| {
            let url = format!("http://{api}{path}");
            as_nobody(&["-X", method, "-H", "content-type: application/json", "-d", &asked, &url])
        };
        let [changed, planned, removed] =
            [ask("PUT", path), ask("POST", "/v1/projects/shop/plan"), ask("DELETE", path)];
        Some((changed?, planned?, removed?, as_nobody(&[&format!("http://{api}/v1/version")])?))
    });
    if let Some((changed, planned, removed, version)) = foreign.await.unwrap() {
        assert_eq!((changed.0, removed.0), (403, 403), "{} {}", changed.1, removed.1);
        assert!(changed.1.contains("this comes from user 65534: ask again"), "{}", changed.1);
        assert_eq!(planned.0, 200, "{}", planned.1);
        let plan: Value = serde_json::from_str(&planned.1).unwrap();
        assert_eq!(
            plan["plan"]["steps"][0]["replica"],
            serde_json::json!({"project": "shop", "service": "web", "number": 1})
        );
        assert_eq!(version.0, 200);
        assert_eq!(running.json("/v1/projects").await["items"], serde_json::json!([]), "nothing was changed");
    }
    // Pages may not even plan; the user of this server may do all.
    let page = ("origin", "http://evil.example");
    let plan = "/v1/projects/shop/plan";
    assert_eq!(send(api, Method::POST, plan, &[json, page], &body).await.0, StatusCode::FORBIDDEN);
    assert_eq!(send(api, Method::POST, plan, &[json], &body).await.0, StatusCode::OK);
    assert_eq!(send(api, Method::DELETE, path, &[], "").await.0, StatusCode::NOT_FOUND, "allowed, and not there");
    running.stop().await;
}

#[tokio::test]
async fn the_version_is_told() {
    let running = start(Config::ephemeral(), &[]).await;
    let version = running.json("/v1/version").await;
    assert_eq!(version["version"], mesh_core::telemetry::build_info::VERSION);
    assert_eq!(version.as_object().unwrap().len(), 2);
    running.stop().await;
}
