//! Reads a whole GGUF header. Counts, lengths, offsets and products of dimensions are checked before they are used.

use std::ops::Range;

use kernels::elements::ElementType;

use super::cursor::Cursor;
use super::{DIMENSIONS_MAX, Gguf, TensorEntry, malformed, value};
use crate::error::FormatError;

/// Keys of one file; published files have fewer than a hundred.
pub const METADATA_MAX: u64 = 1 << 16;
/// Tensors of one file; the largest published mixtures of experts have tens of thousands.
pub const TENSORS_MAX: u64 = 1 << 17;
pub const ALIGNMENT_MAX: usize = 1 << 20;
const ALIGNMENT_DEFAULT: usize = 32;
const NAME_BYTES_MAX: usize = 1 << 10;

/// A key of one byte, its value's type and a value of one byte.
const METADATA_BYTES_MIN: usize = 8 + 1 + 4 + 1;
/// A name of one byte, the number of dimensions, one dimension, the type and the offset.
const TENSOR_BYTES_MIN: usize = 8 + 1 + 4 + 8 + 4 + 8;

/// Reads the header of the GGUF file `bytes`, and checks that each tensor lies within them.
///
/// # Errors
/// Whatever is not as the specification says, with its place; a limit that is passed; an element type that is not
/// among [`ElementType::ALL`]. Memory is taken in proportion to the header's own length, never by what it claims.
pub fn read(bytes: &[u8]) -> Result<Gguf<'_>, FormatError> {
    let mut cursor = Cursor::new(bytes);
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.count("the number of tensors", TENSORS_MAX, TENSOR_BYTES_MIN)?;
    let metadata_count = cursor.count("the number of metadata entries", METADATA_MAX, METADATA_BYTES_MIN)?;
    let metadata = read_metadata(&mut cursor, metadata_count)?;

    let mut gguf = Gguf { version, alignment: ALIGNMENT_DEFAULT, metadata, tensors: Vec::new() };
    gguf.alignment = read_alignment(&gguf)?;
    if tensor_count > cursor.remaining() / TENSOR_BYTES_MIN {
        return Err(malformed(format!(
            "{tensor_count} tensors are announced, and {} bytes remain to describe them",
            cursor.remaining()
        )));
    }
    let mut tensors = Vec::with_capacity(tensor_count);
    for _ in 0..tensor_count {
        tensors.push(read_tensor(&mut cursor)?);
    }
    place_tensors(&mut tensors, cursor.position(), gguf.alignment, bytes.len())?;
    tensors.sort_unstable_by_key(|tensor| tensor.name);
    if let Some(pair) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(malformed(format!("tensor {} occurs twice", pair[0].name)));
    }
    gguf.tensors = tensors;
    Ok(gguf)
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, FormatError> {
    let magic = cursor.take(4, "the magic number")?;
    if magic != b"GGUF" {
        let magic = String::from_utf8_lossy(magic);
        return Err(malformed(format!(
            "it begins with {magic:?}; expected \"GGUF\" (a model in safetensors is opened by its folder's name)"
        )));
    }
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        _ if version & 0xFFFF == 0 && version != 0 => Err(FormatError::Unsupported {
            what: "the byte order of this GGUF file".to_owned(),
            found: "big-endian".to_owned(),
            supported: "little-endian; convert the file with gguf_convert_endian".to_owned(),
        }),
        _ => Err(FormatError::Unsupported {
            what: "the version of this GGUF file".to_owned(),
            found: version.to_string(),
            supported: "2 and 3".to_owned(),
        }),
    }
}

fn read_metadata<'a>(
    cursor: &mut Cursor<'a>,
    count: usize,
) -> Result<Vec<(&'a str, value::Value<'a>)>, FormatError> {
    let mut metadata = Vec::with_capacity(count);
    for index in 0..count {
        let key = read_name(cursor, &format!("metadata key {index}"))?;
        metadata.push((key, value::read_typed(cursor, key)?));
    }
    metadata.sort_unstable_by_key(|(key, _)| *key);
    match metadata.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(malformed(format!("metadata key {} occurs twice", pair[0].0))),
        None => Ok(metadata),
    }
}

fn read_name<'a>(cursor: &mut Cursor<'a>, what: &str) -> Result<&'a str, FormatError> {
    let name = cursor.string(what)?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(malformed(format!("{what} has {} bytes; expected 1 to {NAME_BYTES_MAX}", name.len())));
    }
    Ok(name)
}

fn read_alignment(gguf: &Gguf<'_>) -> Result<usize, FormatError> {
    const KEY: &str = "general.alignment";
    let alignment = gguf.size(KEY)?.unwrap_or(ALIGNMENT_DEFAULT);
    if !alignment.is_power_of_two() || alignment > ALIGNMENT_MAX {
        return Err(FormatError::Invalid {
            what: KEY.to_owned(),
            found: alignment.to_string(),
            expected: format!("a power of two of at most {ALIGNMENT_MAX}"),
        });
    }
    Ok(alignment)
}

