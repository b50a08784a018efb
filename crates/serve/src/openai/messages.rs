//! The messages of a conversation, checked and brought into the shape that chat templates of open models expect.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::fields::{Fields, wrong};
use crate::body::{BodyError, parse_object};
use crate::json_depth::JSON_DEPTH_MAX;
use crate::shorten::shorten;
use crate::strict_json::{CONTAINERS_MAX, Counts, VALUES_MAX};

const MESSAGES_MAX: usize = 4096;
const ROLES: &str = "one of system, developer, user, assistant and tool";

/// An array of `{role, content, ...}` with plain text contents. Arguments of calls, which are texts of JSON, count with
/// what `counts` has of the body already.
///
/// # Errors
/// Names the place, as `messages[2].content`.
pub fn messages(values: Vec<Value>, counts: &mut Counts) -> Result<Value, ApiError> {
    if values.is_empty() || values.len() > MESSAGES_MAX {
        let message = format!("`messages` must have 1 to {MESSAGES_MAX} messages; received {}", values.len());
        return Err(ApiError::invalid("messages", message));
    }
    let place = |(index, value)| message(value, &format!("messages[{index}]"), counts);
    let messages = values.into_iter().enumerate().map(place).collect::<Result<Vec<Value>, _>>()?;
    check_tool_messages(&messages)?;
    Ok(Value::Array(messages))
}

/// A result of a tool follows the assistant's message that called it, or another result: templates take that for
/// granted, and OpenAI refuses anything else.
fn check_tool_messages(messages: &[Value]) -> Result<(), ApiError> {
    let mut ids: HashSet<&str> = HashSet::new();
    for (index, message) in messages.iter().enumerate() {
        if message["role"] != "tool" {
            let calls = message["tool_calls"].as_array().into_iter().flatten();
            ids = calls.filter_map(|call| call["id"].as_str()).collect();
            continue;
        }
        let param = format!("messages[{index}].tool_call_id");
        let id = message.get("tool_call_id").ok_or_else(|| ApiError::missing(&param))?;
        if !id.as_str().is_some_and(|id| ids.contains(id)) {
            let message = format!(
                "`{param}` must be the id of a call in the assistant's message before it; received {}",
                shorten(&id.to_string())
            );
            return Err(ApiError::invalid(&param, message));
        }
    }
    Ok(())
}

fn message(value: Value, path: &str, counts: &mut Counts) -> Result<Value, ApiError> {
    let mut fields = Fields::of(value, path)?;
    let role = fields.required_string("role")?;
    let role = match role.as_str() {
        "system" | "user" | "assistant" | "tool" => role.as_str(),
        "developer" => "system",
        _ => return Err(wrong(&fields.path("role"), ROLES, &Value::String(role))),
    };
    let mut message = Map::new();
    message.insert("role".to_owned(), json!(role));
    let calls = if role == "assistant" { tool_calls(&mut fields, counts)? } else { Vec::new() };
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
fn tool_calls(fields: &mut Fields, counts: &mut Counts) -> Result<Vec<Value>, ApiError> {
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
        let text = function.required_string("arguments")?;
        let arguments = arguments(text, &function.path("arguments"), counts)?;
        function.finish()?;
        call.ignore(&["index"]);
        call.finish()?;
        Ok(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } }))
    };
    calls.into_iter().enumerate().map(call).collect()
}

