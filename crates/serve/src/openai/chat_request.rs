//! The body of `POST /v1/chat/completions`.

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::messages::messages;
use super::options::{LOGPROBS_MAX, Options};
use crate::strict_json::Counts;

/// Bytes of `chat_template_kwargs` as JSON: switches, names, a few texts. They are kept, copied and marked for the
/// template, each many times as large as its JSON.
const TEMPLATE_VARIABLES_BYTES_MAX: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    pub options: Options,
    /// As the template takes them.
    pub messages: Value,
    /// Further variables for the template.
    pub template_variables: Map<String, Value>,
    /// `None` takes what the context leaves.
    pub tokens_max: Option<usize>,
    pub logprobs: Option<usize>,
}

impl ChatRequest {
    /// `counts` is what parsing the body counted.
    pub fn decode(body: Map<String, Value>, mut counts: Counts) -> Result<ChatRequest, ApiError> {
        let mut fields = Fields::new(body);
        let options = Options::take(&mut fields)?;
        let values = fields.array("messages")?.ok_or_else(|| ApiError::missing("messages"))?;
        let tokens_max = tokens_max(&mut fields)?;
        let logprobs = logprobs(&mut fields)?;
        let mut template_variables = match fields.take("chat_template_kwargs") {
            None => Map::new(),
            Some(Value::Object(map)) => small(map)?,
            Some(other) => return Err(wrong("chat_template_kwargs", "an object", &other)),
        };
        // Some models' templates tell the model of these; the others have nothing that they would change.
        for name in ["reasoning_effort", "verbosity"] {
            if let Some(text) = fields.string(name)? {
                template_variables.entry(name).or_insert(Value::String(text));
            }
        }
        refuse_unsupported(&mut fields)?;
        fields.finish()?;
        let messages = messages(values, &mut counts)?;
        Ok(ChatRequest { options, messages, template_variables, tokens_max, logprobs })
    }
}

fn small(variables: Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    let mut room = Room(TEMPLATE_VARIABLES_BYTES_MAX);
    if serde_json::to_writer(&mut room, &variables).is_err() {
        let message =
            format!("`chat_template_kwargs` must have at most {TEMPLATE_VARIABLES_BYTES_MAX} bytes of JSON");
        return Err(ApiError::invalid("chat_template_kwargs", message));
    }
    Ok(variables)
}

/// Takes so many bytes and keeps none.
struct Room(usize);

impl std::io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `max_completion_tokens`, or `max_tokens` as it was called before.
fn tokens_max(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let old = fields.count("max_tokens", 1, i64::MAX)?;
    let new = fields.count("max_completion_tokens", 1, i64::MAX)?;
    match (old, new) {
        (Some(old), Some(new)) if old != new => {
            let message =
                format!("`max_tokens` and `max_completion_tokens` mean the same; received {old} and {new}");
            Err(ApiError::invalid("max_tokens", message))
        }
        (old, new) => Ok(new.or(old)),
    }
}

fn logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    match fields.count("top_logprobs", 0, LOGPROBS_MAX)? {
        Some(top) if top > 0 && !wanted => Err(ApiError::invalid(
            "top_logprobs",
            "`top_logprobs` may only be given with `logprobs: true`".to_owned(),
        )),
        top => Ok(wanted.then_some(top.unwrap_or(0))),
    }
}

