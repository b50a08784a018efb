//! Versions by way of OCI registries: Debian's `docker-registry`, with and without a password, and servers that mean harm.

#![allow(clippy::unwrap_used)] // clippy doesn't see that what the tests call is part of them

#[path = "registry/hostile.rs"]
mod hostile;
#[path = "registry/real.rs"]
mod real;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use store::manifest::{Facts, File, Kind, Manifest, SCHEMA};
use store::oci::{Address, Described, Registered};
use store::{ModelName, Store, StoreError, Version, hash};

fn store(folder: &tempfile::TempDir, name: &str) -> Store {
    Store::new(&folder.path().join(name))
}

/// A version of these files; the first is loaded.
fn put(store: &Store, name: &str, files: &[(&str, &[u8])]) -> Version {
    let model = ModelName::parse(name).unwrap();
    let staging = store.stage(&model).unwrap();
    let mut known = Vec::new();
    for (name, contents) in files {
        let path = staging.folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        let (bytes, sha256) = hash::of_file(&path, |_| {}).unwrap();
        known.push(File { path: (*name).to_owned(), bytes, sha256, ..File::default() });
    }
    let facts = Facts {
        kind: Kind::Onnx,
        family: "onnx".to_owned(),
        parameters: 1_300_000,
        quantisation: "-".to_owned(),
        licence: Some("MIT".to_owned()),
    };
    let manifest = Manifest {
        schema: SCHEMA,
        model: model.to_string(),
        source: "here".to_owned(),
        created: "2026-01-01T00:00:00Z".to_owned(),
        entry: files[0].0.to_owned(),
        files: known,
        facts: Some(facts),
        metrics: [("accuracy".to_owned(), 0.975)].into(),
        ..Manifest::default()
    };
    store.publish(&staging.folder, &model, manifest).unwrap()
}

fn describe(_: &Path, names: &[String]) -> Result<Described, String> {
    Ok(Described { entry: names[0].clone(), facts: None })
}

fn pull(store: &Store, text: &str) -> Result<(Version, u64), StoreError> {
    let received = AtomicU64::new(0);
    let address = Address::parse(text)?;
    let found = Registered::find(&address)?;
    let model = ModelName::parse(address.short_name())?;
    let version = store.pull_from_registry(&found, &model, &describe, &|count| {
        received.fetch_add(count, Ordering::Relaxed);
    })?;
    Ok((version, received.into_inner()))
}

fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..count).map(|_| byte()).collect()
}
