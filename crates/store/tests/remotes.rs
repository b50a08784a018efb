//! Remotes as their users see them: what is pushed is pulled the same elsewhere, costs little, and is never half there.

#![allow(clippy::unwrap_used)] // clippy doesn't see that what the tests call is part of them

#[path = "remotes/weights.rs"]
mod weights;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use store::{ModelName, Pushed, Reference, Remote, Store, Version};
use weights::{Network, publish};

/// Two machines and a remote between them.
struct Places {
    _folder: tempfile::TempDir,
    here: Store,
    there: Store,
    place: PathBuf,
    remote: Remote,
}

fn places() -> Places {
    let folder = tempfile::tempdir().unwrap();
    let store = |name: &str| Store::new(&folder.path().join(name));
    let place = folder.path().join("remote");
    let remote = Remote::open(place.to_str().unwrap()).unwrap();
    Places { here: store("here"), there: store("there"), _folder: folder, place, remote }
}

impl Places {
    fn put(&self, name: &str, network: &Network, parent: Option<&Version>) -> Version {
        publish(&self.here, &ModelName::parse(name).unwrap(), network, parent)
    }

    fn push(&self, version: &Version) -> Pushed {
        self.here.push(version, &self.remote, None, false, &|_| {}).unwrap()
    }

    fn pull(&self, text: &str) -> Version {
        let reference = Reference::parse(text).unwrap();
        let (number, _) = self.remote.look(&reference).unwrap();
        let model = ModelName::parse(reference.name()).unwrap();
        self.there.pull(&self.remote, (reference.name(), number), &model, &|_| {}).unwrap()
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.place.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path.strip_prefix(&self.place).unwrap().to_path_buf());
                }
            }
        }
        found
    }
}

fn version(number: u64) -> Reference {
    Reference::Number { name: "a".to_owned(), number }
}

fn contents(version: &Version) -> Vec<(String, Vec<u8>)> {
    let read = |file: &store::manifest::File| std::fs::read(version.folder.join(&file.path)).unwrap();
    version.manifest.files.iter().map(|file| (file.path.clone(), read(file))).collect()
}

#[test]
fn what_is_pushed_is_pulled_the_same_and_smaller_between() {
    let places = places();
    let version = places.put("a:best", &Network::new(1), None);
    let pushed = places.here.push(
        &version,
        &places.remote,
        Some(&ModelName::parse("a:best").unwrap()),
        false,
        &|_| {},
    );
    let pushed = pushed.unwrap();
    assert!(pushed.number == 1 && !pushed.was_there);
    assert!(pushed.stored < pushed.bytes * 75 / 100, "{pushed:?}");
    let pulled = places.pull("a:best");
    assert_eq!(contents(&pulled), contents(&version));
    assert_eq!(places.there.verify(&pulled, |_| {}).unwrap(), []);
    assert!(pulled.manifest.source.ends_with(": a@1"), "{}", pulled.manifest.source);
    let refused = places.remote.look(&Reference::parse("a").unwrap()).unwrap_err().to_string();
    assert!(refused.ends_with("has no a, only a@1"), "{refused}");
}

#[test]
fn a_second_push_of_the_same_sends_nothing() {
    let places = places();
    let version = places.put("a", &Network::new(1), None);
    let first = places.push(&version);
    let files = places.files();
    let again = places.push(&version);
    assert_eq!((again.number, again.was_there, again.sent, again.stored), (1, true, 0, first.stored));
    assert_eq!(places.files(), files);
}

