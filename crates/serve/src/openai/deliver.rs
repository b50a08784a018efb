//! Sends an answer: whole, or as server-sent events (html.spec.whatwg.org/multipage/server-sent-events.html).

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use engine::llm::request::{Event, TokenLogprob};
use futures_util::stream::{Stream, StreamExt, unfold};
use tokio::time::timeout;

use super::answer::{Answer, Piece};
use super::error::ApiError;
use super::response::Head;

/// Without anything to send for so long, a comment goes out: proxies keep the connection, and a client that is
/// gone is noticed.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// An answer that is sent whole is in memory whole; this is the most of it.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A log-probability in an answer, about.
const LOGPROB_BYTES: usize = 100;

/// Waits for all of it.
///
/// # Errors
/// Where a choice breaks.
pub async fn whole(
    head: &Head,
    mut answer: Answer,
    mut events: impl Stream<Item = (usize, Event)> + Unpin,
) -> Result<Response, ApiError> {
    let mut wholes: Vec<Piece> =
        (0..answer.choices()).map(|index| Piece { index, ..Piece::default() }).collect();
    let mut bytes = 0;
    while let Some((index, event)) = events.next().await {
        let piece = answer.take(index, event);
        let piece = piece.and_then(|piece| {
            bytes += piece_bytes(&piece);
            if bytes > ANSWER_BYTES_MAX {
                Err(ApiError::answer_too_large(ANSWER_BYTES_MAX))
            } else {
                Ok(piece)
            }
        });
        let piece = piece.inspect_err(|error| answer.fail(error.status().as_u16()))?;
        let whole = &mut wholes[index];
        whole.text.push_str(&piece.text);
        whole.logprobs.extend(piece.logprobs);
        whole.offsets_chars.extend(piece.offsets_chars);
        whole.finish = whole.finish.or(piece.finish);
    }
    let json = head.whole(wholes, answer.usage()).map_err(|error| {
        answer.fail(500);
        ApiError::internal(format!("writing the answer: {error}"))
    })?;
    Ok(([(CONTENT_TYPE, "application/json")], json).into_response())
}

/// Memory that a piece of a whole answer takes, about.
fn piece_bytes(piece: &Piece) -> usize {
    let token = |token: &TokenLogprob| LOGPROB_BYTES * (1 + token.top.len());
    piece.text.len() + piece.logprobs.iter().map(token).sum::<usize>()
}

/// Answers at once; pieces follow as they come.
pub fn stream(
    head: Head,
    answer: Answer,
    events: impl Stream<Item = (usize, Event)> + Send + Unpin + 'static,
    include_usage: bool,
) -> Response {
    let headers = [
        (CONTENT_TYPE.as_str(), "text/event-stream; charset=utf-8"),
        (CACHE_CONTROL.as_str(), "no-cache"),
        // Tells nginx to pass each piece on.
        ("x-accel-buffering", "no"),
    ];
    let running = Some(Running { head, answer, events, include_usage });
    let frames = unfold(running, |running| async move {
        let (frames, running) = running?.next_frames().await;
        Some((Ok::<Bytes, Infallible>(frames.into()), running))
    });
    (headers, Body::from_stream(frames)).into_response()
}

struct Running<E> {
    head: Head,
    answer: Answer,
    events: E,
    include_usage: bool,
}

impl<E: Stream<Item = (usize, Event)> + Unpin> Running<E> {
    /// What to send next, and what is left; `None` after the end.
    async fn next_frames(mut self) -> (String, Option<Running<E>>) {
        loop {
            let frames = match timeout(SILENCE_MAX, self.events.next()).await {
                Err(_) => return (": waiting\n\n".to_owned(), Some(self)),
                Ok(Some((index, event))) => self.piece(index, event),
                Ok(None) => return (self.end().unwrap_or_else(|error| failed(&error)), None),
            };
            match frames {
                Ok(frames) if frames.is_empty() => {}
                Ok(frames) => return (frames, Some(self)),
                Err(error) => {
                    self.answer.fail(200);
                    return (failed(&error), None);
                }
            }
        }
    }

    fn piece(&mut self, index: usize, event: Event) -> Result<String, ApiError> {
        let piece = self.answer.take(index, event)?;
        let chunks = self.head.chunks(piece, self.include_usage).map_err(unwritable)?;
        Ok(chunks.iter().map(|chunk| frame(chunk)).collect())
    }

