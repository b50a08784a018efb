//! `push` to a registry: blobs that it doesn't have, in chunks that go on where a connection broke, and then the manifest,
//! so that a reader sees the whole artefact or the one before.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use ureq::http::Method;

use super::super::Progress;
use super::super::workers::each;
use super::Result;
use super::artefact::{IMAGE, LAYERS_MAX, of_version};
use super::client::{Ask, Client, Failed, RETRIES_MAX, escaped};
use super::{Address, MANIFEST_BYTES_MAX, THREADS, refused};
use crate::error::StoreError;
use crate::hash;
use crate::versions::{Store, Version};

/// Bytes sent by one request: what is sent again where it breaks.
const CHUNK_BYTES: u64 = 16 << 20;

/// What a push to a registry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Of the artefact's manifest.
    pub digest: String,
    /// Bytes of the version's files.
    pub bytes: u64,
    /// Bytes of those that were not there before.
    pub sent: u64,
}

enum Contents {
    File(PathBuf),
    Memory(Vec<u8>),
}

struct Upload {
    digest: String,
    bytes: u64,
    contents: Contents,
}

impl Store {
    /// Puts `version` into a registry, where `address` is to mean it.
    ///
    /// # Errors
    /// A file isn't what was published; the registry can't be reached, or refuses. What it had stays as it was.
    pub fn push_to_registry(
        &self,
        version: &Version,
        address: &Address,
        progress: Progress<'_>,
    ) -> Result<Sent> {
        let what = format!("pushing {} to {address}", version.id());
        if address.is_digest() {
            return Err(StoreError::Refused(format!("{address}: what is pushed gets a tag, as NAME:TAG")));
        }
        if version.manifest.files.len() > LAYERS_MAX {
            return Err(refused(what, format!("{LAYERS_MAX} files at most go into an artefact")));
        }
        let (image, config) = of_version(&version.manifest)?;
        let text = serde_json::to_vec(&image).map_err(|error| refused(what.clone(), error.to_string()))?;
        if text.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(refused(what, "its manifest is larger than registries take (4 MiB): too many files"));
        }
        let from = mounted_from(version, address);
        let mut scopes = vec![format!("repository:{}:pull,push", address.name)];
        scopes.extend(from.iter().map(|name| format!("repository:{name}:pull")));
        let client = Client::new(address, scopes)?;
        // Before anything is asked: the first request finds out who we are, and the others have it then.
        client.ask(&Ask::new(&what, Method::GET, address.root()), &[200])?;
        let config = Upload {
            digest: image.config.digest.clone(),
            bytes: config.len() as u64,
            contents: Contents::Memory(config),
        };
        let mut uploads = files_of(version)?;
        uploads.push(config);
        let push = Push { client: &client, from, what: &what, progress };
        let sent: u64 = each(THREADS, &uploads, |upload| push.blob(upload))?.into_iter().sum();
        let digest = format!("sha256:{}", hash::of_bytes(&text));
        let url = address.url(&format!("manifests/{}", address.reference));
        let ask =
            Ask { headers: &[("Content-Type", IMAGE)], body: &text, ..Ask::new(&what, Method::PUT, url) };
        let answer = client.ask(&ask, &[200, 201, 202])?;
        if let Some(other) = answer.header("Docker-Content-Digest").filter(|other| *other != digest) {
            return Err(refused(
                what,
                format!("the registry keeps another manifest than was sent: {other:.80}"),
            ));
        }
        Ok(Sent { digest, bytes: version.manifest.bytes(), sent })
    }
}

/// Each contents once; files that are what they were published as.
fn files_of(version: &Version) -> Result<Vec<Upload>> {
    let mut known = BTreeSet::new();
    let files: Vec<_> = version.manifest.files.iter().filter(|file| known.insert(&file.sha256)).collect();
    each(THREADS, &files, |file| {
        let path = version.folder.join(&file.path);
        let (bytes, sha256) = hash::of_file(&path, |_| {})?;
        if sha256 != file.sha256 {
            let why = format!("sha256 was {}, is {sha256}", file.sha256);
            return Err(StoreError::Damaged { place: path.display().to_string(), why });
        }
        Ok(Upload { digest: format!("sha256:{sha256}"), bytes, contents: Contents::File(path) })
    })
}

/// The repository of the same registry that the version came from: what is there needs not be sent.
fn mounted_from(version: &Version, address: &Address) -> Option<String> {
    let text = version.manifest.source.split(' ').next()?;
    let from = Address::parse(text).ok()?;
    (from.host == address.host && from.name != address.name).then_some(from.name)
}

struct Push<'a> {
    client: &'a Client,
    from: Option<String>,
    what: &'a str,
    progress: Progress<'a>,
}

