//! Every command of the documents, in order, against a real server: what a newcomer types works.

use std::path::Path;
use std::process::Command;

use registry_tests::clients::containers::Containers;
use registry_tests::clients::docker::Docker;
use registry_tests::clients::images;
use registry_tests::process::server_command;
use registry_tests::server::{cli_binary, request, server_binary};
use registry_tests::tools::{succeed, tool};
use registry_tests::{Image, Process, Random, S3, Server, ServerBuilder, postgres};

/// The blocks of a document that are marked so: `sh`, or `sh` and what they need, or `console` with what is printed.
fn blocks(document: &str, mark: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut blocks = Vec::new();
    let mut current: Option<String> = None;
    let begin = format!("```{mark}");
    for line in text.lines() {
        match (&mut current, line) {
            (None, line) if line == begin => current = Some(String::new()),
            (Some(_), "```") => blocks.extend(current.take()),
            (Some(block), line) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(!blocks.is_empty(), "{document} has no {mark}");
    blocks
}

/// A folder with the programs in `bin`, and a server over its `data`.
struct Newcomer {
    server: Server,
}

impl Newcomer {
    fn start() -> Self {
        Self::at(Server::builder().start())
    }

    fn at(server: Server) -> Self {
        std::fs::write(server.data().join("admin-token"), registry_tests::server::ADMIN).unwrap();
        let bin = server.folder().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for binary in [server_binary(), cli_binary()] {
            std::os::unix::fs::symlink(&binary, bin.join(binary.file_name().unwrap())).unwrap();
        }
        Self { server }
    }

    /// Runs a block as it is written, with the documents' address replaced by the server's: what it printed.
    fn run(&self, block: &str, more: &Command) -> String {
        let script = block.replace("127.0.0.1:8080", &self.server.host());
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &script]).current_dir(self.server.folder());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.server.folder().join("bin").display()));
        command.env("XDG_CONFIG_HOME", self.server.folder().join("xdg"));
        command.envs(more.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(std::process::Stdio::null());
        succeed(&mut command)
    }
}

#[test]
fn the_readme_works_as_it_is_written() {
    let newcomer = Newcomer::start();
    let server = &newcomer.server;
    let plain = Command::new("true");
    let mut docker: Option<Option<Docker>> = None;
    let containers = Containers::new();
    let mut ran = 0;
    for block in blocks("README.md", "sh") {
        let first = block.split_whitespace().next().unwrap_or_default();
        match first {
            // The build that is under test, and the run that this is part of.
            "cargo" | "tests/run" | "export" => continue,
            "docker" => {
                let docker = docker.get_or_insert_with(|| Docker::start("README: docker")).as_ref();
                let Some(docker) = docker else { continue };
                let busybox = tool("README: docker", "busybox").unwrap();
                let context = docker.path().join("context");
                images::build_context(&context, &busybox, "hello");
                let mut build = docker.command();
                succeed(build.args(["build", "-q", "-t", "busybox"]).arg(&context));
                // The documents' busybox has its applets in the path; this one is a single file.
                let block = block.replace("app:1 echo hello", "app:1");
                newcomer.run(&block, &docker.command());
            }
            "podman" | "skopeo" => {
                let Some(program) = tool("README: podman and skopeo", first) else { continue };
                if server.get("/v2/team/app/manifests/1").status != 200 {
                    server.repository("team/app").push("1", &Image::new(vec![Random::new(1).bytes(1_000)]));
                }
                newcomer.run(&block, &containers.command(&program));
            }
            _ => {
                newcomer.run(&block, &plain);
            }
        }
        ran += 1;
    }
    assert!(ran >= 3, "{ran} blocks ran");
    assert_eq!(server.get("/api/v1/packages").expect(200).json()["packages"], serde_json::json!([]));
}

#[test]
fn the_commands_for_operators_work_beside_a_running_server() {
    let newcomer = Newcomer::start();
    let repository = newcomer.server.repository("team/app");
    let image = Image::new(vec![Random::new(2).bytes(100_000)]);
    repository.push("1", &image);
    for block in blocks("docs/operations.md", "sh") {
        newcomer.run(&block, &Command::new("true"));
    }
    // What was restored serves.
    let restored = newcomer.server.folder().join("restored");
    let again = Server::builder().data(&restored).start();
    again.repository("team/app").assert_holds("1", &image);
}

