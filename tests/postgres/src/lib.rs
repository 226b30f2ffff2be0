//! A Postgres server for tests: the one that `FOUNDRY_POSTGRES_URL` names, or one in a container, or one of its own, made
//! by Debian's programs.
//!
//! A crate of its own, because the adapters' tests and the end-to-end tests need it, and neither may know the other.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use registry_test_containers::{self as containers, Container, Recipe};

/// Set by the full run: then nothing is skipped.
const REQUIRE_ALL: &str = "FOUNDRY_REQUIRE_ALL";

/// Names a server to be used, by the URL of its superuser: `postgres://user:password@host:port/postgres`.
pub const URL: &str = "FOUNDRY_POSTGRES_URL";

/// Set to `never`: no server is looked for or started, and what needs one is skipped.
pub const SERVERS: &str = "FOUNDRY_TEST_SERVERS";

/// The password of the superuser `postgres`, which is asked for over TCP and not on the socket.
const PASSWORD: &str = "a password of tests";

/// What makes a server quick to notice, in tests.
const SETTINGS: [&str; 4] =
    ["max_connections=300", "deadlock_timeout=200ms", "shared_buffers=64MB", "autovacuum_naptime=10s"];

/// It ends with its data: nothing of them has to reach a disk. A process that dies loses none of what it has written.
const NOT_DURABLE: &str = "fsync=off";

/// The image of a server in a container, as deploy/compose.yaml has it.
const IMAGE: (&str, &str) = ("postgres", "16.9-alpine");

/// Where a server in a container listens.
const PORT: u16 = 5432;

/// How long a server in a container may take to serve, once it is there.
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes a server in a folder of its own, says which, and ends and removes it once its standard input ends: with the
/// process that started it, however that ends. Told to `crash` or to `start` it, it does, and repeats the word.
const SCRIPT: &str = r#"
set -eu
umask 077
bin=$1 port=$2 password=$3
shift 3
folder=$(mktemp -d -p "${TMPDIR:-/tmp}")
server=
finish() {
  trap - EXIT
  if [ -n "$server" ]; then kill -QUIT "$server" 2>/dev/null || :; wait "$server" || :; fi
  rm -rf "$folder"
}
trap finish EXIT
trap 'finish; exit 1' HUP INT TERM
printf '%s\n' "$password" >"$folder/password"
"$bin/initdb" --pgdata="$folder/data" --username=postgres --pwfile="$folder/password" --auth-local=trust \
  --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync </dev/null >"$folder/log" 2>&1 || {
  cat "$folder/log" >&2
  exit 1
}
start() {
  "$bin/postgres" -D "$folder/data" -k "$folder" -h 127.0.0.1 -p "$port" "$@" </dev/null >>"$folder/log" 2>&1 &
  server=$!
  until "$bin/pg_isready" -q -h "$folder" -p "$port"; do
    kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
    sleep 0.05
  done
}
start "$@"
printf '%s\n' "$folder"
while read -r word; do
  case $word in
    crash) kill -QUIT "$server"; wait "$server" || :; server= ;;
    start) start "$@" ;;
    restart) kill -INT "$server"; wait "$server" || :; start "$@" ;;
  esac
  printf '%s\n' "$word"
done
"#;

/// A server.
pub struct Postgres {
    reached: Reached,
    databases: AtomicU32,
    template: Mutex<Option<String>>,
    /// Copies of the template that nobody uses any more, emptied.
    copies: Mutex<Vec<String>>,
}

enum Reached {
    ByUrl(String),
    Contained(Container),
    Own { folder: PathBuf, port: u16, script: Mutex<Script> },
}

/// The running script: it ends with its standard input.
struct Script {
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// A database that is dropped with this.
pub struct Database {
    /// Its name.
    pub name: String,
    server: &'static Postgres,
    /// Whether it is emptied and used again, instead of being dropped.
    used_again: bool,
}

/// Empties every table but those that say what the schema is. Making and dropping a database takes ten times as long.
const EMPTY: &str = "DO $$ BEGIN EXECUTE (
    SELECT 'TRUNCATE ' || string_agg(quote_ident(tablename), ', ') || ' RESTART IDENTITY' FROM pg_tables
    WHERE schemaname = 'public' AND tablename NOT IN ('schema_info', '_sqlx_migrations')); END $$";

