//! What holds for every request whatever its protocol: its name, whose page it comes from, who calls; and the
//! table of URLs.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN,
};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::access::{Caller, Denied, Keys};
use crate::gate::Gate;
use crate::metrics::{Metrics, Recorded};
use crate::openai::{self, ApiError};
use crate::preparing::Preparing;
use crate::server::Peer;
use crate::services::Services;
use crate::settings::ServeSettings;
use crate::tensors::error::TensorError;
use crate::unique::unique;
use crate::{files, jobs, models, open_inference, operate, origins, tensorflow};

/// Characters of a request's path in the log.
const LOGGED_CHARS_MAX: usize = 100;

/// Marks a response that refuses, with the error's code.
#[derive(Clone, Copy)]
pub struct Refused(pub &'static str);

/// What handlers share.
pub struct App {
    pub settings: ServeSettings,
    pub keys: Keys,
    pub services: Services,
    pub metrics: Arc<Metrics>,
    pub gate: Gate,
    pub preparing: Preparing,
}

impl App {
    pub fn new(settings: ServeSettings, services: Services) -> Arc<App> {
        let keys = Keys::new(&settings.keys);
        Arc::new(App {
            keys,
            services,
            settings,
            metrics: Arc::default(),
            gate: Gate::open(),
            preparing: Preparing::new(),
        })
    }
}

pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(operate::greeting))
        .route("/health", get(operate::health))
        .route("/ready", get(operate::ready))
        .route("/metrics", get(operate::metrics))
        .merge(openai::routes())
        .merge(open_inference::routes())
        .merge(models::routes())
        .merge(files::routes())
        .merge(jobs::routes())
        .fallback(no_such_url)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(app.clone(), admit))
        .with_state(app)
}

/// Names the request, and lets it through where its page and its key allow.
async fn admit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let line = format!("{} {:.*}", request.method(), LOGGED_CHARS_MAX, request.uri().path());
    let peer = Peer::of(&request);
    let page = origins::origin(request.headers()).cloned();
    let listed = page.clone().filter(|origin| origins::is_listed(origin, &app.settings.origins));
    let preflight = request.method() == Method::OPTIONS && page.is_some();
    let mut response = if preflight {
        let mut response = StatusCode::NO_CONTENT.into_response();
        if listed.is_some() {
            let asked = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS);
            origins::allow_preflight(asked, response.headers_mut());
        }
        response
    } else {
        let path = request.uri().path();
        let caller = if is_guarded(path) {
            check(&app, &request, page.as_ref(), listed.is_some())
        } else {
            Ok(Caller::Anyone)
        };
        match caller {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(error) => {
                app.metrics.count_refused(error.status());
                shaped(path, error)
            }
        }
    };
    if response.extensions().get::<Recorded>().is_none() {
        log(&line, &response, peer, begun);
    }
    let headers = response.headers_mut();
    if let Some(origin) = &listed {
        origins::allow(origin, headers);
    }
    if let Ok(name) = HeaderValue::try_from(unique("req")) {
        headers.insert("x-request-id", name);
    }
    response
}

/// What operators' tools ask every few seconds is no news.
fn log(line: &str, response: &Response, peer: Option<Peer>, begun: Instant) {
    let (status, ms) = (response.status().as_u16(), begun.elapsed().as_millis());
    let error = response.extensions().get::<Refused>().map(|refused| refused.0);
    let peer = peer.map(|peer| tracing::field::display(peer.0));
    if matches!(line, "GET /health" | "GET /ready" | "GET /metrics") || line.starts_with("GET /v2/health/") {
        tracing::debug!(status, error, peer, ms, "{line}");
    } else {
        tracing::info!(status, error, peer, ms, "{line}");
    }
}

/// Whether a path asks for who calls. Operators' tools ask without a key whether the server lives and is ready.
fn is_guarded(path: &str) -> bool {
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    path == "/metrics" || below("/v1") || (below("/v2") && !path.starts_with("/v2/health/"))
}

/// Whether the caller of a protocol that has no web pages may call.
pub fn admitted(app: &App, request: &Request) -> Result<Caller, ApiError> {
    let page = origins::origin(request.headers());
    let listed = page.is_some_and(|origin| origins::is_listed(origin, &app.settings.origins));
    check(app, request, page, listed)
}

/// An error in the shape of the protocol that a path belongs to.
fn shaped(path: &str, error: ApiError) -> Response {
    let tensors = path == "/v2" || path.starts_with("/v2/") || tensorflow::is_call(path);
    if tensors { TensorError::from(error).into_response() } else { error.into_response() }
}

