//! Seeded randomness (SplitMix64). The seed is printed; `FOUNDRY_TEST_SEED` sets it.

use std::io::Write;

/// A reproducible sequence of random numbers.
pub struct Random(u64);

impl Random {
    /// From the environment's seed, or `default`. Says which, so that a failure can be run again.
    pub fn seeded(what: &str, default: u64) -> Self {
        let seed = std::env::var("FOUNDRY_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default);
        let _ = writeln!(std::io::stderr(), "{what}: FOUNDRY_TEST_SEED={seed}");
        Self(seed)
    }

    /// From this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends and is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// `length` random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
