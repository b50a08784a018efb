//! What a registry keeps of a model: the image manifest with its layers and the model's configuration, as ModelPack
//! (version 1 of its media types) has them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Result;
use crate::durable::is_plain_path;
use crate::manifest::Manifest;

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MODEL: &str = "application/vnd.cncf.model.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
/// The specification's namespace, and the one that it had before.
const PREFIXES: [&str; 2] = ["application/vnd.cncf.model.", "application/vnd.cnai.model."];
const PATHS: [&str; 3] =
    ["org.cncf.model.filepath", "org.cnai.model.filepath", "org.opencontainers.image.title"];
const METADATA: &str = "org.cncf.model.file.metadata+json";
/// The annotation that has our own manifest.
const OWN: &str = "tureen.manifest";
/// Layers of one artefact.
pub const LAYERS_MAX: usize = 20_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Blob,
    pub layers: Vec<Blob>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What OCI calls a descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blob {
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// How a layer has its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One, as it is.
    Raw,
    Tar,
    TarGzip,
}

/// The image, and its configuration's bytes.
pub fn of_version(manifest: &Manifest) -> Result<(Image, Vec<u8>)> {
    let layers: Vec<Blob> = manifest.files.iter().map(|file| {
        let metadata = json!({
            "name": file.path, "mode": 0o644, "uid": 0, "gid": 0, "size": file.bytes, "mtime": manifest.created,
            "typeflag": b'0',
        });
        let annotations = [
            (PATHS[0], file.path.clone()),
            (PATHS[2], file.path.clone()),
            (METADATA, metadata.to_string()),
        ];
        Blob {
            media_type: media_type(&file.path).to_owned(),
            digest: format!("sha256:{}", file.sha256),
            size: file.bytes,
            annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(),
        }
    }).collect();
    let config = configuration(manifest, &layers).to_string().into_bytes();
    let own = serde_json::to_string(manifest)
        .map_err(|error| super::refused("writing the manifest".to_owned(), error.to_string()))?;
    let annotations = [
        (OWN, own),
        ("org.opencontainers.image.created", manifest.created.clone()),
        ("org.opencontainers.image.title", manifest.model.clone()),
    ];
    let image = Image {
        schema_version: 2,
        media_type: IMAGE.to_owned(),
        artifact_type: Some(MODEL.to_owned()),
        config: Blob {
            media_type: CONFIG.to_owned(),
            digest: format!("sha256:{}", crate::hash::of_bytes(&config)),
            size: config.len() as u64,
            annotations: BTreeMap::new(),
        },
        layers,
        annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(),
    };
    Ok((image, config))
}

/// What the model says of itself, in the specification's words; what we don't know is left out.
fn configuration(manifest: &Manifest, layers: &[Blob]) -> Value {
    let mut descriptor = json!({
        "createdAt": manifest.created,
        "name": manifest.model.split(':').next(),
        "version": manifest.version.to_string(),
    });
    let mut config = json!({});
    let ends = [(".gguf", "gguf"), (".safetensors", "safetensors"), (".onnx", "onnx"), (".keras", "keras")];
    let format = ends.iter().find(|(end, _)| manifest.files.iter().any(|file| file.path.ends_with(end)));
    if let Some((_, format)) = format {
        config["format"] = json!(format);
    }
    if let Some(facts) = &manifest.facts {
        descriptor["family"] = json!(facts.family);
        if let Some(licence) = &facts.licence {
            descriptor["licenses"] = json!([licence]);
        }
        config["paramSize"] = json!(parameters(facts.parameters));
        if facts.quantisation != "-" {
            config["quantization"] = json!(facts.quantisation);
        }
    }
    let ids: Vec<&String> = layers.iter().map(|layer| &layer.digest).collect();
    json!({ "descriptor": descriptor, "config": config, "modelfs": { "type": "layers", "diffIds": ids } })
}