/// What we can't do and what would be missed.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    let none = json!("none");
    // With "none" the tools that are there may not be called, so not showing them is the same.
    let unused = fields.take("tool_choice").filter(|choice| *choice != "auto");
    fields.refuse("tools", |tools| is_empty(tools) || unused.as_ref() == Some(&none))?;
    if unused.is_some_and(|choice| choice != none) {
        return Err(ApiError::unsupported("tool_choice"));
    }
    fields.refuse("functions", is_empty)?;
    fields.refuse("function_call", |choice| choice == "none" || choice == "auto")?;
    fields.refuse("response_format", |format| *format == json!({ "type": "text" }))?;
    fields.refuse("modalities", |modalities| *modalities == json!(["text"]))?;
    fields.refuse("audio", |_| false)?;
    fields.refuse("web_search_options", |_| false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(extra: Value) -> Result<ChatRequest, ApiError> {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        let Value::Object(body) = body else { panic!("an object") };
        ChatRequest::decode(body, Counts::default())
    }

    fn check_refused(extra: Value, param: &str, code: &str) {
        let error = decode(extra.clone()).map(|_| ()).unwrap_err().json();
        assert_eq!(
            (&error["error"]["param"], &error["error"]["code"]),
            (&json!(param), &json!(code)),
            "{extra}"
        );
        assert_eq!(error["error"]["type"], "invalid_request_error");
    }

    #[test]
    fn the_whole_error_has_the_shape_of_openai() {
        let error = decode(json!({ "tools": [{ "type": "function" }] })).map(|_| ()).unwrap_err();
        let expected = json!({ "error": {
            "message": "`tools` is not supported by this server, and ignoring it would change the answer",
            "type": "invalid_request_error", "param": "tools", "code": "unsupported_parameter",
        }});
        assert_eq!((error.json(), error.status().as_u16()), (expected, 400));
    }

    #[test]
    fn what_would_change_the_answer_is_refused_and_neutral_values_pass() {
        let unsupported = "unsupported_parameter";
        check_refused(json!({ "tools": [{}] }), "tools", unsupported);
        check_refused(json!({ "tools": [{}], "tool_choice": "auto" }), "tools", unsupported);
        check_refused(json!({ "tool_choice": "required" }), "tool_choice", unsupported);
        check_refused(json!({ "functions": [{}] }), "functions", unsupported);
        check_refused(
            json!({ "response_format": { "type": "json_object" } }),
            "response_format",
            unsupported,
        );
        check_refused(json!({ "modalities": ["text", "audio"] }), "modalities", unsupported);
        check_refused(json!({ "audio": { "voice": "x" } }), "audio", unsupported);
        check_refused(json!({ "web_search_options": {} }), "web_search_options", unsupported);
        check_refused(json!({ "best_of": 2 }), "best_of", "unknown_parameter");
        check_refused(json!({ "messages": null }), "messages", "missing_required_parameter");
        check_refused(json!({ "model": null }), "model", "missing_required_parameter");
        for neutral in [
            json!({ "tools": [], "tool_choice": "none" }),
            json!({ "tools": [{ "type": "function" }], "tool_choice": "none" }),
            json!({ "tool_choice": "auto", "functions": [], "function_call": "none" }),
            json!({ "response_format": { "type": "text" }, "modalities": ["text"], "audio": null }),
            json!({ "reasoning_effort": "low", "parallel_tool_calls": false, "service_tier": "auto" }),
        ] {
            assert!(decode(neutral.clone()).is_ok(), "{neutral}");
        }
    }

    #[test]
    fn efforts_reach_the_template() {
        let variables = |extra: Value| Value::Object(decode(extra).unwrap().template_variables);
        assert_eq!(variables(json!({ "reasoning_effort": "low" })), json!({ "reasoning_effort": "low" }));
        let both = json!({ "verbosity": "high", "chat_template_kwargs": { "verbosity": "low", "a": 1 } });
        assert_eq!(variables(both), json!({ "verbosity": "low", "a": 1 }));
        check_refused(json!({ "reasoning_effort": 3 }), "reasoning_effort", "invalid_value");
        let of_bytes = |bytes: usize| json!({ "chat_template_kwargs": { "a": "x".repeat(bytes - 8) } });
        assert!(decode(of_bytes(TEMPLATE_VARIABLES_BYTES_MAX)).is_ok());
        check_refused(of_bytes(TEMPLATE_VARIABLES_BYTES_MAX + 1), "chat_template_kwargs", "invalid_value");
    }

    #[test]
    fn lengths_and_logprobs_are_read() {
        let check = |extra: Value, tokens_max: Option<usize>, logprobs: Option<usize>| {
            let request = decode(extra).unwrap();
            assert_eq!((request.tokens_max, request.logprobs), (tokens_max, logprobs));
        };
        check(json!({}), None, None);
        check(json!({ "max_tokens": 5 }), Some(5), None);
        check(json!({ "max_completion_tokens": 6 }), Some(6), None);
        check(json!({ "max_tokens": 7, "max_completion_tokens": 7 }), Some(7), None);
        check(json!({ "logprobs": true }), None, Some(0));
        check(json!({ "logprobs": true, "top_logprobs": 20 }), None, Some(20));
        check(json!({ "logprobs": false, "top_logprobs": 0 }), None, None);
        check_refused(json!({ "max_tokens": 0 }), "max_tokens", "invalid_value");
        check_refused(json!({ "max_tokens": 1, "max_completion_tokens": 2 }), "max_tokens", "invalid_value");
        check_refused(json!({ "top_logprobs": 1 }), "top_logprobs", "invalid_value");
        check_refused(json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs", "invalid_value");
        check_refused(json!({ "logprobs": 3 }), "logprobs", "invalid_value");
    }
}
