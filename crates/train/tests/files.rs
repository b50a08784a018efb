//! Models through Keras's files and back.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

mod networks;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use train::files::keras::{from_bytes, from_json, load, save, to_bytes, to_json, training};
use train::prelude::*;

const DIFFERENCE_MAX: f32 = 1e-5;

/// Copies the weights of a model to another of the same layers.
fn with_weights(from: &Model, mut to: Model) -> Model {
    for (path, _, values) in from.weights() {
        to.set_weight(path, values).unwrap();
    }
    to
}

#[test]
fn json_describes_every_layer() {
    for mut network in networks::all() {
        let json = to_json(&network.model);
        let read = from_json(&json).unwrap_or_else(|error| panic!("{}: {error}", network.name));
        assert_eq!(to_json(&read), json, "{}", network.name);
        let mut read = with_weights(&network.model, read);
        let expected = network.model.predict(network.x.clone(), 8).unwrap();
        assert_eq!(read.predict(network.x, 8).unwrap(), expected, "{}", network.name);
    }
}

/// A `Sequential` of an input and these layers, as JSON.
fn sequential(layers: &str) -> String {
    format!(
        r#"{{"module":"keras","class_name":"Sequential","config":{{"name":"s","layers":[
        {{"module":"keras.layers","class_name":"InputLayer","config":{{"name":"x","batch_shape":[null,4]}}}},
        {layers}]}}}}"#
    )
}

