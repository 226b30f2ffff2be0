//! What a bucket's failures mean here.

use std::error::Error as _;

use object_store::Error;
use registry_core::error::{StoreError, StoreErrorKind};

/// What stores say when they have no room: in the codes of their documents, or as the status that
/// [`connector`](super::connector) makes of 507.
const FULL: [&str; 5] = ["StorageFull", "QuotaExceeded", "InsufficientStorage", "Insufficient Storage", "413 Payload"];
/// What they say when the same call may succeed later.
const UNAVAILABLE: [&str; 10] = [
    "status code: 5",
    "status code: 429",
    "status code: 408",
    "HTTP error",
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "timed out",
    // This machine's clock is wrong; another replica's may be right.
    "RequestTimeTooSkewed",
];

/// Turns a failure into the port's, for `map_err`.
pub(super) fn failure(context: impl Into<String>) -> impl FnOnce(Error) -> StoreError {
    let context = context.into();
    move |error| {
        let text = chain(&error);
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let kind = if says(&FULL) {
            StoreErrorKind::Full
        } else if says(&UNAVAILABLE) {
            StoreErrorKind::Unavailable
        } else {
            StoreErrorKind::Other
        };
        StoreError::new(kind, context, error)
    }
}

/// Whether a multipart upload was refused because a part is not the one that was stored: another writer has put its own
/// in its place.
pub(super) fn is_wrong_part(error: &Error) -> bool {
    chain(error).contains("InvalidPart")
}

/// Whether what was asked for is not there: an object, or a multipart upload.
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) || chain(error).contains("NoSuchUpload") || is_absent_in_memory(error)
}

/// The store in memory has no kind of its own for an unknown multipart upload.
fn is_absent_in_memory(error: &Error) -> bool {
    matches!(error, Error::Generic { store: "InMemory", source } if source.to_string().contains("upload"))
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
