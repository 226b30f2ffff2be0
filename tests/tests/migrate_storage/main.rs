//! `registry-server migrate-storage`: a node on files and SQLite grows up, and nothing of it is lost or changed.

mod collected;
mod killed;
mod many;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use registry_tests::oci::{sha256, sha512, with_digest};
use registry_tests::postgres::{self, Database};
use registry_tests::process::{Ended, server_command};
use registry_tests::{Image, Process, Random, S3, Server, ServerBuilder, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

const MIB: usize = 1024 * 1024;

/// How long a server may take to stop.
const STOP: Duration = Duration::from_secs(60);

/// An empty database, an empty folder of a bucket, and a configuration for both.
struct Target {
    folder: TempDir,
    variables: Vec<(String, String)>,
    database: Database,
}

impl Target {
    fn new(test: &str) -> Option<Self> {
        let s3 = S3::shared(test)?;
        Some(Self::at(&S3::prefix(), postgres::server(test)?.database(), s3))
    }

    fn at(prefix: &str, database: Database, s3: &S3) -> Self {
        let mut variables = s3.variables(&s3.endpoint, prefix);
        // So that a blob of some megabytes has several parts.
        variables.push(("FOUNDRY_STORAGE__S3__PART_SIZE".into(), "5MiB".into()));
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("new");
        let text = format!("storage: {{dataDir: {}}}\ndatabase: {{url: \"{}\"}}\n", data.display(), database.url());
        fs::write(folder.path().join("new.yaml"), text).unwrap();
        Self { folder, variables, database }
    }

    /// Runs the command, with JSON.
    fn migrate(&self, from: &Path, arguments: &[&str]) -> Ended {
        self.migrate_with(from, arguments, &[])
    }

    fn migrate_with(&self, from: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
        self.start(from, arguments, variables).wait()
    }

    /// Starts the command.
    fn start(&self, from: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let mut command = server_command(self.folder.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).envs(variables.iter().copied());
        command.args(["-config", "new.yaml", "migrate-storage", "-json", "-from"]).arg(from).args(arguments);
        Process::start(&mut command)
    }

    fn builder(&self) -> ServerBuilder {
        let mut builder =
            ServerBuilder::on_files().data(&self.folder.path().join("new")).postgres(&self.database.url());
        for (name, value) in &self.variables {
            builder = builder.environment(name, value);
        }
        builder
    }

    #[track_caller]
    fn refuses_to_serve(&self) {
        let log =
            self.builder().environment("FOUNDRY_LOG__FORMAT", "json").try_start().err().expect("it does not serve");
        assert!(log.contains("a migration that is not finished"), "{log}");
    }
}

#[track_caller]
fn report(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(ended.stdout.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{ended:?}"))
}

/// A node without anything of the environment's stores.
fn old_node() -> Server {
    ServerBuilder::on_files().config("gc: {interval: 0s}").start()
}

fn stop(mut server: Server) -> (PathBuf, ServerBuilder) {
    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait_for_end(STOP), "it stops");
    (server.config_file(), server.again())
}

/// Some of everything; the seed tells it from others.
fn fill(server: &Server, seed: u64) {
    let mut random = Random::new(seed);
    let base = Image::new(vec![random.bytes(30_000), b"shared by all".to_vec()]);
    let other = Image::new(vec![random.bytes(20_000), Vec::new()]);
    server.repository("team/app").push("1", &base);
    server.repository("team/app").push("latest", &base);
    server.repository("team/app").push("2", &other);
    server.repository("team/app").push("both", &Image::index(&[&base, &other]));
    server.repository("tool").push(&format!("v{seed}"), &other);
    let signature = Image::with(
        vec![random.bytes(500)],
        json!({ "subject": base.descriptor(), "artifactType": "application/vnd.example.signature" }),
    );
    server.repository("team/app").push(&signature.digest(), &signature);
    // More than one part of the target, and a digest of the other kind.
    let large = Image::new(vec![random.bytes(11 * MIB + 17)]);
    server.repository("large").push("1", &large);
    let bytes = random.bytes(7_000);
    let location = server.repository("team/app").start_upload();
    let put = with_digest(&location, &sha512(&bytes));
    server.request("PUT", &put, &["Content-Type: application/octet-stream"], &bytes).expect(201);
    for version in ["1.0.0", "1.10.0", "2.0.0"] {
        let target = format!("/api/v1/artifacts/package-{seed}/{version}?filename=a%20file.bin");
        server.request("POST", &target, &["Content-Type: application/x-thing"], &random.bytes(3_000)).expect(201);
    }
    server.request("POST", &format!("/api/v1/artifacts/empty-{seed}/1"), &[], b"").expect(201);
}

/// Status, headers and body of an answer, by what was asked for.
type View = BTreeMap<String, (u16, Vec<(String, String)>, Vec<u8>)>;

/// What clients see: every list, every manifest, every byte.
fn view(server: &Server) -> View {
    let mut seen = BTreeMap::new();
    let mut look = |target: &str| -> Value {
        let answer = server.get(target);
        let kept = ["content-type", "docker-content-digest", "content-length", "oci-filters-applied"];
        let headers = answer.headers.iter().filter(|(name, _)| kept.contains(&name.to_ascii_lowercase().as_str()));
        let headers: Vec<_> = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        let json = serde_json::from_slice(&answer.body).unwrap_or_default();
        seen.insert(target.to_owned(), (answer.status, headers, answer.body));
        json
    };
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    for repository in texts(&look("/v2/_catalog?n=1000")["repositories"]) {
        for tag in texts(&look(&format!("/v2/{repository}/tags/list?n=1000"))["tags"]) {
            let manifest = look(&format!("/v2/{repository}/manifests/{tag}"));
            let blobs = manifest["layers"].as_array().into_iter().flatten().chain([&manifest["config"]]);
            for blob in blobs.filter_map(|blob| blob["digest"].as_str()) {
                look(&format!("/v2/{repository}/blobs/{blob}"));
            }
            let children = manifest["manifests"].as_array().into_iter().flatten();
            for child in children.filter_map(|child| child["digest"].as_str()) {
                look(&format!("/v2/{repository}/manifests/{child}"));
                let referrers = look(&format!("/v2/{repository}/referrers/{child}"));
                for referrer in referrers["manifests"].as_array().into_iter().flatten() {
                    look(&format!("/v2/{repository}/manifests/{}", referrer["digest"].as_str().unwrap()));
                }
            }
        }
    }
    for package in look("/api/v1/packages?limit=1000")["packages"].as_array().cloned().unwrap_or_default() {
        let name = package["package"].as_str().unwrap_or_else(|| panic!("{package}")).to_owned();
        look(&format!("/api/v1/packages?search={}", &name[2..]));
        for version in look(&format!("/api/v1/packages/{name}"))["versions"].as_array().into_iter().flatten() {
            look(&format!("/api/v1/artifacts/{name}/{}", version["version"].as_str().unwrap()));
        }
    }
    look("/api/v1/tokens");
    assert!(seen.len() > 20, "{:?}", seen.keys());
    seen
}

#[track_caller]
fn assert_same_view(old: &View, new: &Server) {
    let new = view(new);
    let targets = |view: &View| view.keys().cloned().collect::<Vec<_>>();
    assert_eq!(targets(old), targets(&new));
    for (target, answer) in old {
        assert!(*answer == new[target], "{target}: {:?} {:?}", answer.1, new[target].1);
    }
}

#[track_caller]
fn assert_clean(server: &Server) -> Value {
    let (clean, report) = server.check(&["--deep"]);
    assert!(clean, "{report}");
    serde_json::from_str::<Value>(report.lines().last().unwrap()).unwrap()["summary"].clone()
}

/// Every file of a data folder, but those that come and go with SQLite's connections.
fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !name.ends_with("-wal") && !name.ends_with("-shm") {
            let digest = sha256(&fs::read(&path).unwrap());
            found.insert(path, digest);
        }
    }
    found
}