impl Push<'_> {
    fn ask(&self, method: Method, url: String) -> Ask<'_> {
        Ask::new(self.what, method, url)
    }

    /// The bytes that were sent.
    fn blob(&self, upload: &Upload) -> Result<u64> {
        if self.is_there(&upload.digest)? {
            (self.progress)(upload.bytes);
            return Ok(0);
        }
        let Some(url) = self.begin(upload)? else {
            (self.progress)(upload.bytes);
            return Ok(0);
        };
        let (mut url, mut offset, mut told, mut tries) = (url, 0, 0, 0);
        loop {
            let done = self.step(upload, &url, offset);
            match done {
                Ok(None) => return Ok(upload.bytes),
                Ok(Some((next, end))) => {
                    (url, offset, tries) = (next, end, 0);
                    if offset > told {
                        (self.progress)(offset - told);
                        told = offset;
                    }
                }
                Err(failed) if failed.is_passing && tries < RETRIES_MAX => {
                    failed.pause(&mut tries);
                    match self.place(&url)? {
                        Some((next, end)) if end <= upload.bytes => (url, offset) = (next, end),
                        // It may have been the last answer that was lost.
                        _ if self.is_there(&upload.digest)? => return Ok(upload.bytes),
                        _ => {
                            let Some(begun) = self.begin(upload)? else { return Ok(upload.bytes) };
                            (url, offset) = (begun, 0);
                        }
                    }
                }
                Err(failed) => return Err(failed.error),
            }
        }
    }

    fn is_there(&self, digest: &str) -> Result<bool> {
        let url = self.client.address.url(&format!("blobs/{digest}"));
        Ok(self.client.ask(&self.ask(Method::HEAD, url), &[200, 404])?.status == 200)
    }

    /// Where to send a blob; `None` where the registry took it from another repository.
    fn begin(&self, upload: &Upload) -> Result<Option<String>> {
        let url = self.client.address.url("blobs/uploads/");
        if let Some(from) = &self.from {
            let url = format!("{url}?mount={}&from={}", escaped(&upload.digest), escaped(from));
            // Where we may not read that repository, it is sent.
            if let Ok(answer) = self.client.ask(&self.ask(Method::POST, url), &[201, 202]) {
                return if answer.status == 201 { Ok(None) } else { self.location(&answer).map(Some) };
            }
        }
        let answer = self.client.ask(&self.ask(Method::POST, url), &[202])?;
        self.location(&answer).map(Some)
    }

    fn location(&self, answer: &super::client::Answer) -> Result<String> {
        let location = answer.header("Location");
        let location = location.ok_or_else(|| refused(self.what.to_owned(), "an upload has no Location"))?;
        self.client.join(self.what, &answer.url, location)
    }

    /// Sends the next chunk, or ends the upload: `None` when it has ended.
    fn step(&self, upload: &Upload, url: &str, offset: u64) -> Result<Option<(String, u64)>, Failed> {
        if offset >= upload.bytes {
            let sign = if url.contains('?') { '&' } else { '?' };
            let url = format!("{url}{sign}digest={}", escaped(&upload.digest));
            self.client.once(&self.ask(Method::PUT, url), &[201, 204])?;
            return Ok(None);
        }
        let end = upload.bytes.min(offset + CHUNK_BYTES);
        let chunk = upload.contents.read(offset, end)?;
        let range = format!("{offset}-{}", end - 1);
        let headers = [("Content-Type", "application/octet-stream"), ("Content-Range", range.as_str())];
        let ask = Ask { headers: &headers, body: &chunk, ..self.ask(Method::PATCH, url.to_owned()) };
        let answer = self.client.once(&ask, &[202, 416])?;
        if answer.status == 416 {
            let mut failed = answer.failed(self.what);
            failed.is_passing = true;
            return Err(failed);
        }
        Ok(Some((self.location(&answer)?, end)))
    }

    /// How far an upload is, and where it goes on; `None` where the registry doesn't know it any more.
    fn place(&self, url: &str) -> Result<Option<(String, u64)>> {
        let answer = self.client.ask(&self.ask(Method::GET, url.to_owned()), &[204, 404])?;
        if answer.status == 404 {
            return Ok(None);
        }
        // `0-0` is none: no chunk is a byte long.
        let last = answer.header("Range").and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
        let end = last.filter(|last| *last > 0).map_or(0, |last| last.saturating_add(1));
        Ok(Some((self.location(&answer)?, end)))
    }
}

impl Contents {
    fn read(&self, start: u64, end: u64) -> Result<Vec<u8>> {
        match self {
            Contents::Memory(bytes) => {
                Ok(bytes.get(start as usize..end as usize).unwrap_or_default().to_vec())
            }
            Contents::File(path) => {
                let mut chunk = vec![0; (end - start) as usize];
                let read = File::open(path).and_then(|file| file.read_exact_at(&mut chunk, start));
                read.map_err(StoreError::io("reading", path)).map(|()| chunk)
            }
        }
    }
}
