//! How the server is to behave, resolved once.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use store::{ModelName, Store, StoreError};

use crate::error::ServeError;

/// Immutable settings of a server.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where gRPC is answered; nowhere if `None`.
    pub grpc_listen: Option<SocketAddr>,
    /// Secrets of which callers must present one as `Authorization: Bearer`; none are needed where it is empty.
    pub keys: Vec<String>,
    /// Origins of web pages whose scripts may call, as `https://chat.example`; `*` is any.
    pub origins: Vec<String>,
    pub body_bytes_max: usize,
    pub connections_max: usize,
    /// For a request's headers to arrive, and for a connection to stay open without a request.
    pub header_timeout: Duration,
    /// For a request's body to arrive.
    pub body_timeout: Duration,
    /// For a client to take some of its answer; one that takes nothing for so long loses its connection.
    pub write_timeout: Duration,
    /// For a request to be answered, waiting included; `None` sets no limit.
    pub request_max: Option<Duration>,
    /// The lowest priority number that callers may ask for; lower goes first.
    pub priority_min: i32,
    /// For running answers to end once the server was told to stop.
    pub drain_max: Duration,
    /// Uploaded files and jobs; none are kept where it is `None`.
    pub jobs: Option<JobSettings>,
}

/// Whether a definition is one: what is wrong with it.
pub type CheckTraining = fn(&toml::Table) -> Result<(), String>;

/// From the model that is to be published, where one is named, and the request, whose files are called as those of the job:
/// the model that is published, and the request as the job is to have it.
pub type PlanCompression =
    fn(&Store, Option<ModelName>, toml::Table, &[String]) -> Result<(ModelName, toml::Table), PlanError>;

/// Why a job can't be.
#[derive(Debug)]
pub enum PlanError {
    /// A parameter that is missing, unknown, or can't be used.
    Parameter {
        name: String,
        problem: String,
    },
    Store(StoreError),
}

/// How files and jobs are kept.
#[derive(Clone, Debug)]
pub struct JobSettings {
    pub store: Store,
    /// The program that does a job, and its arguments; the job's id follows.
    pub command: Vec<OsString>,
    /// Variables that it is given beside the server's own.
    pub environment: Vec<(OsString, OsString)>,
    /// Looks at what is asked of a job of training, and completes what is asked of one of compressing: this crate knows
    /// nothing of either.
    pub check_training: CheckTraining,
    pub plan_compression: PlanCompression,
    /// Jobs that run at once; more wait.
    pub jobs_max: usize,
    pub file_bytes_max: u64,
    /// Of all uploaded files together.
    pub files_bytes_max: u64,
}

impl Default for ServeSettings {
    fn default() -> ServeSettings {
        ServeSettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            grpc_listen: None,
            keys: Vec::new(),
            origins: Vec::new(),
            body_bytes_max: 4 << 20,
            connections_max: 1024,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            request_max: Some(Duration::from_secs(3600)),
            priority_min: 0,
            drain_max: Duration::from_secs(300),
            jobs: None,
        }
    }
}

impl ServeSettings {
    /// # Errors
    /// Settings that would let strangers in, or that can't work.
    pub fn check(&self) -> Result<(), ServeError> {
        let addresses = [Some(self.listen), self.grpc_listen];
        if let Some(listen) = addresses.into_iter().flatten().find(|address| !address.ip().is_loopback())
            && self.keys.is_empty()
        {
            return Err(ServeError::KeyNeeded { listen });
        }
        for (index, key) in self.keys.iter().enumerate() {
            if !is_key(key) {
                return Err(ServeError::KeyUnusable { number: index + 1 });
            }
        }
        match self.origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => Err(ServeError::OriginUnusable { origin: origin.clone() }),
            None => Ok(()),
        }
    }
}

/// Whether a caller could send it as a key.
pub fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether it is an origin as browsers send them, scheme and host without a path, or `*` for all.
pub fn is_origin(text: &str) -> bool {
    let of_page =
        |(scheme, host): (&str, &str)| !scheme.is_empty() && !host.is_empty() && !host.contains('/');
    text == "*" || text.split_once("://").is_some_and(of_page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listen: &str, keys: &[&str], origins: &[&str], expected: &str) {
        let settings = ServeSettings {
            listen: listen.parse().unwrap(),
            keys: keys.iter().map(|key| key.to_string()).collect(),
            origins: origins.iter().map(|origin| origin.to_string()).collect(),
            ..ServeSettings::default()
        };
        let outcome = settings.check().map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        assert!(outcome.starts_with(expected), "{outcome}");
    }

    #[test]
    fn strangers_need_a_key() {
        check("127.0.0.1:8080", &[], &[], "ok");
        check("[::1]:8080", &[], &[], "ok");
        check("0.0.0.0:8080", &["secret"], &[], "ok");
        let refused = "listening on 0.0.0.0:8080 lets the network in, and no key is set: set a key, or listen on 127.0.0.1:8080";
        check("0.0.0.0:8080", &[], &[], refused);
        check("192.168.1.7:80", &[], &[], "listening on 192.168.1.7:80 lets the network in");
    }

    #[test]
    fn keys_and_origins_that_could_never_match_are_refused() {
        check("127.0.0.1:1", &["a", ""], &[], "key 2 can't be used");
        check("127.0.0.1:1", &["has space"], &[], "key 1 can't be used");
        check("127.0.0.1:1", &[], &["https://chat.example", "*", "tauri://localhost"], "ok");
        check("127.0.0.1:1", &[], &["chat.example"], "the origin \"chat.example\" can't be used");
        check(
            "127.0.0.1:1",
            &[],
            &["https://chat.example/"],
            "the origin \"https://chat.example/\" can't be used",
        );
    }
}
