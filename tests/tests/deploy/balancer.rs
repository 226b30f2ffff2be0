//! The balancers' examples, run by the balancers themselves: bodies stream, nothing pins a client, and a replica that
//! is gone is passed over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use registry_tests::oci::{sha256, with_digest};
use registry_tests::process::free_port;
use registry_tests::server::{ADMIN, request};
use registry_tests::tools::{run, tool};
use registry_tests::{Cluster, Connection, Image, Process, Random, S3, Server, Stores, eventually, postgres};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{read, root};

const MIB: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Haproxy,
    Nginx,
}

const KINDS: [Kind; 2] = [Kind::Haproxy, Kind::Nginx];

/// A running balancer, with the configuration of deploy/ and addresses of this test.
pub(super) struct Balancer {
    address: SocketAddr,
    process: Process,
    folder: TempDir,
}

/// `text` with each of these replaced; each is there.
#[track_caller]
fn replaced(text: &str, replacements: &[(&str, String)]) -> String {
    replacements.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "there is no `{from}`");
        text.replace(from, to)
    })
}

impl Kind {
    /// Its program, or `None` after saying that `test` is skipped.
    fn program(self, test: &str) -> Option<std::path::PathBuf> {
        tool(&format!("{self:?}: {test}"), if self == Kind::Haproxy { "haproxy" } else { "nginx" })
    }

    /// Writes the configuration into `folder`; the command that uses it.
    fn command(
        self,
        program: &Path,
        folder: &Path,
        listen: SocketAddr,
        servers: &[SocketAddr; 3],
        more: &[(&'static str, &str)],
    ) -> Command {
        let mut replacements: Vec<_> = more.iter().map(|(from, to)| (*from, (*to).to_owned())).collect();
        replacements.push(("foundry-1:8080", servers[0].to_string()));
        replacements.push(("foundry-2:8080", servers[1].to_string()));
        replacements.push(("foundry-3:8080", servers[2].to_string()));
        let mut command = Command::new(program);
        command.current_dir(folder);
        match self {
            Kind::Haproxy => {
                replacements.push(("bind :8080", format!("bind {listen}")));
                let text = replaced(&read("deploy/haproxy.cfg"), &replacements);
                std::fs::write(folder.join("haproxy.cfg"), text).unwrap();
                command.args(["-db", "-f", "haproxy.cfg"]);
            }
            Kind::Nginx => {
                replacements.push(("listen 8080", format!("listen {listen}")));
                let text = replaced(&read("deploy/nginx.conf"), &replacements);
                std::fs::write(folder.join("foundry.conf"), text).unwrap();
                let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| {
                    std::fs::create_dir_all(folder.join(kind)).unwrap();
                    format!("{kind}_temp_path {};", folder.join(kind).display())
                });
                // What a distribution's nginx.conf has around the files of conf.d. One process, so that turns are exact.
                let main = format!(
                    "daemon off; master_process off; pid {0}/pid; error_log stderr; events {{}}\n\
                     http {{ access_log off; {1} include {0}/foundry.conf; }}\n",
                    folder.display(),
                    paths.join(" "),
                );
                std::fs::write(folder.join("nginx.conf"), main).unwrap();
                command.args(["-e", "stderr", "-c"]).arg(folder.join("nginx.conf"));
            }
        }
        command
    }
}

impl Balancer {
    /// Starts one; `None` after saying that `test` is skipped.
    #[track_caller]
    pub(super) fn start(kind: Kind, test: &str, servers: &[SocketAddr; 3]) -> Option<Self> {
        Self::start_with(kind, test, servers, &[])
    }

