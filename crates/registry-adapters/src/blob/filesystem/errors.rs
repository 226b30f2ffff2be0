//! What the operating system says, as the port's failures.

use std::io;

use registry_core::error::{StoreError, StoreErrorKind};

/// Turns an I/O error met while doing `context` into the port's failure.
pub(super) fn failure(context: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
    move |error| StoreError::new(kind_of(&error), context, error)
}

fn kind_of(error: &io::Error) -> StoreErrorKind {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => StoreErrorKind::Full,
        // Out of descriptors or memory, or a disk that is away or has become read-only: it may come back.
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOMEM
            | libc::EAGAIN
            | libc::EBUSY
            | libc::ENOLCK
            | libc::ENOENT
            | libc::ENOTDIR
            | libc::EROFS
            | libc::ESTALE
            | libc::ENXIO
            | libc::ENODEV
            | libc::ETIMEDOUT,
        ) => StoreErrorKind::Unavailable,
        // The file system found its own checksums or structures wrong.
        Some(libc::EUCLEAN | libc::EBADMSG) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Other,
    }
}

/// Runs `work`, which blocks, on a thread that may.
///
/// # Errors
/// When the runtime is stopping: nothing is known then about `work`. A panic of `work` goes on here.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(stopped)
}

/// What to say when the blocking thread gave no answer.
pub(super) fn stopped(error: tokio::task::JoinError) -> StoreError {
    if error.is_panic() {
        std::panic::resume_unwind(error.into_panic());
    }
    StoreError::new(StoreErrorKind::Unavailable, "run on a blocking thread", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (code, kind) in [
            (libc::ENOSPC, StoreErrorKind::Full),
            (libc::EDQUOT, StoreErrorKind::Full),
            (libc::EMFILE, StoreErrorKind::Unavailable),
            (libc::EROFS, StoreErrorKind::Unavailable),
            (libc::EUCLEAN, StoreErrorKind::Corrupt),
            (libc::EIO, StoreErrorKind::Other),
            (libc::EACCES, StoreErrorKind::Other),
        ] {
            let error = failure("do it")(io::Error::from_raw_os_error(code));
            assert_eq!(error.kind, kind, "{error:?}");
            assert!(error.chain().starts_with("do it: "), "{}", error.chain());
        }
    }

    #[tokio::test]
    #[should_panic(expected = "a broken invariant")]
    async fn a_panic_on_the_blocking_thread_is_not_swallowed() {
        let _ = blocking(|| panic!("a broken invariant")).await;
    }
}
