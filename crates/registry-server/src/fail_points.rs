//! Death, or a stop, at a named moment, for tests of what survives it. Only in builds with the feature `fail-points`.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, raise};
use registry_core::ports::steps::{ALL, MIGRATION, MULTIPART, Steps};

/// The variable that says where: `<step>`, `<step>:<n>` or `<step>:<n>:stop`, at the n-th passing.
pub const VARIABLE: &str = "FOUNDRY_FAIL_POINT";

/// The variable that says how many bytes of one request are received before their offset is recorded.
pub const CHECKPOINT_BYTES: &str = "FOUNDRY_CHECKPOINT_BYTES";

/// Kills this process, as a power cut would, or stops it, when a step is passed for the n-th time.
#[derive(Debug)]
pub struct FailPoint {
    step: &'static str,
    /// Passings that are still to be survived.
    left: AtomicU64,
    signal: Signal,
}

impl FailPoint {
    /// Reads `<step>[:<n>[:stop]]`; n counts from 1, which is the default.
    ///
    /// # Errors
    /// A text that names the steps that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (point, signal) = match text.strip_suffix(":stop") {
            Some(point) => (point, Signal::SIGSTOP),
            None => (text, Signal::SIGKILL),
        };
        let (name, passing) = point.split_once(':').unwrap_or((point, "1"));
        let step = ALL.into_iter().chain(MULTIPART).chain(MIGRATION).find(|step| *step == name);
        match (step, passing.parse::<u64>()) {
            (Some(step), Ok(passing)) if passing > 0 => Ok(Self { step, left: AtomicU64::new(passing - 1), signal }),
            _ => {
                let steps = [&ALL[..], &MULTIPART, &MIGRATION].concat().join(", ");
                Err(format!("{VARIABLE}={text}: expected <step>[:<n>[:stop]] with a step of: {steps}"))
            }
        }
    }

    /// Whether this is the passing to end at. There is one: a process that was stopped goes on afterwards.
    fn is_due(&self, step: &str) -> bool {
        step == self.step && self.left.fetch_sub(1, Ordering::SeqCst) == 0
    }
}

/// Tells the log of every step, at the level `debug`, and ends or stops the process at one of them.
#[derive(Debug)]
pub struct FailPoints(pub Option<FailPoint>);

impl Steps for FailPoints {
    fn reached(&self, step: &'static str) {
        tracing::debug!(step, "reached");
        if let Some(point) = self.0.as_ref().filter(|point| point.is_due(step)) {
            // Neither signal can be caught: no destructor, no flush, no other thread goes on. It is sent to this thread:
            // sent to the process, another might take it, and this one would be a step further by then.
            let _ = raise(point.signal);
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
        assert_eq!(due, [(false, false), (false, false), (false, true), (false, false)]);
        assert!(FailPoint::parse("gc.doomed").unwrap().is_due(GC_DOOMED));
    }

    #[test]
    fn it_kills_unless_it_is_to_stop() {
        assert_eq!(FailPoint::parse("gc.doomed:2").unwrap().signal, Signal::SIGKILL);
        let stop = FailPoint::parse("gc.doomed:2:stop").unwrap();
        assert_eq!((stop.signal, stop.left.into_inner()), (Signal::SIGSTOP, 1));
    }

    #[test]
    fn a_wrong_text_names_the_steps() {
        for text in ["", "nowhere", "gc.doomed:0", "gc.doomed:x", "gc.doomed:1:1", ":stop", "gc.doomed:1:halt"] {
            assert!(FailPoint::parse(text).unwrap_err().contains("upload.sealed"), "{text}");
        }
    }
}
