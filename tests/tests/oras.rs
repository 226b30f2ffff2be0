//! oras: artifacts, what refers to them, and copies of both.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use registry_tests::clients::{self, LOG_IN, assert_says};
use registry_tests::oci::{OCI_MANIFEST, sha256};
use registry_tests::server::ADMIN;
use registry_tests::tools::{fail, succeed};
use registry_tests::{Random, Server, ServerBuilder};
use serde_json::Value;
use tempfile::TempDir;

const SBOM: &str = "application/vnd.example.sbom";
const SIGNATURE: &str = "application/vnd.example.signature";

struct Oras {
    program: PathBuf,
    folder: TempDir,
}

impl Oras {
    fn new(test: &str) -> Option<Self> {
        let [program] = clients::tools(test, ["oras"])?;
        let folder = TempDir::new().expect("a temporary folder can be made");
        for (name, content) in [("config.json", "{}"), ("sbom.json", r#"{"parts":[]}"#), ("signature", "signed")] {
            fs::write(folder.path().join(name), content).expect("a file can be written");
        }
        fs::write(folder.path().join("model.bin"), Random::new(1).bytes(300_000)).expect("a file can be written");
        Some(Self { program, folder })
    }

    fn command(&self, subcommand: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(subcommand).args(arguments);
        command.env("DOCKER_CONFIG", self.folder.path().join("docker")).env("HOME", self.folder.path());
        command.env("ORAS_CACHE", self.folder.path().join("cache")).current_dir(self.folder.path());
        command
    }

    /// A command that talks plain HTTP with a token.
    fn remote(&self, subcommand: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.command(subcommand, arguments);
        command.args(["--plain-http", "--username", clients::USER, "--password", ADMIN]);
        command
    }

    fn push(&self, reference: &str) -> Command {
        let config = "config.json:application/vnd.example.model.config";
        self.command(&["push"], &["--config", config, reference, "model.bin:application/octet-stream"])
    }

    fn login(&self, server: &Server, token: &str) -> (bool, String) {
        let options = ["--plain-http", "-u", clients::USER, "--password-stdin", &server.host()];
        let mut command = self.command(&["login"], &options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("oras can be started");
        child.stdin.take().expect("it is piped").write_all(token.as_bytes()).expect("oras reads it");
        let output = child.wait_with_output().expect("oras is our child");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    /// What `oras discover` finds: types and digests.
    fn discover(&self, arguments: &[&str]) -> Vec<(String, String)> {
        let found = succeed(&mut self.remote(&["discover", "--format", "json"], arguments));
        let found: Value = serde_json::from_str(&found).expect("oras prints JSON");
        let text = |value: &Value| value.as_str().expect("it is text").to_owned();
        let referrers = found["referrers"].as_array().expect("there is a list");
        let mut referrers: Vec<_> =
            referrers.iter().map(|referrer| (text(&referrer["artifactType"]), text(&referrer["digest"]))).collect();
        referrers.sort();
        referrers
    }
}

#[test]
fn an_artifact_and_its_referrers() {
    let Some(oras) = Oras::new("oras attaches and discovers") else { return };
    let server = Server::start();
    let name = format!("{}/models/tiny:1", server.host());
    succeed(oras.push(&name).args(["--plain-http", "--username", "any", "--password", ADMIN]));
    assert_eq!(oras.discover(&[&name]), []);
    succeed(&mut oras.remote(&["attach"], &["--artifact-type", SBOM, &name, "sbom.json:application/json"]));
    succeed(&mut oras.remote(&["attach"], &["--artifact-type", SIGNATURE, &name, "signature:text/plain"]));

    let found = oras.discover(&[&name]);
    assert_eq!(found.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(), [SBOM, SIGNATURE]);
    let signatures = oras.discover(&["--artifact-type", SIGNATURE, &name]);
    assert_eq!(signatures, [found[1].clone()]);
    // The registry's own list, not tags that stand in for one.
    let tags = server.get("/v2/models/tiny/tags/list").expect(200).json();
    assert_eq!(tags["tags"], serde_json::json!(["1"]));

    // A referrer of a referrer, the artifact's file, and the deletion of a referrer.
    let sbom = format!("{}/models/tiny@{}", server.host(), found[0].1);
    succeed(&mut oras.remote(&["attach"], &["--artifact-type", SIGNATURE, &sbom, "signature:text/plain"]));
    assert_eq!(oras.discover(&[&sbom]).len(), 1);
    succeed(&mut oras.remote(&["pull"], &["-o", "back", &name]));
    let file = |path: &str| fs::read(oras.folder.path().join(path)).expect("the file is there");
    assert_eq!(file("back/model.bin"), file("model.bin"));
    succeed(&mut oras.remote(&["pull"], &["-o", "back", &sbom]));
    assert_eq!(file("back/sbom.json"), file("sbom.json"));
    let signature = format!("{}/models/tiny@{}", server.host(), found[1].1);
    succeed(&mut oras.remote(&["manifest", "delete", "--force"], &[&signature]));
    assert_eq!(oras.discover(&[&name]), [found[0].clone()]);
}

#[test]
fn a_copy_takes_the_referrers_along() {
    let Some(oras) = Oras::new("oras copies") else { return };
    let (first, second) = (Server::start(), Server::start());
    let name = format!("{}/models/tiny:1", first.host());
    succeed(oras.push(&name).args(["--plain-http", "--username", "any", "--password", ADMIN]));
    succeed(&mut oras.remote(&["attach"], &["--artifact-type", SBOM, &name, "sbom.json:application/json"]));
    for server in [&first, &second] {
        let (accepted, text) = oras.login(server, ADMIN);
        assert!(accepted, "{text}");
    }
    let copied = format!("{}/staging/tiny:1", second.host());
    succeed(&mut oras.command(&["cp", "-r", "--from-plain-http", "--to-plain-http"], &[&name, &copied]));
    assert_eq!(oras.discover(&[&copied]), oras.discover(&[&name]));
    let manifest = |server: &Server, repository: &str| server.repository(repository).get_manifest("1").expect(200).body;
    assert_eq!(manifest(&first, "models/tiny"), manifest(&second, "staging/tiny"));

    // Within one registry the blobs are mounted.
    let within = format!("{}/other/tiny:1", first.host());
    let requests = first.requests_from_now();
    succeed(&mut oras.command(&["cp", "--from-plain-http", "--to-plain-http"], &[&name, &within]));
    requests.assert_mounted("other/tiny", 300_000);
}

#[test]
fn lists_blobs_and_manifests() {
    let Some(oras) = Oras::new("oras lists") else { return };
    let server = Server::start();
    let host = server.host();
    let name = format!("{host}/models/tiny:1");
    succeed(oras.push(&name).args(["--plain-http", "--username", "any", "--password", ADMIN]));
    succeed(&mut oras.remote(&["tag"], &[&name, "2", "3"]));
    assert_eq!(succeed(&mut oras.remote(&["repo", "tags"], &[&format!("{host}/models/tiny")])), "1\n2\n3\n");
    assert_eq!(succeed(&mut oras.remote(&["repo", "ls"], &[&host])), "models/tiny\n");

    let digest = sha256(b"signed");
    let blob = format!("{host}/models/tiny@{digest}");
    succeed(&mut oras.remote(&["blob", "push"], &[&blob, "signature"]));
    assert_eq!(succeed(&mut oras.remote(&["blob", "fetch", "--output", "-"], &[&blob])), "signed");
    succeed(&mut oras.remote(&["blob", "delete", "--force"], &[&blob]));
    fail(&mut oras.remote(&["blob", "fetch", "--output", "-"], &[&blob]));

    let stored = server.repository("models/tiny").get_manifest("1").expect(200);
    assert_eq!(stored.header("content-type"), Some(OCI_MANIFEST));
    assert_eq!(succeed(&mut oras.remote(&["manifest", "fetch"], &[&name])).into_bytes(), stored.body);
    fs::write(oras.folder.path().join("manifest.json"), &stored.body).expect("a file can be written");
    succeed(&mut oras.remote(&["manifest", "push"], &[&format!("{host}/models/tiny:4"), "manifest.json"]));
    // A tag alone goes; the manifest and its other tags stay.
    server.repository("models/tiny").delete_manifest("4").expect(202);
    assert_eq!(succeed(&mut oras.remote(&["repo", "tags"], &[&format!("{host}/models/tiny")])), "1\n2\n3\n");
    succeed(&mut oras.remote(&["manifest", "delete", "--force"], &[&name]));
    assert_eq!(succeed(&mut oras.remote(&["repo", "tags"], &[&format!("{host}/models/tiny")])), "");
}

#[test]
fn credentials_decide() {
    let Some(oras) = Oras::new("oras's credentials") else { return };
    let closed = ServerBuilder::new().config("registries:\n  staging:\n    format: oci").start();
    let push = |server: &Server, repository: &str| {
        let mut command = oras.push(&format!("{}/{repository}:1", server.host()));
        command.arg("--plain-http");
        command
    };
    assert_says(&fail(&mut push(&closed, "team/x")), &[LOG_IN]);
    let (refused, text) = oras.login(&closed, "wrong");
    assert!(!refused, "{text}");
    assert_says(&text, &["the credentials are not valid"]);
    let token = clients::token(&closed, "team", &["oci:team/*:pull,push", "staging:*:pull,push"]);
    let (accepted, text) = oras.login(&closed, &token);
    assert!(accepted, "{text}");
    succeed(&mut push(&closed, "team/x"));
    succeed(&mut push(&closed, "staging/x"));
    assert_says(&fail(&mut push(&closed, "other/x")), &["response status code 401: Unauthorized"]);

    let open = ServerBuilder::new().anonymous("push").start();
    succeed(&mut push(&open, "team/x"));
    succeed(&mut oras.command(&["pull", "--plain-http"], &["-o", "back", &format!("{}/team/x:1", open.host())]));
}