/// Reads one tensor's description; its range is still relative to the beginning of the data.
fn read_tensor<'a>(cursor: &mut Cursor<'a>) -> Result<TensorEntry<'a>, FormatError> {
    let name = read_name(cursor, "a tensor's name")?;
    let rank = cursor.u32(name)? as usize;
    if rank == 0 || rank > DIMENSIONS_MAX {
        return Err(malformed(format!(
            "tensor {name} has {rank} dimensions; expected 1 to {DIMENSIONS_MAX}"
        )));
    }
    let mut dimensions = [1; DIMENSIONS_MAX];
    for dimension in dimensions[..rank].iter_mut().rev() {
        *dimension = usize::try_from(cursor.u64(name)?).unwrap_or(usize::MAX);
    }
    let type_id = cursor.u32(name)?;
    let element_type = element_type(type_id).ok_or_else(|| FormatError::Unsupported {
        what: format!("the element type of tensor {name}"),
        found: match type_name(type_id) {
            Some(known) => format!("{known} ({type_id})"),
            None => format!("number {type_id}"),
        },
        supported: ElementType::ALL.map(ElementType::name).join(", "),
    })?;
    let offset = usize::try_from(cursor.u64(name)?).unwrap_or(usize::MAX);
    let shape = &dimensions[..rank];
    let length = byte_length(shape, element_type).ok_or_else(|| {
        malformed(format!(
            "tensor {name} has shape {shape:?}; expected dimensions of at least 1 whose last is a multiple of {} \
             elements ({element_type}), and a size that a file can have",
            element_type.block_elements()
        ))
    })?;
    let end =
        offset.checked_add(length).ok_or_else(|| malformed(format!("tensor {name} ends past any file")))?;
    Ok(TensorEntry { name, element_type, dimensions, rank, bytes: offset..end })
}

/// Bytes of a tensor of whole rows, or `None` where they are not whole, empty, or too many to count.
fn byte_length(shape: &[usize], element_type: ElementType) -> Option<usize> {
    let (columns, outer) = shape.split_last()?;
    let rows = outer.iter().try_fold(1usize, |rows, n| rows.checked_mul(*n))?;
    element_type.row_bytes(*columns)?.checked_mul(rows).filter(|bytes| *bytes > 0)
}

/// Makes the tensors' ranges relative to the file, and checks that they are aligned, within it, and apart: tensors
/// that share bytes would let a small file ask for any amount of memory.
fn place_tensors(
    tensors: &mut [TensorEntry<'_>],
    header_end: usize,
    alignment: usize,
    file_bytes: usize,
) -> Result<(), FormatError> {
    // The header lies in memory, so this does not overflow.
    let data_start = header_end.next_multiple_of(alignment);
    for tensor in tensors.iter_mut() {
        let Range { start, end } = tensor.bytes.clone();
        if !start.is_multiple_of(alignment) {
            return Err(malformed(format!(
                "tensor {} begins at offset {start}, no multiple of the alignment {alignment}",
                tensor.name
            )));
        }
        let end = end.checked_add(data_start).filter(|end| *end <= file_bytes).ok_or_else(|| {
            malformed(format!(
                "tensor {} ends {end} bytes after the header's end, {data_start}, and the file has {file_bytes} bytes \
                 in all: it is cut short or was not fully downloaded",
                tensor.name
            ))
        })?;
        tensor.bytes = start + data_start..end;
    }
    tensors.sort_unstable_by_key(|tensor| tensor.bytes.start);
    match tensors.windows(2).find(|pair| pair[1].bytes.start < pair[0].bytes.end) {
        Some(pair) => Err(malformed(format!("tensors {} and {} overlap", pair[0].name, pair[1].name))),
        None => Ok(()),
    }
}

/// The type that a GGUF file's number stands for. Source: `ggml_type` of ggml.
fn element_type(id: u32) -> Option<ElementType> {
    ElementType::ALL.into_iter().find(|ty| type_id(*ty) == id)
}

pub(super) fn type_id(element_type: ElementType) -> u32 {
    match element_type {
        ElementType::F32 => 0,
        ElementType::F16 => 1,
        ElementType::Q4_0 => 2,
        ElementType::Q4_1 => 3,
        ElementType::Q5_0 => 6,
        ElementType::Q5_1 => 7,
        ElementType::Q8_0 => 8,
        ElementType::Q2_K => 10,
        ElementType::Q3_K => 11,
        ElementType::Q4_K => 12,
        ElementType::Q5_K => 13,
        ElementType::Q6_K => 14,
        ElementType::IQ4_NL => 20,
        ElementType::IQ4_XS => 23,
        ElementType::BF16 => 30,
    }
}

/// Names of types that exist and are not read, so that an error can say more than a number.
fn type_name(id: u32) -> Option<&'static str> {
    Some(match id {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        40 => "NVFP4",
        41 => "Q1_0",
        _ => return None,
    })
}
