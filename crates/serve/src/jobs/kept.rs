//! The way from a request to the store: whether there is one, threads that may wait for its disk, its errors.

use store::{Store, StoreError};

use crate::http::App;
use crate::openai::ApiError;
use crate::settings::JobSettings;

/// What is said of jobs and files, where this server keeps any.
pub fn settings(app: &App) -> Result<&JobSettings, ApiError> {
    let none = || ApiError::no_such("this server keeps no files and jobs".to_owned());
    app.settings.jobs.as_ref().ok_or_else(none)
}

/// Asks the store where waiting for a disk keeps no connection waiting.
pub async fn ask<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = settings(app)?.store.clone();
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.map_err(|_| ApiError::internal("asking the store broke off".to_owned()))?.map_err(error)
}

pub fn error(error: StoreError) -> ApiError {
    let message = error.to_string();
    match error {
        StoreError::Missing { .. } => ApiError::no_such(message),
        StoreError::Refused(_) | StoreError::Busy { .. } => ApiError::conflict(message),
        StoreError::TooLarge { .. } => ApiError::file_too_large(message),
        StoreError::BadName { .. } => ApiError::invalid("model", message),
        StoreError::Io { cause, .. } => {
            tracing::error!("the store: {message}");
            // Paths of this machine are nothing to callers.
            ApiError::internal(format!("the store can't be read or written: {cause}"))
        }
        _ => {
            tracing::error!("the store: {message}");
            ApiError::internal("the store can't be read or written".to_owned())
        }
    }
}
