//! One file from the network into a folder, resumable: `FILE.partial` and what is known of it in `FILE.partial.json`
//! survive an interruption; the file takes its name when it is complete and its hash is right.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::hash::hex;
use store::write_durably;

use super::http::{Answer, Client, FetchError, Patience, header, trying_again};
use super::progress::Progress;
use super::url::Url;
use crate::terminal::say;

/// Bytes moved at once.
const CHUNK_BYTES: usize = 256 << 10;
/// A try that brings less has not brought the download on.
const PROGRESS_BYTES_MIN: u64 = 64 << 10;

/// A file to be fetched.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub url: Url,
    /// Name in the folder.
    pub name: String,
    /// Where the source says them.
    pub sha256: Option<String>,
    pub bytes: Option<u64>,
}

/// A file that is there, hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Without secrets.
    pub url: String,
    /// Of the whole URL.
    identity: String,
    pub bytes: u64,
    pub sha256: String,
    pub verified: bool,
}

/// What is known of a file that isn't whole yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Partial {
    /// Of the URL.
    identity: String,
    /// A strong validator (ETag or Last-Modified): what is resumed is still the same file.
    validator: Option<String>,
    sha256: Option<String>,
    /// Bytes of the whole file, where the server said them.
    #[serde(default)]
    total: Option<u64>,
}

/// Files of one download, beside each other.
struct Places {
    whole: PathBuf,
    partial: PathBuf,
    state: PathBuf,
    done: PathBuf,
}

impl Places {
    fn new(folder: &Path, name: &str) -> Places {
        let with = |end: &str| folder.join(format!("{name}{end}"));
        Places {
            whole: with(""),
            partial: with(".partial"),
            state: with(".partial.json"),
            done: with(".done.json"),
        }
    }
}

/// Fetches `wanted` into `folder`, going on where an earlier try stopped. A file fetched whole by an interrupted pull
/// of several is not fetched again.
///
/// # Errors
/// What went wrong and what to do; what was received stays for the next try, unless its hash is wrong.
pub fn download(client: &Client, wanted: &Wanted, folder: &Path) -> anyhow::Result<Fetched> {
    let places = Places::new(folder, &wanted.name);
    if let Some(fetched) = already_there(&places, wanted) {
        say(format!("{}: here already", wanted.name));
        return Ok(fetched);
    }
    let mut retry = 0;
    let mut progress = None;
    let bytes_here = || std::fs::metadata(&places.partial).map_or(0, |facts| facts.len());
    // What is dropped and fetched once more is no progress, so a file that is always another ends too.
    let mut furthest = bytes_here();
    let (received, sha256, verified) = loop {
        match attempt(client, wanted, &places, &mut progress) {
            Ok(done) => break done,
            Err(Failure::Fetch(error @ (FetchError::Transient { .. } | FetchError::NoHost(_)))) => {
                let message = error.to_string();
                let after = if let FetchError::Transient { after, .. } = error { after } else { None };
                let here = bytes_here();
                retry = if here >= furthest + PROGRESS_BYTES_MIN { 0 } else { retry };
                furthest = furthest.max(here);
                if retry >= client.patience.retries_max {
                    bail!(
                        "{message}; {} tries failed. What is here is kept: the same command goes on",
                        retry + 1
                    );
                }
                let pause = after.unwrap_or(client.patience.pause(retry));
                let line = trying_again(&message, pause);
                match &progress {
                    Some(progress) => Progress::say(progress, &line),
                    None => say(line),
                }
                progress = None;
                std::thread::sleep(pause);
                retry += 1;
            }
            Err(Failure::Fetch(error)) => return Err(error.into()),
            Err(Failure::Local(error)) => return Err(error),
        }
    };
    if let Some(progress) = progress {
        progress.finish();
    }
    std::fs::rename(&places.partial, &places.whole)
        .with_context(|| format!("naming {}", places.whole.display()))?;
    let (url, identity) = (wanted.url.to_string(), wanted.url.identity());
    let fetched = Fetched { url, identity, bytes: received, sha256, verified };
    write_durably(&places.done, &serde_json::to_vec(&fetched)?)?;
    remove(&places.state)?;
    Ok(fetched)
}

/// Drops a file that is of no use, and all that is known of it, so that the next try fetches it anew.
pub fn forget(folder: &Path, name: &str) -> anyhow::Result<()> {
    let Places { whole, partial, state, done } = Places::new(folder, name);
    [done, whole, partial, state].iter().try_for_each(|path| remove(path))
}

