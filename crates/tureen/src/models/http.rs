//! One GET at a time: redirects followed by hand, so that a token stays with the host it is for and headers of the
//! first answer are seen; errors sorted into those worth another try and those that aren't.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine;
use ureq::http::{HeaderMap, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::url::{Url, decode};
use crate::terminal::say;

const REDIRECTS_MAX: usize = 10;
/// Bytes of a page or a JSON answer read into memory.
const PAGE_BYTES_MAX: u64 = 64 << 20;
const PAGE_CHUNK_BYTES: usize = 64 << 10;
/// Longest that a server may make us wait before the next try.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Further tries for a page whose host has no address: a wrong name stays wrong, a network may just be waking up.
const NO_HOST_RETRIES_MAX: u32 = 1;

/// How patient a transfer is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub connect: Duration,
    /// Without a byte, after which a connection counts as dead.
    pub stall: Duration,
    /// In which a download must bring something worth the wait.
    pub slow: Duration,
    /// For a page that is read into memory, from its first byte to its last.
    pub page: Duration,
    /// Bytes taken of a file whose length nobody says.
    pub unannounced_bytes_max: u64,
    /// Tries after the first that fail in a row without a byte received.
    pub retries_max: u32,
    /// Before the first further try; doubled for each after it.
    pub backoff: Duration,
}

impl Patience {
    pub const DOWNLOAD: Patience = Patience {
        connect: Duration::from_secs(15),
        stall: Duration::from_secs(30),
        slow: Duration::from_secs(60),
        page: Duration::from_secs(300),
        unannounced_bytes_max: 64 << 30,
        retries_max: 5,
        backoff: Duration::from_secs(1),
    };

    /// The wait before try number `retry`, counted from 0.
    pub fn pause(&self, retry: u32) -> Duration {
        self.backoff * 2_u32.pow(retry.min(5))
    }
}

/// Why a request gave no answer to use.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Another try may go better; the server may have said when.
    #[error("{message}")]
    Transient { message: String, after: Option<Duration> },
    /// No address is known for the host.
    #[error("{0}")]
    NoHost(String),
    /// The server answered, and will answer the same again.
    #[error("{message}")]
    Refused { status: u16, message: String },
    #[error("{0}")]
    Other(String),
}

/// A client, with the secrets for one host.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    pub patience: Patience,
    /// A bearer token, for the host that it is for.
    token: Option<(String, String)>,
}

/// An answer with its headers: those of the last hop, and those of the first where it redirected.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub first_headers: Option<HeaderMap>,
    pub url: Url,
    body: Body,
}

impl Client {
    /// A client that trusts what this machine trusts, or only the certificates in the PEM file `certificates`.
    /// Proxies are taken from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
    pub fn new(patience: Patience, certificates: Option<&Path>) -> anyhow::Result<Client> {
        let roots = match certificates {
            Some(path) => roots_from(path)?,
            None if machine_has_certificates() => RootCerts::PlatformVerifier,
            None => RootCerts::WebPki,
        };
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("tureen/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(patience.connect))
            .timeout_resolve(Some(patience.connect))
            .timeout_recv_response(Some(patience.stall))
            .timeout_per_read(Some(patience.stall))
            .build();
        Ok(Client { agent: config.new_agent(), patience, token: None })
    }

    /// The same client with a token that is sent to `host` alone.
    pub fn with_token(mut self, host: &str, token: Option<String>) -> Client {
        self.token = token.map(|token| (host.to_string(), token));
        self
    }

    /// Asks once, and follows redirects.
    ///
    /// # Errors
    /// Anything but a 2xx (and 416, which says something about a range), or no answer at all.
    pub fn get(&self, url: &Url, headers: &[(&str, &str)]) -> Result<Answer, FetchError> {
        let mut url = url.clone();
        let mut first_headers = None;
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.agent.get(url.request());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(authorization) = self.authorization(&url) {
                request = request.header("authorization", authorization);
            }
            let response = request.call().map_err(|error| no_answer(&url, &error))?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return answer(response, url, first_headers);
            }
            let location = header(response.headers(), "location").unwrap_or_default();
            let next = url
                .join(&location)
                .map_err(|error| FetchError::Other(format!("{url} redirects: {error}")))?;
            if url.scheme == "https" && next.scheme == "http" {
                return Err(FetchError::Other(format!(
                    "{url} redirects to {next}, which isn't encrypted: not followed"
                )));
            }
            first_headers.get_or_insert_with(|| response.headers().clone());
            url = next;
        }
        Err(FetchError::Other(format!("{url}: more than {REDIRECTS_MAX} redirects")))
    }

    fn authorization(&self, url: &Url) -> Option<String> {
        if let Some(user) = &url.user {
            let plain: Vec<String> = user.splitn(2, ':').map(decode).collect();
            let plain = format!("{}:{}", plain[0], plain.get(1).map_or("", String::as_str));
            return Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain)));
        }
        let (_, token) = self.token.as_ref().filter(|(host, _)| *host == url.host)?;
        Some(format!("Bearer {token}"))
    }

    /// A whole page, with further tries where that may help, which are said.
    pub fn page(&self, url: &Url, headers: &[(&str, &str)]) -> Result<(Url, HeaderMap, String), FetchError> {
        let mut retry = 0;
        loop {
            let read = self.get(url, headers).and_then(|answer| {
                let (place, headers) = (answer.url.clone(), answer.headers.clone());
                let text = answer.text(self.patience.page)?;
                Ok((place, headers, text))
            });
            let (message, after, retries_max) = match read {
                Err(FetchError::Transient { message, after }) => (message, after, self.patience.retries_max),
                Err(FetchError::NoHost(message)) => (message, None, NO_HOST_RETRIES_MAX),
                other => return other,
            };
            if retry >= retries_max.min(self.patience.retries_max) {
                return Err(FetchError::Transient { message, after });
            }
            let pause = after.unwrap_or(self.patience.pause(retry));
            say(trying_again(&message, pause));
            std::thread::sleep(pause);
            retry += 1;
        }
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.headers, name)
    }

    /// The body, however long.
    pub fn into_reader(self) -> impl Read {
        self.body.into_with_config().limit(u64::MAX).reader()
    }

    /// The body as text, all of it within `time_max`.
    fn text(self, time_max: Duration) -> Result<String, FetchError> {
        let (url, started) = (self.url.clone(), Instant::now());
        let mut reader = self.body.into_with_config().limit(PAGE_BYTES_MAX).reader();
        let mut bytes = Vec::new();
        let mut chunk = vec![0; PAGE_CHUNK_BYTES];
        loop {
            let count =
                reader.read(&mut chunk).map_err(|error| no_answer(&url, &ureq::Error::from(error)))?;
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&chunk[..count]);
            if started.elapsed() > time_max {
                let message = format!("{url}: no whole page within {} s", time_max.as_secs());
                return Err(FetchError::Transient { message, after: None });
            }
        }
        String::from_utf8(bytes).map_err(|_| FetchError::Other(format!("{url} is no text")))
    }
}

