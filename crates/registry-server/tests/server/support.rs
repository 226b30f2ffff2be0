//! Starting the program, and talking to it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long a test waits for what takes a fraction of a second.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A token for the configuration.
pub const TOKEN: &str = "a-token-that-is-long-enough";

/// A folder in which the program is started.
pub struct Place {
    folder: Arc<TempDir>,
    variables: Vec<(String, String)>,
}

impl Place {
    /// An empty one.
    pub fn new() -> Self {
        Self { folder: Arc::new(TempDir::new().unwrap()), variables: Vec::new() }
    }

    /// One whose `config.yaml` has [`TOKEN`].
    pub fn with_token() -> Self {
        Self::new().file("config.yaml", &format!("auth: {{tokens: [{TOKEN}]}}\n"))
    }

    pub fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.path(name), text).unwrap();
        self
    }

    pub fn variable(mut self, name: &str, text: &str) -> Self {
        self.variables.push((name.to_owned(), text.to_owned()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_registry-server"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        // Nothing of the machine's own environment may decide anything, but where coverage counters are written.
        command.env_clear().envs(std::env::var_os("LLVM_PROFILE_FILE").map(|path| ("LLVM_PROFILE_FILE", path)));
        command.envs(self.variables.iter().map(|(name, text)| (name, text)));
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::from(self.command(arguments).output().unwrap())
    }

    /// Starts a server on a free port.
    #[track_caller]
    pub fn serve(&self, arguments: &[&str]) -> Server {
        let arguments = [&["-port", "0"], arguments].concat();
        let mut child = self.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let stdout = child.stdout.take().unwrap();
        let _folder = Arc::clone(&self.folder);
        let mut server = Server { _folder, child, stdout, lines, log: Vec::new(), address: ([127, 0, 0, 1], 0).into() };
        let serving = server.wait_for("serving");
        server.address = serving["address"].as_str().unwrap().parse().unwrap();
        server
    }
}

/// What a program left.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A running server; dropping it kills it.
pub struct Server {
    /// Where it runs: it stays until the server is gone.
    _folder: Arc<TempDir>,
    child: Child,
    stdout: ChildStdout,
    lines: Receiver<String>,
    log: Vec<Value>,
    pub address: SocketAddr,
}

impl Server {
    /// Reads the log to the line with that message.
    #[track_caller]
    pub fn wait_for(&mut self, message: &str) -> Value {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("no {message:?} in the log: {:#?}", self.log);
            };
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            self.log.push(line.clone());
            if line["message"] == message {
                return line;
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end: the exit code, standard output, and the whole log.
    pub fn end(mut self) -> (Option<i32>, String, Vec<Value>) {
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let code = self.child.wait().unwrap().code();
        let rest = std::iter::from_fn(|| self.lines.recv_timeout(PATIENCE).ok());
        let rest: Vec<Value> = rest.map(|line| serde_json::from_str(&line).unwrap()).collect();
        let mut log = std::mem::take(&mut self.log);
        log.extend(rest);
        (code, stdout, log)
    }

    /// SIGTERM, then [`end`](Self::end).
    pub fn stop(self) -> (Option<i32>, String, Vec<Value>) {
        self.signal(Signal::TERM);
        self.end()
    }

    /// Who talks to it.
    pub fn client(&self) -> Client {
        Client(self.address)
    }

    pub fn connect(&self) -> TcpStream {
        self.client().connect()
    }

    /// One request; `headers` are whole lines.
    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.client().request(method, path, headers, body)
    }

    /// One request with [`TOKEN`].
    pub fn authorized(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.client().authorized(method, path, body)
    }
}

/// Talks to a server; any number of threads may have one.
#[derive(Clone, Copy)]
pub struct Client(SocketAddr);

impl Client {
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.0).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One request; `headers` are whole lines.
    pub fn request(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(head(method, path, headers, body.len()).as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        Answer::read(&mut stream)
    }

    /// One request with [`TOKEN`].
    pub fn authorized(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.request(method, path, &[&format!("Authorization: Bearer {TOKEN}")], body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn head(method: &str, path: &str, headers: &[&str], length: usize) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for header in headers {
        head += &format!("{header}\r\n");
    }
    head + &format!("Content-Length: {length}\r\n\r\n")
}

/// An answer on a connection that ends with it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn read(stream: &mut impl std::io::Read) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// The files below a folder, relative to it, sorted.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}