#[test]
fn a_child_costs_what_changed() {
    let places = places();
    let mut network = Network::new(1);
    let parent = places.put("a", &network, None);
    let first = places.push(&parent);
    network.change_layer(2, 1.0, 9);
    let layer = network.layer_bytes() as u64;
    let one_layer = places.push(&places.put("a", &network, Some(&parent)));
    assert!(one_layer.sent < layer + first.stored / 100, "{one_layer:?} for {layer} that changed");
    network = Network::new(1);
    for layer in 0..network.layers() {
        network.change_layer(layer, 0.002, 10 + layer as u64);
    }
    let tuned = places.push(&places.put("a", &network, Some(&parent)));
    assert!(tuned.sent < first.stored * 40 / 100, "{tuned:?} for a parent of {first:?}");
    // A difference from a difference is told against the first.
    network.change_layer(0, 0.002, 77);
    let grandchild = places.put("a", &network, None);
    let last = places.push(&grandchild);
    assert!(last.sent < first.stored / 10, "{last:?}");
    let pulled = places.pull("a@4");
    assert_eq!(contents(&pulled), contents(&grandchild));
    assert_eq!(places.remote.verify(&[], &|_| {}).unwrap(), []);
}

#[test]
fn a_pull_takes_over_what_is_here_and_goes_on() {
    let places = places();
    let mut network = Network::new(1);
    let parent = places.put("a", &network, None);
    places.push(&parent);
    network.change_layer(0, 0.002, 3);
    let child = places.put("a", &network, Some(&parent));
    places.push(&child);
    places.pull("a@1");
    // With the parent here, none of its chunks is asked for: they may be missing there.
    let kept = places.files();
    for file in kept.iter().filter(|file| file.starts_with("chunks")) {
        let path = places.place.join(file);
        if std::fs::metadata(&path).unwrap().len() > 60_000 {
            std::fs::remove_file(path).unwrap();
        }
    }
    let pulled = places.pull("a@2");
    assert_eq!(contents(&pulled), contents(&child));
    assert_eq!(pulled.manifest.parent.as_deref(), Some("a@1"));
}

#[test]
fn an_interrupted_pull_goes_on_where_it_stood() {
    let places = places();
    let version = places.put("a", &Network::new(1), None);
    places.push(&version);
    let lost: Vec<PathBuf> = places.files().into_iter().filter(|file| file.starts_with("chunks")).collect();
    let lost = places.place.join(&lost[0]);
    let frame = std::fs::read(&lost).unwrap();
    std::fs::remove_file(&lost).unwrap();
    let model = ModelName::parse("a").unwrap();
    let error = places.there.pull(&places.remote, ("a", 1), &model, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("is missing") && error.contains("chunks/"), "{error}");
    assert!(places.there.unfinished().unwrap()[&model].bytes > 0);
    std::fs::write(&lost, frame).unwrap();
    // As a pull from elsewhere left it.
    let staging = places.there.stage(&model).unwrap();
    std::fs::write(staging.folder.join("other.gguf.partial"), "x").unwrap();
    drop(staging);
    let pulled = places.pull("a");
    assert_eq!(contents(&pulled), contents(&version));
    assert!(!pulled.folder.join("other.gguf.partial").exists());
}

#[test]
fn numbers_are_the_remotes_own_and_never_given_twice() {
    let places = places();
    let versions = [1, 2, 3].map(|seed| places.put("a", &Network::new(seed), None));
    assert_eq!(places.push(&versions[1]).number, 2, "its own where that is free");
    assert_eq!(places.push(&versions[0]).number, 1);
    places.remote.remove(&version(2)).unwrap();
    let model = ModelName::parse("a").unwrap();
    let other = publish(&places.there, &model, &Network::new(8), None);
    let pushed = places.there.push(&other, &places.remote, Some(&model), false, &|_| {}).unwrap();
    assert_eq!(pushed.number, 3, "another a@1 is there, and a@2 was");
    assert_eq!(contents(&places.pull("a")), contents(&other));
    assert_eq!(places.push(&versions[1]).number, 4, "a number that was removed isn't given again");
}

