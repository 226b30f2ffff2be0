//! Waiting for what a test can observe, instead of for a time.

use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer; fails the test when there is none for [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "it never came to pass that {what}");
        pause();
    }
}

/// Lets others run for a moment; for loops that ask, never for what has to have happened afterwards.
pub fn pause() {
    std::thread::park_timeout(Duration::from_millis(10));
}
