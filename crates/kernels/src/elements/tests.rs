//! What blocks mean, against the `gguf` package's reading of the same bytes (`fixtures/blocks`).

use std::path::Path;

use super::*;

#[test]
fn blocks_mean_what_the_gguf_package_reads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/blocks");
    for element_type in ElementType::ALL {
        let golden = std::fs::read(folder.join(format!("{element_type}.bin"))).unwrap();
        // The blocks, then their elements.
        let (size, elements) = (element_type.block_bytes(), element_type.block_elements());
        let blocks = golden.len() / (size + 4 * elements);
        assert_eq!(golden.len(), blocks * (size + 4 * elements), "{element_type}");
        let (bytes, expected) = golden.split_at(blocks * size);
        let expected: Vec<f32> =
            expected.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        let mut found = vec![f32::NAN; blocks * elements];
        dequantize(element_type, bytes, &mut found);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "{element_type}, element {i}");
        }
    }
}

#[test]
#[should_panic(expected = "bytes of 64 elements of Q4_0")]
fn bytes_must_be_those_of_the_elements() {
    dequantize(ElementType::Q4_0, &[0; 18], &mut [0.0; 64]);
}
