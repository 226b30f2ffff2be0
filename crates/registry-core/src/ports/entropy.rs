//! Randomness.

/// Gives random bytes.
///
/// # Contract
/// In production the bytes are fit for secrets (the operating system's generator). Tests hand in a seeded one.
pub trait Entropy: Send + Sync {
    /// Fills all of `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}
