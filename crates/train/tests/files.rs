//! Models through Keras's files and back.

#![allow(clippy::unwrap_used)] // functions that tests share count as no tests

mod networks;

use train::files::keras::{from_json, to_json};
use train::prelude::*;

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
    refused(&keras("Dense", r#""units":3,"trainable":false"#), "trainable = false");
    refused(&keras("Dense", r#""units":0"#), "no size of 0");
    refused(&keras("Dense", r#""units":4294967295"#), "values for a sample");
    refused(&keras("Dense", r#""units":18446744073709551615"#), "too large to be multiplied");
    refused(&keras("Reshape", r#""target_shape":[65536,65536,65536]"#), "too large to be multiplied");
    refused(&keras("Conv2D", r#""filters":3"#), "it: the layer takes one input of 4 dimensions");
    refused(r#"{"module":"evil","class_name":"Sequential","config":{"layers":[]}}"#, "evil.Sequential");
    refused("[", "no JSON");
    refused(&"[".repeat(1000), "no JSON");
    refused(&sequential(""), "no JSON");
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
