//! docker, with a daemon of its own.

use std::io::Write;
use std::process::{Command, Stdio};

use registry_tests::clients::images::{self, architecture, other_architecture};
use registry_tests::clients::{self, Docker, LOG_IN, assert_says};
use registry_tests::oci::Image;
use registry_tests::server::ADMIN;
use registry_tests::tools::{fail, succeed, tool};
use registry_tests::{Server, ServerBuilder};

fn docker(docker: &Docker, arguments: &[&str]) -> Command {
    let mut command = docker.command();
    command.args(arguments);
    command
}

/// Builds an image that says `text`; `None` after saying that `test` is skipped.
fn build(daemon: &Docker, test: &str, name: &str, text: &str) -> Option<()> {
    let busybox = tool(test, "busybox")?;
    let context = daemon.path().join("context");
    images::build_context(&context, &busybox, text);
    succeed(&mut docker(daemon, &["build", "-q", "-t", name, &context.display().to_string()]));
    Some(())
}

/// `docker login` with the token from standard input, as its documentation advises: whether it succeeded, and what it
/// printed.
fn login(daemon: &Docker, server: &Server, token: &str) -> (bool, String) {
    let mut command = docker(daemon, &["login", "-u", clients::USER, "--password-stdin", &server.host()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("docker can be started");
    child.stdin.take().expect("it is piped").write_all(token.as_bytes()).expect("docker reads it");
    let output = child.wait_with_output().expect("docker is our child");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

#[test]
fn what_was_built_and_pushed_is_pulled_and_runs() {
    let test = "docker pushes, pulls and runs";
    let Some(daemon) = Docker::start(test) else { return };
    let server = Server::start();
    let name = format!("{}/team/app:1", server.host());
    let Some(()) = build(&daemon, test, &name, "as it was built") else { return };

    assert_says(&fail(&mut docker(&daemon, &["push", "-q", &name])), &[LOG_IN]);
    let (refused, text) = login(&daemon, &server, "wrong");
    assert!(!refused, "{text}");
    assert_says(&text, &["the credentials are not valid"]);
    let (accepted, text) = login(&daemon, &server, ADMIN);
    assert!(accepted, "{text}");
    assert_says(&text, &["Login Succeeded"]);

    let image = succeed(&mut docker(&daemon, &["inspect", "--format", "{{.Id}}", &name]));
    let pushed = succeed(&mut docker(&daemon, &["push", &name]));
    let stored = server.repository("team/app").get_manifest("1").expect(200);
    let digest = stored.header("docker-content-digest").expect("the answer has a digest").to_owned();
    assert_says(&pushed, &[&format!("digest: {digest} size: {}", stored.body.len())]);

    succeed(&mut docker(&daemon, &["rmi", "-f", &name]));
    let pulled = succeed(&mut docker(&daemon, &["pull", &name]));
    assert_says(&pulled, &[&format!("Digest: {digest}")]);
    assert_eq!(succeed(&mut docker(&daemon, &["inspect", "--format", "{{.Id}}", &name])), image);
    assert_eq!(succeed(&mut docker(&daemon, &["run", "--rm", &name])).trim(), "as it was built");

    // By digest, and with the pull as a part of the run.
    succeed(&mut docker(&daemon, &["rmi", "-f", &name]));
    let by_digest = format!("{}/team/app@{digest}", server.host());
    assert_eq!(succeed(&mut docker(&daemon, &["run", "--rm", &by_digest])).trim(), "as it was built");

    // Deleted by digest, it is gone, and its bytes with the next collection.
    server.repository("team/app").delete_manifest(&digest).expect(202);
    succeed(&mut docker(&daemon, &["rmi", "-f", &by_digest]));
    assert_says(&fail(&mut docker(&daemon, &["pull", &name])), &["has no manifest"]);
    assert_eq!(server.gc("0s")["blobs_deleted"], 2);
}

#[test]
fn without_credentials_where_the_server_allows_it() {
    let test = "docker pushes without credentials";
    let Some(daemon) = Docker::start(test) else { return };
    let config = "registries:\n  staging:\n    format: oci";
    let server = ServerBuilder::new().anonymous("push").config(config).start();
    // The default registry, a named one, and a repository in the root namespace.
    for repository in ["team/app", "staging/team/app", "app"] {
        let name = format!("{}/{repository}:1", server.host());
        let Some(()) = build(&daemon, test, &name, repository) else { return };
        succeed(&mut docker(&daemon, &["push", "-q", &name]));
        succeed(&mut docker(&daemon, &["rmi", "-f", &name]));
        assert_eq!(succeed(&mut docker(&daemon, &["run", "--rm", &name])).trim(), repository);
    }

    let readable = ServerBuilder::new().anonymous("pull").start();
    let name = format!("{}/team/app:1", readable.host());
    let Some(()) = build(&daemon, test, &name, "read only") else { return };
    assert_says(&fail(&mut docker(&daemon, &["push", "-q", &name])), &[LOG_IN]);
    let Some(busybox) = tool(test, "busybox") else { return };
    readable.repository("team/app").push("2", &images::image(&busybox, architecture(), "pushed by another"));
    let name = format!("{}/team/app:2", readable.host());
    assert_eq!(succeed(&mut docker(&daemon, &["run", "--rm", &name])).trim(), "pushed by another");
}

#[test]
fn a_scoped_token_reaches_its_namespace_alone() {
    let test = "docker uses a scoped token";
    let Some(daemon) = Docker::start(test) else { return };
    let server = Server::start();
    let (own, other) = (format!("{}/team/x:1", server.host()), format!("{}/other/x:1", server.host()));
    let Some(()) = build(&daemon, test, &own, "hello") else { return };
    succeed(&mut docker(&daemon, &["tag", &own, &other]));
    let token = clients::token(&server, "team", &["oci:team/*:pull,push"]);
    let (accepted, text) = login(&daemon, &server, &token);
    assert!(accepted, "{text}");
    succeed(&mut docker(&daemon, &["push", "-q", &own]));
    let refused = fail(&mut docker(&daemon, &["push", "-q", &other]));
    assert_says(&refused, &["requested access to the resource is denied"]);
    assert_eq!(server.repository("other/x").get_manifest("1").status, 404);
}

#[test]
fn a_second_push_of_a_layer_mounts_it() {
    let test = "docker mounts";
    let Some(daemon) = Docker::start(test) else { return };
    let server = Server::start();
    let first = format!("{}/team/first:1", server.host());
    let second = format!("{}/second:1", server.host());
    let Some(()) = build(&daemon, test, &first, "mounted") else { return };
    assert!(login(&daemon, &server, ADMIN).0);
    succeed(&mut docker(&daemon, &["push", "-q", &first]));
    let manifest = server.repository("team/first").get_manifest("1").expect(200).json();
    let layer = usize::try_from(manifest["layers"][0]["size"].as_u64().expect("a layer has a size")).expect("it fits");
    succeed(&mut docker(&daemon, &["tag", &first, &second]));
    let requests = server.requests_from_now();
    let pushed = succeed(&mut docker(&daemon, &["push", &second]));
    assert_says(&pushed, &["Mounted from team/first"]);
    requests.assert_mounted("second", layer);
    succeed(&mut docker(&daemon, &["rmi", "-f", &first, &second]));
    assert_eq!(succeed(&mut docker(&daemon, &["run", "--rm", &second])).trim(), "mounted");
}

#[test]
fn a_manifest_list_gives_each_machine_its_own_image() {
    let test = "docker pulls from a manifest list";
    let Some(daemon) = Docker::start(test) else { return };
    let Some(busybox) = tool(test, "busybox") else { return };
    let server = ServerBuilder::new().anonymous("push").start();
    let own = images::image(&busybox, architecture(), "for this machine");
    let other = images::image(&busybox, other_architecture(), "for another machine");
    let repository = server.repository("team/app");
    let images: [(&str, &Image); 2] = [(architecture(), &own), (other_architecture(), &other)];
    for (architecture, image) in images {
        repository.push(architecture, image);
    }
    // An index of ours, and a manifest list of docker's own making.
    repository.push("index", &images::index(&images));
    let list = format!("{}/team/app:list", server.host());
    let members = images.map(|(architecture, _)| format!("{}/team/app:{architecture}", server.host()));
    succeed(&mut docker(&daemon, &["manifest", "create", "--insecure", &list, &members[0], &members[1]]));
    succeed(&mut docker(&daemon, &["manifest", "push", "--insecure", &list]));
    for tag in ["index", "list"] {
        let name = format!("{}/team/app:{tag}", server.host());
        let said = succeed(&mut docker(&daemon, &["run", "--rm", &name]));
        assert_eq!(said.trim(), "for this machine", "{tag}");
        succeed(&mut docker(&daemon, &["rmi", "-f", &name]));
    }
}

#[test]
fn an_image_moves_between_registries() {
    let test = "docker copies between registries";
    let Some(daemon) = Docker::start(test) else { return };
    let first = ServerBuilder::new().anonymous("push").start();
    let second = ServerBuilder::new().anonymous("push").start();
    let at_first = format!("{}/team/app:1", first.host());
    let at_second = format!("{}/team/app:1", second.host());
    let Some(()) = build(&daemon, test, &at_first, "well travelled") else { return };
    succeed(&mut docker(&daemon, &["push", "-q", &at_first]));
    succeed(&mut docker(&daemon, &["rmi", "-f", &at_first]));
    succeed(&mut docker(&daemon, &["pull", "-q", &at_first]));
    succeed(&mut docker(&daemon, &["tag", &at_first, &at_second]));
    succeed(&mut docker(&daemon, &["push", "-q", &at_second]));
    let manifest = |server: &Server| server.repository("team/app").get_manifest("1").expect(200).body;
    assert_eq!(manifest(&first), manifest(&second));
    succeed(&mut docker(&daemon, &["rmi", "-f", &at_first, &at_second]));
    assert_eq!(succeed(&mut docker(&daemon, &["run", "--rm", &at_second])).trim(), "well travelled");
}
