//! ModelScope's hub: the same addresses as Hugging Face's, another listing.

use anyhow::{Context, bail};
use serde::Deserialize;

use super::hub::{Address, Listed, plan_from};
use super::{Places, Plan};
use crate::models::http::{Client, FetchError, Patience};
use crate::models::url::{Url, encode};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    data: Option<Data>,
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    #[serde(default)]
    files: Vec<File>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    path: String,
    size: Option<u64>,
    sha256: Option<String>,
    #[serde(rename = "Type")]
    kind: Option<String>,
}

pub fn plan(address: &Address, places: &Places, patience: Patience) -> anyhow::Result<Plan> {
    let repository = &address.repository;
    let models = format!("{}/api/v1/models/{repository}/repo", places.modelscope.trim_end_matches('/'));
    let revision = encode(address.revision.as_deref().unwrap_or("master"), "");
    let listing = Url::parse(&format!("{models}/files?Revision={revision}&Recursive=true"))?;
    let page = Client::new(patience, None)?.page(&listing, &[]);
    let (_, _, text) = page.map_err(|error| match error {
        FetchError::Refused { status: 404, .. } => {
            anyhow::anyhow!("there is no repository {repository} at ModelScope")
        }
        other => other.into(),
    })?;
    let answer: Answer = serde_json::from_str(&text)
        .with_context(|| format!("the listing of {repository} isn't as expected"))?;
    let Some(data) = answer.data else {
        bail!("{repository}: ModelScope says {:?}", answer.message.unwrap_or_default());
    };
    let files = data.files.into_iter().filter(|file| file.kind.as_deref() != Some("tree"));
    let listed = files.map(|file| Listed {
        path: file.path,
        bytes: file.size,
        sha256: file.sha256.filter(|sha256| sha256.len() == 64),
    });
    plan_from(address, listed.collect(), "modelscope", |path| {
        Url::parse(&format!("{models}?Revision={revision}&FilePath={}", encode(path, "")))
    })
}
