//! The clients that people have, eight at once, through the balancer in front of three replicas that are all the same
//! to it: every push and every pull succeeds, also while the replicas are restarted or upgraded one after the other.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use registry_tests::clients::images::{self, architecture};
use registry_tests::clients::{self, Containers, Docker};
use registry_tests::oci::{OCI_MANIFEST, sha256, with_digest};
use registry_tests::server::{ADMIN, request, server_binary};
use registry_tests::tools::run;
use registry_tests::{Answer, Cluster, Image, Random, Server, ServerBuilder, Stores, eventually};
use tempfile::TempDir;

use super::balancer::{Balancer, Kind};
use super::image::image_root;

const AT_ONCE: usize = 8;
/// More images than any run needs.
const MOST: usize = 3_000;
/// How long the one layer of an image is; of each tenth image it is so long that it goes to the bucket in parts, and that a
/// replica may be stopped in the middle of it.
const SHORT: usize = 200_000;
const LONG: usize = 20 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Docker,
    Podman,
    Buildah,
    Skopeo,
    Crane,
    /// One that sends each blob in one PUT, as containerd does.
    SinglePut,
}

/// How many images each pushes and pulls in a hundred: those that unpack what they pull are slow.
const SHARES: [(Client, usize); 6] = [
    (Client::Docker, 10),
    (Client::Podman, 10),
    (Client::Buildah, 10),
    (Client::Skopeo, 25),
    (Client::Crane, 25),
    (Client::SinglePut, 20),
];

type Outcome = Result<(), String>;

/// What all of them share: the programs, a docker daemon, credentials, and where the registry is.
struct Load {
    address: SocketAddr,
    docker: Docker,
    programs: [PathBuf; 4],
    folder: TempDir,
    seed: u64,
    /// How many of a hundred images are pushed and pulled.
    percent: usize,
    /// How often the plain client tries a request.
    attempts: usize,
}

fn length(number: usize) -> usize {
    if number % 10 == 9 { LONG } else { SHORT }
}

