//! Log-probabilities in the two shapes of OpenAI: a list of objects for chat, parallel lists for texts.

use engine::llm::request::TokenLogprob;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// JSON has no negative infinity; OpenAI writes this for what can't come.
const LOGPROB_MIN: f32 = -9999.0;

#[derive(Serialize)]
pub struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: (),
}

#[derive(Serialize)]
struct ChatToken {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
    top_logprobs: Vec<ChatAlternative>,
}

#[derive(Serialize)]
struct ChatAlternative {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

pub fn chat_logprobs(tokens: Vec<TokenLogprob>) -> ChatLogprobs {
    let alternative = |(_, bytes, logprob): (u32, Vec<u8>, f32)| ChatAlternative {
        token: lossy(&bytes),
        logprob: logprob.max(LOGPROB_MIN),
        bytes,
    };
    let token = |token: TokenLogprob| ChatToken {
        token: lossy(&token.bytes),
        logprob: token.logprob.max(LOGPROB_MIN),
        bytes: token.bytes,
        top_logprobs: token.top.into_iter().map(alternative).collect(),
    };
    ChatLogprobs { content: tokens.into_iter().map(token).collect(), refusal: () }
}

/// One entry a token in each list.
#[derive(Default, Serialize)]
pub struct TextLogprobs {
    tokens: Vec<String>,
    /// `None` for the first token of a prompt.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Characters of the answer before the token.
    text_offset: Vec<usize>,
}

/// `offsets_chars` are where the tokens stand in the answer.
pub fn text_logprobs(tokens: &[TokenLogprob], offsets_chars: Vec<usize>) -> TextLogprobs {
    let mut lists = TextLogprobs { text_offset: offsets_chars, ..TextLogprobs::default() };
    for token in tokens {
        let known = !token.logprob.is_nan();
        let logprob = token.logprob.max(LOGPROB_MIN);
        let mut top = Map::new();
        for (_, bytes, logprob) in &token.top {
            // Different tokens can look alike where they are parts of characters; the likeliest stays.
            top.entry(lossy(bytes)).or_insert_with(|| shortest(logprob.max(LOGPROB_MIN)));
        }
        top.entry(lossy(&token.bytes)).or_insert_with(|| shortest(logprob));
        lists.tokens.push(lossy(&token.bytes));
        lists.token_logprobs.push(known.then_some(logprob));
        lists.top_logprobs.push(known.then_some(top));
    }
    lists
}

/// The number that is written as the `f32` itself would be: `json!` widens -0.1 to -0.10000000149011612.
fn shortest(logprob: f32) -> Value {
    json!(logprob.to_string().parse::<f64>().unwrap_or(logprob.into()))
}

/// Characters that begin in `bytes`, which may be a piece out of the middle of UTF-8.
pub fn chars_begun(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| (**byte & 0b1100_0000) != 0b1000_0000).count()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, bytes: &[u8], logprob: f32, top: &[(&[u8], f32)]) -> TokenLogprob {
        let top = top.iter().map(|(bytes, logprob)| (0, bytes.to_vec(), *logprob)).collect();
        TokenLogprob { id, bytes: bytes.to_vec(), is_control: false, logprob, top }
    }

    #[test]
    fn chat_tokens_carry_their_bytes() {
        let tokens = vec![token(1, b"\xf0\x9f", -0.5, &[(b"a", -0.25), (b"b", f32::NEG_INFINITY)])];
        let expected = json!({ "content": [{
            "token": "\u{fffd}", "logprob": -0.5, "bytes": [240, 159],
            "top_logprobs": [
                { "token": "a", "logprob": -0.25, "bytes": [97] },
                { "token": "b", "logprob": -9999.0, "bytes": [98] },
            ],
        }], "refusal": null });
        assert_eq!(serde_json::to_value(chat_logprobs(tokens)).unwrap(), expected);
    }

    #[test]
    fn a_token_s_logprob_is_written_alike_in_both_lists() {
        for logprob in [-0.1, -1.2345678, -1.0e-7, -9999.0, -17.000002] {
            let lists = text_logprobs(&[token(1, b"a", logprob, &[(b"a", logprob)])], vec![0]);
            let json = serde_json::to_string(&lists).unwrap();
            let number = serde_json::to_string(&logprob).unwrap();
            let expected = format!("\"token_logprobs\":[{number}],\"top_logprobs\":[{{\"a\":{number}}}]");
            assert!(json.contains(&expected), "{json} should contain {expected}");
        }
    }

    #[test]
    fn text_tokens_are_parallel_lists_with_offsets_in_characters() {
        let tokens = [
            token(1, "é".as_bytes(), f32::NAN, &[]),
            token(2, b"\xf0\x9f", -1.0, &[(b"x", -0.5)]),
            token(3, b"\x98\x80", -2.0, &[]),
            token(4, b"!", -3.0, &[(b"!", -3.0)]),
        ];
        let expected = json!({
            "tokens": ["é", "\u{fffd}", "\u{fffd}\u{fffd}", "!"],
            "token_logprobs": [null, -1.0, -2.0, -3.0],
            "top_logprobs": [null, { "x": -0.5, "\u{fffd}": -1.0 }, { "\u{fffd}\u{fffd}": -2.0 }, { "!": -3.0 }],
            "text_offset": [10, 11, 12, 12],
        });
        assert_eq!(serde_json::to_value(text_logprobs(&tokens, vec![10, 11, 12, 12])).unwrap(), expected);
    }
}