/// `134.5M`: at most one digit behind the point.
fn parameters(count: u64) -> String {
    let units = [(1e15, "Q"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")];
    let (unit, letter) = units.into_iter().find(|(unit, _)| count as f64 >= *unit).unwrap_or((1e3, "K"));
    format!("{:.1}{letter}", count as f64 / unit)
}

fn media_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    let begins = |begins: &[&str]| begins.iter().any(|begin| name.starts_with(begin));
    if ends(&[
        ".gguf",
        ".safetensors",
        ".onnx",
        ".onnx_data",
        ".onnx.data",
        ".keras",
        ".h5",
        ".bin",
        ".pt",
        ".data",
    ]) {
        "application/vnd.cncf.model.weight.v1.raw"
    } else if ends(&[".md", ".html", ".pdf"]) || begins(&["license", "licence", "notice", "readme"]) {
        "application/vnd.cncf.model.doc.v1.raw"
    } else if ends(&[".py", ".sh"]) {
        "application/vnd.cncf.model.code.v1.raw"
    } else {
        "application/vnd.cncf.model.weight.config.v1.raw"
    }
}

impl Image {
    /// Whether it is a model as ModelPack has it.
    pub fn is_model(&self) -> bool {
        let is_ours = |text: &str| PREFIXES.iter().any(|prefix| text.starts_with(prefix));
        self.artifact_type.as_deref().is_some_and(is_ours) || is_ours(&self.config.media_type)
    }

    /// Our own manifest, where it is of these very layers: another program may have changed them since.
    pub fn own(&self) -> Option<Manifest> {
        let manifest: Manifest = serde_json::from_str(self.annotations.get(OWN)?).ok()?;
        let layers: BTreeMap<String, (&str, u64)> = self
            .layers
            .iter()
            .filter_map(|layer| Some((layer.path()?, (layer.digest.as_str(), layer.size))))
            .collect();
        let is_there = |file: &crate::manifest::File| {
            layers.get(&file.path).is_some_and(|(digest, size)| {
                digest.strip_prefix("sha256:") == Some(&file.sha256) && *size == file.bytes
            })
        };
        let is_same = layers.len() == manifest.files.len() && self.layers.len() == layers.len();
        (is_same && manifest.files.iter().all(is_there)).then_some(manifest)
    }
}

impl Blob {
    /// The file that a raw layer is; none where it names none that may be written.
    pub fn path(&self) -> Option<String> {
        let path = PATHS.iter().find_map(|key| self.annotations.get(*key))?;
        let path = path.strip_prefix("./").unwrap_or(path);
        is_plain_path(path).then(|| path.to_owned())
    }

    /// `None` for what isn't part of a model, or is packed in a way that we can't read.
    pub fn form(&self) -> Option<Form> {
        let rest = PREFIXES.iter().find_map(|prefix| self.media_type.strip_prefix(prefix))?;
        let end = rest.rsplit_once("v1.").map(|(_, end)| end)?;
        match end {
            "raw" | "gguf" | "safetensors" => Some(Form::Raw),
            "tar" => Some(Form::Tar),
            "tar+gzip" => Some(Form::TarGzip),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_say_what_they_are() {
        let check = |media_type: &str, expected: Option<Form>| {
            let blob = Blob {
                media_type: media_type.to_owned(),
                digest: String::new(),
                size: 0,
                annotations: BTreeMap::new(),
            };
            assert_eq!(blob.form(), expected, "{media_type}");
        };
        check("application/vnd.cncf.model.weight.v1.raw", Some(Form::Raw));
        check("application/vnd.cncf.model.weight.config.v1.tar", Some(Form::Tar));
        check("application/vnd.cnai.model.doc.v1.tar+gzip", Some(Form::TarGzip));
        check("application/vnd.cncf.model.weight.v1.gguf", Some(Form::Raw));
        check("application/vnd.cncf.model.weight.v1.tar+zstd", None);
        check("application/vnd.oci.image.layer.v1.tar", None);
        assert_eq!([134_515_008, 7_000_000_000, 1_600].map(parameters), ["134.5M", "7.0B", "1.6K"]);
    }

    #[test]
    fn a_layer_names_no_file_outside() {
        for (path, expected) in
            [("a/b", Some("a/b")), ("./a", Some("a")), ("../a", None), ("/a", None), ("", None)]
        {
            let annotations = BTreeMap::from([(PATHS[0].to_owned(), path.to_owned())]);
            let blob = Blob { media_type: String::new(), digest: String::new(), size: 0, annotations };
            assert_eq!(blob.path().as_deref(), expected);
        }
    }
}
