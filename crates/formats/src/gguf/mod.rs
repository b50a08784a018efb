//! GGUF files, versions 2 and 3, little-endian: metadata and tensors, borrowed from the file's bytes.
//!
//! Source: the GGUF specification (`docs/gguf.md` of the ggml project).

mod cursor;
mod header;
pub mod split;
mod tokenizer;
mod value;
mod writer;

use std::ops::Range;

use kernels::elements::ElementType;

pub use cursor::STRING_BYTES_MAX;
pub use header::{ALIGNMENT_MAX, METADATA_MAX, TENSORS_MAX, read};
pub(crate) use tokenizer::{end_tokens, read_tokenizer};
pub use value::{ARRAY_DEPTH_MAX, ARRAY_ELEMENTS_MAX, Array, Value, ValueType};
pub use writer::Writer;

use crate::error::FormatError;

/// Dimensions of one tensor.
pub const DIMENSIONS_MAX: usize = 4;

/// A GGUF file's contents: names and strings borrow from its bytes, tensors are ranges of them.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    pub version: u32,
    /// Tensors begin at multiples of it.
    pub alignment: usize,
    /// By key.
    metadata: Vec<(&'a str, Value<'a>)>,
    /// By name.
    tensors: Vec<TensorEntry<'a>>,
}

/// A tensor whose bytes lie within the file.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorEntry<'a> {
    pub name: &'a str,
    pub element_type: ElementType,
    dimensions: [usize; DIMENSIONS_MAX],
    rank: usize,
    /// In the file.
    pub bytes: Range<usize>,
}

impl TensorEntry<'_> {
    /// Outermost dimension first, unlike in the file.
    pub fn shape(&self) -> &[usize] {
        &self.dimensions[..self.rank]
    }
}

impl<'a> Gguf<'a> {
    /// Keys and values, by key.
    pub fn metadata(&self) -> &[(&'a str, Value<'a>)] {
        &self.metadata
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> &[TensorEntry<'a>] {
        &self.tensors
    }

    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        let index = self.metadata.binary_search_by_key(&key, |(key, _)| key).ok()?;
        Some(self.metadata[index].1)
    }

    pub fn tensor(&self, name: &str) -> Option<&TensorEntry<'a>> {
        let index = self.tensors.binary_search_by_key(&name, |tensor| tensor.name).ok()?;
        Some(&self.tensors[index])
    }

    /// The text at `key`, if there is one.
    ///
    /// # Errors
    /// When the value is no text; likewise for the other types below.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, FormatError> {
        self.typed(key, "a text", |value| value.text())
    }

    pub fn boolean(&self, key: &str) -> Result<Option<bool>, FormatError> {
        self.typed(key, "a boolean", |value| value.boolean())
    }

    pub fn float(&self, key: &str) -> Result<Option<f32>, FormatError> {
        self.typed(key, "a finite float", |value| value.float().filter(|x| x.is_finite()))
    }

    /// A count or size of any integer type, as long as it is not negative.
    pub fn size(&self, key: &str) -> Result<Option<usize>, FormatError> {
        self.typed(key, "an integer that is not negative", |value| usize::try_from(value.integer()?).ok())
    }

    pub fn array(&self, key: &str) -> Result<Option<Array<'a>>, FormatError> {
        self.typed(key, "an array", |value| value.array())
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        convert: impl Fn(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, FormatError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(&value).map(Some).ok_or_else(|| FormatError::Invalid {
            what: key.to_owned(),
            found: value.describe(),
            expected: expected.to_owned(),
        })
    }
}

fn malformed(problem: String) -> FormatError {
    FormatError::Malformed { format: "GGUF", problem }
}
