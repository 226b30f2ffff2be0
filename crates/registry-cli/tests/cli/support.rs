//! Runs the real binary in an environment of its own.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

#[path = "../../../registry-client/tests/client/support.rs"]
pub mod server;
#[path = "terminal.rs"]
mod terminal;

pub use terminal::Terminal;

/// A home folder, and what is run in it.
pub struct Home {
    pub folder: TempDir,
    /// Set for every command.
    pub variables: Vec<(&'static str, String)>,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    pub fn new() -> Self {
        Self { folder: TempDir::new().expect("a folder"), variables: Vec::new() }
    }

    /// A home where `REGISTRY_SERVER` and `REGISTRY_TOKEN` are set.
    pub fn with_server(url: &str) -> Self {
        let mut home = Self::new();
        home.variables = vec![("REGISTRY_SERVER", url.to_owned()), ("REGISTRY_TOKEN", "s3cret".to_owned())];
        home
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn credentials(&self) -> std::path::PathBuf {
        self.path().join("config/registry-cli/credentials.json")
    }

    /// The command, in this home, with nothing else in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_registry-cli"));
        command.args(arguments).env_clear().current_dir(self.path()).stdin(Stdio::null());
        // A program compiled with coverage counters would leave them in its working folder, which tests look at.
        command.envs(std::env::var_os("LLVM_PROFILE_FILE").map(|path| ("LLVM_PROFILE_FILE", path)));
        command.env("HOME", self.path()).env("XDG_CONFIG_HOME", self.path().join("config"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        let output = blocking(move || command.output().expect("it starts")).await;
        Ended::of(output)
    }

    /// The same with this on stdin.
    pub async fn run_with_input(&self, arguments: &[&str], input: &'static str) -> Ended {
        let mut command = self.command(arguments);
        let output = blocking(move || {
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
            // A command that does not read its input ends before it is written.
            drop(child.stdin.take().expect("piped").write_all(input.as_bytes()));
            child.wait_with_output().expect("it ends")
        })
        .await;
        Ended::of(output)
    }
}

impl Ended {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(!(stdout.contains("s3cret") || stderr.contains("s3cret")), "the token is printed: {stdout} {stderr}");
        Self { code: output.status.code().unwrap_or(-1), stdout, stderr }
    }

    /// This, if it ended well and said nothing on stderr.
    #[track_caller]
    pub fn silently(self) -> Self {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{self:?}");
        self
    }

    #[track_caller]
    pub fn document(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).expect("one JSON document on stdout")
    }
}

pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}