    fn end(&mut self) -> Result<String, ApiError> {
        let mut frames = String::new();
        if self.include_usage {
            frames += &frame(&self.head.usage_chunk(self.answer.usage()).map_err(unwritable)?);
        }
        Ok(frames + &frame("[DONE]"))
    }
}

fn unwritable(error: serde_json::Error) -> ApiError {
    ApiError::internal(format!("writing the answer: {error}"))
}

/// JSON has no line ends, so a frame's data is one line.
fn frame(data: &str) -> String {
    format!("data: {data}\n\n")
}

/// OpenAI's clients raise an exception for it. No `[DONE]` follows, as it isn't done.
fn failed(error: &ApiError) -> String {
    frame(&error.json().to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::llm::request::{Failure, FinishReason, Token, Usage};
    use futures_util::stream;
    use serde_json::{Value, json};

    use super::*;
    use crate::metrics::{Metrics, Record};
    use crate::openai::response::Kind;

    fn token(text: &str) -> Event {
        Event::Token(Token { id: 1, text: text.to_owned(), logprob: None })
    }

    fn logged(text: &str) -> Event {
        let logprob =
            TokenLogprob { id: 1, bytes: text.into(), is_control: false, logprob: -0.5, top: Vec::new() };
        Event::Token(Token { id: 1, text: text.to_owned(), logprob: Some(logprob) })
    }

    fn done(text: &str, reason: FinishReason) -> Event {
        let usage = Usage { prompt_tokens: 5, cached_tokens: 4, completion_tokens: 2 };
        Event::Done { text: text.to_owned(), reason, usage }
    }

    fn head(kind: Kind, logprobs: bool) -> Head {
        let (model, fingerprint) = ("m".to_owned(), "fp".to_owned());
        Head { kind, id: "id-1".to_owned(), created: 7, model, fingerprint, logprobs, tier: None }
    }

    fn answer(choices: usize, metrics: &Arc<Metrics>) -> Answer {
        Answer::new(vec![None; choices], choices, Record::begin(metrics, "test", None))
    }

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// Streams events, and returns each frame's JSON, or its text where it is none.
    async fn frames(
        head: Head,
        choices: usize,
        events: Vec<(usize, Event)>,
        include_usage: bool,
    ) -> Vec<Value> {
        let metrics = Arc::default();
        let response = stream(head, answer(choices, &metrics), stream::iter(events), include_usage);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream; charset=utf-8");
        let body = body(response).await;
        let data = body.split_terminator("\n\n").map(|frame| frame.strip_prefix("data: ").unwrap());
        data.map(|data| serde_json::from_str(data).unwrap_or(json!(data))).collect()
    }

    #[tokio::test]
    async fn a_chat_stream_begins_with_the_role_and_ends_with_done() {
        let events = vec![(0, token("Hel")), (0, token("")), (0, done("lo", FinishReason::Stop))];
        let chunk = |delta: Value, finish: Value| {
            json!({ "id": "id-1", "object": "chat.completion.chunk", "created": 7, "model": "m", "system_fingerprint": "fp",
                "choices": [{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish }] })
        };
        let expected = vec![
            chunk(json!({ "role": "assistant", "content": "" }), Value::Null),
            chunk(json!({ "content": "Hel" }), Value::Null),
            chunk(json!({ "content": "lo" }), Value::Null),
            chunk(json!({}), json!("stop")),
            json!("[DONE]"),
        ];
        assert_eq!(frames(head(Kind::Chat, false), 1, events, false).await, expected);
    }

    #[tokio::test]
    async fn usage_comes_last_with_no_choices_and_is_null_before() {
        let events = vec![(0, token("a")), (0, done("", FinishReason::Length))];
        let frames = frames(head(Kind::Text, false), 1, events, true).await;
        assert_eq!(
            frames[0]["choices"][0],
            json!({ "index": 0, "text": "a", "logprobs": null, "finish_reason": null })
        );
        assert!(frames[0].as_object().unwrap().contains_key("usage") && frames[0]["usage"].is_null());
        assert_eq!(frames[1]["choices"][0]["finish_reason"], "length");
        assert_eq!(frames[2]["choices"], json!([]));
        let usage = json!({ "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
            "prompt_tokens_details": { "cached_tokens": 4 } });
        assert_eq!(frames[2]["usage"], usage);
        assert_eq!(frames[3..], [json!("[DONE]")]);
    }

    #[tokio::test]
    async fn choices_interleave_each_with_its_role() {
        let stop = FinishReason::Stop;
        let events =
            vec![(1, token("b")), (0, token("a")), (1, done("", stop)), (0, token("A")), (0, done("", stop))];
        let frames = frames(head(Kind::Chat, false), 2, events, false).await;
        let seen = frames[..frames.len() - 1].iter().map(|frame| {
            let choice = &frame["choices"][0];
            (choice["index"].as_u64().unwrap(), choice["delta"]["content"].as_str().unwrap_or("-").to_owned())
        });
        let expected = [(1, ""), (1, "b"), (0, ""), (0, "a"), (1, "-"), (0, "A"), (0, "-")];
        assert_eq!(seen.collect::<Vec<_>>(), expected.map(|(index, text)| (index, text.to_owned())));
    }

    #[tokio::test]
    async fn log_probabilities_travel_with_their_pieces() {
        let events = || vec![(0, logged("a")), (0, logged("é")), (0, done("", FinishReason::Stop))];
        let texts = frames(head(Kind::Text, true), 1, events(), false).await;
        assert_eq!(texts[0]["choices"][0]["logprobs"]["text_offset"], json!([0]));
        assert_eq!(texts[1]["choices"][0]["logprobs"]["text_offset"], json!([1]));
        let chats = frames(head(Kind::Chat, true), 1, events(), false).await;
        assert_eq!(chats[2]["choices"][0]["logprobs"]["content"][0]["bytes"], json!([195, 169]));
        let metrics = Arc::default();
        let events = stream::iter(events());
        let whole = whole(&head(Kind::Text, true), answer(1, &metrics), events).await.unwrap();
        let whole: Value = serde_json::from_str(&body(whole).await).unwrap();
        assert_eq!(whole["choices"][0]["logprobs"]["text_offset"], json!([0, 1]));
        assert_eq!(whole["choices"][0]["logprobs"]["tokens"], json!(["a", "é"]));
    }

    #[tokio::test]
    async fn a_whole_chat_answer_has_the_shape_of_openai() {
        let events = vec![(0, token("Hi")), (0, done("!", FinishReason::Stop))];
        let metrics = Arc::default();
        let response =
            whole(&head(Kind::Chat, false), answer(1, &metrics), stream::iter(events)).await.unwrap();
        let expected = json!({
            "id": "id-1", "object": "chat.completion", "created": 7, "model": "m", "system_fingerprint": "fp",
            "choices": [{ "index": 0, "message": { "role": "assistant", "content": "Hi!", "refusal": null },
                "logprobs": null, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
                "prompt_tokens_details": { "cached_tokens": 4 } },
        });
        assert_eq!(serde_json::from_str::<Value>(&body(response).await).unwrap(), expected);
        assert!(metrics.render(&[]).contains("outcome=\"answered\",status=\"200\"} 1"));
    }

    #[tokio::test]
    async fn a_whole_answer_is_bounded() {
        let text = "x".repeat(ANSWER_BYTES_MAX / 2);
        let events = stream::iter([(0, token(&text)), (1, token(&text)), (0, token("x"))]);
        let metrics = Arc::default();
        let error = whole(&head(Kind::Text, false), answer(2, &metrics), events).await.unwrap_err();
        assert_eq!(
            (error.status().as_u16(), &error.json()["error"]["code"]),
            (400, &json!("answer_too_large"))
        );
    }

    #[tokio::test]
    async fn what_breaks_midway_is_an_error_and_not_done() {
        let events = || vec![(0, token("a")), (0, Event::Failed(Failure::NotFinite)), (0, token("b"))];
        let frames = frames(head(Kind::Chat, false), 1, events(), true).await;
        let last = frames.last().unwrap();
        assert_eq!((frames.len(), &last["error"]["type"]), (3, &json!("server_error")));
        let metrics = Arc::default();
        let events = stream::iter(events());
        let error = whole(&head(Kind::Chat, false), answer(1, &metrics), events).await.unwrap_err();
        assert_eq!(error.status(), 500);
        assert!(metrics.render(&[]).contains("outcome=\"failed\",status=\"500\"} 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_sends_comments_and_a_dropped_one_counts_as_cancelled() {
        let metrics = Arc::default();
        let response = stream(head(Kind::Chat, false), answer(1, &metrics), stream::pending(), false);
        let mut body = response.into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), ": waiting\n\n");
        drop(body);
        assert!(metrics.render(&[]).contains("outcome=\"cancelled\",status=\"499\"} 1"));
    }
}
