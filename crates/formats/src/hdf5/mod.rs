//! HDF5 as far as `h5py` and Keras use it (HDF5 File Format Specification 3.0): groups and data sets of numbers, read as
//! hostile bytes, and written.
//!
//! Read: superblocks 0 to 3 with offsets of 8 bytes; object headers 1 and 2; groups with symbol tables or with links in
//! their header; data that is compact, contiguous, or in chunks under a version 1 B-tree, deflated or shuffled; integers
//! and IEEE floats, little-endian. Attributes are skipped, links to other names or files left out. Anything else is refused
//! by name. Crates that read more are a few months old and weren't made for bytes that nobody should trust.

mod bytes;
mod chunks;
mod groups;
mod header;
#[cfg(test)]
mod tests;
mod writer;

use crate::error::FormatError;
use bytes::Bytes;
use header::Layout;
pub use header::Number;
pub use writer::{Values, write};

const FORMAT: &str = "HDF5";
const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
/// Groups and data sets of a file, counted as often as they are met.
const OBJECTS_MAX: usize = 65_536;
const DEPTH_MAX: usize = 32;
const DIMENSIONS_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 1024;
/// A data set's bytes for each of the file, which deflation can't exceed, and as many more.
const INFLATION_MAX: u64 = 1100;
const INFLATION_BASE: u64 = 1 << 16;

fn malformed(problem: impl Into<String>) -> FormatError {
    FormatError::Malformed { format: FORMAT, problem: problem.into() }
}

fn unsupported(what: impl Into<String>, found: impl Into<String>, supported: &str) -> FormatError {
    FormatError::Unsupported { what: what.into(), found: found.into(), supported: supported.to_owned() }
}

fn limit(what: &str, found: u64, limit: u64) -> Result<(), FormatError> {
    if found <= limit {
        return Ok(());
    }
    Err(FormatError::TooLarge { format: FORMAT, what: what.to_owned(), found, limit })
}

/// A data set within a file.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Names of groups and its own, with `/` between.
    pub path: String,
    pub shape: Vec<usize>,
    /// What its elements are; nothing where they are no numbers that are read here.
    pub number: Option<Number>,
    layout: Layout,
}

impl Dataset {
    /// Its numbers, in C's order. Integers beyond 2^53 lose their last digits.
    ///
    /// # Errors
    /// When its elements are no numbers, it lies outside `file`, which must be the bytes that it was found in, or is stored
    /// in a way that isn't read.
    pub fn values(&self, file: &[u8]) -> Result<Vec<f64>, FormatError> {
        let Some(number) = self.number else {
            return Err(unsupported(
                format!("the type of the data set {:?}", self.path),
                "another",
                "little-endian integers and IEEE floats",
            ));
        };
        let elements = self.elements();
        let bytes = elements.saturating_mul(number.bytes() as u64);
        let allowed = (file.len() as u64).saturating_mul(INFLATION_MAX).saturating_add(INFLATION_BASE);
        limit(&format!("the data set {:?}, in bytes", self.path), bytes, allowed)?;
        let data = self.layout.data(&Bytes(file), &self.shape, number.bytes(), bytes as usize)?;
        Ok(data.chunks_exact(number.bytes()).map(|bytes| number.value(bytes)).collect())
    }

    fn elements(&self) -> u64 {
        self.shape.iter().fold(1u64, |elements, &size| elements.saturating_mul(size as u64))
    }
}

/// All data sets of a file, their contents left where they are.
///
/// # Errors
/// When the file isn't HDF5, is cut short, or has structures that aren't read.
pub fn read(file: &[u8]) -> Result<Vec<Dataset>, FormatError> {
    groups::datasets(&Bytes(file))
}
