//! podman: build, push, pull and run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use registry_tests::clients::images::{self, architecture, other_architecture};
use registry_tests::clients::{self, Containers, LOG_IN, assert_says};
use registry_tests::server::ADMIN;
use registry_tests::tools::{fail, succeed};
use registry_tests::{Server, ServerBuilder};

/// podman with images of its own, and busybox to make images of.
struct Podman {
    program: PathBuf,
    busybox: PathBuf,
    containers: Containers,
}

impl Podman {
    fn new(test: &str) -> Option<Self> {
        let [program, busybox, _] = clients::tools(test, ["podman", "busybox", "runc"])?;
        clients::is_root(test).then(|| Self { program, busybox, containers: Containers::new() })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.containers.command(&self.program);
        command.args(arguments);
        command
    }

    /// A command that talks to a registry, with the token, if any, as its credentials.
    fn remote(&self, token: Option<&str>, subcommand: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.command(subcommand);
        command.arg("--tls-verify=false");
        if let Some(token) = token {
            command.arg(format!("--creds={}:{token}", clients::USER));
        }
        command.args(arguments);
        command
    }

    fn login(&self, server: &Server, token: &str) -> Command {
        self.remote(None, &["login"], &["-u", clients::USER, "-p", token, &server.host()])
    }

    /// Builds an image that says `text`.
    fn build(&self, name: &str, text: &str) {
        let context = self.containers.path().join("context");
        images::build_context(&context, &self.busybox, text);
        let context = context.display().to_string();
        succeed(&mut self.command(&["build", "-q", "--isolation", "chroot", "-t", name, &context]));
    }

    /// Runs an image that is there already: what it says.
    fn run(&self, name: &str) -> String {
        succeed(&mut self.command(&["run", "--rm", "--pull", "never", name])).trim().to_owned()
    }

    fn forget_images(&self) {
        succeed(&mut self.command(&["rmi", "--all", "--force"]));
    }
}

#[test]
fn what_was_built_and_pushed_is_pulled_and_runs() {
    let Some(podman) = Podman::new("podman pushes, pulls and runs") else { return };
    let server = Server::start();
    let name = format!("{}/team/app:1", server.host());
    podman.build(&name, "as it was built");
    let digest = podman.containers.path().join("digest");
    let digest_option = format!("--digestfile={}", digest.display());
    succeed(&mut podman.remote(Some(ADMIN), &["push", "-q", &digest_option], &[&name]));
    let pushed = fs::read_to_string(digest).expect("podman wrote the digest");
    let repository = server.repository("team/app");
    assert_eq!(repository.get_manifest("1").expect(200).header("docker-content-digest"), Some(pushed.trim()));

    let image = succeed(&mut podman.command(&["inspect", "--format", "{{.Id}}", &name]));
    podman.forget_images();
    fail(&mut podman.command(&["run", "--rm", "--pull", "never", &name]));
    succeed(&mut podman.remote(Some(ADMIN), &["pull", "-q"], &[&name]));
    assert_eq!(succeed(&mut podman.command(&["inspect", "--format", "{{.Id}}", &name])), image);
    assert_eq!(podman.run(&name), "as it was built");

    // By digest, and with the pull as a part of the run.
    podman.forget_images();
    let by_digest = format!("{}/team/app@{}", server.host(), pushed.trim());
    succeed(&mut podman.login(&server, ADMIN));
    let said = succeed(&mut podman.remote(None, &["run", "--rm", "--pull=always"], &[&by_digest]));
    assert_eq!(said.trim(), "as it was built");
}

