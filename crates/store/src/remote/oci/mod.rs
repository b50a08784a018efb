//! OCI registries as places to exchange models: a version becomes an artefact of the CNCF's ModelPack specification
//! (github.com/modelpack/model-spec), one layer a file, which other programs read; and theirs become versions here.
//!
//! Files are sent as they are, not as chunks: what a registry has is to be of use without Tureen. Our own manifest
//! goes along as an annotation, so that nothing is lost on the way back.

mod address;
mod artefact;
mod auth;
mod client;
mod pull;
mod push;
mod unpack;

pub use address::Address;
pub use pull::{Describe, Described, Registered};
pub use push::Sent;

use crate::error::StoreError;

/// Registries refuse larger manifests, and so do we.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Blobs that are sent or received at once.
const THREADS: usize = 4;

type Result<T, E = StoreError> = std::result::Result<T, E>;

fn refused(what: String, why: impl Into<String>) -> StoreError {
    StoreError::Remote { what, why: why.into() }
}
