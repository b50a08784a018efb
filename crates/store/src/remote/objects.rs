//! A remote that is a bucket: S3 and what speaks like it, Google's and Azure's. Credentials and endpoints come from the
//! environment, by the names that those services' own tools have.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig};
use tokio::runtime::Runtime;

use super::http::Connector;
use super::{Hold, Object, busy};
use crate::error::{Result, StoreError};
use crate::id::new_id;

/// Marks of who pushes, and of who deletes unused chunks.
const LOCKS: &str = "locks";
const PUSHING: &str = "push";
const COLLECTING: &str = "gc";
/// A mark is written again after this time;
const MARK_EVERY: Duration = Duration::from_secs(60);
/// and one older than this is that of a killed process.
const MARK_AGE_MAX_S: i64 = 1800;
/// Its owner gives up before that.
const MARK_AGE_MAX: Duration = Duration::from_secs(600);

#[derive(Clone)]
pub struct Objects {
    url: String,
    store: Arc<dyn ObjectStore>,
    /// What is before every key in the bucket.
    prefix: String,
    runtime: Arc<Runtime>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").field(&self.url).finish()
    }
}

impl fmt::Display for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Objects {
    /// The bucket of a URL, or `None` where that is of another kind.
    pub fn open(url: &str) -> Result<Option<Objects>> {
        let url = url.trim_end_matches('/');
        let Some((scheme, rest)) = url.split_once("://") else { return Ok(None) };
        if matches!(scheme, "s3" | "gs" | "az") {
            check_plain(scheme, rest)?;
        }
        let built: object_store::Result<Arc<dyn ObjectStore>> = match scheme {
            "s3" => {
                let builder = AmazonS3Builder::from_env()
                    .with_url(url)
                    .with_http_connector(Connector)
                    .with_retry(retries());
                builder.build().map(|store| Arc::new(store) as _)
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env()
                    .with_url(url)
                    .with_http_connector(Connector)
                    .with_retry(retries());
                builder.build().map(|store| Arc::new(store) as _)
            }
            "az" => {
                let builder = MicrosoftAzureBuilder::from_env()
                    .with_url(url)
                    .with_http_connector(Connector)
                    .with_retry(retries());
                builder.build().map(|store| Arc::new(store) as _)
            }
            _ => return Ok(None),
        };
        let store = built.map_err(|error| failed("opening", url, &error))?;
        let prefix = rest.split_once('/').map_or("", |(_, path)| path).to_owned();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build();
        let runtime = runtime.map_err(|cause| StoreError::Io { what: format!("starting {url}"), cause })?;
        Ok(Some(Objects { url: url.to_owned(), store, prefix, runtime: Arc::new(runtime) }))
    }

    fn path(&self, key: &str) -> Path {
        Path::from(format!("{}/{key}", self.prefix))
    }

    fn failed<'a>(&'a self, operation: &'a str, key: &'a str) -> impl FnOnce(Error) -> StoreError + 'a {
        move |error| failed(operation, &format!("{self}/{key}"), &error)
    }

    pub fn put(&self, key: &str, contents: &[u8], is_new: bool) -> Result<bool> {
        let mode = if is_new { PutMode::Create } else { PutMode::Overwrite };
        let payload = PutPayload::from(contents.to_vec());
        let path = self.path(key);
        let put = self.store.put_opts(&path, payload, PutOptions::from(mode));
        match self.runtime.block_on(put) {
            Err(Error::AlreadyExists { .. }) if is_new => Ok(false),
            other => other.map(|_| true).map_err(self.failed("writing", key)),
        }
    }

    pub fn get(&self, key: &str, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let path = self.path(key);
        let get = async {
            let found = self.store.get(&path).await?;
            if found.meta.size > bytes_max {
                return Ok(Err(found.meta.size));
            }
            found.bytes().await.map(Ok)
        };
        match self.runtime.block_on(get) {
            Ok(Ok(bytes)) => Ok(Some(bytes.to_vec())),
            Ok(Err(bytes)) => {
                let why = format!("{bytes} bytes, and at most {bytes_max} are expected");
                Err(StoreError::RemoteDamaged { place: format!("{self}/{key}"), why })
            }
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("reading", key)(error)),
        }
    }

    pub fn size(&self, key: &str) -> Result<Option<u64>> {
        let path = self.path(key);
        match self.runtime.block_on(self.store.head(&path)) {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("looking at", key)(error)),
        }
    }

    pub fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let path = self.path(prefix);
        let listed = self.runtime.block_on(self.store.list(Some(&path)).try_collect::<Vec<_>>());
        let listed = listed.map_err(self.failed("listing", prefix))?;
        // The prefix as the library spells it.
        let before = self.path("").to_string();
        let object = |meta: object_store::ObjectMeta| {
            let key = meta.location.as_ref().strip_prefix(&before)?.trim_start_matches('/').to_owned();
            Some(Object { key, bytes: meta.size, modified_s: meta.last_modified.timestamp() })
        };
        Ok(listed.into_iter().filter_map(object).collect())
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        let path = self.path(key);
        match self.runtime.block_on(self.store.delete(&path)) {
            Err(Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(self.failed("deleting", key)(error)),
        }
    }

    /// Leaves a mark, then looks for those of others: whoever comes second sees the first, and where both come at once
    /// neither goes on. Buckets show what was written at once, and times are the bucket's own.
    pub fn hold(&self, is_alone: bool) -> Result<Hold> {
        let (kind, other) = if is_alone { (COLLECTING, PUSHING) } else { (PUSHING, COLLECTING) };
        let key = format!("{LOCKS}/{}", new_id(kind));
        self.put(&key, b"", false)?;
        let mark = Mark::start(self.clone(), key.clone());
        let marks = self.list(LOCKS)?;
        let now_s = marks.iter().find(|mark| mark.key == key).map(|mark| mark.modified_s);
        let now_s =
            now_s.ok_or_else(|| StoreError::Refused(format!("{self} doesn't list what it was given")))?;
        let lives = |mark: &&Object| now_s - mark.modified_s < MARK_AGE_MAX_S;
        let is_kind = |mark: &&Object, kind: &str| mark.key.starts_with(&format!("{LOCKS}/{kind}-"));
        let in_the_way = |mark: &&Object| {
            mark.key != key && (is_kind(mark, other) || is_alone && is_kind(mark, COLLECTING))
        };
        if marks.iter().filter(lives).any(|mark| in_the_way(&mark)) {
            let lasts = "; a killed process is in the way for half an hour";
            return Err(busy(&self.url, is_alone, lasts));
        }
        for old in marks.iter().filter(|mark| !lives(mark)) {
            self.delete(&old.key)?;
        }
        Ok(Hold::Marked(mark))
    }
}

