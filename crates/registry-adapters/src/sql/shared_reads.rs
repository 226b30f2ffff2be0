//! Equal reads that wait at the same time are one query.
//!
//! A thousand machines that pull one tag ask the same question at the same moment. A read never joins a query that has
//! begun, which might miss what was committed before the read was asked for. It joins those that wait for that query to
//! end: so at most one query of a kind runs and one waits, and each answer has all that was committed before its
//! question.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::error::{Failure, Result};

/// The reads under way, by what they ask.
pub(super) struct SharedReads<K, T> {
    questions: Mutex<HashMap<K, Question<T>>>,
}

/// One query, for all that wait for it.
type Answer<T> = Arc<OnceCell<std::result::Result<T, Arc<Failure>>>>;

struct Question<T> {
    /// How many want to know; the last to go takes the question along.
    askers: usize,
    /// Held while a query runs.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The query that has not begun.
    next: Option<Answer<T>>,
}

impl<K, T> Default for SharedReads<K, T> {
    fn default() -> Self {
        Self { questions: Mutex::default() }
    }
}

impl<K, T> fmt::Debug for SharedReads<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReads").field("questions", &self.questions().len()).finish()
    }
}

impl<K, T> SharedReads<K, T> {
    fn questions(&self) -> MutexGuard<'_, HashMap<K, Question<T>>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash, T: Clone> SharedReads<K, T> {
    /// What `query` answers, or an equal one that began after this was called. `key` says which are equal.
    ///
    /// # Errors
    /// That of the query, which may be [shared](Failure::Shared) with others.
    pub(super) async fn read(&self, key: K, query: impl AsyncFnOnce() -> Result<T>) -> Result<T> {
        let asker = self.ask(key);
        // Whoever runs the query may be dropped meanwhile: then another of those that wait runs its own.
        let answer = asker.answer.get_or_init(async || {
            let _turn = asker.turn.lock().await;
            asker.begin();
            query().await.map_err(Arc::new)
        });
        answer.await.clone().map_err(Failure::Shared)
    }

    fn ask(&self, key: K) -> Asker<'_, K, T> {
        let mut questions = self.questions();
        let question =
            questions.entry(key.clone()).or_insert_with(|| Question { askers: 0, turn: Arc::default(), next: None });
        question.askers += 1;
        let answer = Arc::clone(question.next.get_or_insert_default());
        let turn = Arc::clone(&question.turn);
        drop(questions);
        Asker { reads: self, key, turn, answer }
    }
}

/// Somebody who wants to know.
struct Asker<'a, K: Eq + Hash, T> {
    reads: &'a SharedReads<K, T>,
    key: K,
    turn: Arc<tokio::sync::Mutex<()>>,
    answer: Answer<T>,
}

impl<K: Eq + Hash, T> Asker<'_, K, T> {
    /// From now on nobody joins.
    fn begin(&self) {
        if let Some(question) = self.reads.questions().get_mut(&self.key) {
            question.next.take_if(|next| Arc::ptr_eq(next, &self.answer));
        }
    }
}

