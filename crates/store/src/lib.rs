//! Where models are kept: versions with their files, tags, uploads, and the table of jobs.
//!
//! All of it lies in one folder. Files are the truth and are written whole or not at all; the database beside them
//! says what can't be read from a name: which version a tag means, and how jobs stand. Functions here block, and are
//! called where that is allowed.

mod clock;
pub mod codec;
mod compare;
mod cut;
mod database;
mod durable;
mod error;
pub mod hash;
mod id;
mod jobs;
pub mod manifest;
mod name;
mod registration;
mod remote;
mod staging;
mod uploads;
mod versions;

pub use clock::{now, unix_seconds};
pub use compare::{Change, Contents, Differences};
pub use database::DatabaseUrl;
pub use durable::{is_plain_path, read_within, write_durably};
pub use error::StoreError;
pub use jobs::{EventFile, Job, JobFolder, JobRun, State, Stop};
pub use manifest::Manifest;
pub use name::{ModelName, Reference};
pub use remote::oci;
pub use remote::{Collected, Kept, Pushed, Remote};
pub use staging::{Staging, Unfinished};
pub use uploads::{Receiving, Upload};
pub use versions::{Damage, Store, Version};
