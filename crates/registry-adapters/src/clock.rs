//! The time of this machine.

use std::time::{SystemTime, UNIX_EPOCH};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_microseconds_and_goes_forward() {
        let (first, second) = (SystemClock.now(), SystemClock.now());
        // 2024-01-01 and 2200-01-01: nanoseconds, milliseconds or seconds would lie outside.
        assert!((1_704_067_200_000_000..7_258_118_400_000_000).contains(&first.as_micros()), "{first}");
        assert!(second >= first);
    }
}
