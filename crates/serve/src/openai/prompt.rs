//! From a decoded body to the engine's requests: templates, tokens, and a request for each answer.

use engine::llm::Llm;
use engine::llm::request::{GenerateRequest, SubmitError};
use serde_json::{Map, Value};

use super::chat_request::ChatRequest;
use super::completion_request::{CompletionRequest, TextPrompt};
use super::error::ApiError;
use super::options::Options;
use super::response::Kind;

/// Bytes of all echoes of a request together.
const ECHO_BYTES_MAX: usize = 16 << 20;

/// A body as either endpoint decodes it.
pub enum Asked {
    Chat(ChatRequest),
    Completion(CompletionRequest),
}

impl Asked {
    pub fn options(&self) -> &Options {
        match self {
            Asked::Chat(request) => &request.options,
            Asked::Completion(request) => &request.options,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Asked::Chat(_) => Kind::Chat,
            Asked::Completion(_) => Kind::Text,
        }
    }
}

/// What the engine is to do: for each prompt in turn, its choices.
pub struct Work {
    pub requests: Vec<GenerateRequest>,
    /// With what each answer begins.
    pub echoes: Vec<Option<String>>,
}

/// Takes milliseconds for a long prompt, so not to be called where other connections wait.
///
/// # Errors
/// A template that fails, a prompt beyond the context.
pub fn prepare(llm: &Llm, asked: Asked) -> Result<Work, ApiError> {
    let param = asked.kind().prompt_param();
    let context = llm.facts().context;
    let (options, prompts, tokens_max, logprobs) = match asked {
        Asked::Chat(request) => {
            let tokens = chat_tokens(llm, &request.messages, &request.template_variables)?;
            // The engine cuts this to what the context leaves.
            let tokens_max = match request.tokens_max {
                None => usize::MAX,
                Some(tokens_max) => check_answer(tokens_max, context)?,
            };
            (request.options, vec![(tokens, None)], tokens_max, request.logprobs)
        }
        Asked::Completion(request) => {
            let prompts = request.prompts.into_iter().map(|prompt| text_tokens(llm, prompt, request.echo));
            let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
            check_echoes(&prompts, request.options.choices)?;
            let tokens_max = check_answer(request.tokens_max, context)?;
            (request.options, prompts, tokens_max, request.logprobs)
        }
    };
    let work = spread(&options, prompts, tokens_max, logprobs);
    let biased = |token: &u32| options.sampling.logit_bias.iter().any(|(biased, _)| biased == token);
    for request in &work.requests {
        llm.check(request).map_err(|error| {
            let is_bias = matches!(&error, SubmitError::UnknownToken { token, .. } if biased(token));
            ApiError::submit(error, if is_bias { "logit_bias" } else { param }, 0)
        })?;
    }
    Ok(work)
}

/// More than any prompt leaves room for is a mistake; as much as some would is cut to what this one does.
fn check_answer(tokens_max: usize, context: usize) -> Result<usize, ApiError> {
    if tokens_max > context {
        let message =
            format!("`max_tokens` must be at most {context}, this model's context; received {tokens_max}");
        return Err(ApiError::invalid("max_tokens", message));
    }
    Ok(tokens_max)
}

fn check_echoes(prompts: &[(Vec<u32>, Option<String>)], choices: usize) -> Result<(), ApiError> {
    let bytes: usize = prompts.iter().filter_map(|(_, echo)| echo.as_ref().map(String::len)).sum();
    let bytes = bytes.saturating_mul(choices);
    if bytes > ECHO_BYTES_MAX {
        let message = format!(
            "`echo` would repeat {bytes} bytes over all choices; at most {ECHO_BYTES_MAX} are: ask for fewer \
             choices, or without it"
        );
        return Err(ApiError::invalid("echo", message));
    }
    Ok(())
}

/// Each prompt's choices, prompt after prompt. A choice's seed depends on its number alone, so that a prompt gets
/// the same answers alone and among others.
fn spread(
    options: &Options,
    prompts: Vec<(Vec<u32>, Option<String>)>,
    tokens_max: usize,
    logprobs: Option<usize>,
) -> Work {
    let mut work = Work { requests: Vec::new(), echoes: Vec::new() };
    for (prompt, echo) in prompts {
        for choice in 0..options.choices {
            let mut sampling = options.sampling.clone();
            sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(choice as u64));
            work.requests.push(GenerateRequest {
                prompt: prompt.clone(),
                tokens_max,
                sampling,
                stop: options.stop.clone(),
                logprobs,
                prompt_logprobs: logprobs.is_some() && echo.is_some(),
                ignore_end: options.ignore_end,
            });
            work.echoes.push(echo.clone());
        }
    }
    work
}