/// A text of JSON within the body's bounds: what it holds would else escape them.
fn arguments(text: String, param: &str, counts: &mut Counts) -> Result<Map<String, Value>, ApiError> {
    let problem = match parse_object(text.as_bytes(), counts) {
        Ok(arguments) => return Ok(arguments),
        Err(BodyError::TooDeep { .. }) => {
            format!("`{param}` nests more than {JSON_DEPTH_MAX} levels of arrays and objects")
        }
        Err(BodyError::TooManyValues) => format!(
            "with `{param}`, the body and the arguments of calls in it have more than {VALUES_MAX} values, or more \
             than {CONTAINERS_MAX} arrays and objects, the most that this server takes"
        ),
        Err(BodyError::DuplicateKey(key)) => {
            format!("`{param}` has the key {key:?} twice in one object: which one is meant?")
        }
        Err(_) => return Err(wrong(param, "the text of a JSON object", &Value::String(text))),
    };
    Err(ApiError::invalid(param, problem))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn messages(values: Vec<Value>) -> Result<Value, ApiError> {
        super::messages(values, &mut Counts::default())
    }

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
    fn results_of_tools_follow_their_calls() {
        let assistant = json!({ "role": "assistant", "tool_calls": [
            { "id": "1", "function": { "name": "f", "arguments": "{}" } },
            { "id": "2", "function": { "name": "f", "arguments": "{}" } },
        ]});
        let user = json!({ "role": "user", "content": "x" });
        let tool = |id: &str| json!({ "role": "tool", "tool_call_id": id, "content": "y" });
        assert!(messages(vec![user.clone(), assistant.clone(), tool("2"), tool("1"), user.clone()]).is_ok());
        let place = |index: usize| format!("messages[{index}].tool_call_id");
        let wrong = |index: usize, id: &str| {
            format!(
                "`{}` must be the id of a call in the assistant's message before it; received \"{id}\"",
                place(index)
            )
        };
        check_refused(json!([tool("1")]), &place(0), &wrong(0, "1"));
        check_refused(json!([assistant, user, tool("1")]), &place(2), &wrong(2, "1"));
        check_refused(json!([assistant, tool("3")]), &place(1), &wrong(1, "3"));
        let nameless = json!({ "role": "tool", "content": "y" });
        check_refused(
            json!([assistant, nameless]),
            &place(1),
            &format!("`{}` is required and missing", place(1)),
        );
    }

    #[test]
    fn arguments_of_calls_are_as_shallow_as_bodies() {
        let arguments = format!("{{\"a\":{}{}}}", "[".repeat(32), "]".repeat(32));
        let param = "messages[0].tool_calls[0].function.arguments";
        check_refused(
            json!([{ "role": "assistant", "tool_calls": [
                { "id": "1", "function": { "name": "f", "arguments": arguments } },
            ]}]),
            param,
            &format!("`{param}` nests more than 32 levels of arrays and objects"),
        );
    }

    #[test]
    fn arguments_of_all_calls_count_together_and_have_no_key_twice() {
        let call = |arguments: &str| {
            json!({ "role": "assistant", "tool_calls": [
                { "id": "1", "function": { "name": "f", "arguments": arguments } },
            ]})
        };
        let param = |index: usize| format!("messages[{index}].tool_calls[0].function.arguments");
        let twice = format!("`{}` has the key \"a\" twice in one object: which one is meant?", param(0));
        check_refused(json!([call(r#"{"a":1,"a":2}"#)]), &param(0), &twice);
        // Each has half of what all may have, and its own object more.
        let half = |value: &str, count: usize| {
            call(&format!("{{\"a\":[{}{value}]}}", format!("{value},").repeat(count - 1)))
        };
        let too_many = format!(
            "with `{}`, the body and the arguments of calls in it have more than 1048576 values, or more than 32768 \
             arrays and objects, the most that this server takes",
            param(1)
        );
        for (value, count) in [("0", VALUES_MAX / 2), ("{}", CONTAINERS_MAX / 2)] {
            assert!(messages(vec![half(value, count)]).is_ok());
            check_refused(json!([half(value, count), half(value, count)]), &param(1), &too_many);
        }
    }

    #[test]
    fn as_many_calls_and_results_as_a_body_holds_are_checked_in_no_time() {
        let ids = (0..14_300).map(|index| format!("c{index}"));
        let calls: Vec<Value> =
            ids.map(|id| json!({ "id": id, "function": { "name": "f", "arguments": "{}" } })).collect();
        let mut values = vec![json!({ "role": "assistant", "tool_calls": calls })];
        let last = json!({ "role": "tool", "tool_call_id": "c14299", "content": "" });
        values.resize(MESSAGES_MAX, last);
        let begun = Instant::now();
        assert!(messages(values).is_ok());
        // Each result with each call took minutes in a build without optimisation.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
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
