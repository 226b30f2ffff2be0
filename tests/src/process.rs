//! A `registry-server` process started with a command line of the test's own, where [`Server`](crate::Server)'s fixed
//! configuration would hide what is tested: flags, environment, first start, exit codes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::server::server_binary;
use crate::wait::{eventually, pause};

/// A running process. Dropping it kills it.
pub struct Process {
    child: Child,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// The server's binary in `folder`, with nothing in its environment that sets a configuration key.
pub fn server_command(folder: &Path) -> Command {
    let mut command = Command::new(server_binary());
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let prefixes = ["FOUNDRY_", "DB_", "S3_", "AWS_", "HTTP_", "GRPC_"];
        let names = ["PORT", "BASE_URL", "DATABASE_URL", "DYNAMODB_TABLE", "LOG_LEVEL", "NPM_FALLBACK"];
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    command
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the system has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// The most memory that a process has had, in bytes; `None` once it has ended.
pub fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().expect("it is a number") << 10)
}

impl Process {
    /// Starts a command.
    pub fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = collect(child.stdout.take().expect("it is piped"));
        let stderr = collect(child.stderr.take().expect("it is piped"));
        Self { child, stdout, stderr }
    }

    /// Runs a command to its end, which has to come soon.
    pub fn run(command: &mut Command) -> Ended {
        Self::start(command).wait()
    }

    /// The address that it serves on, once it does.
    #[track_caller]
    pub fn address(&mut self) -> SocketAddr {
        let mut ended = None;
        let address = eventually("the server serves", || {
            ended = self.child.try_wait().expect("it is our child");
            let address = self.log().iter().find_map(bound_address);
            if ended.is_some() { Some(address) } else { address.map(Some) }
        });
        address.unwrap_or_else(|| panic!("it ended ({ended:?}) before it served: {}", self.stderr()))
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// The lines of standard error that are JSON.
    pub fn log(&self) -> Vec<serde_json::Value> {
        self.stderr().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it was stopped, and does not run until it is told to.
    pub fn is_stopped(&self) -> bool {
        is_stopped(self.pid())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it is our child");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits for its end, which has to come soon.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let status: ExitStatus = eventually("the process ends", || self.child.try_wait().expect("it is our child"));
        // The pipes' readers hold the other ends until they have read all.
        while Arc::strong_count(&self.stdout) > 1 || Arc::strong_count(&self.stderr) > 1 {
            pause();
        }
        Ended { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Coverage is written at an orderly end.
        if std::env::var_os("LLVM_PROFILE_FILE").is_some() && !self.has_ended() {
            self.signal(rustix::process::Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(10);
            while !self.has_ended() && Instant::now() < deadline {
                pause();
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "the process wrote:\n{}\n{}", self.stdout(), self.stderr());
        }
    }
}

/// Whether a process was stopped by a signal.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program, which is in brackets, may hold anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

fn bound_address(line: &serde_json::Value) -> Option<SocketAddr> {
    (line["message"] == "serving").then(|| line["address"].as_str()?.parse().ok()).flatten()
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.lock().expect("no reader panics")).into_owned()
}

fn collect(mut pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let collected = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&collected);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            sink.lock().expect("no reader panics").extend_from_slice(&buffer[..read]);
        }
    });
    collected
}
