//! Where models come from. Each source turns what a person wrote into files with URLs, or files that are here.

pub mod hub;
pub mod local;
pub mod modelscope;
pub mod pip;
pub mod pypi;

pub use hub::chosen_entry;
use std::path::{Path, PathBuf};

use anyhow::bail;

use super::catalogue;
use super::download::Wanted;
use super::http::{Client, Patience};
use super::url::Url;
use crate::nearest::nearest;
use store::ModelName;

/// What a person asked for, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Path(PathBuf),
    Web(String),
    Hub(hub::Address),
    ModelScope(hub::Address),
    Pypi(pypi::Address),
    /// A short name, which the catalogue resolves to the others.
    Catalogue(ModelName),
}

/// A source's files, to be brought here.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The name that the model gets where the person gave none.
    pub name: String,
    /// What is loaded: a file's name, or `.`.
    pub entry: String,
    pub files: Files,
}

#[derive(Clone, Debug)]
pub enum Files {
    /// Files beside each other in a folder of this machine.
    Local {
        folder: PathBuf,
        names: Vec<String>,
    },
    Remote(Vec<Wanted>),
    /// One file inside a wheel.
    InWheel {
        wheel: Wanted,
        member: String,
    },
}

/// Services that a person may point elsewhere, read from the environment once.
#[derive(Clone, Debug)]
pub struct Places {
    pub hub: String,
    pub hub_token: Option<String>,
    pub modelscope: String,
    /// Or why pip's settings can't be used, which only who needs them is to hear.
    pub pip: Result<pip::Indexes, String>,
}

impl Places {
    /// HF_ENDPOINT, HF_TOKEN, MODELSCOPE_DOMAIN and pip's settings.
    pub fn from_environment() -> Places {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let modelscope = variable("MODELSCOPE_DOMAIN").unwrap_or_else(|| "www.modelscope.cn".to_string());
        Places {
            hub: variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string()),
            hub_token: variable("HF_TOKEN"),
            modelscope: if modelscope.contains("://") { modelscope } else { format!("https://{modelscope}") },
            pip: pip::Indexes::from_environment().map_err(|error| format!("{error:#}")),
        }
    }
}

impl Source {
    /// `hf:`, `modelscope:`, `pypi:`, `http://`, `https://`, a path, or a short name.
    ///
    /// # Errors
    /// None of these; what each looks like, or the nearest short name.
    pub fn parse(text: &str) -> anyhow::Result<Source> {
        if let Some(rest) = text.strip_prefix("hf:") {
            return hub::Address::parse(rest).map(Source::Hub);
        }
        if let Some(rest) = text.strip_prefix("modelscope:") {
            return hub::Address::parse(rest).map(Source::ModelScope);
        }
        if let Some(rest) = text.strip_prefix("pypi:") {
            return pypi::Address::parse(rest).map(Source::Pypi);
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Source::Web(text.to_string()));
        }
        let path = Path::new(text);
        if path.exists() {
            return Ok(Source::Path(path.to_path_buf()));
        }
        if let Ok(name) = ModelName::parse(text)
            && catalogue::find(&name).is_some()
        {
            return Ok(Source::Catalogue(name));
        }
        if text.contains('/') || is_model_file(text) {
            bail!("there is no file or folder {text}; from Hugging Face it would be hf:{text}");
        }
        let known: Vec<String> = catalogue::entries().iter().map(|entry| entry.name.clone()).collect();
        let is_same_name = |name: &&str| name.split(':').next() == Some(text);
        let same_name = || known.iter().map(String::as_str).find(is_same_name);
        match nearest(text, known.iter().map(String::as_str)).or_else(same_name) {
            Some(close) => bail!("there is no short name {text}; did you mean {close}?"),
            None => bail!(
                "{text} is neither a path nor a short name ({}); other sources: hf:owner/repo, \
                 modelscope:owner/repo, pypi:package/path/in/wheel, https://...",
                known.join(", ")
            ),
        }
    }

    /// Finds out which files to bring. A short name's sources are tried by the caller.
    pub fn plan(&self, places: &Places, patience: Patience) -> anyhow::Result<Plan> {
        match self {
            Source::Path(path) => local::plan(path),
            Source::Web(text) => web_plan(text),
            Source::Hub(address) => hub::plan(address, places, patience),
            Source::ModelScope(address) => modelscope::plan(address, places, patience),
            Source::Pypi(address) => pypi::plan(address, places, patience),
            Source::Catalogue(name) => bail!("{name} is a short name: its sources are tried in order"),
        }
    }

    /// The client to download this source's files with.
    pub fn client(&self, places: &Places, patience: Patience) -> anyhow::Result<Client> {
        match self {
            Source::Hub(_) => hub::client(places, patience),
            Source::Pypi(_) => pypi::client(places, patience),
            _ => Client::new(patience, None),
        }
    }
}