#[test]
fn files_and_postgres_are_backed_up_and_restored_as_it_is_written() {
    let what = "a backup of files and Postgres";
    let Some(postgres) = postgres::server(what) else { return };
    let (Some(_), Some(_)) = (tool(what, "pg_dump"), tool(what, "pg_restore")) else { return };
    let (database, empty) = (postgres.database(), postgres.database());
    let mut variables = Command::new("true");
    variables.env("DATABASE_URL", database.url()).env("RESTORED_URL", empty.url());
    let server = ServerBuilder::on_files().config("gc: {interval: 0s}").database(database).start();
    let newcomer = Newcomer::at(server);
    let [before, meanwhile] = [3, 4].map(|seed| Image::new(vec![Random::new(seed).bytes(100_000)]));
    newcomer.server.repository("team/app").push("before", &before);

    let blocks = blocks("docs/operations.md", "sh postgres");
    let [dump, copy, restore] = blocks.as_slice() else { panic!("{blocks:?}") };
    newcomer.run(dump, &variables);
    newcomer.server.repository("team/app").push("meanwhile", &meanwhile);
    newcomer.run(copy, &variables);
    let said = newcomer.run(restore, &variables);
    assert!(said.contains("2 findings, 2 repaired"), "a layer and a configuration came meanwhile: {said}");

    let restored = newcomer.server.folder().join("restored");
    assert_restored(&ServerBuilder::on_files().data(&restored).database(empty).start(), &before);
    newcomer.server.repository("team/app").assert_holds("meanwhile", &meanwhile);
}

#[test]
fn metadata_beside_a_bucket_are_backed_up_and_restored_as_it_is_written() {
    let what = "a backup of SQLite beside a bucket";
    let (Some(s3), Some(_)) = (S3::shared(what), tool(what, "sqlite3")) else { return };
    let prefix = S3::prefix();
    let on_bucket = || ServerBuilder::on_files().s3_below(s3, &s3.endpoint, &prefix).config("gc: {interval: 0s}");
    let mut variables = Command::new("true");
    variables.envs(s3.variables(&s3.endpoint, &prefix));
    let mut newcomer = Newcomer::at(on_bucket().start());
    let [before, meanwhile] = [5, 6].map(|seed| Image::new(vec![Random::new(seed).bytes(100_000)]));
    newcomer.server.repository("team/app").push("before", &before);

    let blocks = blocks("docs/operations.md", "sh bucket");
    let [copy, restore] = blocks.as_slice() else { panic!("{blocks:?}") };
    newcomer.run(copy, &variables);
    newcomer.server.repository("team/app").push("meanwhile", &meanwhile);
    // The bucket as it is now is the copy that is made after the metadata's.
    newcomer.server.kill();
    let said = newcomer.run(restore, &variables);
    assert!(said.contains("2 findings, 2 repaired"), "a layer and a configuration came meanwhile: {said}");

    let restored = newcomer.server.folder().join("restored");
    assert_restored(&on_bucket().data(&restored).start(), &before);
}

/// Serves what was pushed before the copy, whole, and nothing else, and its store holds nothing else either.
fn assert_restored(server: &Server, before: &Image) {
    let repository = server.repository("team/app");
    repository.assert_holds("before", before);
    repository.get_manifest("meanwhile").expect(404);
    let (clean, said) = server.check(&["--deep"]);
    assert!(clean, "{said}");
    repository.push("after", before);
}

#[test]
fn the_configuration_is_printed_as_it_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let shown = blocks("docs/configuration.md", "console");
    let [shown] = shown.as_slice() else { panic!("{shown:?}") };
    let (command, shown) = shown.strip_prefix("$ ").unwrap().split_once('\n').unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-euc", command]).current_dir(folder.path()).env_clear();
    let path = std::env::var("PATH").unwrap();
    shell.env("PATH", format!("{}:{path}", server_binary().parent().unwrap().display()));
    let printed = succeed(&mut shell);
    let (shown, _) = shown.split_once("  …").expect("it is longer than what is shown");
    assert!(shown.lines().count() == 3 && printed.starts_with(shown), "{shown}\n{printed}");
}

#[test]
fn the_hash_of_a_token_is_made_as_it_is_written() {
    let newcomer = Newcomer::start();
    let blocks = blocks("docs/configuration.md", "sh");
    let [block] = blocks.as_slice() else { panic!("{blocks:?}") };
    let printed = newcomer.run(block, Command::new("true").env("TOKEN", "a token of some length"));
    let hash = printed.split_whitespace().next().unwrap();
    let config = newcomer.server.folder().join("hashed.yaml");
    let text = format!("server: {{port: 0}}\nauth:\n  tokens: [{{name: hashed, hash: \"sha256:{hash}\"}}]\n");
    std::fs::write(&config, text).unwrap();
    let mut server = server_command(newcomer.server.folder());
    let mut server = Process::start(server.args(["-config", "hashed.yaml", "-data-dir", "hashed"]));
    let address = server.address();
    let ask = |token| request(address, Some(token), "GET", "/api/v1/packages", &[], b"").unwrap();
    ask("a token of some length").expect(200);
    ask("another token of some length").expect(401);
}
