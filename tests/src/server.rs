//! A real `registry-server` process with a folder and a port of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tempfile::TempDir;

use crate::http::{Answer, Connection};
use crate::postgres::{self, Database};
use crate::process::is_stopped;
use crate::s3::S3;

/// The token that every test server knows, with every permission.
pub const ADMIN: &str = "test-admin-token";

/// Set to `postgres`: every server of [`ServerBuilder`] keeps its metadata in a Postgres database of its own, so that the
/// suites run over Postgres and files.
pub const METADATA: &str = "FOUNDRY_TEST_METADATA";

/// How long a server may take to start; it takes a fraction of a second.
const START: Duration = Duration::from_secs(60);

/// Set to `s3`: then every test server keeps its blobs in a bucket, each in a folder of its own there.
pub const TEST_BLOBS: &str = "FOUNDRY_TEST_BLOBS";

/// How to start a server.
pub struct ServerBuilder {
    folder: Arc<TempDir>,
    data: PathBuf,
    config: String,
    environment: Vec<(String, String)>,
    program: Option<PathBuf>,
    wrapper: Vec<String>,
    /// The URL of its metadata, if that is in Postgres.
    database_url: Option<String>,
    /// Dropped after the last server that uses it.
    database: Option<Arc<Database>>,
}

/// A running server. Dropping it kills it; its folder goes with the last one that uses it.
pub struct Server {
    child: Child,
    address: SocketAddr,
    builder: ServerBuilder,
    log: Arc<Mutex<Vec<String>>>,
}

/// The built server, or the one in `FOUNDRY_SERVER_BIN`.
pub fn server_binary() -> PathBuf {
    binary("FOUNDRY_SERVER_BIN", "registry-server")
}

/// The built command-line client, or the one in `FOUNDRY_CLI_BIN`.
pub fn cli_binary() -> PathBuf {
    binary("FOUNDRY_CLI_BIN", "registry-cli")
}

