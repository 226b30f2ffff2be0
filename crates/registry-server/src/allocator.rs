//! The memory of the server.
//!
//! musl's allocator has one lock for all threads: the image's program, which is linked against it, answered a third of the
//! requests. So every build brings this one (ADR 11).

#![expect(unsafe_code, reason = "mimalloc's options have no safe wrapper; see the call")]

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// `mi_option_purge_delay`: for how many milliseconds memory that is free is kept before the system has it back.
const PURGE_DELAY: mi_option_t = 15;
/// It is 1000 without being told. 16 uploads of 1 GiB at once then take 4 to 14 MB more, and are no faster.
const PURGE_DELAY_MS: c_long = 10;

/// Chooses what the allocator does, unless the environment says otherwise (`MIMALLOC_…`). To be called before there is a
/// second thread.
pub fn configure() {
    // SAFETY: it writes a number that only the allocator reads, and no other thread is there yet.
    unsafe { mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) };
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use libmimalloc_sys::mi_option_get;

    use super::*;

    /// The options have numbers, which another release might give anew: the environment knows them by name.
    #[test]
    fn the_option_is_the_one_that_is_meant_and_the_environment_wins() {
        const NAME: &str = "MIMALLOC_PURGE_DELAY";
        // SAFETY: it reads a number.
        let delay = || unsafe { mi_option_get(PURGE_DELAY) };
        if let Ok(told) = std::env::var(NAME) {
            configure();
            assert_eq!(delay().to_string(), told);
            return;
        }
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "allocator::tests::the_option_is_the_one_that_is_meant_and_the_environment_wins"]);
        assert!(again.env(NAME, "77").status().unwrap().success());
        configure();
        assert_eq!(delay(), PURGE_DELAY_MS);
    }
}
