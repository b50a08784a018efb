//! Holds what ARCHITECTURE.md says about the whole repository: arrows between crates, where `unsafe` may be, sizes,
//! doc lines, scripts of goldens, licences and known bad versions. Needs no network.

#![allow(clippy::expect_used)] // clippy doesn't see that what the tests call is part of them

#[path = "tidy/dependencies.rs"]
mod dependencies;
#[path = "tidy/source.rs"]
mod source;

use std::path::{Path, PathBuf};

use source::Source;

/// Lines of a source file, tests included.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Files and functions over the limit, as `path` or `path function`, with the lines they have. Entries may only
/// shrink or go: one that is smaller now, or gone, fails until its number follows.
const EXCEPTIONS: &[(&str, usize)] = &[];

/// File names that collect what has no place.
const FILE_NAMES_REFUSED: [&str; 6] =
    ["utils.rs", "util.rs", "common.rs", "helpers.rs", "helper.rs", "misc.rs"];

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("crates/tureen is two folders down").to_path_buf()
}

/// Every file of the repository that a person wrote, as a path relative to its top.
fn files() -> Vec<PathBuf> {
    // A work tree of git has a file `.git` that says where the repository is.
    const SKIPPED: [&str; 6] = ["target", "node_modules", ".git", ".cache", "__pycache__", "corpus"];
    let top = repository();
    let mut folders = vec![top.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let entry = entry.expect("a readable entry");
            let name = entry.file_name();
            let kind = entry.file_type().expect("a file type");
            if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
                folders.push(entry.path());
            } else if kind.is_file() && name != ".git" {
                files.push(entry.path().strip_prefix(&top).expect("inside").to_path_buf());
            }
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<(String, Source)> {
    let top = repository();
    let rust = files().into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "rs"));
    rust.map(|path| {
        let text = std::fs::read_to_string(top.join(&path)).expect("UTF-8 source");
        (path.to_string_lossy().into_owned(), Source::read(&text))
    })
    .collect()
}

fn assert_none(found: Vec<String>, rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn unsafe_code_is_only_in_kernels() {
    let found = sources().into_iter().filter(|(path, _)| !path.starts_with("crates/kernels/"));
    let found = found.filter(|(_, source)| source.has_word("unsafe")).map(|(path, _)| path);
    assert_none(found.collect(), "`unsafe` stands outside crates/kernels");
}

#[test]
fn every_source_file_says_why_it_exists() {
    let found = sources().into_iter().filter(|(_, source)| !source.starts_with_module_doc);
    assert_none(found.map(|(path, _)| path).collect(), "no `//!` line at the top");
}

#[test]
fn no_file_is_named_for_leftovers() {
    let refused = |path: &PathBuf| FILE_NAMES_REFUSED.iter().any(|name| path.ends_with(name));
    let found = files().into_iter().filter(refused).map(|path| path.display().to_string());
    assert_none(found.collect(), "name the file for what it does");
}

#[test]
fn files_and_functions_are_small() {
    let mut sizes = Vec::new();
    for (path, source) in sources() {
        for function in &source.functions {
            let name = format!("{path} {}", function.name);
            sizes.push((name, function.lines, FUNCTION_LINES_MAX));
        }
        sizes.push((path, source.lines, FILE_LINES_MAX));
    }
    let mut found = Vec::new();
    for (name, lines, lines_max) in &sizes {
        let excepted = EXCEPTIONS.iter().find(|(exception, _)| exception == name);
        let allowed = excepted.map_or(*lines_max, |(_, lines)| *lines);
        if *lines > allowed {
            found.push(format!("{name}: {lines} lines, {allowed} at most"));
        }
    }
    for (exception, recorded) in EXCEPTIONS {
        let largest = sizes.iter().filter(|(name, _, _)| name == exception).map(|(_, lines, _)| *lines).max();
        match largest {
            Some(lines) if lines == *recorded => {}
            Some(lines) if lines > *recorded => {}
            _ => found.push(format!("{exception} has {largest:?} lines now: shrink or drop its exception")),
        }
    }
    assert_none(found, "too large (split by area), or an exception out of date");
}

/// A folder of goldens, or a folder in `fixtures/`, holds the script that made its files, or the folder above does.
#[test]
fn every_golden_has_its_script() {
    let top = repository();
    let is_script =
        |path: &Path| path.extension().is_some_and(|ext| ["py", "sh", "mjs"].iter().any(|s| ext == *s));
    let has_script = |folder: &Path| {
        std::fs::read_dir(top.join(folder))
            .is_ok_and(|entries| entries.flatten().any(|entry| is_script(&entry.path())))
    };
    let mut folders: Vec<PathBuf> = files()
        .iter()
        .filter_map(|path| path.parent().map(Path::to_path_buf))
        .filter(|folder| {
            let named = |name: &str| folder.components().any(|part| part.as_os_str() == name);
            named("golden") || named("goldens") || named("fixtures")
        })
        .collect();
    folders.dedup();
    let orphan = |folder: &PathBuf| !folder.ancestors().take(3).any(has_script);
    let found = folders.into_iter().filter(orphan).map(|folder| folder.display().to_string());
    assert_none(found.collect(), "goldens without the script that made them");
}

/// Paths of somebody's machine say that a file was made for one place only.
#[test]
fn no_file_names_a_path_of_one_machine() {
    let top = repository();
    // Written in two parts so that this file doesn't hold what it looks for.
    let refused =
        [("/ho", "me/"), ("/ro", "ot/"), ("/Us", "ers/"), ("/wo", "rk/"), ("/tmp", "/wt"), (".lib", "rary")];
    let mut found = Vec::new();
    for path in files() {
        let Ok(text) = std::fs::read_to_string(top.join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for (left, right) in refused {
                if line.contains(&[left, right].concat()) {
                    found.push(format!("{}:{}: {left}{right}", path.display(), number + 1));
                }
            }
        }
    }
    assert_none(found, "paths of one machine");
}