fn binary(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    // Beside the tests' own executables: target/<profile>/deps/<test>.
    let folder = BUILT.get_or_init(|| {
        let own = std::env::current_exe().expect("a test knows its own path");
        let profile = own.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps").to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "registry-server", "--package", "registry-cli"]);
        build.args(["--features", "registry-server/fail-points"]);
        build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "the server does not build");
        profile
    });
    folder.join(name)
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerBuilder {
    /// The same, whatever the environment says of stores: files and SQLite in its folder.
    pub fn on_files() -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let data = folder.path().join("data");
        Self {
            folder: Arc::new(folder),
            data,
            config: String::new(),
            environment: Vec::new(),
            program: None,
            wrapper: Vec::new(),
            database_url: None,
            database: None,
        }
    }

    /// An empty folder of its own, the token [`ADMIN`], no access for strangers.
    pub fn new() -> Self {
        let mut builder = Self::on_files();
        if std::env::var(METADATA).is_ok_and(|metadata| metadata == "postgres") {
            let server = postgres::server("servers on Postgres");
            builder = builder.database(server.expect("the tests were told to run on Postgres").database());
        }
        match std::env::var(TEST_BLOBS).as_deref() {
            Ok("s3") => {
                let s3 = S3::shared("every test").expect("blobs cannot be in a bucket without an S3 server");
                builder.s3(s3, &s3.endpoint)
            }
            _ => builder,
        }
    }

    /// Keep the metadata in this Postgres database, which is dropped with the last server that uses it.
    #[must_use]
    pub fn database(mut self, database: Database) -> Self {
        self.database_url = Some(database.url());
        self.database = Some(Arc::new(database));
        self
    }

    /// Keep the metadata in the Postgres database that this URL names.
    #[must_use]
    pub fn postgres(mut self, url: &str) -> Self {
        self.database_url = Some(url.to_owned());
        self.database = None;
        self
    }

    /// Keep blobs in a bucket, reached by `endpoint`, in a folder of its own.
    #[must_use]
    pub fn s3(self, s3: &S3, endpoint: &str) -> Self {
        self.s3_below(s3, endpoint, &S3::prefix())
    }

    /// The same, in this folder of the bucket.
    #[must_use]
    pub fn s3_below(mut self, s3: &S3, endpoint: &str, prefix: &str) -> Self {
        self.environment.extend(s3.variables(endpoint, prefix));
        self
    }

    /// More configuration: top-level sections in YAML. `auth.tokens` and `server.port` are there already, so sections
    /// `auth` and `server` are given by [`auth`](Self::auth) and in the environment.
    #[must_use]
    pub fn config(mut self, yaml: &str) -> Self {
        self.config.push_str(yaml);
        self.config.push('\n');
        self
    }

    /// What strangers may do.
    #[must_use]
    pub fn anonymous(self, level: &str) -> Self {
        self.environment("FOUNDRY_AUTH__ANONYMOUS", level)
    }

    /// An environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Kill the process when it passes `step` for the `nth` time (from 1).
    #[must_use]
    pub fn fail_point(self, step: &str, nth: u32) -> Self {
        self.environment("FOUNDRY_FAIL_POINT", &format!("{step}:{nth}"))
    }

    /// Stop the process, as SIGSTOP does, when it passes `step` for the `nth` time (from 1).
    #[must_use]
    pub fn stop_point(self, step: &str, nth: u32) -> Self {
        self.environment("FOUNDRY_FAIL_POINT", &format!("{step}:{nth}:stop"))
    }

    /// Tell the log of every step, so that [`Server::has_reached`] knows.
    #[must_use]
    pub fn tell_steps(self) -> Self {
        self.environment("FOUNDRY_LOG__LEVEL", "info,registry_server::fail_points=debug")
    }

    /// Another build of the server than the one under test.
    #[must_use]
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// A command that runs the server, e.g. `strace -f -o file`.
    #[must_use]
    pub fn wrapper(mut self, command: &[&str]) -> Self {
        self.wrapper = command.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// Another data folder than that in the server's own folder.
    #[must_use]
    pub fn data(mut self, path: &Path) -> Self {
        self.data = path.to_owned();
        self
    }

    /// Its variables but the fail point.
    fn variables_of_commands(&self) -> impl Iterator<Item = &(String, String)> {
        self.environment.iter().filter(|(name, _)| name != "FOUNDRY_FAIL_POINT")
    }

    /// The folder that the server's data lie in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub fn start(self) -> Server {
        match self.try_start() {
            Ok(server) => server,
            Err(log) => panic!("the server did not start:\n{log}"),
        }
    }

    /// Starts it; its log when it ends before it serves.
    ///
    /// # Errors
    /// What it wrote to its log.
    pub fn try_start(self) -> Result<Server, String> {
        let config = self.folder.path().join("config.yaml");
        let text = format!(
            "server:\n  port: 0\nstorage:\n  dataDir: {}\nauth:\n  tokens: [{ADMIN}]\n{}",
            self.data.display(),
            self.config
        );
        let database = self.database_url.as_ref().map(|url| format!("database:\n  url: {url}\n"));
        let text = text + &database.unwrap_or_default();
        fs::write(&config, text).expect("the configuration can be written");
        let program = self.program.clone().unwrap_or_else(server_binary);
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.arg("-config").arg(&config).current_dir(self.folder.path());
        command.env_remove("FOUNDRY_FAIL_POINT");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server's binary can be started");

        let stderr = child.stderr.take().expect("it is piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, receiver) = mpsc::channel();
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(address) = bound_address(&line) {
                    let _ = sender.send(address);
                }
                lines.lock().expect("no reader panics").push(line);
            }
        });
        match receiver.recv_timeout(START) {
            Ok(address) => Ok(Server { child, address, builder: self, log }),
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                let lines = log.lock().expect("no reader panics").join("\n");
                Err(lines)
            }
        }
    }
}

/// The address in the log line that says where the server listens.
fn bound_address(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = line.get("fields").unwrap_or(&line);
    (fields["message"] == "serving").then(|| fields["address"].as_str()?.parse().ok()).flatten()
}

impl Server {
    /// A server with the defaults of [`ServerBuilder::new`].
    #[track_caller]
    pub fn start() -> Self {
        ServerBuilder::new().start()
    }

