//! Step 7, the last of a container event: the HTTP API that tells people and `mesh-ctl` what became of it, with readiness and
//! metrics. It only reads; what changes something is another part's router, merged in.

pub mod view; // the contract: what is said of a snapshot
pub mod ejections; // what proxies say
pub mod peer; // which user calls
pub mod guard; // who may change something
pub mod metrics; // what is counted

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{StatusCode, Uri, header};
use mesh_core::model::snapshot::Snapshot;
use mesh_core::task::drain::Drain;
use mesh_core::task::ready::Readiness;
use mesh_core::telemetry::build_info;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

use ejections::EjectionReports;
use metrics::Metrics;
use peer::{Caller, Ends};
use view::{Filter, List};

/// How long `/v1/watch` waits for a newer snapshot.
pub const WATCH_WAIT: Duration = Duration::from_secs(30);

/// Long polls under way at once; further ones are refused. `mesh_discovery_api_watches` tells how many there are.
pub const WATCHES_MAX: i64 = 1024;

/// Bodies beyond this are refused.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What the API reads from.
#[derive(Debug, Clone)]
pub struct Sources {
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub ejections: EjectionReports,
    pub readiness: Readiness,
    pub registry: prometheus::Registry,
    pub metrics: Metrics,
    /// Not ready any more, and long polls end, once it starts.
    pub drain: Drain,
}

/// What every error looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
    /// For an unknown path: those that there are.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub paths: Vec<String>,
}

/// Everything this module serves; `PATHS` and the router below go together.
const PATHS: [&str; 10] = [
    "/v1/version",
    "/v1/services",
    "/v1/endpoints",
    "/v1/conditions",
    "/v1/snapshot",
    "/v1/watch?after=N",
    "/metrics",
    "/livez",
    "/readyz",
    "/healthz",
];

/// An error as an answer.
#[must_use]
pub fn refuse(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(ErrorBody { error: error.into(), paths: Vec::new() })).into_response()
}

/// The API; `more` are the routers of other parts (with the paths that an unknown one is answered with).
pub fn router(sources: Sources, more: Vec<(Router, Vec<String>)>) -> Router {
    let mut paths: Vec<String> = PATHS.iter().map(ToString::to_string).collect();
    let mut router = Router::new()
        .route("/v1/version", get(version))
        .route("/v1/services", get(services))
        .route("/v1/endpoints", get(endpoints))
        .route("/v1/conditions", get(conditions))
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/watch", get(watch_snapshots))
        .route("/metrics", get(scrape))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .with_state(sources.clone());
    for (other, its_paths) in more {
        router = router.merge(other);
        paths.extend(its_paths);
    }
    paths.sort();
    router
        .fallback(async move |uri: Uri| {
            let error = format!("there is no {}; see paths", uri.path());
            (StatusCode::NOT_FOUND, Json(ErrorBody { error, paths: paths.clone() }))
        })
        .method_not_allowed_fallback(async |request: Request| {
            let error = format!("{} is not a method of {}", request.method(), request.uri().path());
            refuse(StatusCode::METHOD_NOT_ALLOWED, error)
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(sources, guard_and_count))
}

/// Serves until the drain, and what is under way then to its end.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: TcpListener, router: Router, mut drain: Drain) -> std::io::Result<()> {
    let service = router.into_make_service_with_connect_info::<Ends>();
    axum::serve(listener, service).with_graceful_shutdown(async move { drain.started().await }).await
}

async fn guard_and_count(State(sources): State<Sources>, request: Request, next: Next) -> Response {
    let allowed = match asks_to_change(&request) {
        Ok(false) => Ok(()),
        Ok(true) => {
            let ends = request.extensions().get::<ConnectInfo<Ends>>().map(|ConnectInfo(ends)| *ends);
            may_change(ends).await
        }
        Err(refusal) => Err(refusal),
    };
    let response = match allowed {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            tracing::debug!(method = %request.method(), path = request.uri().path(), %refusal, "refused");
            refuse(StatusCode::FORBIDDEN, refusal.to_string())
        }
    };
    sources.metrics.answered(response.status());
    response
}

/// Reading is free to everybody who can reach us; whoever wants to change something is looked at.
fn asks_to_change(request: &Request) -> Result<bool, guard::Refusal> {
    guard::check(request.method(), request.headers())?;
    Ok(!guard::only_reads(request.method()) && !guard::only_plans(request.method(), request.uri().path()))
}

