//! Versions that are served straight from a remote, in `.cache/` of the models folder: a store of its own, with a limit.
//! What was used longest ago makes room.

use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use sha2::{Digest, Sha256};
use store::{ModelName, Reference, Remote, Store, Version, hash};

use super::progress::Shared;
use crate::settings::{ByteSize, SettingValue};

/// In the models folder, whose hidden folders are no models.
const CACHE: &str = ".cache";
/// Held by whoever changes the cache; the others wait.
const LOCK: &str = "lock";

/// The version that `reference` means in `remote`, from the cache or brought there. A number is asked for only where it
/// isn't there: what it means never changes.
///
/// # Errors
/// There is no such version; it takes more than `bytes_max`; the remote, the disk.
pub fn version(
    models: &Path,
    remote: &Remote,
    reference: &Reference,
    bytes_max: u64,
) -> anyhow::Result<(Version, u64)> {
    let folder = models.join(CACHE);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let path = folder.join(LOCK);
    let lock = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    lock.lock().with_context(|| format!("locking {}", path.display()))?;
    let store = Store::new(&folder);
    let name = reference.name();
    let number = match reference {
        Reference::Number { number, .. } => *number,
        Reference::Tag(_) => remote.number_of(reference)?,
    };
    // As pulling records it.
    let source = format!("{remote}: {name}@{number}");
    if let Some(version) = sound(&store)?.into_iter().find(|version| version.manifest.source == source) {
        used(&version)?;
        return Ok((version, number));
    }
    let (_, manifest) = remote.look(&Reference::Number { name: name.to_owned(), number })?;
    make_room(&store, manifest.bytes(), bytes_max)?;
    // Remotes have names in common.
    let place = hash::hex(&Sha256::digest(remote.to_string()));
    let model = ModelName::from_any(&format!("{}-{name}", &place[..12]))?;
    let progress = Shared::start(&format!("pulling {name}@{number}"), manifest.bytes());
    let version = store.pull(remote, (name, number), &model, &|count| progress.add(count))?;
    progress.finish();
    used(&version)?;
    Ok((version, number))
}

fn sound(store: &Store) -> anyhow::Result<Vec<Version>> {
    Ok(store.list()?.into_iter().filter_map(|(_, version)| version.ok()).collect())
}

/// The folder's time says when its version was used last.
fn used(version: &Version) -> anyhow::Result<()> {
    let context = || format!("noting in {} that it is used", version.folder.display());
    File::open(&version.folder)
        .and_then(|folder| folder.set_modified(SystemTime::now()))
        .with_context(context)
}

/// Deletes what was used longest ago until `bytes` fit. A server that has loaded what goes keeps working.
fn make_room(store: &Store, bytes: u64, bytes_max: u64) -> anyhow::Result<()> {
    if bytes > bytes_max {
        let [takes, most] = [bytes, bytes_max].map(|bytes| ByteSize(bytes).show());
        bail!(
            "it takes {takes}, and the cache at most {most}: raise cache_max, or pull it with tureen pull --from"
        );
    }
    let mut versions = sound(store)?;
    // One whose time can't be read goes first.
    versions
        .sort_by_key(|version| std::fs::metadata(&version.folder).and_then(|facts| facts.modified()).ok());
    let mut sum: u64 = versions.iter().map(|version| version.manifest.bytes()).sum();
    for version in versions {
        if sum.saturating_add(bytes) <= bytes_max {
            break;
        }
        sum -= version.manifest.bytes();
        store.remove(&Reference::Number { name: version.name.clone(), number: version.number })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use store::Manifest;
    use store::manifest::{File as Listed, SCHEMA};

    use super::*;

    fn publish(store: &Store, name: &str, byte: u8) -> Version {
        let model = ModelName::parse(name).unwrap();
        let staging = store.stage(&model).unwrap();
        let path = staging.folder.join("x");
        std::fs::write(&path, [byte; 1000]).unwrap();
        let (bytes, sha256) = hash::of_file(&path, |_| {}).unwrap();
        let files = vec![Listed { path: "x".to_owned(), bytes, sha256, ..Listed::default() }];
        let manifest = Manifest { schema: SCHEMA, entry: "x".to_owned(), files, ..Manifest::default() };
        store.publish(&staging.folder, &model, manifest).unwrap()
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let (here, models) = (Store::new(&folder.path().join("here")), folder.path().join("models"));
        let remote = Remote::open(folder.path().join("remote").to_str().unwrap()).unwrap();
        for (name, byte) in [("a", 1), ("b", 2), ("c", 3)] {
            here.push(&publish(&here, name, byte), &remote, None, false, &|_| {}).unwrap();
        }
        let get = |text: &str, max| version(&models, &remote, &Reference::parse(text).unwrap(), max);
        let cached = || -> Vec<u8> {
            let all = sound(&Store::new(&models.join(CACHE))).unwrap();
            let mut bytes: Vec<u8> =
                all.iter().map(|version| std::fs::read(version.entry().unwrap()).unwrap()[0]).collect();
            bytes.sort_unstable();
            bytes
        };
        assert!(get("a@1", 999).unwrap_err().to_string().contains("cache_max"));
        get("a@1", 2500).unwrap();
        get("b", 2500).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        get("a@1", 2500).unwrap();
        assert_eq!(cached(), [1, 2]);
        get("c@1", 2500).unwrap();
        assert_eq!(cached(), [1, 3], "b was used longest ago");
        // What a number means is known without asking.
        std::fs::remove_dir_all(folder.path().join("remote")).unwrap();
        assert!(get("a@1", 2500).is_ok() && get("a", 2500).is_err() && get("b@1", 2500).is_err());
        assert!(Store::new(&models).list().unwrap().is_empty(), "the models folder has none of them");
    }
}
