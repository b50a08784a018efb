//! What callers sent is shown in errors and logs, which is not to make those as long as callers like.

const SHOWN_CHARS_MAX: usize = 60;

/// A text as it is, or its beginning and `...`.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