#[test]
fn gc_deletes_what_nothing_needs_and_keeps_what_differences_need() {
    let places = places();
    let mut network = Network::new(1);
    let parent = places.put("a", &network, None);
    places.push(&parent);
    for layer in 0..network.layers() {
        network.change_layer(layer, 0.002, layer as u64);
    }
    let child = places.put("a", &network, Some(&parent));
    places.push(&child);
    std::fs::create_dir_all(places.place.join("chunks/00")).unwrap();
    std::fs::write(places.place.join("chunks/00/.tmp123"), "what a killed push left").unwrap();
    assert_eq!(places.remote.collect(false).unwrap().deleted, 1);
    places.remote.remove(&version(1)).unwrap();
    let trial = places.remote.collect(true).unwrap();
    let collected = places.remote.collect(false).unwrap();
    assert_eq!(trial, collected);
    assert_eq!(
        contents(&places.pull("a@2")),
        contents(&child),
        "the parent's chunks that it needs are there"
    );
    places.remote.remove(&version(2)).unwrap();
    let last = places.remote.collect(false).unwrap();
    assert_eq!((last.kept, last.deleted), (0, collected.kept));
    assert!(
        places.files().iter().all(|file| !file.starts_with("chunks") && !file.starts_with("differences"))
    );
}

#[test]
fn a_flipped_bit_is_found_and_named_in_every_kind_of_file() {
    let places = places();
    let mut network = Network::new(1);
    let parent = places.put("a", &network, None);
    places.push(&parent);
    network.change_layer(1, 0.002, 5);
    let child = places.put("a", &network, Some(&parent));
    places.push(&child);
    let verify = || places.remote.verify(&[], &|_| {});
    assert_eq!(verify().unwrap(), []);
    let mut kinds = BTreeSet::new();
    for file in places.files() {
        let kind = file.iter().next().unwrap().to_owned();
        let path = places.place.join(&file);
        let whole = std::fs::read(&path).unwrap();
        if whole.is_empty() {
            assert_eq!(kind, *"lock", "{file:?} has no bit that could flip");
            continue;
        }
        kinds.insert(kind);
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            let found = verify().unwrap();
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(found.iter().any(|damage| damage.why.contains(name)), "{file:?}, {at}: {found:?}");
        }
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(kinds.len(), 5, "{kinds:?}");
    // A damaged chunk is mended by pushing again.
    let chunk = places.files().into_iter().find(|file| file.starts_with("chunks")).unwrap();
    std::fs::write(places.place.join(chunk), "nonsense").unwrap();
    assert_eq!(verify().unwrap().len(), 1);
    places.here.push(&parent, &places.remote, None, true, &|_| {}).unwrap();
    assert_eq!(verify().unwrap(), []);
}

#[test]
fn what_was_changed_here_is_not_pushed() {
    let places = places();
    let version = places.put("a", &Network::new(1), None);
    let path = version.entry().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = places.here.push(&version, &places.remote, None, false, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("sha256 was"), "{error}");
    assert!(places.remote.versions().unwrap().is_empty());
}

#[test]
fn a_hostile_manifest_writes_nothing_elsewhere() {
    let places = places();
    places.push(&places.put("a", &Network::new(1), None));
    let path = places.place.join("models/a/@1.json");
    let text = std::fs::read_to_string(&path).unwrap();
    // In the form that ends without a hash, which whoever is hostile could compute too.
    let text = text.replacen("\"schema\":2", "\"schema\":1", 1);
    let check = |from: &str, to: &str| {
        std::fs::write(&path, text.replace(from, to)).unwrap();
        let model = ModelName::parse("a").unwrap();
        let error = places.there.pull(&places.remote, ("a", 1), &model, &|_| {}).unwrap_err().to_string();
        assert!(error.contains("@1.json is damaged"), "{error}");
        assert!(places.there.list().unwrap().is_empty());
    };
    check("model.safetensors", "../../model.safetensors");
    check("model.safetensors", "/model.safetensors");
    check("\"bytes\":", "\"bytes\":1");
    check("\"sha256\":\"", "\"sha256\":\"../");
    check("\"path\":\"empty.txt\"", "\"path\":\"manifest.json\"");
}

