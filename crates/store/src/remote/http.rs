//! What `object_store` asks over HTTP, done by `ureq`, which fetches everything else here too: so there is one client,
//! one TLS library, and one set of proxy variables. A call blocks its thread; each worker has its own.

use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use ureq::http::{Method, Request};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Error};

/// Bytes of an answer: a frame, or a version's manifest.
const BODY_BYTES_MAX: u64 = 512 << 20;
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// For an answer to begin, and for its body: 8 MiB in 5 minutes is a very slow line.
const ANSWER_MAX: Duration = Duration::from_secs(60);
const BODY_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub struct Connector;

#[derive(Debug)]
struct Service(Agent);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allows_http = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let config = Agent::config_builder()
            .https_only(!allows_http)
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .user_agent(concat!("tureen/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_recv_response(Some(ANSWER_MAX))
            .timeout_send_body(Some(BODY_MAX))
            .timeout_recv_body(Some(BODY_MAX));
        Ok(HttpClient::new(Service(config.build().into())))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let takes_body = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
        let answer = if takes_body {
            self.0.run(Request::from_parts(parts, &body[..]))
        } else {
            self.0.run(Request::from_parts(parts, ()))
        };
        let (parts, mut body) = answer.map_err(failed)?.into_parts();
        let body = body.with_config().limit(BODY_BYTES_MAX).read_to_vec().map_err(failed)?;
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(body)))
    }
}

/// What kind of failure it is decides whether it is tried again.
fn failed(error: Error) -> HttpError {
    let kind = match &error {
        Error::Timeout(_) => HttpErrorKind::Timeout,
        Error::ConnectionFailed | Error::HostNotFound => HttpErrorKind::Connect,
        Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => HttpErrorKind::Connect,
        Error::Io(_) => HttpErrorKind::Interrupted,
        Error::Protocol(_) => HttpErrorKind::Request,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}