/// Runs a command: what it printed, or what it complained of.
fn told(command: &mut Command) -> Result<String, String> {
    let output = run(command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text.trim().to_owned());
    }
    Err(format!("{command:?}: {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn same<T: PartialEq + Display>(what: &str, got: T, expected: T) -> Outcome {
    if got == expected { Ok(()) } else { Err(format!("{what}: {got} instead of {expected}")) }
}

impl Load {
    /// `None` after saying that `test` is skipped.
    fn new(test: &str, address: SocketAddr, seed: u64) -> Option<Self> {
        let programs = clients::tools(test, ["podman", "buildah", "skopeo", "crane"])?;
        let load = Self {
            address,
            docker: Docker::start(test)?,
            programs,
            folder: TempDir::new().unwrap(),
            seed,
            percent: 100,
            attempts: 1,
        };
        let login = ["login", "-u", clients::USER, "-p", ADMIN, &address.to_string()];
        told(load.docker.command().args(login)).unwrap();
        told(load.crane(&["auth"]).args(login)).unwrap();
        Some(load)
    }

    fn crane(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.programs[3]);
        command.args(arguments).stdin(Stdio::null());
        command.env("DOCKER_CONFIG", self.folder.path()).env("HOME", self.folder.path());
        command
    }

    /// Each client's images, in an order of this seed.
    fn jobs(&self) -> Vec<Client> {
        let count = |share: usize| (share * self.percent).div_ceil(100);
        let mut jobs: Vec<Client> = SHARES.iter().flat_map(|(client, share)| vec![*client; count(*share)]).collect();
        let mut random = Random::new(self.seed);
        for last in (1..jobs.len()).rev() {
            jobs.swap(last, random.below(last as u64 + 1) as usize);
        }
        jobs
    }

    /// Pushes and pulls its images, and more until it is `enough`; what failed. `begun` counts those that were begun.
    fn run(&self, begun: &AtomicUsize, enough: &AtomicBool) -> Vec<String> {
        let jobs = self.jobs();
        let failures = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    let own = Containers::new();
                    loop {
                        let number = begun.fetch_add(1, Ordering::SeqCst);
                        if number >= jobs.len() && enough.load(Ordering::SeqCst) || number >= MOST {
                            break;
                        }
                        let client = jobs[number % jobs.len()];
                        if let Err(failure) = self.push_and_pull(client, number, &own) {
                            failures.lock().unwrap().push(format!("image {number}, {client:?}: {failure}"));
                        }
                    }
                });
            }
        });
        failures.into_inner().unwrap()
    }

    fn push_and_pull(&self, client: Client, number: usize, own: &Containers) -> Outcome {
        let name = format!("{}/load/app{}:v{number}", self.address, number % 7);
        let content = Random::new(self.seed ^ (number as u64 + 1)).bytes(length(number));
        let image = images::image_of(images::layer("data", &content), architecture(), &number.to_string());
        let layout = own.path().join(format!("image-{number}"));
        images::write_layout(&layout, &image, &[]);
        match client {
            Client::Docker => self.with_docker(number, &name, &content),
            Client::Podman | Client::Buildah => {
                let program = &self.programs[usize::from(client == Client::Buildah)];
                let credentials = format!("--creds={}:{ADMIN}", clients::USER);
                let command = |arguments: &[&str]| {
                    let mut command = own.command(program);
                    command.args(arguments);
                    command
                };
                // Relative: they make a name of it, which has no capitals.
                let local = format!("oci:image-{number}:1");
                let id = told(&mut command(&["pull", "-q", &local]))?;
                let remote = format!("docker://{name}");
                told(&mut command(&["push", "-q", "--tls-verify=false", &credentials, &id, &remote]))?;
                told(&mut command(&["rmi", "--all", "--force"]))?;
                let pulled = told(&mut command(&["pull", "-q", "--tls-verify=false", &credentials, &remote]))?;
                same("the image's identity", pulled, id)?;
                told(&mut command(&["rmi", "--all", "--force"])).map(drop)
            }
            Client::Skopeo => {
                let credentials = format!("{}:{ADMIN}", clients::USER);
                let copy = |side: &str, from: &str, to: &str| {
                    let mut command = own.command(&self.programs[2]);
                    command.args(["copy", "-q", "--preserve-digests", &format!("--{side}-tls-verify=false")]);
                    command.args([&format!("--{side}-creds"), &credentials, from, to]);
                    told(&mut command)
                };
                let back = own.path().join(format!("back-{number}"));
                copy("dest", &format!("oci:{}:1", layout.display()), &format!("docker://{name}"))?;
                copy("src", &format!("docker://{name}"), &format!("oci:{}:1", back.display()))?;
                images::assert_layout_holds(&back, &[&image]);
                Ok(())
            }
            Client::Crane => {
                let back = own.path().join(format!("back-{number}")).display().to_string();
                let pushed = told(&mut self.crane(&["push", "--insecure", &layout.display().to_string(), &name]))?;
                same("what was pushed", pushed.rsplit('@').next().unwrap_or_default(), &image.digest())?;
                told(&mut self.crane(&["pull", "--insecure", "--format", "oci", &name, &back]))?;
                images::assert_layout_holds(back.as_ref(), &[&image]);
                Ok(())
            }
            Client::SinglePut => self.with_single_puts(number, &image),
        }
    }

    fn with_docker(&self, number: usize, name: &str, content: &[u8]) -> Outcome {
        let docker = |arguments: &[&str]| told(self.docker.command().args(arguments));
        let context = self.docker.path().join(format!("context-{number}"));
        std::fs::create_dir(&context).unwrap();
        std::fs::write(context.join("data"), content).unwrap();
        std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY data /data\n").unwrap();
        let id = docker(&["build", "-q", "-t", name, &context.display().to_string()])?;
        docker(&["push", "-q", name])?;
        docker(&["rmi", "-f", name])?;
        docker(&["pull", "-q", name])?;
        same("the image's identity", docker(&["inspect", "--format", "{{.Id}}", name])?, id)?;
        docker(&["rmi", "-f", name]).map(drop)
    }

    /// A request that is sent again, where that is allowed, when the connection failed or the answer says that it may be.
    fn ask(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Result<Answer, String> {
        let mut last = String::new();
        for _ in 0..self.attempts {
            match request(self.address, Some(ADMIN), method, target, headers, body) {
                Ok(answer) if ![502, 503, 504].contains(&answer.status) => return Ok(answer),
                Ok(answer) => last = format!("{method} {target}: {answer:?}"),
                Err(error) => last = format!("{method} {target}: {error}"),
            }
            std::thread::park_timeout(Duration::from_millis(300));
        }
        Err(last)
    }

    fn with_single_puts(&self, number: usize, image: &Image) -> Outcome {
        let path = format!("/v2/load/app{}", number % 7);
        let status = |answer: Answer, expected: u16| {
            if answer.status == expected { Ok(answer) } else { Err(format!("{expected} was expected: {answer:?}")) }
        };
        for blob in &image.blobs {
            let begun = status(self.ask("POST", &format!("{path}/blobs/uploads/"), &[], b"")?, 202)?;
            let target = with_digest(begun.header("location").unwrap(), &sha256(blob));
            status(self.ask("PUT", &target, &["Content-Type: application/octet-stream"], blob)?, 201)?;
        }
        let manifest = format!("{path}/manifests/v{number}");
        let headers = [format!("Content-Type: {OCI_MANIFEST}")];
        status(self.ask("PUT", &manifest, &[headers[0].as_str()], &image.manifest)?, 201)?;
        let got = status(self.ask("GET", &manifest, &[&format!("Accept: {OCI_MANIFEST}")], b"")?, 200)?;
        same("the manifest", sha256(&got.body), image.digest())?;
        for blob in &image.blobs {
            let got = status(self.ask("GET", &format!("{path}/blobs/{}", sha256(blob)), &[], b"")?, 200)?;
            same("a blob", sha256(&got.body), sha256(blob))?;
        }
        Ok(())
    }
}

