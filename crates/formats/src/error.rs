//! What can be wrong with a published file, said so that its reader can do something about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file or a folder was not read. Its text has the cause, so that none is told as its source a second time.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("cannot {operation} {}: {cause}", path.display())]
    Io { operation: &'static str, path: PathBuf, cause: io::Error },
    /// The bytes are not what the format's specification asks for.
    #[error("malformed {format}: {problem}")]
    Malformed { format: &'static str, problem: String },
    /// A count, length or depth beyond what this reader accepts.
    #[error("{format}: {what} is {found}, and at most {limit} is accepted")]
    TooLarge { format: &'static str, what: String, found: u64, limit: u64 },
    /// Well formed, but nothing that this program can run; `supported` says what it can.
    #[error("{what} is {found}, which is not supported (supported: {supported})")]
    Unsupported { what: String, found: String, supported: String },
    /// A metadata key, configuration entry, file or tensor that the model needs.
    #[error("{what} is missing: {needed_for}")]
    Missing { what: String, needed_for: String },
    /// A value of the wrong type or outside its range.
    #[error("{what} is {found}; expected {expected}")]
    Invalid { what: String, found: String, expected: String },
    #[error(
        "tensor {name} has shape {found:?}; {role} of this model needs {expected:?} (outermost dimension first)"
    )]
    Shape { name: String, role: String, expected: Vec<usize>, found: Vec<usize> },
    /// An error in one of several files.
    #[error("{}: {error}", path.display())]
    InFile { path: PathBuf, error: Box<FormatError> },
}

impl FormatError {
    /// The same error, saying which file it is about.
    pub fn in_file(self, path: &Path) -> FormatError {
        match self {
            named @ (FormatError::Io { .. } | FormatError::InFile { .. }) => named,
            error => FormatError::InFile { path: path.to_owned(), error: Box::new(error) },
        }
    }
}
