//! What is recorded of a version: `manifest.json`, the last file written, so that a folder with one is whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::{is_plain_path, read_within};
use crate::error::{Result, StoreError};
use crate::name::ModelName;
use crate::{clock, hash};

/// The file's name in a version's folder.
pub const FILE_NAME: &str = "manifest.json";
/// The newest form. Form 1 had no number, kind, parent, job and metrics, and `pulled` for `created`.
pub const SCHEMA: u32 = 2;
/// Largest manifest read, in bytes.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// What a version is and where it comes from. Immutable, as its files are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub schema: u32,
    /// `NAME` or `NAME:TAG`, as it was published.
    pub model: String,
    /// The version's number, given when it is published.
    #[serde(default)]
    pub version: u64,
    /// What was asked for: `hf:owner/repo`, a URL, a path, `job:ID`.
    pub source: String,
    /// When it was complete, UTC, as `2026-11-23T17:20:01Z`.
    #[serde(alias = "pulled")]
    pub created: String,
    /// What is loaded, relative to the folder: a file, or `.` for the folder itself.
    pub entry: String,
    pub files: Vec<File>,
    /// What the model says of itself; absent where this version of Tureen can't read it.
    pub facts: Option<Facts>,
    /// The version that it was made of, as `NAME@NUMBER`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The job that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// What was measured of it when it was made. JSON knows finite numbers only, so others are not here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Relative to the folder, parts separated by `/`.
    pub path: String,
    pub bytes: u64,
    /// Of the contents, in hexadecimal.
    pub sha256: String,
    /// Whether a hash from elsewhere was there to be compared, and was equal.
    pub verified: bool,
    /// Where exactly it came from, and how where that isn't a download: `hard link of ...`.
    pub origin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// What executes it.
    #[serde(default)]
    pub kind: Kind,
    pub family: String,
    pub parameters: u64,
    pub quantisation: String,
    pub licence: Option<String>,
}

/// What executes a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Generates text.
    #[default]
    Llm,
    /// Takes tensors and gives tensors.
    Onnx,
}

impl Manifest {
    /// The manifest of what was made here: these files, which lie side by side and of which the first is what is loaded.
    /// `source` says where they come from; of `metrics`, numbers are kept.
    ///
    /// # Errors
    /// A file can't be read, or there is none.
    pub fn made_of(
        model: &ModelName,
        source: &str,
        paths: &[PathBuf],
        metrics: impl IntoIterator<Item = (String, f64)>,
    ) -> Result<Manifest> {
        let mut files = Vec::new();
        for path in paths {
            let (bytes, sha256) = hash::of_file(path, |_| {})?;
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let origin = source.to_owned();
            files.push(File { path: name.to_owned(), bytes, sha256, verified: false, origin });
        }
        let Some(first) = files.first() else {
            return Err(StoreError::Refused(format!("a version of {model} needs a file")));
        };
        Ok(Manifest {
            schema: SCHEMA,
            model: model.to_string(),
            source: source.to_owned(),
            created: clock::now(),
            entry: first.path.clone(),
            files,
            metrics: metrics.into_iter().filter(|(_, value)| value.is_finite()).collect(),
            ..Manifest::default()
        })
    }

    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    /// Whether another has the same contents, wherever they came from.
    pub fn has_files_of(&self, other: &Manifest) -> bool {
        let contents = |manifest: &Manifest| -> BTreeMap<String, String> {
            manifest.files.iter().map(|file| (file.path.clone(), file.sha256.clone())).collect()
        };
        self.entry == other.entry && contents(self) == contents(other)
    }

    /// The file or folder to load, of a version in `folder`.
    ///
    /// # Errors
    /// The manifest names something else than one of its files.
    pub fn entry_in(&self, folder: &Path) -> Result<PathBuf> {
        if self.entry == "." {
            return Ok(folder.to_path_buf());
        }
        let known = self.files.iter().any(|file| file.path == self.entry);
        if !known || !is_plain_path(&self.entry) {
            let place = folder.join(FILE_NAME).display().to_string();
            return Err(StoreError::Damaged { place, why: format!("entry {:?}", self.entry) });
        }
        Ok(folder.join(&self.entry))
    }
}

/// The manifest in a folder and its bytes, or `None` where there is none.
pub(crate) fn read(folder: &Path) -> Result<Option<(Manifest, Vec<u8>)>> {
    let path = folder.join(FILE_NAME);
    let place = || path.display().to_string();
    let Some(text) = read_within(&path, MANIFEST_BYTES_MAX)? else { return Ok(None) };
    let mut manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| StoreError::Damaged { place: place(), why: error.to_string() })?;
    if manifest.schema > SCHEMA {
        let (found, known) = (u64::from(manifest.schema), u64::from(SCHEMA));
        return Err(StoreError::Newer { place: place(), found, known });
    }
    // Form 1 says what executes it by the family alone.
    if let Some(facts) = manifest.facts.as_mut().filter(|facts| facts.family == "onnx") {
        facts.kind = Kind::Onnx;
    }
    Ok(Some((manifest, text)))
}
