//! Rules over the dependency graph, as `cargo metadata` tells it: arrows between our crates, which of them may use
//! which library, licences, and versions with a known fault.

use std::collections::BTreeSet;
use std::process::Command;

use semver::{Version, VersionReq};
use serde_json::Value;

/// Our crates and those of ours that each may use. A crate that is not here fails: the map is the design.
const ARROWS: &[(&str, &[&str])] = &[
    ("kernels", &[]),
    ("formats", &["kernels"]),
    ("engine", &["formats", "kernels"]),
    ("train", &["formats", "kernels"]),
    ("compress", &["engine", "formats", "kernels", "train"]),
    ("store", &["formats", "kernels"]),
    ("serve", &["engine", "store"]),
    ("tureen", &["engine", "formats", "kernels", "serve", "store", "train"]),
];

/// Libraries that belong to one room, or to two.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("axum", &["serve"]),
    ("hyper", &["serve"]),
    ("tonic", &["serve"]),
    ("rten", &["engine"]),
    ("sqlx", &["store"]),
    ("object_store", &["store"]),
    ("ureq", &["store", "tureen"]),
    ("clap", &["tureen"]),
];

fn cargo_metadata(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .current_dir(super::repository())
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata speaks JSON")
}

fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_string()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn arrows_between_crates_are_those_of_the_design() {
    let metadata = cargo_metadata(&["--no-deps"]);
    let mut found = Vec::new();
    for package in list(&metadata["packages"]) {
        let name = text(package, "name");
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            found.push(format!("{name} is not in the map of crates"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            let to = text(dependency, "name");
            let ours = ARROWS.iter().any(|(from, _)| *from == to);
            // A test may build what it needs (a tiny model, say) with anything below it.
            let for_tests = dependency["kind"] == "dev" && reachable(name).contains(to);
            if ours && !allowed.contains(&to) && !for_tests {
                found.push(format!("{name} -> {to}"));
            }
            if let Some((_, rooms)) = ONLY_IN.iter().find(|(library, _)| *library == to)
                && !rooms.contains(&name)
            {
                found.push(format!("{name} -> {to}, which only {} may use", rooms.join(" and ")));
            }
        }
    }
    super::assert_none(found, "dependencies that the design doesn't have");
}

fn reachable(from: &str) -> BTreeSet<&'static str> {
    let direct = ARROWS.iter().find(|(name, _)| *name == from).map_or(&[][..], |(_, to)| to);
    direct.iter().flat_map(|to| reachable(to).into_iter().chain([*to])).collect()
}

fn deny_toml() -> toml::Table {
    let text = std::fs::read_to_string(super::repository().join("deny.toml")).expect("deny.toml");
    text.parse().expect("deny.toml is TOML")
}

#[test]
fn licences_sources_and_versions_are_allowed() {
    let deny = deny_toml();
    let allowed: Vec<&str> = deny["licenses"]["allow"]
        .as_array()
        .expect("licenses.allow")
        .iter()
        .filter_map(toml::Value::as_str)
        .collect();
    let banned: Vec<(String, VersionReq, String)> = deny["bans"]["deny"]
        .as_array()
        .expect("bans.deny")
        .iter()
        .map(|entry| {
            let (name, versions) = match entry["crate"].as_str().expect("crate").split_once('@') {
                Some((name, versions)) => (name, VersionReq::parse(versions).expect("a version requirement")),
                None => (entry["crate"].as_str().expect("crate"), VersionReq::STAR),
            };
            (name.to_string(), versions, entry["reason"].as_str().expect("reason").to_string())
        })
        .collect();
    let metadata = cargo_metadata(&["--filter-platform", &host()]);
    let used: BTreeSet<&str> =
        list(&metadata["resolve"]["nodes"]).iter().map(|node| text(node, "id")).collect();
    let mut found = Vec::new();
    for package in list(&metadata["packages"]).iter().filter(|package| used.contains(text(package, "id"))) {
        let name = text(package, "name");
        let version = Version::parse(text(package, "version")).expect("a version");
        let licence = text(package, "license");
        if !licence_allowed(licence, &allowed) {
            found.push(format!("{name} {version}: licence {licence:?} is not in deny.toml"));
        }
        if let Some(source) = package["source"].as_str()
            && !source.starts_with("registry+https://github.com/rust-lang/crates.io-index")
        {
            found.push(format!("{name} {version}: comes from {source}, not from crates.io"));
        }
        for (_, _, reason) in banned.iter().filter(|(b, versions, _)| b == name && versions.matches(&version))
        {
            found.push(format!("{name} {version}: {reason}"));
        }
    }
    super::assert_none(found, "dependencies that may not be used");
}

/// Whether an SPDX expression is met by licences of the list: one side of an `OR`, both of an `AND`.
fn licence_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced =
        expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "+WITH+");
    let words: Vec<String> = spaced.split_whitespace().map(|word| word.replace("+WITH+", " WITH ")).collect();
    let mut at = 0;
    let met = either(&words, &mut at, allowed);
    met && at == words.len()
}

fn either(words: &[String], at: &mut usize, allowed: &[&str]) -> bool {
    let mut met = both(words, at, allowed);
    while words.get(*at).is_some_and(|word| word == "OR") {
        *at += 1;
        met |= both(words, at, allowed);
    }
    met
}

fn both(words: &[String], at: &mut usize, allowed: &[&str]) -> bool {
    let mut met = one(words, at, allowed);
    while words.get(*at).is_some_and(|word| word == "AND") {
        *at += 1;
        met &= one(words, at, allowed);
    }
    met
}

fn one(words: &[String], at: &mut usize, allowed: &[&str]) -> bool {
    let word = words.get(*at).map_or("", String::as_str);
    *at += 1;
    if word != "(" {
        return allowed.contains(&word);
    }
    let met = either(words, at, allowed);
    let closed = words.get(*at).is_some_and(|word| word == ")");
    *at += 1;
    met && closed
}

#[test]
fn licence_expressions_are_understood() {
    fn check(expression: &str, met: bool) {
        assert_eq!(licence_allowed(expression, &["MIT", "Apache-2.0", "A WITH e"]), met, "{expression}");
    }
    check("MIT", true);
    check("GPL-3.0", false);
    check("GPL-3.0 OR MIT", true);
    check("GPL-3.0 AND MIT", false);
    check("MIT/Apache-2.0", true);
    check("(MIT OR GPL-3.0) AND Apache-2.0", true);
    check("(MIT AND GPL-3.0) OR (Apache-2.0 AND MIT)", true);
    check("A WITH e OR GPL-3.0", true);
    check("", false);
    check("(MIT", false);
}
