//! kill -9 of compressions at any moment, jobs and commands: then every version that was there is there and whole, a job
//! that is resumed makes one version, and nothing is left over.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use store::{Job, ModelName, State, Store};

/// How many are killed, where that is said.
const KILLS: &str = "STORE_KILLS";
const KILLS_DEFAULT: u32 = 12;
/// A golden ratio's multiples fill the time of some rounds evenly, and no two are alike.
const GOLDEN: f64 = 0.618_033_988_749_895;

const NETWORK: &str = "\
[model]
input = [8]
layers = [{ class = \"Dense\", units = 48, activation = \"relu\" }, { class = \"Dense\", units = 1 }]
[data]
path = \"points.csv\"
y = \"y\"
[compile]
loss = \"mse\"
[fit]
epochs = 1
";

struct Machine {
    folder: tempfile::TempDir,
    store: Store,
    /// Ids of `text.txt`, `points.csv` and `net.toml`.
    uploads: Vec<(String, String)>,
}

impl Machine {
    fn new() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let text: String = (0..400).map(|i| format!("{i} and {} make {}. ", i * 7, 8 * i)).collect();
        let names: Vec<String> = (0..8).map(|i| format!("x{i}")).collect();
        let mut csv = names.join(",") + ",y\n";
        for row in 0..400 {
            let value = |i: i32| f64::from((row * 7919 + i * 104_729) % 101 - 50) / 50.0;
            let values: Vec<String> = (0..8).map(|i| value(i).to_string()).collect();
            csv += &format!("{},{}\n", values.join(","), value(1) * value(2) - value(3));
        }
        let store = Store::new(&folder.path().join("models"));
        let mut uploads = vec![];
        for (name, contents) in [("text.txt", &text), ("points.csv", &csv), ("net.toml", &NETWORK.to_owned())]
        {
            std::fs::write(folder.path().join(name), contents).unwrap();
            let mut receiving = store.receive(1 << 20, 1 << 20).unwrap();
            receiving.write(contents.as_bytes()).unwrap();
            uploads.push((name.to_owned(), store.keep(receiving, name, "compress").unwrap().id));
        }
        let machine = Machine { folder, store, uploads };
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders/llama/model.gguf");
        machine.finish(&["pull", model.to_str().unwrap(), "--as", "tiny"]);
        machine.finish(&["train", "net.toml", "--publish", "net"]);
        machine
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tureen"));
        let models = self.folder.path().join("models");
        command.current_dir(&self.folder).env("TUREEN_MODELS", models).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn finish(&self, arguments: &[&str]) {
        assert!(self.command(arguments).status().unwrap().success(), "{arguments:?}");
    }

    /// Kills it after that time, if it still works.
    fn kill(&self, arguments: &[&str], after: Duration) {
        let mut child = self.command(arguments).spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn begin(&self, name: &str, request: &str) -> Job {
        let model = ModelName::parse(name).unwrap();
        self.store.create_job("compress", &model, request, &self.uploads).unwrap()
    }

    /// All versions, which are whole, with the jobs that made some.
    fn versions(&self) -> BTreeSet<(String, Option<String>)> {
        let all = self.store.list().unwrap().into_iter().map(|(_, version)| version.unwrap());
        let whole = all.map(|version| {
            assert_eq!(self.store.verify(&version, |_| {}).unwrap(), [], "{}", version.id());
            (version.id(), version.manifest.job)
        });
        whole.collect()
    }

    /// What lies in the store's own folders and is of no use any more.
    fn left_over(&self) -> Vec<PathBuf> {
        let models = self.folder.path().join("models");
        let entries = |folder: &str| std::fs::read_dir(models.join(folder)).into_iter().flatten();
        let partial = entries(".partial").map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
        let jobs = entries(".store/jobs").map(|entry| entry.unwrap().path());
        let mut left: Vec<PathBuf> = partial.chain(jobs).collect();
        let versions: BTreeSet<String> = self.versions().into_iter().map(|(id, _)| id).collect();
        for model in ["tiny", "net", "small", "thin"] {
            let folders = entries(model).map(|entry| entry.unwrap().path());
            left.extend(folders.filter(|path| {
                let number = path.file_name().unwrap().to_str().unwrap();
                !versions.contains(&format!("{model}{number}"))
            }));
        }
        left
    }
}

/// What is killed: a job, killed and resumed until it is done, or the command.
const TEXTS: (&str, &str) =
    ("small:q4_0", "source = 'tiny@1'\nto = 'Q4_0'\ncalibration = 'text.txt'\nmeasure = 'text.txt'\n");
const NETWORKS: (&str, &str) =
    ("thin", "source = 'net@1'\nto = 'fewer-units'\ndefinition = 'net.toml'\nepochs = 300\n");
const COMMAND: [&str; 6] = ["compress", "tiny", "--to", "q8_0", "--as", "small:q8_0"];

#[test]
fn kill_9_leaves_whole_versions_and_jobs_that_go_on() {
    let machine = Machine::new();
    let kills = std::env::var(KILLS).map_or(KILLS_DEFAULT, |kills| kills.parse().unwrap());
    let mut jobs: [Option<Job>; 2] = [None, None];
    let (mut made, mut seen) = ([0; 3], BTreeSet::new());
    let mut whole = [Duration::ZERO; 3];
    for (at, (name, request)) in [TEXTS, NETWORKS].iter().enumerate() {
        let began = Instant::now();
        let job = machine.begin(name, request);
        machine.finish(&["job", &job.id]);
        whole[at] = began.elapsed();
    }
    let began = Instant::now();
    machine.finish(&COMMAND);
    whole[2] = began.elapsed();
    for kill in 0..kills {
        let at = (kill % 3) as usize;
        let before = machine.versions();
        let after = whole[at].mul_f64(1.1 * (f64::from(kill) * GOLDEN).fract());
        if at == 2 {
            machine.kill(&COMMAND, after);
        } else {
            let (name, request) = [TEXTS, NETWORKS][at];
            let job = jobs[at].take().unwrap_or_else(|| machine.begin(name, request));
            machine.kill(&["job", &job.id], after);
            machine.store.reap_jobs().unwrap();
            let mut now = machine.store.job(&job.id).unwrap().unwrap();
            // Without a pid it had not yet begun, and is given as long as a start may take.
            assert!(matches!(now.state, State::Queued | State::Interrupted | State::Done), "{now:?}");
            if now.state == State::Interrupted {
                now = machine.store.resume_job(&job.id).unwrap();
            }
            jobs[at] = Some(now).filter(|job| job.state != State::Done);
        }
        let versions = machine.versions();
        assert!(versions.is_superset(&before), "one is lost of {before:?}: {versions:?}");
        made[at] += versions.len() - before.len();
        for (_, job) in versions.difference(&before) {
            assert!(job.is_none() || seen.insert(job.clone()), "a job makes one version");
        }
    }
    // A process that was killed between its version and its end finds that version.
    for job in jobs.into_iter().flatten() {
        machine.finish(&["job", &job.id]);
    }
    machine.finish(&COMMAND);
    let all = machine.store.jobs().unwrap();
    for job in &all {
        let number = job.version.unwrap();
        let made = machine.versions().into_iter().filter(|(_, by)| by.as_deref() == Some(&job.id));
        assert_eq!(made.map(|(id, _)| id).collect::<Vec<_>>(), [format!("{}@{number}", job.model.name())]);
        machine.store.delete_job(&job.id).unwrap();
    }
    assert_eq!(machine.left_over(), [] as [PathBuf; 0]);
    println!(
        "{kills} kills, {made:?} of them after publishing, {} jobs done; whole runs took {whole:?}",
        all.len()
    );
}