/// The server that all tests of this process share, or `None` after saying, once, that `what` is skipped.
pub fn server(what: &str) -> Option<&'static Postgres> {
    static SERVER: OnceLock<Option<Postgres>> = OnceLock::new();
    let made = SERVER.get_or_init(|| match std::env::var(URL) {
        _ if !are_wanted(what) => None,
        Ok(url) if !url.is_empty() => Some(Postgres::new(Reached::ByUrl(url))),
        _ => Postgres::contained().or_else(|| Postgres::start(&[NOT_DURABLE]).map_err(|why| skip(what, &why)).ok()),
    });
    made.as_ref()
}

/// A server of a test's own, which it may [`crash`](Postgres::crash), or `None` after saying that `what` is skipped.
pub fn own(what: &str) -> Option<&'static Postgres> {
    start(what, &[NOT_DURABLE])
}

/// The server that [`URL`] names, or one of a test's own that waits for its disk as in production, for tests of how long it
/// takes; `None` after saying that `what` is skipped.
pub fn durable(what: &str) -> Option<&'static Postgres> {
    if std::env::var(URL).is_ok_and(|url| !url.is_empty()) {
        return server(what);
    }
    start(what, &[])
}

fn start(what: &str, settings: &[&str]) -> Option<&'static Postgres> {
    if !are_wanted(what) {
        return None;
    }
    let started = Postgres::start(settings).map_err(|why| skip(what, &why)).ok();
    // Databases know their server for ever; it ends with this process.
    started.map(|server| &*Box::leak(Box::new(server)))
}

/// Whether there may be servers; says that `what` is skipped where not.
fn are_wanted(what: &str) -> bool {
    let never = std::env::var(SERVERS).is_ok_and(|wish| wish == "never");
    if never {
        skip(what, &format!("{SERVERS} is `never`"));
    }
    !never
}

/// Says, past the capturing of tests' output, that something was skipped, and why; in the full run it fails instead.
pub fn skip(what: &str, why: &str) {
    assert!(std::env::var_os(REQUIRE_ALL).is_none(), "{what} must not be skipped in the full run: {why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {why}");
}

/// The folders of `PATH`.
fn path() -> Vec<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect()
}

/// Where Debian puts PostgreSQL's programs, the newest first.
fn debians() -> Vec<PathBuf> {
    let mut versions: Vec<u32> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable();
    versions.iter().rev().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect()
}

/// Where the server's programs are.
pub fn programs() -> Option<PathBuf> {
    let mut folders = path().into_iter().chain(debians());
    folders.find(|folder| folder.join("initdb").is_file() && folder.join("pg_isready").is_file())
}

/// The client of this machine. What Debian has in `PATH` is a script around it, which takes ten times as long to start.
fn psql() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || debians().into_iter().chain(path()).map(|folder| folder.join("psql")).find(|path| path.is_file());
    FOUND.get_or_init(find).as_deref()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the system has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Everything but letters and digits escaped, as it stands in a URL.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            byte if byte.is_ascii_alphanumeric() => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

impl Postgres {
    fn new(reached: Reached) -> Self {
        Self { reached, databases: AtomicU32::new(0), template: Mutex::default(), copies: Mutex::default() }
    }