#[test]
fn credentials_decide() {
    let Some(podman) = Podman::new("podman's credentials") else { return };
    podman.build("localhost/app:1", "hello");
    let push = |token: Option<&str>, server: &Server, repository: &str| {
        let target = format!("{}/{repository}:1", server.host());
        podman.remote(token, &["push", "-q"], &["localhost/app:1", &target])
    };

    let closed = Server::start();
    assert_says(&fail(&mut push(None, &closed, "team/x")), &[LOG_IN]);
    assert_says(&fail(&mut push(Some("wrong"), &closed, "team/x")), &["the credentials are not valid"]);
    assert_says(&fail(&mut podman.login(&closed, "wrong")), &["invalid username/password"]);
    assert_says(&succeed(&mut podman.login(&closed, ADMIN)), &["Login Succeeded"]);
    succeed(&mut push(None, &closed, "team/x"));

    let token = clients::token(&closed, "team", &["oci:team/*:pull,push"]);
    succeed(&mut push(Some(&token), &closed, "team/y"));
    let refused = fail(&mut push(Some(&token), &closed, "other/x"));
    assert_says(&refused, &["requested access to the resource is denied"]);

    let open = ServerBuilder::new().anonymous("push").start();
    succeed(&mut push(None, &open, "team/x"));
    podman.forget_images();
    let name = format!("{}/team/x:1", open.host());
    succeed(&mut podman.remote(None, &["pull", "-q"], &[&name]));
    assert_eq!(podman.run(&name), "hello");
}

#[test]
fn an_index_gives_each_machine_its_own_image() {
    let Some(podman) = Podman::new("podman pulls from an index") else { return };
    let server = ServerBuilder::new().anonymous("push").start();
    let own = images::image(&podman.busybox, architecture(), "for this machine");
    let other = images::image(&podman.busybox, other_architecture(), "for another machine");
    let repository = server.repository("team/app");
    for (tag, image) in [("own", &own), ("other", &other)] {
        repository.push(tag, image);
    }
    let host = server.host();
    succeed(&mut podman.command(&["manifest", "create", "localhost/both:1"]));
    for tag in ["own", "other"] {
        let image = format!("docker://{host}/team/app:{tag}");
        succeed(&mut podman.remote(None, &["manifest", "add"], &["localhost/both:1", &image]));
    }
    let target = format!("docker://{host}/team/app:both");
    succeed(&mut podman.remote(None, &["manifest", "push", "--all"], &["localhost/both:1", &target]));
    let index = repository.get_manifest("both").expect(200).json();
    let digests: Vec<_> = index["manifests"].as_array().expect("it is an index").iter().map(|m| &m["digest"]).collect();
    assert_eq!(digests, [&own.digest(), &other.digest()]);

    podman.forget_images();
    let name = format!("{host}/team/app:both");
    succeed(&mut podman.remote(None, &["pull", "-q"], &[&name]));
    assert_eq!(podman.run(&name), "for this machine");
}

#[test]
fn an_image_moves_between_registries_and_names() {
    let Some(podman) = Podman::new("podman copies between registries") else { return };
    let config = "registries:\n  staging:\n    format: oci";
    let first = ServerBuilder::new().anonymous("push").config(config).start();
    let second = ServerBuilder::new().anonymous("push").start();
    podman.build("localhost/app:1", "well travelled");
    let at_first = format!("{}/staging/team/app:1", first.host());
    let at_second = format!("{}/app:1", second.host());
    succeed(&mut podman.remote(None, &["push", "-q"], &["localhost/app:1", &at_first]));
    podman.forget_images();
    succeed(&mut podman.remote(None, &["pull", "-q"], &[&at_first]));
    succeed(&mut podman.remote(None, &["push", "-q"], &[&at_first, &at_second]));
    podman.forget_images();
    succeed(&mut podman.remote(None, &["pull", "-q"], &[&at_second]));
    assert_eq!(podman.run(&at_second), "well travelled");
    assert_eq!(first.repository("staging/team/app").get_manifest("1").status, 200);
    assert_eq!(first.repository("team/app").get_manifest("1").status, 404);
}

#[test]
fn a_second_push_of_a_layer_mounts_it() {
    let Some(podman) = Podman::new("podman mounts") else { return };
    let server = Server::start();
    podman.build("localhost/app:1", "hello");
    let push = |repository: &str| {
        let target = format!("{}/{repository}:1", server.host());
        podman.remote(Some(ADMIN), &["push", "-q"], &["localhost/app:1", &target])
    };
    succeed(&mut push("team/first"));
    let layer = server.repository("team/first").get_manifest("1").expect(200).json()["layers"][0]["size"].as_u64();
    let requests = server.requests_from_now();
    succeed(&mut push("second"));
    requests.assert_mounted("second", usize::try_from(layer.expect("a layer has a size")).expect("it fits"));
}