fn layer(module: &str, class: &str, config: &str) -> String {
    format!(r#"{{"module":"{module}","class_name":"{class}","config":{{"name":"it",{config}}}}}"#)
}

fn refused(json: &str, expected: &str) {
    match from_json(json) {
        Ok(_) => panic!("read: {json}"),
        Err(error) => assert!(error.to_string().contains(expected), "{error} doesn't have {expected:?}"),
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let keras = |class: &str, config: &str| sequential(&layer("keras.layers", class, config));
    assert!(
        from_json(&keras(
            "Dense",
            r#""units":3,"dtype":{"class_name":"DTypePolicy","config":{"name":"float32"}}"#
        ))
        .is_ok()
    );
    refused(
        &keras("Lambda", r#""function":{"class_name":"__lambda__","config":{"code":"4wE="}}"#),
        "layer \"Lambda\"",
    );
    refused(&sequential(&layer("my_package.layers", "Dense", r#""units":3"#)), "my_package.layers.Dense");
    refused(&sequential(&layer("builtins", "function", r#""units":3"#)), "builtins.function");
    refused(
        &keras(
            "Dense",
            r#""units":3,"activation":{"module":"os","class_name":"function","config":"system"}"#,
        ),
        "the layer \"it\"",
    );
    refused(
        &keras("Dense", r#""units":3,"activity_regularizer":{"class_name":"L2"}"#),
        "activity_regularizer",
    );
    refused(&keras("Dense", r#""units":3,"dtype":"float16""#), "dtype = \"float16\"");
    refused(
        &keras("TimeDistributed", r#""layer":{"module":"mine","class_name":"Dense","config":{}}"#),
        "\"mine\"",
    );
    refused(&keras("Dense", r#""units":0"#), "no size of 0");
    refused(&keras("Dense", r#""units":4294967295"#), "values for a sample");
    refused(&keras("Dense", r#""units":18446744073709551615"#), "too large to be multiplied");
    refused(&keras("Reshape", r#""target_shape":[65536,65536,65536]"#), "too large to be multiplied");
    refused(&keras("Conv2D", r#""filters":3"#), "it: the layer takes one input of 4 dimensions");
    refused(r#"{"module":"evil","class_name":"Sequential","config":{"layers":[]}}"#, "evil.Sequential");
    refused("[", "no JSON");
    refused(&"[".repeat(1000), "no JSON");
    refused(&sequential(""), "no JSON");
    let mut nested = sequential(&layer("keras.layers", "Flatten", r#""trainable":true"#));
    for depth in 0..12 {
        nested = sequential(&nested).replacen(r#""name":"s""#, &format!(r#""name":"m{depth}""#), 1);
    }
    refused(&nested, "more than 8 deep");
}

/// Bytes of a description changed at random: it is read or refused, and nothing panics.
#[test]
fn descriptions_that_nobody_should_trust() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound as u64) as usize
    };
    for network in networks::all().into_iter().filter(|network| network.name != "bidirectional") {
        let json = to_json(&network.model);
        for _ in 0..40 {
            let mut bytes = json.clone().into_bytes();
            for _ in 0..=next(3) {
                // Digits and names are where sizes and wiring are.
                let at = next(bytes.len());
                let at = (at..bytes.len()).find(|&at| bytes[at].is_ascii_alphanumeric()).unwrap_or(at);
                bytes[at] = b"0123456789-[]{},\"null"[next(21)];
            }
            drop(from_json(&String::from_utf8(bytes).unwrap()));
        }
    }
}

/// Archives that `fixtures/training/keras_networks.py` wrote: those that are kept, or all of them in KERAS_NETWORKS.
fn archives() -> Vec<PathBuf> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/training/keras");
    let folder = std::env::var_os("KERAS_NETWORKS").map_or(kept, PathBuf::from);
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "keras")).collect();
    paths.sort();
    assert!(paths.len() >= 6);
    paths
}

/// The arrays beside an archive.
fn beside(path: &Path) -> HashMap<String, Array> {
    let file = std::fs::read(path.with_extension("safetensors")).unwrap();
    let tensors = formats::safetensors::read(&file).unwrap();
    let values = |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    let arrays = tensors.iter().map(|tensor| {
        let array = Array::new(tensor.shape.clone(), values(&file[tensor.bytes.clone()])).unwrap();
        (tensor.name.to_string(), array)
    });
    arrays.collect()
}

fn numbered(arrays: &HashMap<String, Array>, letter: char) -> Vec<Array> {
    (0..).map_while(|number| arrays.get(&format!("{letter}{number}")).cloned()).collect()
}

fn assert_near(name: &str, found: &[Array], expected: &[Array]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.shape, expected.shape, "{name}");
        for (found, expected) in found.values.iter().zip(&expected.values) {
            let difference = (found - expected).abs() / expected.abs().max(1.0);
            assert!(difference < DIFFERENCE_MAX, "{name}: {found}, not {expected}");
        }
    }
}

#[test]
fn archives_of_keras_predict_the_same_here() {
    for path in archives() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut model = load(&path).unwrap();
        let arrays = beside(&path);
        let found = model.predict(numbered(&arrays, 'x'), 8).unwrap();
        assert_near(&name, &found, &numbered(&arrays, 'y'));
        // And again after having been written here.
        let mut again = from_bytes(&to_bytes(&model).unwrap()).unwrap();
        assert_eq!(again.predict(numbered(&arrays, 'x'), 8).unwrap(), found, "{name}");
    }
}

/// Keras's optimiser goes on here, and ours after having been written: the next losses are Keras's.
#[test]
fn training_goes_on() {
    let fitted = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().starts_with("fitted");
    for path in archives().into_iter().filter(fitted) {
        let arrays = beside(&path);
        let (x, y) = (&numbered(&arrays, 'x')[0], &arrays["targets"]);
        let mut model = load(&path).unwrap();
        let resume = |model: &mut Model, path: &Path| {
            let training = training(model, path).unwrap().unwrap();
            training.resume(model, vec![MeanSquaredError.into()], [] as [Metric; 0]).unwrap();
        };
        resume(&mut model, &path);
        let between = std::env::temp_dir().join(format!("between-{}.keras", std::process::id()));
        for (step, &expected) in arrays["losses"].values.iter().enumerate() {
            let loss = model.train_on_batch(x, y).unwrap();
            assert!((loss / expected - 1.0).abs() < 1e-4, "{path:?}, step {step}: {loss}, not {expected}");
            save(&model, &between).unwrap();
            model = load(&between).unwrap();
            resume(&mut model, &between);
        }
        std::fs::remove_file(between).unwrap();
    }
}

#[test]
fn archives_go_there_and_back() {
    let folder = std::env::temp_dir().join(format!("archives-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for mut network in networks::all() {
        let path = folder.join(format!("{}.keras", network.name));
        save(&network.model, &path).unwrap();
        let mut read = load(&path).unwrap_or_else(|error| panic!("{}: {error}", network.name));
        assert_eq!(to_bytes(&read).unwrap(), std::fs::read(&path).unwrap(), "{}", network.name);
        let expected = network.model.predict(network.x.clone(), 8).unwrap();
        assert_eq!(read.predict(network.x, 8).unwrap(), expected, "{}", network.name);
    }
    assert!(
        std::fs::read_dir(&folder)
            .unwrap()
            .all(|entry| entry.unwrap().path().extension().unwrap() == "keras")
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn archives_that_are_none_are_refused() {
    let whole = std::fs::read(&archives()[0]).unwrap();
    for length in (0..whole.len()).step_by(whole.len() / 200) {
        assert!(from_bytes(&whole[..length]).is_err(), "{length} bytes are taken for the whole");
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..300 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut bytes = whole.clone();
        let at = random as usize % bytes.len();
        bytes[at] = (random >> 40) as u8;
        // Some bytes, such as dates, mean nothing here.
        drop(from_bytes(&bytes));
    }
    let error = load(Path::new("/nowhere/at.keras")).err().unwrap().to_string();
    assert!(error.starts_with("/nowhere/at.keras: it can't be read"), "{error}");
}