#[test]
fn pushes_at_once_are_all_right() {
    const PUSHES: u64 = 200;
    let places = places();
    let mut network = Network::new(1);
    let versions: Vec<Version> = (0..PUSHES)
        .map(|seed| {
            network.change_layer(seed as usize % network.layers(), 1.0, seed);
            places.put("a", &network, None)
        })
        .collect();
    let numbers: Vec<u64> = std::thread::scope(|scope| {
        let places = &places;
        let push = |version| {
            // As another process has it.
            let remote = Remote::open(places.place.to_str().unwrap()).unwrap();
            scope.spawn(move || places_push(&places.here, version, &remote))
        };
        let pushes: Vec<_> = versions.iter().map(push).collect();
        pushes.into_iter().map(|push| push.join().unwrap()).collect()
    });
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len() as u64, PUSHES, "a number each");
    assert_eq!(places.remote.versions().unwrap().len() as u64, PUSHES);
    assert_eq!(places.remote.verify(&[], &|_| {}).unwrap(), []);
    assert_eq!(places.remote.collect(false).unwrap().deleted, 0);
}

fn places_push(store: &Store, version: &Version, remote: &Remote) -> u64 {
    store.push(version, remote, None, false, &|_| {}).unwrap().number
}

#[test]
fn a_remote_of_an_unknown_kind_is_refused() {
    let error = Remote::open("ftp://x/y").unwrap_err().to_string();
    assert!(error.contains("ftp://"), "{error}");
    assert!(Path::new("a").is_relative() && Remote::open("a/b").is_ok());
}

#[test]
fn rm_takes_a_tag_and_its_version_only_with_the_last_tag() {
    let places = places();
    let here = places.put("a", &Network::new(1), None);
    let tag = |text: &str| ModelName::parse(text).unwrap();
    for text in ["a:best", "a:old"] {
        places.here.push(&here, &places.remote, Some(&tag(text)), false, &|_| {}).unwrap();
    }
    let remove = |text: &str| places.remote.remove(&Reference::parse(text).unwrap());
    assert_eq!(remove("a:best").unwrap(), None, "a:old means it too");
    assert!(remove("a:best").unwrap_err().to_string().contains("only a@1"));
    assert_eq!(places.remote.tags_of("a", 1).unwrap(), ["old"]);
    assert_eq!(contents(&places.pull("a:old")), contents(&here));
    assert_eq!(remove("a:old").unwrap(), Some(1));
    assert!(places.remote.versions().unwrap().is_empty());
}

#[test]
fn what_is_damaged_is_listed_and_can_be_removed() {
    let places = places();
    for seed in [1, 2] {
        places.push(&places.put("a", &Network::new(seed), None));
    }
    std::fs::write(places.place.join("models/a/@1.json"), "nonsense").unwrap();
    std::fs::write(places.place.join("tags/a/best"), "nonsense".repeat(20)).unwrap();
    let listed = places.remote.versions().unwrap();
    let errors = listed.iter().filter_map(|(id, kept)| Some((&**id, kept.as_ref().err()?.to_string())));
    let errors: Vec<_> = errors.collect();
    assert_eq!(errors.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["a@1", "a:best"]);
    let says = format!("tureen rm a@1 --from {}", places.place.display());
    assert!(errors[0].1.contains(&says), "{errors:?}");
    let error = places.remote.collect(false).unwrap_err().to_string();
    assert!(error.contains("@1.json") && error.contains(&says), "what it needs isn't known: {error}");
    assert_eq!(places.remote.remove(&Reference::parse("a:best").unwrap()).unwrap(), None);
    assert_eq!(places.remote.remove(&version(1)).unwrap(), Some(1));
    assert!(places.remote.collect(false).unwrap().deleted > 0);
    assert_eq!(places.remote.verify(&[], &|_| {}).unwrap(), []);
    // No other name for the same number.
    let whole = std::fs::read(places.place.join("models/a/@2.json")).unwrap();
    std::fs::write(places.place.join("models/a/@002.json"), whole).unwrap();
    assert_eq!(places.remote.versions().unwrap().len(), 1);
}

