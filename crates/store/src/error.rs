//! What can go wrong in the store, each with the way out.

use std::io;
use std::path::Path;

/// Why something can't be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "{text:?} is no name for a model: NAME, NAME:TAG or NAME@NUMBER is, of letters, digits, `.`, `-` and `_`, \
         {bytes_max} at most, beginning with a letter or digit"
    )]
    BadName { text: String, bytes_max: usize },
    /// `what` says the operation and its place.
    #[error("{what}: {cause}")]
    Io { what: String, cause: io::Error },
    #[error("the store's database {place}: {cause}")]
    Database { place: String, cause: sqlx::Error },
    /// A database that can't be connected to; `why` says the way out.
    #[error("the store's database {place}: {why}")]
    Unreachable { place: String, why: String },
    #[error("{place} has form {found}, and this tureen reads form {known}: use a newer tureen")]
    Newer { place: String, found: u64, known: u64 },
    #[error("{place} is damaged ({why}); pull the model again, or remove it")]
    Damaged { place: String, why: String },
    #[error("{place} is damaged ({why}); push the version with --again from where it is whole")]
    RemoteDamaged { place: String, why: String },
    /// The manifest of a version in a remote, or its tag.
    #[error("{place} is damaged ({why}); take it away by `tureen rm {id} --from {remote}` and push it again")]
    EntryDamaged { place: String, why: String, id: String, remote: String },
    /// A remote that answers otherwise than it should, or not at all.
    #[error("{what}: {why}")]
    Remote { what: String, why: String },
    #[error("{model} is being pulled by another process; wait for that, or end it")]
    Busy { model: String },
    #[error("the file is larger than {bytes_max} bytes, the most that is taken now")]
    TooLarge { bytes_max: u64 },
    #[error("there is no {what} here")]
    Missing { what: String },
    /// Something that its state doesn't allow.
    #[error("{0}")]
    Refused(String),
}

impl StoreError {
    /// For `map_err`: an operation at a path that failed.
    pub(crate) fn io(operation: &str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let what = format!("{operation} {}", path.display());
        move |cause| StoreError::Io { what, cause }
    }
}

pub(crate) type Result<T> = std::result::Result<T, StoreError>;
