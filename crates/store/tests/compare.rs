//! What two versions have in common, wherever they are.

#![allow(clippy::unwrap_used)] // clippy doesn't see that what the tests call is part of them

#[path = "remotes/weights.rs"]
mod weights;

use store::{Change, ModelName, Reference, Remote, Store};
use weights::{Network, publish};

#[test]
fn one_layer_that_changed_is_all_that_differs() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(&folder.path().join("here"));
    let remote = Remote::open(folder.path().join("remote").to_str().unwrap()).unwrap();
    let model = ModelName::parse("a").unwrap();
    let mut network = Network::new(1);
    let first = publish(&store, &model, &network, None);
    network.change_layer(1, 0.01, 1);
    let second = publish(&store, &model, &network, Some(&first));
    let before = store.contents(&first, None).unwrap();
    let after = store.contents(&second, Some(&before)).unwrap();
    let found = before.differences(&after);
    let bytes = network.layer_bytes() as u64;
    let layer = Change { name: "layer.1".to_owned(), before: Some(bytes), after: Some(bytes), new: bytes };
    assert_eq!((&found.tensors, found.tensors_same), (&vec![layer], network.layers() - 1));
    assert_eq!((found.files.len(), found.files_same), (1, 2));
    assert_eq!((&*found.files[0].name, found.files[0].new), ("model.safetensors", bytes));
    assert_eq!(found.bytes - found.bytes_shared, bytes);
    assert_eq!(found.chunks - found.chunks_shared, 1);
    for version in [&first, &second] {
        store.push(version, &remote, None, false, &|_| {}).unwrap();
        let reference = Reference::Number { name: "a".to_owned(), number: version.number };
        let (_, there) = remote.contents(&reference).unwrap();
        let here = store.contents(version, Some(&there)).unwrap();
        let same = there.differences(&here);
        assert!(same.files.is_empty() && same.tensors.is_empty(), "{same:?}");
        assert_eq!(same.bytes_shared, version.manifest.bytes());
    }
    let (_, there) = remote.contents(&Reference::parse("a@2").unwrap()).unwrap();
    assert_eq!(before.differences(&there), found, "where it is makes no difference");
}
