//! The adapters' contracts over servers that testcontainers starts, on a Docker engine of the test's own; and what
//! there is instead where there is no engine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use registry_tests::clients::{Docker, server_images};
use registry_tests::eventually;
use registry_tests::process::free_port;
use registry_tests::tools::{fail, skip, succeed};
use registry_tests::wait::pause;

/// The built suite of this name, as it was last built: beside this one.
fn suite(test: &str, name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().expect("a test knows its own path");
    let beside = own.parent().expect("it lies in a folder").read_dir().expect("it can be read");
    let built = beside.filter_map(|entry| {
        let path = entry.ok()?.path();
        let hash = path.file_name()?.to_str()?.strip_prefix(name)?.strip_prefix('-')?;
        let changed = hash.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| path.metadata().ok()?.modified().ok());
        Some((changed??, path))
    });
    let last = built.max_by_key(|(changed, _): &(SystemTime, _)| *changed);
    if last.is_none() {
        skip(test, &format!("{name} is not built; cargo test --workspace builds it"));
    }
    last.map(|(_, path)| path)
}

/// A suite that is told nothing of any server but where a Docker engine is.
fn told_of_an_engine(mut command: Command, address: &str, wish: Option<&str>) -> Command {
    for name in ["FOUNDRY_POSTGRES_URL", "FOUNDRY_S3_ENDPOINT", "FOUNDRY_TEST_CONTAINERS"] {
        command.env_remove(name);
    }
    command.env("DOCKER_HOST", address).envs(wish.map(|wish| ("FOUNDRY_TEST_CONTAINERS", wish)));
    command
}

/// How many tests of a suite passed.
#[track_caller]
fn passed(output: &str) -> usize {
    let count = output.lines().find_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("no count in:\n{output}"))
}

/// Runs tests of a suite whose servers have to come from containers of this image; how many passed. Nothing is left of
/// the containers.
#[track_caller]
fn run_in_containers(docker: &Docker, suite: &Path, filters: &[&str], image: &str) -> usize {
    let mut command = told_of_an_engine(docker.inside(suite), &docker.address(), Some("always"));
    let listed = |arguments: &[&str]| succeed(docker.command().args(arguments));
    let (output, was_seen) = std::thread::scope(|scope| {
        let running = scope.spawn(|| succeed(command.args(filters)));
        let mut was_seen = false;
        while !was_seen && !running.is_finished() {
            was_seen = listed(&["ps", "--format", "{{.Image}}"]).lines().any(|line| line == image);
            pause();
        }
        (running.join().expect("it has succeeded"), was_seen)
    });
    assert!(was_seen, "its server is a container of {image}");
    eventually("the containers and their volumes are removed", || {
        (listed(&["ps", "--all", "--quiet"]).is_empty() && listed(&["volume", "ls", "--quiet"]).is_empty())
            .then_some(())
    });
    passed(&output)
}

#[test]
fn the_contracts_are_kept_over_servers_in_containers() {
    let test = "servers in containers";
    let Some(docker) = Docker::with_networks(test) else { return };
    let [postgres, seaweedfs] = ["postgres:16.9-alpine", "chrislusf/seaweedfs:4.53"];
    let made = [server_images::postgres(&docker, postgres, test), server_images::seaweedfs(&docker, seaweedfs, test)];
    let (Some(on_postgres), Some(on_s3)) = (suite(test, "postgres_contract"), suite(test, "s3")) else { return };
    if made.contains(&None) {
        return;
    }
    assert!(run_in_containers(&docker, &on_postgres, &[], postgres) > 100);
    assert!(run_in_containers(&docker, &on_s3, &["contract::"], seaweedfs) > 10);
}

#[test]
fn without_an_engine_a_server_is_started_unless_containers_are_demanded() {
    let test = "no Docker engine";
    let Some(suite) = suite(test, "postgres_contract") else { return };
    let nobody = format!("tcp://127.0.0.1:{}", free_port());
    let one = "what_nobody_can_be_called_is_not_found";
    assert_eq!(passed(&succeed(told_of_an_engine(Command::new(&suite), &nobody, None).arg(one))), 1);
    let refused = fail(told_of_an_engine(Command::new(&suite), &nobody, Some("always")).arg(one));
    assert!(refused.contains("there is no container of postgres:16.9-alpine: docker version"), "{refused}");
}