    /// One in a container, where there are to be any.
    fn contained() -> Option<Self> {
        let mut arguments = vec!["postgres".to_owned()];
        let settings = SETTINGS.iter().chain(&[NOT_DURABLE]);
        arguments.extend(settings.flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()]));
        let container = containers::start(Recipe {
            image: IMAGE,
            entrypoint: None,
            arguments,
            environment: vec![("POSTGRES_PASSWORD", PASSWORD.to_owned())],
            files: Vec::new(),
            ports: vec![PORT],
        })?;
        // Over TCP: while it makes its first database, it listens on its socket only.
        let deadline = Instant::now() + PATIENCE;
        let serves = || container.exec(&["pg_isready", "--quiet", "--host=127.0.0.1"]).status();
        while !serves().is_ok_and(|status| status.success()) {
            assert!(container.runs() && Instant::now() < deadline, "Postgres does not serve:\n{}", container.log());
        }
        Some(Self::new(Reached::Contained(container)))
    }

    /// One of its own, with these settings besides its usual ones.
    fn start(settings: &[&str]) -> Result<Self, String> {
        let programs = programs()
            .ok_or_else(|| format!("neither is {URL} set nor PostgreSQL installed; tests/run installs it"))?;
        // Another process may have taken the port between its choice and its use.
        let mut attempts = (0..3).map(|_| Self::start_in(&programs, free_port(), settings));
        let last = attempts.find(|attempt| attempt.is_ok());
        last.unwrap_or_else(|| Self::start_in(&programs, free_port(), settings))
    }

    fn start_in(programs: &Path, port: u16, settings: &[&str]) -> Result<Self, String> {
        // The server refuses to run as root.
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--reset-env", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        command.args(["-c", SCRIPT, "sh"]).arg(programs).arg(port.to_string()).arg(PASSWORD).current_dir("/");
        command.args(SETTINGS.iter().chain(settings).flat_map(|setting| ["-c", *setting]));
        let mut script = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let mut folder = String::new();
        let mut stdout = BufReader::new(script.stdout.take().expect("it is piped"));
        stdout.read_line(&mut folder).map_err(|error| error.to_string())?;
        if folder.is_empty() {
            let output = script.wait_with_output().map_err(|error| error.to_string())?;
            return Err(format!("PostgreSQL does not start: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let folder = PathBuf::from(folder.trim_end());
        let stdin = script.stdin.take().expect("it is piped");
        let script = Mutex::new(Script { _child: script, stdin, stdout });
        Ok(Self::new(Reached::Own { folder, port, script }))
    }

    /// Ends a server of one's own in the middle of whatever it does, and every connection with it; its data stay.
    pub fn crash(&self) {
        self.tell("crash");
    }

    /// Starts it again after a [`crash`](Self::crash), and waits until it serves.
    pub fn start_again(&self) {
        self.tell("start");
    }

    /// Ends it in an orderly way, which ends every connection and loses nothing, starts it again, and waits until it serves.
    pub fn restart(&self) {
        self.tell("restart");
    }

    fn tell(&self, word: &str) {
        let Reached::Own { script, .. } = &self.reached else {
            panic!("only a server of one's own can be told to {word}")
        };
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(script.stdin, "{word}").expect("the script reads what it is told");
        let mut answer = String::new();
        script.stdout.read_line(&mut answer).expect("the script answers");
        assert_eq!(answer.trim_end(), word, "the script could not do it");
    }

    /// The server's folder, where it is this process's own, on this machine.
    pub fn folder(&self) -> Option<&Path> {
        match &self.reached {
            Reached::ByUrl(_) | Reached::Contained(_) => None,
            Reached::Own { folder, .. } => Some(folder),
        }
    }

    /// The URL of a database: over the socket, where there is one.
    pub fn url(&self, database: &str) -> String {
        match &self.reached {
            Reached::ByUrl(url) => {
                let (address, query) = url.split_once('?').unwrap_or((url, ""));
                let (server, _) = address.rsplit_once('/').unwrap_or((address, ""));
                format!("{server}/{database}?{query}")
            }
            Reached::Contained(_) => self.tcp_url(database, "disable"),
            Reached::Own { folder, port, .. } => {
                let socket = escaped(&folder.to_string_lossy());
                format!("postgres://postgres@{socket}:{port}/{database}?sslmode=disable")
            }
        }
    }

    /// The URL of a database over TCP, with a password.
    pub fn tcp_url(&self, database: &str, sslmode: &str) -> String {
        let Some((port, password)) = self.tcp_parts() else { return self.url(database) };
        format!("postgres://postgres:{}@127.0.0.1:{port}/{database}?sslmode={sslmode}", escaped(password))
    }

    /// What the parts of [`tcp_url`](Self::tcp_url) are: the port and the password of `postgres` at 127.0.0.1.
    pub fn tcp_parts(&self) -> Option<(u16, &'static str)> {
        match &self.reached {
            Reached::ByUrl(_) => None,
            Reached::Contained(container) => Some((container.port(PORT), PASSWORD)),
            Reached::Own { port, .. } => Some((*port, PASSWORD)),
        }
    }

    /// A client of a database, to be told statements: this machine's, or else that of the server's container.
    fn client(&self, database: &str) -> Command {
        let mut command = match (psql(), &self.reached) {
            (None, Reached::Contained(container)) => {
                container.exec(&["psql", "--username=postgres", "--dbname", database])
            }
            (found, _) => {
                let mut command = Command::new(found.unwrap_or(Path::new("psql")));
                command.arg(self.url(database));
                command
            }
        };
        command.args(["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "-f", "-"]).stdin(Stdio::piped());
        command
    }

    /// Runs statements in a database, each by itself: what they answered, columns separated by `|`.
    #[track_caller]
    pub fn run(&self, database: &str, statements: &str) -> String {
        let mut command = self.client(database);
        command.args(["--tuples-only", "--no-align"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut psql = command.spawn().unwrap_or_else(|error| panic!("psql: {error}"));
        let mut stdin = psql.stdin.take().expect("it is piped");
        stdin.write_all(statements.as_bytes()).expect("psql reads what it is told");
        drop(stdin);
        let output = psql.wait_with_output().expect("psql ends");
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn fresh_name(&self) -> String {
        format!("foundry_test_{}_{}", std::process::id(), self.databases.fetch_add(1, Ordering::Relaxed))
    }

    /// An empty database.
    pub fn database(&'static self) -> Database {
        let name = self.fresh_name();
        // Never the collation of bytes, so that tests notice where the schema does not ask for that.
        let locale = "ENCODING UTF8 LOCALE 'C.UTF-8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
        self.run("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 {locale}"));
        Database { name, server: self, used_again: false }
    }

    /// A copy of a database in which `prepare` has made the schema, once for all copies of this process; it is given the
    /// URL. The schema must stay as it is.
    pub fn copy(&'static self, prepare: impl FnOnce(&str)) -> Database {
        if let Some(name) = self.copies.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Database { name, server: self, used_again: true };
        }
        // Held while copying: a database cannot be copied while somebody is connected.
        let mut template = self.template.lock().unwrap_or_else(PoisonError::into_inner);
        let template = template.get_or_insert_with(|| {
            let database = self.database();
            prepare(&database.url());
            let name = database.name.clone();
            std::mem::forget(database);
            name
        });
        let name = self.fresh_name();
        self.run("postgres", &format!("CREATE DATABASE {name} TEMPLATE {template}"));
        Database { name, server: self, used_again: self.tcp_parts().is_some() }
    }
}

impl Database {
    /// Its URL: over the socket, where there is one.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// Its server.
    pub fn server(&self) -> &'static Postgres {
        self.server
    }

    /// Its URL over TCP, to a port of this machine that leads to its server; `None` for a server that is not one's own.
    pub fn url_through(&self, port: u16) -> Option<String> {
        let (_, password) = self.server.tcp_parts()?;
        let (name, password) = (&self.name, escaped(password));
        Some(format!("postgres://postgres:{password}@127.0.0.1:{port}/{name}?sslmode=disable"))
    }

    /// Locks a table against everybody, until what is returned is dropped.
    pub fn lock(&self, table: &str) -> Lock {
        let mut command = self.server.client(&self.name);
        let mut psql = command.spawn().unwrap_or_else(|error| panic!("psql: {error}"));
        let statements = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;\n");
        psql.stdin.as_mut().expect("it is piped").write_all(statements.as_bytes()).expect("psql reads what it is told");
        let held = format!(
            "SELECT count(*) FROM pg_locks WHERE relation = '{table}'::regclass AND granted AND mode = 'AccessExclusiveLock'"
        );
        while self.run(&held) != "1" {
            let ended = psql.try_wait().expect("it is our child");
            assert!(ended.is_none(), "psql ended ({ended:?}) before it had the lock");
        }
        Lock(psql)
    }

    /// Runs statements in it.
    #[track_caller]
    pub fn run(&self, statements: &str) -> String {
        self.server.run(&self.name, statements)
    }
}

/// A lock, which ends with this.
pub struct Lock(Child);

impl Drop for Lock {
    fn drop(&mut self) {
        // The server rolls back what a client leaves behind.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if self.used_again {
            self.run(EMPTY);
            self.server.copies.lock().unwrap_or_else(PoisonError::into_inner).push(std::mem::take(&mut self.name));
        } else {
            self.server.run("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}