#[test]
fn a_node_grows_up_while_it_serves() {
    let Some(target) = Target::new("migrate-storage") else { return };
    let old = old_node();
    fill(&old, 1);
    let body = json!({ "name": "ci", "scopes": ["generic:*:pull"] }).to_string();
    let token = old.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
    // To be deleted: a version before anything is copied, others between the runs.
    old.request("POST", "/api/v1/artifacts/gone/1", &[], b"deleted at once").expect(201);
    old.request("DELETE", "/api/v1/artifacts/gone/1", &[], b"").expect(204);
    old.request("POST", "/api/v1/artifacts/gone/2", &[], b"deleted and collected later").expect(201);
    let doomed = Image::new(vec![Random::new(50).bytes(5_000)]);
    old.repository("doomed").push("1", &doomed);

    // Copied while clients push.
    let (pushing, pushed) = (AtomicBool::new(true), AtomicBool::new(false));
    let first = std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut number = 100;
            while pushing.load(Ordering::SeqCst) {
                let image = Image::new(vec![Random::new(number).bytes(2_000)]);
                old.repository("load/app").push(&format!("t{number}"), &image);
                old.repository("load/app").push("latest", &image);
                number += 1;
                pushed.store(number > 105, Ordering::SeqCst);
            }
        });
        eventually("it is pushed to", || pushed.load(Ordering::SeqCst).then_some(()));
        let first = target.migrate(&old.config_file(), &[]);
        pushing.store(false, Ordering::SeqCst);
        report(&first)
    });
    assert_eq!(first["finished"], false);
    assert!(first["blobs_copied"].as_u64().unwrap() > 15 && first["tables"]["manifests"]["written"] != 0, "{first}");
    target.refuses_to_serve();
    // What came meanwhile, at least that of the last moments, is copied by another run.
    let second = report(&target.migrate(&old.config_file(), &[]));
    let count = |report: &Value, what: &str| report[what].as_u64().unwrap_or_else(|| panic!("{what}: {report}"));
    assert_eq!(count(&first, "blobs") + count(&second, "blobs_copied"), count(&second, "blobs"));

    // What goes on between the runs.
    fill(&old, 2);
    old.repository("doomed").delete_manifest(&doomed.digest()).expect(202);
    old.repository("load/app").delete_manifest("latest").expect(202);
    old.request("DELETE", "/api/v1/artifacts/gone/2", &[], b"").expect(204);
    // Its identity in the database, which was the last, is given out again.
    old.request("POST", "/api/v1/artifacts/instead/1", &[], b"instead").expect(201);
    assert_eq!(old.request("POST", "/api/v1/gc", &[], b"").expect(200).json()["blobs_deleted"], 2);
    let half = old.repository("team/app").start_upload();
    old.repository("team/app").patch(&half, b"half").expect(202);
    let registry = old.get("/auth/token?scope=repository:team/app:pull").expect(200).json();

    let in_use = target.migrate(&old.config_file(), &["-finish"]);
    assert!(in_use.code == Some(1) && in_use.stderr.contains("a server still uses"), "{in_use:?}");
    target.refuses_to_serve();

    let before = view(&old);
    let (config, again) = stop(old);
    let data = config.with_file_name("data");
    let untouched = files(&data);
    let last = report(&target.migrate(&config, &["-finish", "-verify"]));
    assert_eq!(files(&data), untouched, "the source is not changed");
    assert_eq!(last["finished"], true, "{last}");
    // Only what is new.
    assert_eq!(count(&second, "blobs") - 2 + count(&last, "blobs_copied"), count(&last, "blobs"), "{last}");
    assert!(count(&last, "rows_written") < count(&last, "rows"), "{last}");
    assert!(last["blobs_surplus"].as_u64() == Some(2) && last["rows_removed"] != 0, "{last}");
    assert_eq!(last["verified"]["objects"].as_u64().unwrap(), last["blobs"].as_u64().unwrap() + 2, "{last}");

    let new = target.builder().config("gc: {interval: 0s}").start();
    assert_same_view(&before, &new);
    new.with_token(token["token"].as_str().unwrap(), "GET", "/api/v1/packages", &[], b"").expect(200);
    let registry = registry["token"].as_str().unwrap();
    new.with_token(registry, "GET", "/v2/team/app/manifests/1", &[], b"").expect(200);
    // An upload under way is begun again.
    new.repository("team/app").status(&half).expect(404);
    assert_clean(&new);

    // What nobody refers to goes, and nothing else: as on the old node, and what only the target still had.
    let old = again.start();
    let [there, here] = [&old, &new].map(|server| server.gc("0s"));
    assert!(there["blobs_deleted"] != 0, "{there}");
    assert_eq!(there["blobs_deleted"].as_u64().unwrap() + 2, here["blobs_deleted"].as_u64().unwrap());
    assert_same_view(&before, &new);
    let [there, here] = [&old, &new].map(assert_clean);
    assert_eq!(there, here);
    // New rows get identities of their own.
    fill(&new, 3);
    new.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201);
    assert_clean(&new);
}

