//! What a caller wants done. Its texts may name uploaded files and nothing else of this machine.

use serde_json::{Map, Value};
use store::{ModelName, is_plain_path};

use crate::openai::ApiError;

/// The work that `tureen job` knows.
const KINDS: [&str; 1] = ["train"];
/// Files of one job.
const FILES_MAX: usize = 1000;

#[derive(Debug)]
pub struct Asked {
    pub kind: String,
    pub model: ModelName,
    /// TOML.
    pub definition: String,
    /// Names in the definition, and ids of uploads.
    pub files: Vec<(String, String)>,
}

/// # Errors
/// A parameter that is missing, unknown, or can't be used.
pub fn decode(mut body: Map<String, Value>) -> Result<Asked, ApiError> {
    let kind = text(&mut body, "kind")?;
    if !KINDS.contains(&kind.as_str()) {
        return Err(ApiError::invalid(
            "kind",
            format!("`kind` is {}; received {kind:?}", KINDS.join(" or ")),
        ));
    }
    let model = ModelName::parse(&text(&mut body, "model")?);
    let model = model.map_err(|error| ApiError::invalid("model", error.to_string()))?;
    let files = files(body.remove("files"))?;
    let definition = definition(body.remove("definition"))?;
    if let Some(other) = body.keys().next() {
        return Err(ApiError::unknown(other));
    }
    check_texts(&definition)?;
    let definition = toml::to_string(&definition).map_err(|error| invalid(error.to_string()))?;
    Ok(Asked { kind, model, definition, files })
}

fn text(body: &mut Map<String, Value>, name: &str) -> Result<String, ApiError> {
    match body.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(ApiError::invalid(name, format!("`{name}` is to be a text"))),
        None => Err(ApiError::missing(name)),
    }
}

fn invalid(message: String) -> ApiError {
    ApiError::invalid("definition", message)
}

fn definition(value: Option<Value>) -> Result<toml::Table, ApiError> {
    match value {
        Some(Value::String(text)) => {
            text.parse().map_err(|error: toml::de::Error| invalid(error.to_string()))
        }
        Some(value @ Value::Object(_)) => {
            toml::Table::try_from(value).map_err(|error| invalid(format!("as TOML: {error}")))
        }
        Some(_) => Err(invalid("`definition` is TOML in a text, or the same as an object".to_owned())),
        None => Err(ApiError::missing("definition")),
    }
}

fn files(value: Option<Value>) -> Result<Vec<(String, String)>, ApiError> {
    let wrong = |message: String| ApiError::invalid("files", message);
    let object = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(object)) => object,
        Some(_) => return Err(wrong("`files` is an object of names and ids of files".to_owned())),
    };
    if object.len() > FILES_MAX {
        return Err(wrong(format!("{} files; a job may have {FILES_MAX}", object.len())));
    }
    let pair = |(name, id): (String, Value)| match id {
        Value::String(_) if !is_plain_path(&name) || name.contains('/') => {
            Err(wrong(format!("{name:?} is no name for a file: it may have no folders")))
        }
        Value::String(id) => Ok((name, id)),
        _ => Err(wrong(format!("{name:?} is to be the id of a file"))),
    };
    object.into_iter().map(pair).collect()
}

/// Files of a job lie beside its definition, so whatever names another place has a slash, or is the folder above.
fn check_texts(table: &toml::Table) -> Result<(), ApiError> {
    table.values().try_for_each(check_text)
}

fn check_text(value: &toml::Value) -> Result<(), ApiError> {
    match value {
        toml::Value::String(text) if text.contains(['/', '\\', '\0']) || text == ".." => Err(invalid(
            format!("{text:?} has a slash: upload files, and call them in the definition as in `files`"),
        )),
        toml::Value::Array(values) => values.iter().try_for_each(check_text),
        toml::Value::Table(table) => check_texts(table),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(definition: Value, files: Value) -> Map<String, Value> {
        let body = json!({ "kind": "train", "model": "digits", "definition": definition, "files": files });
        body.as_object().unwrap().clone()
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let files = json!({ "samples.csv": "file-1" });
        let text = decode(body(json!("[data]\npath = 'samples.csv'\n"), files.clone())).unwrap();
        let object = decode(body(json!({ "data": { "path": "samples.csv" } }), files)).unwrap();
        assert_eq!(text.definition, object.definition);
        assert_eq!(text.files, [("samples.csv".to_owned(), "file-1".to_owned())]);
    }

    #[test]
    fn a_definition_names_no_other_file_of_this_machine() {
        for path in ["/etc/passwd", "../x", "..", "a/b", "..\\x", "input/../../x"] {
            for definition in [
                json!({ "data": { "path": path } }),
                json!({ "data": { "x": [path] } }),
                json!({ "data": { "test": { "path": path } } }),
                json!({ "other": [{ "weights": path }] }),
            ] {
                assert!(decode(body(definition, json!({}))).is_err(), "{path}");
            }
            assert!(decode(body(json!({}), json!({ path: "file-1" }))).is_err(), "{path}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |change: (&str, Value), expected: &str| {
            let mut body = body(json!({}), json!({}));
            body.insert(change.0.to_owned(), change.1);
            assert_eq!(decode(body).unwrap_err().param(), Some(expected));
        };
        check(("kind", json!("cook")), "kind");
        check(("kind", json!(1)), "kind");
        check(("model", json!("../x")), "model");
        check(("definition", json!("a = ")), "definition");
        check(("definition", json!([])), "definition");
        check(("definition", json!({ "a": null })), "definition");
        check(("files", json!({ "a": 1 })), "files");
        check(("colour", json!(1)), "colour");
    }
}
