//! The parameters that chat and text completions share.

use engine::llm::request::Sampling;
use serde_json::Value;

use super::error::ApiError;
use super::fields::{Fields, wrong};
use super::urgency::Urgency;
use crate::shorten::shorten;

/// Answers to one request, over all its prompts.
pub const CHOICES_MAX: usize = 128;
/// OpenAI takes 4.
const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 1024;
const BIASES_MAX: usize = 4096;
/// Alternatives reported for a token.
pub const LOGPROBS_MAX: i64 = 20;
const TOP_K_MAX: i64 = u32::MAX as i64;

/// Parameters that make no difference to the answer here, and are ignored whatever they are.
const IGNORED: [&str; 11] = [
    "user",
    "store",
    "metadata",
    "parallel_tool_calls",
    "prediction",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "moderation",
    "cache_prompt",
];

/// How an answer is made and delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub model: String,
    pub sampling: Sampling,
    pub stop: Vec<String>,
    /// Answers to each prompt.
    pub choices: usize,
    pub ignore_end: bool,
    pub urgency: Urgency,
    pub delivery: Delivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Whole,
    /// Piece by piece, as server-sent events.
    Stream {
        include_usage: bool,
    },
}

impl Options {
    pub fn take(fields: &mut Fields) -> Result<Options, ApiError> {
        fields.ignore(&IGNORED);
        Ok(Options {
            model: fields.required_string("model")?,
            sampling: sampling(fields)?,
            stop: stop(fields)?,
            choices: fields.count("n", 1, CHOICES_MAX as i64)?.unwrap_or(1),
            ignore_end: fields.boolean("ignore_eos")?.unwrap_or(false),
            urgency: Urgency::take(fields)?,
            delivery: delivery(fields)?,
        })
    }
}

fn sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    let plain = Sampling::default();
    // -1 is how some clients say that all tokens are kept.
    let top_k = fields.integer("top_k", -1..=TOP_K_MAX)?.map(|k| k.max(0) as usize);
    Ok(Sampling {
        temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(plain.temperature),
        top_k: top_k.unwrap_or(plain.top_k),
        top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(plain.top_p),
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(plain.min_p),
        typical_p: fields.number("typical_p", 0.0..=1.0)?.unwrap_or(plain.typical_p),
        repetition_penalty: fields
            .number("repetition_penalty", 0.01..=100.0)?
            .unwrap_or(plain.repetition_penalty),
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(plain.presence_penalty),
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(plain.frequency_penalty),
        logit_bias: logit_bias(fields)?,
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?.map(|seed| seed as u64),
    })
}

fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let map = match fields.take("logit_bias") {
        None => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(wrong("logit_bias", "an object of token ids and numbers", &other)),
    };
    if map.len() > BIASES_MAX {
        let message = format!("`logit_bias` must have at most {BIASES_MAX} entries; received {}", map.len());
        return Err(ApiError::invalid("logit_bias", message));
    }
    let bias = |(token, bias): (String, Value)| {
        // As numbers are written: "05" and "+5" would be other names for 5, which may be there too.
        let id = token.parse::<u32>().ok().filter(|id| id.to_string() == token);
        let Some(id) = id else {
            let message =
                format!("`logit_bias` must name tokens by their ids; received {:?}", shorten(&token));
            return Err(ApiError::invalid("logit_bias", message));
        };
        match bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias)) {
            Some(bias) => Ok((id, bias as f32)),
            None => Err(wrong(&format!("logit_bias.{id}"), "a number from -100 to 100", &bias)),
        }
    };
    map.into_iter().map(bias).collect()
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let values = match fields.take("stop") {
        None => Vec::new(),
        Some(Value::Array(values)) => values,
        Some(single) => vec![single],
    };
    if values.len() > STOPS_MAX {
        let message = format!("`stop` must have at most {STOPS_MAX} texts; received {}", values.len());
        return Err(ApiError::invalid("stop", message));
    }
    let text = |value: Value| match value {
        Value::String(text) if (1..=STOP_BYTES_MAX).contains(&text.len()) => Ok(text),
        other => {
            let expected = format!("a text, or an array of texts, of 1 to {STOP_BYTES_MAX} bytes each");
            Err(wrong("stop", &expected, &other))
        }
    };
    values.into_iter().map(text).collect()
}

