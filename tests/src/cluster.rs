//! Replicas of the server over one bucket and one database, for tests in which any request goes to any of them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use registry_test_postgres::Database;

use crate::s3::S3;
use crate::server::{Server, ServerBuilder};
use crate::wait::eventually;

/// Replicas over what only they use: a database, and a folder of a bucket.
pub struct Cluster {
    /// The replicas, in the order of their numbers.
    pub replicas: Vec<Server>,
    template: Template,
}

/// What replicas are over, and how they reach it.
pub struct Stores {
    /// The bucket.
    pub s3: S3,
    /// The URL by which replicas reach it.
    pub endpoint: String,
    /// The database.
    pub database: Database,
    /// The URL by which replicas reach it.
    pub database_url: String,
}

impl Stores {
    /// A database of its own at the shared server, and the shared bucket; `None` after saying that `test` is skipped.
    pub fn shared(test: &str) -> Option<Self> {
        let s3 = S3::shared(test)?;
        Some(Self::new(s3, registry_test_postgres::server(test)?.database()))
    }

    /// Both reached as they are.
    pub fn new(s3: &S3, database: Database) -> Self {
        Self { s3: s3.clone(), endpoint: s3.endpoint.clone(), database_url: database.url(), database }
    }
}

struct Template {
    stores: Stores,
    prefix: String,
    environment: Vec<(String, String)>,
    program: Option<PathBuf>,
}

impl Template {
    fn builder(&self) -> ServerBuilder {
        let Stores { s3, endpoint, database_url, .. } = &self.stores;
        let mut builder = ServerBuilder::on_files().s3_below(s3, endpoint, &self.prefix).postgres(database_url);
        for (name, value) in &self.environment {
            builder = builder.environment(name, value);
        }
        match &self.program {
            Some(program) => builder.program(program),
            None => builder,
        }
    }
}

impl Cluster {
    /// Starts `count` replicas at once; `None` after saying that `test` is skipped.
    pub fn start(test: &str, count: usize) -> Option<Self> {
        Self::start_with(test, count, &[])
    }

    /// The same, with more variables in their environment.
    pub fn start_with(test: &str, count: usize, environment: &[(&str, &str)]) -> Option<Self> {
        Some(Self::start_on(Stores::shared(test)?, count, environment))
    }

    /// Starts `count` replicas at once over these stores, with more variables in their environment.
    pub fn start_on(stores: Stores, count: usize, environment: &[(&str, &str)]) -> Self {
        Self::start_program(None, stores, count, environment)
    }

    /// The same of another build of the server than the one under test.
    pub fn start_program(program: Option<&Path>, stores: Stores, count: usize, environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let program = program.map(Path::to_owned);
        let template = Template { stores, prefix: S3::prefix(), environment, program };
        // All at once: each finds an empty database, and one makes the schema.
        let replicas: Vec<Server> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..count).map(|_| scope.spawn(|| template.builder().start())).collect();
            starting.into_iter().map(|replica| replica.join().expect("the replica starts")).collect()
        });
        for replica in &replicas {
            eventually("the replica is ready", || (replica.get("/readyz").status == 200).then_some(()));
        }
        Self { replicas, template }
    }

    /// How to start one more replica.
    pub fn builder(&self) -> ServerBuilder {
        self.template.builder()
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.template.stores.database
    }

    /// Where the replicas listen.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(Server::address).collect()
    }
}
