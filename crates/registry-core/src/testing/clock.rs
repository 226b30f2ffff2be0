//! A clock that a test sets.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::ports::clock::Clock;
use crate::time::Timestamp;

/// Stands still until it is told to move.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now`.
    pub const fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.as_micros()))
    }

    /// Shows `now` from here on, which may be earlier than before.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_micros(), Ordering::SeqCst);
    }

    /// Moves on by `duration`, and says what it shows then.
    pub fn advance(&self, duration: Duration) -> Timestamp {
        let moved = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
            Some((Timestamp::from_micros(now) + duration).as_micros())
        });
        Timestamp::from_micros(moved.expect("the update always gives a value")) + duration
    }
}

impl Default for ManualClock {
    /// Shows the first moment of 2025.
    fn default() -> Self {
        Self::at(Timestamp::from_micros(1_735_689_600_000_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_only_when_told() {
        let clock = ManualClock::default();
        let start = clock.now();
        assert_eq!(clock.now(), start);
        assert_eq!(clock.advance(Duration::from_secs(2)), start + Duration::from_secs(2));
        assert_eq!(clock.now().since(start), Duration::from_secs(2));
        clock.set(start);
        assert_eq!(clock.now(), start);
    }
}
