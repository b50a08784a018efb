//! The tests of the store with its database in PostgreSQL, and what is PostgreSQL's alone.

#![allow(clippy::unwrap_used)] // clippy doesn't see that what the tests call is part of them
#![allow(clippy::duplicate_mod)] // each file of tests stands for itself too

#[path = "postgres/alone.rs"]
mod alone;
#[path = "crash.rs"]
mod crash;
#[path = "jobs.rs"]
mod jobs;
#[path = "place/mod.rs"]
mod place;
#[path = "versions.rs"]
mod versions;
