//! An S3 server for tests: the one that the environment names, or SeaweedFS, in a container or beside the test, started
//! once for each test executable.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use registry_test_containers::{self as containers, Recipe};
use tempfile::TempDir;

use crate::process::free_port;
use crate::server::request;
use crate::tools::skip;
use crate::wait::pause;

/// How long the server may take to start; on a busy machine it takes ten seconds.
const START: Duration = Duration::from_secs(120);

/// The domain of the servers that are started here. Nobody has an address for it.
const DOMAIN: &str = "s3.test";

/// The image of a server in a container.
const IMAGE: (&str, &str) = ("chrislusf/seaweedfs", "4.53");

/// Where a server in a container listens: for S3, and for its file system.
const PORTS_INSIDE: [u16; 2] = [8333, 8888];

/// A new server waits 5 s for others that may know of data of before, and its first writes with it: this one has none.
const NO_HOLD: (&str, &str) = ("WEED_MASTER_VOLUME_GROWTH_ALLOCATION_DEFERRAL", "0s");

/// An S3 server with a bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    /// Its URL, plain HTTP.
    pub endpoint: String,
    /// The bucket, which is there.
    pub bucket: String,
    /// The key's identifier.
    pub access_key: String,
    /// The key's secret.
    pub secret_key: String,
    /// The domain below which it takes the name of a host for that of a bucket.
    pub domain: Option<String>,
}

impl S3 {
    /// The server that all tests of this executable share; `None` after saying that `test` is skipped.
    pub fn shared(test: &str) -> Option<&'static S3> {
        static SHARED: OnceLock<Option<S3>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::from_environment().or_else(Self::contained).or_else(Self::start));
        if shared.is_none() {
            skip(test, "there is neither FOUNDRY_S3_ENDPOINT nor the program weed; tests/run installs it");
        }
        shared.as_ref()
    }

    fn from_environment() -> Option<S3> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(S3 {
            endpoint: variable("FOUNDRY_S3_ENDPOINT")?,
            bucket: variable("FOUNDRY_S3_BUCKET").unwrap_or_else(|| "foundry".to_owned()),
            access_key: variable("FOUNDRY_S3_ACCESS_KEY").unwrap_or_else(|| "test-key".to_owned()),
            secret_key: variable("FOUNDRY_S3_SECRET_KEY").unwrap_or_else(|| "test-secret".to_owned()),
            domain: variable("FOUNDRY_S3_DOMAIN"),
        })
    }

    /// A server in a container, where there are to be any.
    fn contained() -> Option<S3> {
        let keys = "/keys.json";
        let mut arguments = server_arguments("/data", Some(keys));
        arguments.extend(["-ip.bind=0.0.0.0", "-s3.port=8333", "-filer.port=8888"].map(str::to_owned));
        let container = containers::start(Recipe {
            image: IMAGE,
            entrypoint: Some("weed"),
            arguments,
            environment: vec![(NO_HOLD.0, NO_HOLD.1.to_owned())],
            files: vec![(keys, S3::at(0).keys().into_bytes())],
            ports: PORTS_INSIDE.to_vec(),
        })?;
        let [port, filer] = PORTS_INSIDE.map(|port| container.port(port));
        let s3 = S3::at(port);
        assert!(s3.serves([port, filer], true, || container.runs()), "SeaweedFS does not serve:\n{}", container.log());
        // It ends with this process.
        std::mem::forget(container);
        Some(s3)
    }

    /// One on this machine that knows the keys of tests.
    fn at(port: u16) -> Self {
        S3 {
            endpoint: format!("http://127.0.0.1:{port}"),
            bucket: "foundry".to_owned(),
            access_key: "test-key".to_owned(),
            secret_key: "test-secret".to_owned(),
            domain: Some(DOMAIN.to_owned()),
        }
    }

    /// SeaweedFS's file of the keys.
    fn keys(&self) -> String {
        let keys = serde_json::json!({ "identities": [{
            "name": "tests",
            "credentials": [{ "accessKey": self.access_key, "secretKey": self.secret_key }],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }] });
        keys.to_string()
    }

    /// Whether it serves at these ports (of S3, of its file system) and has the bucket, before the patience ends.
    fn serves(&self, ports: [u16; 2], asks_for_keys: bool, mut runs: impl FnMut() -> bool) -> bool {
        let [port, filer] = ports;
        let greeting = if asks_for_keys { 403 } else { 200 };
        let status = |port: u16, method: &str, target: &str, body: &[u8]| {
            request(([127, 0, 0, 1], port).into(), None, method, target, &[], body).map_or(0, |answer| answer.status)
        };
        let deadline = Instant::now() + START;
        while Instant::now() < deadline && runs() {
            // Strangers are refused: then it is there, and knows its keys. A folder of its file system is a bucket. One
            // that is started again takes no bytes before it knows what it has.
            let bucket = format!("/buckets/{}/", self.bucket);
            if status(port, "GET", "/", b"") == greeting
                && matches!(status(filer, "POST", &bucket, b""), 201 | 409)
                && status(
                    filer,
                    "PUT",
                    "/started",
                    b"it takes bytes, and not so few that it keeps them with their name",
                ) == 201
            {
                return true;
            }
            pause();
        }
        false
    }

    /// Starts the server. It ends with this process, however that ends: then the pipe to its shell closes.
    fn start() -> Option<S3> {
        let mut server = S3Server::start(true, true)?;
        // The shell waits for the end of its input: never drop it.
        std::mem::forget(server.child.take());
        server.folder.disable_cleanup(true);
        Some(server.s3.clone())
    }

    /// A server of a test's own, which knows its keys; `None` after saying that `test` is skipped.
    pub fn own(test: &str) -> Option<S3Server> {
        Self::own_with(test, true)
    }

    /// A server of a test's own that looks at no signature, nor at the time of any.
    pub fn own_open_to_all(test: &str) -> Option<S3Server> {
        Self::own_with(test, false)
    }

    fn own_with(test: &str, asks_for_keys: bool) -> Option<S3Server> {
        let server = S3Server::start(asks_for_keys, false);
        if server.is_none() {
            skip(test, "there is no program weed; tests/run installs it");
        }
        server
    }

    /// A name for a folder in the bucket that nobody else has.
    pub fn prefix() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut bytes = [0; 8];
        let random = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        random.expect("there is randomness");
        format!("test-{}-{:016x}", NEXT.fetch_add(1, Ordering::Relaxed), u64::from_le_bytes(bytes))
    }

    /// The variables by which a server uses this bucket, through `endpoint`.
    pub fn variables(&self, endpoint: &str, prefix: &str) -> Vec<(String, String)> {
        let variables = [
            ("S3_BUCKET", self.bucket.as_str()),
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", self.access_key.as_str()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.as_str()),
            ("S3_REGION", "us-east-1"),
            ("FOUNDRY_STORAGE__S3__PREFIX", prefix),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }
}

