//! Several questions at a time, answered in their order.

use std::collections::BTreeMap;
use std::future::Future;
use std::iter::Enumerate;
use std::vec;

use tokio::task::JoinSet;

/// Asks the same of each of a list of things, several at a time, and answers in the order of the list.
///
/// Each is a task of its own, so that all cores work on them. An answer that comes before its turn is kept, and holds
/// nothing up: as long as there are things, as many are under way as may be. Nobody asks further while the last answer
/// is being used. Dropping it ends what is under way.
pub(super) struct InOrder<T, A, F> {
    things: Enumerate<vec::IntoIter<T>>,
    at_once: usize,
    ask: F,
    under_way: JoinSet<(usize, A)>,
    answers: BTreeMap<usize, A>,
    turn: usize,
}

impl<T, A, F, Asked> InOrder<T, A, F>
where
    A: Send + 'static,
    F: Fn(T) -> Asked,
    Asked: Future<Output = A> + Send + 'static,
{
    /// Will `ask` it of `things`, `at_once` at a time, but at least one.
    pub(super) fn new(things: Vec<T>, at_once: usize, ask: F) -> Self {
        Self {
            things: things.into_iter().enumerate(),
            at_once: at_once.max(1),
            ask,
            under_way: JoinSet::new(),
            answers: BTreeMap::new(),
            turn: 0,
        }
    }

    /// The next answer; `None` after the last. Dropping this future loses none.
    pub(super) async fn next(&mut self) -> Option<A> {
        loop {
            while self.under_way.len() < self.at_once
                && let Some((place, thing)) = self.things.next()
            {
                let asked = (self.ask)(thing);
                self.under_way.spawn(async move { (place, asked.await) });
            }
            if let Some(answer) = self.answers.remove(&self.turn) {
                self.turn += 1;
                return Some(answer);
            }
            match self.under_way.join_next().await? {
                Ok((place, answer)) => {
                    self.answers.insert(place, answer);
                }
                // Nobody ends one while somebody waits for it, so it panicked; and that is no end of the list.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::FutureExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn answers_come_in_order_and_an_early_one_holds_nothing_up() {
        let (first, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let mut questions = InOrder::new((0..6).collect(), 2, |number: usize| {
            let (first, begun) = (Arc::clone(&first), Arc::clone(&begun));
            async move {
                begun.lock().unwrap().push(number);
                match number {
                    0 => first.acquire().await.unwrap().forget(),
                    5 => first.add_permits(1),
                    _ => {}
                }
                number * 10
            }
        });
        // The first ends only after the last has begun.
        for number in 0..6 {
            assert_eq!(questions.next().await, Some(number * 10));
        }
        assert_eq!(questions.next().await, None);
        assert_eq!(*begun.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn no_more_are_asked_than_may_be_under_way() {
        let (gates, asked) = (Arc::new([(); 5].map(|()| Semaphore::new(0))), Arc::new(Mutex::new(0)));
        let mut questions = InOrder::new((0..5).collect(), 2, |number: usize| {
            *asked.lock().unwrap() += 1;
            let gates = Arc::clone(&gates);
            async move {
                gates[number].acquire().await.unwrap().forget();
                number
            }
        });
        for number in 0..5 {
            assert_eq!(questions.next().now_or_never(), None, "it is not answered");
            assert_eq!(*asked.lock().unwrap(), (number + 2).min(5));
            gates[number].add_permits(1);
            assert_eq!(questions.next().await, Some(number));
        }
        assert_eq!(questions.next().await, None);
    }

    #[tokio::test]
    async fn none_at_once_is_one_at_once() {
        let mut questions = InOrder::new(vec![1, 2], 0, async |number| number);
        assert_eq!((questions.next().await, questions.next().await), (Some(1), Some(2)));
        assert_eq!(questions.next().await, None);
    }

    #[tokio::test]
    #[should_panic(expected = "a broken invariant")]
    async fn a_panic_is_no_end_of_the_list() {
        let _: Option<()> = InOrder::new(vec![()], 2, async |()| panic!("a broken invariant")).next().await;
    }
}
