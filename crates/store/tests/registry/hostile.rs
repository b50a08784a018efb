//! Registries that lie: each is refused with a reason, nothing is kept under a wrong hash, and none makes us read or wait
//! without end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use store::oci::{Address, Registered};
use store::{ModelName, Store};

use super::{describe, pull, put, store};

/// What a request gets: a status, headers, and a body as it is sent, whatever its length says.
type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// A server that answers each request by `answer`, which gets its first line and its headers.
fn serve(answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            // The client may hang up in the middle.
            std::thread::spawn(move || one(stream, &*answer));
        }
    });
    at
}

fn one(mut stream: TcpStream, answer: &dyn Fn(&str, &str) -> Answer) -> Option<()> {
    let mut request = Vec::new();
    let mut byte = [0; 1];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let (line, headers) = text.split_once("\r\n")?;
    let (status, more, body) = answer(line, &headers.to_ascii_lowercase());
    let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    if !more.iter().any(|(name, _)| *name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in more {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if !line.starts_with("HEAD") {
        stream.write_all(&body).ok()?;
    }
    Some(())
}

fn sha256(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    std::fs::write(&path, bytes).unwrap();
    format!("sha256:{}", store::hash::of_file(&path, |_| {}).unwrap().1)
}

fn layer(path: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": "application/vnd.cncf.model.weight.v1.raw", "digest": sha256(bytes), "size": bytes.len(),
        "annotations": { "org.cncf.model.filepath": path },
    })
}

fn image(layers: &[Value]) -> Value {
    json!({
        "schemaVersion": 2, "artifactType": "application/vnd.cncf.model.manifest.v1+json",
        "config": { "mediaType": "application/vnd.cncf.model.config.v1+json", "digest": sha256(b"{}"), "size": 2 },
        "layers": layers,
    })
}

/// One that has `image`, and gives `blob` for each layer.
fn with(image: &Value, blob: Answer) -> String {
    let image = image.to_string().into_bytes();
    let blob = Mutex::new(blob);
    serve(move |line, _| {
        if line.contains("/manifests/") {
            (200, Vec::new(), image.clone())
        } else {
            blob.lock().unwrap().clone()
        }
    })
}

