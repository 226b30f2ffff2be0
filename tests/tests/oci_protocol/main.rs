//! The OCI distribution protocol over plain HTTP, case by case: what the conformance suite expects (so that it is shown
//! where the suite cannot be had), and what it does not cover and clients meet.

mod blobs;
mod lists;
mod manifests;
mod mounts;
mod referrers;
mod refusals;
mod sessions;
mod tags;
mod uploads;

use registry_tests::oci::{sha256, sha512};

/// Computes the digest of some bytes.
type Compute = fn(&[u8]) -> String;

/// Both algorithms, and how to compute them.
const ALGORITHMS: [(&str, Compute); 2] = [("sha256", sha256), ("sha512", sha512)];

/// The digest of bytes that nobody sends.
fn absent() -> String {
    sha256(b"nobody sends this")
}
