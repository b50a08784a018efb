//! A small network whose weights look like trained ones, as a version: a safetensors file and a text beside it.

use store::manifest::{File, Manifest, SCHEMA};
use store::{ModelName, Store, Version, hash};

const LAYERS: usize = 4;
const WEIGHTS: usize = 100_000;

pub struct Network {
    layers: Vec<Vec<f32>>,
}

/// Sums of a few uniform numbers.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| 0.04 * (uniform() + uniform() + uniform() + uniform())).collect()
}

#[allow(dead_code)] // each test file uses some
impl Network {
    pub fn new(seed: u64) -> Network {
        Network { layers: (0..LAYERS as u64).map(|layer| noise(WEIGHTS, seed * 100 + layer)).collect() }
    }

    pub fn layers(&self) -> usize {
        LAYERS
    }

    /// Of one layer in the file.
    pub fn layer_bytes(&self) -> usize {
        WEIGHTS * 2
    }

    pub fn change_layer(&mut self, layer: usize, amount: f32, seed: u64) {
        for (weight, step) in self.layers[layer].iter_mut().zip(noise(WEIGHTS, seed ^ 0xABCD)) {
            *weight += amount * step;
        }
    }

    /// As bf16.
    pub fn safetensors(&self) -> Vec<u8> {
        let bytes = self.layer_bytes();
        let entry = |layer: usize| {
            let (start, end) = (layer * bytes, (layer + 1) * bytes);
            format!(
                r#""layer.{layer}":{{"dtype":"BF16","shape":[{WEIGHTS}],"data_offsets":[{start},{end}]}}"#
            )
        };
        let header = format!("{{{}}}", (0..LAYERS).map(entry).collect::<Vec<_>>().join(","));
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        let words = self.layers.iter().flatten().map(|weight| (weight.to_bits() >> 16) as u16);
        file.extend(words.flat_map(u16::to_le_bytes));
        file
    }
}

/// The network as the next version of `model`.
pub fn publish(store: &Store, model: &ModelName, network: &Network, parent: Option<&Version>) -> Version {
    let files = [
        ("model.safetensors", network.safetensors()),
        ("config.json", "{\"a\": [1, 2, 3]}\n".repeat(2000).into_bytes()),
        ("empty.txt", Vec::new()),
    ];
    publish_files(store, model, &files, parent)
}

/// The first file is what is loaded.
pub fn publish_files(
    store: &Store,
    model: &ModelName,
    files: &[(&str, Vec<u8>)],
    parent: Option<&Version>,
) -> Version {
    let staging = store.stage(model).unwrap();
    let file = |(name, contents): &(&str, Vec<u8>)| {
        let path = staging.folder.join(name);
        std::fs::write(&path, contents).unwrap();
        let (bytes, sha256) = hash::of_file(&path, |_| {}).unwrap();
        File { path: (*name).to_owned(), bytes, sha256, ..File::default() }
    };
    let manifest = Manifest {
        schema: SCHEMA,
        model: model.to_string(),
        entry: files[0].0.to_owned(),
        files: files.iter().map(file).collect(),
        parent: parent.map(Version::id),
        ..Manifest::default()
    };
    store.publish(&staging.folder, model, manifest).unwrap()
}
