//! A full disk: said as what it is, with everything that was there left whole, and once there is room the same goes on.

#![allow(clippy::unwrap_used)] // clippy doesn't see that what the tests call is part of them

#[path = "remotes/weights.rs"]
mod weights;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Command;

use store::{ModelName, Reference, Remote, Store, StoreError, Version};
use weights::{Network, publish};

const FOLDER: &str = "STORE_LIMITED_FOLDER";

/// A small disk in memory, as long as it lives.
struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// `None`, which is said, where this user may not mount one.
fn small_disk(place: &Path, bytes: u64) -> Option<SmallDisk> {
    std::fs::create_dir_all(place).unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
        .arg(place)
        .output();
    match mount {
        Ok(output) if output.status.success() => Some(SmallDisk(place.to_path_buf())),
        other => {
            println!("skipped: a disk of {bytes} bytes can't be mounted here: {other:?}");
            None
        }
    }
}

/// Takes all room but `bytes`.
fn fill(place: &Path, bytes: usize) -> PathBuf {
    let path = place.join("filler");
    let mut contents = Vec::new();
    while std::fs::write(&path, &contents).is_ok() {
        contents.resize(contents.len() + (64 << 10), 1);
    }
    contents.truncate(contents.len().saturating_sub(bytes + (64 << 10)));
    std::fs::write(&path, contents).unwrap();
    path
}

fn is_full<T: Debug>(result: Result<T, StoreError>) {
    let error = result.unwrap_err().to_string();
    assert!(error.contains("No space left on device") && error.contains("small"), "{error}");
}

fn contents(version: &Version) -> Vec<Vec<u8>> {
    let read = |file: &store::manifest::File| std::fs::read(version.folder.join(&file.path)).unwrap();
    version.manifest.files.iter().map(read).collect()
}

#[test]
fn a_remote_on_a_full_disk_stays_whole() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("small");
    let Some(_disk) = small_disk(&place, 8 << 20) else { return };
    let here = Store::new(&folder.path().join("here"));
    let remote = Remote::open(place.join("remote").to_str().unwrap()).unwrap();
    let model = ModelName::parse("a").unwrap();
    let push = |version: &Version| here.push(version, &remote, Some(&model), false, &|_| {});
    let first = publish(&here, &model, &Network::new(1), None);
    push(&first).unwrap();
    let second = publish(&here, &model, &Network::new(2), None);
    for left in [0, 100 << 10, 300 << 10] {
        let filler = fill(&place, left);
        is_full(push(&second));
        assert_eq!(remote.versions().unwrap().len(), 1, "no half version");
        assert_eq!(remote.verify(&[], &|_| {}).unwrap(), []);
        // Freeing room needs none but a mark's.
        std::fs::remove_file(filler).unwrap();
        remote.collect(false).unwrap();
        assert_eq!(remote.collect(true).unwrap().deleted, 0);
    }
    assert_eq!(push(&second).unwrap().number, 2);
    let there = Store::new(&folder.path().join("there"));
    let pulled = there.pull(&remote, ("a", 2), &model, &|_| {}).unwrap();
    assert_eq!(contents(&pulled), contents(&second));
}

#[test]
fn a_store_on_a_full_disk_stays_whole() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("small");
    let Some(_disk) = small_disk(&place, 8 << 20) else { return };
    let (here, there) = (Store::new(&folder.path().join("here")), Store::new(&place.join("models")));
    let remote = Remote::open(folder.path().join("remote").to_str().unwrap()).unwrap();
    let model = ModelName::parse("a").unwrap();
    let versions = [1, 2].map(|seed| publish(&here, &model, &Network::new(seed), None));
    for version in &versions {
        here.push(version, &remote, Some(&model), false, &|_| {}).unwrap();
    }
    let pull = |number| there.pull(&remote, ("a", number), &model, &|_| {});
    pull(1).unwrap();
    for left in [0, 100 << 10, 500 << 10] {
        let filler = fill(&place, left);
        is_full(pull(2));
        let all = there.list().unwrap();
        assert_eq!(all.len(), 1, "no half version");
        let whole = there.find(&Reference::Tag(model.clone())).unwrap().unwrap();
        assert_eq!((whole.number, there.verify(&whole, |_| {}).unwrap()), (1, vec![]));
        std::fs::remove_file(filler).unwrap();
    }
    let pulled = pull(2).unwrap();
    assert_eq!(contents(&pulled), contents(&versions[1]));
    there.remove(&Reference::Number { name: "a".to_owned(), number: 1 }).unwrap();
}

/// Where nothing can be mounted: no file of this process may be longer than 100 KiB.
#[test]
fn a_write_that_fails_leaves_all_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let here = Store::new(&folder.path().join("here"));
    let model = ModelName::parse("a").unwrap();
    publish(&here, &model, &Network::new(1), None);
    publish(&here, &ModelName::parse("b").unwrap(), &Network::new(2), None);
    let full = Remote::open(folder.path().join("full").to_str().unwrap()).unwrap();
    let first = here.find(&Reference::Tag(model.clone())).unwrap().unwrap();
    here.push(&first, &full, None, false, &|_| {}).unwrap();
    let program = std::env::current_exe().unwrap();
    let limited = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 200; exec \"$0\" --exact limited --ignored --nocapture"])
        .arg(program)
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(limited.status.success(), "{limited:?}");
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn limited() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let (here, there) = (Store::new(&folder.join("here")), Store::new(&folder.join("there")));
    let open = |name: &str| Remote::open(folder.join(name).to_str().unwrap()).unwrap();
    let is_refused = |error: String| assert!(error.contains("File too large"), "{error}");
    let (empty, full) = (open("empty"), open("full"));
    let other = here.find(&Reference::parse("b").unwrap()).unwrap().unwrap();
    is_refused(here.push(&other, &empty, None, false, &|_| {}).unwrap_err().to_string());
    assert!(empty.versions().unwrap().is_empty());
    empty.collect(false).unwrap();
    assert_eq!(empty.collect(true).unwrap().kept, 0);
    let model = ModelName::parse("a").unwrap();
    is_refused(there.pull(&full, ("a", 1), &model, &|_| {}).unwrap_err().to_string());
    assert!(there.list().unwrap().is_empty());
    assert_eq!(full.verify(&[], &|_| {}).unwrap(), []);
}