#[test]
fn a_run_that_is_killed_is_begun_again() {
    let Some(target) = Target::new("a killed migrate-storage") else { return };
    let old = old_node();
    fill(&old, 1);
    fill(&old, 2);
    let before = view(&old);
    let (config, _again) = stop(old);
    let steps = [
        ("migrate.begun", 1),
        ("upload.created", 2),
        ("upload.epoch-raised", 9),
        ("upload.bytes-durable", 1),
        ("upload.sealed", 1),
        ("upload.published", 2),
        ("upload.committed", 3),
        ("migrate.blobs-copied", 1),
    ];
    for (step, nth) in steps {
        let killed = target.migrate_with(&config, &["-finish"], &[("FOUNDRY_FAIL_POINT", &format!("{step}:{nth}"))]);
        assert_eq!(killed.code, None, "{step}: {killed:?}");
    }
    target.refuses_to_serve();
    // Each of these writes one batch more.
    let mut batches = 0;
    let report = loop {
        let ended = target.migrate_with(&config, &["-finish"], &[("FOUNDRY_FAIL_POINT", "migrate.rows-written:1")]);
        if ended.code.is_some() {
            break report(&ended);
        }
        batches += 1;
        assert!(batches < 50, "it comes to an end");
    };
    assert!(batches > 8, "{batches} batches");
    assert_eq!(report["finished"], true);
    // Then, of a run that changes nothing.
    let killed = target.migrate_with(&config, &["-finish"], &[("FOUNDRY_FAIL_POINT", "migrate.compared")]);
    assert_eq!(killed.code, None, "{killed:?}");
    target.refuses_to_serve();
    assert_eq!(self::report(&target.migrate(&config, &["-finish", "-verify"]))["rows_written"], 0);

    let new = target.builder().environment("FOUNDRY_GC__UPLOAD_IDLE", "1ms").start();
    assert_same_view(&before, &new);
    assert_clean(&new);
    // What the killed runs left is removed.
    new.gc("24h");
    assert_same_view(&before, &new);
    assert_clean(&new);
    assert_eq!(target.database.run("SELECT count(*) FROM uploads"), "0");
}