/// The names of the ports of a server, as its flags have them.
const PORTS: [&str; 8] = [
    "s3.port",
    "filer.port",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port.grpc",
    "s3.port.grpc",
];

/// An S3 server of one's own, which can be killed and started again. It ends with this, and with this process.
pub struct S3Server {
    /// How to reach it.
    pub s3: S3,
    weed: PathBuf,
    asks_for_keys: bool,
    /// Whether its shell removes the folder when it ends.
    ends_with_its_folder: bool,
    ports: [u16; PORTS.len()],
    /// A shell around the server, which kills it when its input ends.
    child: Option<Child>,
    folder: TempDir,
}

impl S3Server {
    fn start(asks_for_keys: bool, ends_with_its_folder: bool) -> Option<Self> {
        let weed = crate::tools::find("weed")?;
        // Its ports are free when they are looked for, and may not be a moment later.
        for _ in 0..3 {
            let folder = TempDir::new().expect("a temporary folder can be made");
            let ports = PORTS.map(|_| free_port());
            let (s3, weed) = (S3::at(ports[0]), weed.clone());
            let mut server = Self { s3, weed, asks_for_keys, ends_with_its_folder, ports, child: None, folder };
            if server.try_start() {
                return Some(server);
            }
        }
        panic!("the S3 server does not start");
    }

    /// `kill -9`, and waits until it is gone. Its data stay.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }

    /// Starts it again on the same folder and the same ports, and waits until it answers.
    pub fn start_again(&mut self) {
        self.kill();
        // Somebody may be at one of the ports for a moment.
        assert!((0..3).any(|_| self.try_start()), "the S3 server does not start again");
    }

    fn try_start(&mut self) -> bool {
        let mut child = self.spawn();
        let [port, filer, ..] = self.ports;
        let runs = || child.try_wait().is_ok_and(|ended| ended.is_none());
        let serves = self.s3.serves([port, filer], self.asks_for_keys, runs);
        self.child = Some(child);
        if !serves {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("the S3 server ended, or does not answer:\n{log}");
            self.kill();
        }
        serves
    }

    fn spawn(&self) -> Child {
        let folder = self.folder.path();
        fs::write(folder.join("keys.json"), self.s3.keys()).expect("the keys can be written");
        let at = |name: &str| folder.join(name).display().to_string();
        let keys = at("keys.json");
        let mut arguments = server_arguments(&folder.display().to_string(), self.asks_for_keys.then_some(&*keys));
        arguments.extend([
            "-ip.bind=127.0.0.1".to_owned(),
            format!("-filer.localSocket={}", at("filer.sock")),
            format!("-s3.localSocket={}", at("s3.sock")),
        ]);
        arguments.extend(PORTS.iter().zip(self.ports).map(|(name, port)| format!("-{name}={port}")));
        let mut command = Command::new("sh");
        let clean = if self.ends_with_its_folder { r#"rm -rf "$0""# } else { ":" };
        let script = format!(
            r#"exec 3<&0; "$@" 2>>"$0/log" & child=$!
            (cat <&3 >/dev/null; kill -9 $child; {clean}) & wait $child"#
        );
        command.args(["-c", &script]);
        command.arg(folder).arg(&self.weed).args(&arguments).current_dir(folder).env(NO_HOLD.0, NO_HOLD.1);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("a shell can be started")
    }
}

/// The arguments of SeaweedFS that is to keep its data in `folder`, but those that say where it listens.
fn server_arguments(folder: &str, keys: Option<&str>) -> Vec<String> {
    let mut arguments = [
        "-logtostderr=true",
        "server",
        "-ip=127.0.0.1",
        // Tests talk to nobody outside.
        "-master.telemetry=false",
        // It is alone; it would wait for others when it is started again.
        "-master.electionTimeout=1s",
        "-master.volumeSizeLimitMB=256",
        "-volume.max=200",
        "-s3",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("-dir={folder}"));
    arguments.push(format!("-s3.domainName={DOMAIN}"));
    arguments.extend(keys.map(|keys| format!("-s3.config={keys}")));
    arguments
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.kill();
    }
}
