//! A docker daemon of its own, and its client.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use super::{is_root, tools};

const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon that keeps everything in a folder of its own. Dropping it stops it and whatever it started.
pub struct Docker {
    daemon: Child,
    client: PathBuf,
    folder: TempDir,
}

impl Docker {
    /// Starts one whose containers have this machine's network or none, or says that `test` is skipped.
    #[track_caller]
    pub fn start(test: &str) -> Option<Self> {
        Self::start_in(test, &[], &["--bridge=none"])
    }

    /// Starts one whose containers have networks of their own, in a network namespace that ends with it: nothing but
    /// what runs [inside](Self::inside) reaches the ports that they publish. Or says that `test` is skipped.
    #[track_caller]
    pub fn with_networks(test: &str) -> Option<Self> {
        let [unshare, ip, _] = tools(test, ["unshare", "ip", "docker-proxy"])?;
        let script = format!("{} link set lo up && exec \"$@\"", ip.display());
        let unshare = unshare.display().to_string();
        Self::start_in(test, &[&unshare, "--net", "--", "sh", "-c", &script, "sh"], &[])
    }

    #[track_caller]
    fn start_in(test: &str, around: &[&str], arguments: &[&str]) -> Option<Self> {
        let [daemon, client, setpriv] = tools(test, ["dockerd", "docker", "setpriv"])?;
        if !is_root(test) {
            return None;
        }
        // The path of a Unix socket holds at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("d").rand_bytes(6).tempdir().expect("a folder can be made");
        let path = folder.path();
        let log = fs::File::create(path.join("log")).expect("a file can be made");
        // It ends with this thread whatever happens.
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "TERM", "--"]).args(around).arg(daemon).args(arguments);
        command.args(["--storage-driver=vfs", "--iptables=false", "--ip-forward=false"]);
        command.arg("--default-ulimit=nofile=1024:1024");
        command.arg("--data-root").arg(path.join("data")).arg("--exec-root").arg(path.join("exec"));
        command.arg("--pidfile").arg(path.join("pid")).arg("-H").arg(socket(path));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let daemon = command.spawn().expect("dockerd can be started");
        let mut docker = Self { daemon, client, folder };
        docker.wait_until_it_answers();
        Some(docker)
    }

    #[track_caller]
    fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.command().arg("version").output().expect("docker can be started").status.success() {
            let ended = self.daemon.try_wait().expect("dockerd is our child");
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "dockerd does not answer ({ended:?}):\n{}", log());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// A folder for the test's files.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where it listens, as `DOCKER_HOST` has it.
    pub fn address(&self) -> String {
        socket(self.path())
    }

    /// A program in the daemon's network.
    pub fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.daemon.id())).arg("--").arg(program);
        command
    }

    /// What `ask` says on a thread in the daemon's network.
    #[track_caller]
    pub fn ask_inside<T: Send>(&self, ask: impl FnOnce() -> T + Send) -> T {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.daemon.id())).expect("the daemon has a network");
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may go there");
                ask()
            });
            asking.join().unwrap_or_else(|panicked| std::panic::resume_unwind(panicked))
        })
    }

    /// The client, talking to this daemon, with credentials of its own.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.client);
        command.env("DOCKER_HOST", socket(self.path())).env("DOCKER_CONFIG", self.path().join("client"));
        // The builder of the daemon itself: the other one is a plug-in that may not be there.
        command.env("DOCKER_BUILDKIT", "0").env_remove("DOCKER_CONTEXT").current_dir(self.path());
        command
    }
}

fn socket(folder: &Path) -> String {
    format!("unix://{}/socket", folder.display())
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = self.daemon.try_wait() {
            if Instant::now() > deadline {
                // Its own child, containerd, ends with it.
                let _ = self.daemon.kill();
                let _ = self.daemon.wait();
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        // The namespace that containers without a network share stays mounted.
        let _ = Command::new("umount").arg(self.path().join("exec/netns/default")).stderr(Stdio::null()).status();
    }
}