#[test]
fn a_second_run_changes_nothing_and_none_comes_after_a_server() {
    let Some(target) = Target::new("migrate-storage, twice") else { return };
    let old = old_node();
    fill(&old, 1);
    let (config, _again) = stop(old);
    let first = report(&target.migrate(&config, &["-finish"]));
    assert!(first["blobs_copied"] != 0 && first["rows_written"] != 0, "{first}");
    for arguments in [&["-finish"][..], &[]] {
        let again = report(&target.migrate(&config, arguments));
        for what in ["blobs_copied", "blobs_surplus", "rows_written", "rows_removed"] {
            assert_eq!(again[what], 0, "{what}: {again}");
        }
        assert_eq!((&again["blobs"], &again["rows"]), (&first["blobs"], &first["rows"]));
    }
    // The last one did not finish. What the target has lost since is found when it is read back.
    target.refuses_to_serve();
    for (damage, repair, found) in [
        (
            "UPDATE blobs SET size = size + 1 WHERE size > 10000",
            "UPDATE blobs SET size = size - 1 WHERE size > 10000",
            "WrongSize",
        ),
        (
            "UPDATE manifests SET content = content || '\\x20'",
            "UPDATE manifests SET content = substring(content FOR length(content) - 1)",
            "damaged_manifest",
        ),
    ] {
        target.database.run(damage);
        let ended = target.migrate(&config, &["-finish", "-verify"]);
        assert!(ended.code == Some(3) && ended.stdout.contains(found), "{ended:?}");
        target.refuses_to_serve();
        target.database.run(repair);
    }
    report(&target.migrate(&config, &["-finish", "-verify"]));

    let new = target.builder().start();
    new.request("POST", "/api/v1/artifacts/new/1", &[], b"of the new server").expect(201);
    let seen = view(&new);
    drop(new);
    let late = target.migrate(&config, &["-finish"]);
    assert!(late.code == Some(1) && late.stderr.contains("has served since its migration"), "{late:?}");
    assert_same_view(&seen, &target.builder().start());
}

