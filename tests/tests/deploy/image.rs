//! The image: built with no base image, run as Kubernetes would run it. The root Dockerfile's base cannot be pulled
//! where these tests run: its last stage is shown to be the same, its first to run the same script on what it copies.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use registry_tests::clients::Docker;
use registry_tests::process::free_port;
use registry_tests::server::request;
use registry_tests::tools::{fail, run, skip, succeed, tool};
use registry_tests::{Answer, Random, eventually};
use serde_json::{Value, json};

use super::{read, root};

/// Set by tests/run: what deploy/static-root made.
const IMAGE_ROOT: &str = "FOUNDRY_IMAGE_ROOT";

/// The folder of the image's file system; `None` after saying that `test` is skipped.
pub(super) fn image_root(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os(IMAGE_ROOT).map(PathBuf::from);
    if folder.is_none() {
        skip(test, &format!("{IMAGE_ROOT} does not name what deploy/static-root made"));
    }
    folder
}

fn docker(docker: &Docker, arguments: &[&str]) -> Command {
    let mut command = docker.command();
    command.args(arguments);
    command
}

/// A daemon that has the image `foundry`, or `None` after saying that `test` is skipped.
fn daemon_with_image(test: &str) -> Option<Docker> {
    let daemon = Docker::start(test)?;
    build_image(&daemon, test)?;
    Some(daemon)
}

/// Builds the image `foundry` as deploy/ does; `None` after saying that `test` is skipped.
pub(super) fn build_image(daemon: &Docker, test: &str) -> Option<()> {
    let folder = image_root(test)?;
    let mut build = Command::new(root().join("deploy/build-image"));
    build.args(["--prebuilt", "--tag", "foundry", "--root"]).arg(folder);
    for (name, value) in daemon.command().get_envs() {
        match value {
            Some(value) => build.env(name, value),
            None => build.env_remove(name),
        };
    }
    succeed(&mut build);
    Some(())
}

/// A container of the image on this machine's network, as strictly held as it can be. It is not the docker daemon's
/// child for the test to wait for: the daemon ends it.
struct Container<'a> {
    daemon: &'a Docker,
    address: SocketAddr,
}

impl<'a> Container<'a> {
    /// Starts it over the volume `data`.
    #[track_caller]
    fn start(daemon: &'a Docker) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let port = format!("HTTP_PORT={}", address.port());
        let held = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
        let mut command = docker(daemon, &["run", "--detach", "--name", "foundry", "--network", "host"]);
        command.args(held).args(["--env", &port, "--volume", "data:/data", "foundry"]);
        succeed(&mut command);
        let container = Self { daemon, address };
        eventually("the container is ready", || {
            let answer = request(address, None, "GET", "/readyz", &[], b"").ok()?;
            (answer.status == 200).then_some(())
        });
        container
    }

    fn inspect(&self) -> Value {
        let text = succeed(&mut docker(self.daemon, &["inspect", "foundry"]));
        serde_json::from_str::<Value>(&text).unwrap()[0].clone()
    }

    /// The administrator's token, as the first start shows it.
    #[track_caller]
    fn token(&self) -> String {
        let shown = succeed(&mut docker(self.daemon, &["logs", "foundry"]));
        let token = shown.split_whitespace().find(|word| word.starts_with("fdy_"));
        token.unwrap_or_else(|| panic!("no token was shown: {shown}")).to_owned()
    }

    #[track_caller]
    fn request(&self, token: &str, method: &str, target: &str, body: &[u8]) -> Answer {
        request(self.address, Some(token), method, target, &[], body).unwrap()
    }

    /// A program of the image, run inside.
    fn exec(&self, arguments: &[&str]) -> Command {
        let mut command = docker(self.daemon, &["exec", "foundry"]);
        command.args(arguments);
        command
    }
}

