//! A form with a file, written to the disk as it comes: what is in memory is a few chunks.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Multipart;
use axum::extract::multipart::{Field, MultipartError};
use store::{Receiving, StoreError, Upload};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::http::App;
use crate::jobs::kept::{ask, error, settings};
use crate::openai::ApiError;

/// Chunks between the network and the disk.
const CHUNKS_MAX: usize = 4;
/// What is read of a file that is refused, so that a client that sends it all before it reads gets the answer.
const DISCARDED_BYTES_MAX: usize = 64 << 20;
/// Bytes of a value that isn't the file.
const VALUE_BYTES_MAX: usize = 100;

/// Reads `purpose` and `file`, in any order, and keeps the file.
pub async fn form(app: &App, mut form: Multipart) -> Result<Upload, ApiError> {
    let wait_max = app.settings.body_timeout;
    let (mut purpose, mut received) = (None, None);
    while let Some(mut field) = within(wait_max, form.next_field()).await? {
        match field.name().unwrap_or_default() {
            "purpose" => purpose = Some(value(&mut field, wait_max).await?),
            "file" if received.is_some() => {
                return Err(ApiError::invalid("file", "one file at a time: `file` came twice".to_owned()));
            }
            "file" => {
                let name = field.file_name().unwrap_or("file").to_owned();
                received = Some((name, file(app, field, wait_max).await?));
            }
            other => return Err(ApiError::unknown(&other.chars().take(VALUE_BYTES_MAX).collect::<String>())),
        }
    }
    let (name, received) = received.ok_or_else(|| ApiError::missing("file"))?;
    let purpose = purpose.ok_or_else(|| ApiError::missing("purpose"))?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if purpose.is_empty() || !purpose.chars().all(fits) {
        let message = "`purpose` is a word, such as train or fine-tune".to_owned();
        return Err(ApiError::invalid("purpose", message));
    }
    ask(app, move |store| store.keep(received, &name, &purpose)).await
}

/// A client that sends nothing for so long loses its place.
async fn within<T>(
    wait_max: Duration,
    next: impl Future<Output = Result<T, MultipartError>>,
) -> Result<T, ApiError> {
    match timeout(wait_max, next).await {
        Ok(next) => next.map_err(|error| ApiError::invalid("file", error.body_text())),
        Err(_) => {
            let message = format!("nothing of the file came for {} seconds", wait_max.as_secs());
            Err(ApiError::invalid("file", message))
        }
    }
}

async fn value(field: &mut Field<'_>, wait_max: Duration) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = within(wait_max, field.chunk()).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > VALUE_BYTES_MAX {
            let message = format!("a value of the form has more than {VALUE_BYTES_MAX} bytes");
            return Err(ApiError::invalid("purpose", message));
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::invalid("purpose", "it is not UTF-8".to_owned()))
}

async fn file(app: &App, mut field: Field<'_>, wait_max: Duration) -> Result<Receiving, ApiError> {
    let settings = settings(app)?;
    let (store, file_bytes_max, all_bytes_max) =
        (settings.store.clone(), settings.file_bytes_max, settings.files_bytes_max);
    let (sender, mut chunks) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let writing = tokio::task::spawn_blocking(move || {
        let mut receiving = store.receive(file_bytes_max, all_bytes_max)?;
        while let Some(chunk) = chunks.blocking_recv() {
            receiving.write(&chunk)?;
        }
        Ok::<Receiving, StoreError>(receiving)
    });
    let mut discarded = 0;
    while let Some(chunk) = within(wait_max, field.chunk()).await? {
        let bytes = chunk.len();
        if sender.send(chunk).await.is_err() {
            discarded += bytes;
            if discarded > DISCARDED_BYTES_MAX {
                break;
            }
        }
    }
    drop(sender);
    writing.await.map_err(|_| ApiError::internal("writing the file broke off".to_owned()))?.map_err(error)
}