#[test]
fn a_version_of_a_newer_form_is_no_damage() {
    let places = places();
    places.push(&places.put("a", &Network::new(1), None));
    std::fs::write(places.place.join("models/a/@7.json"), r#"{"schema": 99}"#).unwrap();
    let error = places.remote.look(&version(7)).unwrap_err().to_string();
    assert!(error.ends_with("use a newer tureen"), "{error}");
    assert!(places.remote.collect(false).is_err(), "nobody knows what it needs");
    assert_eq!(places.push(&places.put("a", &Network::new(2), None)).number, 2, "it stops no push");
}

#[test]
fn an_unreachable_manifest_is_not_taken_for_none() {
    let places = places();
    places.push(&places.put("a", &Network::new(1), None));
    let manifest = places.place.join("models/a/@1.json");
    std::fs::remove_file(&manifest).unwrap();
    // Reading it fails, whoever asks.
    std::fs::create_dir(&manifest).unwrap();
    std::fs::write(manifest.join("@1.json"), "").unwrap();
    let version = places.put("a", &Network::new(2), None);
    let error = places.here.push(&version, &places.remote, None, false, &|_| {});
    assert!(error.is_err(), "{error:?}");
}

#[test]
fn a_damaged_base_stops_no_push() {
    let places = places();
    let mut network = Network::new(1);
    let parent = places.put("a", &network, None);
    places.push(&parent);
    let chunks: Vec<PathBuf> = places.files().into_iter().filter(|file| file.starts_with("chunks")).collect();
    for chunk in &chunks {
        std::fs::write(places.place.join(chunk), "nonsense").unwrap();
    }
    for layer in 0..network.layers() {
        network.change_layer(layer, 0.002, layer as u64);
    }
    // From a machine that doesn't have the parent.
    let model = ModelName::parse("a").unwrap();
    let child = publish(&places.there, &model, &network, None);
    let pushed = places.there.push(&child, &places.remote, Some(&model), false, &|_| {}).unwrap();
    places.here.push(&parent, &places.remote, None, true, &|_| {}).unwrap();
    assert_eq!(places.remote.verify(&[], &|_| {}).unwrap(), []);
    let pulled = places.here.pull(&places.remote, ("a", pushed.number), &model, &|_| {}).unwrap();
    assert_eq!(contents(&pulled), contents(&child));
}

#[test]
fn again_mends_the_chunks_that_others_are_differences_from() {
    let places = places();
    let mut network = Network::new(1);
    let first = places.put("a", &network, None);
    places.push(&first);
    network.change_layer(1, 0.002, 1);
    let second = places.put("a", &network, Some(&first));
    places.push(&second);
    for file in
        places.files().iter().filter(|file| file.starts_with("chunks") || file.starts_with("differences"))
    {
        std::fs::write(places.place.join(file), "nonsense").unwrap();
    }
    // Whichever comes first: in their own form, not as differences from each other.
    for version in [&second, &first, &second] {
        places.here.push(version, &places.remote, None, true, &|_| {}).unwrap();
    }
    assert_eq!(places.remote.verify(&[], &|_| {}).unwrap(), []);
    assert_eq!(places.remote.collect(true).unwrap().deleted, 0, "nothing is there in two forms");
    assert_eq!(places.remote.look(&version(2)).unwrap().1.parent.as_deref(), Some("a@1"));
}

#[test]
fn a_parent_is_recorded_where_it_is_told_and_no_other() {
    let places = places();
    let first = places.put("a", &Network::new(1), None);
    let other = places.put("a", &Network::new(2), None);
    let parent_of = |number| places.remote.look(&version(number)).unwrap().1.parent;
    places.push(&first);
    places.push(&other);
    assert_eq!([parent_of(1), parent_of(2)], [None, None], "the newest is no parent for that");
    places.here.push(&other, &places.remote, None, true, &|_| {}).unwrap();
    assert_eq!(parent_of(2), None, "nor is the version itself");
    let child = places.put("a", &Network::new(3), Some(&first));
    places.push(&child);
    assert_eq!(parent_of(3).as_deref(), Some("a@1"));
}

#[test]
fn tensors_of_two_files_are_not_taken_for_each_other() {
    let places = places();
    let mut networks = [Network::new(1), Network::new(2)];
    let model = ModelName::parse("a").unwrap();
    let publish = |networks: &[Network; 2], parent: Option<&Version>| {
        let files =
            [("x.safetensors", networks[0].safetensors()), ("y.safetensors", networks[1].safetensors())];
        weights::publish_files(&places.here, &model, &files, parent)
    };
    let parent = publish(&networks, None);
    let first = places.push(&parent);
    for (index, network) in networks.iter_mut().enumerate() {
        for layer in 0..network.layers() {
            network.change_layer(layer, 0.002, (10 * index + layer) as u64);
        }
    }
    let child = publish(&networks, Some(&parent));
    let pushed = places.push(&child);
    assert!(pushed.sent < first.stored * 40 / 100, "{pushed:?} for a parent of {first:?}");
    assert_eq!(contents(&places.pull("a@2")), contents(&child));
}

#[test]
fn the_last_number_is_not_passed() {
    let places = places();
    places.push(&places.put("a", &Network::new(1), None));
    std::fs::write(places.place.join(format!("models/a/@{}.gone", u64::MAX)), "").unwrap();
    let other = publish(&places.there, &ModelName::parse("a").unwrap(), &Network::new(2), None);
    let error = places.there.push(&other, &places.remote, None, false, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("no number is left"), "{error}");
}

#[test]
fn files_that_a_pull_could_not_put_beside_each_other_are_not_pushed() {
    let places = places();
    let files = [("x", vec![1]), ("x.partial", vec![2])];
    let version = weights::publish_files(&places.here, &ModelName::parse("a").unwrap(), &files, None);
    let error = places.here.push(&version, &places.remote, None, false, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("can't be pushed") && error.contains("\"x\""), "{error}");
    assert!(places.remote.versions().unwrap().is_empty());
}

#[test]
fn rm_waits_for_pushes_and_pushes_for_rm() {
    let places = places();
    places.push(&places.put("a", &Network::new(1), None));
    let lock = std::fs::File::open(places.place.join("lock")).unwrap();
    lock.lock_shared().unwrap();
    let error = places.remote.remove(&version(1)).unwrap_err().to_string();
    assert!(error.contains("is in use"), "{error}");
    assert_eq!(places.remote.versions().unwrap().len(), 1);
    drop(lock);
    places.remote.remove(&version(1)).unwrap();
    std::fs::write(places.place.join("models/a/.tmpAbc"), "what a killed push left").unwrap();
    std::fs::write(places.place.join("tags/a/.tmpAbc"), "what a killed push left").unwrap();
    places.remote.collect(false).unwrap();
    let left: Vec<PathBuf> = places.files().into_iter().collect();
    assert_eq!(left, ["index/names", "lock", "models/a/@1.gone"].map(PathBuf::from));
}

#[test]
fn a_base_of_another_length_is_none() {
    let places = places();
    let mut network = Network::new(1);
    let parent = places.put("a", &network, None);
    places.push(&parent);
    network.change_layer(0, 0.002, 1);
    places.push(&places.put("a", &network, Some(&parent)));
    // A manifest that says otherwise than is so, in the form that has no hash at its end.
    let path = places.place.join("models/a/@2.json");
    let mut packed: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    packed["schema"] = 1.into();
    let other = packed["files"]["config.json"][0]["sha256"].clone();
    let chunks = packed["files"]["model.safetensors"].as_array_mut().unwrap();
    chunks
        .iter_mut()
        .filter(|chunk| chunk["base"].is_string())
        .for_each(|chunk| chunk["base"] = other.clone());
    std::fs::write(&path, packed.to_string()).unwrap();
    let second = places.here.find(&version(2)).unwrap();
    network.change_layer(0, 0.002, 2);
    let third = places.put("a", &network, second.as_ref());
    places.push(&third);
    assert_eq!(contents(&places.pull("a@3")), contents(&third));
}
