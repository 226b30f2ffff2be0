//! Replicas of the server over one bucket and one database, and a load balancer in front of them that sends each
//! connection's next request wherever it likes.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use registry_test_postgres::Database;
use tempfile::TempDir;

use crate::http::Connection;
use crate::process::{Process, free_port};
use crate::s3::S3;
use crate::server::{Server, ServerBuilder};
use crate::tools::tool;
use crate::wait::eventually;

/// Replicas over what only they use: a database, and a folder of a bucket.
pub struct Cluster {
    /// The replicas, in the order of their numbers.
    pub replicas: Vec<Server>,
    template: Template,
}

struct Template {
    s3: &'static S3,
    prefix: String,
    database: Database,
    environment: Vec<(String, String)>,
}

impl Template {
    fn builder(&self) -> ServerBuilder {
        let mut builder = ServerBuilder::on_files();
        for (name, value) in self.s3.variables(&self.s3.endpoint, &self.prefix) {
            builder = builder.environment(&name, &value);
        }
        builder = builder.postgres(&self.database.url());
        for (name, value) in &self.environment {
            builder = builder.environment(name, value);
        }
        builder
    }
}

impl Cluster {
    /// Starts `count` replicas at once; `None` after saying that `test` is skipped.
    pub fn start(test: &str, count: usize) -> Option<Self> {
        Self::start_with(test, count, &[])
    }

    /// The same, with more variables in their environment.
    pub fn start_with(test: &str, count: usize, environment: &[(&str, &str)]) -> Option<Self> {
        let s3 = S3::shared(test)?;
        let database = registry_test_postgres::server(test)?.database();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let template = Template { s3, prefix: S3::prefix(), database, environment };
        // All at once: each finds an empty database, and one makes the schema.
        let replicas: Vec<Server> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..count).map(|_| scope.spawn(|| template.builder().start())).collect();
            starting.into_iter().map(|replica| replica.join().expect("the replica starts")).collect()
        });
        // The first object makes the bucket; without one no replica is ready.
        replicas[0].repository("first/of/all").push_blob(b"the first object");
        for replica in &replicas {
            eventually("the replica is ready", || (replica.get("/readyz").status == 200).then_some(()));
        }
        Some(Self { replicas, template })
    }

    /// How to start one more replica.
    pub fn builder(&self) -> ServerBuilder {
        self.template.builder()
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.template.database
    }

    /// Where the replicas listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(Server::address).collect()
    }
}

/// HAProxy in front of servers: each request goes to the next one, whatever came before on its connection.
pub struct Balancer {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Balancer {
    /// Starts it; `None` after saying that `test` is skipped.
    pub fn start(test: &str, servers: &[SocketAddr]) -> Option<Self> {
        let haproxy = tool(test, "haproxy")?;
        let folder = TempDir::new().expect("a temporary folder can be made");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut text = format!(
            "global\n  maxconn 2000\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  \
             timeout server 1h\n  timeout http-request 30s\n  option redispatch 1\n  retries 3\n  \
             retry-on conn-failure empty-response\n\
             frontend all\n  bind {address}\n  default_backend replicas\nbackend replicas\n  balance roundrobin\n  \
             option httpchk GET /readyz\n  default-server check inter 200ms fall 1 rise 1\n"
        );
        for (number, server) in servers.iter().enumerate() {
            text.push_str(&format!("  server replica{number} {server}\n"));
        }
        let config = folder.path().join("haproxy.cfg");
        fs::write(&config, text).expect("the configuration can be written");
        let process = Process::start(Command::new(haproxy).arg("-db").arg("-f").arg(&config));
        let mut balancer = Self { process, address, _folder: folder };
        eventually("the balancer serves", || {
            assert!(!balancer.process.has_ended(), "{}", balancer.process.stderr());
            Connection::try_open(address).ok()
        });
        Some(balancer)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// How long a replica may take to be sent requests again.
pub const BACK_IN_ROTATION: Duration = Duration::from_secs(10);
