//! deploy/compose.yaml, what may stand in MinIO's place, and .env.example.

use std::collections::BTreeMap;
use std::process::Command;

use registry_tests::tools::{succeed, tool};
use serde_norway::Value;

use super::{assert_read_by_the_server, documents, read, root};

pub(super) const FILE: &str = "deploy/compose.yaml";
pub(super) const SEAWEEDFS: &str = "deploy/compose.seaweedfs.yaml";

fn compose() -> Value {
    documents(&read(FILE)).remove(0)
}

/// The `${NAME:-default}` of a text: name, default.
pub(super) fn interpolations(text: &str) -> BTreeMap<String, String> {
    let pieces = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
    let pairs = pieces.map(|(piece, _)| {
        let (name, default) = piece.split_once(":-").unwrap_or_else(|| panic!("{piece} has no default"));
        (name.to_owned(), default.to_owned())
    });
    pairs.collect()
}

#[test]
fn the_specifications_schema_accepts_it() {
    let Some(check) = tool("compose.yaml fits its schema", "check-jsonschema") else { return };
    succeed(
        Command::new(check)
            .args(["--builtin-schema", "vendor.compose-spec"])
            .args([FILE, SEAWEEDFS].map(|file| root().join(file))),
    );
}

#[test]
fn compose_itself_understands_it_with_the_example_environment() {
    let Some(compose) = tool("docker-compose reads compose.yaml", "docker-compose") else { return };
    let understood = |arguments: &[&str]| {
        let mut command = Command::new(&compose);
        command.args(arguments).args(["-f", FILE, "config"]).current_dir(root()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap());
        documents(&succeed(&mut command)).remove(0)
    };
    // What the example says is what holds without it.
    let (bare, example) = (understood(&[]), understood(&["--env-file", ".env.example"]));
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
    let mut set: BTreeMap<String, String> = lines
        .map(|line| line.split_once('=').unwrap_or_else(|| panic!("{line} sets nothing")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    // Read by compose itself.
    assert_eq!(set.remove("COMPOSE_PROJECT_NAME").as_deref(), Some("foundry"));
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
