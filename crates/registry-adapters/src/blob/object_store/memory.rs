//! The memory that the parts of all uploads share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long a part may be filled while others wait for memory. Whoever sends 4 MiB a second has sent it by then.
const TURN: Duration = Duration::from_secs(2);

/// Room for a number of parts. Those that are being sent give theirs back without anyone's help; those that are being
/// filled depend on their client, and give theirs up after a [`TURN`] when somebody waits.
pub(super) struct Memory {
    parts: Arc<Semaphore>,
    /// How many wait for room.
    waiting: AtomicUsize,
    /// How many are about to give theirs up.
    yielding: AtomicUsize,
}

/// Counts its owner for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    /// And how many were counted before.
    fn by(count: &'a AtomicUsize) -> (Self, usize) {
        let before = count.fetch_add(1, Ordering::Relaxed);
        (Self(count), before)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room for one part, until it is dropped.
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
    since: Instant,
}

impl Memory {
    /// Room for that many parts, and for one at least.
    pub(super) fn of(parts: u64) -> Self {
        let parts = usize::try_from(parts).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self { parts: Arc::new(Semaphore::new(parts)), waiting: AtomicUsize::new(0), yielding: AtomicUsize::new(0) }
    }

    /// Room for a part: in the order in which it was asked for, once others give theirs back.
    pub(super) async fn room(&self) -> Room {
        let (_waiting, _) = Counted::by(&self.waiting);
        let permit = Arc::clone(&self.parts).acquire_owned().await.expect("nobody closes the semaphore");
        Room { _permit: permit, since: Instant::now() }
    }

    /// Runs `give_up`, which gives `room` up, if its turn is over and somebody waits whom no other makes room for.
    pub(super) async fn give_up_after_turn<T>(&self, room: &Room, give_up: impl Future<Output = T>) -> Option<T> {
        if room.since.elapsed() < TURN {
            return None;
        }
        let (_yielding, others) = Counted::by(&self.yielding);
        if others >= self.waiting.load(Ordering::Relaxed) { None } else { Some(give_up.await) }
    }

    /// Returns once `room`'s turn is over, and then after each further one.
    pub(super) async fn turn_ends(&self, room: &Room) {
        let over = room.since.elapsed().as_millis() / TURN.as_millis();
        let turns = u32::try_from(over).unwrap_or(u32::MAX).saturating_add(1);
        tokio::time::sleep_until(room.since + TURN.saturating_mul(turns)).await;
    }
}
