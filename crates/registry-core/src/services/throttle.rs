//! Failed attempts to authenticate, counted for each client.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::time::Timestamp;

const WINDOW: Duration = Duration::from_mins(1);
/// How many clients are remembered at least, those that failed last, and half of how many at most.
const KEPT: usize = 25_000;

/// Too many failed attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many failed attempts to authenticate")]
pub struct Throttled {
    /// After how long another attempt is looked at.
    pub retry_after: Duration,
}

/// Since when a client's failures are counted, and how many there were.
type Failures = (Timestamp, u32);

pub(super) struct Throttle {
    limit: u32,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Those that failed last.
    recent: HashMap<IpAddr, Failures>,
    /// Those that were `recent` before there were too many of them.
    earlier: HashMap<IpAddr, Failures>,
}

/// The client behind an address. Whoever has one IPv6 address has the 2^64 that begin as it does (RFC 6177).
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

impl Throttle {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, counts: Mutex::default() }
    }

    /// Whether an attempt from `address` may be looked at now. What was proven lately is not asked here, so a busy
    /// client behind the same address goes on.
    pub(super) fn check(&self, address: IpAddr, now: Timestamp) -> Result<(), Throttled> {
        let (client, counts) = (client(address), self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        match counts.recent.get(&client).or_else(|| counts.earlier.get(&client)) {
            Some((began, count)) if *count >= self.limit && now.since(*began) < WINDOW => {
                Err(Throttled { retry_after: WINDOW - now.since(*began) })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn failed(&self, address: IpAddr, now: Timestamp) {
        let (client, mut counts) = (client(address), self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        let Counts { recent, earlier } = &mut *counts;
        if recent.len() >= KEPT && !recent.contains_key(&client) {
            *earlier = std::mem::take(recent);
        }
        let entry = recent.entry(client).or_insert_with(|| earlier.remove(&client).unwrap_or((now, 0)));
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
    fn one_ipv6_client_has_many_addresses() {
        let throttle = Throttle::new(2);
        let now = Timestamp::from_micros(0);
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        for address in ["2001:db8:1:2::1", "2001:db8:1:2:ffff::"] {
            assert_eq!(throttle.check(parse(address), now), Ok(()));
            throttle.failed(parse(address), now);
        }
        assert!(throttle.check(parse("2001:db8:1:2:3:4:5:6"), now).is_err());
        assert_eq!(throttle.check(parse("2001:db8:1:3::1"), now), Ok(()), "a neighbour");
        // IPv4 in the form of IPv6 is IPv4: there one address is one client.
        for address in ["::ffff:192.0.2.1", "192.0.2.1"] {
            assert_eq!(throttle.check(parse("192.0.2.1"), now), Ok(()));
            throttle.failed(parse(address), now);
        }
        assert!(throttle.check(parse("::ffff:192.0.2.1"), now).is_err());
        assert_eq!(throttle.check(parse("::ffff:192.0.2.2"), now), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_those_that_go_on_failing_are_not_forgotten() {
        let throttle = Throttle::new(3);
        let now = Timestamp::from_micros(0);
        let (guesser, quiet): (IpAddr, IpAddr) = ([255, 0, 0, 1].into(), [255, 0, 0, 2].into());
        for _ in 0..3 {
            throttle.failed(quiet, now);
        }
        throttle.failed(guesser, now);
        for round in 0..10u32 {
            for index in 0..10_000u32 {
                throttle.failed(IpAddr::from((round * 10_000 + index).to_be_bytes()), now);
            }
            throttle.failed(guesser, now);
            let counts = throttle.counts.lock().unwrap();
            assert!(counts.recent.len() <= KEPT && counts.earlier.len() <= KEPT, "round {round}");
            drop(counts);
            assert_eq!(throttle.check(guesser, now).is_err(), round > 0, "round {round}");
            // As many have failed since as are remembered at least.
            assert_eq!(throttle.check(quiet, now).is_err(), round < 4, "round {round}");
        }
    }
}
