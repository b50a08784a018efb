//! kill -9 at any moment of pushing, pulling, removing and collecting: then every version that is in sight is whole,
//! and what killed processes left goes with the next `gc`.

#![allow(clippy::unwrap_used)] // clippy doesn't see that what the tests call is part of them

#[path = "remotes/weights.rs"]
mod weights;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use store::{ModelName, Reference, Remote, Store};
use weights::{Network, publish};

const FOLDER: &str = "STORE_REMOTE_CRASH_FOLDER";
const KILLS: u64 = 60;

fn remote(folder: &Path) -> Remote {
    Remote::open(folder.join("remote").to_str().unwrap()).unwrap()
}

/// The process that is killed: it pushes, pulls, removes and collects, for ever.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let (here, there) = (Store::new(&folder.join("here")), Store::new(&folder.join("there")));
    let (remote, model) = (remote(folder), ModelName::parse("a").unwrap());
    let mut network = Network::new(u64::from(std::process::id()));
    for round in 0u64.. {
        network.change_layer(round as usize % network.layers(), 0.01, round);
        let version = publish(&here, &model, &network, None);
        let pushed = here.push(&version, &remote, Some(&model), false, &|_| {}).unwrap();
        there.pull(&remote, ("a", pushed.number), &model, &|_| {}).unwrap();
        for store in [&here, &there] {
            let all = store.list().unwrap();
            for (_, version) in all.iter().take(all.len().saturating_sub(2)) {
                let number = version.as_ref().unwrap().number;
                store.remove(&Reference::Number { name: "a".to_owned(), number }).unwrap();
            }
        }
        let all = remote.versions().unwrap();
        if all.len() > 3 {
            remote.remove("a", all[0].1.as_ref().unwrap().number).unwrap();
            remote.collect(false).unwrap();
        }
    }
}

#[test]
fn kill_9_leaves_whole_versions_in_the_remote() {
    let folder = tempfile::tempdir().unwrap();
    let (remote, there) = (remote(folder.path()), Store::new(&folder.path().join("there")));
    let mut highest = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Other times each: a golden ratio's multiples fill 400 ms evenly.
        std::thread::sleep(Duration::from_micros(20_000 + (kill * 247_214) % 400_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let begun = Instant::now();
        assert_eq!(remote.verify(&[], &|_| {}).unwrap(), [], "after kill {kill}");
        for (label, version) in there.list().unwrap() {
            assert_eq!(there.verify(&version.unwrap(), |_| {}).unwrap(), [], "{label} after kill {kill}");
        }
        let all = remote.versions().unwrap();
        if let Some((_, last)) = all.last() {
            highest = highest.max(last.as_ref().unwrap().number);
        }
        if kill % 5 == 4 {
            remote.collect(false).unwrap();
            let left = remote.collect(true).unwrap();
            assert_eq!(left.deleted, 0, "nothing of killed pushes survives: {left:?}");
            assert_eq!(remote.verify(&[], &|_| {}).unwrap(), [], "after collecting");
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody holds a lock");
    }
    println!("{KILLS} kills, {highest} versions");
    assert!(highest > 0, "the children must get somewhere");
}
