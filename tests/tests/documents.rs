//! Every command of the documents, in order, against a real server: what a newcomer types works.

use std::path::Path;
use std::process::Command;

use registry_tests::clients::containers::Containers;
use registry_tests::clients::docker::Docker;
use registry_tests::clients::images;
use registry_tests::server::{cli_binary, server_binary};
use registry_tests::tools::{succeed, tool};
use registry_tests::{Image, Random, Server};

/// The `sh` blocks of a document.
fn blocks(document: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut blocks = Vec::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        match (&mut current, line) {
            (None, "```sh") => current = Some(String::new()),
            (Some(_), "```") => blocks.extend(current.take()),
            (Some(block), line) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(!blocks.is_empty(), "{document} has no commands");
    blocks
}

/// A folder with the programs in `bin`, and a server over its `data`.
struct Newcomer {
    server: Server,
}

impl Newcomer {
    fn start() -> Self {
        let server = Server::builder().start();
        std::fs::write(server.data().join("admin-token"), registry_tests::server::ADMIN).unwrap();
        let bin = server.folder().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for binary in [server_binary(), cli_binary()] {
            std::os::unix::fs::symlink(&binary, bin.join(binary.file_name().unwrap())).unwrap();
        }
        Self { server }
    }

    /// Runs a block as it is written, with the documents' address replaced by the server's.
    fn run(&self, block: &str, more: &Command) {
        let script = block.replace("127.0.0.1:8080", &self.server.host());
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &script]).current_dir(self.server.folder());
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.server.folder().join("bin").display()));
        command.env("XDG_CONFIG_HOME", self.server.folder().join("xdg"));
        command.envs(more.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(std::process::Stdio::null());
        succeed(&mut command);
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
    for block in blocks("README.md") {
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
            _ => newcomer.run(&block, &plain),
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
    for block in blocks("docs/operations.md") {
        newcomer.run(&block, &Command::new("true"));
    }
    // What was restored serves.
    let restored = newcomer.server.folder().join("restored");
    let again = Server::builder().data(&restored).start();
    again.repository("team/app").assert_holds("1", &image);
}
