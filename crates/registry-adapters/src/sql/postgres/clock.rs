//! The server's clock, and the upkeep of its connections.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::pool::Pool;
use crate::clock::{DatabaseClock, Reading};
use crate::sql::error::Result;
use crate::sql::statement::on_postgres;

/// How often the clock is measured. Two machines drift apart by less than a millisecond in that time.
const INTERVAL: Duration = Duration::from_secs(20);

/// How often the server is asked for one measurement; the quickest answer tells most.
const QUESTIONS: usize = 3;

/// Asks the server for its time.
pub(super) async fn read(pool: &Arc<Pool>) -> Result<Reading> {
    let mut lease = pool.acquire().await?;
    let mut best: Option<(Duration, Reading)> = None;
    for _ in 0..QUESTIONS {
        let ask = on_postgres("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS micros");
        let asked = Instant::now();
        let micros = lease.connection().fetch_one(ask).await.and_then(|row| row.time("micros"));
        let took = asked.elapsed();
        let database = match micros {
            Ok(database) => database,
            Err(failure) => {
                lease.lost();
                return Err(failure);
            }
        };
        if best.as_ref().is_none_or(|(quickest, _)| took < *quickest) {
            // It was read somewhere between the question and the answer: half-way is wrong by half of that at most.
            best = Some((took, Reading { at: asked + took / 2, database }));
        }
    }
    lease.give_back();
    Ok(best.expect("it was asked at least once").1)
}

/// Measures the clock again and again, until the store is gone. While the server does not answer, the last measurement
/// holds.
pub(super) async fn keep(pool: Weak<Pool>, clock: Arc<DatabaseClock>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(pool) = pool.upgrade().filter(|pool| pool.is_open()) else { return };
        pool.tidy().await;
        match read(&pool).await {
            Ok(reading) => clock.set(reading),
            Err(failure) => tracing::warn!(%failure, "the metadata store's clock cannot be read"),
        }
    }
}
