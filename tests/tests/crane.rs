//! crane: images put together, copied and taken apart without a daemon.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use registry_tests::clients::images::{self, architecture, other_architecture};
use registry_tests::clients::{self, LOG_IN, assert_says};
use registry_tests::server::ADMIN;
use registry_tests::tools::{fail, run, succeed};
use registry_tests::{Image, Random, Server, ServerBuilder};
use tempfile::TempDir;

struct Crane {
    program: PathBuf,
    folder: TempDir,
}

impl Crane {
    fn new(test: &str) -> Option<Self> {
        let [program] = clients::tools(test, ["crane"])?;
        Some(Self { program, folder: TempDir::new().expect("a temporary folder can be made") })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--insecure");
        command.env("DOCKER_CONFIG", self.folder.path().join("docker")).env("HOME", self.folder.path());
        command.env("XDG_CONFIG_HOME", self.folder.path()).current_dir(self.folder.path());
        command
    }

    /// Saves credentials for the server; crane asks nobody whether they are right.
    fn login(&self, server: &Server, token: &str) {
        let mut command = self.command(&["auth", "login", "-u", clients::USER, "--password-stdin", &server.host()]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("crane can be started");
        child.stdin.take().expect("it is piped").write_all(token.as_bytes()).expect("crane reads it");
        assert!(child.wait().expect("crane is our child").success());
    }

    /// An OCI image layout that `crane push` takes: with `index`, it pushes all of it.
    fn layout(&self, top: &Image, more: &[&Image]) -> String {
        let folder = self.folder.path().join(top.digest().replace(':', "-"));
        images::write_layout(&folder, top, more);
        folder.display().to_string()
    }
}

fn small_image(seed: u64) -> Image {
    Image::new(vec![Random::new(seed).bytes(300_000), Random::new(seed + 1000).bytes(10)])
}

#[test]
fn an_image_comes_back_as_it_went() {
    let Some(crane) = Crane::new("crane pushes and pulls") else { return };
    let server = Server::start();
    crane.login(&server, ADMIN);
    let image = small_image(1);
    let name = format!("{}/team/app:1", server.host());
    let pushed = succeed(&mut crane.command(&["push", &crane.layout(&image, &[]), &name]));
    assert_eq!(pushed.trim(), format!("{}/team/app@{}", server.host(), image.digest()));
    server.repository("team/app").assert_holds("1", &image);

    assert_eq!(succeed(&mut crane.command(&["digest", &name])).trim(), image.digest());
    assert_eq!(run(&mut crane.command(&["manifest", &name])).stdout, image.manifest);
    succeed(&mut crane.command(&["pull", "--format", "oci", &name, "back"]));
    images::assert_layout_holds(&crane.folder.path().join("back"), &[&image]);
    let blob = format!("{}/team/app@{}", server.host(), registry_tests::oci::sha256(&image.blobs[0]));
    assert_eq!(run(&mut crane.command(&["blob", &blob])).stdout, image.blobs[0]);
}

#[test]
fn tags_repositories_and_deletion() {
    let Some(crane) = Crane::new("crane lists and deletes") else { return };
    let server = Server::start();
    crane.login(&server, ADMIN);
    let host = server.host();
    let image = small_image(2);
    for name in ["b/app", "a"] {
        succeed(&mut crane.command(&["push", &crane.layout(&image, &[]), &format!("{host}/{name}:1")]));
    }
    succeed(&mut crane.command(&["tag", &format!("{host}/b/app:1"), "10"]));
    succeed(&mut crane.command(&["tag", &format!("{host}/b/app:1"), "latest"]));
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(succeed(&mut crane.command(&["ls", &format!("{host}/b/app")]))), ["1", "10", "latest"]);
    assert_eq!(lines(succeed(&mut crane.command(&["catalog", &host]))), ["a", "b/app"]);

    let by_digest = format!("{host}/b/app@{}", image.digest());
    succeed(&mut crane.command(&["delete", &by_digest]));
    assert_eq!(succeed(&mut crane.command(&["ls", &format!("{host}/b/app")])).trim(), "");
    assert_says(&fail(&mut crane.command(&["manifest", &by_digest])), &["MANIFEST_UNKNOWN"]);
    // The other repository still holds it all.
    assert_eq!(server.gc("0s")["blobs_deleted"], 0);
    server.repository("a").assert_holds("1", &image);
    succeed(&mut crane.command(&["delete", &format!("{host}/a@{}", image.digest())]));
    assert_eq!(server.gc("0s")["blobs_deleted"], image.blobs.len());
}

