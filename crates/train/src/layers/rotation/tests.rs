//! Rotation against TensorFlow's, for known angles.

use std::path::Path;

use super::*;
use crate::graph::reference::Values;

fn golden(name: &str) -> (Vec<usize>, Vec<f32>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/training/rotation.safetensors");
    let file = std::fs::read(path).unwrap();
    let tensors = formats::safetensors::read(&file).unwrap();
    let tensor = tensors.iter().find(|tensor| &*tensor.name == name).unwrap();
    let bytes = file[tensor.bytes.clone()].as_chunks::<4>().0;
    (tensor.shape.clone(), bytes.iter().map(|x| f32::from_le_bytes(*x)).collect())
}

#[test]
fn images_turn_as_in_tensorflow() {
    let (shape, x) = golden("x");
    let (_, angles) = golden("angles");
    for (mode, name) in [
        (FillMode::Constant, "constant"),
        (FillMode::Reflect, "reflect"),
        (FillMode::Wrap, "wrap"),
        (FillMode::Nearest, "nearest"),
    ] {
        for (interpolation, way) in
            [(Interpolation::Bilinear, "bilinear"), (Interpolation::Nearest, "nearest")]
        {
            let layer =
                RandomRotation::new(1.0).fill_mode(mode).interpolation(interpolation).fill_value(0.25f32);
            let mut graph = Graph::new();
            let images = graph.constant(&x, &shape).unwrap();
            let by = graph.constant(&angles, &[shape[0]]).unwrap();
            let turned = layer.turned(&mut graph, images, by).unwrap();
            let found = Values::new().of(&graph, &[turned]).unwrap().remove(0);
            let (_, expected) = golden(&format!("{name}_{way}"));
            let far = found.iter().zip(&expected).filter(|(a, b)| (**a - **b as f64).abs() > 1e-4).count();
            assert_eq!(far, 0, "{name}, {way}: {far} of {} pixels differ", expected.len());
        }
    }
}