#[test]
fn damaged_blobs_are_reported_and_not_carried_over() {
    let Some(target) = Target::new("migrate-storage of damage") else { return };
    let mut old = old_node();
    fill(&old, 1);
    let layers: Vec<Vec<u8>> = (10..13).map(|seed| Random::new(seed).bytes(5_000)).collect();
    let image = Image::new(layers.clone());
    old.repository("app").push("1", &image);
    let data = old.data().to_owned();
    let object = |digest: &str| data.join("blobs").join(&digest[7..9]).join(&digest[7..]);
    let digests: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let mut flipped = layers[0].clone();
    flipped[2_500] ^= 1;
    fs::write(object(&digests[0]), flipped).unwrap();
    fs::write(object(&digests[1]), &layers[1][..4_999]).unwrap();
    fs::remove_file(object(&digests[2])).unwrap();
    let mut expected = digests.clone();
    expected.sort();

    let refused = |old: &Server, arguments: &[&str]| {
        let ended = target.migrate(&old.config_file(), arguments);
        assert_eq!(ended.code, Some(3), "{ended:?}");
        let lines = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut damaged: Vec<String> = lines.filter_map(|line| line["damaged"].as_str().map(str::to_owned)).collect();
        damaged.sort();
        assert_eq!(damaged, expected, "{ended:?}");
        target.refuses_to_serve();
    };
    refused(&old, &[]);
    old.signal(rustix::process::Signal::TERM);
    assert!(old.wait_for_end(STOP), "it stops");
    refused(&old, &["-finish"]);

    // Repaired on the old node, the rest is carried over.
    let (repaired, findings) = old.check(&["--deep", "--repair"]);
    assert!(repaired, "{findings}");
    report(&target.migrate(&old.config_file(), &["-finish"]));
    let new = target.builder().start();
    assert_clean(&new);
    assert_eq!(new.repository("app").get_manifest("1").expect(200).body, image.manifest);
    for digest in &digests {
        new.repository("app").head_blob(digest).expect(404);
    }
    new.repository("app").push("1", &image);
    new.repository("app").assert_holds("1", &image);
}

