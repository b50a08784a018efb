//! TensorFlow Serving's REST API (tensorflow.org/tfx/serving/api_rest) for models that take tensors: `:predict` with
//! `instances` (rows) or `inputs` (columns), `:classify`, `:regress`, status and metadata.
//!
//! An ONNX model has one signature, `serving_default`, and one version. ONNX has no base64 of texts; `{"b64": ...}`
//! stands for the bytes of a `uint8` tensor. `:classify` takes the scores of the first floating-point output of two
//! dimensions, with the class's number as its label; `:regress` the first with one value a row.

mod examples;
mod metadata;
mod predict;

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use crate::body::{apart, read_bytes};
use crate::http::App;
use crate::server::Peer;
use crate::shorten::shorten;
use crate::tensors::error::TensorError;
use crate::tensors::{call, find};
pub use metadata::{metadata, status};

const SIGNATURE: &str = "serving_default";
/// Examples in one request.
const ROWS_MAX: usize = 1 << 20;

/// What a URL below `/v1/models/` names.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    pub version: Option<String>,
}

impl Target {
    /// `NAME`, `NAME/versions/VERSION` or `NAME/labels/LABEL`.
    pub fn parse(text: &str) -> Target {
        let found = ["/versions/", "/labels/"].iter().find_map(|between| text.rsplit_once(between));
        let (name, version) = found.map_or((text, None), |(name, version)| (name, Some(version.to_owned())));
        Target { name: name.to_owned(), version }
    }
}

/// What a caller wants done: the last part of the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Predict,
    Classify,
    Regress,
}

impl Verb {
    fn parse(text: &str) -> Option<Verb> {
        match text {
            "predict" => Some(Verb::Predict),
            "classify" => Some(Verb::Classify),
            "regress" => Some(Verb::Regress),
            _ => None,
        }
    }

    fn endpoint(self) -> &'static str {
        match self {
            Verb::Predict => "predict",
            Verb::Classify => "classify",
            Verb::Regress => "regress",
        }
    }
}

/// Whether a path is one that only this protocol has.
pub fn is_call(path: &str) -> bool {
    let below = path.strip_prefix("/v1/models/");
    below.is_some_and(|below| {
        below.ends_with("/metadata")
            || below.rsplit_once(':').is_some_and(|(_, verb)| Verb::parse(verb).is_some())
    })
}

/// `POST /v1/models/NAME[/versions/VERSION]:VERB`.
pub async fn call(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let path = path.map_or_else(|_| String::new(), |Path(path)| path);
    let Some((target, verb)) =
        path.rsplit_once(':').and_then(|(name, verb)| Some((name, Verb::parse(verb)?)))
    else {
        let message = "POST below /v1/models/ ends in :predict, :classify or :regress";
        return call::respond(Err(TensorError::new(StatusCode::NOT_FOUND, "unknown_url", message)));
    };
    let outcome = call::counted(&app, verb.endpoint(), Peer::of(&request), async |record| {
        let target = Target::parse(target);
        call::asked(record, &target.name);
        let service = find(&app, &target.name, target.version.as_deref())?;
        let (parts, body) = request.into_parts();
        let body = read_bytes(&parts.headers, body, &app.settings).await?;
        let body_bytes = body.len();
        let specs = &service.onnx.signature().outputs;
        let of_body = service.clone();
        if verb == Verb::Predict {
            let decode = move || predict::decode(&of_body, &body);
            let predict::Asked { form, inputs } = apart(body_bytes, decode).await??;
            let outputs = call::run(&service, inputs, record).await?;
            return predict::encode(specs, &outputs, form).map(call::json);
        }
        let decode = move || examples::decode(&of_body, &body);
        let (inputs, rows) = apart(body_bytes, decode).await??;
        let outputs = call::run(&service, inputs, record).await?;
        examples::encode(verb, specs, &outputs, rows).map(call::json)
    });
    call::respond(outcome.await)
}

/// # Errors
/// A signature that an ONNX model doesn't have.
fn check_signature(name: &str) -> Result<(), TensorError> {
    if name.is_empty() || name == SIGNATURE {
        return Ok(());
    }
    let name = shorten(name);
    Err(TensorError::invalid(format!("the model has no signature {name:?}; it has {SIGNATURE:?}")))
}

fn unknown_key(key: &str, known: &str) -> TensorError {
    let key = shorten(key);
    TensorError::invalid(format!("the request has the key {key:?}; known are {known}"))
}

#[test]
fn urls_name_a_model_a_version_and_a_verb() {
    let check = |text: &str, name: &str, version: Option<&str>| {
        assert_eq!(
            Target::parse(text),
            Target { name: name.to_owned(), version: version.map(str::to_owned) }
        );
    };
    check("digits", "digits", None);
    check("smollm2:135m", "smollm2:135m", None);
    check("digits/versions/1", "digits", Some("1"));
    check("digits/labels/stable", "digits", Some("stable"));
    assert!(is_call("/v1/models/a:b:predict") && is_call("/v1/models/a/versions/1/metadata"));
    assert!(!is_call("/v1/models/smollm2:135m") && !is_call("/v1/models") && !is_call("/v1/chat:predict"));
}
