//! How replicas are asked for, over HTTP. Answers are `{"apiVersion": "mesh/v1", …}`; an error is `{"error": "…"}` with what to
//! do next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use mesh_core::compose::Project;
use mesh_core::model::replicas::Plan;
use serde::Deserialize;
use serde_json::json;

use super::spec::Desired;
use super::{Controller, ControllerError, error_chain};
use crate::store::StoreError;

/// How long `/v1/events` waits at most for the next event.
const WAIT_MAX: Duration = Duration::from_secs(30);

type Shared = State<Arc<Controller>>;

/// As an unknown path is answered with; the router below goes together with it.
pub(super) const PATHS: [&str; 6] = [
    "/v1/projects",
    "/v1/projects/{name}",
    "/v1/projects/{name}/plan",
    "/v1/projects/{name}/scale",
    "/v1/replicas?project=NAME",
    "/v1/events?after=N",
];

pub(super) fn router(controller: Arc<Controller>) -> Router {
    Router::new()
        .route("/v1/projects", get(list_projects))
        .route("/v1/projects/{name}", put(apply).get(one_project).delete(take_down))
        .route("/v1/projects/{name}/plan", get(newest_plan).post(dry_run))
        .route("/v1/projects/{name}/scale", post(scale))
        .route("/v1/replicas", get(replicas))
        .route("/v1/events", get(events))
        .with_state(controller)
}

impl IntoResponse for ControllerError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::UnknownProject { .. } | Self::UnknownService { .. } => StatusCode::NOT_FOUND,
            Self::NoRuntime { .. } | Self::TooMany { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            // Somebody else asked for something in the same moment; asked again, it holds.
            Self::Store(StoreError::Conflict { .. }) => StatusCode::CONFLICT,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        refuse(status, &error_chain(&self))
    }
}

fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

fn answer_plan(plan: &Plan) -> Response {
    Json(json!({ "apiVersion": "mesh/v1", "plan": plan })).into_response()
}

fn answer_items<T: serde::Serialize>(items: &[T]) -> Response {
    Json(json!({ "apiVersion": "mesh/v1", "items": items })).into_response()
}

/// The body's project, if it is the one that the path names.
fn checked(name: &str, body: Result<Json<Project>, JsonRejection>) -> Result<Project, Box<Response>> {
    let Json(project) = body.map_err(|error| Box::new(refuse(StatusCode::BAD_REQUEST, &error.body_text())))?;
    if project.name.as_str() != name {
        let text = format!("the path names project {name}, and the body {}; both have to be the same", project.name);
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, &text)));
    }
    Ok(project)
}

async fn apply(
    State(controller): Shared,
    Path(name): Path<String>,
    body: Result<Json<Project>, JsonRejection>,
) -> Response {
    match checked(&name, body) {
        Ok(project) => {
            controller.apply(project).await.map_or_else(IntoResponse::into_response, |plan| answer_plan(&plan))
        }
        Err(refusal) => *refusal,
    }
}

async fn dry_run(
    State(controller): Shared,
    Path(name): Path<String>,
    body: Result<Json<Project>, JsonRejection>,
) -> Response {
    match checked(&name, body) {
        Ok(project) => {
            controller.dry_run(project).await.map_or_else(IntoResponse::into_response, |plan| answer_plan(&plan))
        }
        Err(refusal) => *refusal,
    }
}

/// The part of the newest plan that is about this project.
async fn newest_plan(State(controller): Shared, Path(name): Path<String>) -> Response {
    if let Err(error) = controller.project(&name) {
        return error.into_response();
    }
    let mut plan = controller.plan();
    plan.steps.retain(|step| step.replica.project.as_str() == name);
    plan.not_taken.retain(|step| step.replica.project.as_str() == name);
    answer_plan(&plan)
}

async fn scale(
    State(controller): Shared,
    Path(name): Path<String>,
    body: Result<Json<BTreeMap<String, u32>>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(replicas)) => {
            controller.scale(&name, &replicas).await.map_or_else(IntoResponse::into_response, |plan| answer_plan(&plan))
        }
        Err(error) => refuse(StatusCode::BAD_REQUEST, &error.body_text()),
    }
}

async fn take_down(State(controller): Shared, Path(name): Path<String>) -> Response {
    controller.take_down(&name).await.map_or_else(IntoResponse::into_response, |plan| answer_plan(&plan))
}

/// An environment may hold secrets, so values are kept back; names say what is set.
fn shown(desired: &Desired) -> serde_json::Value {
    let mut project = desired.project.clone();
    for value in project.services.values_mut().flat_map(|service| service.environment.values_mut()) {
        "…".clone_into(value);
    }
    json!({ "name": project.name, "down": desired.is_down, "project": project })
}

async fn list_projects(State(controller): Shared) -> Response {
    let projects = controller.projects();
    answer_items(&projects.values().map(|desired| shown(desired)).collect::<Vec<_>>())
}

async fn one_project(State(controller): Shared, Path(name): Path<String>) -> Response {
    match controller.project(&name) {
        Ok(desired) => Json(json!({ "apiVersion": "mesh/v1", "item": shown(&desired) })).into_response(),
        Err(error) => error.into_response(),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplicasQuery {
    project: Option<String>,
}

async fn replicas(State(controller): Shared, Query(query): Query<ReplicasQuery>) -> Response {
    let mut replicas = controller.replicas();
    if let Some(project) = query.project {
        replicas.retain(|replica| replica.project.as_str() == project);
    }
    answer_items(&replicas)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Events with a higher number than this; none: those from now on are waited for.
    after: Option<u64>,
    /// Seconds; 0 answers at once.
    wait: Option<u64>,
    project: Option<String>,
}

/// Long poll: ask again with the `newest` of the answer as `after`.
async fn events(State(controller): Shared, Query(query): Query<EventsQuery>) -> Response {
    let story = controller.story();
    let after = query.after.unwrap_or_else(|| story.newest());
    let wait = query.wait.map_or(WAIT_MAX, Duration::from_secs).min(WAIT_MAX);
    let mut events = story.after(after, wait).await;
    let newest = events.last().map_or(after, |event| event.number);
    if let Some(project) = query.project {
        events.retain(|event| event.step.replica.project.as_str() == project);
    }
    Json(json!({ "apiVersion": "mesh/v1", "newest": newest, "items": events })).into_response()
}
