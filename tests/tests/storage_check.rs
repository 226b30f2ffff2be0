//! `registry-server check`: what it finds in a damaged store, what it repairs, and that it goes on where it stopped.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use registry_tests::oci::sha256;
use registry_tests::process::server_command;
use registry_tests::{Image, Process, Random, Server};
use serde_json::Value;

fn object(server: &Server, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    server.data().join("blobs").join(&hex[..2]).join(hex)
}

/// The exit code, the findings as `(kind, digest or key)`, and the summary.
#[track_caller]
fn check(server: &Server, arguments: &[&str]) -> (Option<i32>, BTreeSet<(String, String)>, Value) {
    let mut command = server_command(server.folder());
    let ended = Process::run(command.args(["-config", "config.yaml", "check", "--json"]).args(arguments));
    let mut lines: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {ended:?}")))
        .collect();
    let summary = lines.pop().unwrap_or_else(|| panic!("{ended:?}"))["summary"].clone();
    assert!(summary.is_object(), "{ended:?}");
    let before = summary["resumed"]["findings"].as_u64().unwrap_or(0);
    assert_eq!(summary["findings"], lines.len() as u64 + before, "{ended:?}");
    assert_eq!(ended.stderr.contains("going on after"), summary["resumed"].is_object(), "{ended:?}");
    let text = |line: &Value, field: &str| line[field].as_str().map(str::to_owned);
    let findings = lines.iter().map(|line| {
        let what = text(line, "digest").or_else(|| text(line, "key")).unwrap();
        (text(line, "finding").unwrap(), what)
    });
    (ended.code, findings.collect(), summary)
}

fn finding(kind: &str, what: &str) -> (String, String) {
    (kind.to_owned(), what.to_owned())
}

#[test]
fn a_healthy_store_has_no_findings() {
    let server = Server::start();
    let image = Image::new(vec![Random::new(1).bytes(10_000)]);
    server.repository("app").push("1", &image);
    server.request("POST", "/api/v1/artifacts/p/1", &[], b"artifact").expect(201);
    // A session under way is no damage.
    let location = server.repository("app").start_upload();
    server.repository("app").patch(&location, b"half").expect(202);
    for arguments in [&[][..], &["--deep"], &["--repair"], &["--deep", "--repair", "--restart"]] {
        let (code, findings, summary) = check(&server, arguments);
        assert_eq!((code, findings), (Some(0), BTreeSet::new()), "{arguments:?}");
        assert_eq!((&summary["objects"], &summary["repaired"]), (&3.into(), &0.into()));
        assert_eq!(summary["bytes"], 10_000 + image.blobs[1].len() + 8);
    }
    server.repository("app").finish(&location, &sha256(b"half"), b"").expect(201);
    // For people, too.
    let mut command = server_command(server.folder());
    let text = Process::run(command.args(["-config", "config.yaml", "check"]));
    assert!(
        text.code == Some(0) && text.stdout.contains("4 objects") && text.stdout.contains("0 findings"),
        "{text:?}"
    );
}

#[test]
fn damage_is_found_repaired_and_can_be_pushed_again() {
    let server = Server::start();
    let repository = server.repository("app");
    let layers: Vec<Vec<u8>> = (0..4).map(|seed| Random::new(seed).bytes(5_000)).collect();
    let image = Image::new(layers.clone());
    repository.push("1", &image);
    server.request("POST", "/api/v1/artifacts/p/1", &[], b"a healthy one").expect(201);
    let digests: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();

    fs::remove_file(object(&server, &digests[0])).unwrap();
    let shorter = fs::OpenOptions::new().write(true).open(object(&server, &digests[1]));
    shorter.unwrap().set_len(4_999).unwrap();
    let mut flipped = layers[2].clone();
    flipped[2_500] ^= 1;
    fs::write(object(&server, &digests[2]), &flipped).unwrap();
    let orphan = sha256(b"nobody knows me");
    fs::create_dir_all(object(&server, &orphan).parent().unwrap()).unwrap();
    fs::write(object(&server, &orphan), b"nobody knows me").unwrap();
    let key = format!("{}/{}", &orphan[7..9], &orphan[7..]);
    // What is no object is none of the store's business.
    fs::write(server.data().join("blobs/README"), b"hands off").unwrap();

    let shallow = BTreeSet::from([
        finding("missing", &digests[0]),
        finding("wrong_size", &digests[1]),
        finding("orphaned", &key),
    ]);
    let mut deep = shallow.clone();
    deep.insert(finding("wrong_content", &digests[2]));
    for _ in 0..2 {
        let (code, findings, summary) = check(&server, &[]);
        assert_eq!((code, &findings, &summary["repaired"]), (Some(3), &shallow, &0.into()), "looking changes nothing");
        assert_eq!(check(&server, &["--deep"]).1, deep);
    }
    assert!(object(&server, &orphan).exists());
    repository.head_blob(&digests[0]).expect(200);

    let (code, findings, summary) = check(&server, &["--deep", "--repair"]);
    assert_eq!((code, &findings, &summary["repaired"]), (Some(0), &deep, &4.into()));
    assert_eq!(check(&server, &["--deep"]).0, Some(0));
    assert!(!object(&server, &orphan).exists());
    assert!(server.data().join("blobs/README").exists());
    // What cannot be served is not there any more, so that a client sends it again; the rest is untouched.
    for digest in &digests[..3] {
        repository.head_blob(digest).expect(404);
        repository.get_blob(digest).expect(404);
    }
    assert_eq!(repository.get_blob(&digests[3]).expect(200).body, layers[3]);
    assert_eq!(repository.get_manifest("1").expect(200).body, image.manifest);
    assert_eq!(server.get("/api/v1/artifacts/p/1").expect(200).body, b"a healthy one");
    for layer in &layers {
        repository.push_blob(layer);
    }
    repository.assert_holds("1", &image);
    assert_eq!(check(&server, &["--deep"]).0, Some(0));
}