fn already_there(places: &Places, wanted: &Wanted) -> Option<Fetched> {
    let fetched: Fetched = serde_json::from_slice(&std::fs::read(&places.done).ok()?).ok()?;
    let bytes = std::fs::metadata(&places.whole).ok()?.len();
    let same = fetched.identity == wanted.url.identity()
        && fetched.bytes == bytes
        && wanted.bytes.is_none_or(|wanted| wanted == bytes)
        && wanted.sha256.as_ref().is_none_or(|wanted| *wanted == fetched.sha256);
    same.then_some(fetched)
}

enum Failure {
    Fetch(FetchError),
    /// Of this machine: disk, permissions.
    Local(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Local(error)
    }
}

/// One connection: from where the partial file ends to the end of the file, then the hash.
fn attempt(
    client: &Client,
    wanted: &Wanted,
    places: &Places,
    progress: &mut Option<Progress>,
) -> Result<(u64, String, bool), Failure> {
    let (mut hasher, have, known) = resume_point(wanted, places)?;
    let range = format!("bytes={have}-");
    let mut headers = vec![("accept-encoding", "identity")];
    if have > 0 {
        headers.push(("range", &range));
        if let Some(validator) = &known.validator {
            headers.push(("if-range", validator));
        }
    }
    let answer = client.get(&wanted.url, &headers).map_err(Failure::Fetch)?;
    check_is_plain(&answer, wanted, have).map_err(Failure::Fetch)?;
    let sent = answer.header("content-length").and_then(|value| value.parse::<u64>().ok());
    let (start, total) = match begins_at(&answer, have, &known) {
        // A server may send less than was asked for; what the file has in all stands beside the range.
        Begins::Here => {
            let total = range_total(&answer).or(known.total);
            (have, total.or(sent.map(|sent| have.saturating_add(sent))))
        }
        Begins::AtZero => (0, sent),
        Begins::AtEnd => (have, Some(have)),
        Begins::Elsewhere => {
            remove(&places.partial)?;
            let message = format!("{} is another file now; beginning anew", wanted.url);
            return Err(Failure::Fetch(FetchError::Transient { message, after: None }));
        }
    };
    check_size(wanted, total).map_err(Failure::Fetch)?;
    if start == 0 {
        hasher = Sha256::new();
    }
    let sha256 = wanted.sha256.clone().or_else(|| linked_sha256(&answer));
    let resumed = if start > 0 { known.validator } else { None };
    let state = Partial {
        identity: wanted.url.identity(),
        validator: resumed.or_else(|| strong_validator(&answer)),
        sha256: sha256.clone(),
        total,
    };
    let state = serde_json::to_vec(&state).map_err(anyhow::Error::from)?;
    write_durably(&places.state, &state).map_err(anyhow::Error::from)?;
    let total = total.or(wanted.bytes);
    if total.is_none() && sha256.is_none() {
        check_end_is_told(&answer, wanted).map_err(Failure::Fetch)?;
    }
    let mut shown = Progress::start(&wanted.name, start, total);
    let complete = answer.status == 416;
    let received = if complete {
        start
    } else {
        let target = Target { places, start, total };
        let received = receive(answer, &target, &client.patience, &mut hasher, &mut shown);
        *progress = Some(shown);
        received?
    };
    let actual = hex(&hasher.finalize());
    if let Some(expected) = &sha256
        && !expected.eq_ignore_ascii_case(&actual)
    {
        return Err(wrong_hash(wanted, places, start, expected, &actual)?);
    }
    Ok((received, actual, sha256.is_some()))
}

/// Refuses what can't be a file's bytes: a part where nobody asked for one, and a form of it that nobody asked for.
fn check_is_plain(answer: &Answer, wanted: &Wanted, have: u64) -> Result<(), FetchError> {
    let url = &wanted.url;
    let other = |message: String| Err(FetchError::Other(message));
    match answer.status {
        206 if have == 0 => {
            other(format!("{url}: the server sends a part of the file where all of it was asked for"))
        }
        416 if have == 0 => {
            other(format!("{url} answers 416 (no such range) where all of the file was asked for"))
        }
        _ => match answer.header("content-encoding") {
            Some(coding) if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") => other(format!(
                "{url}: the server sends the file as {coding} (Content-Encoding) where its plain bytes were asked for"
            )),
            _ => Ok(()),
        },
    }
}