/// Three replicas, HAProxy before them with the configuration of deploy/, and the clients; `None` after saying that
/// `test` is skipped.
fn start(test: &str) -> Option<(Cluster, Balancer, Load)> {
    start_behind(Kind::Haproxy, None, test)
}

/// The same with a balancer of this kind, and maybe another build of the server.
fn start_behind(kind: Kind, program: Option<&Path>, test: &str) -> Option<(Cluster, Balancer, Load)> {
    let environment = [("FOUNDRY_SERVER__SHUTDOWN_DELAY", "5s")];
    let cluster = Cluster::start_program(program, Stores::shared(test)?, 3, &environment);
    let addresses: [SocketAddr; 3] = cluster.addresses().try_into().expect("three were asked for");
    let balancer = Balancer::start(kind, test, &addresses)?;
    let seed = Random::seeded(test, 0x6c6f_6164).next();
    let load = Load::new(test, balancer.address(), seed)?;
    Some((cluster, balancer, load))
}

/// Lets the clients push and pull their images: none fails, and no replica was spared.
#[track_caller]
fn assert_all_succeed(cluster: &Cluster, load: &Load) {
    let seen: Vec<_> = cluster.replicas.iter().map(Server::requests_from_now).collect();
    let failures = load.run(&AtomicUsize::new(0), &AtomicBool::new(true));
    assert!(failures.is_empty(), "{}: {failures:#?}", failures.len());
    for seen in &seen {
        assert!(seen.count(|_| true) > 2 * load.percent, "each replica had its share");
        assert_eq!(seen.count(|request| request.status >= 500), 0);
    }
    let (clean, report) = cluster.replicas[0].check(&["--deep"]);
    assert!(clean, "{report}");
}

#[test]
fn every_client_pushes_and_pulls_through_the_balancer() {
    let Some((cluster, _balancer, load)) = start("clients through a balancer") else { return };
    assert_all_succeed(&cluster, &load);
}

#[test]
fn every_client_pushes_and_pulls_through_nginx_too() {
    let Some((cluster, _balancer, mut load)) = start_behind(Kind::Nginx, None, "clients through nginx") else { return };
    load.percent = 25;
    assert_all_succeed(&cluster, &load);
}

