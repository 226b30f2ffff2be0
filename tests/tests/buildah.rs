//! buildah: images built step by step and from a Containerfile, in both formats, and run after a pull.

use std::path::PathBuf;
use std::process::Command;

use registry_tests::clients::images::{self, architecture, other_architecture};
use registry_tests::clients::{self, Containers, LOG_IN, assert_says};
use registry_tests::oci::{OCI_INDEX, OCI_MANIFEST};
use registry_tests::server::ADMIN;
use registry_tests::tools::{fail, succeed};
use registry_tests::{Server, ServerBuilder};

struct Buildah {
    program: PathBuf,
    busybox: PathBuf,
    containers: Containers,
}

impl Buildah {
    fn new(test: &str) -> Option<Self> {
        let [program, busybox] = clients::tools(test, ["buildah", "busybox"])?;
        clients::is_root(test).then(|| Self { program, busybox, containers: Containers::new() })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.containers.command(&self.program);
        command.args(arguments);
        command
    }

    fn remote(&self, token: Option<&str>, subcommand: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.command(subcommand);
        command.arg("--tls-verify=false");
        if let Some(token) = token {
            command.arg(format!("--creds={}:{token}", clients::USER));
        }
        command.args(arguments);
        command
    }

    /// Makes an image that says `text`, without a Containerfile.
    fn commit(&self, name: &str, text: &str) {
        let container = succeed(&mut self.command(&["from", "scratch"]));
        let container = container.trim();
        let busybox = self.busybox.display().to_string();
        succeed(&mut self.command(&["copy", "-q", container, &busybox, "/bin/busybox"]));
        succeed(&mut self.command(&["config", "--cmd", &images::saying(text).to_string(), container]));
        succeed(&mut self.command(&["commit", "-q", container, name]));
        succeed(&mut self.command(&["rm", container]));
    }

    /// Makes a container of an image and runs a command in it: what it says.
    fn run(&self, name: &str, command: &[&str]) -> String {
        let container = succeed(&mut self.command(&["from", "--pull-never", name]));
        let container = container.trim();
        let mut run = self.command(&["run", "--isolation", "chroot", container, "--"]);
        let said = succeed(run.args(command)).trim().to_owned();
        succeed(&mut self.command(&["rm", container]));
        said
    }
}

#[test]
fn both_formats_go_there_and_back() {
    let Some(buildah) = Buildah::new("buildah pushes both formats") else { return };
    let server = Server::start();
    buildah.commit("localhost/app:1", "committed");
    for (format, media_type) in
        [("oci", OCI_MANIFEST), ("v2s2", "application/vnd.docker.distribution.manifest.v2+json")]
    {
        let name = format!("{}/team/app:{format}", server.host());
        let target = format!("docker://{name}");
        succeed(&mut buildah.remote(Some(ADMIN), &["push", "-q", "--format", format], &["localhost/app:1", &target]));
        let stored = server.repository("team/app").get_manifest(format).expect(200);
        assert_eq!(stored.header("content-type"), Some(media_type));
        succeed(&mut buildah.remote(Some(ADMIN), &["pull", "-q"], &[&name]));
        assert_eq!(buildah.run(&name, &["/bin/busybox", "echo", "from", format]), format!("from {format}"));
    }
}