#[test]
fn a_target_that_holds_something_else_is_refused_and_stays_as_it_is() {
    let test = "migrate-storage to what is not empty";
    let Some(target) = Target::new(test) else { return };
    let old = old_node();
    fill(&old, 1);
    let (config, _again) = stop(old);
    let refused = |ended: Ended, code: i32, text: &str| {
        assert!(ended.code == Some(code) && ended.stderr.contains(text), "{ended:?}");
    };

    // A registry of its own, even one that nothing was pushed to.
    let new = target.builder().start();
    let (_, again) = stop(new);
    refused(target.migrate(&config, &["-finish"]), 1, "holds a registry of its own");
    let new = again.start();
    new.request("POST", "/api/v1/artifacts/mine/1", &[], b"mine").expect(201);
    refused(target.migrate(&config, &[]), 1, "holds a registry of its own");
    assert_eq!(new.get("/api/v1/artifacts/mine/1").expect(200).body, b"mine");

    // An empty database, but somebody's blobs.
    let s3 = S3::shared(test).unwrap();
    let prefix = &target.variables.iter().find(|(name, _)| name == "FOUNDRY_STORAGE__S3__PREFIX").unwrap().1;
    let mixed = Target::at(prefix, postgres::server(test).unwrap().database(), s3);
    refused(mixed.migrate(&config, &[]), 1, "the bucket holds blobs below this prefix");
    assert_eq!(mixed.database.run("SELECT count(*) FROM job_cursors"), "0");

    // The migration of another installation.
    let other = Target::new(test).unwrap();
    let elsewhere = old_node();
    elsewhere.request("POST", "/api/v1/artifacts/other/1", &[], b"other").expect(201);
    report(&other.migrate(&elsewhere.config_file(), &[]));
    refused(other.migrate(&config, &[]), 1, "a migration of another installation");

    // A run at the same time on the same machine, which has a snapshot there.
    let work = other.folder.path().join("new/migration");
    fs::create_dir(&work).unwrap();
    let lock = fs::File::create(work.join("lock")).unwrap();
    lock.lock().unwrap();
    refused(other.migrate(&elsewhere.config_file(), &[]), 1, "another migrate-storage works in");
    drop(lock);
    report(&other.migrate(&elsewhere.config_file(), &[]));
    assert!(!work.exists(), "the snapshot is removed");

    // Neither files nor a registry to copy from; not both stores to copy to.
    refused(other.migrate(&other.folder.path().join("new.yaml"), &[]), 2, "elsewhere than in files and SQLite");
    let empty = other.folder.path().join("empty.yaml");
    fs::write(&empty, format!("storage: {{dataDir: {}}}\n", other.folder.path().join("nothing").display())).unwrap();
    refused(other.migrate(&empty, &[]), 1, "there is no registry in");
    let mut command = server_command(other.folder.path());
    command.args(["-config", "new.yaml", "migrate-storage", "-from"]).arg(&config);
    refused(Process::run(&mut command), 2, "keeps blobs in the data folder");
    let mut command = server_command(other.folder.path());
    command.envs(other.variables.iter().map(|(name, value)| (name, value)));
    command.args(["-config", "empty.yaml", "migrate-storage", "-from"]).arg(&config);
    refused(Process::run(&mut command), 2, "keeps metadata in the data folder");
}

#[test]
fn the_same_configuration_with_other_stores_is_enough() {
    let Some(target) = Target::new("migrate-storage in place") else { return };
    // A first start, with the token that it makes.
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    fs::write(folder.path().join("config.yaml"), format!("storage: {{dataDir: {}}}\n", data.display())).unwrap();
    let start = |variables: &[(String, String)]| {
        let mut command = server_command(folder.path());
        command.envs(variables.iter().map(|(name, value)| (name, value))).arg("-port").arg("0");
        let mut process = Process::start(&mut command);
        let address = process.address();
        (process, address)
    };
    let (process, address) = start(&[]);
    let token = fs::read_to_string(data.join("admin-token")).unwrap().trim().to_owned();
    let ask = |address, method: &str, target: &str, body: &[u8]| {
        registry_tests::server::request(address, Some(&token), method, target, &[], body).unwrap()
    };
    ask(address, "POST", "/api/v1/artifacts/p/1", b"bytes").expect(201);
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.wait().code, Some(0));

    let mut variables = target.variables.clone();
    variables.push(("DATABASE_URL".into(), target.database.url()));
    let mut command = server_command(folder.path());
    command.envs(variables.iter().map(|(name, value)| (name, value))).args(["migrate-storage", "-finish"]);
    let ended = Process::run(&mut command);
    assert!(ended.code == Some(0) && ended.stdout.contains("start the new servers"), "{ended:?}");
    assert!(!data.join("migration").exists(), "the snapshot is removed");
    let (process, address) = start(&variables);
    assert_eq!(ask(address, "GET", "/api/v1/artifacts/p/1", b"").expect(200).body, b"bytes");
    drop(process);

    // In another folder, the token's file goes along.
    let target = Target::new("migrate-storage and the administrator's token").unwrap();
    let mut command = server_command(target.folder.path());
    command.envs(target.variables.iter().map(|(name, value)| (name, value)));
    command.args(["-config", "new.yaml", "migrate-storage", "-finish", "-from-data-dir"]).arg(&data);
    let ended = Process::run(&mut command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(fs::read_to_string(target.folder.path().join("new/admin-token")).unwrap().trim(), token);
}
