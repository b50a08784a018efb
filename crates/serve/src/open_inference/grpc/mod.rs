//! The gRPC form of the protocol: the same calls, on a listener of their own.

mod contents;
mod infer;
mod messages;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::post;
use engine::onnx::TensorSpec;
use prost::Message;
use tonic::server::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

use super::datatype;
use super::metadata::{EXTENSIONS, PLATFORM, SERVER_NAME, SERVER_VERSION, shape};
use crate::body::read_bytes;
use crate::http::{App, admitted};
use crate::operate;
use crate::shorten::shorten;
use crate::tensors::error::TensorError;
use crate::tensors::{find, find_any};
use messages::*;

const SERVICE: &str = "/inference.GRPCInferenceService";

/// The procedures of the service; who may call is decided before, as over HTTP.
pub fn router(app: Arc<App>) -> Router {
    let path = |procedure: &str| format!("{SERVICE}/{procedure}");
    Router::new()
        .route(&path("ServerLive"), post(server_live))
        .route(&path("ServerReady"), post(server_ready))
        .route(&path("ModelReady"), post(model_ready))
        .route(&path("ServerMetadata"), post(server_metadata))
        .route(&path("ModelMetadata"), post(model_metadata))
        .route(&path("ModelInfer"), post(infer::model_infer))
        .fallback(no_such_procedure)
        .method_not_allowed_fallback(no_such_procedure)
        .layer(from_fn_with_state(app.clone(), admit))
        .with_state(app)
}

/// Whether the server lives and is ready, anybody may ask.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_open = path.ends_with("/ServerLive") || path.ends_with("/ServerReady");
    if !is_open && let Err(error) = admitted(&app, &request) {
        app.metrics.count_refused(error.status());
        return refuse(status(TensorError::from(error)));
    }
    next.run(request).await
}

fn refuse(status: Status) -> Response {
    status.into_http::<Body>()
}

async fn no_such_procedure(request: Request) -> Response {
    let path = shorten(request.uri().path());
    refuse(Status::unimplemented(format!("there is no {path:?}; procedures are those of {SERVICE}")))
}

/// Reads a request within the limits of HTTP, answers it, and lets tonic do gRPC's framing.
async fn unary<Asked, Answer, Work>(
    app: Arc<App>,
    request: Request,
    work: impl FnOnce(Arc<App>, Asked) -> Work + Send + 'static,
) -> Response
where
    Asked: Message + Default + 'static,
    Answer: Message + 'static,
    Work: Future<Output = Result<Answer, TensorError>> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    let bytes = match read_bytes(&parts.headers, body, &app.settings).await {
        Ok(bytes) => bytes,
        Err(error) => return refuse(status(TensorError::from(error))),
    };
    let mut grpc = Grpc::new(ProstCodec::<Answer, Asked>::default())
        .max_decoding_message_size(app.settings.body_bytes_max)
        .max_encoding_message_size(usize::MAX);
    let mut once = Some((work, app));
    let service = service_fn(move |request: tonic::Request<Asked>| {
        let work = once.take().map(|(work, app)| work(app, request.into_inner()));
        async move {
            let work = work.ok_or_else(|| Status::internal("one message was expected"))?;
            work.await.map(tonic::Response::new).map_err(status)
        }
    });
    let request = Request::from_parts(parts, Body::from(bytes));
    grpc.unary(service, request).await.map(Body::new)
}

/// The code that clients of gRPC know an error by.
fn status(error: TensorError) -> Status {
    let code = match error.status {
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, error.message)
}

/// A version as a caller says it: empty for any.
fn said(version: &str) -> Option<&str> {
    Some(version).filter(|version| !version.is_empty())
}

async fn server_live(State(app): State<Arc<App>>, request: Request) -> Response {
    unary(app, request, async |_, _: ServerLiveRequest| Ok(ServerLiveResponse { live: true })).await
}

async fn server_ready(State(app): State<Arc<App>>, request: Request) -> Response {
    let answer = async |app: Arc<App>, _: ServerReadyRequest| {
        Ok(ServerReadyResponse { ready: operate::obstacle(&app).is_none() })
    };
    unary(app, request, answer).await
}

async fn model_ready(State(app): State<Arc<App>>, request: Request) -> Response {
    let answer = async |app: Arc<App>, asked: ModelReadyRequest| match find_any(
        &app,
        &asked.name,
        said(&asked.version),
    ) {
        Ok(service) => Ok(ModelReadyResponse { ready: service.engine.is_alive() }),
        Err(error) if error.status == StatusCode::SERVICE_UNAVAILABLE => {
            Ok(ModelReadyResponse { ready: false })
        }
        Err(error) => Err(error),
    };
    unary(app, request, answer).await
}

async fn server_metadata(State(app): State<Arc<App>>, request: Request) -> Response {
    let answer = async |_, _: ServerMetadataRequest| {
        let extensions = EXTENSIONS.map(str::to_owned).to_vec();
        Ok(ServerMetadataResponse {
            name: SERVER_NAME.to_owned(),
            version: SERVER_VERSION.to_owned(),
            extensions,
        })
    };
    unary(app, request, answer).await
}

async fn model_metadata(State(app): State<Arc<App>>, request: Request) -> Response {
    let answer = async |app: Arc<App>, asked: ModelMetadataRequest| {
        let service = find(&app, &asked.name, said(&asked.version))?;
        let tensor = |spec: &TensorSpec| TensorMetadata {
            name: spec.name.clone(),
            datatype: datatype::name(spec.element).to_owned(),
            shape: shape(spec),
        };
        let signature = service.onnx.signature();
        Ok(ModelMetadataResponse {
            versions: vec![service.version],
            platform: PLATFORM.to_owned(),
            inputs: signature.inputs.iter().map(tensor).collect(),
            outputs: signature.outputs.iter().map(tensor).collect(),
            name: service.name,
        })
    };
    unary(app, request, answer).await
}

#[test]
fn calls_over_the_time_have_the_code_of_deadlines() {
    let over = status(TensorError::too_slow(std::time::Duration::from_secs(5)));
    assert_eq!((over.code(), over.message().contains("within 5 s")), (Code::DeadlineExceeded, true));
}
