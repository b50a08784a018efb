//! Two thousand request bodies, each broken somewhere: every one is decoded or refused with a well-formed error, and
//! none panics.

use serde_json::{Value, json};

use super::chat_request::ChatRequest;
use super::completion_request::CompletionRequest;
use super::error::ApiError;
use crate::body::parse_object;
use crate::strict_json::Counts;

const BODIES: usize = 2000;

/// SplitMix64 (Steele et al. 2014): the same bodies in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

fn chat() -> Value {
    json!({
        "model": "m", "n": 2, "stream": true, "stream_options": { "include_usage": true }, "stop": ["a", "b"],
        "temperature": 0.7, "top_p": 0.9, "top_k": 40, "seed": 7, "max_tokens": 5, "logprobs": true,
        "top_logprobs": 3, "logit_bias": { "15": -1.5 }, "tools": [], "response_format": { "type": "text" },
        "chat_template_kwargs": { "enable_thinking": false }, "user": "u",
        "messages": [
            { "role": "system", "content": "s" },
            { "role": "user", "content": [{ "type": "text", "text": "t" }] },
            { "role": "assistant", "tool_calls": [
                { "id": "1", "type": "function", "function": { "name": "f", "arguments": "{\"a\":[1]}" } },
            ]},
            { "role": "tool", "tool_call_id": "1", "content": "2" },
        ],
    })
}

fn completion() -> Value {
    json!({
        "model": "m", "prompt": [[1, 2], [3]], "max_tokens": 0, "echo": true, "logprobs": 2, "n": 2, "best_of": 2,
        "suffix": "", "stop": "x", "presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.1,
    })
}

/// Values of which something is usually not expected.
fn strange(random: &mut Random) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(-0.0),
        json!(""),
        json!("\u{0}\u{10ffff}"),
        json!("x".repeat(5000)),
        json!([]),
        json!({}),
        json!([[[]]]),
        json!({ "": { "a": [null] } }),
        json!(vec![0; 3000]),
    ];
    values[random.below(values.len())].clone()
}

/// Changes one place of `value`: replaces, removes or adds something.
fn mutate(value: &mut Value, random: &mut Random) {
    let children = match value {
        Value::Object(map) => map.len(),
        Value::Array(values) => values.len(),
        _ => 0,
    };
    if children == 0 || random.below(8) == 0 {
        *value = strange(random);
        return;
    }
    let (chosen, action) = (random.below(children), random.below(6));
    match value {
        Value::Object(map) => {
            let name = map.keys().nth(chosen).unwrap().clone();
            match action {
                0 => drop(map.swap_remove(&name)),
                1 => drop(map.insert(format!("{name}x"), strange(random))),
                _ => mutate(&mut map[&name], random),
            }
        }
        Value::Array(values) => match action {
            0 => drop(values.remove(chosen)),
            1 => values.insert(chosen, strange(random)),
            _ => mutate(&mut values[chosen], random),
        },
        _ => {}
    }
}

/// Damages the text itself.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let place = random.below(bytes.len());
    match random.below(4) {
        0 => bytes.truncate(place),
        1 => bytes[place] = random.below(256) as u8,
        2 => bytes.insert(place, b"{}[]\",:\\0e-"[random.below(11)]),
        _ => {
            let open = if random.below(2) == 0 { b'[' } else { b'{' };
            bytes.splice(place..place, std::iter::repeat_n(open, 10_000));
        }
    }
}

fn decode(bytes: &[u8], is_chat: bool) -> Result<(), ApiError> {
    let mut counts = Counts::default();
    let body = parse_object(bytes, &mut counts)?;
    if is_chat {
        ChatRequest::decode(body, counts).map(|_| ())
    } else {
        CompletionRequest::decode(body).map(|_| ())
    }
}

#[test]
fn broken_bodies_are_refused_in_the_right_shape_and_never_panic() {
    let mut random = Random(2026);
    let (mut taken, mut refused) = (0, 0);
    for number in 0..BODIES {
        let is_chat = number % 2 == 0;
        let mut value = if is_chat { chat() } else { completion() };
        for _ in 0..random.below(3) {
            mutate(&mut value, &mut random);
        }
        let mut bytes = serde_json::to_vec(&value).unwrap();
        if random.below(3) == 0 {
            damage(&mut bytes, &mut random);
        }
        match decode(&bytes, is_chat) {
            Ok(()) => taken += 1,
            Err(error) => {
                refused += 1;
                let json = error.json();
                assert!(error.status().is_client_error(), "{json}");
                let message = json["error"]["message"].as_str().unwrap();
                assert!(!message.is_empty() && message.len() < 1000, "{message}");
                assert_eq!(json["error"]["type"], "invalid_request_error");
                assert!(json["error"]["code"].is_string());
            }
        }
    }
    assert!(taken > BODIES / 20 && refused > BODIES / 4, "{taken} taken, {refused} refused");
}
