//! skopeo, as Debian has it, and the current code of its library (`image-copy`), which is years ahead.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use registry_tests::clients::images::{self, architecture, other_architecture};
use registry_tests::clients::{self, Containers, LOG_IN, assert_says};
use registry_tests::oci::{Image, OCI_MANIFEST};
use registry_tests::process::peak_memory;
use registry_tests::server::ADMIN;
use registry_tests::tools::{fail, run, succeed};
use registry_tests::{Random, Server, ServerBuilder};
use serde_json::json;
use sha2::{Digest, Sha256};

/// A program that copies images.
struct Copier {
    program: PathBuf,
    containers: Containers,
    /// Whether this is skopeo, and not our own program over the current library.
    skopeo: bool,
}

/// Both programs, or those of them that are there.
fn copiers(test: &str) -> Vec<Copier> {
    ["skopeo", "image-copy"]
        .into_iter()
        .filter_map(|name| {
            let [program] = clients::tools(test, [name])?;
            Some(Copier { program, containers: Containers::new(), skopeo: name == "skopeo" })
        })
        .collect()
}

impl Copier {
    fn path(&self) -> &Path {
        self.containers.path()
    }

    /// Copies with every image of an index and with digests kept; `token` for every registry.
    fn copy(&self, token: Option<&str>, from: &str, to: &str) -> Command {
        let mut command = self.containers.command(&self.program);
        let credentials = token.map(|token| format!("{}:{token}", clients::USER));
        if self.skopeo {
            command.args(["copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false"]);
            for option in ["--src-creds", "--dest-creds"] {
                if let Some(credentials) = &credentials {
                    command.args([option, credentials]);
                }
            }
        } else {
            command.args(credentials.iter().flat_map(|credentials| ["-creds", credentials]));
            command.arg("copy");
        }
        command.args([from, to]);
        command
    }

    /// Another subcommand with the administrator's token.
    fn command(&self, subcommand: &str, reference: &str) -> Command {
        let mut command = self.containers.command(&self.program);
        let credentials = format!("{}:{ADMIN}", clients::USER);
        match (self.skopeo, subcommand) {
            (true, "inspect") => command.args(["inspect", "--raw"]),
            (true, "tags") => command.arg("list-tags"),
            (true, _) => command.arg(subcommand),
            (false, _) => command.args(["-creds", &credentials, subcommand]),
        };
        if self.skopeo {
            command.args(["--tls-verify=false", "--creds", &credentials]);
        }
        command.arg(reference);
        command
    }

