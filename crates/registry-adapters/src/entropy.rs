//! The randomness of the operating system.

use registry_core::ports::entropy::Entropy;

/// The operating system's generator; fit for secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    /// # Panics
    /// When the operating system has no randomness to give: a secret that could be guessed would be worse.
    #[expect(clippy::disallowed_methods, reason = "this is the adapter through which all others get randomness")]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_filled_and_no_two_answers_are_alike() {
        let (mut first, mut second) = ([0; 64], [0; 64]);
        OsEntropy.fill(&mut first);
        OsEntropy.fill(&mut second);
        assert_ne!(first, second);
        for half in [&first[..32], &first[32..]] {
            assert_ne!(half, [0; 32]);
        }
        OsEntropy.fill(&mut []);
    }
}