fn check_size(wanted: &Wanted, total: Option<u64>) -> Result<(), FetchError> {
    match (wanted.bytes, total) {
        (Some(expected), Some(total)) if expected != total => {
            let message =
                format!("{}: the source says {expected} bytes, the server sends {total}", wanted.url);
            Err(FetchError::Other(message))
        }
        _ => Ok(()),
    }
}

/// A body without a length ends where the connection does, broken or not, unless it comes in chunks.
fn check_end_is_told(answer: &Answer, wanted: &Wanted) -> Result<(), FetchError> {
    if answer.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        return Ok(());
    }
    Err(FetchError::Other(format!(
        "{}: the server doesn't say how long the file is, so its end can't be told from a broken connection; give the \
         file's hash: URL#sha256=...",
        wanted.url
    )))
}

/// Removes what has the wrong hash. If its beginning came from an earlier try, that may be at fault, and one from the
/// start is worth it.
fn wrong_hash(
    wanted: &Wanted,
    places: &Places,
    start: u64,
    expected: &str,
    actual: &str,
) -> anyhow::Result<Failure> {
    remove(&places.partial)?;
    remove(&places.state)?;
    let what = format!("{}: sha256 is to be {expected}, received {actual}", wanted.name);
    if start > 0 {
        let message = format!("{what}; what was resumed is dropped");
        return Ok(Failure::Fetch(FetchError::Transient { message, after: None }));
    }
    Ok(Failure::Local(anyhow::anyhow!(
        "{what}. The file is damaged or not the one that was published, and was removed; try again, or another source"
    )))
}

/// The hash of what is here, its length, and what was known when it was received.
fn resume_point(wanted: &Wanted, places: &Places) -> anyhow::Result<(Sha256, u64, Partial)> {
    let mut hasher = Sha256::new();
    let state: Option<Partial> =
        std::fs::read(&places.state).ok().and_then(|text| serde_json::from_slice(&text).ok());
    // Without a validator or a hash nothing could tell an old beginning from a new file's.
    let usable = state.filter(|state| {
        state.identity == wanted.url.identity()
            && (state.validator.is_some() || wanted.sha256.is_some())
            && (wanted.sha256.is_none() || state.sha256 == wanted.sha256)
    });
    let Some(state) = usable else { return Ok((hasher, 0, Partial::default())) };
    let mut file = match File::open(&places.partial) {
        Ok(file) => file,
        Err(_) => return Ok((hasher, 0, Partial::default())),
    };
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut have = 0;
    loop {
        let count = file.read(&mut chunk).with_context(|| format!("reading {}", places.partial.display()))?;
        if count == 0 {
            break;
        }
        hasher.update(&chunk[..count]);
        have += count as u64;
    }
    if wanted.bytes.is_some_and(|bytes| have > bytes) {
        return Ok((Sha256::new(), 0, Partial::default()));
    }
    Ok((hasher, have, state))
}

enum Begins {
    Here,
    AtZero,
    /// Nothing is left to send.
    AtEnd,
    /// It isn't what was asked for, or of another file than what is here.
    Elsewhere,
}

/// Where in the file the answer's body begins; a server that knows no ranges sends all of it. What is here and what
/// comes must be of one file by all that is known of it: where nobody told us a hash, nothing else would tell.
fn begins_at(answer: &Answer, have: u64, known: &Partial) -> Begins {
    let range = answer.header("content-range").unwrap_or_default();
    let same_total = |total: Option<u64>| {
        let pair = total.zip(known.total);
        pair.is_none_or(|(total, known)| total == known)
    };
    let begins = range.strip_prefix("bytes ").and_then(|range| range.split('-').next());
    match answer.status {
        206 if begins == Some(&have.to_string())
            && same_total(range_total(answer))
            && is_same_file(answer, known, true) =>
        {
            Begins::Here
        }
        416 if range.strip_prefix("bytes */") == Some(&have.to_string())
            && same_total(Some(have))
            && is_same_file(answer, known, false) =>
        {
            Begins::AtEnd
        }
        206 | 416 => Begins::Elsewhere,
        _ => Begins::AtZero,
    }
}

