//! From a decoded body to the engine's requests: templates, tokens, and a request for each answer.

use engine::llm::Llm;
use engine::llm::request::{GenerateRequest, SubmitError};
use engine::llm::template::TemplateError;

use super::chat_request::ChatRequest;
use super::completion_request::{CompletionRequest, TOKENS_MAX_DEFAULT, TextPrompt};
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
/// A template that fails, a prompt beyond the context, or an answer that doesn't fit beside it.
pub fn prepare(llm: &Llm, asked: Asked) -> Result<Work, ApiError> {
    let param = asked.kind().prompt_param();
    let context = llm.facts().context;
    let tokens_max_default = match &asked {
        Asked::Chat(_) => usize::MAX,
        Asked::Completion(_) => TOKENS_MAX_DEFAULT,
    };
    let (options, prompts, tokens_max, logprobs) = match asked {
        Asked::Chat(request) => {
            let tokens = chat_tokens(llm, &request)?;
            (request.options, vec![(tokens, None)], request.tokens_max, request.logprobs)
        }
        Asked::Completion(request) => {
            let prompts = request.prompts.into_iter().map(|prompt| text_tokens(llm, prompt, request.echo));
            let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
            check_echoes(&prompts, request.options.choices)?;
            (request.options, prompts, request.tokens_max, request.logprobs)
        }
    };
    let biased = |token: &u32| options.sampling.logit_bias.iter().any(|(biased, _)| biased == token);
    let check = |request: &GenerateRequest| {
        llm.check(request).map_err(|error| {
            let is_bias = matches!(&error, SubmitError::UnknownToken { token, .. } if biased(token));
            ApiError::submit(error, if is_bias { "logit_bias" } else { param }, 0)
        })?;
        check_room(request.prompt.len(), tokens_max, context, param)
    };
    // The engine cuts what nobody asked for to what the context leaves.
    spread(&options, prompts, tokens_max.unwrap_or(tokens_max_default), logprobs, check)
}