fn refused(at: &str, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder, "models");
    let error = pull(&store, &format!("oci://{at}/net:v1")).err().unwrap().to_string();
    assert!(error.contains(expected), "{error}\nexpected: {expected}");
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn manifests_are_what_they_say_or_refused() {
    let is = |body: Vec<u8>, headers: Vec<(&'static str, String)>| {
        serve(move |_, _| (200, headers.clone(), body.clone()))
    };
    refused(&is(vec![b' '; 5 << 20], Vec::new()), "more than 4194304 bytes");
    refused(&is(b"{".to_vec(), Vec::new()), "its manifest can't be read");
    refused(&is("[".repeat(100_000).into_bytes(), Vec::new()), "its manifest can't be read");
    let wrong = vec![("Docker-Content-Digest", sha256(b"another"))];
    refused(&is(image(&[]).to_string().into_bytes(), wrong), "its manifest is to be sha256:");
    let mut other = image(&[layer("a", b"a")]);
    other["artifactType"] = Value::Null;
    other["config"]["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    refused(&is(other.to_string().into_bytes(), Vec::new()), "it is no model");
    refused(&is(image(&[]).to_string().into_bytes(), Vec::new()), "it has no layers");
    // Under a digest, whatever the header says.
    let at = is(image(&[]).to_string().into_bytes(), Vec::new());
    let address = Address::parse(&format!("oci://{at}/net@{}", sha256(b"another"))).unwrap();
    assert!(Registered::find(&address).err().unwrap().to_string().contains("is to be"));
}

#[test]
fn layers_name_files_of_their_own() {
    let blob = || (200, Vec::new(), b"a".to_vec());
    for path in ["../a", "/a", "a/../../b", "manifest.json", "a.partial", ".archives/a", ""] {
        refused(&with(&image(&[layer(path, b"a")]), blob()), "names no file that may be written");
    }
    refused(&with(&image(&[layer("a", b"a"), layer("a", b"b")]), blob()), "are the same file");
    let mut odd = layer("a", b"a");
    odd["mediaType"] = json!("application/vnd.cncf.model.weight.v1.tar+zstd");
    refused(&with(&image(&[odd.clone()]), blob()), "can't be read: raw, tar and tar+gzip can");
    odd["mediaType"] = json!("application/vnd.cncf.model.weight.v1.raw");
    odd["digest"] = json!("sha256:../../../etc/passwd");
    refused(&with(&image(&[odd]), blob()), "no digest of sha256");
}

#[test]
fn blobs_are_what_they_are_called_or_refused() {
    let model = image(&[layer("net.onnx", b"weights")]);
    refused(&with(&model, (200, Vec::new(), b"WEIGHTS".to_vec())), "isn't sha256:");
    refused(
        &with(
            &model,
            (404, Vec::new(), br#"{"errors": [{"code": "BLOB_UNKNOWN", "message": "gone"}]}"#.to_vec()),
        ),
        "the registry answered 404: BLOB_UNKNOWN gone",
    );
    // Longer than it says, and without an end that anybody says.
    let endless = vec![b'x'; 8 << 20];
    refused(&with(&model, (200, Vec::new(), endless.clone())), "sends more than the 7 bytes");
    let unsaid = vec![("Content-Length", "999999999999".to_owned())];
    refused(&with(&model, (200, unsaid, endless)), "sends more than the 7 bytes");
}

#[test]
fn redirects_end_and_keep_tls() {
    let to = |location: &str| vec![("Location", location.to_owned())];
    let model = image(&[layer("net.onnx", b"weights")]);
    refused(&with(&model, (307, to("/v2/net/blobs/again"), Vec::new())), "more than 5 redirects");
    for location in ["file:///etc/passwd", "//evil", "gopher://x"] {
        refused(&with(&model, (302, to(location), Vec::new())), "the registry sends us to");
    }
}

#[test]
fn a_password_goes_to_the_registry_alone() {
    // Blobs are elsewhere, where nobody is to learn who we are.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let known = seen.clone();
    let elsewhere = serve(move |_, headers| {
        known.lock().unwrap().push(headers.contains("authorization:"));
        (200, Vec::new(), b"weights".to_vec())
    });
    let manifest = image(&[layer("net.onnx", b"weights")]).to_string().into_bytes();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let known = asked.clone();
    let own = Arc::new(Mutex::new(String::new()));
    let realm = own.clone();
    let at = serve(move |line, headers| {
        if line.contains("/token") {
            known.lock().unwrap().push(line.to_owned());
            return (200, Vec::new(), br#"{"access_token": "ticket"}"#.to_vec());
        }
        if !headers.contains("authorization: bearer ticket") {
            let text =
                format!("Bearer realm=\"http://{}/token\",service=\"of tests\"", realm.lock().unwrap());
            return (401, vec![("WWW-Authenticate", text)], Vec::new());
        }
        if line.contains("/manifests/") {
            return (200, Vec::new(), manifest.clone());
        }
        (307, vec![("Location", format!("http://{elsewhere}/blob"))], Vec::new())
    });
    own.lock().unwrap().clone_from(&at);
    let folder = tempfile::tempdir().unwrap();
    let (version, _) = pull(&store(&folder, "models"), &format!("oci://{at}/net:v1")).unwrap();
    assert_eq!(version.id(), "net@1");
    assert_eq!(*seen.lock().unwrap(), [false]);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].starts_with("GET /token?service=of%20tests&scope=repository%3Anet%3Apull "),
        "{asked:?}"
    );
}

#[test]
fn a_transfer_that_breaks_goes_on_where_it_was() {
    let weights: Vec<u8> = super::noise(300_000);
    let manifest = image(&[layer("net.onnx", &weights)]).to_string().into_bytes();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let known = asked.clone();
    let body = weights.clone();
    let at = serve(move |line, headers| {
        if line.contains("/manifests/") {
            return (200, Vec::new(), manifest.clone());
        }
        let from = headers
            .split_once("range: bytes=")
            .map_or(0, |(_, rest)| rest.split_once('-').unwrap().0.parse().unwrap());
        known.lock().unwrap().push(from);
        let length = vec![("Content-Length", (body.len() - from).to_string())];
        if from == 0 {
            return (200, length, body[..100_000].to_vec());
        }
        let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
        (206, [length, vec![("Content-Range", range)]].concat(), body[from..].to_vec())
    });
    let folder = tempfile::tempdir().unwrap();
    let (version, told) = pull(&store(&folder, "models"), &format!("oci://{at}/net:v1")).unwrap();
    assert_eq!(std::fs::read(version.entry().unwrap()).unwrap(), weights);
    assert_eq!((told, asked.lock().unwrap().as_slice()), (300_000, &[0, 100_000][..]));
}

#[test]
fn what_another_program_packed_is_a_version_too() {
    let archive = gnu_tar();
    let blob = json!({
        "mediaType": "application/vnd.cncf.model.weight.config.v1.tar+gzip", "digest": sha256(&archive), "size": archive.len(),
    });
    let manifest = image(&[layer("./net.onnx", b"weights"), blob]).to_string().into_bytes();
    let name = sha256(&archive);
    let at = serve(move |line, _| match line {
        line if line.contains("/manifests/") => (200, Vec::new(), manifest.clone()),
        line if line.contains(&name) => (200, Vec::new(), archive.clone()),
        _ => (200, Vec::new(), b"weights".to_vec()),
    });
    let folder = tempfile::tempdir().unwrap();
    let store: Store = store(&folder, "models");
    let found = Registered::find(&Address::parse(&format!("oci://{at}/net:v1")).unwrap()).unwrap();
    let model = ModelName::parse("net").unwrap();
    let version = store.pull_from_registry(&found, &model, &describe, &|_| {}).unwrap();
    let names: Vec<&str> = version.manifest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!((names, version.manifest.entry.as_str()), (vec!["net.onnx", "some/config.json"], "net.onnx"));
    assert_eq!(std::fs::read_to_string(version.folder.join("some/config.json")).unwrap(), "{\"a\": 1}");
    assert!(store.verify(&version, |_| {}).unwrap().is_empty());
}

fn gnu_tar() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("some")).unwrap();
    std::fs::write(folder.path().join("some/config.json"), "{\"a\": 1}").unwrap();
    let output =
        std::process::Command::new("tar").args(["-cz", "some"]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn an_upload_that_is_refused_says_why() {
    let at = serve(|line, _| match line {
        line if line.starts_with("HEAD") => (404, Vec::new(), Vec::new()),
        line if line.starts_with("POST") => {
            (403, Vec::new(), br#"{"errors": [{"code": "DENIED", "message": "not\u001b yours"}]}"#.to_vec())
        }
        _ => (200, Vec::new(), Vec::new()),
    });
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder, "models");
    let version = put(&store, "net", &[("net.onnx", b"weights")]);
    let address = Address::parse(&format!("oci://{at}/net:v1")).unwrap();
    let error = store.push_to_registry(&version, &address, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("the registry answered 403: DENIED not yours; name and password"), "{error}");
}