/// Whether the answer carries the validator of what is here. With a part an ETag must come; the date of the last
/// change may be left out where `If-Range` named it (RFC 9110, 15.3.7), and an error needs neither.
fn is_same_file(answer: &Answer, known: &Partial, is_part: bool) -> bool {
    let Some(validator) = &known.validator else { return true };
    let is_etag = validator.starts_with('"');
    match answer.header(if is_etag { "etag" } else { "last-modified" }) {
        Some(found) => found == *validator,
        None => !(is_part && is_etag),
    }
}

/// Bytes of the whole file, where a part says them: `bytes 5-9/10`.
fn range_total(answer: &Answer) -> Option<u64> {
    answer.header("content-range")?.rsplit_once('/')?.1.parse().ok()
}

/// An ETag that isn't weak, or else the date of the last change.
fn strong_validator(answer: &Answer) -> Option<String> {
    let strong = answer.header("etag").filter(|etag| etag.starts_with('"'));
    strong.or_else(|| answer.header("last-modified"))
}

/// Hugging Face's hub names a large file by its sha256, on the answer that redirects to the storage.
fn linked_sha256(answer: &Answer) -> Option<String> {
    let headers = answer.first_headers.as_ref().unwrap_or(&answer.headers);
    let tag = header(headers, "x-linked-etag")?;
    let tag = tag.trim_matches('"').to_ascii_lowercase();
    (tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(tag)
}

struct Target<'a> {
    places: &'a Places,
    start: u64,
    total: Option<u64>,
}

/// Appends the body from `start` on, and makes it durable.
fn receive(
    answer: Answer,
    target: &Target,
    patience: &Patience,
    hasher: &mut Sha256,
    progress: &mut Progress,
) -> Result<u64, Failure> {
    let path = &target.places.partial;
    let disk = |error: std::io::Error| Failure::Local(disk_error(error, path));
    let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(path).map_err(disk)?;
    file.set_len(target.start).map_err(disk)?;
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(target.start)).map_err(disk)?;
    let host = answer.url.host.clone();
    let mut body = answer.into_reader();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = target.start;
    let (mut window, mut window_start) = (Instant::now(), at);
    let cut = |message: String| Failure::Fetch(FetchError::Transient { message, after: None });
    loop {
        let count = match body.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(cut(format!("{host}: {error}"))),
        };
        if count == 0 {
            break;
        }
        file.write_all(&chunk[..count]).map_err(disk)?;
        hasher.update(&chunk[..count]);
        at += count as u64;
        progress.add(count);
        if at > target.total.unwrap_or(patience.unannounced_bytes_max) {
            remove(path)?;
            return Err(Failure::Fetch(too_long(&host, target.total, patience.unannounced_bytes_max)));
        }
        if window.elapsed() >= patience.slow {
            if at - window_start < PROGRESS_BYTES_MIN {
                file.sync_all().map_err(disk)?;
                let (bytes, seconds) = (at - window_start, patience.slow.as_secs());
                return Err(cut(format!("{host}: {bytes} bytes in {seconds} s are too slow to wait for")));
            }
            (window, window_start) = (Instant::now(), at);
        }
    }
    file.sync_all().map_err(disk)?;
    match target.total {
        Some(total) if at < total => {
            Err(cut(format!("{host}: the connection ended at {at} of {total} bytes")))
        }
        _ => Ok(at),
    }
}

/// A file that doesn't end where it should, or anywhere.
fn too_long(host: &str, total: Option<u64>, bytes_max: u64) -> FetchError {
    match total {
        Some(total) => {
            let message = format!("{host}: more than the {total} bytes came that were announced");
            FetchError::Transient { message, after: None }
        }
        None => FetchError::Other(format!(
            "{host} doesn't say how long the file is, and it has more than {bytes_max} bytes: given up. Fetch it by \
             other means, then: tureen pull ./FILE.gguf"
        )),
    }
}

/// What to do about a disk that doesn't take more.
pub fn disk_error(error: std::io::Error, path: &Path) -> anyhow::Error {
    let place = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => anyhow::anyhow!(
            "no space left for {place}; free some (`tureen list`, `tureen rm`) or name another folder by --models, \
             then run the same command: it goes on where it stopped"
        ),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => anyhow::anyhow!(
            "{place} may not be written ({error}); name another folder by --models or TUREEN_MODELS"
        ),
        _ => anyhow::Error::new(error).context(format!("writing {place}")),
    }
}

/// Removes a file, or nothing where there is none.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