/// An answer as long as was asked for must fit beside the prompt.
fn check_room(prompt: usize, tokens_max: Option<usize>, context: usize, param: &str) -> Result<(), ApiError> {
    match tokens_max {
        Some(tokens_max) if tokens_max > context.saturating_sub(prompt) => {
            Err(ApiError::no_room(param, prompt, tokens_max, context))
        }
        _ => Ok(()),
    }
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
/// the same answers alone and among others. The first of each must pass `check` before there are more of it: 128
/// copies of a prompt that is refused would take its memory 128 times.
fn spread(
    options: &Options,
    prompts: Vec<(Vec<u32>, Option<String>)>,
    tokens_max: usize,
    logprobs: Option<usize>,
    check: impl Fn(&GenerateRequest) -> Result<(), ApiError>,
) -> Result<Work, ApiError> {
    let mut work = Work { requests: Vec::new(), echoes: Vec::new() };
    for (prompt, echo) in prompts {
        let first = GenerateRequest {
            prompt,
            tokens_max,
            sampling: options.sampling.clone(),
            stop: options.stop.clone(),
            logprobs,
            prompt_logprobs: logprobs.is_some() && echo.is_some(),
            ignore_end: options.ignore_end,
        };
        check(&first)?;
        for choice in 0..options.choices {
            let mut request = first.clone();
            request.sampling.seed = first.sampling.seed.map(|seed| seed.wrapping_add(choice as u64));
            work.requests.push(request);
            work.echoes.push(echo.clone());
        }
    }
    Ok(work)
}

fn chat_tokens(llm: &Llm, request: &ChatRequest) -> Result<Vec<u32>, ApiError> {
    let Some(template) = llm.template() else {
        let message = "this model's files have no chat template, so how a conversation is to be written for it is \
                       unknown: use /v1/completions, or a model made for chat";
        return Err(ApiError::template(message.to_owned()));
    };
    let rendered = template.render(&request.messages, None, true, Some(&request.template_variables));
    let text = rendered.map_err(|error| template_error(&request.options.model, &error))?;
    // Templates write the beginning-of-text token themselves.
    encode(llm, &text, false, "messages")
}

/// A template may rightly refuse messages or fail over some that it doesn't expect. One that takes more than any
/// conversation needs is no matter of what was asked.
fn template_error(model: &str, error: &TemplateError) -> ApiError {
    let message = error.to_string();
    match error {
        TemplateError::Refused { .. } | TemplateError::Failed { .. } | TemplateError::PromptTooLong => {
            ApiError::template(message)
        }
        TemplateError::TooLong { .. }
        | TemplateError::Syntax { .. }
        | TemplateError::TooMuchWork
        | TemplateError::TooSlow
        | TemplateError::Stopped => ApiError::template_unusable(model, &message),
    }
}

/// The tokens, and the text to echo where it is asked for.
fn text_tokens(llm: &Llm, prompt: TextPrompt, echo: bool) -> Result<(Vec<u32>, Option<String>), ApiError> {
    match prompt {
        TextPrompt::Text(text) => Ok((encode(llm, &text, true, "prompt")?, echo.then_some(text))),
        TextPrompt::Tokens(tokens) => {
            let (vocabulary, facts) = (llm.tokenizer().vocabulary(), llm.facts());
            let context = facts.context;
            if tokens.len() > context {
                // Before their texts, of many times their size, are put together.
                let extensible = context < facts.context_trained;
                let error = SubmitError::PromptTooLong { prompt: tokens.len(), context, extensible };
                return Err(ApiError::submit(error, "prompt", 0));
            }
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
    fn a_template_out_of_bounds_is_not_the_caller_s_fault() {
        let check = |error: TemplateError, status: u16, param: Option<&str>| {
            let found = template_error("smol", &error);
            assert_eq!((found.status().as_u16(), found.json()["error"]["param"].as_str()), (status, param));
            assert!(status == 400 || found.json()["error"]["message"].to_string().contains("smol"));
        };
        check(TemplateError::Stopped, 500, None);
        check(TemplateError::TooSlow, 500, None);
        check(TemplateError::TooMuchWork, 500, None);
        check(TemplateError::Refused { message: "no system".into() }, 400, Some("messages"));
        check(TemplateError::PromptTooLong, 400, Some("messages"));
    }

    #[test]
    fn token_ids_beyond_the_context_are_refused_before_they_are_echoed() {
        let llm = crate::openai::choices::tests::llm(1, 1);
        let error = text_tokens(&llm, TextPrompt::Tokens(vec![5; 129]), true).unwrap_err().json();
        assert_eq!(error["error"]["code"], "context_length_exceeded");
        assert!(text_tokens(&llm, TextPrompt::Tokens(vec![5; 128]), true).is_ok());
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
        assert_eq!(check_room(34, Some(30), 64, "messages"), Ok(()));
        assert_eq!(check_room(34, None, 64, "messages"), Ok(()));
        let error = check_room(34, Some(60), 64, "messages").unwrap_err().json();
        assert_eq!(error["error"]["code"], "context_length_exceeded");
        assert_eq!(
            error["error"]["message"],
            "this model's context is 64 tokens, and 94 were asked for (34 in the messages, 60 in the completion): \
             shorten the messages, or ask for fewer tokens with `max_tokens`"
        );
        assert!(check_room(34, Some(usize::MAX), 64, "prompt").is_err());
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
        let prompts = || vec![(vec![1], None), (vec![2, 3], Some("b".to_owned()))];
        let checked = std::cell::Cell::new(0);
        let refuse_the_second = |_: &GenerateRequest| {
            checked.set(checked.get() + 1);
            if checked.get() == 2 { Err(ApiError::missing("prompt")) } else { Ok(()) }
        };
        assert!(spread(&options, prompts(), 9, Some(1), refuse_the_second).is_err());
        assert_eq!(checked.get(), 2, "one of each prompt is checked, before there are more of it");
        let work = spread(&options, prompts(), 9, Some(1), |_| Ok(())).unwrap();
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
