//! Packed weights that are kept on disk: the same bits from there, and nothing that is damaged is ever used.

#![allow(clippy::expect_used)] // a fixture that is not there fails the test

use std::path::{Path, PathBuf};

use engine::llm::request::{Event, GenerateRequest, Sampling};
use engine::llm::{Llm, PackedFolder, Settings};
use kernels::compute::Isa;

fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(family)
}

fn settings(folder: Option<&Path>) -> Settings {
    let packed = folder.map(|path| PackedFolder { path: path.to_owned(), bytes_max: 1 << 30 });
    Settings { threads: 1, memory_max_bytes: Some(1 << 28), packed, ..Settings::default() }
}

fn load(family: &str, settings: &Settings) -> Llm {
    Llm::load(&fixture(family), settings, &mut |_, _| {}).expect("loaded")
}

/// The log-probabilities of an answer and of its prompt, as bits.
fn answer(llm: &Llm) -> Vec<u32> {
    let mut generation = llm
        .submit(GenerateRequest {
            prompt: (3..40).collect(),
            tokens_max: 20,
            sampling: Sampling { seed: Some(5), ..Sampling::default() },
            stop: Vec::new(),
            logprobs: Some(1),
            prompt_logprobs: true,
            ignore_end: true,
        })
        .expect("taken");
    let mut bits = Vec::new();
    while let Some(event) = generation.blocking_next() {
        match event {
            Event::Prompt(entries) => bits.extend(entries.iter().map(|entry| entry.logprob.to_bits())),
            Event::Token(token) => bits.push(token.logprob.expect("asked for").logprob.to_bits()),
            Event::Failed(reason) => panic!("{reason}"),
            Event::Done { .. } => {}
        }
    }
    bits
}

/// The files in the folder, in order.
fn kept(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).map(|entries| entries.map(|entry| entry.expect("entry").path()));
    let mut files: Vec<PathBuf> = entries.map(Iterator::collect).unwrap_or_default();
    files.sort();
    files
}

#[test]
fn what_was_packed_before_gives_the_same_bits() {
    for family in ["llama", "llama-llama3", "qwen3-moe", "gemma3"] {
        for isa in Isa::available() {
            let folder = tempfile::tempdir().expect("a folder");
            let expected = answer(&load(family, &Settings { isa, ..settings(None) }));
            let settings = Settings { isa, ..settings(Some(folder.path())) };
            for start in ["first", "second"] {
                let llm = load(family, &settings);
                assert_eq!(answer(&llm), expected, "{family} on {isa}, {start} start");
                assert_eq!(llm.facts().packed_troubles, Vec::<String>::new());
                assert_eq!(kept(folder.path()).len(), 1, "{family} on {isa}, {start} start");
            }
        }
    }
}

#[test]
fn the_second_start_reads_the_file_and_leaves_it_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let packed_now = load("llama", &settings(Some(folder.path()))).facts().memory;
    let [file] = &kept(folder.path())[..] else { panic!("one file is kept") };
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&path.metadata().expect("is there"));
    let before = inode(file);
    let llm = load("llama", &settings(Some(folder.path())));
    assert_eq!(inode(file), before, "it was not written again");
    // The system calls memory free that is mapped from a file; other models must not be planned into it.
    let mapped = llm.facts().memory;
    assert_eq!((packed_now.mapped_bytes, mapped.weights_bytes), (0, packed_now.weights_bytes));
    assert_eq!(mapped.promised_bytes() - packed_now.promised_bytes(), mapped.mapped_bytes);
    assert!(mapped.mapped_bytes > 0 && mapped.mapped_bytes <= mapped.weights_bytes);
    // Whoever deletes it takes nothing from those that have mapped it.
    let expected = answer(&llm);
    std::fs::remove_file(file).expect("removed");
    assert_eq!(answer(&llm), expected);
}

#[test]
fn what_is_damaged_is_said_and_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let expected = answer(&load("llama", &settings(Some(folder.path()))));
    let [file] = &kept(folder.path())[..] else { panic!("one file is kept") };
    let whole = std::fs::read(file).expect("read");
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let longer = [&whole[..], &[0; 64]].concat();
    let damages = [
        Vec::new(),
        whole[..100].to_vec(),
        whole[..whole.len() - 64].to_vec(),
        longer,
        flipped(0),
        flipped(8),
        flipped(32),
        flipped(4096),
        flipped(4096 + 64),
        flipped(whole.len() - 1),
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        std::fs::write(file, damage).expect("written");
        let llm = load("llama", &settings(Some(folder.path())));
        let [trouble] = &llm.facts().packed_troubles[..] else { panic!("damage {index} is not said") };
        assert!(trouble.contains("is damaged"), "{trouble}");
        assert_eq!(answer(&llm), expected, "damage {index}");
        assert!(std::fs::read(file).expect("read") == whole, "damage {index} is mended");
    }
    assert_eq!(kept(folder.path()).len(), 1, "nothing else is left");
}

