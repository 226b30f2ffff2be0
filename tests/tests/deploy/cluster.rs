//! The cluster of deploy/compose.yaml, started by compose itself. Its images cannot be pulled where these tests run: they
//! are made of Debian's programs, and SeaweedFS stands in MinIO's place.

use std::net::SocketAddr;
use std::path::PathBuf;

use registry_tests::clients::images::{self, architecture};
use registry_tests::clients::{self, Docker, server_images};
use registry_tests::oci::{sha256, with_digest};
use registry_tests::server::request;
use registry_tests::tools::{run, succeed};
use registry_tests::{Answer, Random, eventually};

use super::compose::{self, FILE, SEAWEEDFS, interpolations};
use super::image::build_image;
use super::read;

const MIB: usize = 1024 * 1024;

/// The daemon, and compose, which uses it.
struct Composed {
    docker: Docker,
    compose: PathBuf,
}

impl Composed {
    /// A daemon that has the images that the files name; `None` after saying that `test` is skipped.
    fn new(test: &str) -> Option<Self> {
        let [compose] = clients::tools(test, ["docker-compose"])?;
        let docker = Docker::with_networks(test)?;
        build_image(&docker, test)?;
        let (images, override_) = (interpolations(&read(FILE)), interpolations(&read(SEAWEEDFS)));
        server_images::haproxy(&docker, &images["HAPROXY_IMAGE"], test)?;
        server_images::postgres(&docker, &images["POSTGRES_IMAGE"], test)?;
        server_images::seaweedfs(&docker, &override_["SEAWEEDFS_IMAGE"], test)?;
        Some(Self { docker, compose })
    }

    /// What compose prints, told nothing of the environment but where the daemon is.
    #[track_caller]
    fn compose(&self, arguments: &[&str]) -> String {
        let mut command = compose::command(&self.compose, self.docker.path(), &[FILE, SEAWEEDFS]);
        command.args(arguments).env("DOCKER_HOST", self.docker.address());
        command
            .env("HOME", self.docker.path())
            .env("COMPOSE_PROJECT_NAME", "foundry")
            .env("COMPOSE_HTTP_TIMEOUT", "300");
        succeed(&mut command)
    }

    #[track_caller]
    fn docker(&self, arguments: &[&str]) -> String {
        succeed(self.docker.command().args(arguments))
    }

    /// The container of a service.
    #[track_caller]
    fn container(&self, service: &str) -> String {
        self.compose(&["ps", "--quiet", service]).trim().to_owned()
    }

    /// The token of the first start, which the replicas share.
    #[track_caller]
    fn token(&self) -> String {
        let file = self.docker.path().join("admin-token");
        let from = format!("{}:/data/admin-token", self.container("foundry-1"));
        self.docker(&["cp", &from, &file.display().to_string()]);
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }
}

/// The balancer's port, as whoever runs compose reaches it.
struct Client<'a> {
    docker: &'a Docker,
    crane: PathBuf,
    address: SocketAddr,
    token: String,
}

impl Client<'_> {
    #[track_caller]
    fn ask(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        let headers = ["Content-Type: application/octet-stream"];
        let ask = || request(self.address, Some(&self.token), method, target, &headers, body);
        self.docker.ask_inside(ask).unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// Uploads a blob in pieces, each to the replica whose turn it is, and reads it.
    #[track_caller]
    fn upload_in_pieces(&self, bytes: &[u8]) {
        let location = |answer: Answer| answer.expect(202).header("location").unwrap().to_owned();
        let mut upload = location(self.ask("POST", "/v2/team/app/blobs/uploads/", b""));
        for piece in bytes.chunks(7 * MIB) {
            upload = location(self.ask("PATCH", &upload, piece));
        }
        self.ask("PUT", &with_digest(&upload, &sha256(bytes)), b"").expect(201);
        let stored = self.ask("GET", &format!("/v2/team/app/blobs/{}", sha256(bytes)), b"").expect(200);
        assert!(stored.body == bytes, "it came back as it was sent");
    }

    /// Pushes an image with crane, and pulls it.
    #[track_caller]
    fn push_and_pull(&self, tag: &str, seed: u64) {
        let layer = images::layer("data", &Random::new(seed).bytes(3 * MIB));
        let image = images::image_of(layer, architecture(), tag);
        let [pushed, pulled] = ["pushed", "pulled"].map(|name| self.docker.path().join(format!("{name}-{tag}")));
        images::write_layout(&pushed, &image, &[]);
        let crane = |arguments: &[&str]| {
            let mut command = self.docker.inside(&self.crane);
            command.args(arguments).env("DOCKER_CONFIG", self.docker.path()).env("HOME", self.docker.path());
            succeed(&mut command)
        };
        let (server, name) = (self.address.to_string(), format!("{}/team/app:{tag}", self.address));
        crane(&["auth", "login", "-u", clients::USER, "-p", &self.token, &server]);
        crane(&["push", "--insecure", &pushed.display().to_string(), &name]);
        crane(&["pull", "--insecure", "--format", "oci", &name, &pulled.display().to_string()]);
        images::assert_layout_holds(&pulled, &[&image]);
    }
}

#[test]
fn compose_makes_a_cluster_that_serves_pushes_and_pulls() {
    let test = "the cluster of compose.yaml";
    let (Some([crane]), Some(composed)) = (clients::tools(test, ["crane"]), Composed::new(test)) else { return };
    composed.compose(&["up", "--detach", "--no-build"]);
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    let client = Client { docker: &composed.docker, crane, address, token: composed.token() };
    eventually("the balancer sends requests on", || {
        let ready = || request(address, None, "GET", "/readyz", &[], b"");
        let answer = composed.docker.ask_inside(ready).ok()?;
        (answer.status == 200).then_some(())
    });

    client.upload_in_pieces(&Random::new(21).bytes(20 * MIB));
    client.push_and_pull("1", 22);
    for replica in ["foundry-1", "foundry-2", "foundry-3"] {
        let container = composed.container(replica);
        eventually("each replica had a part in it", || {
            let log = run(composed.docker.command().args(["logs", &container]));
            String::from_utf8_lossy(&log.stderr).contains("\"/v2/team/app/blobs/").then_some(())
        });
    }
    // One of them is lost.
    composed.compose(&["kill", "foundry-2"]);
    client.upload_in_pieces(&Random::new(23).bytes(20 * MIB));
    client.push_and_pull("2", 24);

    composed.compose(&["down", "--volumes"]);
    assert_eq!(composed.docker(&["ps", "--all", "--quiet"]), "");
    assert_eq!(composed.docker(&["volume", "ls", "--quiet"]), "");
}
