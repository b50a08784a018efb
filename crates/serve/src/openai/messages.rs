//! The messages of a conversation, checked and brought into the shape that chat templates of open models expect.

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::fields::{Fields, shorten, wrong};

const MESSAGES_MAX: usize = 4096;
const ROLES: &str = "one of system, developer, user, assistant and tool";

/// An array of `{role, content, ...}` with plain text contents.
///
/// # Errors
/// Names the place, as `messages[2].content`.
pub fn messages(values: Vec<Value>) -> Result<Value, ApiError> {
    if values.is_empty() || values.len() > MESSAGES_MAX {
        let message = format!("`messages` must have 1 to {MESSAGES_MAX} messages; received {}", values.len());
        return Err(ApiError::invalid("messages", message));
    }
    let place = |(index, value)| message(value, &format!("messages[{index}]"));
    values.into_iter().enumerate().map(place).collect::<Result<Vec<Value>, _>>().map(Value::Array)
}

fn message(value: Value, path: &str) -> Result<Value, ApiError> {
    let mut fields = Fields::of(value, path)?;
    let role = fields.required_string("role")?;
    let role = match role.as_str() {
        "system" | "user" | "assistant" | "tool" => role.as_str(),
        "developer" => "system",
        _ => return Err(wrong(&fields.path("role"), ROLES, &Value::String(role))),
    };
    let mut message = Map::new();
    message.insert("role".to_owned(), json!(role));
    let calls = if role == "assistant" { tool_calls(&mut fields)? } else { Vec::new() };
    let content_path = fields.path("content");
    match fields.take("content") {
        Some(content) => message.insert("content".to_owned(), json!(text(content, &content_path)?)),
        None if role == "assistant" => message.insert("content".to_owned(), json!("")),
        None => return Err(ApiError::missing(&content_path)),
    };
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    let known: &[&str] = match role {
        "assistant" => &["name", "reasoning_content"],
        "tool" => &["name", "tool_call_id"],
        _ => &["name"],
    };
    for name in known {
        if let Some(text) = fields.string(name)? {
            message.insert((*name).to_owned(), json!(text));
        }
    }
    if role == "assistant" {
        fields.refuse("audio", |_| false)?;
        fields.refuse("function_call", |_| false)?;
        // Parts of an earlier answer that say nothing to the model.
        fields.ignore(&["refusal", "annotations"]);
    }
    fields.finish()?;
    Ok(Value::Object(message))
}

/// A content's text: itself, or its parts of type text, a line each.
fn text(content: Value, path: &str) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => return Err(wrong(path, "a text or an array of parts", &other)),
    };
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = Fields::of(part, &format!("{path}[{index}]"))?;
        let kind = part.required_string("type")?;
        if kind != "text" {
            let param = part.path("type");
            let message = format!(
                "`{param}` must be \"text\", as this server reads nothing else; received {:?}",
                shorten(&kind)
            );
            return Err(ApiError::invalid(&param, message));
        }
        texts.push(part.required_string("text")?);
        part.finish()?;
    }
    Ok(texts.join("\n"))
}

/// Calls that an earlier answer made. Templates expect the arguments as an object, OpenAI's clients send its text.
fn tool_calls(fields: &mut Fields) -> Result<Vec<Value>, ApiError> {
    let path = fields.path("tool_calls");
    let calls = fields.array("tool_calls")?.unwrap_or_default();
    let call = |(index, call): (usize, Value)| {
        let mut call = Fields::of(call, &format!("{path}[{index}]"))?;
        let id = call.required_string("id")?;
        if let Some(kind) = call.string("type")?.filter(|kind| kind != "function") {
            return Err(wrong(&call.path("type"), "\"function\"", &Value::String(kind)));
        }
        let function_path = call.path("function");
        let function = call.take("function").ok_or_else(|| ApiError::missing(&function_path))?;
        let mut function = Fields::of(function, &function_path)?;
        let name = function.required_string("name")?;
        let arguments = function.required_string("arguments")?;
        let arguments: Map<String, Value> = serde_json::from_str(&arguments).map_err(|_| {
            wrong(&function.path("arguments"), "the text of a JSON object", &Value::String(arguments))
        })?;
        function.finish()?;
        call.ignore(&["index"]);
        call.finish()?;
        Ok(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } }))
    };
    calls.into_iter().enumerate().map(call).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: Value, expected: Value) {
        let Value::Array(values) = input else { panic!("an array") };
        assert_eq!(messages(values), Ok(expected));
    }

    fn check_refused(input: Value, param: &str, message: &str) {
        let Value::Array(values) = input else { panic!("an array") };
        let error = messages(values).unwrap_err().json();
        assert_eq!((&error["error"]["param"], &error["error"]["message"]), (&json!(param), &json!(message)));
    }

    #[test]
    fn contents_become_plain_text() {
        check(
            json!([
                { "role": "developer", "content": "Be kind." },
                { "role": "user", "name": "ann", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
                { "role": "assistant", "content": "c", "refusal": null, "tool_calls": [], "annotations": [] },
            ]),
            json!([
                { "role": "system", "content": "Be kind." },
                { "role": "user", "content": "a\nb", "name": "ann" },
                { "role": "assistant", "content": "c" },
            ]),
        );
    }

    #[test]
    fn earlier_tool_calls_reach_the_template_with_arguments_as_objects() {
        let call = |arguments: Value| json!([{ "id": "1", "type": "function", "function": { "name": "add", "arguments": arguments } }]);
        check(
            json!([
                { "role": "assistant", "content": null, "tool_calls": call(json!("{\"a\":1}")) },
                { "role": "tool", "tool_call_id": "1", "content": "2" },
            ]),
            json!([
                { "role": "assistant", "content": "", "tool_calls": call(json!({ "a": 1 })) },
                { "role": "tool", "content": "2", "tool_call_id": "1" },
            ]),
        );
        check_refused(
            json!([{ "role": "assistant", "tool_calls": call(json!("[1]")) }]),
            "messages[0].tool_calls[0].function.arguments",
            "`messages[0].tool_calls[0].function.arguments` must be the text of a JSON object; received \"[1]\"",
        );
    }

    #[test]
    fn what_a_template_could_not_show_is_refused_by_its_place() {
        check_refused(json!([]), "messages", "`messages` must have 1 to 4096 messages; received 0");
        check_refused(json!([1]), "messages[0]", "`messages[0]` must be an object; received 1");
        check_refused(
            json!([{ "content": "x" }]),
            "messages[0].role",
            "`messages[0].role` is required and missing",
        );
        check_refused(
            json!([{ "role": "robot", "content": "x" }]),
            "messages[0].role",
            "`messages[0].role` must be one of system, developer, user, assistant and tool; received \"robot\"",
        );
        check_refused(
            json!([{ "role": "user", "content": "x" }, { "role": "user" }]),
            "messages[1].content",
            "`messages[1].content` is required and missing",
        );
        check_refused(
            json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] }]),
            "messages[0].content[0].type",
            "`messages[0].content[0].type` must be \"text\", as this server reads nothing else; received \"image_url\"",
        );
        check_refused(
            json!([{ "role": "user", "content": "x", "colour": "red" }]),
            "messages[0].colour",
            "`messages[0].colour` is not a parameter that this server knows: leave it out, or check its spelling",
        );
    }
}