/// A mark that is written again now and then, and goes with this.
pub struct Mark {
    objects: Objects,
    key: String,
    renewed: Arc<Mutex<Renewed>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// When a mark was written last, and whether it was ever so old that it may have been taken for that of a killed process.
struct Renewed {
    /// By the clock, which goes on while the machine sleeps,
    last: SystemTime,
    /// and by what nobody sets back.
    begun: Instant,
    was_old: bool,
}

impl Renewed {
    fn at(last: SystemTime, begun: Instant) -> Renewed {
        Renewed { last, begun, was_old: false }
    }

    /// Whether it was fresh all the time. A clock that was set back says nothing of how long that was.
    fn look(&mut self) -> bool {
        let by_clock = self.last.elapsed();
        self.was_old |=
            by_clock.map_or(true, |age| age > MARK_AGE_MAX) || self.begun.elapsed() > MARK_AGE_MAX;
        !self.was_old
    }
}

impl Mark {
    fn start(objects: Objects, key: String) -> Mark {
        let (stop, stopped): (Sender<()>, Receiver<()>) = channel();
        let renewed = Arc::new(Mutex::new(Renewed::at(SystemTime::now(), Instant::now())));
        let (again, at, told) = (objects.clone(), key.clone(), renewed.clone());
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(MARK_EVERY) == Err(RecvTimeoutError::Timeout) {
                // One that fails is made good by the next; before the mark is old there are many.
                let (last, begun) = (SystemTime::now(), Instant::now());
                if again.put(&at, b"", false).is_ok() {
                    let mut renewed = told.lock().unwrap_or_else(PoisonError::into_inner);
                    let was_old = !renewed.look();
                    *renewed = Renewed { last, begun, was_old };
                }
            }
        });
        Mark { objects, key, renewed, stop: Some(stop), thread: Some(thread) }
    }

    /// Whether it stands: one that nobody renewed for long is taken for that of a killed process.
    pub fn check(&self) -> Result<()> {
        if self.renewed.lock().unwrap_or_else(PoisonError::into_inner).look() {
            return Ok(());
        }
        let place = &self.objects;
        Err(StoreError::Refused(format!(
            "{place} was out of reach for so long that unused chunks may have been deleted; push again"
        )))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Where this fails, it is old after half an hour.
        let _ = self.objects.delete(&self.key);
    }
}

/// A URL is shown and recorded, so nothing secret may stand in it.
pub(super) fn check_plain(scheme: &str, rest: &str) -> Result<()> {
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !host.contains('@') && !rest.contains(['?', '#']) {
        return Ok(());
    }
    let cut = |text: &str| text.split(['?', '#']).next().unwrap_or_default().to_owned();
    let (host, path) = (cut(host.rsplit('@').next().unwrap_or_default()), cut(path));
    Err(StoreError::Refused(format!(
        "a remote's URL has no name, key, query or fragment in it, only {scheme}://{host}/{path}: \
         `tureen push --help` says where keys are given"
    )))
}

/// A short trouble is waited for; nobody there is said soon.
fn retries() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() }
}

fn failed(operation: &str, place: &str, error: &Error) -> StoreError {
    // Some have the cause in their text, some behind it.
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        source = cause.source();
    }
    StoreError::Remote { what: format!("{operation} {place}"), why }
}

#[test]
fn nothing_secret_is_taken_in_a_url() {
    for url in ["s3://me:secret@bucket/path", "s3://bucket/path?sig=secret", "gs://bucket#secret"] {
        let error = Objects::open(url).unwrap_err().to_string();
        assert!(!error.contains("secret") && error.contains("://bucket"), "{error}");
    }
}

#[test]
fn a_mark_is_old_by_either_clock() {
    let (now, then) = (SystemTime::now(), Instant::now());
    let minutes = |count: u64| Duration::from_secs(60 * count);
    assert!(Renewed::at(now, then).look());
    assert!(!Renewed::at(now - minutes(11), then).look(), "the machine slept");
    assert!(!Renewed::at(now + minutes(11), then).look(), "the clock was set back");
    if let Some(long_ago) = then.checked_sub(minutes(11)) {
        assert!(!Renewed::at(now, long_ago).look(), "whatever the clock says");
    }
}
