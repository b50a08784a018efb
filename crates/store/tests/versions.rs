//! Versions as their users see them: whole or not at all, numbered, tagged, found again, mended.

#![allow(clippy::unwrap_used)] // clippy doesn't see that what the tests call is part of them

#[path = "place/mod.rs"]
mod place;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use place::{folder_and_store, lose_database, opened_anew};
use store::manifest::{File, Manifest, SCHEMA};
use store::{ModelName, Reference, Store, Unfinished, Version, hash};

fn model(text: &str) -> ModelName {
    ModelName::parse(text).unwrap()
}

fn manifest(model: &ModelName, contents: &str) -> Manifest {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    std::fs::write(&path, contents).unwrap();
    let (bytes, sha256) = hash::of_file(&path, |_| {}).unwrap();
    Manifest {
        schema: SCHEMA,
        model: model.to_string(),
        source: "here".to_string(),
        created: "2026-01-01T00:00:00Z".to_string(),
        entry: "a.gguf".to_string(),
        files: vec![File { path: "a.gguf".to_string(), bytes, sha256, ..File::default() }],
        ..Manifest::default()
    }
}

fn put(store: &Store, name: &str, contents: &str) -> Version {
    let model = model(name);
    let staging = store.stage(&model).unwrap();
    std::fs::write(staging.folder.join("a.gguf"), contents).unwrap();
    store.publish(&staging.folder, &model, manifest(&model, contents)).unwrap()
}

fn find(store: &Store, text: &str) -> Option<Version> {
    store.find(&Reference::parse(text).unwrap()).unwrap()
}

fn read(store: &Store, text: &str) -> String {
    std::fs::read_to_string(find(store, text).unwrap().entry().unwrap()).unwrap()
}

fn names(store: &Store) -> Vec<String> {
    store.list().unwrap().into_iter().map(|(label, _)| label).collect()
}

#[test]
fn a_version_is_seen_when_it_is_whole_and_not_before() {
    let Some((_folder, store)) = folder_and_store() else { return };
    assert!(names(&store).is_empty() && !store.folder().exists(), "looking makes nothing");
    let name = model("a:b");
    let staging = store.stage(&name).unwrap();
    std::fs::write(staging.folder.join("a.gguf"), "x").unwrap();
    assert!(names(&store).is_empty() && find(&store, "a:b").is_none());
    let version = store.publish(&staging.folder, &name, manifest(&name, "x")).unwrap();
    assert_eq!((version.id().as_str(), version.label().as_str()), ("a@1", "a:b"));
    assert_eq!((names(&store), read(&store, "a:b")), (vec!["a:b".to_string()], "x".to_string()));
}

#[test]
fn a_name_has_a_line_of_versions_and_tags_point_at_one() {
    let Some((_folder, store)) = folder_and_store() else { return };
    for contents in ["1", "2", "3"] {
        put(&store, "a", contents);
    }
    put(&store, "a:x", "4");
    assert_eq!(names(&store), ["a@1", "a@2", "a", "a:x"]);
    assert_eq!(["a", "a@1", "a@2", "a:x"].map(|name| read(&store, name)), ["3", "1", "2", "4"]);
    store.tag(&find(&store, "a@1").unwrap(), "latest").unwrap();
    assert_eq!(read(&store, "a"), "1", "back to the first");
    assert_eq!(find(&store, "a@3").unwrap().tags, Vec::<String>::new());
    assert_eq!(put(&store, "a", "5").id(), "a@5");
}

#[test]
fn a_number_is_never_given_twice() {
    let Some((_folder, store)) = folder_and_store() else { return };
    put(&store, "a", "1");
    put(&store, "a", "2");
    store.remove(&Reference::parse("a@2").unwrap()).unwrap();
    assert_eq!(find(&store, "a").unwrap().number, 1, "the name means the newest that is left");
    assert_eq!(put(&opened_anew(&store), "a", "3").id(), "a@3");
}

