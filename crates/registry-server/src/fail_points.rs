//! Death at a named moment, for tests of what survives it. Only in builds with the feature `fail-points`.

use std::sync::atomic::{AtomicU64, Ordering};

use registry_core::ports::steps::{ALL, MIGRATION, Steps};

/// The variable that says where to die: `<step>` or `<step>:<n>`, at the n-th passing.
pub const VARIABLE: &str = "FOUNDRY_FAIL_POINT";

/// Kills this process, as a power cut would, when a step is passed for the n-th time.
#[derive(Debug)]
pub struct FailPoint {
    step: &'static str,
    /// Passings that are still to be survived.
    left: AtomicU64,
}

impl FailPoint {
    /// Reads `<step>[:<n>]`; n counts from 1, which is the default.
    ///
    /// # Errors
    /// A text that names the steps that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, passing) = text.split_once(':').unwrap_or((text, "1"));
        let step = ALL.into_iter().chain(MIGRATION).find(|step| *step == name);
        match (step, passing.parse::<u64>()) {
            (Some(step), Ok(passing)) if passing > 0 => Ok(Self { step, left: AtomicU64::new(passing - 1) }),
            _ => Err(format!(
                "{VARIABLE}={text}: expected <step>[:<n>] with a step of: {}",
                [&ALL[..], &MIGRATION].concat().join(", ")
            )),
        }
    }

    /// Whether this is the passing to die at.
    fn is_due(&self, step: &str) -> bool {
        let survived = |left: u64| left.checked_sub(1);
        step == self.step && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, survived).is_err()
    }
}

impl Steps for FailPoint {
    fn reached(&self, step: &'static str) {
        if self.is_due(step) {
            // SIGKILL cannot be caught: no destructor, no flush, no other thread goes on.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry_core::ports::steps::{GC_DOOMED, UPLOAD_SEALED};

    #[test]
    fn it_is_due_at_the_nth_passing_of_its_step() {
        let third = FailPoint::parse("upload.sealed:3").unwrap();
        let due: Vec<_> = (0..4).map(|_| (third.is_due(GC_DOOMED), third.is_due(UPLOAD_SEALED))).collect();
        assert_eq!(due, [(false, false), (false, false), (false, true), (false, true)]);
        assert!(FailPoint::parse("gc.doomed").unwrap().is_due(GC_DOOMED));
    }

    #[test]
    fn a_wrong_text_names_the_steps() {
        for text in ["", "nowhere", "gc.doomed:0", "gc.doomed:x", "gc.doomed:1:1"] {
            assert!(FailPoint::parse(text).unwrap_err().contains("upload.sealed"), "{text}");
        }
    }
}
