//! The time: of this machine, or of the database.

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use registry_core::ports::clock::Clock;
use registry_core::time::Timestamp;

/// The operating system's clock, for a metadata store on this machine: its time is the store's time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the adapter through which all others read the time")]
    fn now(&self) -> Timestamp {
        // A clock before 1970 or after the year 290,000 is not set; the epoch is then as good as any answer.
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
        Timestamp::from_micros(i64::try_from(micros).unwrap_or(0))
    }
}

/// The database's time, as it was when it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// When that was, by this machine's monotonic clock.
    pub at: Instant,
    /// What the database's clock showed.
    pub database: Timestamp,
}

/// The time of a database on another machine: what it was at the last reading, and how long ago that is.
///
/// This machine's own time is never looked at, only how much of it passes: so the clock is right although this machine's
/// is an hour off, or is set while the server runs.
#[derive(Debug)]
pub struct DatabaseClock(Mutex<Reading>);

impl DatabaseClock {
    /// A clock that was read once.
    pub fn new(reading: Reading) -> Self {
        Self(Mutex::new(reading))
    }

    /// Goes on from another reading.
    pub fn set(&self, reading: Reading) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reading;
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        // The lock is held for a copy.
        let Reading { at, database } = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        database + at.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_counts_microseconds_and_goes_forward() {
        let (first, second) = (SystemClock.now(), SystemClock.now());
        // 2024-01-01 and 2200-01-01: nanoseconds, milliseconds or seconds would lie outside.
        assert!((1_704_067_200_000_000..7_258_118_400_000_000).contains(&first.as_micros()), "{first}");
        assert!(second >= first);
    }

    #[test]
    fn the_databases_time_goes_on_from_its_last_reading() {
        let started = Instant::now();
        let shown = Timestamp::from_micros(1_000_000);
        let clock = DatabaseClock::new(Reading { at: started, database: shown });
        let first = clock.now();
        let passed = started.elapsed();
        assert!(first >= shown && first <= shown + passed, "{first} after {passed:?}");
        assert!(clock.now() >= first);
        // A reading of an hour ago says what it is now.
        if let Some(hour_ago) = started.checked_sub(Duration::from_secs(3600)) {
            clock.set(Reading { at: hour_ago, database: shown });
            assert!(clock.now() >= shown + Duration::from_secs(3600));
        }
        let later = shown + Duration::from_secs(7200);
        clock.set(Reading { at: started, database: later });
        assert!(clock.now() >= later && clock.now() <= later + started.elapsed());
    }
}