/// A URL stands for one file, or with `-00001-of-0000N` for all parts of a split one.
fn web_plan(text: &str) -> anyhow::Result<Plan> {
    let url = Url::parse(text)?;
    let name = url.file_name();
    if !is_model_file(&name) {
        bail!("{url} is no .gguf or .onnx file; a folder's address at Hugging Face is written hf:owner/repo");
    }
    let sha256 = url.fragment.as_deref().map(hash_of).transpose()?;
    let split = hub::split_parts(&name);
    if split.is_some() && sha256.is_some() {
        bail!(
            "{url} is one part of a split model, and a hash would be checked on one file alone: leave it out"
        );
    }
    let parts = split.clone().unwrap_or_else(|| vec![name.clone()]);
    let mut files = Vec::new();
    for part in &parts {
        let mut part_url = url.clone();
        if split.is_some() {
            let (path, query) = url.path.split_at(url.path.find('?').unwrap_or(url.path.len()));
            let folder = &path[..=path.rfind('/').unwrap_or(0)];
            part_url.path = format!("{folder}{}{query}", super::url::encode(part, ""));
        }
        files.push(Wanted { url: part_url, name: part.clone(), sha256: sha256.clone(), bytes: None });
    }
    Ok(Plan { name: stem(&name), entry: parts[0].clone(), files: Files::Remote(files) })
}

/// The hash in a URL's fragment, `sha256=` and 64 hexadecimal digits.
fn hash_of(fragment: &str) -> anyhow::Result<String> {
    let digits = fragment.strip_prefix("sha256=").unwrap_or_default();
    if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!(
            "#{fragment} at the end of a URL is not understood: #sha256= and 64 hexadecimal digits would be"
        );
    }
    Ok(digits.to_ascii_lowercase())
}

/// Whether a file's name says that it is a model by itself.
pub fn is_model_file(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".gguf") || name.ends_with(".onnx")
}

/// A model's name out of a file's: without `.gguf` or `.onnx` and the number of a split file's part.
pub fn stem(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = if is_model_file(name) { &name[..name.len() - ".gguf".len()] } else { name };
    match name.rsplit_once("-of-").and_then(|(rest, _)| rest.rsplit_once('-')) {
        Some((rest, _)) if hub::split_parts(file).is_some() => rest.to_string(),
        _ => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn sources_are_told_apart() {
        let check = |text: &str, expected: &str| {
            let source = format!("{:?}", Source::parse(text).unwrap());
            assert!(source.starts_with(expected), "{text}: {source}");
        };
        check("hf:owner/repo", "Hub(");
        check("modelscope:owner/repo", "ModelScope(");
        check("pypi:package/a/b.gguf", "Pypi(");
        check("https://host/a.gguf", "Web(");
        check(".", "Path(");
        check("smollm2:135m", "Catalogue(");
    }

    #[test]
    fn what_is_no_source_is_answered_with_the_way_out() {
        let check = |text: &str, expected: &str| {
            let error = Source::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("smolm2:135m", "did you mean smollm2:135m?");
        check("owner/repo", "hf:owner/repo");
        check("nothing-like-it", "hf:owner/repo");
        check("hf:owner", "owner/repo");
        check("pypi:package", "path/in/wheel");
    }

    #[test]
    fn what_is_wrong_with_pip_is_said_where_pip_s_indexes_are_asked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.gguf");
        std::fs::write(&file, "GGUF").unwrap();
        let settings = BTreeMap::from([("index-url".to_string(), "file:///srv/simple".to_string())]);
        let pip = pip::Indexes::from_settings(&settings).map_err(|error| format!("{error:#}"));
        let places = Places { pip, ..Places::from_environment() };
        let plan = |text: &str| Source::parse(text).unwrap().plan(&places, Patience::DOWNLOAD);
        assert_eq!(plan(file.to_str().unwrap()).unwrap().name, "x");
        let refused = plan("pypi:package/x.gguf").unwrap_err().to_string();
        assert!(refused.starts_with("pip's index settings: ") && refused.contains("file:"), "{refused}");
    }

    #[test]
    fn a_url_of_a_part_stands_for_all_parts() {
        let plan = web_plan("https://h/x/m-00001-of-00002.gguf?a=1").unwrap();
        let Files::Remote(files) = plan.files else { panic!() };
        let urls: Vec<String> = files.iter().map(|file| file.url.request()).collect();
        assert_eq!(urls, ["https://h/x/m-00001-of-00002.gguf?a=1", "https://h/x/m-00002-of-00002.gguf?a=1"]);
        assert_eq!((plan.name.as_str(), plan.entry.as_str()), ("m", "m-00001-of-00002.gguf"));
        assert!(web_plan("https://h/x/m.bin").is_err());
        let hash = "0A".repeat(32);
        let Files::Remote(files) = web_plan(&format!("https://h/m.gguf#sha256={hash}")).unwrap().files else {
            panic!()
        };
        assert_eq!(files[0].sha256, Some(hash.to_lowercase()));
        for wrong in ["#sha256=12", "#md5=0", "#"] {
            assert!(web_plan(&format!("https://h/m.gguf{wrong}")).is_err(), "{wrong}");
        }
        assert!(web_plan(&format!("https://h/m-00001-of-00002.gguf#sha256={hash}")).is_err());
    }
}
