//! The order of system calls on which durability rests: what was answered 201 is on the disk.

use registry_tests::oci::sha256;
use registry_tests::tools::tool;
use registry_tests::{Random, Server};

/// The place of the first line after `from` that satisfies all of `parts`.
#[track_caller]
fn after(lines: &[String], from: usize, what: &str, parts: &[&str]) -> usize {
    let found = lines.iter().skip(from).position(|line| parts.iter().all(|part| line.contains(part)));
    from + found.unwrap_or_else(|| panic!("no {what} after line {from} of:\n{}", lines.join("\n"))) + 1
}

#[test]
fn bytes_then_name_then_folder_then_commit_then_answer() {
    let Some(strace) = tool("power loss", "strace") else { return };
    let trace = tempfile::NamedTempFile::new().unwrap();
    let calls = "trace=fdatasync,fsync,rename,renameat,renameat2,write,writev,pwrite64,pwritev,sendto,sendmsg";
    let strace = strace.to_str().unwrap();
    let output = trace.path().to_str().unwrap();
    // Not as the server's parent: the server has to get the signals that end it.
    let server = Server::builder().wrapper(&[strace, "-D", "-f", "-y", "-s", "40", "-e", calls, "-o", output]).start();
    let repository = server.repository("power/loss");
    let bytes = Random::new(1).bytes(100_000);
    let digest = sha256(&bytes);
    let location = repository.start_upload();
    let mark = std::fs::read_to_string(trace.path()).unwrap().lines().count();
    repository.finish(&location, &digest, &bytes).expect(201);

    let upload = location.rsplit('/').next().unwrap().to_owned();
    let hex = digest.strip_prefix("sha256:").unwrap().to_owned();
    let folder = format!("/blobs/{}>", &hex[..2]);
    // A call that was interrupted is written as `<unfinished ...>` and resumed: its end is what counts.
    let lines: Vec<String> =
        std::fs::read_to_string(trace.path()).unwrap().lines().skip(mark).map(str::to_owned).collect();
    let at = after(&lines, 0, "fdatasync of the staged bytes", &["fdatasync(", &upload]);
    let at = after(&lines, at, "rename to the blob's name", &["rename", &upload, &hex]);
    let at = after(&lines, at, "sync of the folder", &["fsync(", &folder]);
    let at = after(&lines, at, "write of the commit", &["write", "-wal>"]);
    let at = after(&lines, at, "sync of the commit", &["sync(", "-wal>"]);
    after(&lines, at, "answer", &["HTTP/1.1 201"]);
}
