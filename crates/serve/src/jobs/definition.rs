//! What a caller wants done. Its texts may name uploaded files and nothing else of this machine.

use serde_json::{Map, Value};
use store::{ModelName, is_plain_path};

use crate::openai::ApiError;

/// Files of one job.
const FILES_MAX: usize = 1000;

/// The work that `tureen job` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Train,
    Compress,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Train, Kind::Compress];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Train => "train",
            Kind::Compress => "compress",
        }
    }
}

#[derive(Debug)]
pub struct Asked {
    pub kind: Kind,
    /// What is published; of a compression, this may be left out.
    pub model: Option<ModelName>,
    /// What the job is to do: of training its definition, of a compression all that no other key here says.
    pub definition: toml::Table,
    /// Names in the definition, and ids of uploads.
    pub files: Vec<(String, String)>,
}

/// # Errors
/// A parameter that is missing, unknown, or can't be used.
pub fn decode(mut body: Map<String, Value>) -> Result<Asked, ApiError> {
    let kind = text(&mut body, "kind")?;
    let Some(kind) = Kind::ALL.into_iter().find(|known| known.name() == kind) else {
        let known = Kind::ALL.map(Kind::name).join(" or ");
        return Err(ApiError::invalid("kind", format!("`kind` is {known}; received {kind:?}")));
    };
    let is_named = kind == Kind::Train || body.contains_key("model");
    let model = if is_named { Some(text(&mut body, "model")?) } else { None };
    let model = model.map(|text| ModelName::parse(&text)).transpose();
    let model = model.map_err(|error| ApiError::invalid("model", error.to_string()))?;
    let files = files(body.remove("files"))?;
    let definition = match kind {
        Kind::Train => definition(body.remove("definition"))?,
        Kind::Compress => request(std::mem::take(&mut body))?,
    };
    if let Some(other) = body.keys().next() {
        return Err(ApiError::unknown(other));
    }
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
    let table = match value {
        Some(Value::String(text)) => {
            text.parse().map_err(|error: toml::de::Error| invalid(error.to_string()))
        }
        Some(value @ Value::Object(_)) => {
            toml::Table::try_from(value).map_err(|error| invalid(format!("as TOML: {error}")))
        }
        Some(_) => Err(invalid("`definition` is TOML in a text, or the same as an object".to_owned())),
        None => Err(ApiError::missing("definition")),
    }?;
    names_uploads_only(&table).map_err(invalid)?;
    Ok(table)
}

/// The keys of a compression's request. One that is null isn't there, as elsewhere.
fn request(body: Map<String, Value>) -> Result<toml::Table, ApiError> {
    let mut table = toml::Table::new();
    for (name, value) in body.into_iter().filter(|(_, value)| !value.is_null()) {
        let wrong = |problem: String| ApiError::invalid(&name, problem);
        let value = toml::Value::try_from(value).map_err(|error| wrong(error.to_string()))?;
        names_no_place(&value).map_err(wrong)?;
        table.insert(name, value);
    }
    Ok(table)
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

/// Whether all that a definition names lies beside it, where a job has the files that were uploaded for it: what names
/// another place has a slash, or is the folder above.
///
/// # Errors
/// The text that doesn't, and what to do.
pub fn names_uploads_only(table: &toml::Table) -> Result<(), String> {
    table.values().try_for_each(names_no_place)
}

fn names_no_place(value: &toml::Value) -> Result<(), String> {
    match value {
        toml::Value::String(text) if text.contains(['/', '\\', '\0']) || text == ".." => {
            Err(format!("{text:?} has a slash: upload files, and call them in the definition as in `files`"))
        }
        toml::Value::Array(values) => values.iter().try_for_each(names_no_place),
        toml::Value::Table(table) => names_uploads_only(table),
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

    #[test]
    fn a_compression_is_the_body_s_other_keys() {
        let decode = |body: Value| decode(body.as_object().unwrap().clone());
        let files = json!({ "notes.txt": "file-1" });
        let asked =
            decode(json!({ "kind": "compress", "source": "net@1", "to": "Q4_0", "keep": 0.5, "epochs": null,
                                   "calibration": "notes.txt", "files": files }))
            .unwrap();
        assert_eq!((asked.kind, asked.model, asked.files.len()), (Kind::Compress, None, 1));
        let expected = "source = 'net@1'\nto = 'Q4_0'\nkeep = 0.5\ncalibration = 'notes.txt'";
        assert_eq!(asked.definition, expected.parse().unwrap());
        let named = decode(json!({ "kind": "compress", "model": "small:q4" })).unwrap().model;
        assert_eq!(named.unwrap().to_string(), "small:q4");
        for (key, value) in [
            ("source", json!("/etc/passwd")),
            ("calibration", json!("../notes.txt")),
            ("model", json!("../x")),
            ("epochs", json!(u64::MAX)),
            ("measure", json!([["a/b"]])),
        ] {
            let error = decode(json!({ "kind": "compress", key: value })).unwrap_err();
            assert_eq!(error.param(), Some(key));
        }
    }
}