#[test]
fn removing_a_tag_spares_what_another_tag_means() {
    let Some((folder, store)) = folder_and_store() else { return };
    let version = put(&store, "a", "1");
    store.tag(&version, "best").unwrap();
    store.remove(&Reference::parse("a").unwrap()).unwrap();
    assert_eq!((names(&store), read(&store, "a:best")), (vec!["a:best".to_string()], "1".to_string()));
    store.remove(&Reference::parse("a:best").unwrap()).unwrap();
    assert!(names(&store).is_empty() && !version.folder.exists());
    assert!(!folder.path().join("models/a").exists(), "an empty folder goes too");
}

#[test]
fn publishing_the_same_again_mends_it() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let version = put(&store, "a", "1");
    let file = version.entry().unwrap();
    std::fs::write(&file, "2").unwrap();
    let damage = store.verify(&version, |_| {}).unwrap();
    assert_eq!(damage.len(), 1);
    assert!(damage[0].path == "a.gguf" && damage[0].why.starts_with("sha256 was"), "{damage:?}");
    assert_eq!(put(&store, "a", "1").id(), "a@1");
    assert!(store.verify(&version, |_| {}).unwrap().is_empty());
    std::fs::write(version.folder.join("manifest.json"), "{}").unwrap();
    std::fs::remove_file(&file).unwrap();
    let paths: Vec<String> =
        store.verify(&version, |_| {}).unwrap().into_iter().map(|one| one.path).collect();
    assert_eq!(paths, ["manifest.json", "a.gguf"]);
}

#[test]
fn models_from_before_there_were_versions_are_found() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let old = |name: &str, tag: &str| -> PathBuf {
        let folder = store.folder().join(name).join(tag);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a.gguf"), tag).unwrap();
        let text = format!(
            r#"{{"schema": 1, "model": "{name}:{tag}", "source": "s", "pulled": "2026-01-01T00:00:00Z", "entry": "a.gguf",
                "files": [{{"path": "a.gguf", "bytes": 4, "sha256": "", "verified": false, "origin": ""}}],
                "facts": {{"family": "onnx", "parameters": 1, "quantisation": "-", "licence": null}}}}"#
        );
        std::fs::write(folder.join("manifest.json"), text).unwrap();
        folder
    };
    let moved = old("smollm2", "135m");
    old("smollm2", "latest");
    assert_eq!(names(&store), ["smollm2:135m", "smollm2"]);
    assert_eq!(read(&store, "smollm2:135m"), "135m");
    assert!(!moved.exists());
    let version = find(&store, "smollm2@1").unwrap();
    assert_eq!((version.manifest.version, version.manifest.created.as_str()), (1, "2026-01-01T00:00:00Z"));
    assert_eq!(version.manifest.facts.unwrap().kind, store::manifest::Kind::Onnx);
    // An older program pulls once more.
    old("smollm2", "135m");
    assert_eq!(find(&opened_anew(&store), "smollm2:135m").unwrap().number, 3);
}

#[test]
fn a_lost_database_is_made_anew_out_of_the_folders() {
    let Some((_folder, store)) = folder_and_store() else { return };
    put(&store, "a", "1");
    put(&store, "a", "2");
    put(&store, "b:x", "3");
    lose_database(&store);
    let store = opened_anew(&store);
    assert_eq!(names(&store), ["a@1", "a", "b:x"]);
    assert_eq!((read(&store, "a"), put(&store, "a", "4").id()), ("2".to_string(), "a@3".to_string()));
}

#[test]
fn a_folder_that_is_gone_is_no_version() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let version = put(&store, "a", "1");
    std::fs::remove_dir_all(&version.folder).unwrap();
    assert!(find(&store, "a").is_none());
    let store = opened_anew(&store);
    assert!(names(&store).is_empty());
    assert_eq!(put(&store, "a", "2").id(), "a@2");
}