#[test]
fn the_image_serves_as_nobody_in_particular_on_a_file_system_that_it_cannot_write() {
    let Some(daemon) = daemon_with_image("the image runs") else { return };
    let container = Container::start(&daemon);
    let inspected = container.inspect();
    let pid = inspected["State"]["Pid"].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in ["Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "{line}\n{status}");
    }
    assert_eq!(inspected["HostConfig"]["ReadonlyRootfs"], true);

    // The token of the first start is shown once, and opens the server; what was pushed outlives the container.
    let token = container.token();
    let bytes = Random::new(5).bytes(3_000_000);
    container.request(&token, "POST", "/api/v1/artifacts/kept/1", &bytes).expect(201);
    assert_eq!(request(container.address, None, "GET", "/api/v1/packages", &[], b"").unwrap().status, 401);
    // It ends when it is told to, without being killed.
    succeed(&mut docker(&daemon, &["stop", "--time", "60", "foundry"]));
    assert_eq!(container.inspect()["State"]["ExitCode"], 0);
    succeed(&mut docker(&daemon, &["rm", "foundry"]));
    let container = Container::start(&daemon);
    assert!(container.request(&token, "GET", "/api/v1/artifacts/kept/1", b"").expect(200).body == bytes);
    assert!(!succeed(&mut docker(&daemon, &["logs", "foundry"])).contains("fdy_"), "the token is shown once");

    // The other program is there too, for those who are let in, and finds names in the files of the container.
    let server = format!("--server=http://localhost:{}", container.address.port());
    let mut list = docker(&daemon, &["exec", "--env", &format!("REGISTRY_TOKEN={token}"), "foundry"]);
    let listed = succeed(list.args(["registry-cli", &server, "list"]));
    assert!(listed.contains("kept"), "{listed}");
}

#[test]
fn docker_sees_whether_it_is_healthy() {
    let Some(daemon) = daemon_with_image("the image's health check") else { return };
    let container = Container::start(&daemon);
    let health = || container.inspect()["State"]["Health"]["Status"].as_str().unwrap().to_owned();
    eventually("docker says that it is healthy", || (health() == "healthy").then_some(()));
    succeed(&mut container.exec(&["registry-server", "healthcheck"]));
    // What docker asks is answered by the server alone.
    let mut elsewhere = docker(&daemon, &["exec", "--env", &format!("HTTP_PORT={}", free_port()), "foundry"]);
    fail(elsewhere.args(["registry-server", "healthcheck"]));
}

#[test]
fn the_image_holds_what_it_needs_and_no_more() {
    let Some(daemon) = daemon_with_image("the image's files") else { return };
    succeed(&mut docker(&daemon, &["create", "--name", "foundry", "foundry"]));
    let archive = daemon.path().join("image.tar");
    succeed(docker(&daemon, &["export", "foundry", "--output"]).arg(&archive));
    let listed = succeed(Command::new("tar").args(["--list", "--verbose", "--numeric-owner", "--file"]).arg(&archive));
    let entry = |path: &str| {
        let found = listed.lines().find(|line| line.split_whitespace().last() == Some(path));
        let words = found.unwrap_or_else(|| panic!("{path} is not there:\n{listed}")).split_whitespace();
        words.take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(entry("data/"), "drwx------ 65532/65532");
    assert_eq!(entry("tmp/"), "drwxrwxrwt 0/0");
    assert_eq!(entry("usr/local/bin/registry-server"), "-rwxr-xr-x 0/0");
    assert_eq!(entry("etc/ssl/certs/ca-certificates.crt"), "-rw-r--r-- 0/0");
    let files: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split_whitespace().last())
        // Mount points of the engine's own.
        .filter(|path| {
            !path.starts_with("dev/")
                && !matches!(*path, ".dockerenv" | "etc/hosts" | "etc/hostname" | "etc/resolv.conf")
        })
        .collect();
    let expected = [
        "etc/group",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/local/bin/registry-cli",
        "usr/local/bin/registry-server",
    ];
    assert_eq!(files, expected);

    let image = succeed(&mut docker(&daemon, &["image", "inspect", "foundry"]));
    let image: Value = serde_json::from_str(&image).unwrap();
    let config = &image[0]["Config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Volumes"], json!({ "/data": {} }));
    assert_eq!(config["ExposedPorts"], json!({ "8080/tcp": {} }));
    assert!(config["Env"].as_array().unwrap().contains(&json!("HTTP_HOST=0.0.0.0")));
    let size = image[0]["Size"].as_u64().unwrap();
    assert!(size < 100_000_000, "{size} bytes");
}

