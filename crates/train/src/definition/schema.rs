//! The JSON Schema of definitions, by which editors complete and check them.

use serde_json::{Value, json};

use super::Definition;

/// The schema, made from the structs.
pub fn schema() -> Value {
    serde_json::to_value(schemars::schema_for!(Definition)).unwrap_or(json!(true))
}
