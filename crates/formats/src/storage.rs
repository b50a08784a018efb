//! A model's files and the tensors in them, whichever format they came in.

use std::ops::Range;
use std::path::Path;

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
    /// # Errors
    /// When the file cannot be opened or mapped.
    pub fn map(path: &Path) -> Result<Bytes, FormatError> {
        let mapped = MappedFile::open(path).map(Bytes::Mapped);
        mapped.map_err(|cause| FormatError::Io { operation: "open", path: path.to_owned(), cause })
    }

    /// Gives memory back that can be read from the file again.
    pub(crate) fn forget(&self) {
        if let Bytes::Mapped(file) = self {
            file.forget();
        }
    }

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
    /// Outermost dimension first; for types that are read, its product with the type's size is `end - start`.
    pub shape: Vec<usize>,
}

impl StoredTensor {
    /// Exact for types that are read; of others, whose shape could not be checked, at most what a number holds.
    pub fn elements(&self) -> usize {
        self.shape.iter().fold(1, |elements, n| elements.saturating_mul(*n))
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

    /// Numbers that training found: all but the tables that are computed from the settings.
    pub fn parameters(&self) -> u64 {
        let learnt = self.tensors.iter().filter(|tensor| !is_computed(&tensor.name));
        learnt.fold(0, |sum: u64, tensor| sum.saturating_add(tensor.elements() as u64))
    }

    /// The name of the element type that most bytes of the model are stored in.
    pub fn majority_type(&self) -> String {
        let mut totals: Vec<(&str, usize)> = Vec::new();
        for tensor in &self.tensors {
            let name = match &tensor.element_type {
                Ok(element_type) => element_type.name(),
                Err(name) => name,
            };
            match totals.iter_mut().find(|(known, _)| *known == name) {
                Some((_, bytes)) => *bytes += tensor.end - tensor.start,
                None => totals.push((name, tensor.end - tensor.start)),
            }
        }
        let most = totals.iter().max_by_key(|(_, bytes)| *bytes);
        most.map_or_else(|| "none".to_owned(), |(name, _)| (*name).to_owned())
    }
}

/// Whether a tensor is a table of rotary embeddings, which are read into the settings or computed from them.
pub(crate) fn is_computed(name: &str) -> bool {
    const COMPUTED: [&str; 5] = [
        "rope_freqs.weight",
        "rope_factors_long.weight",
        "rope_factors_short.weight",
        "attn_rot_embd.weight",
        "rotary_emb.inv_freq",
    ];
    COMPUTED.iter().any(|computed| name.ends_with(computed))
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