    /// How to start one.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::new()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `127.0.0.1:<port>`, as clients name a registry.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.builder.data
    }

    /// The names of what is staged in its data folder; none where blobs are in a bucket.
    pub fn staged_files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.data().join("uploads")) else { return Vec::new() };
        entries.map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned()).collect()
    }

    /// The folder that holds its data folder and configuration.
    pub fn folder(&self) -> &Path {
        self.builder.folder.path()
    }

    /// The configuration that it was started with.
    pub fn config_file(&self) -> PathBuf {
        self.folder().join("config.yaml")
    }

    /// How often it has passed a step of the state machines, by a log that tells of them.
    pub fn has_reached(&self, step: &str) -> usize {
        let told = format!("\"step\":\"{step}\"");
        self.log().iter().filter(|line| line.contains(&told)).count()
    }

    /// Whether it was stopped, and does not run until it is told to.
    pub fn is_stopped(&self) -> bool {
        is_stopped(self.pid())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no reader panics").clone()
    }

    /// One request on a connection of its own, with the administrator's token.
    #[track_caller]
    pub fn request(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.try_request(method, target, headers, body).unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// The same, for a server that may be gone.
    ///
    /// # Errors
    /// As the socket says.
    pub fn try_request(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> std::io::Result<Answer> {
        request(self.address, Some(ADMIN), method, target, headers, body)
    }

    /// One request without credentials.
    #[track_caller]
    pub fn anonymous(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        request(self.address, None, method, target, headers, body)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// One request with that token.
    #[track_caller]
    pub fn with_token(&self, token: &str, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        request(self.address, Some(token), method, target, headers, body)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[], b"")
    }

    /// Runs a collection with that grace, e.g. `0s`.
    #[track_caller]
    pub fn gc(&self, grace: &str) -> serde_json::Value {
        self.request("POST", &format!("/api/v1/gc?grace={grace}"), &[], b"").expect(200).json()
    }

    /// `registry-server check --json` with more arguments, beside the running server: whether it found nothing, and
    /// what it printed.
    pub fn check(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(server_binary())
            .arg("-config")
            .arg(self.config_file())
            .args(["check", "--json"])
            .args(arguments)
            .envs(self.builder.variables_of_commands().map(|(name, value)| (name, value)))
            .current_dir(self.folder())
            .output()
            .expect("the server's binary can be started");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the server is our child");
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has ended by itself (a fail point); false when it does not.
    pub fn wait_for_end(&mut self, patience: Duration) -> bool {
        let deadline = std::time::Instant::now() + patience;
        while std::time::Instant::now() < deadline {
            if let Ok(Some(_)) = self.child.try_wait() {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        false
    }

    /// Kills it if it still runs, and starts it again on the same folder, without fail points.
    #[track_caller]
    pub fn restart(self) -> Server {
        self.again().start()
    }

    /// Kills it if it still runs, and says how to start it again on the same folder, without fail points.
    pub fn again(mut self) -> ServerBuilder {
        self.kill();
        let environment = self.builder.variables_of_commands().cloned().collect();
        ServerBuilder {
            folder: Arc::clone(&self.builder.folder),
            data: self.builder.data.clone(),
            config: self.builder.config.clone(),
            environment,
            program: self.builder.program.clone(),
            wrapper: Vec::new(),
            database_url: self.builder.database_url.clone(),
            database: self.builder.database.clone(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Coverage is written at an orderly end.
        if std::env::var_os("LLVM_PROFILE_FILE").is_some() && matches!(self.child.try_wait(), Ok(None)) {
            // The signal of a person, which waits for no balancer.
            self.signal(rustix::process::Signal::INT);
            self.wait_for_end(Duration::from_secs(10));
        }
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let (earlier, tail) = log.split_at(log.len().saturating_sub(40));
            let troubles = earlier.iter().filter(|line| !line.contains(r#""level":"INFO""#)).take(40);
            let told = troubles.chain(tail).cloned().collect::<Vec<_>>().join("\n");
            let _ = writeln!(std::io::stderr(), "the server's log, its troubles and its end:\n{told}");
        }
    }
}

/// One request on a connection of its own. `headers` are whole lines; Content-Length is added unless one of them says
/// how long the body is.
///
/// # Errors
/// As the socket says.
pub fn request(
    address: SocketAddr,
    token: Option<&str>,
    method: &str,
    target: &str,
    headers: &[&str],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut connection = Connection::try_open(address)?;
    let mut lines: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
    if let Some(token) = token {
        lines.push(format!("Authorization: Bearer {token}"));
    }
    let framed = lines.iter().any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("content-length:") || line.starts_with("transfer-encoding:")
    });
    if !framed && (!body.is_empty() || !matches!(method, "GET" | "HEAD")) {
        lines.push(format!("Content-Length: {}", body.len()));
    }
    lines.push("Connection: close".to_owned());
    connection.send_head(method, target, &lines)?;
    // A refusal may come, and the connection end, before the whole body is sent.
    let sent = connection.send(body);
    match connection.answer_to(method) {
        Ok(answer) => Ok(answer),
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}
