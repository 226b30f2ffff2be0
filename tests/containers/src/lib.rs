//! Servers for tests in containers, by testcontainers: where no address is given and a Docker engine can provide them.
//!
//! Here is decided whether there are any: whoever needs a server asks for one, and starts its own if there is none.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use testcontainers::core::ContainerPort;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _};

/// `always`: servers come from containers, or the test fails. `never`: they do not. Otherwise they do where a Docker
/// engine of this machine answers and can provide the image.
pub const CONTAINERS: &str = "FOUNDRY_TEST_CONTAINERS";

/// Removes a container once its input ends: with the process that started it, however that ends. No other container is
/// needed for that, whose image would have to be pulled.
const REMOVE: &str = r#"trap '' HUP INT TERM; cat >/dev/null; exec docker rm --force --volumes "$0" >/dev/null 2>&1"#;

/// What runs in a container.
pub struct Recipe {
    /// The image: name, tag. It is pulled if the engine does not have it.
    pub image: (&'static str, &'static str),
    /// The program, if it is not the image's own.
    pub entrypoint: Option<&'static str>,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<(&'static str, String)>,
    /// Files that are put into it: path, contents.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// The TCP ports that are to be reached.
    pub ports: Vec<u16>,
}

/// A running container, which is removed with this, and with this process.
pub struct Container {
    /// Its name.
    pub name: String,
    ports: BTreeMap<u16, u16>,
    guard: Child,
    guards_input: Option<ChildStdin>,
}

/// Starts a container, and does not wait until what runs in it serves. `None` if there are to be none, or none can be
/// had.
///
/// # Panics
/// If there have to be containers, and this cannot be started.
pub fn start(recipe: Recipe) -> Option<Container> {
    let wish = std::env::var(CONTAINERS).unwrap_or_default();
    let demanded = match wish.as_str() {
        "never" => return None,
        "always" => true,
        "" => false,
        other => panic!("{CONTAINERS}={other} is neither `always` nor `never`"),
    };
    let name = format!("{}:{}", recipe.image.0, recipe.image.1);
    match engine().and_then(|()| Container::start(recipe)) {
        Ok(container) => Some(container),
        Err(why) => {
            assert!(!demanded, "{CONTAINERS}={wish}, but there is no container of {name}: {why}");
            None
        }
    }
}

/// Whether the client reaches an engine: it is what removes containers.
fn engine() -> Result<(), String> {
    docker(&["version", "--format", "{{.Server.Version}}"]).map(drop)
}

/// What the client of the engine prints.
fn docker(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("docker");
    command.args(arguments).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("docker: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

impl Container {
    fn start(recipe: Recipe) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("foundry-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Before there is anything to remove.
        let mut guard = Command::new("sh");
        guard.args(["-c", REMOVE, &name]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut guard = guard.spawn().map_err(|error| format!("sh: {error}"))?;
        let guards_input = guard.stdin.take();
        let mut container = Self { name, ports: BTreeMap::new(), guard, guards_input };
        container.ports = started(recipe, container.name.clone())?;
        // That it is the same engine that the client removes it from.
        docker(&["container", "inspect", "--format", "{{.Id}}", &container.name])?;
        Ok(container)
    }

    /// The port of 127.0.0.1 that leads to this one of the container.
    #[track_caller]
    pub fn port(&self, port: u16) -> u16 {
        self.ports[&port]
    }

    /// A program inside, which can be given standard input.
    pub fn exec(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", "--interactive", &self.name]).args(arguments);
        command
    }

    /// Whether it still runs.
    pub fn runs(&self) -> bool {
        docker(&["container", "inspect", "--format", "{{.State.Running}}", &self.name]).is_ok_and(|text| text == "true")
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        let output = Command::new("docker").args(["logs", &self.name]).output();
        output.map_or_else(
            |error| error.to_string(),
            |output| [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat(),
        )
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.guards_input.take());
        let _ = self.guard.wait();
    }
}

/// Starts it under this name: the ports of 127.0.0.1 that lead to each of its own.
fn started(recipe: Recipe, name: String) -> Result<BTreeMap<u16, u16>, String> {
    // On a thread and a runtime of its own: whoever asks may be in the middle of another one.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(async {
            let wanted = recipe.ports.clone();
            let container = create(recipe, name).await.map_err(|error| error.to_string())?;
            let host = container.get_host().await.map_err(|error| error.to_string())?.to_string();
            if host != "localhost" {
                return Err(format!("the engine is not on this machine, but at {host}"));
            }
            let mut ports = BTreeMap::new();
            for port in wanted {
                let found = container.get_host_port_ipv4(port).await.map_err(|error| error.to_string())?;
                ports.insert(port, found);
            }
            // It outlives this runtime; the guard removes it.
            std::mem::forget(container);
            Ok(ports)
        })
    });
    thread.join().unwrap_or_else(|_| Err("testcontainers panicked".to_owned()))
}

async fn create(
    recipe: Recipe,
    name: String,
) -> Result<ContainerAsync<GenericImage>, testcontainers::TestcontainersError> {
    let mut image = GenericImage::new(recipe.image.0, recipe.image.1);
    for port in recipe.ports {
        image = image.with_exposed_port(ContainerPort::Tcp(port));
    }
    if let Some(entrypoint) = recipe.entrypoint {
        image = image.with_entrypoint(entrypoint);
    }
    let mut request = image.with_container_name(name).with_cmd(recipe.arguments);
    for (name, value) in recipe.environment {
        request = request.with_env_var(name, value);
    }
    for (path, contents) in recipe.files {
        request = request.with_copy_to(path, contents);
    }
    request.start().await
}