fn delivery(fields: &mut Fields) -> Result<Delivery, ApiError> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let Some(options) = fields.take("stream_options") else {
        return Ok(if stream { Delivery::Stream { include_usage: false } } else { Delivery::Whole });
    };
    let mut options = Fields::of(options, "stream_options")?;
    let include_usage = options.boolean("include_usage")?.unwrap_or(false);
    // Random padding against guesses from packet sizes; there is none here.
    options.ignore(&["include_obfuscation"]);
    options.finish()?;
    if !stream {
        let message = "`stream_options` may only be given with `stream: true`".to_owned();
        return Err(ApiError::invalid("stream_options", message));
    }
    Ok(Delivery::Stream { include_usage })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn take(value: Value) -> Result<Options, ApiError> {
        let Value::Object(mut map) = value else { panic!("an object") };
        map.insert("model".to_owned(), json!("m"));
        let mut fields = Fields::new(map);
        let options = Options::take(&mut fields)?;
        fields.finish().map(|()| options)
    }

    fn check_refused(value: Value, param: &str, message: &str) {
        let error = take(value.clone()).map(|_| ()).unwrap_err().json();
        assert_eq!(
            (&error["error"]["param"], &error["error"]["message"]),
            (&json!(param), &json!(message)),
            "{value}"
        );
    }

    #[test]
    fn everything_has_a_default_and_null_is_the_same_as_absent() {
        let plain = Options {
            model: "m".to_owned(),
            sampling: Sampling::default(),
            stop: Vec::new(),
            choices: 1,
            ignore_end: false,
            urgency: Urgency::default(),
            delivery: Delivery::Whole,
        };
        assert_eq!(take(json!({})), Ok(plain.clone()));
        let nulls = json!({ "temperature": null, "stop": null, "n": null, "stream": null, "stream_options": null,
            "logit_bias": null, "seed": null, "never_heard_of": null });
        assert_eq!(take(nulls), Ok(plain.clone()));
        assert_eq!(take(json!({ "user": "u", "metadata": { "a": 1 }, "store": true })), Ok(plain));
    }

    #[test]
    fn all_sampling_parameters_arrive() {
        let options = take(json!({
            "temperature": 0.5, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.95,
            "repetition_penalty": 1.1, "presence_penalty": -1, "frequency_penalty": 2,
            "logit_bias": { "15": -100, "7": 1.5 }, "seed": -1, "stop": ["a", "b"], "n": 3, "ignore_eos": true,
            "stream": true, "stream_options": { "include_usage": true, "include_obfuscation": false },
        }));
        let expected = Options {
            model: "m".to_owned(),
            sampling: Sampling {
                temperature: 0.5,
                top_k: 40,
                top_p: 0.9,
                min_p: 0.05,
                typical_p: 0.95,
                repetition_penalty: 1.1,
                presence_penalty: -1.0,
                frequency_penalty: 2.0,
                logit_bias: vec![(15, -100.0), (7, 1.5)],
                seed: Some(u64::MAX),
            },
            stop: vec!["a".to_owned(), "b".to_owned()],
            choices: 3,
            ignore_end: true,
            urgency: Urgency::default(),
            delivery: Delivery::Stream { include_usage: true },
        };
        assert_eq!(options, Ok(expected));
        assert_eq!(take(json!({ "top_k": -1 })).unwrap().sampling.top_k, 0);
        assert_eq!(take(json!({ "stop": "one" })).unwrap().stop, ["one"]);
    }

    #[test]
    fn values_out_of_range_are_refused_with_the_range() {
        let check = check_refused;
        check(
            json!({ "temperature": 2.5 }),
            "temperature",
            "`temperature` must be a number from 0 to 2; received 2.5",
        );
        check(
            json!({ "temperature": "hot" }),
            "temperature",
            "`temperature` must be a number from 0 to 2; received \"hot\"",
        );
        check(json!({ "top_p": -0.1 }), "top_p", "`top_p` must be a number from 0 to 1; received -0.1");
        check(
            json!({ "presence_penalty": 3 }),
            "presence_penalty",
            "`presence_penalty` must be a number from -2 to 2; received 3",
        );
        check(json!({ "n": 0 }), "n", "`n` must be an integer from 1 to 128; received 0");
        check(json!({ "n": 1.5 }), "n", "`n` must be an integer from 1 to 128; received 1.5");
        check(
            json!({ "seed": 0.5 }),
            "seed",
            "`seed` must be an integer of -9223372036854775808 or more; received 0.5",
        );
        check(json!({ "stream": "yes" }), "stream", "`stream` must be true or false; received \"yes\"");
        let stop = "`stop` must be a text, or an array of texts, of 1 to 1024 bytes each; received ";
        check(json!({ "stop": "" }), "stop", &format!("{stop}\"\""));
        check(json!({ "stop": ["a", 1] }), "stop", &format!("{stop}1"));
        check(json!({ "stop": vec!["x"; 17] }), "stop", "`stop` must have at most 16 texts; received 17");
        check(
            json!({ "logit_bias": { "a": 1 } }),
            "logit_bias",
            "`logit_bias` must name tokens by their ids; received \"a\"",
        );
        for token in ["05", "+5", "-5", " 5", "4294967296", ""] {
            check(
                json!({ "logit_bias": { "5": 1, token: 1 } }),
                "logit_bias",
                &format!("`logit_bias` must name tokens by their ids; received {token:?}"),
            );
        }
        check(
            json!({ "logit_bias": { "5": 101 } }),
            "logit_bias.5",
            "`logit_bias.5` must be a number from -100 to 100; received 101",
        );
        check(
            json!({ "logit_bias": [1, 2] }),
            "logit_bias",
            "`logit_bias` must be an object of token ids and numbers; received an array of 2",
        );
        check(
            json!({ "model": 1, "stream_options": {} }),
            "stream_options",
            "`stream_options` may only be given with `stream: true`",
        );
    }

    #[test]
    fn what_nobody_knows_is_refused_by_name() {
        let message =
            "`temprature` is not a parameter that this server knows: leave it out, or check its spelling";
        check_refused(json!({ "temprature": 0 }), "temprature", message);
        let message = "`repeat_penalty` is not a parameter that this server knows: it is called `repetition_penalty` here";
        check_refused(json!({ "repeat_penalty": 1.1 }), "repeat_penalty", message);
        let inner = json!({ "stream": true, "stream_options": { "usage": true } });
        let message = "`stream_options.usage` is not a parameter that this server knows: leave it out, or check its spelling";
        check_refused(inner, "stream_options.usage", message);
    }
}
