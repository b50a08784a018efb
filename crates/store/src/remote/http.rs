//! What `object_store` asks over HTTP, done by `ureq`, which fetches everything else here too: so there is one client,
//! one TLS library, and one set of proxy variables. A call blocks its thread; each worker has its own.

use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use ureq::http::{Method, Request};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, BodyReader, Error};

/// Bytes of an answer: a frame, or a version's manifest.
const BODY_BYTES_MAX: u64 = 512 << 20;
const ERROR_BYTES_MAX: u64 = 1 << 20;
/// Read at once.
const PART_BYTES: u64 = 1 << 20;
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
        Ok(HttpClient::new(Service(agent(allows_http, 0))))
    }
}

/// A client whose answers are what the server says, errors too.
pub fn agent(allows_http: bool, redirects_max: u32) -> Agent {
    let config = Agent::config_builder()
        .https_only(!allows_http)
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .user_agent(concat!("tureen/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(redirects_max)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_MAX))
        .timeout_recv_response(Some(ANSWER_MAX))
        .timeout_send_body(Some(BODY_MAX))
        .timeout_recv_body(Some(BODY_MAX));
    config.build().into()
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
        let (parts, body) = answer.map_err(failed)?.into_parts();
        // Of an error, what is shown of it.
        let limit = if parts.status.is_success() { BODY_BYTES_MAX } else { ERROR_BYTES_MAX };
        let reader = body.into_with_config().limit(limit).reader();
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(Answer(Some(reader)))))
    }
}

/// A body that is read as it is asked for: one whose length is more than is expected is not read at all.
struct Answer(Option<BodyReader<'static>>);

impl Body for Answer {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Some(reader) = self.0.as_mut() else { return Poll::Ready(None) };
        let mut part = Vec::new();
        let read = reader.take(PART_BYTES).read_to_end(&mut part);
        Poll::Ready(match read {
            Ok(0) => None,
            Ok(_) => Some(Ok(Frame::data(part.into()))),
            Err(error) => {
                self.0 = None;
                Some(Err(HttpError::new(HttpErrorKind::Interrupted, error)))
            }
        })
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use object_store::client::HttpRequestBody;

    use super::*;

    #[test]
    fn a_body_is_not_read_before_it_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        // The connection stays open, and the rest never comes.
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let asked = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 400000000\r\n\r\n12345").unwrap();
            (stream, asked)
        });
        let request = Request::get(url).body(HttpRequestBody::empty()).unwrap();
        let answer = futures_executor::block_on(Service(agent(true, 0)).call(request)).unwrap();
        assert_eq!(answer.headers()["content-length"], "400000000");
        drop(answer);
        assert!(server.join().unwrap().1 > 0);
    }
}
