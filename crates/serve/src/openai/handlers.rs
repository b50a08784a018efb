//! The endpoints: decode, submit, deliver.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use engine::llm::Llm;
use engine::llm::request::{SubmitError, Terms};
use serde_json::{Map, Value};

use super::answer::Answer;
use super::chat_request::ChatRequest;
use super::choices::Choices;
use super::completion_request::CompletionRequest;
use super::deliver;
use super::error::ApiError;
use super::options::Delivery;
use super::prompt::{Asked, Work, prepare};
use super::response::{Head, Kind};
use crate::access::Caller;
use crate::body::read_json;
use crate::http::App;
use crate::metrics::{Outcome, Record, Recorded};
use crate::preparing::Unprepared;
use crate::server::Peer;
use crate::services::{Engine, Found, Service};
use crate::shorten::shorten;
use crate::strict_json::Counts;

/// Bounds of what a client is told to wait when the queue is full.
const RETRY_SECONDS_MIN: f64 = 1.0;
const RETRY_SECONDS_MAX: f64 = 60.0;

pub async fn chat(State(app): State<Arc<App>>, request: Request) -> Response {
    let decode = |body, counts| ChatRequest::decode(body, counts).map(Asked::Chat);
    respond(&app, "chat_completions", request, decode).await
}

pub async fn completion(State(app): State<Arc<App>>, request: Request) -> Response {
    let decode = |body, _| CompletionRequest::decode(body).map(Asked::Completion);
    respond(&app, "completions", request, decode).await
}

async fn respond(
    app: &App,
    endpoint: &'static str,
    request: Request,
    decode: impl FnOnce(Map<String, Value>, Counts) -> Result<Asked, ApiError> + Send + 'static,
) -> Response {
    let mut record = Record::begin(&app.metrics, endpoint, app.gate.enter());
    record.facts().peer = Peer::of(&request).map(|peer| peer.0);
    let mut response = match submit(app, request, decode, &mut record).await {
        Ok(submitted) => {
            let Submitted { head, delivery, echoes, choices_per_prompt, choices } = submitted;
            record.facts().id = Some(head.id.clone());
            let answer = Answer::new(echoes, choices_per_prompt, record);
            let events = choices.events();
            match delivery {
                Delivery::Stream { include_usage } => deliver::stream(head, answer, events, include_usage),
                Delivery::Whole => deliver::whole(&head, answer, events).await.into_response(),
            }
        }
        Err(error) => {
            record.end(Outcome::Refused(error.status().as_u16()));
            record.facts().error = Some(error.code());
            record.facts().param = error.param().map(str::to_owned);
            error.into_response()
        }
    };
    response.extensions_mut().insert(Recorded);
    response
}

/// A request that the engine works on.
struct Submitted {
    head: Head,
    delivery: Delivery,
    echoes: Vec<Option<String>>,
    choices_per_prompt: usize,
    choices: Choices,
}

async fn submit(
    app: &App,
    request: Request,
    decode: impl FnOnce(Map<String, Value>, Counts) -> Result<Asked, ApiError> + Send + 'static,
    record: &mut Record,
) -> Result<Submitted, ApiError> {
    if app.gate.is_closed() {
        return Err(ApiError::draining());
    }
    let arrived = Instant::now();
    let (parts, body) = request.into_parts();
    // What has not arrived by then is no running answer.
    let asked = tokio::select! {
        asked = read_json(&parts.headers, body, &app.settings, decode) => asked?,
        () = app.gate.closing() => return Err(ApiError::draining()),
    };
    record.facts().asked = shorten(&asked.options().model);
    let service = find(app, &asked.options().model)?;
    record.set_model(&service.name);
    let (priority, tier) = asked.options().urgency.within(app.settings.priority_min)?;
    // Whoever would be refused after that is not worth the tokenising.
    service.llm.check_queue().map_err(|error| refused(asked.kind(), error, &service))?;
    let caller = parts.extensions.get().copied().unwrap_or(Caller::Anyone);
    let terms = Terms {
        owner: format!("{caller} of {}", service.name).into(),
        priority,
        deadline: app.settings.request_max.and_then(|time| arrived.checked_add(time)),
    };

    let (kind, delivery, choices_per_prompt) =
        (asked.kind(), asked.options().delivery, asked.options().choices);
    let llm = service.llm.clone();
    let prepared = app.preparing.run(caller, move || prepare(&llm, asked)).await;
    let Work { requests, echoes } = prepared.map_err(|unprepared| match unprepared {
        Unprepared::Full { waiting } => ApiError::queue_full(waiting, retry_seconds(&service)),
        Unprepared::BrokeOff => ApiError::internal("preparing the prompt broke off".to_owned()),
    })??;
    let logprobs = requests.iter().any(|request| request.logprobs.is_some());

    let choices = Choices::begin(service.llm.clone(), terms, requests)
        .map_err(|error| refused(kind, error, &service))?;
    let fingerprint = service.llm.facts().fingerprint.clone();
    let head = Head::new(kind, service.name.clone(), fingerprint, logprobs, tier);
    Ok(Submitted { head, delivery, echoes, choices_per_prompt, choices })
}

/// A model that generates text.
struct TextService {
    name: String,
    llm: Llm,
}

fn find(app: &App, name: &str) -> Result<TextService, ApiError> {
    let service = find_any(app, name)?;
    match service.engine {
        Engine::Llm(llm) => Ok(TextService { name: service.name, llm }),
        Engine::Onnx(_) => Err(ApiError::takes_tensors(name)),
    }
}

/// A model of any kind.
pub fn find_any(app: &App, name: &str) -> Result<Service, ApiError> {
    match app.services.find(name) {
        Found::Ready(service) => Ok(service),
        Found::Loading => Err(ApiError::model_loading(name)),
        Found::Unknown(served) => Err(ApiError::model_unknown(name, &served)),
    }
}

fn refused(kind: Kind, error: SubmitError, service: &TextService) -> ApiError {
    ApiError::submit(error, kind.prompt_param(), retry_seconds(service))
}

/// Until a place in the queue becomes free: as long as it took of late.
fn retry_seconds(service: &TextService) -> u64 {
    let seconds = service.llm.next_place().map_or(RETRY_SECONDS_MIN, |time| time.as_secs_f64());
    seconds.ceil().clamp(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX) as u64
}