#[test]
fn a_containerfile_builds_on_what_was_pushed() {
    let Some(buildah) = Buildah::new("buildah builds on a pushed image") else { return };
    let server = ServerBuilder::new().anonymous("push").start();
    let base = format!("{}/base:1", server.host());
    buildah.commit("localhost/base:1", "the base");
    succeed(&mut buildah.remote(None, &["push", "-q"], &["localhost/base:1", &format!("docker://{base}")]));
    succeed(&mut buildah.command(&["rmi", "--all", "--force"]));

    let context = buildah.containers.path().join("context");
    std::fs::create_dir(&context).expect("a folder can be made");
    let recipe = format!("FROM {base}\nRUN [\"/bin/busybox\", \"touch\", \"/built\"]\n");
    std::fs::write(context.join("Containerfile"), recipe).expect("a file can be written");
    let name = format!("{}/team/app:1", server.host());
    let cache = format!("{}/team/cache", server.host());
    let context = context.display().to_string();
    let build = || {
        let options = ["build", "--isolation", "chroot", "--layers"];
        let caches = ["--cache-to", &cache, "--cache-from", &cache];
        let arguments = [&caches[..], &["-t", &name, &context]].concat();
        succeed(&mut buildah.remote(None, &options, &arguments))
    };
    build();
    succeed(&mut buildah.remote(None, &["push", "-q"], &[&name]));
    succeed(&mut buildah.command(&["rmi", "--all", "--force"]));
    // The step comes out of the registry now.
    assert_says(&build(), &["cache pulled from remote"]);

    succeed(&mut buildah.command(&["rmi", "--all", "--force"]));
    succeed(&mut buildah.remote(None, &["pull", "-q"], &[&name]));
    assert_eq!(buildah.run(&name, &["/bin/busybox", "ls", "/built"]), "/built");
}

#[test]
fn credentials_decide() {
    let Some(buildah) = Buildah::new("buildah's credentials") else { return };
    buildah.commit("localhost/app:1", "hello");
    let push = |token: Option<&str>, server: &Server, repository: &str| {
        let target = format!("docker://{}/{repository}:1", server.host());
        buildah.remote(token, &["push", "-q"], &["localhost/app:1", &target])
    };
    let login = |server: &Server, token: &str| {
        buildah.remote(None, &["login"], &["-u", clients::USER, "-p", token, &server.host()])
    };

    let closed = Server::start();
    assert_says(&fail(&mut push(None, &closed, "team/x")), &[LOG_IN]);
    assert_says(&fail(&mut login(&closed, "wrong")), &["invalid username/password"]);
    succeed(&mut login(&closed, ADMIN));
    succeed(&mut push(None, &closed, "team/x"));
    let token = clients::token(&closed, "team", &["oci:team/*:pull,push"]);
    succeed(&mut push(Some(&token), &closed, "team/y"));
    let refused = fail(&mut push(Some(&token), &closed, "other/x"));
    assert_says(&refused, &["requested access to the resource is denied"]);

    let open = ServerBuilder::new().anonymous("push").start();
    succeed(&mut push(None, &open, "team/x"));
}

#[test]
fn an_index_of_two_architectures() {
    let Some(buildah) = Buildah::new("buildah pushes an index") else { return };
    let server = ServerBuilder::new().anonymous("push").start();
    let host = server.host();
    let repository = server.repository("team/app");
    let images = [architecture(), other_architecture()]
        .map(|architecture| (architecture, images::image(&buildah.busybox, architecture, architecture)));
    succeed(&mut buildah.command(&["manifest", "create", "localhost/both:1"]));
    for (architecture, image) in &images {
        repository.push(architecture, image);
        let member = format!("docker://{host}/team/app:{architecture}");
        succeed(&mut buildah.remote(None, &["manifest", "add"], &["localhost/both:1", &member]));
    }
    let target = format!("docker://{host}/team/both:1");
    succeed(&mut buildah.remote(None, &["manifest", "push", "--all"], &["localhost/both:1", &target]));

    // All of it went to the other repository (compressed, so under other digests), and what fits this machine comes out.
    let both = server.repository("team/both");
    let index = both.get_manifest("1").expect(200);
    assert_eq!(index.header("content-type"), Some(OCI_INDEX));
    let index = index.json();
    for (member, (architecture, _)) in images.iter().enumerate() {
        let descriptor = &index["manifests"][member];
        assert_eq!(descriptor["platform"]["architecture"], *architecture);
        both.get_manifest(descriptor["digest"].as_str().expect("a digest is text")).expect(200);
    }
    succeed(&mut buildah.command(&["rmi", "--all", "--force"]));
    succeed(&mut buildah.remote(None, &["pull", "-q"], &[&format!("{host}/team/both:1")]));
    assert_eq!(buildah.run(&format!("{host}/team/both:1"), &["/bin/busybox", "echo", "it runs"]), "it runs");
}
