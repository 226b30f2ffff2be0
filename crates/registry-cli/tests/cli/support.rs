//! Runs the real binary in an environment of its own.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

#[path = "../../../registry-client/tests/client/support.rs"]
pub mod server;

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

/// A terminal, seen from the side of the person.
pub struct Terminal(std::fs::File);

impl Terminal {
    pub fn new() -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("usable");
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).expect("resized");
        Self(master.into())
    }

    /// The side of the program.
    pub fn side(&self) -> std::fs::File {
        let name = rustix::pty::ptsname(&self.0, Vec::new()).expect("it has a name").into_string().expect("UTF-8");
        std::fs::OpenOptions::new().read(true).write(true).open(name).expect("it opens")
    }

    /// Whether it shows what is typed.
    pub fn echoes(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.0).expect("a terminal");
        modes.local_modes.contains(rustix::termios::LocalModes::ECHO)
    }

    pub fn type_line(&self, line: &str) {
        (&self.0).write_all(format!("{line}\n").as_bytes()).expect("typed");
    }

    /// What it shows until no program has it open any more.
    pub fn read_to_end(&self) -> String {
        let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
        // Linux ends a terminal without writers with EIO.
        while let Ok(read @ 1..) = (&self.0).read(&mut piece) {
            seen.extend_from_slice(&piece[..read]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }
}

pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}
