//! How many statements a request costs the database, counted by Postgres itself.

use std::fs;
use std::path::{Path, PathBuf};

use registry_tests::oci::sha256;
use registry_tests::postgres::{self, Database};
use registry_tests::{Image, Random, Server};
use serde_json::json;

/// A server whose database writes down each statement before it executes it.
struct Counted {
    server: Server,
    log: PathBuf,
}

impl Counted {
    fn start() -> Option<Self> {
        // A server of its own: nobody else's statements are in its log.
        let postgres = postgres::own("queries are counted")?;
        let log = postgres.folder().expect("it is on this machine").join("log");
        let database: Database = postgres.database();
        // Of the server's connections, which are yet to be made.
        postgres.run("postgres", &format!("ALTER DATABASE {} SET log_statement = 'all'", database.name));
        // Collections have statements of their own.
        let server = Server::builder().database(database).config("gc:\n  interval: 0s").start();
        Some(Self { server, log })
    }

    /// The statements that `request` causes. All of them are there when it is answered: Postgres writes to its log
    /// itself, and then begins to execute.
    fn statements_of(&self, request: impl FnOnce()) -> Vec<String> {
        let before = length(&self.log);
        request();
        let log = fs::read(&self.log).expect("the log can be read");
        let new = String::from_utf8_lossy(&log[before..]).into_owned();
        let mut statements: Vec<String> = Vec::new();
        for line in new.lines() {
            if let Some((_, statement)) = line.split_once("LOG:  ") {
                statements.push(statement.to_owned());
            } else if let (Some(last), Some(rest)) = (statements.last_mut(), line.strip_prefix('\t')) {
                last.push_str(&format!(" {}", rest.trim()));
            }
        }
        statements.retain(|statement| statement.starts_with("execute ") || statement.starts_with("statement: "));
        statements
    }

    /// Asserts that `request` causes as many statements as `expected` says, each of which begins so, in eight of ten turns.
    /// It is given the number of its turn, and is made twice in each: what is remembered for seconds (that a
    /// token is good) has to be looked up the first time, and may be forgotten just before the second. On a slow machine
    /// that happens more often, so there are more than ten turns if need be.
    #[track_caller]
    fn assert_costs(&self, what: &str, expected: &[&str], request: impl Fn(usize)) {
        let mut others = Vec::new();
        let mut costs = Vec::new();
        for turn in 0..50 {
            request(2 * turn);
            let statements = self.statements_of(|| request(2 * turn + 1));
            let begin = |(statement, expected): (&String, &&str)| {
                statement.split_once(": ").is_some_and(|(_, text)| text.starts_with(expected))
            };
            let is_so = statements.len() == expected.len() && statements.iter().zip(expected).all(begin);
            costs.push(is_so);
            if !is_so {
                others.push(statements);
            }
            let last = costs.last_chunk::<10>();
            if last.is_some_and(|last| last.iter().filter(|is_so| **is_so).count() >= 8) {
                return;
            }
        }
        panic!("{what}: {} statements were expected and not\n{}", expected.len(), others.last().unwrap().join("\n"));
    }
}

fn length(log: &Path) -> usize {
    let length = fs::metadata(log).expect("there is a log").len();
    usize::try_from(length).expect("it is short")
}

#[test]
fn reading_costs_one_query() {
    let Some(counted) = Counted::start() else { return };
    let server = &counted.server;
    let repository = server.repository("team/app");
    let layer = Random::new(1).bytes(1_000);
    let image = Image::new(vec![layer.clone()]);
    repository.push("latest", &image);
    server.request("POST", "/api/v1/artifacts/model/1", &[], b"bytes").expect(201);
    let digest = sha256(&layer);
    let blob = repository.path(&format!("blobs/{digest}"));
    let manifest = |reference: &str| repository.path(&format!("manifests/{reference}"));
    let (by_tag, by_digest) = (manifest("latest"), manifest(&image.digest()));
    let artifact = "/api/v1/artifacts/model/1";
    for method in ["HEAD", "GET"] {
        for path in [blob.as_str(), by_tag.as_str(), by_digest.as_str(), artifact] {
            counted.assert_costs(&format!("{method} {path}"), &["SELECT"], |_| {
                server.request(method, path, &[], b"").expect(200);
            });
        }
    }
}

/// Three transactions of a blob: a session, the object and the digest that it is to have, and the blob. Who has the lock of
/// the staged bytes asks whether the session is still its own.
const BLOB: [&str; 14] = [
    "BEGIN",
    "INSERT INTO uploads",
    "COMMIT",
    "SELECT id, registry_id",
    "BEGIN",
    "INSERT INTO objects",
    "UPDATE uploads",
    "COMMIT",
    "BEGIN",
    "UPDATE uploads",
    "INSERT INTO blobs",
    "UPDATE objects",
    "INSERT INTO repository_blobs",
    "COMMIT",
];

/// One of a manifest, however much it names.
const MANIFEST: [&str; 10] = [
    "BEGIN",
    "SELECT id, listed FROM repositories",
    "SELECT 1 FROM unnest",
    "SELECT n.value AS digest FROM unnest",
    "INSERT INTO manifests",
    "INSERT INTO manifest_references",
    "INSERT INTO tags",
    "SELECT 1 FROM repositories",
    "UPDATE repositories",
    "COMMIT",
];

#[test]
fn writing_costs_the_same_queries_however_much_there_is() {
    let Some(counted) = Counted::start() else { return };
    let server = &counted.server;
    let repository = server.repository("team/app");
    let layers: Vec<Vec<u8>> = (0..20).map(|layer| format!("layer {layer}").into_bytes()).collect();
    let image = |turn: &str| Image::with(layers.clone(), json!({ "annotations": { "turn": turn } }));
    repository.push("latest", &image("before"));
    counted.assert_costs("a blob in one request", &BLOB, |turn| {
        let bytes = format!("blob {turn}").into_bytes();
        let path = repository.path(&format!("blobs/uploads/?digest={}", sha256(&bytes)));
        server.request("POST", &path, &[], &bytes).expect(201);
    });
    counted.assert_costs("a manifest by tag", &MANIFEST, |turn| {
        repository.put_manifest("latest", &image(&turn.to_string())).expect(201);
    });
}