#[test]
fn what_is_unfinished_can_be_seen_and_removed() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let name = model("a:b");
    drop(store.stage(&name).unwrap());
    assert!(store.unfinished().unwrap().is_empty(), "nothing came");
    let staging = store.stage(&name).unwrap();
    std::fs::write(staging.folder.join("a.gguf.partial"), "12345").unwrap();
    let tag = Reference::Tag(name.clone());
    let left = |is_under_way| BTreeMap::from([(name.clone(), Unfinished { bytes: 5, is_under_way })]);
    assert_eq!(store.unfinished().unwrap(), left(true));
    assert!(store.remove(&tag).is_err(), "it is being pulled");
    let error = store.stage(&name).err().unwrap().to_string();
    assert_eq!(error, "a:b is being pulled by another process; wait for that, or end it");
    drop(staging);
    assert_eq!(store.unfinished().unwrap(), left(false));
    store.remove(&tag).unwrap();
    assert!(store.unfinished().unwrap().is_empty());
}

#[test]
fn what_is_made_anew_begins_empty() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let name = model("a:b");
    let staging = store.stage(&name).unwrap();
    std::fs::create_dir(staging.folder.join("within")).unwrap();
    for path in ["left.gguf", "within/kept.txt", "within/left.txt"] {
        std::fs::write(staging.folder.join(path), "1").unwrap();
    }
    staging.keep_only(&["within/kept.txt"]).unwrap();
    let is_there = |path: &str| staging.folder.join(path).exists();
    assert!(is_there("within/kept.txt") && !is_there("within/left.txt") && !is_there("left.gguf"));
    drop(staging);
    let staging = store.stage_anew(&name).unwrap();
    assert!(!staging.folder.join("within/kept.txt").exists());
}

#[test]
fn what_a_killed_process_had_begun_to_delete_goes() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let version = put(&store, "a", "1");
    let aside = store.folder().join(".partial/a@1@removed");
    std::fs::rename(&version.folder, &aside).unwrap();
    assert!(names(&opened_anew(&store)).is_empty() && !aside.exists());
}

#[test]
fn a_damaged_manifest_hides_no_other_version() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let version = put(&store, "a", "1");
    put(&store, "b", "2");
    std::fs::write(version.folder.join("manifest.json"), "{").unwrap();
    let list = store.list().unwrap();
    assert!(list[0].1.is_err() && list[1].1.is_ok());
    store.remove(&Reference::parse("a").unwrap()).unwrap();
    assert_eq!(names(&store), ["b"]);
    let mut outside = manifest(&model("b"), "2");
    outside.entry = "../../secret".to_string();
    assert!(outside.entry_in(Path::new("b")).is_err());
    outside.files[0].path = "../secret".to_string();
    let staging = store.stage(&model("c")).unwrap();
    assert!(store.publish(&staging.folder, &model("c"), outside).is_err());
}

#[test]
fn two_at_once_are_both_right() {
    let Some((_folder, store)) = folder_and_store() else { return };
    let publish = |tag: usize| -> Vec<u64> {
        // A store of its own each, as processes have.
        let store = opened_anew(&store);
        (0..5).map(|round| put(&store, &format!("a:t{tag}"), &format!("{tag} {round}")).number).collect()
    };
    let numbers: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|tag| scope.spawn(move || publish(tag))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut all: Vec<u64> = numbers.concat();
    all.sort();
    assert_eq!(all, (1..=20).collect::<Vec<u64>>());
    for (tag, numbers) in numbers.iter().enumerate() {
        assert_eq!(find(&store, &format!("a:t{tag}")).unwrap().number, numbers[4]);
        for (round, number) in numbers.iter().enumerate() {
            assert_eq!(read(&store, &format!("a@{number}")), format!("{tag} {round}"));
        }
    }
}

#[cfg(unix)]
#[test]
fn who_may_only_read_finds_what_is_there() {
    use std::os::unix::fs::PermissionsExt;
    let Some((_folder, store)) = folder_and_store() else { return };
    put(&store, "a", "1");
    let own = store.folder().join(".store");
    let set = |mode: u32| std::fs::set_permissions(&own, std::fs::Permissions::from_mode(mode)).unwrap();
    set(0o555);
    // Whoever may do everything isn't kept out by that.
    let is_kept_out = tempfile::tempfile_in(&own).is_err();
    assert_eq!(read(&opened_anew(&store), "a"), "1");
    println!("kept out: {is_kept_out}");
    set(0o755);
}
