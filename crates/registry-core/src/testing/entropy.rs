//! Randomness that a test can have again.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ports::entropy::Entropy;

/// The same bytes for the same seed, in the order of the calls. Good enough to look random, and for nothing else.
#[derive(Debug, Default)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// A generator with this seed.
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number (SplitMix64: Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, 2014).
    pub fn next(&self) -> u64 {
        const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(GAMMA, Ordering::SeqCst).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `[0, end)`; `end` is not 0.
    pub fn below(&self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("it is less than a usize")
    }

    /// `length` bytes.
    pub fn bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides() {
        let [first, again, other] = [1, 1, 2].map(|seed| SeededEntropy::new(seed).bytes(37));
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert_eq!(SeededEntropy::new(0).next(), 0xE220_A839_7B1D_CDAF, "the published first output for seed 0");
    }

    #[test]
    fn below_stays_below() {
        let entropy = SeededEntropy::new(3);
        let drawn: Vec<_> = (0..200).map(|_| entropy.below(5)).collect();
        assert!((0..5).all(|number| drawn.contains(&number)) && drawn.iter().all(|number| *number < 5));
    }
}