#[test]
fn images_are_made_of_layers_and_indexes_of_images() {
    let Some(crane) = Crane::new("crane appends") else { return };
    let Some([busybox]) = clients::tools("crane appends", ["busybox"]) else { return };
    let server = ServerBuilder::new().anonymous("push").start();
    let host = server.host();
    let program = fs::read(busybox).expect("busybox can be read");
    fs::write(crane.folder.path().join("layer.tar"), images::layer("bin/busybox", &program)).expect("a file");
    let members = [architecture(), other_architecture()].map(|architecture| {
        let name = format!("{host}/app:{architecture}");
        succeed(&mut crane.command(&["append", "-f", "layer.tar", "-t", &name]));
        let mutate = ["mutate", &name, "--set-platform", &format!("linux/{architecture}"), "-t", &name];
        succeed(&mut crane.command(&mutate));
        name
    });
    let index = format!("{host}/app:index");
    succeed(&mut crane.command(&["index", "append", "-m", &members[0], "-m", &members[1], "-t", &index]));
    for (member, architecture) in members.iter().zip([architecture(), other_architecture()]) {
        let platform = format!("--platform=linux/{architecture}");
        let chosen = succeed(&mut crane.command(&["digest", &platform, &index]));
        assert_eq!(chosen, succeed(&mut crane.command(&["digest", member])));
    }
    // The layer, unpacked again.
    let unpacked = run(&mut crane.command(&["export", &members[0], "-"])).stdout;
    assert!(unpacked.windows(program.len()).any(|window| window == program), "busybox is not in the image");
    succeed(&mut crane.command(&["validate", "--remote", &index]));
}

#[test]
fn an_index_is_copied_between_registries_and_within_one() {
    let Some(crane) = Crane::new("crane copies") else { return };
    let (first, second) = (Server::start(), Server::start());
    crane.login(&first, ADMIN);
    crane.login(&second, ADMIN);
    let (own, other) = (small_image(3), small_image(4));
    let index = images::index(&[(architecture(), &own), (other_architecture(), &other)]);
    first.repository("team/app").push("own", &own);
    first.repository("team/app").push("other", &other);
    first.repository("team/app").push("1", &index);

    let source = format!("{}/team/app:1", first.host());
    succeed(&mut crane.command(&["copy", &source, &format!("{}/elsewhere:2", second.host())]));
    for (reference, image) in [("2", &index), (&own.digest(), &own), (&other.digest(), &other)] {
        second.repository("elsewhere").assert_holds(reference, image);
    }

    // Within the registry nothing is sent: configs and layers are mounted.
    let requests = first.requests_from_now();
    succeed(&mut crane.command(&["copy", &source, &format!("{}/second:1", first.host())]));
    requests.assert_mounted("second", 1);
    first.repository("second").assert_holds(&own.digest(), &own);
}

#[test]
fn credentials_decide() {
    let Some(crane) = Crane::new("crane's credentials") else { return };
    let layout = crane.layout(&small_image(5), &[]);
    let push = |server: &Server, repository: &str| {
        crane.command(&["push", &layout, &format!("{}/{repository}:1", server.host())])
    };

    let closed = ServerBuilder::new().config("registries:\n  staging:\n    format: oci").start();
    assert_says(&fail(&mut push(&closed, "team/x")), &[LOG_IN]);
    crane.login(&closed, "wrong");
    assert_says(&fail(&mut push(&closed, "team/x")), &["the credentials are not valid"]);
    let token = clients::token(&closed, "team", &["oci:team/*:pull,push", "staging:*:pull,push"]);
    crane.login(&closed, &token);
    succeed(&mut push(&closed, "team/x"));
    succeed(&mut push(&closed, "staging/other/x"));
    assert_says(&fail(&mut push(&closed, "other/x")), &["401 Unauthorized"]);
    crane.login(&closed, ADMIN);
    succeed(&mut push(&closed, "other/x"));

    let open = ServerBuilder::new().anonymous("push").start();
    succeed(&mut push(&open, "team/x"));
    succeed(&mut crane.command(&["pull", &format!("{}/team/x:1", open.host()), "back.tar"]));
}