    /// The same with these texts of its configuration replaced.
    #[track_caller]
    fn start_with(
        kind: Kind,
        test: &str,
        servers: &[SocketAddr; 3],
        replacements: &[(&'static str, &str)],
    ) -> Option<Self> {
        let program = kind.program(test)?;
        let folder = TempDir::new().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let process = Process::start(&mut kind.command(&program, folder.path(), address, servers, replacements));
        let balancer = Self { address, process, folder };
        eventually("the balancer serves", || {
            let answer = request(address, None, "GET", "/healthz", &[], b"").ok()?;
            (answer.status == 200).then_some(())
        });
        Some(balancer)
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    #[track_caller]
    fn request(&self, method: &str, target: &str, body: &[u8]) -> registry_tests::Answer {
        request(self.address, Some(ADMIN), method, target, &[], body)
            .unwrap_or_else(|error| panic!("{target}: {error}"))
    }
}

/// Three servers that share nothing; each holds a package that says its number.
fn three_servers() -> [Server; 3] {
    [1, 2, 3].map(|number| {
        let server = Server::start();
        server.request("POST", &format!("/api/v1/artifacts/server-{number}/1"), &[], b"x").expect(201);
        server
    })
}

/// Which of the [`three_servers`] answered `GET /api/v1/packages`.
fn who(answer: registry_tests::Answer) -> String {
    answer.expect(200).json()["packages"][0]["package"].as_str().unwrap().to_owned()
}

/// The bytes of all files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[test]
fn the_balancers_accept_the_files_as_they_are() {
    let test = "the configuration as it is";
    if let Some(haproxy) = Kind::Haproxy.program(test) {
        let output = run(Command::new(haproxy).arg("-c").arg("-f").arg(root().join("deploy/haproxy.cfg")));
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("Configuration file is valid"), "{said}");
        // The replicas' names mean nothing here; nothing else is worth a warning.
        let warnings = said.lines().filter(|line| line.contains("[WARNING]") && !line.contains("could not resolve"));
        assert_eq!(warnings.collect::<Vec<_>>(), Vec::<&str>::new());
    }
    if let Some(nginx) = Kind::Nginx.program(test) {
        // nginx looks names up when it reads them.
        let folder = TempDir::new().unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let output = run(Kind::Nginx.command(&nginx, folder.path(), nowhere, &[nowhere; 3], &[]).arg("-t"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("test is successful"), "{said}");
        assert!(!said.contains("[warn]"), "{said}");
    }
}

#[test]
fn an_upload_reaches_the_server_while_the_client_still_sends() {
    for kind in KINDS {
        let server = Server::start();
        let Some(balancer) = Balancer::start(kind, "an upload streams", &[server.address(); 3]) else { continue };
        let bytes = Random::new(7).bytes(100 * MIB);
        let (first, rest) = bytes.split_at(60 * MIB);
        let mut client = Connection::open(balancer.address);
        let headers = [format!("Authorization: Bearer {ADMIN}"), format!("Content-Length: {}", bytes.len())];
        client.send_head("POST", "/api/v1/artifacts/large/1?filename=large.bin", &headers).unwrap();
        client.send(first).unwrap();
        // What is on the way may lie in sockets and buffers, a few MiB; the rest has come.
        let uploads = server.data().join("uploads");
        eventually("the server has what was sent, though the client has not ended", || {
            (bytes_below(&uploads) >= 50 * MIB as u64).then_some(())
        });
        assert_eq!(bytes_below(&balancer.folder.path().join("client_body")), 0, "{kind:?}: nothing lies in between");
        client.send(rest).unwrap();
        client.answer().unwrap().expect(201);
        let stored = balancer.request("GET", "/api/v1/artifacts/large/1", b"").expect(200);
        assert!(stored.body == bytes, "{kind:?}: it came back as it was sent");
    }
}

#[test]
fn requests_of_one_client_go_to_each_replica_in_turn() {
    for kind in KINDS {
        let servers = three_servers();
        let addresses = [servers[0].address(), servers[1].address(), servers[2].address()];
        let Some(balancer) = Balancer::start(kind, "turns", &addresses) else { continue };
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        // On one connection, with one token, and then on a connection each.
        let mut client = Connection::open(balancer.address);
        for _ in 0..6 {
            client.send_head("GET", "/api/v1/packages", &[format!("Authorization: Bearer {ADMIN}")]).unwrap();
            *counts.entry(who(client.answer().unwrap())).or_default() += 1;
        }
        for _ in 0..6 {
            *counts.entry(who(balancer.request("GET", "/api/v1/packages", b""))).or_default() += 1;
        }
        let even = [1, 2, 3].map(|number| (format!("server-{number}"), 4));
        assert_eq!(counts, BTreeMap::from(even), "{kind:?}");
    }
}

#[test]
fn an_upload_goes_on_at_the_next_replica_with_each_of_its_requests() {
    for kind in KINDS {
        let Some(cluster) = Cluster::start("replicas behind a balancer", 3) else { continue };
        let addresses: [SocketAddr; 3] = cluster.addresses().try_into().expect("three were asked for");
        let Some(balancer) = Balancer::start(kind, "replicas", &addresses) else { continue };
        let seen: Vec<_> = cluster.replicas.iter().map(Server::requests_from_now).collect();
        let bytes = Random::new(9).bytes(20 * MIB);
        let ask = |method: &str, target: &str, body: &[u8]| {
            let headers = ["Content-Type: application/octet-stream"];
            request(balancer.address, Some(ADMIN), method, target, &headers, body).unwrap()
        };
        let location = |answer: registry_tests::Answer| answer.expect(202).header("location").unwrap().to_owned();
        let mut upload = location(ask("POST", "/v2/team/app/blobs/uploads/", b""));
        for piece in bytes.chunks(7 * MIB) {
            upload = location(ask("PATCH", &upload, piece));
        }
        ask("PUT", &with_digest(&upload, &sha256(&bytes)), b"").expect(201);
        for (replica, seen) in cluster.replicas.iter().zip(seen) {
            let requests = seen.count(|request| request.path.starts_with("/v2/team/app/blobs/uploads/"));
            assert!(requests >= 1, "{kind:?}: each replica had a part in it");
            assert!(replica.repository("team/app").get_blob(&sha256(&bytes)).expect(200).body == bytes, "{kind:?}");
        }
    }
}

#[test]
fn a_replica_that_is_gone_is_passed_over() {
    for kind in KINDS {
        let [mut gone, second, third] = three_servers();
        let addresses = [gone.address(), second.address(), third.address()];
        let Some(balancer) = Balancer::start(kind, "a replica is gone", &addresses) else { continue };
        gone.kill();
        for number in 0..30 {
            // None fails, whether it may be sent twice or not.
            who(balancer.request("GET", "/api/v1/packages", b""));
            balancer.request("POST", &format!("/api/v1/artifacts/after/{number}"), b"bytes").expect(201);
        }
    }
}

#[test]
fn haproxy_sends_nothing_to_a_replica_that_is_not_ready() {
    let servers = three_servers();
    let addresses = [servers[0].address(), servers[1].address(), servers[2].address()];
    let Some(balancer) = Balancer::start(Kind::Haproxy, "a replica is not ready", &addresses) else { return };
    // Asks seven times what any replica answers, ready or not, and counts what the first one got of it.
    let reached = || {
        let seen = servers[0].requests_from_now();
        for _ in 0..7 {
            balancer.request("GET", "/v2/", b"").expect(200);
        }
        seen.count(|request| request.path == "/v2/")
    };
    assert!(reached() >= 2);
    // Its disk is gone.
    let away = servers[0].folder().join("away");
    std::fs::rename(servers[0].data(), &away).unwrap();
    servers[0].get("/v2/").expect(200);
    eventually("nothing goes there", || (reached() == 0).then_some(()));
    std::fs::rename(&away, servers[0].data()).unwrap();
    eventually("it takes its turn again", || (reached() >= 2).then_some(()));
}

/// That is so for `GET` and `HEAD`. Whatever else it takes waits for ten minutes, as an upload may be silent for that long.
#[test]
fn nginx_asks_another_replica_what_one_that_hangs_does_not_say() {
    let servers = three_servers();
    let addresses = [servers[0].address(), servers[1].address(), servers[2].address()];
    let patience = [("proxy_read_timeout 2m", "proxy_read_timeout 5s")];
    let Some(balancer) = Balancer::start_with(Kind::Nginx, "a replica hangs", &addresses, &patience) else { return };
    servers[0].signal(Signal::STOP);
    eventually("it hangs", || servers[0].is_stopped().then_some(()));
    for _ in 0..6 {
        assert_ne!(who(balancer.request("GET", "/api/v1/packages", b"")), "server-1");
    }
    assert!(balancer.process.stderr().contains("upstream timed out"), "{}", balancer.process.stderr());
    servers[0].signal(Signal::CONT);
    eventually("it takes its turn again", || {
        (who(balancer.request("GET", "/api/v1/packages", b"")) == "server-1").then_some(())
    });
}

#[test]
fn haproxy_sends_nothing_to_a_replica_that_hangs() {
    let servers = three_servers();
    let addresses = [servers[0].address(), servers[1].address(), servers[2].address()];
    let Some(balancer) = Balancer::start(Kind::Haproxy, "a replica hangs", &addresses) else { return };
    servers[0].signal(Signal::STOP);
    let told = |what: &str| balancer.process.stdout().contains(&format!("Server replicas/foundry-1 is {what}"));
    eventually("it is noticed", || told("DOWN").then_some(()));
    for number in 0..6 {
        assert_ne!(who(balancer.request("GET", "/api/v1/packages", b"")), "server-1");
        balancer.request("POST", &format!("/api/v1/artifacts/after/{number}"), b"bytes").expect(201);
    }
    servers[0].signal(Signal::CONT);
    eventually("it takes its turn again", || {
        (who(balancer.request("GET", "/api/v1/packages", b"")) == "server-1").then_some(())
    });
}

#[test]
fn haproxy_serves_through_those_that_live_while_none_is_ready() {
    let test = "no replica is ready";
    let Some(mut store) = S3::own(test) else { return };
    let Some(database) = postgres::server(test).map(postgres::Postgres::database) else { return };
    let cluster = Cluster::start_on(Stores::new(&store.s3, database), 3, &[]);
    let addresses: [SocketAddr; 3] = cluster.addresses().try_into().expect("three were asked for");
    let Some(balancer) = Balancer::start(Kind::Haproxy, test, &addresses) else { return };
    let image = Image::new(vec![Random::new(11).bytes(10_000)]);
    cluster.replicas[0].repository("team/app").push("1", &image);
    // How many requests HAProxy has sent on to a server of this backend, after its log.
    let sent_to = |backend: &str| balancer.process.stdout().matches(&format!(" registry {backend}/foundry-")).count();
    let manifest = || balancer.request("GET", "/v2/team/app/manifests/1", b"").expect(200);

    store.kill();
    for replica in &cluster.replicas {
        eventually("it is not ready", || (replica.get("/readyz").status == 503).then_some(()));
    }
    // Not one is refused, before and after HAProxy has noticed.
    eventually("it sends to those that live", || {
        manifest();
        (sent_to("alive") > 0).then_some(())
    });
    for _ in 0..6 {
        manifest();
    }
    store.start_again();
    let before = sent_to("replicas");
    eventually("it sends to those that are ready", || {
        manifest();
        (sent_to("replicas") > before).then_some(())
    });
}

#[test]
fn nginx_hands_on_the_answer_of_a_replica_whose_store_is_away() {
    let servers = three_servers();
    let addresses = [servers[0].address(), servers[1].address(), servers[2].address()];
    let Some(balancer) = Balancer::start(Kind::Nginx, "a replica's store is away", &addresses) else { return };
    std::fs::rename(servers[0].data(), servers[0].folder().join("away")).unwrap();
    servers[0].get("/readyz").expect(503);
    // Each has its turn, and is not let rest for what it said.
    let mut statuses = [(); 9].map(|()| balancer.request("GET", "/readyz", b"").status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 503, 503, 503]);
}

#[test]
fn clients_cannot_say_that_they_are_others() {
    for kind in KINDS {
        let builder = Server::builder().environment("FOUNDRY_SERVER__TRUSTED_PROXIES", "127.0.0.0/8");
        let server = builder.environment("FOUNDRY_AUTH__FAILED_ATTEMPTS_PER_MINUTE", "3").start();
        let Some(balancer) = Balancer::start(kind, "forwarded headers", &[server.address(); 3]) else { continue };
        let ask = |headers: &[&str], token| request(balancer.address, token, "GET", "/v2/", headers, b"").unwrap();
        // The name by which the client knows the registry comes through, and what it claims to be does not.
        let lies = ["X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example"];
        let challenge = ask(&lies, None).expect(401).header("www-authenticate").unwrap().to_owned();
        assert!(challenge.contains("realm=\"http://localhost/auth/token\""), "{kind:?}: {challenge}");
        // A guesser is throttled although each guess claims to come from somewhere else.
        let statuses: Vec<u16> = (1..=10)
            .map(|number| {
                ask(&[&format!("X-Forwarded-For: 203.0.113.{number}")], Some("a-wrong-token-to-guess")).status
            })
            .collect();
        assert_eq!(statuses.last(), Some(&429), "{kind:?}: {statuses:?}");
    }
}