fn chat_tokens(llm: &Llm, messages: &Value, variables: &Map<String, Value>) -> Result<Vec<u32>, ApiError> {
    let Some(template) = llm.template() else {
        let message = "this model's files have no chat template, so how a conversation is to be written for it is \
                       unknown: use /v1/completions, or a model made for chat";
        return Err(ApiError::template(message.to_owned()));
    };
    let text = template
        .render(messages, None, true, Some(variables))
        .map_err(|error| ApiError::template(error.to_string()))?;
    // Templates write the beginning-of-text token themselves.
    encode(llm, &text, false, "messages")
}

/// The tokens, and the text to echo where it is asked for.
fn text_tokens(llm: &Llm, prompt: TextPrompt, echo: bool) -> Result<(Vec<u32>, Option<String>), ApiError> {
    match prompt {
        TextPrompt::Text(text) => Ok((encode(llm, &text, true, "prompt")?, echo.then_some(text))),
        TextPrompt::Tokens(tokens) => {
            let vocabulary = llm.tokenizer().vocabulary();
            if let Some(token) = tokens.iter().copied().find(|token| *token as usize >= vocabulary) {
                return Err(ApiError::submit(SubmitError::UnknownToken { token, vocabulary }, "prompt", 0));
            }
            let bytes =
                || tokens.iter().flat_map(|token| llm.tokenizer().token_bytes(*token)).copied().collect();
            let text =
                echo.then(|| String::from_utf8_lossy(&Vec::from_iter::<Vec<u8>>(bytes())).into_owned());
            Ok((tokens, text))
        }
    }
}

fn encode(llm: &Llm, text: &str, add_special: bool, param: &str) -> Result<Vec<u32>, ApiError> {
    let context = llm.facts().context;
    let bytes_max = llm.tokenizer().text_bytes_max(context);
    if text.len() > bytes_max {
        return Err(ApiError::text_too_long(param, text.len(), bytes_max, context));
    }
    let tokens = llm.tokenizer().encode(text, true, add_special);
    tokens
        .map_err(|error| ApiError::invalid(param, format!("`{param}` can't be turned into tokens: {error}")))
}

#[cfg(test)]
mod tests {
    use engine::llm::request::Sampling;

    use super::*;
    use crate::openai::options::Delivery;
    use crate::openai::urgency::Urgency;

    #[test]
    fn a_prompt_too_long_by_its_bytes_is_not_even_tokenised() {
        let llm = crate::openai::choices::tests::llm(1, 1);
        let bytes_max = llm.tokenizer().text_bytes_max(128);
        assert!(encode(&llm, &"x".repeat(bytes_max), true, "prompt").is_ok());
        let error = encode(&llm, &"x".repeat(bytes_max + 1), true, "prompt").unwrap_err().json();
        assert_eq!(error["error"]["code"], "context_length_exceeded");
        let expected = format!(
            "the prompt is {} bytes long, and this model's context of 128 tokens holds at most {bytes_max}: \
             shorten the prompt",
            bytes_max + 1
        );
        assert_eq!(error["error"]["message"], expected.as_str());
    }

    #[test]
    fn echoes_and_answers_are_bounded() {
        let check = |bytes: usize, choices: usize, expected: bool| {
            let prompts = [(vec![1], Some("x".repeat(bytes))), (vec![1], None)];
            assert_eq!(check_echoes(&prompts, choices).is_ok(), expected, "{bytes} {choices}");
        };
        check(ECHO_BYTES_MAX, 1, true);
        check(ECHO_BYTES_MAX / 128, 128, true);
        check(4 << 20, 128, false);
        assert_eq!(check_answer(8192, 8192), Ok(8192));
        let error = check_answer(8193, 8192).unwrap_err().json();
        assert_eq!(
            error["error"]["message"],
            "`max_tokens` must be at most 8192, this model's context; received 8193"
        );
    }

    #[test]
    fn each_prompt_gets_its_choices_with_seeds_that_count_up() {
        let options = Options {
            model: "m".to_owned(),
            sampling: Sampling { seed: Some(u64::MAX), ..Sampling::default() },
            stop: vec!["x".to_owned()],
            choices: 2,
            ignore_end: false,
            urgency: Urgency::default(),
            delivery: Delivery::Whole,
        };
        let work = spread(&options, vec![(vec![1], None), (vec![2, 3], Some("b".to_owned()))], 9, Some(1));
        let seen = |request: &GenerateRequest| {
            (request.prompt.clone(), request.sampling.seed, request.prompt_logprobs)
        };
        assert_eq!(
            work.requests.iter().map(seen).collect::<Vec<_>>(),
            [
                (vec![1], Some(u64::MAX), false),
                (vec![1], Some(0), false),
                (vec![2, 3], Some(u64::MAX), true),
                (vec![2, 3], Some(0), true),
            ]
        );
        assert_eq!(work.echoes, [None, None, Some("b".to_owned()), Some("b".to_owned())]);
    }
}
