//! Writing safetensors files: f32 tensors, and texts beside them.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::{FormatError, HEADER_BYTES_MAX, malformed};

/// Writes `tensors`, each a name, a shape and its values, and `metadata`, texts by name.
///
/// # Errors
/// When `to` takes no more, or a shape has another number of values.
pub fn write(
    to: &mut impl Write,
    tensors: &[(String, Vec<usize>, &[f32])],
    metadata: &BTreeMap<String, String>,
) -> io::Result<()> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    let mut at = 0;
    for (name, shape, values) in tensors {
        if shape.iter().product::<usize>() != values.len() {
            let problem = format!("tensor {name} has {} values and the shape {shape:?}", values.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let end = at + 4 * values.len();
        header.insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut header = serde_json::to_vec(&Value::Object(header))?;
    // The data begins at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    let mut bytes = Vec::with_capacity(1 << 16);
    for (_, _, values) in tensors {
        for part in values.chunks(1 << 14) {
            bytes.clear();
            bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
            to.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// The texts beside the tensors of the file `bytes`.
///
/// # Errors
/// When the header isn't as the format asks.
pub fn metadata(bytes: &[u8]) -> Result<BTreeMap<String, String>, FormatError> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        #[serde(default, rename = "__metadata__")]
        metadata: BTreeMap<String, String>,
    }
    let header = bytes.split_first_chunk().and_then(|(length, rest)| {
        let length = u64::from_le_bytes(*length);
        (length <= HEADER_BYTES_MAX).then(|| rest.get(..length as usize))?
    });
    let header = header.ok_or_else(|| malformed("it ends before its header does".to_owned()))?;
    let Metadata { metadata } =
        serde_json::from_slice(header).map_err(|error| malformed(format!("the header: {error}")))?;
    Ok(metadata)
}

#[test]
fn what_is_written_is_read() {
    let metadata_written = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut file = vec![];
    let tensors =
        [("a".to_owned(), vec![2, 2], &[1.0f32, 2.0, 3.0, 4.0][..]), ("b".to_owned(), vec![], &[-0.5])];
    write(&mut file, &tensors, &metadata_written).unwrap();
    let read = super::read(&file).unwrap();
    let of = |name: &str| read.iter().find(|tensor| tensor.name == name).unwrap();
    assert_eq!(of("a").shape, [2, 2]);
    assert_eq!(file[of("a").bytes.clone()][4..8], 2.0f32.to_le_bytes());
    assert_eq!(file[of("b").bytes.clone()], (-0.5f32).to_le_bytes());
    assert_eq!(metadata(&file).unwrap(), metadata_written);
    assert!(metadata(&file[..20]).is_err());
    let wrong = [("c".to_owned(), vec![3], &[1.0f32][..])];
    assert!(write(&mut vec![], &wrong, &metadata_written).is_err());
}