async fn may_change(ends: Option<Ends>) -> Result<(), guard::Refusal> {
    let caller = match ends {
        Some(ends) => peer::caller(ends).await,
        None => Caller::Unknown,
    };
    guard::check_caller(caller, nix::unistd::geteuid().as_raw())
}

type Filtered = Result<Query<Filter>, QueryRejection>;

/// Runs `items` on the snapshot of now; a wrong query is told.
fn list<T: Serialize>(
    sources: &Sources,
    filter: Filtered,
    items: impl FnOnce(&Snapshot, &Filter) -> Vec<T>,
) -> Response {
    match filter {
        Ok(Query(filter)) => {
            let snapshot = sources.snapshots.borrow().clone();
            Json(List::new(snapshot.number, items(&snapshot, &filter))).into_response()
        }
        Err(rejection) => {
            let error = format!("{}; the filters are namespace=NAME and service=NAME", rejection.body_text());
            refuse(StatusCode::BAD_REQUEST, error)
        }
    }
}

/// What `mesh-ctl` compares itself with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    api_version: &'static str,
    version: &'static str,
}

async fn version() -> Json<Version> {
    Json(Version { api_version: view::API_VERSION, version: build_info::VERSION })
}

async fn services(State(sources): State<Sources>, filter: Filtered) -> Response {
    list(&sources, filter, view::services)
}

async fn endpoints(State(sources): State<Sources>, filter: Filtered) -> Response {
    let ejections = sources.ejections.now();
    list(&sources, filter, |snapshot, filter| view::endpoints(snapshot, filter, &ejections, Instant::now()))
}

async fn conditions(State(sources): State<Sources>, filter: Filtered) -> Response {
    list(&sources, filter, view::conditions)
}

async fn snapshot(State(sources): State<Sources>, filter: Filtered) -> Response {
    let ejections = sources.ejections.now();
    list(&sources, filter, |snapshot, filter| vec![view::whole(snapshot, filter, &ejections, Instant::now())])
}

/// After which snapshot to answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    #[serde(default)]
    after: u64,
}

/// Answers with the number alone, once it is beyond `after`, or after [`WATCH_WAIT`] as it is.
async fn watch_snapshots(State(mut sources): State<Sources>, after: Result<Query<After>, QueryRejection>) -> Response {
    let after = match after {
        Ok(Query(After { after })) => after,
        Err(rejection) => {
            return refuse(StatusCode::BAD_REQUEST, format!("{}; after=N is wanted", rejection.body_text()));
        }
    };
    let Some(_watching) = sources.metrics.watch(WATCHES_MAX) else {
        let error = format!("{WATCHES_MAX} clients watch already; try again later");
        return refuse(StatusCode::SERVICE_UNAVAILABLE, error);
    };
    tokio::select! {
        _ = sources.snapshots.wait_for(|snapshot| snapshot.number > after) => {}
        () = tokio::time::sleep(WATCH_WAIT) => {}
        () = sources.drain.started() => {}
    }
    let number = sources.snapshots.borrow().number;
    Json(List::<()>::new(number, Vec::new())).into_response()
}

async fn scrape(State(sources): State<Sources>) -> Response {
    let snapshot = sources.snapshots.borrow().clone();
    sources.metrics.show(&snapshot, &sources.ejections.now(), Instant::now());
    let text = mesh_core::telemetry::metrics::render(&sources.registry);
    ([(header::CONTENT_TYPE, mesh_core::telemetry::metrics::CONTENT_TYPE)], text).into_response()
}

/// 200 when every part is ready; else 503 and who is awaited. `?verbose` says so of each.
async fn ready(State(sources): State<Sources>, uri: Uri) -> Response {
    let verbose =
        uri.query().is_some_and(|query| query.split('&').any(|key| key == "verbose" || key == "verbose=true"));
    let mut waiting: Vec<String> =
        sources.readiness.waiting_for().iter().map(|part| format!("waits for {part}")).collect();
    if sources.drain.is_draining() {
        waiting.push("is shutting down".to_owned());
    }
    let status = if waiting.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = if waiting.is_empty() { "ok\n".to_owned() } else { format!("not ready: {}\n", waiting.join(", ")) };
    if verbose {
        let snapshot = sources.snapshots.borrow().clone();
        let (services, endpoints) =
            (snapshot.services.len(), snapshot.endpoints.values().map(|list| list.len()).sum::<usize>());
        text += &format!("snapshot {}: {services} services, {endpoints} endpoints\n", snapshot.number);
        text += &format!("{} conditions\n", snapshot.conditions.len());
    }
    (status, text).into_response()
}
