//! Safetensors files: a JSON header that says where each tensor's bytes lie.
//!
//! Source: the format's description in the repository of the `safetensors` library. It is read here and not with
//! that library because duplicate names, overlaps and element types that are not used must be told apart.

mod write;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use kernels::elements::ElementType;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::FormatError;
pub use write::{metadata, write};

/// Bytes that the header may have, as in the format's own library.
pub const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Tensors of one file.
pub const TENSORS_MAX: usize = 1 << 17;
const NAME_BYTES_MAX: usize = 1 << 10;
/// Dimensions of one tensor.
pub const DIMENSIONS_MAX: usize = 8;

/// A tensor whose bytes lie within the file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorEntry<'a> {
    pub name: Cow<'a, str>,
    /// The type, or the name of one that is not read.
    pub element_type: Result<ElementType, String>,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// In the file.
    pub bytes: Range<usize>,
}

/// Reads the header of the safetensors file `bytes`, and checks that each tensor lies within them, by itself.
///
/// # Errors
/// Whatever is not as the format asks, and a limit that is passed.
pub fn read(bytes: &[u8]) -> Result<Vec<TensorEntry<'_>>, FormatError> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Err(malformed(format!(
            "it has {} bytes, and the header's length alone takes 8",
            bytes.len()
        )));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_BYTES_MAX {
        return Err(FormatError::TooLarge {
            format: "safetensors",
            what: "the header's length".to_owned(),
            found: length,
            limit: HEADER_BYTES_MAX,
        });
    }
    let length = length as usize;
    if length > rest.len() {
        return Err(malformed(format!(
            "the header takes {length} bytes, and {} follow its length",
            rest.len()
        )));
    }
    let (header, data) = rest.split_at(length);
    let Header(entries) =
        serde_json::from_slice(header).map_err(|error| malformed(format!("the header: {error}")))?;
    let data_start = bytes.len() - data.len();
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        tensors.push(place(name, entry, data_start, data.len())?);
    }
    check_apart(&mut tensors)?;
    Ok(tensors)
}

fn place<'a>(
    name: Cow<'a, str>,
    entry: Entry<'a>,
    data_start: usize,
    data_bytes: usize,
) -> Result<TensorEntry<'a>, FormatError> {
    let Entry { dtype, shape, data_offsets: [start, end] } = entry;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || dtype.len() > NAME_BYTES_MAX {
        let problem =
            format!("a name has {} bytes; expected 1 to {NAME_BYTES_MAX}", name.len().max(dtype.len()));
        return Err(malformed(problem));
    }
    if shape.len() > DIMENSIONS_MAX {
        let problem =
            format!("tensor {name} has {} dimensions; expected at most {DIMENSIONS_MAX}", shape.len());
        return Err(malformed(problem));
    }
    if start > end || end > data_bytes {
        return Err(malformed(format!(
            "tensor {name} lies at {start}..{end} of {data_bytes} bytes of data: the file is cut short or was not \
             fully downloaded"
        )));
    }
    if let Some(bits) = element_bits(&dtype) {
        let needed = shape.iter().try_fold(bits, |bits, n| bits.checked_mul(*n));
        if needed != (end - start).checked_mul(8) {
            return Err(malformed(format!(
                "tensor {name} of type {dtype} and shape {shape:?} has {} bytes, which do not fit",
                end - start
            )));
        }
    }
    let element_type = match &*dtype {
        "F32" => Ok(ElementType::F32),
        "F16" => Ok(ElementType::F16),
        "BF16" => Ok(ElementType::BF16),
        other => Err(other.to_owned()),
    };
    Ok(TensorEntry { name, element_type, shape, bytes: data_start + start..data_start + end })
}

/// Bits of one element of the types that the format has.
fn element_bits(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// Tensors that share bytes would let a small file ask for any amount of memory.
fn check_apart(tensors: &mut [TensorEntry<'_>]) -> Result<(), FormatError> {
    tensors.sort_unstable_by_key(|tensor| (tensor.bytes.start, tensor.bytes.end));
    if let Some(pair) = tensors.windows(2).find(|pair| pair[1].bytes.start < pair[0].bytes.end) {
        return Err(malformed(format!("tensors {} and {} overlap", pair[0].name, pair[1].name)));
    }
    tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    match tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(malformed(format!("tensor {} occurs twice", pair[0].name))),
        None => Ok(()),
    }
}

fn malformed(problem: String) -> FormatError {
    FormatError::Malformed { format: "safetensors", problem }
}

/// The header's entries, duplicates included.
struct Header<'a>(Vec<(Cow<'a, str>, Entry<'a>)>);

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    dtype: Cow<'a, str>,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Header<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
            } else if entries.len() == TENSORS_MAX {
                return Err(serde::de::Error::custom(format!("more than {TENSORS_MAX} tensors")));
            } else {
                entries.push((name, map.next_value()?));
            }
        }
        Ok(Header(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data_bytes: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + data_bytes, 0);
        file
    }

    #[test]
    fn tensors_are_found() {
        let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},
            "a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}"#;
        let file = file(header, 16);
        let tensors = read(&file).unwrap();
        let start = 8 + header.len();
        assert_eq!(tensors[0].element_type, Err("I8".to_owned()));
        assert_eq!((&*tensors[1].name, &tensors[1].shape[..]), ("b", &[2, 3][..]));
        assert_eq!(tensors[1].element_type, Ok(ElementType::BF16));
        assert_eq!(tensors[1].bytes, start + 4..start + 16);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let check = |header: &str, data_bytes: usize, expected: &str| {
            let error = read(&file(header, data_bytes)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 7, "cut short");
        check(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8, "cut short");
        check(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8, "do not fit");
        check(
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}"#,
            8,
            "do not fit",
        );
        check(r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8, "header");
        let one = r#""a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}"#;
        check(&format!("{{{one},{}}}", one.replace("0,4", "4,8")), 8, "occurs twice");
        check(&format!("{{{one},{}}}", one.replace("\"a\"", "\"b\"")), 8, "overlap");
        check("[]", 0, "header");
        check(&"[".repeat(100_000), 0, "header");
        assert!(read(&[1, 2, 3]).unwrap_err().to_string().contains("3 bytes"));
        assert!(read(&u64::MAX.to_le_bytes()).unwrap_err().to_string().contains("at most"));
        assert!(read(&1000u64.to_le_bytes()).unwrap_err().to_string().contains("0 follow"));
    }
}
