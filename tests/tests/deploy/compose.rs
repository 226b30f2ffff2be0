//! deploy/compose.yaml, what may stand in MinIO's place, and .env.example. The compose that Debian has is older than the
//! `name` of a project in the file: it is given the files without that line.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use registry_tests::tools::{succeed, tool};
use serde_norway::Value;
use tempfile::TempDir;

use super::{assert_read_by_the_server, documents, read, root};

pub(super) const FILE: &str = "deploy/compose.yaml";
pub(super) const SEAWEEDFS: &str = "deploy/compose.seaweedfs.yaml";
const S3: &str = "deploy/compose.s3.yaml";

fn compose() -> Value {
    documents(&read(FILE)).remove(0)
}

/// `docker-compose` with these files of deploy/, which `folder` gets copies of that it understands.
pub(super) fn command(program: &Path, folder: &Path, files: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.arg("--project-directory").arg(root().join("deploy"));
    for file in files {
        let copy = folder.join(file.rsplit('/').next().unwrap());
        std::fs::write(&copy, read(file).replace("\nname: foundry\n", "\n")).unwrap();
        command.arg("--file").arg(copy);
    }
    command
}

/// The `${NAME:-default}` and `${NAME-default}` of a text: name, default.
pub(super) fn interpolations(text: &str) -> BTreeMap<String, String> {
    let pieces = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
    let pairs = pieces.map(|(piece, _)| {
        let (name, default) = piece.split_once('-').unwrap_or_else(|| panic!("{piece} has no default"));
        (name.trim_end_matches(':').to_owned(), default.to_owned())
    });
    pairs.collect()
}

#[test]
fn the_specifications_schema_accepts_it() {
    let Some(check) = tool("compose.yaml fits its schema", "check-jsonschema") else { return };
    succeed(
        Command::new(check)
            .args(["--builtin-schema", "vendor.compose-spec"])
            .args([FILE, SEAWEEDFS, S3].map(|file| root().join(file))),
    );
}

/// What compose makes of these files, and of the text of an environment file.
fn understood(compose: &Path, folder: &Path, files: &[&str], environment: Option<&str>) -> Value {
    let mut command = command(compose, folder, files);
    if let Some(text) = environment {
        std::fs::write(folder.join("environment"), text).unwrap();
        command.arg("--env-file").arg(folder.join("environment"));
    }
    documents(&succeed(command.arg("config"))).remove(0)
}

#[test]
fn every_command_means_the_same_project() {
    assert_eq!(compose()["name"], "foundry");
    // Nor does a file that some commands name and others do not make it another one.
    assert!(!read(".env.example").contains("COMPOSE_PROJECT_NAME"));
    for file in [SEAWEEDFS, S3] {
        assert!(documents(&read(file)).remove(0).get("name").is_none(), "{file}");
    }
}

#[test]
fn s3_itself_is_used_when_the_example_is_changed_as_it_says() {
    let Some(compose) = tool("compose.yaml with S3 itself", "docker-compose") else { return };
    let folder = TempDir::new().unwrap();
    let example = read(".env.example");
    assert!(example.contains("\nAWS_ENDPOINT_URL=http://minio:9000\n") && example.contains("(AWS_ENDPOINT_URL=)"));
    let changed = example.replace("\nAWS_ENDPOINT_URL=http://minio:9000\n", "\nAWS_ENDPOINT_URL=\n");
    let services = &understood(&compose, folder.path(), &[FILE, S3], Some(&changed))["services"];
    for number in 1..=3 {
        // What is empty the server takes for absent.
        assert_eq!(services[format!("foundry-{number}")]["environment"]["AWS_ENDPOINT_URL"], "");
    }
    let scaled: Vec<_> = services.as_mapping().unwrap().iter().filter(|(_, own)| own.get("scale").is_some()).collect();
    let names: Vec<_> = scaled.iter().map(|(name, own)| (name.as_str().unwrap(), own["scale"].as_u64())).collect();
    assert_eq!(names, [("bucket", Some(0)), ("minio", Some(0))], "MinIO is left out, and who made its bucket");
}

#[test]
fn compose_itself_understands_it_with_the_example_environment() {
    let Some(compose) = tool("docker-compose reads compose.yaml", "docker-compose") else { return };
    let folder = TempDir::new().unwrap();
    let understood = |environment: Option<&str>| understood(&compose, folder.path(), &[FILE], environment);
    // What the example says is what holds without it.
    let (bare, example) = (understood(None), understood(Some(&read(".env.example"))));
    assert_eq!(bare["services"], example["services"]);
    for number in 1..=3 {
        let replica = &bare["services"][format!("foundry-{number}")];
        assert_eq!(replica["environment"]["AWS_ENDPOINT_URL"], "http://minio:9000");
        assert_eq!(replica["environment"]["DB_HOST"], "postgres");
        assert_eq!(replica["image"], "foundry");
    }
}

#[test]
fn the_example_environment_has_each_variable_with_its_default() {
    let example = read(".env.example");
    let lines = example.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let set: BTreeMap<String, String> = lines
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line} sets nothing")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut expected = interpolations(&read(FILE));
    for (name, default) in interpolations(&read(SEAWEEDFS)) {
        assert_eq!(*expected.entry(name).or_insert_with(|| default.clone()), default);
    }
    assert_eq!(set, expected);
}

#[test]
fn three_replicas_stand_behind_the_only_port() {
    let compose = compose();
    let services = compose["services"].as_mapping().unwrap();
    let publishing: Vec<_> = services.iter().filter(|(_, service)| service.get("ports").is_some()).collect();
    assert_eq!(publishing.len(), 1);
    assert_eq!(publishing[0].0, "balancer");
    assert_eq!(publishing[0].1["ports"][0], "${FOUNDRY_LISTEN:-127.0.0.1:8080}:8080");

    let haproxy = read("deploy/haproxy.cfg");
    let first = &services["foundry-1"]["environment"];
    for number in 1..=3 {
        let name = format!("foundry-{number}");
        let replica = &services[name.as_str()];
        assert!(haproxy.contains(&format!("server {name} {name}:8080")));
        assert_eq!(&replica["environment"], first, "replicas are alike");
        assert_eq!((&replica["read_only"], &replica["cap_drop"][0]), (&Value::from(true), &Value::from("ALL")));
        assert_eq!(publishing[0].1["depends_on"][name.as_str()]["condition"], "service_healthy");
    }
    let names = first.as_mapping().unwrap().keys();
    assert_read_by_the_server(names.map(|name| name.as_str().unwrap()));
    // Pinned by name: none moves by itself.
    for (name, default) in interpolations(&format!("{}{}", read(FILE), read(SEAWEEDFS))) {
        if name.ends_with("_IMAGE") && name != "FOUNDRY_IMAGE" {
            let tag = default.rsplit_once(':').unwrap_or_else(|| panic!("{name}={default} has no tag")).1;
            assert!(tag.contains('.') || tag.starts_with("RELEASE."), "{name}={default} is a moving tag");
        }
    }
}
