//! Surroundings of their own for podman, buildah and skopeo: nothing that the machine has is used or changed.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A folder with the configuration, the images and the credentials of podman, buildah and skopeo.
pub struct Containers {
    folder: TempDir,
}

impl Default for Containers {
    fn default() -> Self {
        Self::new()
    }
}

impl Containers {
    /// Empty ones.
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let root = folder.path().display();
        let files = [
            (
                "containers.conf",
                // Locks in files: those in shared memory are one set for the machine, and a first start frees them all.
                // Limits are given since the defaults ask for more than a container of our own may have.
                format!(
                    "[containers]\nnetns = \"host\"\ncgroups = \"enabled\"\nlog_driver = \"k8s-file\"\n\
                     default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
                     [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n\
                     lock_type = \"file\"\ntmp_dir = \"{root}/libpod\"\nvolume_path = \"{root}/volumes\"\n\
                     network_config_dir = \"{root}/networks\"\n"
                ),
            ),
            (
                "storage.conf",
                format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{root}/images\"\nrunroot = \"{root}/state\"\n"),
            ),
            ("registries.conf", "unqualified-search-registries = []\n".to_owned()),
            ("auth.json", "{}".to_owned()),
        ];
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file can be written");
        }
        for name in ["tmp", "run"] {
            fs::create_dir(folder.path().join(name)).expect("a folder can be made");
        }
        Self { folder }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `program` in these surroundings.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (variable, name) in [
            ("CONTAINERS_CONF", "containers.conf"),
            ("CONTAINERS_STORAGE_CONF", "storage.conf"),
            ("CONTAINERS_REGISTRIES_CONF", "registries.conf"),
            ("REGISTRY_AUTH_FILE", "auth.json"),
            ("TMPDIR", "tmp"),
            ("XDG_RUNTIME_DIR", "run"),
        ] {
            command.env(variable, self.path().join(name));
        }
        command.env("HOME", self.path()).current_dir(self.path());
        command
    }
}
