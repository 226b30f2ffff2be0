//! Tails that this process has stored a moment ago.

use std::collections::{HashSet, VecDeque};

use registry_core::ports::blob_store::ObjectKey;

/// How many are remembered; whatever is forgotten is asked for at the store.
const LIMIT: usize = 4096;

/// The keys of objects whose storing was acknowledged to this process, so that whoever publishes them in the same request
/// need not ask whether they are there.
///
/// It may be wrong of what another process has removed since. That is removed only after its session has ended, and then
/// the commit is refused.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    keys: HashSet<ObjectKey>,
    order: VecDeque<ObjectKey>,
}

impl Acknowledged {
    pub(super) fn insert(&mut self, key: ObjectKey) {
        if self.order.len() == LIMIT
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.keys.insert(key);
    }

    /// Forgets a key; whether it was known.
    pub(super) fn remove(&mut self, key: &ObjectKey) -> bool {
        self.keys.remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_known_once() {
        let mut acknowledged = Acknowledged::default();
        let key = |number: usize| ObjectKey(number.to_string());
        for number in 0..=LIMIT {
            acknowledged.insert(key(number));
        }
        assert!(!acknowledged.remove(&key(0)));
        assert!(acknowledged.remove(&key(1)) && acknowledged.remove(&key(LIMIT)));
        assert!(!acknowledged.remove(&key(1)));
    }
}
