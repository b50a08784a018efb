//! A model's files and the tensors in them, whichever format they came in.

use std::ops::Range;

use kernels::elements::ElementType;
use kernels::memory::MappedFile;

use crate::error::FormatError;
use crate::model::Tensor;

/// A file's bytes: mapped, or in memory for tests and for callers that hold them already.
#[derive(Debug)]
pub enum Bytes {
    Mapped(MappedFile),
    Memory(Vec<u8>),
}

impl Bytes {
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Mapped(file) => file.bytes(),
            Bytes::Memory(bytes) => bytes,
        }
    }
}

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredTensor {
    pub name: String,
    /// Index into the model's files.
    pub file: usize,
    pub start: usize,
    pub end: usize,
    /// The type, or the name of one that cannot be read; only using such a tensor is an error.
    pub element_type: Result<ElementType, String>,
    /// Outermost dimension first; its product with the type is `end - start`.
    pub shape: Vec<usize>,
}

impl StoredTensor {
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// All tensors of a model, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Catalogue {
    tensors: Vec<StoredTensor>,
}

impl Catalogue {
    /// # Errors
    /// When two tensors have one name.
    pub fn new(mut tensors: Vec<StoredTensor>) -> Result<Catalogue, FormatError> {
        tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        match tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some(pair) => Err(FormatError::Malformed {
                format: "model",
                problem: format!("tensor {} occurs in two files", pair[0].name),
            }),
            None => Ok(Catalogue { tensors }),
        }
    }

    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        let index = self.tensors.binary_search_by_key(&name, |tensor| &tensor.name).ok()?;
        Some(&self.tensors[index])
    }
}

/// The part of `tensor` that begins at row `first`, its outer dimensions taken together, in the shape `shape`.
///
/// # Errors
/// As for [`check_part`].
pub(crate) fn part<'a>(
    files: &'a [Bytes],
    tensor: &'a StoredTensor,
    first: usize,
    shape: Vec<usize>,
) -> Result<Tensor<'a>, FormatError> {
    let (element_type, range) = check_part(tensor, first, &shape)?;
    let bytes = &files[tensor.file].as_slice()[tensor.start..tensor.end];
    Ok(Tensor { name: &tensor.name, element_type, shape, bytes: &bytes[range] })
}

/// A part's type and its bytes within the tensor's.
///
/// # Errors
/// When the tensor has a type that is not read, or the part does not consist of whole blocks.
pub(crate) fn check_part(
    tensor: &StoredTensor,
    first: usize,
    shape: &[usize],
) -> Result<(ElementType, Range<usize>), FormatError> {
    let element_type = tensor.element_type.clone().map_err(|found| FormatError::Unsupported {
        what: format!("the element type of tensor {}", tensor.name),
        found,
        supported: ElementType::ALL.map(ElementType::name).join(", "),
    })?;
    // A vector is cut by elements, all else by rows, which are whole blocks.
    let unit = if shape.len() > 1 { shape.last().copied().unwrap_or(1) } else { 1 };
    let (start, length) = (first * unit, shape.iter().product::<usize>());
    assert!(start + length <= tensor.elements(), "tensor {} has no such part", tensor.name);
    let block = element_type.block_elements();
    if !start.is_multiple_of(block) || !length.is_multiple_of(block) {
        return Err(FormatError::Unsupported {
            what: format!("the part of tensor {} that begins at element {start}", tensor.name),
            found: format!("{length} elements of {element_type}"),
            supported: format!("multiples of {block} elements"),
        });
    }
    let byte = |element: usize| element / block * element_type.block_bytes();
    Ok((element_type, byte(start)..byte(start + length)))
}
