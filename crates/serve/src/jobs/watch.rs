//! A job's events as server-sent events (html.spec.whatwg.org/multipage/server-sent-events.html): those that were, then
//! those that come, until it ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use store::EventFile;
use tokio::time::sleep;

use super::kept::ask;
use crate::http::App;
use crate::openai::ApiError;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Without an event for so long, a comment goes out: proxies keep the connection, and a client that is gone is noticed.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// The events after `offset`. At the end of the job comes `[DONE]`; where the server stops, the stream breaks off.
pub fn stream(app: Arc<App>, id: String, offset: u64) -> Response {
    let headers = [
        (CONTENT_TYPE.as_str(), "text/event-stream; charset=utf-8"),
        (CACHE_CONTROL.as_str(), "no-cache"),
        // Tells nginx to pass each piece on.
        ("x-accel-buffering", "no"),
    ];
    let watching = Some(Watching { app, id, offset });
    let frames = unfold(watching, |watching| async move {
        let (frames, watching) = watching?.next_frames().await?;
        Some((Ok::<Bytes, Infallible>(frames.into()), watching))
    });
    (headers, Body::from_stream(frames)).into_response()
}

struct Watching {
    app: Arc<App>,
    id: String,
    offset: u64,
}

impl Watching {
    async fn next_frames(mut self) -> Option<(String, Option<Watching>)> {
        let begun = Instant::now();
        loop {
            match self.look().await {
                Err(error) => return Some((format!("data: {}\n\n", error.json()), None)),
                Ok((_, events)) if !events.is_empty() => {
                    self.offset = events.last().map_or(self.offset, |(offset, _)| *offset);
                    let frame = |(offset, text): &(u64, String)| format!("id: {offset}\ndata: {text}\n\n");
                    return Some((events.iter().map(frame).collect(), Some(self)));
                }
                Ok((true, _)) => return Some(("data: [DONE]\n\n".to_owned(), None)),
                Ok((false, _)) if self.app.gate.is_closed() => return None,
                Ok((false, _)) if begun.elapsed() > SILENCE_MAX => {
                    return Some((": waiting\n\n".to_owned(), Some(self)));
                }
                Ok((false, _)) => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Whether the job has ended, and the events since. In this order: what is told at the end comes before it.
    async fn look(&self) -> Result<(bool, Vec<(u64, String)>), ApiError> {
        let (id, offset) = (self.id.clone(), self.offset);
        ask(&self.app, move |store| {
            let is_ended = store.job(&id)?.is_none_or(|job| job.state.is_ended());
            let events = EventFile(&store.job_folder(&id).events()).after(offset)?;
            Ok((is_ended, events))
        })
        .await
    }
}
