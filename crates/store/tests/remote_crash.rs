//! kill -9 at any moment of pushing, pulling, removing and collecting: then every version that somebody was told of is
//! there and whole, and what killed processes left goes with the next `gc`.

#![allow(clippy::unwrap_used)] // clippy doesn't see that what the tests call is part of them

#[path = "remotes/weights.rs"]
mod weights;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use store::{ModelName, Reference, Remote, Store};
use weights::{Network, publish};

const FOLDER: &str = "STORE_REMOTE_CRASH_FOLDER";
/// How many are killed, where that is said.
const KILLS: &str = "STORE_KILLS";
const KILLS_DEFAULT: u32 = 40;
/// A golden ratio's multiples fill the time of some rounds evenly, and no two are alike.
const GOLDEN: f64 = 0.618_033_988_749_895;

fn remote(folder: &Path) -> Remote {
    Remote::open(folder.join("remote").to_str().unwrap()).unwrap()
}

fn version(number: u64) -> Reference {
    Reference::Number { name: "a".to_owned(), number }
}

/// The process that is killed: it pushes, pulls, removes and collects, for ever, and says what it was told.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let (here, there) = (Store::new(&folder.join("here")), Store::new(&folder.join("there")));
    let (remote, model) = (remote(folder), ModelName::parse("a").unwrap());
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let say = |what: String| { &log }.write_all(format!("{what}\n").as_bytes()).unwrap();
    let mut network = Network::new(u64::from(std::process::id()));
    for round in 0u64.. {
        network.change_layer(round as usize % network.layers(), 0.01, round);
        let version_here = publish(&here, &model, &network, None);
        let pushed = here.push(&version_here, &remote, Some(&model), false, &|_| {}).unwrap();
        say(format!("+remote {}", pushed.number));
        let pulled = there.pull(&remote, ("a", pushed.number), &model, &|_| {}).unwrap();
        say(format!("+there {}", pulled.number));
        for store in [&here, &there] {
            let all = store.list().unwrap();
            for (_, old) in all.iter().take(all.len().saturating_sub(2)) {
                let number = old.as_ref().unwrap().number;
                if store.folder() == there.folder() {
                    say(format!("-there {number}"));
                }
                store.remove(&version(number)).unwrap();
            }
        }
        let all = remote.versions().unwrap();
        if all.len() > 3 {
            let number = all[0].1.as_ref().unwrap().number;
            say(format!("-remote {number}"));
            remote.remove(&version(number)).unwrap();
            remote.collect(false).unwrap();
        }
        say("round 0".to_owned());
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lines of the log that are whole: what was said, and of which number.
fn log(folder: &Path) -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    let line = |line: &str| {
        let (what, number) = line.split_once(' ')?;
        Some((what.to_owned(), number.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Numbers that were said to be there, and never that they were about to go.
fn promised(log: &[(String, u64)], place: &str) -> BTreeSet<u64> {
    let all = |sign: &str| -> BTreeSet<u64> {
        let what = format!("{sign}{place}");
        log.iter().filter(|(said, _)| *said == what).map(|(_, number)| *number).collect()
    };
    all("+").difference(&all("-")).copied().collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// Nothing is in the remote after a `gc` but what versions need.
fn check_collected(folder: &Path, remote: &Remote) {
    remote.collect(false).unwrap();
    let left = remote.collect(true).unwrap();
    assert_eq!(left.deleted, 0, "nothing of killed pushes survives: {left:?}");
    let all = files(&folder.join("remote"));
    let is_in = |path: &&PathBuf, top: &str| path.starts_with(folder.join("remote").join(top));
    let chunks = all.iter().filter(|path| is_in(path, "chunks") || is_in(path, "differences"));
    assert_eq!(chunks.count() as u64, left.kept);
    let temporary = all.iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with('.'));
    assert_eq!(temporary, None);
}

#[test]
fn kill_9_leaves_whole_versions_in_the_remote() {
    let kills = std::env::var(KILLS).map_or(KILLS_DEFAULT, |count| count.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (remote, there) = (remote(folder), Store::new(&folder.join("there")));
    // What some rounds take on this machine, as busy as it is.
    let begun = Instant::now();
    let mut first = start(folder);
    while log(folder).iter().filter(|(what, _)| what == "round").count() < 6 {
        assert!(first.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(2));
    }
    let span = begun.elapsed();
    first.kill().unwrap();
    first.wait().unwrap();
    for kill in 0..kills {
        let mut child = start(folder);
        std::thread::sleep(span.mul_f64((f64::from(kill) * GOLDEN).fract()));
        child.kill().unwrap();
        child.wait().unwrap();
        let begun = Instant::now();
        assert_eq!(remote.verify(&[], &|_| {}).unwrap(), [], "after kill {kill}");
        let mut kept = BTreeSet::new();
        for (label, version) in remote.versions().unwrap() {
            kept.insert(version.unwrap_or_else(|error| panic!("{label}: {error}")).number);
        }
        let mut pulled = BTreeSet::new();
        for (label, version) in there.list().unwrap() {
            let version = version.unwrap();
            assert_eq!(there.verify(&version, |_| {}).unwrap(), [], "{label} after kill {kill}");
            pulled.insert(version.number);
        }
        let log = log(folder);
        for (place, found) in [("remote", &kept), ("there", &pulled)] {
            let lost: Vec<u64> = promised(&log, place).difference(found).copied().collect();
            assert_eq!(lost, [0; 0], "lost in {place} after kill {kill}");
        }
        if kill % 2 == 1 {
            check_collected(folder, &remote);
            assert_eq!(remote.verify(&[], &|_| {}).unwrap(), [], "after collecting");
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody holds a lock");
    }
    let log = log(folder);
    let rounds = log.iter().filter(|(what, _)| what == "round").count();
    println!("{kills} kills within {span:?}, {rounds} rounds");
    assert!(rounds > 6, "the children must get somewhere");
}
