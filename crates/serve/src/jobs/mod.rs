//! `/v1/jobs`: long work, each in a process of its own. This server starts them, tells how they are, and knows nothing of
//! what they do.
//!
//! `POST /v1/jobs` takes `kind`, `model` (what a version is published of), `definition` (TOML in a text, or the same as
//! JSON) and `files` (names in the definition, and ids of uploads); where `kind` is `compress`, the request's keys stand in
//! place of `definition`, and `model` may be left out. `GET /v1/jobs/ID/events` are server-sent events, whose
//! `id` a client gives back as `Last-Event-ID` to go on. `GET /v1/jobs/ID/report` is a page about what came of it. `DELETE /v1/jobs/ID` forgets one that has ended.

mod definition;
pub mod kept;
mod report;
mod runner;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use store::{Job, Stop, Store, StoreError};

use crate::body::read_json;
use crate::http::App;
use crate::listing::page;
use crate::openai::ApiError;
use crate::settings::{CheckTraining, PlanCompression, PlanError};
pub use definition::names_uploads_only;
use definition::{Asked, Kind};
use kept::ask;
pub use runner::start;

pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/jobs", get(list).post(create))
        .route("/v1/jobs/{id}", get(one).delete(delete))
        .route("/v1/jobs/{id}/events", get(events))
        .route("/v1/jobs/{id}/report", get(report::report))
        .route("/v1/jobs/{id}/cancel", post(cancel))
        .route("/v1/jobs/{id}/resume", post(resume))
}

async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let _permit = app.gate.enter().ok_or_else(ApiError::draining)?;
    let settings = kept::settings(&app)?;
    let (check, plan) = (settings.check_training, settings.plan_compression);
    let decode = |body, _| definition::decode(body);
    let asked = read_json(&headers, body, &app.settings, decode).await?;
    let job = ask(&app, move |store| begin(store, asked, (check, plan))).await??;
    Ok(Json(job.json()))
}

/// What was asked wrongly is told within.
fn begin(
    store: &Store,
    asked: Asked,
    (check, plan): (CheckTraining, PlanCompression),
) -> Result<Result<Job, ApiError>, StoreError> {
    let Asked { kind, model, definition, files } = asked;
    let planned = match (kind, model) {
        (Kind::Train, Some(model)) => match check(&definition) {
            Ok(()) => Ok((model, definition)),
            Err(problem) => return Ok(Err(ApiError::invalid("definition", problem))),
        },
        (Kind::Train, None) => return Ok(Err(ApiError::missing("model"))),
        (Kind::Compress, model) => {
            let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
            plan(store, model, definition, &names)
        }
    };
    let (model, definition) = match planned {
        Ok(planned) => planned,
        Err(PlanError::Parameter { name, problem }) => return Ok(Err(ApiError::invalid(&name, problem))),
        Err(PlanError::Store(error)) => return Err(error),
    };
    match toml::to_string(&definition) {
        Ok(text) => store.create_job(kind.name(), &model, &text, &files).map(Ok),
        Err(error) => Ok(Err(ApiError::invalid("definition", error.to_string()))),
    }
}

async fn list(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<Value>, ApiError> {
    let jobs = ask(&app, |store| store.jobs()).await?;
    page(&uri, jobs.iter().map(Job::json).collect()).map(Json)
}

async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    find(&app, id).await.map(|job| Json(job.json()))
}

async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = find(&app, id).await?;
    let offset = match headers.get("last-event-id").map(|value| value.to_str().map(str::parse)) {
        None => 0,
        Some(Ok(Ok(offset))) => offset,
        Some(_) => {
            let message = "`Last-Event-ID` is to be the `id` of an event of this job".to_owned();
            return Err(ApiError::invalid("Last-Event-ID", message));
        }
    };
    Ok(watch::stream(app, job.id, offset))
}

async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let asked = id.clone();
    ask(&app, move |store| store.delete_job(&asked)).await?;
    Ok(Json(json!({ "id": id, "object": "job", "deleted": true })))
}

async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    ask(&app, move |store| store.stop_job(&id, Stop::Asked)).await.map(|job| Json(job.json()))
}

async fn resume(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let _permit = app.gate.enter().ok_or_else(ApiError::draining)?;
    ask(&app, move |store| store.resume_job(&id)).await.map(|job| Json(job.json()))
}

async fn find(app: &App, id: String) -> Result<Job, ApiError> {
    let asked = id.clone();
    let job = ask(app, move |store| store.job(&asked)).await?;
    job.ok_or_else(|| ApiError::no_such(format!("there is no job {id:?} here")))
}