/// Headers that decide who may call and how a body is read: a proxy before this server might heed another one than this
/// server (RFC 9112, 3.2 and 6.3; RFC 9110, 5.3).
const SINGLE: [HeaderName; 4] = [HOST, ORIGIN, AUTHORIZATION, CONTENT_TYPE];

/// Who calls, where a path asks for it.
fn check(app: &App, request: &Request, page: Option<&HeaderValue>, listed: bool) -> Result<Caller, ApiError> {
    let repeated = |name: &&HeaderName| request.headers().get_all(*name).iter().nth(1).is_some();
    if let Some(name) = SINGLE.iter().find(repeated) {
        return Err(ApiError::header_repeated(name.as_str()));
    }
    if app.keys.is_open() && !listed {
        if let Some(page) = page.filter(|page| !origins::is_loopback(page)) {
            return Err(ApiError::origin_refused(&String::from_utf8_lossy(page.as_bytes())));
        }
        // Of a page whose name was made to resolve to this machine, a browser sends no origin, but the name.
        let host = request.uri().authority().map(|host| host.as_str().as_bytes());
        let host = host.or_else(|| request.headers().get(HOST).map(HeaderValue::as_bytes));
        if let Some(host) = host.filter(|host| !origins::is_host_allowed(host, &app.settings.origins)) {
            return Err(ApiError::host_refused(&String::from_utf8_lossy(host)));
        }
    }
    app.keys.check(request.headers()).map_err(|denied| match denied {
        Denied::KeyMissing => ApiError::key_missing(),
        Denied::KeyUnknown => ApiError::key_unknown(),
    })
}

async fn no_such_url(request: Request) -> Response {
    let path = request.uri().path();
    shaped(path, ApiError::no_such_url(request.method(), path))
}

