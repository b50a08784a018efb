//! Makes a model smaller and says what that cost: a version in, a smaller one and a report out.

pub mod networks;
