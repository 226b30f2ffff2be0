//! Failed attempts to authenticate, counted for each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::time::Timestamp;

const WINDOW: Duration = Duration::from_mins(1);
/// How many addresses are remembered; beyond it the oldest windows are dropped.
const ADDRESS_LIMIT: usize = 50_000;

/// Too many failed attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts to authenticate")]
pub struct Throttled {
    /// After how long another attempt is looked at.
    pub retry_after: Duration,
}

pub(super) struct Throttle {
    limit: u32,
    failures: Mutex<HashMap<IpAddr, (Timestamp, u32)>>,
}

impl Throttle {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, failures: Mutex::default() }
    }

    /// Whether an attempt from `address` may be looked at now. What was proven lately is not asked here, so a busy
    /// client behind the same address goes on.
    pub(super) fn check(&self, address: IpAddr, now: Timestamp) -> Result<(), Throttled> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(&address) {
            Some((began, count)) if *count >= self.limit && now.since(*began) < WINDOW => {
                Err(Throttled { retry_after: WINDOW - now.since(*began) })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn failed(&self, address: IpAddr, now: Timestamp) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= ADDRESS_LIMIT && !failures.contains_key(&address) {
            failures.retain(|_, (began, _)| now.since(*began) < WINDOW);
            if failures.len() >= ADDRESS_LIMIT {
                failures.clear();
            }
        }
        let entry = failures.entry(address).or_insert((now, 0));
        if now.since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_too_often_waits_for_the_rest_of_its_minute() {
        let throttle = Throttle::new(3);
        let (one, other): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let start = Timestamp::from_micros(1_000_000_000);
        for _ in 0..3 {
            assert_eq!(throttle.check(one, start), Ok(()));
            throttle.failed(one, start);
        }
        let later = start + Duration::from_secs(20);
        assert_eq!(throttle.check(one, later), Err(Throttled { retry_after: Duration::from_secs(40) }));
        assert_eq!(throttle.check(other, later), Ok(()));
        let after = start + Duration::from_mins(1);
        assert_eq!(throttle.check(one, after), Ok(()));
        throttle.failed(one, after);
        assert_eq!(throttle.check(one, after), Ok(()), "a new window counts from the beginning");
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::new(1);
        for index in 0..60_000u32 {
            throttle.failed(IpAddr::from(index.to_be_bytes()), Timestamp::from_micros(0));
        }
        assert!(throttle.failures.lock().unwrap().len() <= ADDRESS_LIMIT);
    }

    #[test]
    fn where_too_many_addresses_fail_those_whose_minute_is_over_are_forgotten_first() {
        let throttle = Throttle::new(1);
        let failed = |number: usize, now: Timestamp| {
            throttle.failed(IpAddr::from(u32::try_from(number).unwrap().to_be_bytes()), now);
            throttle.failures.lock().unwrap().len()
        };
        let start = Timestamp::from_micros(0);
        let later = start + WINDOW;
        for number in 1..ADDRESS_LIMIT {
            assert_eq!(failed(number, start), number);
        }
        assert_eq!(failed(ADDRESS_LIMIT, later), ADDRESS_LIMIT);
        assert_eq!(failed(1, later), ADDRESS_LIMIT, "one that is known takes no room");
        assert_eq!(failed(ADDRESS_LIMIT + 1, later), 3, "those whose minute is over made room");
        for number in 4..=ADDRESS_LIMIT {
            assert_eq!(failed(2 * ADDRESS_LIMIT + number, later), number);
        }
        assert_eq!(failed(0, later), 1);
    }
}
