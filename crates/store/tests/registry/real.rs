//! A real registry: what goes there comes back, and what it keeps is what the specification says.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use store::oci::Address;
use store::{Store, Version};

use super::{noise, pull, put, store};

/// Ends with its test.
struct Registry {
    process: Child,
    at: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// `None` where there is none, which is said. `more` is put into its settings.
fn registry(folder: &Path, more: &str) -> Option<Registry> {
    let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (data, config) = (folder.join("registry"), folder.join("registry.yml"));
    let storage = format!("{{filesystem: {{rootdirectory: {data:?}}}}}");
    std::fs::write(&config, format!("version: 0.1\nstorage: {storage}\nhttp: {{addr: {at:?}}}\n{more}"))
        .unwrap();
    let mut process = Command::new("docker-registry");
    let process = process.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(process) = process else {
        eprintln!("skipped: no docker-registry here (Debian: docker-registry)");
        return None;
    };
    let begun = Instant::now();
    while std::net::TcpStream::connect(&at).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "docker-registry doesn't start");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(Registry { process, at })
}

fn push(store: &Store, version: &Version, text: &str) -> (u64, u64) {
    let told = AtomicU64::new(0);
    let tell = |count| {
        told.fetch_add(count, Ordering::Relaxed);
    };
    let sent = store.push_to_registry(version, &Address::parse(text).unwrap(), &tell).unwrap().sent;
    (sent, told.into_inner())
}

fn get(url: &str) -> Value {
    let accept = "application/vnd.oci.image.manifest.v1+json";
    let text = ureq::get(url).header("Accept", accept).call().unwrap().body_mut().read_to_string().unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_version_goes_to_a_registry_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some(registry) = registry(folder.path(), "") else { return };
    let (here, there) = (store(&folder, "here"), store(&folder, "there"));
    // More than one chunk of an upload, one that is empty, and one in a folder.
    let large = noise((40 << 20) + 17);
    let version = put(
        &here,
        "net",
        &[("net.onnx", &large), ("LICENSE", b"MIT"), ("a/config.json", b"{}"), ("empty.txt", b"")],
    );
    let to = format!("oci://{}/team/net:v1", registry.at);
    let bytes = version.manifest.bytes();
    let (sent, told) = push(&here, &version, &to);
    assert!(sent > bytes && sent < bytes + 2000, "{sent}: the files and the configuration");
    assert_eq!(told, sent);
    assert_eq!(push(&here, &version, &to).0, 0, "it has them");
    let (came, received) = pull(&there, &to).unwrap();
    assert_eq!((came.id().as_str(), received), ("net@1", bytes));
    let (was, is) = (&version.manifest, &came.manifest);
    assert!(is.has_files_of(was) && is.files.iter().all(|file| file.verified));
    assert_eq!(
        (&is.facts, &is.metrics, &is.created),
        (&was.facts, &was.metrics, &was.created),
        "nothing is lost"
    );
    assert!(is.source.starts_with(&format!("{to} (sha256:")), "{}", is.source);
    assert!(there.verify(&came, |_| {}).unwrap().is_empty());
    // To another repository of the same registry: nothing is sent but the configuration, which says the new name.
    let (sent, _) = push(&there, &came, &format!("oci://{}/other/net:v1", registry.at));
    assert!(sent < 2000, "{sent}");
    let digest = is.source.rsplit_once('(').unwrap().1.trim_end_matches(')');
    let (again, _) =
        pull(&store(&folder, "third"), &format!("oci://{}/team/net@{digest}", registry.at)).unwrap();
    assert!(again.manifest.has_files_of(was));
}

#[test]
fn what_is_kept_is_as_modelpack_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some(registry) = registry(folder.path(), "") else { return };
    let here = store(&folder, "here");
    let version = put(&here, "net", &[("net.onnx", b"weights"), ("README.md", b"read")]);
    push(&here, &version, &format!("oci://{}/net:v1", registry.at));
    let image = get(&format!("http://{}/v2/net/manifests/v1", registry.at));
    assert_eq!(image["artifactType"], "application/vnd.cncf.model.manifest.v1+json");
    assert_eq!(image["config"]["mediaType"], "application/vnd.cncf.model.config.v1+json");
    let types: Vec<&str> = image["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["mediaType"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["application/vnd.cncf.model.weight.v1.raw", "application/vnd.cncf.model.doc.v1.raw"]);
    assert_eq!(image["layers"][0]["annotations"]["org.cncf.model.filepath"], "net.onnx");
    let digest = image["config"]["digest"].as_str().unwrap();
    let config = get(&format!("http://{}/v2/net/blobs/{digest}", registry.at));
    let expected = serde_json::json!({
        "descriptor": {
            "createdAt": "2026-01-01T00:00:00Z", "name": "net", "version": "1", "family": "onnx", "licenses": ["MIT"],
        },
        "config": { "format": "onnx", "paramSize": "1.3M" },
        "modelfs": { "type": "layers", "diffIds": [image["layers"][0]["digest"], image["layers"][1]["digest"]] },
    });
    assert_eq!(config, expected);
}

#[test]
fn a_registry_may_ask_for_a_password() {
    const ROLE: &str = "STORE_TEST_REGISTRY";
    // In a process of its own, for what the environment says.
    if let Ok(text) = std::env::var(ROLE) {
        let folder = tempfile::tempdir().unwrap();
        let here = store(&folder, "here");
        let version = put(&here, "net", &[("net.onnx", b"weights")]);
        let address = Address::parse(&text).unwrap();
        match here.push_to_registry(&version, &address, &|_| {}) {
            Ok(_) => println!("\npulled {}", pull(&store(&folder, "there"), &text).unwrap().0.id()),
            Err(error) => println!("\nrefused {error}"),
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hashes = folder.path().join("htpasswd");
    // `htpasswd -nbB me hush`
    std::fs::write(&hashes, "me:$2y$05$Z/DT2d4ffIQ1/.N/idl1Z.dqT9c8BM8J3vNiCamnbMHzbhXLZpqMa\n").unwrap();
    let more = format!("auth: {{htpasswd: {{realm: here, path: {hashes:?}}}}}\n");
    let Some(registry) = registry(folder.path(), &more) else { return };
    let docker = folder.path().join("docker");
    std::fs::create_dir(&docker).unwrap();
    let check = |variables: &[(&str, &str)], expected: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "real::a_registry_may_ask_for_a_password", "--nocapture"])
            .env(ROLE, format!("oci://{}/net:v1", registry.at))
            .env("DOCKER_CONFIG", &docker)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(expected) && !text.contains("hush"), "{text}");
    };
    check(&[], "TUREEN_OCI_USER");
    check(&[("TUREEN_OCI_USER", "me"), ("TUREEN_OCI_PASSWORD", "wrong")], "the registry answered 401");
    check(&[("TUREEN_OCI_USER", "me"), ("TUREEN_OCI_PASSWORD", "hush")], "pulled net@1");
    // base64 of `me:hush`
    let file = format!(r#"{{"auths": {{"{}": {{"auth": "bWU6aHVzaA=="}}}}}}"#, registry.at);
    std::fs::write(docker.join("config.json"), file).unwrap();
    check(&[], "pulled net@1");
}
