//! Requests to one registry: who we are is said when it asks and to it alone, redirects are followed by hand, and
//! what may go better is tried again.

use std::io::{ErrorKind, Read};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use ureq::http::{HeaderMap, Method, Request, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Error};

use super::Result;
use super::auth::{Challenge, Credentials, challenge, credentials};
use super::{Address, refused};
use crate::error::StoreError;

const REDIRECTS_MAX: usize = 5;
/// Further tries of what failed in a way that may pass.
pub const RETRIES_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
const CONNECT_MAX: Duration = Duration::from_secs(20);
/// A registry may compare a large blob with its digest before it answers.
const ANSWER_MAX: Duration = Duration::from_secs(300);
const STALL_MAX: Duration = Duration::from_secs(60);
/// Of a body that is sent, which is a chunk at most.
const SEND_MAX: Duration = Duration::from_secs(600);
/// Bytes of what a registry says of an error, or of a token.
const SMALL_BYTES_MAX: u64 = 1 << 20;
const SAID_CHARS_MAX: usize = 300;

/// A failure, and whether another try may go better, after how long if that was said.
pub struct Failed {
    pub error: StoreError,
    pub is_passing: bool,
    after: Option<Duration>,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Failed {
        Failed { error, is_passing: false, after: None }
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub url: String,
    pub body: Body,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The whole body.
    ///
    /// # Errors
    /// It is longer than `bytes_max`, or doesn't come.
    pub fn read(&mut self, what: &str, bytes_max: u64) -> Result<Vec<u8>, Failed> {
        let mut bytes = Vec::new();
        let read = self.body.as_reader().take(bytes_max + 1).read_to_end(&mut bytes);
        read.map_err(|error| Failed::passing(refused(what.to_owned(), error.to_string())))?;
        if bytes.len() as u64 > bytes_max {
            return Err(
                refused(what.to_owned(), format!("the answer has more than {bytes_max} bytes")).into()
            );
        }
        Ok(bytes)
    }

    /// What the registry says is wrong.
    pub fn failed(mut self, what: &str) -> Failed {
        #[derive(Default, Deserialize)]
        struct Said {
            #[serde(default)]
            errors: Vec<One>,
        }
        #[derive(Deserialize)]
        struct One {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let body = self.read(what, SMALL_BYTES_MAX).unwrap_or_default();
        let said: Said = serde_json::from_slice(&body).unwrap_or_default();
        let said = said.errors.first().map_or(String::new(), |one| format!(": {} {}", one.code, one.message));
        let said: String = said.chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect();
        let after = self.header(RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
        let way_out = match self.status {
            401 | 403 => {
                "; name and password are taken from TUREEN_OCI_USER and TUREEN_OCI_PASSWORD, or from where docker login \
                 keeps them"
            }
            _ => "",
        };
        Failed {
            error: refused(what.to_owned(), format!("the registry answered {}{said}{way_out}", self.status)),
            is_passing: matches!(self.status, 408 | 429 | 500..),
            after: after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX)),
        }
    }
}

/// One thing to ask.
pub struct Ask<'a> {
    pub what: &'a str,
    pub method: Method,
    pub url: String,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl<'a> Ask<'a> {
    pub fn new(what: &'a str, method: Method, url: String) -> Ask<'a> {
        Ask { what, method, url, headers: &[], body: &[] }
    }
}

pub struct Client {
    pub address: Address,
    agent: Agent,
    credentials: Option<Credentials>,
    /// What we may want to do, as tokens are asked for.
    scopes: Vec<String>,
    /// The header that the registry took last.
    authorization: Mutex<Option<String>>,
}

impl Client {
    /// # Errors
    /// Where passwords are kept something is wrong.
    pub fn new(address: &Address, scopes: Vec<String>) -> Result<Client> {
        let config = Agent::config_builder()
            .https_only(!address.is_plain)
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .user_agent(concat!("tureen/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_recv_response(Some(ANSWER_MAX))
            .timeout_per_read(Some(STALL_MAX))
            .timeout_send_body(Some(SEND_MAX));
        Ok(Client {
            address: address.clone(),
            agent: config.build().into(),
            credentials: credentials(&address.host)?,
            scopes,
            authorization: Mutex::default(),
        })
    }

    /// An answer with one of `expected`, after further tries where it needs them.
    ///
    /// # Errors
    /// Another answer, or none.
    pub fn ask(&self, ask: &Ask<'_>, expected: &[u16]) -> Result<Answer> {
        self.again(|| self.once(ask, expected))
    }

    /// Tries again what fails in a way that may pass.
    pub fn again<T>(&self, mut work: impl FnMut() -> Result<T, Failed>) -> Result<T> {
        let mut tries = 0;
        loop {
            match work() {
                Ok(done) => return Ok(done),
                Err(failed) if failed.is_passing && tries < RETRIES_MAX => failed.pause(&mut tries),
                Err(failed) => return Err(failed.error),
            }
        }
    }

    /// # Errors
    /// As for [`Client::ask`], which tries again.
    pub fn once(&self, ask: &Ask<'_>, expected: &[u16]) -> Result<Answer, Failed> {
        let mut answer = self.follow(ask)?;
        if answer.status == 401
            && let Some(header) = answer.header(WWW_AUTHENTICATE.as_str())
            && self.authorise(ask.what, header)?
        {
            answer = self.follow(ask)?;
        }
        if expected.contains(&answer.status) { Ok(answer) } else { Err(answer.failed(ask.what)) }
    }

    /// Redirects lead to where blobs really are; only what is asked for is, never what is sent.
    fn follow(&self, ask: &Ask<'_>) -> Result<Answer, Failed> {
        let may_follow = ask.method == Method::GET || ask.method == Method::HEAD;
        let mut url = ask.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send(ask, &url)?;
            match answer.header(LOCATION.as_str()) {
                Some(location) if may_follow && (300..400).contains(&answer.status) => {
                    url = self.join(ask.what, &url, location)?;
                }
                _ => return Ok(answer),
            }
        }
        Err(refused(ask.what.to_owned(), format!("more than {REDIRECTS_MAX} redirects")).into())
    }

    fn send(&self, ask: &Ask<'_>, url: &str) -> Result<Answer, Failed> {
        let mut request = Request::builder().method(ask.method.clone()).uri(url);
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(authorization) = authorization.filter(|_| origin(url) == origin(&self.address.root())) {
            request = request.header(AUTHORIZATION, authorization);
        }
        let bad = |error: ureq::http::Error| refused(ask.what.to_owned(), error.to_string());
        let sends = ask.method != Method::GET && ask.method != Method::HEAD;
        let answer = if sends {
            self.agent.run(request.body(ask.body).map_err(bad)?)
        } else {
            self.agent.run(request.body(()).map_err(bad)?)
        };
        let (parts, body) = answer.map_err(|error| unanswered(ask.what, &error))?.into_parts();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, url: url.to_owned(), body })
    }

    /// Where a registry sends us: TLS isn't left for that.
    ///
    /// # Errors
    /// It is no URL of ours.
    pub fn join(&self, what: &str, base: &str, location: &str) -> Result<String> {
        let url = match location.strip_prefix('/') {
            Some(path) if !path.starts_with('/') => format!("{}/{path}", origin(base)),
            _ => location.to_owned(),
        };
        let is_fit = url.starts_with("https://") || (self.address.is_plain && url.starts_with("http://"));
        if !is_fit || url.parse::<Uri>().is_err() {
            let shown: String = location.chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect();
            return Err(refused(what.to_owned(), format!("the registry sends us to {shown:?}")));
        }
        Ok(url)
    }

    /// Finds what the registry wants to see; `false` where we have nothing that it might take.
    fn authorise(&self, what: &str, header: &str) -> Result<bool, Failed> {
        let found = match challenge(header) {
            Some(Challenge::Basic) => self.credentials.as_ref().map(Credentials::header),
            Some(Challenge::Bearer { realm, service }) => Some(self.token(what, &realm, &service)?),
            None => None,
        };
        let is_some = found.is_some();
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(is_some)
    }

    fn token(&self, what: &str, realm: &str, service: &str) -> Result<String, Failed> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(alias = "access_token")]
            token: String,
        }
        let realm = self.join(what, &self.address.root(), realm)?;
        let mut url =
            format!("{realm}{}service={}", if realm.contains('?') { '&' } else { '?' }, escaped(service));
        for scope in &self.scopes {
            url.push_str(&format!("&scope={}", escaped(scope)));
        }
        let mut request = Request::builder().method(Method::GET).uri(&url);
        if let Some(credentials) = &self.credentials {
            request = request.header(AUTHORIZATION, credentials.header());
        }
        let request = request.body(()).map_err(|error| refused(what.to_owned(), error.to_string()))?;
        let answer = self.agent.run(request).map_err(|error| unanswered(what, &error))?;
        let (parts, body) = answer.into_parts();
        let mut answer = Answer { status: parts.status.as_u16(), headers: parts.headers, url, body };
        if answer.status != 200 {
            return Err(answer.failed(&format!("{what}: asking for a token")));
        }
        let text = answer.read(what, SMALL_BYTES_MAX)?;
        let token: Token = serde_json::from_slice(&text)
            .map_err(|_| refused(what.to_owned(), "what should be a token is none"))?;
        Ok(format!("Bearer {}", token.token))
    }
}

impl Failed {
    pub fn passing(error: StoreError) -> Failed {
        Failed { error, is_passing: true, after: None }
    }

    pub fn pause(&self, tries: &mut u32) {
        sleep(self.after.unwrap_or(PAUSE * 2_u32.pow((*tries).min(5))));
        *tries += 1;
    }
}

fn unanswered(what: &str, error: &Error) -> Failed {
    let is_passing = match error {
        Error::Timeout(_) | Error::ConnectionFailed => true,
        Error::Io(error) => error.kind() != ErrorKind::ConnectionRefused,
        _ => false,
    };
    Failed { error: refused(what.to_owned(), error.to_string()), is_passing, after: None }
}

/// `https://host:port`.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[..end]
}

/// For a value in a query.
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