impl<K: Eq + Hash, T> Drop for Asker<'_, K, T> {
    fn drop(&mut self) {
        let mut questions = self.reads.questions();
        if let Some(question) = questions.get_mut(&self.key) {
            question.askers -= 1;
            if question.askers == 0 {
                questions.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::{join, join_all};
    use futures_util::poll;
    use registry_core::error::StoreErrorKind;
    use tokio::sync::Semaphore;

    use super::*;

    /// Queries that are counted, and answer their number when they are let go.
    struct Queries {
        begun: AtomicUsize,
        gate: Semaphore,
        reads: SharedReads<&'static str, usize>,
    }

    impl Queries {
        fn new() -> Self {
            Self { begun: AtomicUsize::new(0), gate: Semaphore::new(0), reads: SharedReads::default() }
        }

        async fn ask(&self, key: &'static str) -> Result<usize> {
            let query = async || {
                let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
                self.gate.acquire().await.map_err(|_| Failure::Closed)?.forget();
                Ok(number)
            };
            self.reads.read(key, query).await
        }

        fn begun(&self) -> usize {
            self.begun.load(Ordering::Relaxed)
        }

        fn is_empty(&self) -> bool {
            self.reads.questions().is_empty()
        }
    }

    #[tokio::test]
    async fn who_comes_during_a_query_waits_for_the_next_together_with_the_others() {
        let queries = Queries::new();
        let mut first = Box::pin(queries.ask("it"));
        assert!(poll!(&mut first).is_pending());
        let mut others: Vec<_> = (0..5).map(|_| Box::pin(queries.ask("it"))).collect();
        for other in &mut others {
            assert!(poll!(other).is_pending());
        }
        assert_eq!(queries.begun(), 1, "the second waits for the first");
        queries.gate.add_permits(1);
        assert_eq!(first.await.unwrap(), 1);
        queries.gate.add_permits(1);
        let answers: Vec<_> = join_all(others).await.into_iter().map(Result::unwrap).collect();
        assert_eq!((answers, queries.begun()), (vec![2; 5], 2));
        assert!(queries.is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn who_comes_after_the_second_has_begun_waits_for_a_third() {
        let queries = Queries::new();
        let (mut first, mut second) = (Box::pin(queries.ask("it")), Box::pin(queries.ask("it")));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        queries.gate.add_permits(1);
        assert_eq!(first.await.unwrap(), 1);
        assert!(poll!(&mut second).is_pending());
        let mut third = Box::pin(queries.ask("it"));
        assert!(poll!(&mut third).is_pending());
        queries.gate.add_permits(2);
        assert_eq!((second.await.unwrap(), third.await.unwrap()), (2, 3));
    }

    #[tokio::test]
    async fn different_questions_do_not_wait_for_each_other() {
        let queries = Queries::new();
        let (mut one, mut other) = (Box::pin(queries.ask("one")), Box::pin(queries.ask("other")));
        assert!(poll!(&mut one).is_pending() && poll!(&mut other).is_pending());
        assert_eq!(queries.begun(), 2);
    }

    #[tokio::test]
    async fn who_leaves_takes_no_answer_from_the_others() {
        let queries = Queries::new();
        let mut first = Box::pin(queries.ask("it"));
        let mut leader = Box::pin(queries.ask("it"));
        let mut other = Box::pin(queries.ask("it"));
        assert!(poll!(&mut first).is_pending() && poll!(&mut leader).is_pending() && poll!(&mut other).is_pending());
        // In the middle of a query, and before the next has begun.
        drop(first);
        drop(leader);
        queries.gate.add_permits(1);
        assert_eq!((other.await.unwrap(), queries.begun()), (2, 2));
        assert!(queries.is_empty(), "nothing is kept");

        let mut leader = Box::pin(queries.ask("it"));
        let mut other = Box::pin(queries.ask("it"));
        assert!(poll!(&mut leader).is_pending());
        drop(leader);
        assert!(poll!(&mut other).is_pending());
        drop(other);
        assert!(queries.is_empty(), "nothing is kept of those that all left");
    }

    #[tokio::test]
    async fn a_failure_is_everybodys() {
        let queries = Queries::new();
        let mut first = Box::pin(queries.ask("it"));
        assert!(poll!(&mut first).is_pending());
        let mut others = Box::pin(join_all((0..3).map(|_| queries.ask("it"))));
        assert!(poll!(&mut others).is_pending());
        queries.gate.close();
        let (first, others) = join(first, others).await;
        assert_eq!((others.len(), queries.begun()), (3, 2));
        for outcome in others.into_iter().chain([first]) {
            assert_eq!(outcome.unwrap_err().kind(), StoreErrorKind::Unavailable);
        }
    }
}
