//! The body of `POST /v1/completions`.

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::options::{CHOICES_MAX, LOGPROBS_MAX, Options};

/// What OpenAI generates where nothing is said.
pub const TOKENS_MAX_DEFAULT: usize = 16;

#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    pub options: Options,
    /// At least one; with the choices for each, at most [`CHOICES_MAX`] answers.
    pub prompts: Vec<TextPrompt>,
    /// `None` takes [`TOKENS_MAX_DEFAULT`], or what the context leaves.
    pub tokens_max: Option<usize>,
    pub logprobs: Option<usize>,
    /// The answer begins with the prompt.
    pub echo: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TextPrompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl CompletionRequest {
    pub fn decode(body: Map<String, Value>) -> Result<CompletionRequest, ApiError> {
        let mut fields = Fields::new(body);
        let options = Options::take(&mut fields)?;
        let prompts = prompts(fields.take("prompt").ok_or_else(|| ApiError::missing("prompt"))?)?;
        let answers = prompts.len().saturating_mul(options.choices);
        if answers > CHOICES_MAX {
            let message =
                format!("`prompt` and `n` must ask for at most {CHOICES_MAX} answers; received {answers}");
            return Err(ApiError::invalid("n", message));
        }
        let tokens_max = fields.count("max_tokens", 0, i64::MAX)?;
        let logprobs = fields.count("logprobs", 0, LOGPROBS_MAX)?;
        let echo = fields.boolean("echo")?.unwrap_or(false);
        fields.refuse("suffix", |suffix| suffix == "")?;
        fields.refuse("best_of", |best_of| *best_of == json!(options.choices))?;
        fields.refuse("response_format", |format| *format == json!({ "type": "text" }))?;
        fields.finish()?;
        Ok(CompletionRequest { options, prompts, tokens_max, logprobs, echo })
    }
}

/// A text, an array of texts, an array of tokens, or an array of such arrays.
fn prompts(value: Value) -> Result<Vec<TextPrompt>, ApiError> {
    const EXPECTED: &str = "a text, an array of texts, an array of token ids, or an array of such arrays";
    let values = match value {
        Value::String(text) => return Ok(vec![TextPrompt::Text(text)]),
        Value::Array(values) => values,
        other => return Err(wrong("prompt", EXPECTED, &other)),
    };
    match values.first() {
        None => {
            Err(ApiError::invalid("prompt", format!("`prompt` must be {EXPECTED}; received an empty array")))
        }
        Some(Value::Number(_)) => Ok(vec![tokens(&values, "prompt")?]),
        Some(_) => {
            let prompt = |(index, value): (usize, Value)| match value {
                Value::String(text) => Ok(TextPrompt::Text(text)),
                Value::Array(values) => tokens(&values, &format!("prompt[{index}]")),
                other => Err(wrong(&format!("prompt[{index}]"), "a text or an array of token ids", &other)),
            };
            values.into_iter().enumerate().map(prompt).collect()
        }
    }
}

fn tokens(values: &[Value], path: &str) -> Result<TextPrompt, ApiError> {
    let token = |(index, value): (usize, &Value)| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| wrong(&format!("{path}[{index}]"), "a token id", value))
    };
    values.iter().enumerate().map(token).collect::<Result<_, _>>().map(TextPrompt::Tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(extra: Value) -> Result<CompletionRequest, ApiError> {
        let mut body = json!({ "model": "m", "prompt": "Once" });
        for (name, value) in extra.as_object().unwrap() {
            body[name] = value.clone();
        }
        let Value::Object(body) = body else { panic!("an object") };
        CompletionRequest::decode(body)
    }

    fn check_refused(extra: Value, param: &str, message: &str) {
        let error = decode(extra.clone()).map(|_| ()).unwrap_err().json();
        let message = json!(message);
        assert_eq!(
            (&error["error"]["param"], &error["error"]["message"]),
            (&json!(param), &message),
            "{extra}"
        );
    }

    #[test]
    fn prompts_come_in_four_shapes() {
        let check = |prompt: Value, expected: &[TextPrompt]| {
            assert_eq!(decode(json!({ "prompt": prompt })).unwrap().prompts, expected);
        };
        let text = |text: &str| TextPrompt::Text(text.to_owned());
        check(json!("a"), &[text("a")]);
        check(json!(["a", "b"]), &[text("a"), text("b")]);
        check(json!([1, 2]), &[TextPrompt::Tokens(vec![1, 2])]);
        check(json!([[1], [2, 3]]), &[TextPrompt::Tokens(vec![1]), TextPrompt::Tokens(vec![2, 3])]);
    }

    #[test]
    fn other_prompts_are_refused_by_their_place() {
        let shapes =
            "`prompt` must be a text, an array of texts, an array of token ids, or an array of such arrays";
        check_refused(json!({ "prompt": [] }), "prompt", &format!("{shapes}; received an empty array"));
        check_refused(json!({ "prompt": 7 }), "prompt", &format!("{shapes}; received 7"));
        check_refused(
            json!({ "prompt": [1, "a"] }),
            "prompt[1]",
            "`prompt[1]` must be a token id; received \"a\"",
        );
        check_refused(
            json!({ "prompt": [1, -1] }),
            "prompt[1]",
            "`prompt[1]` must be a token id; received -1",
        );
        check_refused(
            json!({ "prompt": ["a", 1] }),
            "prompt[1]",
            "`prompt[1]` must be a text or an array of token ids; received 1",
        );
        check_refused(
            json!({ "prompt": [[1, 2.5]] }),
            "prompt[0][1]",
            "`prompt[0][1]` must be a token id; received 2.5",
        );
        check_refused(json!({ "prompt": null }), "prompt", "`prompt` is required and missing");
        let many = json!({ "prompt": vec!["a"; 65], "n": 2 });
        check_refused(many, "n", "`prompt` and `n` must ask for at most 128 answers; received 130");
    }

    #[test]
    fn the_rest_is_read_and_what_would_change_the_answer_refused() {
        let request =
            decode(json!({ "max_tokens": 0, "echo": true, "logprobs": 5, "suffix": "", "best_of": 1 }))
                .unwrap();
        assert_eq!((request.tokens_max, request.echo, request.logprobs), (Some(0), true, Some(5)));
        assert_eq!(decode(json!({})).unwrap().tokens_max, None);
        let refused = |name: &str| {
            format!("`{name}` is not supported by this server, and ignoring it would change the answer")
        };
        check_refused(json!({ "suffix": "end" }), "suffix", &refused("suffix"));
        check_refused(json!({ "best_of": 4 }), "best_of", &refused("best_of"));
        check_refused(
            json!({ "logprobs": true }),
            "logprobs",
            "`logprobs` must be an integer from 0 to 20; received true",
        );
        check_refused(
            json!({ "max_tokens": -1 }),
            "max_tokens",
            "`max_tokens` must be an integer of 0 or more; received -1",
        );
        let unknown =
            "`messages` is not a parameter that this server knows: leave it out, or check its spelling";
        check_refused(json!({ "messages": [] }), "messages", unknown);
    }
}