/// musl's own allocator, with one lock for all threads, made the image's program three times slower than the same
/// program on glibc: see ADR 11.
#[test]
fn the_image_s_program_brings_its_allocator() {
    let Some(folder) = image_root("the allocator of the image's program") else { return };
    let mut program = Command::new(folder.join("root/usr/local/bin/registry-server"));
    let output = program.arg("--version").env("MIMALLOC_SHOW_STATS", "1").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("peak commit"), "{told}");
}

/// The instructions from a line that begins with `first` on.
fn from<'a>(text: &'a str, first: &str) -> &'a str {
    let at = text.find(&format!("\n{first}")).unwrap_or_else(|| panic!("there is no {first}"));
    &text[at + 1..]
}

#[test]
fn both_dockerfiles_end_in_the_same_image() {
    let (built, static_) = (read("Dockerfile"), read("deploy/Dockerfile.static"));
    assert_eq!(from(&built, "LABEL "), from(&static_, "LABEL "));
    let copies = |text: &str| -> Vec<String> {
        let last = from(text, "FROM scratch");
        last.lines().filter(|line| line.starts_with("COPY ")).map(str::to_owned).collect()
    };
    // The same tree with the same owners, made by the same script.
    let built_copies: Vec<String> =
        copies(&built).iter().map(|line| line.replace("--from=build ", "").replace("/image/", "")).collect();
    assert_eq!(copies(&static_), built_copies);
    assert!(built.contains("\nRUN deploy/static-root /image\n"));
    // The base is pinned by name, and new enough for the workspace.
    let version = read("Cargo.toml")
        .lines()
        .find_map(|line| Some(line.strip_prefix("rust-version = \"")?.trim_end_matches('"').to_owned()));
    assert!(built.contains(&format!("\nFROM rust:{}-", version.unwrap())), "{built}");
}

#[test]
fn a_linter_finds_nothing_in_the_dockerfiles() {
    let Some(hadolint) = tool("hadolint reads the Dockerfiles", "hadolint") else { return };
    let files = ["Dockerfile", "deploy/Dockerfile.static"].map(|file| root().join(file));
    succeed(Command::new(hadolint).args(["--failure-threshold", "style"]).args(files));
}

#[test]
fn what_the_dockerfile_copies_is_enough_to_build_and_holds_no_secrets() {
    let test = "the build's context";
    let Some(daemon) = Docker::start(test) else { return };
    // A secret and a build's product that must not get there: this repository as it is, under another name.
    let tree = daemon.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let listed = run(Command::new("git").args(["ls-files", "-z"]).current_dir(root()));
    for path in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        let target = tree.join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(root().join(path), &target).unwrap();
    }
    for (path, text) in [(".env", "DB_PASSWORD=secret"), ("data/admin-token", "fdy_secret"), ("target/x", "built")] {
        fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
        fs::write(tree.join(path), text).unwrap();
    }
    let mut build = docker(&daemon, &["build", "--tag", "context", "--file", "-"]);
    build.arg(&tree).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = build.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"FROM scratch\nCOPY . /source/\nCMD [\"/none\"]\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    succeed(&mut docker(&daemon, &["create", "--name", "context", "context"]));
    let copied = daemon.path().join("copied");
    succeed(docker(&daemon, &["cp", "context:/source"]).arg(&copied));

    let mut entries: Vec<String> =
        fs::read_dir(&copied).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    entries.sort();
    assert_eq!(entries, [".cargo", "Cargo.lock", "Cargo.toml", "crates", "deploy", "tests"]);
    // Where cargo finds how SQLite is compiled.
    assert_eq!(fs::read_to_string(copied.join(".cargo/config.toml")).unwrap(), read(".cargo/config.toml"));
    let script = copied.join("deploy/static-root").metadata().unwrap();
    assert!(script.permissions().mode() & 0o111 != 0, "the script can be run");
    // cargo finds the whole workspace, and the locked dependencies of the programs.
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--format-version", "1", "--offline", "--locked"]).current_dir(&copied);
    let metadata: Value = serde_json::from_str(&succeed(&mut metadata)).unwrap();
    let members = metadata["workspace_members"].as_array().unwrap();
    assert!(members.len() >= 7, "{members:?}");
    let sources = run(Command::new("git").args(["ls-files", "--", "crates"]).current_dir(root()));
    for path in String::from_utf8(sources.stdout).unwrap().lines() {
        assert!(copied.join(path).exists(), "{path} is not copied");
    }
}
