//! What operators and scrapers ask: readiness, metrics, what we were told, how every endpoint stands. On the main runtime, so
//! that a scrape never touches a request.

use std::collections::HashMap;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use mesh_core::task::ready::Readiness;
use mesh_core::telemetry::metrics::{CONTENT_TYPE as METRICS, render};
use prometheus::Registry;
use tokio::net::TcpListener;

use crate::listen::failed::FailedListeners;
use crate::state::view::SharedView;

pub mod dump; // resources and clusters, as JSON

/// What the answers are made of.
#[derive(Clone)]
pub struct Admin {
    pub view: SharedView,
    pub registry: Registry,
    pub readiness: Readiness,
    pub failed: FailedListeners,
}

/// So many listeners that are not open are named; all of them are counted.
const NAMED_MAX: usize = 20;

/// Serves until dropped.
pub async fn serve(listener: TcpListener, admin: Admin) {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/stats/prometheus", get(metrics))
        .route("/livez", get(async || "ok\n"))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/ready", get(readyz))
        .route("/config_dump", get(async |State(admin): State<Admin>| dump::resources(&admin.view.load())))
        .route("/clusters", get(async |State(admin): State<Admin>| dump::clusters(&admin.view.load())))
        .with_state(admin);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the admin server ended");
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS)], render(&admin.registry))
}

/// 200 when ready; else 503 and who is awaited. `?verbose` tells more, and what is wrong. A listener that cannot be opened does not
/// make a proxy unready: its others carry what they carried.
async fn readyz(State(admin): State<Admin>, Query(query): Query<HashMap<String, String>>) -> impl IntoResponse {
    let waiting = admin.readiness.waiting_for();
    let mut text = String::new();
    if query.contains_key("verbose") {
        let view = admin.view.load();
        text += &format!("view {}\n", view.number);
        text += &format!("listeners {}, clusters {}\n", view.resources.listeners.len(), view.clusters.len());
        let failed = admin.failed.count();
        admin.failed.lines(NAMED_MAX).iter().for_each(|line| text += &format!("{line}\n"));
        if failed > NAMED_MAX {
            text += &format!("{} more listeners are not open\n", failed - NAMED_MAX);
        }
        admin.readiness.remarks().iter().for_each(|remark| text += &format!("{remark}\n"));
    }
    if waiting.is_empty() {
        (StatusCode::OK, text + "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, text + &format!("waiting for: {}\n", waiting.join(", ")))
    }
}
