//! A remote's folder or bucket behind any server of files over HTTP: read only. A server of files tells no names, so
//! what is there is read from the index that whoever changes a remote writes.

use std::io::Read;
use std::time::Duration;

use ureq::Agent;

use super::http::agent;
use super::index::INDEX;
use super::objects::check_plain;
use super::{Object, index};
use crate::error::{Result, StoreError};

/// A server that is busy or restarts is asked again, after twice the time.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// Some tens of bytes for each version.
const INDEX_BYTES_MAX: u64 = 64 << 20;
const REDIRECTS_MAX: u32 = 5;

#[derive(Debug)]
pub struct Web {
    pub url: String,
    agent: Agent,
}

/// Why there is no answer yet, and whether asking again may help.
struct Failure {
    why: String,
    is_passing: bool,
}

impl Web {
    /// The server of a URL, or `None` where that is of another kind.
    pub fn open(url: &str) -> Result<Option<Web>> {
        let url = url.trim_end_matches('/');
        let Some((scheme @ ("http" | "https"), rest)) = url.split_once("://") else { return Ok(None) };
        check_plain(scheme, rest)?;
        Ok(Some(Web { url: url.to_owned(), agent: agent(scheme == "http", REDIRECTS_MAX) }))
    }

    pub fn get(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let url = format!("{}/{key}", self.url);
        let mut pause = PAUSE;
        for attempt in 1.. {
            match self.ask(&url, bytes_max) {
                Ok(Some(bytes)) if bytes.len() as u64 > bytes_max => {
                    let why = format!("more than the {bytes_max} bytes that are expected");
                    return Err(StoreError::RemoteDamaged { place: url, why });
                }
                Ok(found) => return Ok(found),
                Err(Failure { is_passing: true, .. }) if attempt < TRIES => {
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                Err(Failure { why, .. }) => {
                    return Err(StoreError::Remote { what: format!("reading {url}"), why });
                }
            }
        }
        Ok(None)
    }

    /// The answer's body, and one byte more than is expected at most.
    fn ask(&self, url: &str, bytes_max: u64) -> std::result::Result<Option<Vec<u8>>, Failure> {
        let passing = |why: String| Failure { why, is_passing: true };
        let answer = self.agent.get(url).call().map_err(|error| passing(error.to_string()))?;
        let status = answer.status();
        match status.as_u16() {
            200 => {}
            404 | 410 => return Ok(None),
            code => {
                let is_passing = code == 408 || code == 429 || code >= 500;
                return Err(Failure { why: format!("the server answers {status}"), is_passing });
            }
        }
        let mut bytes = Vec::new();
        let reader = answer.into_body().into_with_config().limit(bytes_max.saturating_add(2)).reader();
        let read = reader.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| passing(error.to_string()))?;
        Ok(Some(bytes))
    }

    /// What the index says of a prefix.
    pub fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let Some(text) = self.get(INDEX, INDEX_BYTES_MAX)? else {
            return Err(StoreError::Refused(format!(
                "{} has no index: a push there writes one, and so does tureen gc, where the files are kept",
                self.url
            )));
        };
        let all = index::read(&text).ok_or_else(|| StoreError::Remote {
            what: format!("reading {}/{INDEX}", self.url),
            why: "it isn't what was written; tureen gc writes it again, where the files are kept".to_owned(),
        })?;
        let below = format!("{prefix}/");
        Ok(all.into_iter().filter(|object| object.key.starts_with(&below)).collect())
    }

    pub fn read_only(&self) -> StoreError {
        StoreError::Refused(format!(
            "{} can only be read; what changes it is given the folder or the bucket that is behind it",
            self.url
        ))
    }
}