    fn inspect(&self, reference: &str) -> Vec<u8> {
        let output = run(&mut self.command("inspect", reference));
        assert!(output.status.success(), "{reference}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

/// What is said to one whose token does not reach so far. (The question was a HEAD: its answer has no text of ours.)
const DENIED: &[&str] = &["requested access to the resource is denied"];

fn small_image(seed: u64) -> Image {
    Image::new(vec![Random::new(seed).bytes(300_000)])
}

fn write_layout(folder: &Path, image: &Image) -> String {
    images::write_layout(folder, image, &[]);
    format!("oci:{}:1", folder.display())
}

#[test]
fn an_image_comes_back_as_it_went() {
    for copier in copiers("skopeo copies an image") {
        let server = Server::start();
        let image = small_image(1);
        let source = write_layout(&copier.path().join("source"), &image);
        let target = format!("docker://{}/team/app:1", server.host());
        succeed(&mut copier.copy(Some(ADMIN), &source, &target));
        server.repository("team/app").assert_holds("1", &image);

        assert_eq!(copier.inspect(&target), image.manifest);
        assert!(succeed(&mut copier.command("tags", &format!("docker://{}/team/app", server.host()))).contains('1'));
        let back = copier.path().join("back");
        succeed(&mut copier.copy(Some(ADMIN), &target, &format!("oci:{}:1", back.display())));
        images::assert_layout_holds(&back, &[&image]);
    }
}

#[test]
fn an_index_with_several_architectures_goes_from_one_registry_to_another() {
    for copier in copiers("skopeo copies an index between registries") {
        let (first, second) = (Server::start(), Server::start());
        let (own, other) = (small_image(2), small_image(3));
        let index = images::index(&[(architecture(), &own), (other_architecture(), &other)]);
        let layout = copier.path().join("source");
        images::write_layout(&layout, &index, &[&own, &other]);

        let at_first = format!("docker://{}/team/app:1", first.host());
        let at_second = format!("docker://{}/other/name:2", second.host());
        succeed(&mut copier.copy(Some(ADMIN), &format!("oci:{}:1", layout.display()), &at_first));
        succeed(&mut copier.copy(Some(ADMIN), &at_first, &at_second));
        let repository = second.repository("other/name");
        repository.assert_holds("2", &index);
        repository.assert_holds(&own.digest(), &own);
        repository.assert_holds(&other.digest(), &other);
    }
}

#[test]
fn docker_manifests_keep_their_type() {
    for copier in copiers("skopeo copies Docker manifests").into_iter().filter(|copier| copier.skopeo) {
        let server = Server::start();
        let source = write_layout(&copier.path().join("source"), &small_image(4));
        let target = format!("docker://{}/team/app:1", server.host());
        let mut command = copier.containers.command(&copier.program);
        command.args(["copy", "--format", "v2s2", "--dest-tls-verify=false", "--dest-creds", &format!("u:{ADMIN}")]);
        succeed(command.args([&source, &target]));
        let stored = server.repository("team/app").get_manifest("1").expect(200);
        assert_eq!(stored.header("content-type"), Some("application/vnd.docker.distribution.manifest.v2+json"));
        assert_eq!(copier.inspect(&target), stored.body);
        succeed(&mut copier.copy(Some(ADMIN), &target, &format!("dir:{}", copier.path().join("back").display())));
        let back = fs::read(copier.path().join("back/manifest.json")).expect("skopeo wrote the manifest");
        assert_eq!(back, stored.body);
    }
}

#[test]
fn a_login_is_kept_and_a_wrong_one_is_refused() {
    for copier in copiers("skopeo logs in").into_iter().filter(|copier| copier.skopeo) {
        let server = Server::start();
        let source = write_layout(&copier.path().join("source"), &small_image(5));
        let target = format!("docker://{}/team/app:1", server.host());
        let login = |token: &str| {
            let mut command = copier.containers.command(&copier.program);
            command.args(["login", "--tls-verify=false", "-u", "any", "-p", token, &server.host()]);
            command
        };
        assert_says(&fail(&mut login("not-the-token")), &["invalid username/password"]);
        assert_says(&fail(&mut copier.copy(None, &source, &target)), &[LOG_IN]);
        assert_says(&succeed(&mut login(ADMIN)), &["Login Succeeded"]);
        succeed(&mut copier.copy(None, &source, &target));
        // The current library finds the same credentials.
        for other in copiers("skopeo logs in").into_iter().filter(|copier| !copier.skopeo) {
            let mut command = copier.containers.command(&other.program);
            let back = copier.path().join("back").display().to_string();
            succeed(command.args(["copy", &target, &format!("dir:{back}")]));
        }
    }
}

#[test]
fn without_credentials_it_is_as_the_server_is_set() {
    for copier in copiers("skopeo pushes without credentials") {
        let image = small_image(6);
        let source = write_layout(&copier.path().join("source"), &image);
        let back = |name: &str| format!("dir:{}", copier.path().join(name).display());

        let closed = Server::start();
        let target = format!("docker://{}/team/app:1", closed.host());
        assert_says(&fail(&mut copier.copy(None, &source, &target)), &[LOG_IN]);
        assert_says(&fail(&mut copier.copy(Some("wrong"), &source, &target)), &["the credentials are not valid"]);
        assert_eq!(closed.repository("team/app").get_manifest("1").status, 404);

        let readable = ServerBuilder::new().anonymous("pull").start();
        let target = format!("docker://{}/team/app:1", readable.host());
        assert_says(&fail(&mut copier.copy(None, &source, &target)), &[LOG_IN]);
        succeed(&mut copier.copy(Some(ADMIN), &source, &target));
        succeed(&mut copier.copy(None, &target, &back("readable")));

        let open = ServerBuilder::new().anonymous("push").start();
        let target = format!("docker://{}/team/app:1", open.host());
        succeed(&mut copier.copy(None, &source, &target));
        open.repository("team/app").assert_holds("1", &image);
        succeed(&mut copier.copy(None, &target, &back("open")));
    }
}

#[test]
fn a_scoped_token_reaches_its_namespace_alone() {
    for copier in copiers("skopeo uses a scoped token") {
        let server = Server::start();
        let token = clients::token(&server, "team", &["oci:team/*:pull,push"]);
        let source = write_layout(&copier.path().join("source"), &small_image(7));
        let own = format!("docker://{}/team/x:1", server.host());
        let other = format!("docker://{}/other/x:1", server.host());
        succeed(&mut copier.copy(Some(&token), &source, &own));
        assert_says(&fail(&mut copier.copy(Some(&token), &source, &other)), DENIED);
        // It may push and not delete.
        let deleting = server.with_token(&token, "DELETE", "/v2/team/x/manifests/1", &[], b"");
        assert_eq!(deleting.status, 401);
    }
}

#[test]
fn a_copy_within_the_registry_mounts() {
    // The current library mounts only what its cache knows from before, and as built here it has no cache on disk.
    for copier in copiers("skopeo mounts").into_iter().filter(|copier| copier.skopeo) {
        let server = Server::start();
        let image = small_image(8);
        let source = write_layout(&copier.path().join("source"), &image);
        let first = format!("docker://{}/team/first:1", server.host());
        succeed(&mut copier.copy(Some(ADMIN), &source, &first));
        let requests = server.requests_from_now();
        succeed(&mut copier.copy(Some(ADMIN), &first, &format!("docker://{}/second:1", server.host())));
        requests.assert_mounted("second", image.blobs[0].len());
        server.repository("second").assert_holds("1", &image);
    }
}

#[test]
fn a_named_registry_is_a_first_segment() {
    for copier in copiers("skopeo uses a named registry") {
        let server = ServerBuilder::new().config("registries:\n  staging:\n    format: oci").start();
        let image = small_image(9);
        let source = write_layout(&copier.path().join("source"), &image);
        let target = format!("docker://{}/staging/team/app:1", server.host());
        succeed(&mut copier.copy(Some(ADMIN), &source, &target));
        assert_eq!(copier.inspect(&target), image.manifest);
        server.repository("staging/team/app").assert_holds("1", &image);
        // A token for that registry does not reach the default one.
        let token = clients::token(&server, "staging", &["staging:*:pull,push"]);
        succeed(&mut copier.copy(Some(&token), &source, &format!("docker://{}/staging/app:2", server.host())));
        fail(&mut copier.copy(Some(&token), &source, &format!("docker://{}/team/app:2", server.host())));
    }
}

#[test]
fn what_was_deleted_by_digest_is_freed() {
    for copier in copiers("skopeo deletes") {
        let server = Server::start();
        let image = small_image(10);
        let source = write_layout(&copier.path().join("source"), &image);
        let tagged = format!("docker://{}/team/app:1", server.host());
        succeed(&mut copier.copy(Some(ADMIN), &source, &tagged));
        let by_digest = format!("docker://{}/team/app@{}", server.host(), image.digest());
        succeed(&mut copier.command("delete", &by_digest));
        assert_eq!(server.repository("team/app").get_manifest("1").status, 404);
        assert_says(&fail(&mut copier.command("inspect", &tagged)), &["has no manifest"]);

        let report = server.gc("0s");
        assert_eq!(report["blobs_deleted"], image.blobs.len());
        assert_eq!(report["bytes_freed"], image.blobs.iter().map(Vec::len).sum::<usize>());
        let (clean, findings) = server.check(&[]);
        assert!(clean, "{findings}");
    }
}

/// The size of the big layer.
const BIG: u64 = 2 << 30;
/// It is empty but for a number at the start of each of these, so that it takes little room and no part is like another.
const STRIDE: u64 = 256 << 10;

#[test]
fn a_layer_of_2_gib_goes_there_and_back() {
    let Some([skopeo, crane]) = clients::tools("skopeo pushes 2 GiB", ["skopeo", "crane"]) else { return };
    let copier = Copier { program: skopeo, containers: Containers::new(), skopeo: true };
    let server = ServerBuilder::new().anonymous("pull").start();
    let started = Instant::now();
    let layout = copier.path().join("big");
    let digest = write_big_layout(&layout);
    let target = format!("docker://{}/team/big:1", server.host());
    succeed(&mut copier.copy(Some(ADMIN), &format!("oci:{}:1", layout.display()), &target));
    fs::remove_dir_all(&layout).expect("the folder can be removed");

    // Not into another file: two gigabytes more would be written to the disk.
    let mut pull = Command::new(crane);
    pull.args(["blob", "--insecure", &format!("{}/team/big@{digest}", server.host())]).stdout(Stdio::piped());
    let mut pull = pull.spawn().expect("crane can be started");
    assert_eq!(digest_of(pull.stdout.as_mut().expect("it is piped")), digest);
    assert!(pull.wait().expect("crane is our child").success());
    assert!(started.elapsed() < Duration::from_secs(240), "it took {:?}", started.elapsed());

    let peak = peak_memory(server.pid()).expect("it runs");
    assert!(peak < 150 << 20, "the server used {} MiB", peak >> 20);
}

/// An OCI image layout with one layer of [`BIG`] bytes: the layer's digest.
fn write_big_layout(folder: &Path) -> String {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder can be made");
    let path = blobs.join("layer");
    let mut layer = fs::File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
    layer.set_len(BIG).expect("a file can be made longer");
    let mut random = Random::new(2_147_483_648);
    for offset in (0..BIG).step_by(usize::try_from(STRIDE).expect("it fits")) {
        layer.seek(SeekFrom::Start(offset)).expect("a file can be sought in");
        layer.write_all(&random.next().to_le_bytes()).expect("a file can be written");
    }
    layer.seek(SeekFrom::Start(0)).expect("a file can be sought in");
    let digest = digest_of(&mut layer);
    fs::rename(&path, blobs.join(&digest["sha256:".len()..])).expect("a file can be renamed");

    let config = json!({
        "architecture": architecture(), "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": images::descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": BIG }],
    });
    let image = Image { manifest: manifest.to_string().into_bytes(), media_type: OCI_MANIFEST, blobs: vec![config] };
    images::write_layout(folder, &image, &[]);
    digest
}

fn digest_of(source: &mut impl Read) -> String {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = source.read(&mut buffer).expect("it can be read");
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
    }
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hash}")
}
