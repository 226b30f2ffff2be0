//! What runs in the background of a server: on every replica, since each of them may run anything at any time.

use std::sync::Arc;
use std::time::Duration;

use registry_core::ports::entropy::Entropy;
use registry_core::services::{CollectGarbage, GarbageReport, Services};
use registry_http::auth::Authenticator;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The first collection comes within this time, because it finishes what a crashed process began.
const FIRST_COLLECTION_WITHIN: Duration = Duration::from_mins(1);
/// How often keys are looked at; they are replaced far more rarely.
const KEYS_EVERY: Duration = Duration::from_hours(1);

/// The background jobs of a server. They end when the token is cancelled.
pub struct Jobs {
    tasks: TaskTracker,
}

impl Jobs {
    /// Starts them. An `interval` of zero means no collections.
    pub fn start(
        services: Arc<Services>,
        authenticator: Arc<Authenticator>,
        entropy: Arc<dyn Entropy>,
        interval: Duration,
        stop: CancellationToken,
    ) -> Self {
        let tasks = TaskTracker::new();
        if !interval.is_zero() {
            let (services, stop) = (Arc::clone(&services), stop.clone());
            let first = share(interval.min(FIRST_COLLECTION_WITHIN), random_share(entropy.as_ref()));
            tasks.spawn(until(stop, async move {
                tokio::time::sleep(first).await;
                loop {
                    collect_garbage(&services).await;
                    tokio::time::sleep(with_jitter(interval, random_share(entropy.as_ref()))).await;
                }
            }));
        }
        tasks.spawn(until(stop, async move {
            loop {
                tokio::time::sleep(KEYS_EVERY).await;
                rotate_keys(&services, &authenticator).await;
            }
        }));
        tasks.close();
        Self { tasks }
    }

    /// Returns when all have ended.
    pub async fn ended(self) {
        self.tasks.wait().await;
    }
}

/// Runs `job` until `stop`: it is dropped at an await, which no use case minds.
async fn until(stop: CancellationToken, job: impl Future<Output = ()>) {
    let _ = stop.run_until_cancelled(job).await;
}

async fn collect_garbage(services: &Services) {
    match services.collect_garbage(CollectGarbage::default()).await {
        Ok(report) => log_report(&report),
        Err(error) => tracing::error!(error = error.chain(), "garbage collection failed"),
    }
}

fn log_report(report: &GarbageReport) {
    tracing::info!(
        blobs_deleted = report.blobs_deleted,
        bytes_freed = report.bytes_freed,
        memberships_reviewed = report.memberships_reviewed,
        memberships_dropped = report.memberships_dropped,
        uploads_ended = report.uploads_ended,
        objects_deleted = report.objects_deleted,
        "garbage collected"
    );
}

/// Makes a new key when it is time to, and takes up what other replicas made.
async fn rotate_keys(services: &Services, authenticator: &Authenticator) {
    if let Err(error) = services.rotate_signing_keys().await {
        tracing::error!(error = error.chain(), "the signing keys could not be rotated");
    }
    if let Err(error) = authenticator.registry_tokens().refresh_keys().await {
        tracing::error!(error = error.chain(), "the signing keys could not be read");
    }
}

/// Between 0 and 1.
fn random_share(entropy: &dyn Entropy) -> f64 {
    let mut bytes = [0; 4];
    entropy.fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}

fn share(whole: Duration, share: f64) -> Duration {
    whole.mul_f64(share)
}

/// `interval` ± 10 %, so that replicas that started together do not stay together.
fn with_jitter(interval: Duration, share: f64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_tenth() {
        let hour = Duration::from_hours(1);
        assert_eq!(with_jitter(hour, 0.0), Duration::from_mins(54));
        assert_eq!(with_jitter(hour, 1.0), Duration::from_mins(66));
        assert_eq!((share(hour, 0.0), share(hour, 1.0)), (Duration::ZERO, hour));
    }

    #[test]
    fn a_random_share_uses_the_whole_range() {
        struct Fixed(u8);
        impl Entropy for Fixed {
            fn fill(&self, bytes: &mut [u8]) {
                bytes.fill(self.0);
            }
        }
        assert_eq!((random_share(&Fixed(0)), random_share(&Fixed(255))), (0.0, 1.0));
        let middle = random_share(&Fixed(128));
        assert!((0.5..0.51).contains(&middle), "{middle}");
    }
}