/// Lets the clients end, also when a test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What is otherwise with a replica that starts again.
type Change<'a> = &'a dyn Fn(ServerBuilder) -> ServerBuilder;

/// Stops one replica after the other and starts it again so changed, while the clients are at work: what failed.
fn roll(cluster: &mut Cluster, load: &Load, changes: &[Change<'_>]) -> Vec<String> {
    let (begun, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| load.run(&begun, &enough));
        let ending = Ending(&enough);
        for change in changes {
            let before = begun.load(Ordering::SeqCst);
            let mut old = cluster.replicas.remove(0);
            let address = old.address();
            old.signal(rustix::process::Signal::TERM);
            assert!(old.wait_for_end(Duration::from_secs(60)), "it stops when it has answered what it had begun");
            let port = address.port().to_string();
            let new = change(old.again().environment("FOUNDRY_SERVER__PORT", &port)).start();
            assert_eq!(new.address(), address);
            eventually("it is ready again", || (new.get("/readyz").status == 200).then_some(()));
            // By then the balancer has found out, too.
            let seen = new.requests_from_now();
            eventually("clients go on, and meet the new one", || {
                let met = seen.count(|request| request.path.starts_with("/v2/load/")) > 0;
                (met && begun.load(Ordering::SeqCst) >= before + 8).then_some(())
            });
            cluster.replicas.push(new);
        }
        drop(ending);
        clients.join().expect("the clients do not panic")
    })
}

#[test]
fn nobody_notices_that_the_replicas_are_restarted() {
    let Some((mut cluster, _balancer, mut load)) = start("restarts under load") else { return };
    load.attempts = 4;
    let same: Change<'_> = &|replica| replica;
    let failures = roll(&mut cluster, &load, &[same; 3]);
    assert!(failures.is_empty(), "{}: {failures:#?}", failures.len());
    let (clean, report) = cluster.replicas[0].check(&["--deep"]);
    assert!(clean, "{report}");
}

/// Whether a build of the server has the migrations of the next release.
fn has_the_next_schema(program: &Path) -> bool {
    let mut search = Command::new("grep");
    search.args(["--quiet", "--fixed-strings", "ADD COLUMN next_release"]).arg(program);
    let code = run(&mut search).status.code();
    assert!(matches!(code, Some(0 | 1)), "{search:?}: {code:?}");
    code == Some(0)
}

/// What the replicas run, by their processes.
fn programs(cluster: &Cluster) -> Vec<PathBuf> {
    let program = |replica: &Server| std::fs::read_link(format!("/proc/{}/exe", replica.pid())).unwrap();
    cluster.replicas.iter().map(program).collect()
}

/// From the build that the image holds, as it is released, to the one under test, which has more migrations: old and new
/// ones serve side by side, and an old one that starts again after all of them does.
#[test]
fn nobody_notices_that_the_replicas_are_upgraded() {
    let test = "an upgrade under load";
    let Some(root) = image_root(test) else { return };
    let released = root.join("root/usr/local/bin/registry-server").canonicalize().expect("the image has a server");
    let next = server_binary().canonicalize().expect("it is built");
    assert_eq!((has_the_next_schema(&released), has_the_next_schema(&next)), (false, true));
    let Some((mut cluster, _balancer, mut load)) = start_behind(Kind::Haproxy, Some(&released), test) else { return };
    load.attempts = 4;
    let schema = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'next_release'";
    assert_eq!(cluster.database().run(schema), "0");
    assert_eq!(programs(&cluster), [&*released; 3]);
    let old: Change<'_> = &|replica| replica;
    let new: Change<'_> = &|replica| replica.program(&next).environment("FOUNDRY_FAULT", "next-release");
    let failures = roll(&mut cluster, &load, &[new, new, old, new]);
    assert_eq!(programs(&cluster), [&*next, &released, &next]);
    assert!(failures.is_empty(), "{}: {failures:#?}", failures.len());
    assert_eq!(cluster.database().run(schema), "2");
    assert_eq!(cluster.database().run("SELECT DISTINCT next_release FROM tags"), "7");
    let (clean, report) = cluster.replicas[0].check(&["--deep"]);
    assert!(clean, "{report}");
}