#[test]
fn a_lost_artifact_stays_known_until_somebody_deletes_it() {
    let server = Server::start();
    let (target, bytes) = ("/api/v1/artifacts/p/1", b"the artifact");
    server.request("POST", target, &[], bytes).expect(201);
    server.request("POST", "/api/v1/artifacts/p/2", &[], b"another").expect(201);
    fs::remove_file(object(&server, &sha256(bytes))).unwrap();
    server.get(target).expect(500);
    // That it was there is not for a check to forget.
    let lost = BTreeSet::from([finding("missing", &sha256(bytes))]);
    let (code, findings, summary) = check(&server, &["--repair"]);
    assert_eq!((code, &findings, &summary["repaired"]), (Some(3), &lost, &0.into()));
    assert_eq!(server.get("/api/v1/packages/p").expect(200).json()["versions"][0]["digest"], sha256(bytes));
    server.request("POST", target, &[], bytes).expect(409);

    server.request("DELETE", target, &[], b"").expect(204);
    assert_eq!(check(&server, &["--repair"]).0, Some(0));
    server.request("POST", target, &[], bytes).expect(201);
    assert_eq!(server.get(target).expect(200).body, bytes);
    assert_eq!(check(&server, &["--deep"]).0, Some(0));
}

#[test]
fn an_interrupted_check_goes_on_where_it_stood() {
    // A check cannot run ahead of its reader further than a pipe is long, which is some 600 findings.
    const ORPHANS: usize = 1_800;
    let server = Server::start();
    let healthy = server.repository("app").push_blob(b"healthy");
    for number in 0..ORPHANS {
        let path = object(&server, &sha256(&number.to_le_bytes()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"x").unwrap();
    }
    interrupt(&server);
    let (code, rest, summary) = check(&server, &[]);
    assert_eq!(code, Some(3));
    assert!(!rest.is_empty() && rest.len() <= ORPHANS - 500, "not from the beginning: {}", rest.len());
    assert_eq!(summary["findings"], ORPHANS, "what was found before counts");
    assert!(summary["resumed"]["begun_at"].as_str().unwrap().ends_with('Z'), "{summary}");
    let (_, all, _) = check(&server, &[]);
    assert_eq!(all.len(), ORPHANS, "the next one begins again");
    assert!(rest.is_subset(&all));
    // And so does one that is told to, whatever was interrupted.
    interrupt(&server);
    assert_eq!(check(&server, &["--restart"]).1, all);
    // Or that has to do more.
    interrupt(&server);
    assert_eq!(check(&server, &["--deep"]).1, all);
    assert_eq!(server.repository("app").get_blob(&healthy).expect(200).body, b"healthy");
}

/// Begins a check and kills it after its 600th finding.
fn interrupt(server: &Server) {
    let mut command = server_command(server.folder());
    command.args(["-config", "config.yaml", "check", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..600 {
        assert!(lines.next().unwrap().unwrap().contains("orphaned"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_store_that_is_not_mounted_is_not_repaired() {
    let server = Server::start();
    let image = Image::new((0..3).map(|seed| Random::new(seed).bytes(1_000)).collect());
    server.repository("app").push("1", &image);
    let (blobs, aside) = (server.data().join("blobs"), server.data().join("aside"));
    fs::rename(&blobs, &aside).unwrap();
    fs::create_dir(&blobs).unwrap();
    let repair = |arguments: &[&str]| {
        let mut command = server_command(server.folder());
        Process::run(command.args(["-config", "config.yaml", "check", "--repair"]).args(arguments))
    };
    for arguments in [&[][..], &["--deep"], &["--json"]] {
        let refused = repair(arguments);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(4), ""), "{refused:?}");
        assert!(refused.stderr.contains("of 4 blobs that were looked for, 4 are not in it"), "{refused:?}");
        assert!(refused.stderr.contains("--accept-loss"), "{refused:?}");
    }
    assert_eq!(check(&server, &[]).1.len(), 4, "to look is harmless");
    // Mounted again, with what another database knows: mostly strangers' objects.
    fs::remove_dir_all(&blobs).unwrap();
    fs::rename(&aside, &blobs).unwrap();
    let strangers: Vec<_> = (0..5_u8).map(|number| object(&server, &sha256(&[number]))).collect();
    for path in &strangers {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"x").unwrap();
    }
    let refused = repair(&[]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.contains("of 9 objects in it, the metadata do not know 5"), "{refused:?}");
    assert!(strangers.iter().all(|path| path.exists()));
    server.repository("app").assert_holds("1", &image);

    let repaired = repair(&["--accept-loss"]);
    assert_eq!(repaired.code, Some(0), "{repaired:?}");
    assert!(repaired.stdout.contains("5 findings, 5 repaired"), "{repaired:?}");
    server.repository("app").assert_holds("1", &image);
}

#[test]
fn a_mistyped_folder_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["check"][..], &["gc"], &["backup", "copy"]] {
        let ended = Process::run(server_command(folder.path()).args(command).args(["-data-dir", "nowhere"]));
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("nowhere"), "{}", ended.stderr);
    }
    assert!(!folder.path().join("nowhere").exists());
}
