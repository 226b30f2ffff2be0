//! What the use cases have done, for `/metrics`: read when it is asked for.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use registry_core::services::Services;

use crate::metrics::Metrics;

/// Adds the metrics of uploads and collections of garbage.
pub fn register(metrics: &Metrics, services: Arc<Services>) {
    metrics.register(|registry| registry.register_collector(Box::new(Activities(services))));
}

struct Activities(Arc<Services>);

impl fmt::Debug for Activities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activities").finish_non_exhaustive()
    }
}

impl Collector for Activities {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let activity = self.0.activity().snapshot();
        let collected = activity.collected;
        for (name, help, value) in [
            ("uploads_begun", "Upload sessions begun", activity.uploads_begun),
            ("uploads_committed", "Attempts to finish an upload that succeeded", activity.uploads_committed),
            ("uploads_refused", "Attempts to finish an upload that were refused or failed", activity.uploads_refused),
            ("gc_runs", "Collections of garbage that came to their end", activity.collections_succeeded),
            ("gc_failures", "Collections of garbage that a failing store ended", activity.collections_failed),
            ("gc_references_reviewed", "Memberships of blobs looked at", collected.memberships_reviewed),
            ("gc_references_dropped", "Memberships of blobs dropped", collected.memberships_dropped),
            ("gc_blobs_deleted", "Blobs deleted", collected.blobs_deleted),
            ("gc_freed_bytes", "Bytes of the blobs deleted", collected.bytes_freed),
            ("gc_objects_deleted", "Objects deleted from the store", collected.objects_deleted),
            ("gc_uploads_ended", "Idle uploads ended", collected.uploads_ended),
        ] {
            counter(&mut encoder, name, help, value)?;
        }
        gauge(
            &mut encoder,
            "gc_running",
            "Collections of garbage that are running",
            activity.collections_running as f64,
        )?;
        if let Some(time) = activity.last_success {
            let help = "When the last collection that came to its end did, in seconds since the Unix epoch";
            gauge(&mut encoder, "gc_last_success_timestamp_seconds", help, time.as_micros() as f64 / 1e6)?;
            let help = "How long the last collection that came to its end took";
            gauge(&mut encoder, "gc_last_duration_seconds", help, activity.last_duration.as_secs_f64())?;
        }
        Ok(())
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}
