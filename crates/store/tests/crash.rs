//! kill -9 at any moment of publishing and removing: then every version is whole, and nothing is half visible.

#![allow(clippy::unwrap_used)] // clippy doesn't see that what the tests call is part of them

#[path = "place/mod.rs"]
mod place;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use place::{folder_and_store, opened_anew, tell, told};
use store::manifest::{File, Manifest, SCHEMA};
use store::{ModelName, Reference, Store, hash};

const FOLDER: &str = "STORE_CRASH_FOLDER";
const KILLS: u64 = 40;

fn put(store: &Store, model: &ModelName, contents: &str) {
    let Ok(staging) = store.stage(model) else { return };
    let mut files = Vec::new();
    for name in ["a.gguf", "b.json"] {
        let path = staging.folder.join(name);
        std::fs::write(&path, contents.repeat(1000)).unwrap();
        let (bytes, sha256) = hash::of_file(&path, |_| {}).unwrap();
        files.push(File { path: name.to_owned(), bytes, sha256, ..File::default() });
    }
    let (schema, model_name) = (SCHEMA, model.to_string());
    let manifest =
        Manifest { schema, model: model_name, entry: "a.gguf".to_owned(), files, ..Manifest::default() };
    store.publish(&staging.folder, model, manifest).unwrap();
}

/// The process that is killed: it publishes, publishes the same again, and removes, for ever.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (store, model) = (told(folder.as_ref()), ModelName::parse("a").unwrap());
    for round in 0u64.. {
        put(&store, &model, &format!("{} {round}", std::process::id()));
        if round % 3 == 1 {
            put(&store, &model, &format!("{} {round}", std::process::id()));
        }
        if round % 4 == 3 {
            store.remove(&Reference::Tag(model.clone())).unwrap();
        }
        let all = store.list().unwrap();
        if let Some((_, Ok(oldest))) = all.first().filter(|_| all.len() > 5) {
            store.remove(&Reference::Number { name: oldest.name.clone(), number: oldest.number }).unwrap();
        }
    }
}

#[test]
fn kill_9_leaves_whole_versions() {
    let Some((_folder, first)) = folder_and_store() else { return };
    let models = first.folder().to_path_buf();
    let test = format!("{}::child", module_path!());
    let test = test.split_once("::").map_or(test.as_str(), |(_, name)| name);
    let (mut highest, mut published) = (0, 0);
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--ignored"]).env(FOLDER, &models);
        tell(&first, &mut child);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Other times each: a golden ratio's multiples fill 150 ms evenly.
        std::thread::sleep(Duration::from_micros(10_000 + (kill * 92_705) % 150_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let begun = Instant::now();
        let store = opened_anew(&first);
        let versions: Vec<_> =
            store.list().unwrap().into_iter().map(|(_, version)| version.unwrap()).collect();
        for version in &versions {
            assert_eq!(store.verify(version, |_| {}).unwrap(), [], "{} after kill {kill}", version.id());
        }
        if let Some(last) = versions.last() {
            published += u64::from(last.number > highest);
            highest = highest.max(last.number);
        }
        let tagged = versions.iter().filter(|version| !version.tags.is_empty()).count();
        assert!(tagged <= 1, "latest means one version");
        // The next one goes on where the killed one stood.
        let model = ModelName::parse("a").unwrap();
        put(&store, &model, &format!("after {kill}"));
        let latest = store.find(&Reference::Tag(model)).unwrap().unwrap();
        assert!(latest.number > highest, "no number twice: {} after {highest}", latest.number);
        highest = latest.number;
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody holds a lock");
    }
    println!("{KILLS} kills, {highest} versions, {published} kills after publishing");
    assert!(published > 0, "the children must get somewhere");
}