/// What is said before the next try, wherever one is made.
pub fn trying_again(message: &str, pause: Duration) -> String {
    format!("{message}; trying again in {:.0} s", pause.as_secs_f64().ceil())
}

pub fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_string())
}

fn answer(
    response: Response<Body>,
    url: Url,
    first_headers: Option<HeaderMap>,
) -> Result<Answer, FetchError> {
    let status = response.status().as_u16();
    let (parts, body) = response.into_parts();
    let reason = parts.status.canonical_reason().unwrap_or("no reason given");
    let message = format!("{url} answers {status} {reason}");
    match status {
        200..=299 | 416 => Ok(Answer { status, headers: parts.headers, first_headers, url, body }),
        408 | 425 | 429 | 500..=599 => {
            let seconds = header(&parts.headers, "retry-after").and_then(|value| value.parse().ok());
            let after = seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
            Err(FetchError::Transient { message, after })
        }
        _ => Err(FetchError::Refused { status, message }),
    }
}

/// A failure of the connection: worth another try unless it says that the request itself is wrong.
fn no_answer(url: &Url, error: &ureq::Error) -> FetchError {
    use ureq::Error;
    let message = format!("{}: {}", url.host, cause(error));
    match error {
        _ if is_no_host(error) => {
            let mirror =
                if url.host.ends_with("huggingface.co") { ", HF_ENDPOINT names a mirror" } else { "" };
            FetchError::NoHost(format!("{message} (HTTPS_PROXY names a proxy{mirror})"))
        }
        Error::Io(_)
        | Error::Timeout(_)
        | Error::ConnectionFailed
        | Error::BodyStalled
        | Error::Protocol(_)
        | Error::ConnectProxyFailed(_) => FetchError::Transient { message, after: None },
        _ => FetchError::Other(message),
    }
}

/// What the system's resolver says has no kind of its own, only these words, which are the standard library's.
fn is_no_host(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound => true,
        ureq::Error::Io(error) => error.to_string().contains("failed to lookup address information"),
        _ => false,
    }
}

/// The innermost reason, which says most.
fn cause(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        source = inner.source();
    }
    texts.join(": ")
}

fn roots_from(path: &Path) -> anyhow::Result<RootCerts> {
    let context = || format!("reading certificates from {}", path.display());
    let text = std::fs::read(path).with_context(context)?;
    let items: Result<Vec<PemItem>, ureq::Error> = ureq::tls::parse_pem(&text).collect();
    let certificates = items.with_context(context)?.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    Ok(RootCerts::Specific(Arc::new(certificates.collect())))
}

/// Whether the system's certificates are where programs look for them; a bare container may have none.
fn machine_has_certificates() -> bool {
    const BUNDLES: [&str; 5] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    ];
    let named = |name: &str| std::env::var_os(name).is_some_and(|path| Path::new(&path).exists());
    !cfg!(target_os = "linux")
        || named("SSL_CERT_FILE")
        || named("SSL_CERT_DIR")
        || BUNDLES.iter().any(|path| Path::new(path).exists())
}

#[test]
fn a_host_without_an_address_is_told_with_the_way_out() {
    let client = Client::new(Patience::DOWNLOAD, None).unwrap();
    let url = Url::parse("http://no-such-host.invalid/x").unwrap();
    let Err(error) = client.get(&url, &[]) else { panic!("it answers") };
    assert!(matches!(&error, FetchError::NoHost(message) if message.contains("HTTPS_PROXY")), "{error}");
}
