//! The progress bar: only for a person, on stderr.
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use registry_client::{Phase, Progress, silent};

const KNOWN: &str =
    "{msg:9} [{bar:30}] {percent:>3}%  {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
const UNKNOWN: &str = "{msg:9} {spinner}  {binary_bytes}  {binary_bytes_per_sec}  {elapsed}";
/// How often the bar is drawn while nothing moves, so that a person sees the rate fall.
const TICK: Duration = Duration::from_millis(250);

/// A transfer's bar, which disappears when this is dropped.
pub struct Watcher {
    bar: Option<ProgressBar>,
}

impl Watcher {
    /// A bar if stderr is a terminal, else nothing.
    pub fn new() -> Self {
        Self {
            bar: io::stderr().is_terminal().then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())),
        }
    }

    /// What the client tells the progress to.
    pub fn progress(&self) -> Arc<dyn Progress> {
        match &self.bar {
            Some(bar) => Arc::new(Bar(bar.clone())),
            None => silent(),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn begin(&self, phase: Phase, total: Option<u64>, done: u64) {
        let template = if total.is_some() { KNOWN } else { UNKNOWN };
        self.0
            .set_style(ProgressStyle::with_template(template).expect("the templates are valid").progress_chars("=> "));
        self.0.set_message(match phase {
            Phase::Hashing => "Hashing",
            Phase::Sending => "Pushing",
            Phase::Checking => "Checking",
            Phase::Receiving => "Pulling",
        });
        match total {
            Some(total) => self.0.set_length(total),
            None => self.0.unset_length(),
        }
        self.0.set_position(done);
        // What was done before says nothing about the rate.
        self.0.reset_eta();
        self.0.enable_steady_tick(TICK);
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [KNOWN, UNKNOWN] {
            ProgressStyle::with_template(template).expect("valid");
        }
    }
}
