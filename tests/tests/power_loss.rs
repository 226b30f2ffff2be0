//! The order of system calls on which durability rests: what was answered 201 is on the disk.

use std::collections::HashMap;

use registry_tests::oci::sha256;
use registry_tests::tools::tool;
use registry_tests::{Random, Server, eventually};

/// A system call that came to its end.
#[derive(Debug)]
struct Call {
    /// The lines of the trace on which it began and ended; they differ when another thread's call came in between.
    began: usize,
    ended: usize,
    /// Without the number of its process: `fsync(12</a/folder>) = 0`.
    text: String,
}

impl Call {
    fn is(&self, name: &str, parts: &[&str]) -> bool {
        self.text.starts_with(name) && parts.iter().all(|part| self.text.contains(part))
    }
}

/// The calls of a trace that came to their end, in the order in which they began. One whose line ends in
/// `<unfinished ...>` ends where the same thread's `<... resumed>` is: until then it has done nothing.
fn calls(trace: &str) -> Vec<Call> {
    let mut open: HashMap<&str, (usize, &str)> = HashMap::new();
    let mut calls = Vec::new();
    let whole = trace.rfind('\n').unwrap_or_default();
    for (line, text) in trace[..whole].lines().enumerate() {
        let Some((thread, text)) = text.split_once(' ').map(|(thread, text)| (thread, text.trim_start())) else {
            continue;
        };
        if let Some(head) = text.strip_suffix("<unfinished ...>") {
            open.insert(thread, (line, head));
        } else if text.starts_with("<... ") {
            let Some((began, head)) = open.remove(thread) else { continue };
            let (_, tail) = text.split_once(" resumed>").expect("it says that it is resumed");
            calls.push(Call { began, ended: line, text: format!("{head}{tail}") });
        } else if !text.starts_with(['-', '+']) {
            calls.push(Call { began: line, ended: line, text: text.to_owned() });
        }
    }
    calls.sort_by_key(|call| call.began);
    calls
}

/// The first call that began after line `from`, and succeeded.
#[track_caller]
fn after<'a>(calls: &'a [Call], from: usize, what: &str, name: &str, parts: &[&str]) -> &'a Call {
    let found = calls.iter().find(|call| call.began > from && call.is(name, parts) && !call.text.contains(") = -1"));
    found.unwrap_or_else(|| panic!("no {what} after line {from} of:\n{calls:#?}"))
}

#[test]
fn bytes_then_name_then_folder_then_commit_then_answer() {
    let Some(strace) = tool("power loss", "strace") else { return };
    let trace = tempfile::NamedTempFile::new().unwrap();
    let traced = "trace=fdatasync,fsync,mkdir,mkdirat,rename,renameat,renameat2,write,writev,pwrite64,pwritev,sendto,\
                  sendmsg,fchmod";
    // So that going on before the end of a sync has a chance to show.
    let slow = "inject=fdatasync,fsync:delay_exit=20ms";
    let strace = strace.to_str().unwrap();
    let output = trace.path().to_str().unwrap();
    // Not as the server's parent: the server has to get the signals that end it.
    let wrapper = [strace, "-D", "-f", "-y", "-s", "40", "-e", traced, "-e", slow, "-o", output];
    let server = Server::builder().wrapper(&wrapper).start();
    let repository = server.repository("power/loss");
    let bytes = Random::new(1).bytes(100_000);
    let digest = sha256(&bytes);
    let location = repository.start_upload();
    repository.finish(&location, &digest, &bytes).expect(201);
    // Whoever writes the trace may lag behind.
    let answered = |calls: &Vec<Call>| calls.iter().any(|call| call.text.contains("HTTP/1.1 201"));
    let calls = eventually("the answer is in the trace", || {
        Some(calls(&std::fs::read_to_string(trace.path()).unwrap())).filter(answered)
    });

    let upload = location.rsplit('/').next().unwrap().to_owned();
    let staged = format!("/uploads/{upload}");
    let hex = digest.strip_prefix("sha256:").unwrap().to_owned();
    let shard = format!("/blobs/{}", &hex[..2]);
    let written = calls.iter().rfind(|call| call.is("pwrite", &[&staged]) || call.is("write", &[&staged]));
    let written = written.unwrap_or_else(|| panic!("nothing was staged: {calls:#?}")).ended;
    let bytes = after(&calls, written, "fdatasync of the staged bytes", "fdatasync(", &[&staged]);
    let name = after(&calls, bytes.ended, "rename to the blob's name", "rename", &[&staged, &hex]);
    let folder = after(&calls, name.ended, "sync of the folder", "fsync(", &[&format!("{shard}>")]);
    // The folder is new, so its own name has to last too.
    let made = after(&calls, 0, "making of the folder", "mkdir", &[&format!("{shard}\"")]);
    let parent = after(&calls, made.ended, "sync of the folder's name", "fsync(", &["/blobs>"]);
    let commit = after(&calls, folder.ended.max(parent.ended), "write of the commit", "pwrite", &["-wal>"]);
    let lasting = after(&calls, commit.ended, "sync of the commit", "fdatasync(", &["-wal>"]);
    let answer = calls.iter().find(|call| call.text.contains("HTTP/1.1 201")).expect("it was answered");
    assert!(answer.began > lasting.ended, "answered on line {} before the commit lasted: {calls:#?}", answer.began);
}
