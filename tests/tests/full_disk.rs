//! A disk that fills up: a clear error, nothing acknowledged is harmed, and service resumes when space returns.

use std::path::Path;
use std::process::Command;

use registry_tests::oci::sha256;
use registry_tests::tools::{skip, succeed, tool};
use registry_tests::{Image, Random, Server};

/// A small file system in memory; it goes when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let mount = tool("full disk", "mount")?;
        let folder = tempfile::TempDir::new().unwrap();
        let size = format!("size={megabytes}m");
        let status = Command::new(mount).args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).status();
        if !status.is_ok_and(|status| status.success()) {
            skip("full disk", "a small file system cannot be mounted; run as root");
            return None;
        }
        Some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        succeed(Command::new("umount").arg("--lazy").arg(self.0.path()));
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let Some(disk) = SmallDisk::mount(48) else { return };
    let server = Server::builder().data(&disk.path().join("data")).start();
    let repository = server.repository("full/disk");
    let first = Image::new(vec![Random::new(1).bytes(4_000_000)]);
    repository.push("first", &first);

    let mut stored = Vec::new();
    let mut refused = None;
    for seed in 10..40 {
        let bytes = Random::new(seed).bytes(4_000_000);
        let digest = sha256(&bytes);
        let answer = server.request("POST", &repository.path("blobs/uploads/"), &[], b"");
        let answer = match answer.header("location") {
            Some(location) if answer.status == 202 => repository.finish(location, &digest, &bytes),
            _ => answer,
        };
        match answer.status {
            201 => stored.push((digest, bytes)),
            _ => {
                refused = Some((answer, digest, bytes));
                break;
            }
        }
    }
    let (refusal, digest, bytes) = refused.expect("48 MiB hold no 30 blobs of 4 MB");
    assert_eq!(refusal.status, 507, "{refusal:?}");
    assert!(refusal.text().contains("no space left"), "{}", refusal.text());
    repository.head_blob(&digest).expect(404);

    // Reading goes on, and everything that was acknowledged is there.
    assert!(stored.len() >= 4, "{}", stored.len());
    for (digest, bytes) in &stored {
        assert_eq!(repository.get_blob(digest).expect(200).body, *bytes);
    }
    repository.assert_holds("first", &first);

    // An administrator deletes and collects; then the refused blob goes in.
    for (digest, _) in &stored[..3] {
        server.request("DELETE", &repository.path(&format!("blobs/{digest}")), &[], b"").expect(202);
    }
    assert_eq!(server.gc("24h")["blobs_deleted"], 3);
    let location = repository.start_upload();
    repository.finish(&location, &digest, &bytes).expect(201);
    assert_eq!(repository.get_blob(&digest).expect(200).body, bytes);
    repository.assert_holds("first", &first);

    let server = server.restart();
    server.repository("full/disk").assert_holds("first", &first);
    let (clean, report) = server.check(&["--deep"]);
    assert!(clean, "{report}");
}