async fn no_such_method(request: Request) -> Response {
    let path = request.uri().path();
    shaped(path, ApiError::no_such_method(request.method(), path))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    fn app(keys: &[&str], origins: &[&str]) -> Arc<App> {
        let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
        let settings =
            ServeSettings { keys: owned(keys), origins: owned(origins), ..ServeSettings::default() };
        App::new(settings, Services::announce(["smol".to_owned()]).unwrap())
    }

    /// Sends `METHOD /path` with headers, and returns the answer.
    async fn send(app: &Arc<App>, line: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        router(app.clone()).oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap()
    }

    async fn text(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn check(app: &Arc<App>, line: &str, headers: &[(&str, &str)], status: u16, code: &str) {
        let response = send(app, line, headers, "{}").await;
        assert_eq!(response.status().as_u16(), status, "{line} {headers:?}");
        assert!(response.headers().contains_key("x-request-id"));
        let body = text(response).await;
        if !code.is_empty() {
            let error: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(error["error"]["code"], json!(code), "{body}");
            assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
        }
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    #[tokio::test]
    async fn keys_guard_the_protocols_and_metrics_only() {
        let app = app(&["secret"], &[]);
        for guarded in ["GET /v1/models", "POST /v1/chat/completions", "GET /metrics", "GET /v1/unknown"] {
            check(&app, guarded, &[], 401, "invalid_api_key").await;
            check(&app, guarded, &[("authorization", "Bearer wrong")], 401, "invalid_api_key").await;
        }
        check(&app, "GET /health", &[], 200, "").await;
        check(&app, "GET /ready", &[], 503, "").await;
        check(&app, "GET /v1/models", &[("authorization", "Bearer secret")], 200, "").await;
        check(&app, "GET /metrics", &[("authorization", "Bearer secret")], 200, "").await;
    }

    #[tokio::test]
    async fn what_decides_who_may_call_is_said_once() {
        let app = app(&["secret"], &[]);
        let twice = [("authorization", "Bearer secret"), ("authorization", "Bearer other"), JSON];
        check(&app, "POST /v1/chat/completions", &twice, 400, "header_repeated").await;
        let hosts = [("host", "localhost"), ("host", "evil.example"), ("authorization", "Bearer secret")];
        check(&app, "GET /v1/models", &hosts, 400, "header_repeated").await;
    }

    #[tokio::test]
    async fn unknown_urls_methods_and_models_answer_in_the_same_shape() {
        let app = app(&[], &[]);
        check(&app, "GET /v3", &[], 404, "unknown_url").await;
        let greeting = text(send(&app, "GET /", &[], "").await).await;
        assert!(greeting.contains("/v1/chat/completions"), "{greeting}");
        check(&app, "POST /v1/embeddings", &[], 404, "unknown_url").await;
        let unsupported = text(send(&app, "POST /v1/embeddings", &[], "").await).await;
        assert!(unsupported.contains("not supported yet"), "{unsupported}");
        check(&app, "GET /v1/chat/completions", &[], 405, "method_not_allowed").await;
        check(&app, "GET /v1/models/other", &[], 404, "model_not_found").await;
        check(&app, "POST /v1/completions", &[], 415, "unsupported_content_type").await;
        check(&app, "POST /v1/completions", &[JSON], 400, "missing_required_parameter").await;
    }

    #[tokio::test]
    async fn a_model_that_loads_answers_503_and_an_unknown_one_404() {
        let app = app(&[], &[]);
        let ask = async |model: &str| {
            let body = json!({ "model": model, "prompt": "x" }).to_string();
            send(&app, "POST /v1/completions", &[JSON], &body).await
        };
        let loading = ask("smol").await;
        assert_eq!(loading.status(), 503);
        assert!(loading.headers().contains_key("retry-after"));
        let unknown = ask("gpt-4o").await;
        assert_eq!(unknown.status(), 404);
        let body = text(unknown).await;
        assert!(body.contains("\\\"gpt-4o\\\"") && body.contains("\\\"smol\\\""), "{body}");
    }

    #[tokio::test]
    async fn a_closed_gate_takes_no_new_work() {
        let app = app(&[], &[]);
        app.gate.close();
        let body = json!({ "model": "smol", "prompt": "x" }).to_string();
        let response = send(&app, "POST /v1/completions", &[JSON], &body).await;
        assert_eq!(response.status(), 503);
        assert!(text(response).await.contains("\"code\":\"draining\""));
        check(&app, "GET /health", &[], 200, "").await;
        check(&app, "GET /ready", &[], 503, "").await;
    }

    #[tokio::test]
    async fn foreign_pages_need_a_place_in_the_settings() {
        let evil = ("origin", "https://evil.example");
        let open = app(&[], &[]);
        check(&open, "GET /v1/models", &[evil], 403, "origin_not_allowed").await;
        check(&open, "GET /v1/models", &[("origin", "http://localhost:3000")], 200, "").await;
        check(&open, "GET /health", &[evil], 200, "").await;
        let keyed = app(&["secret"], &[]);
        check(&keyed, "GET /v1/models", &[evil, ("authorization", "Bearer secret")], 200, "").await;

        let listed = app(&[], &["https://chat.example"]);
        let headers = [("origin", "https://chat.example"), ("access-control-request-headers", "x-a")];
        let preflight = send(&listed, "OPTIONS /v1/chat/completions", &headers, "").await;
        assert_eq!(preflight.status(), 204);
        assert_eq!(preflight.headers()["access-control-allow-origin"], "https://chat.example");
        assert_eq!(preflight.headers()["access-control-allow-headers"], "x-a");
        let models = send(&listed, "GET /v1/models", &headers[..1], "").await;
        assert_eq!(models.headers()["access-control-allow-origin"], "https://chat.example");
        let stranger = send(&listed, "OPTIONS /v1/models", &[evil], "").await;
        assert!(!stranger.headers().contains_key("access-control-allow-origin"));
    }

    #[tokio::test]
    async fn without_a_key_only_names_of_this_machine_are_answered_to() {
        let open = app(&[], &[]);
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]"] {
            check(&open, "GET /v1/models", &[("host", host)], 200, "").await;
        }
        for host in ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.168.1.7", ""] {
            check(&open, "GET /v1/models", &[("host", host)], 403, "host_not_allowed").await;
            check(&open, "POST /v1/completions", &[("host", host), JSON], 403, "host_not_allowed").await;
        }
        check(&open, "GET http://evil.example/v1/models", &[], 403, "host_not_allowed").await;
        check(&open, "GET /health", &[("host", "evil.example")], 200, "").await;
        let proxied = ("host", "chat.example:8443");
        check(&app(&[], &["https://chat.example:8443"]), "GET /v1/models", &[proxied], 200, "").await;
        check(&app(&[], &["*"]), "GET /v1/models", &[proxied], 200, "").await;
        let key = ("authorization", "Bearer secret");
        check(&app(&["secret"], &[]), "GET /v1/models", &[proxied, key], 200, "").await;
    }

    #[tokio::test]
    async fn refusals_are_counted_with_their_status() {
        let app = app(&["secret"], &[]);
        let key = ("authorization", "Bearer secret");
        send(&app, "POST /v1/completions", &[], "").await;
        send(&app, "POST /v1/completions", &[key, JSON], "{").await;
        let metrics = text(send(&app, "GET /metrics", &[key], "").await).await;
        for line in [
            r#"tureen_requests_total{endpoint="",model="",outcome="refused",status="401"} 1"#,
            r#"tureen_requests_total{endpoint="completions",model="",outcome="refused",status="400"} 1"#,
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
    }
}
