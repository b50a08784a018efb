//! Published models on this machine: what they are called, where they come from, how they get here and are kept.

pub mod cache;
pub mod catalogue;
pub mod download;
pub mod find;
pub mod http;
pub mod progress;
pub mod pull;
pub mod sources;
pub mod url;
pub mod wheel;

#[cfg(test)]
pub mod test_server;
