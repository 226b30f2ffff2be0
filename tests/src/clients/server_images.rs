//! Images of servers, made of what is installed on this machine, under the names by which others would pull them. They
//! are started as the real ones are.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Docker, tools};
use crate::tools::{run, succeed};

/// Postgres's, as docker-library's is used: its variables make the database, and arguments are those of the server.
const POSTGRES: &str = r#"#!/bin/sh
set -eu
data=/var/lib/postgresql/data user=${POSTGRES_USER:-postgres}
if [ ! -s "$data/PG_VERSION" ]; then
  printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
  initdb --pgdata="$data" --username="$user" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 \
    --encoding=UTF8 --locale=C.UTF-8 --no-sync
  printf 'host all all all scram-sha-256\n' >>"$data/pg_hba.conf"
  database=${POSTGRES_DB:-$user}
  [ "$database" = postgres ] || printf 'CREATE DATABASE "%s"\n' "$database" | postgres --single -j -D "$data" postgres
fi
exec "$@" -D "$data" -h '*' -k /tmp
"#;

/// The user of Postgres, in its image.
const POSTGRES_USER: u32 = 999;

/// The file system of an image.
struct Root(TempDir);

impl Root {
    /// With a shell, and programs for it.
    fn new(busybox: &Path) -> Self {
        let root = Self(TempDir::new().expect("a folder can be made"));
        for folder in ["bin", "data", "etc", "tmp"] {
            fs::create_dir(root.path(folder)).expect("a folder can be made");
        }
        fs::set_permissions(root.path("tmp"), fs::Permissions::from_mode(0o1777)).expect("it is ours");
        fs::set_permissions(root.path(""), fs::Permissions::from_mode(0o755)).expect("it is ours");
        fs::copy(busybox, root.path("bin/busybox")).expect("busybox can be copied");
        for name in ["cat", "sh", "wget"] {
            symlink("busybox", root.path("bin").join(name)).expect("a link can be made");
        }
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Copies files and folders to where they are on this machine.
    #[track_caller]
    fn copy<'a>(&self, paths: impl IntoIterator<Item = &'a str>) {
        let mut command = Command::new("cp");
        succeed(
            command
                .args(["--recursive", "--dereference", "--parents", "--target-directory"])
                .arg(self.path(""))
                .args(paths),
        );
    }

    /// Copies the shared libraries of these programs and libraries.
    #[track_caller]
    fn copy_libraries(&self, programs: &[PathBuf]) {
        let output = run(Command::new("ldd").args(programs));
        let listed = String::from_utf8_lossy(&output.stdout);
        // `name => path (address)`, or `path (address)` of the loader.
        let words = listed.lines().filter(|line| line.ends_with(')')).flat_map(str::split_whitespace);
        let mut libraries: Vec<&str> = words.filter(|word| word.starts_with('/')).collect();
        libraries.sort_unstable();
        libraries.dedup();
        self.copy(libraries);
    }

    /// Makes it an image.
    #[track_caller]
    fn import(self, docker: &Docker, name: &str, changes: &[&str]) {
        let mut archive = Command::new("tar")
            .args(["--create", "--file=-", "--directory"])
            .arg(self.path(""))
            .arg(".")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar can be started");
        let mut import = docker.command();
        import.arg("import").args(changes.iter().flat_map(|change| ["--change", change])).args(["-", name]);
        let output = import.stdin(archive.stdout.take().expect("it is piped")).output().expect("docker can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(archive.wait().expect("it is our child").success(), "tar failed");
    }
}

/// The regular files of a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("it can be read").path()).filter(|path| path.is_file()).collect()
}

/// An image of Postgres; `None` after saying that `test` is skipped.
#[track_caller]
pub fn postgres(docker: &Docker, name: &str, test: &str) -> Option<()> {
    let [busybox, _] = tools(test, ["busybox", "pg_isready"])?;
    let programs = crate::postgres::programs().expect("its client is installed, and so is the server");
    let installed = programs.parent().expect("programs lie in a folder");
    let root = Root::new(&busybox);
    let version = installed.file_name().expect("Debian's folder is named by the version").to_string_lossy();
    let shared = format!("/usr/share/postgresql/{version}");
    root.copy([&*programs.to_string_lossy(), &*installed.join("lib").to_string_lossy(), &shared]);
    root.copy(["/usr/share/zoneinfo", "/usr/lib/locale/C.utf8"]);
    let inside =
        |path: &Path| root.path(path.strip_prefix("/").expect("it is absolute").to_str().expect("it is ASCII"));
    // What compiles queries is as large as all the rest, and not needed.
    let libraries = inside(&installed.join("lib"));
    fs::remove_dir_all(libraries.join("bitcode")).expect("it can be removed");
    for file in files(&libraries).iter().filter(|file| file.to_string_lossy().contains("llvmjit")) {
        fs::remove_file(file).expect("it can be removed");
    }
    let mut linked = files(&inside(&programs));
    linked.extend(files(&libraries));
    root.copy_libraries(&linked);
    fs::write(root.path("etc/passwd"), format!("postgres:x:{POSTGRES_USER}:{POSTGRES_USER}::/:/bin/sh\n"))
        .expect("ours");
    let data = root.path("var/lib/postgresql/data");
    fs::create_dir_all(&data).expect("a folder can be made");
    chown(&data, Some(POSTGRES_USER), Some(POSTGRES_USER)).expect("root may give it away");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("it is ours");
    fs::write(root.path("entrypoint"), POSTGRES).expect("a file can be written");
    fs::set_permissions(root.path("entrypoint"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let changes = [
        &format!("ENV PATH={}:/bin PGHOST=/tmp", programs.display()),
        &format!("USER {POSTGRES_USER}:{POSTGRES_USER}"),
        "VOLUME /var/lib/postgresql/data",
        r#"ENTRYPOINT ["/entrypoint"]"#,
        r#"CMD ["postgres"]"#,
    ];
    root.import(docker, name, &changes);
    Some(())
}

/// An image of SeaweedFS; `None` after saying that `test` is skipped.
#[track_caller]
pub fn seaweedfs(docker: &Docker, name: &str, test: &str) -> Option<()> {
    let [busybox, weed] = tools(test, ["busybox", "weed"])?;
    let root = Root::new(&busybox);
    // Linked statically.
    fs::copy(weed, root.path("bin/weed")).expect("weed can be copied");
    root.import(docker, name, &["ENV PATH=/bin", "VOLUME /data", r#"ENTRYPOINT ["weed"]"#]);
    Some(())
}

/// An image of HAProxy; `None` after saying that `test` is skipped.
#[track_caller]
pub fn haproxy(docker: &Docker, name: &str, test: &str) -> Option<()> {
    let [busybox, haproxy] = tools(test, ["busybox", "haproxy"])?;
    let root = Root::new(&busybox);
    fs::copy(&haproxy, root.path("bin/haproxy")).expect("haproxy can be copied");
    root.copy_libraries(&[haproxy]);
    let command = r#"CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]"#;
    root.import(docker, name, &["ENV PATH=/bin", "USER 99:99", command]);
    Some(())
}