#[test]
fn a_folder_that_can_not_be_used_and_too_little_room_are_said_and_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").expect("written");
    let expected = answer(&load("llama", &settings(None)));
    let small = PackedFolder { path: folder.path().join("small"), bytes_max: 1000 };
    let none = PackedFolder { path: file.join("below"), bytes_max: 1 << 30 };
    for (packed, said) in [(small.clone(), "raise packed_max"), (none, "ot a directory")] {
        let llm = load("llama", &Settings { packed: Some(packed), ..settings(None) });
        let troubles = &llm.facts().packed_troubles;
        assert!(troubles.iter().any(|trouble| trouble.contains(said)), "{troubles:?}");
        assert_eq!(answer(&llm), expected);
    }
    assert_eq!(kept(&small.path), Vec::<PathBuf>::new());
}

#[test]
fn other_files_of_the_folder_and_what_is_written_there_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    load("llama", &settings(Some(folder.path())));
    let [packed] = &kept(folder.path())[..] else { panic!("one file is kept") };
    let most = packed.metadata().expect("is there").len() * 3 / 2;
    let others = ["notes.txt", "model.gguf", "1-2.partial"].map(|name| folder.path().join(name));
    others.iter().for_each(|other| std::fs::write(other, [0; 5000]).expect("written"));
    let packed_settings = Some(PackedFolder { path: folder.path().to_owned(), bytes_max: most });
    load("llama-linear", &Settings { packed: packed_settings, ..settings(None) });
    let left = kept(folder.path());
    assert!(!left.contains(packed) && left.len() == 4, "{left:?}");
    assert!(others.iter().all(|other| left.contains(other)), "{left:?}");
}

#[test]
fn what_was_not_used_for_longest_makes_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = |bytes_max| {
        let packed = Some(PackedFolder { path: folder.path().to_owned(), bytes_max });
        Settings { packed, ..settings(None) }
    };
    load("llama", &settings(1 << 30));
    let first = kept(folder.path());
    load("llama-linear", &settings(1 << 30));
    let both = kept(folder.path());
    let second: Vec<&PathBuf> = both.iter().filter(|file| !first.contains(file)).collect();
    let bytes = |path: &Path| path.metadata().expect("is there").len();
    let [hour_ago, two_hours_ago] =
        [3600, 7200].map(|ago| std::time::SystemTime::now() - std::time::Duration::from_secs(ago));
    std::fs::File::open(second[0]).and_then(|file| file.set_modified(hour_ago)).expect("set");
    // One that is used counts as new, whenever it was written.
    std::fs::File::open(&first[0]).and_then(|file| file.set_modified(two_hours_ago)).expect("set");
    load("llama", &settings(1 << 30));
    // Too little for three, and enough for one beside the room that is made for another before its size is known.
    load("llama-yarn", &settings(bytes(&first[0]) + bytes(second[0]) * 5 / 4));
    let left = kept(folder.path());
    assert!(left.contains(&first[0]) && !left.contains(second[0]), "{left:?}");
}

#[test]
fn a_draft_model_is_kept_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { draft_model: Some(fixture("qwen3")), ..settings(Some(folder.path())) };
    let expected = answer(&load("llama", &settings));
    assert_eq!(kept(folder.path()).len(), 2);
    assert_eq!(answer(&load("llama", &settings)), expected);
}

const ROLE: &str = "TUREEN_TEST_OF_PACKED_WEIGHTS";

/// Not a test by itself: what the test below runs as processes of their own.
#[test]
#[ignore = "run by processes_that_start_together_find_a_whole_file_or_none"]
fn one_of_several_processes() {
    let Some(folder) = std::env::var_os(ROLE) else { return };
    let llm = load("llama-llama3", &settings(Some(Path::new(&folder))));
    assert_eq!(llm.facts().packed_troubles, Vec::<String>::new());
    assert_eq!(answer(&llm), answer(&load("llama-llama3", &settings(None))));
}

#[test]
fn processes_that_start_together_find_a_whole_file_or_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |_| {
        std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "one_of_several_processes", "--ignored"])
            .env(ROLE, folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("started")
    };
    for _ in 0..3 {
        let mut processes: Vec<_> = (0..4).map(start).collect();
        for process in &mut processes {
            assert!(process.wait().expect("ended").success());
        }
        let files = kept(folder.path());
        assert_eq!(files.len(), 1, "{files:?}");
        std::fs::remove_file(&files[0]).expect("removed");
    }
}
