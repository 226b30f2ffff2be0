//! `registry-cli` and the server, both real: the command lines that people type, and what each leaves on either side.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use registry_tests::oci::sha256;
use registry_tests::process::{Ended, server_command};
use registry_tests::relay::Break;
use registry_tests::server::{ADMIN, cli_binary};
use registry_tests::tools::succeed;
use registry_tests::{Process, Random, Relay, Server, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "../../crates/registry-cli/tests/cli/terminal.rs"]
mod terminal;
use terminal::Terminal;

/// A person's home folder, and what is set in their environment.
struct Home {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Home {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), variables: Vec::new() }
    }

    /// One where `REGISTRY_SERVER` and `REGISTRY_TOKEN` are set.
    fn at(url: &str) -> Self {
        let variables = vec![("REGISTRY_SERVER", url.to_owned()), ("REGISTRY_TOKEN", ADMIN.to_owned())];
        Self { variables, ..Self::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The command in this home, with nothing else in its environment.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(cli_binary());
        command.args(line.split_whitespace()).env_clear().current_dir(self.folder.path()).stdin(Stdio::null());
        // A program compiled with coverage counters would leave them in its working folder, which tests look at.
        command.envs(std::env::var_os("LLVM_PROFILE_FILE").map(|path| ("LLVM_PROFILE_FILE", path)));
        command.env("HOME", self.folder.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, line: &str) -> Ended {
        ended(self.command(line))
    }

    /// The same with this file as its input.
    fn run_with_input(&self, line: &str, name: &str) -> Ended {
        let mut command = self.command(line);
        command.stdin(fs::File::open(self.path(name)).unwrap());
        ended(command)
    }

    /// What it printed; it ends well and says nothing on standard error.
    #[track_caller]
    fn silently(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{line}: {ended:?}");
        ended.stdout
    }

    /// The one document that it printed, as one line; it ends well and says nothing on standard error.
    #[track_caller]
    fn document(&self, line: &str) -> Value {
        let printed = self.silently(&format!("{line} --json"));
        assert_eq!(printed.matches('\n').count(), 1, "{line}: {printed}");
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{line}: {error}: {printed}"))
    }

    /// It ends with this exit code, prints nothing and says what is wrong and then what to do next.
    #[track_caller]
    fn refused(&self, line: &str, code: i32, hint: &str) -> Ended {
        let ended = self.run(line);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{line}: {ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{line}: {ended:?}");
        let (_, after) = ended.stderr.split_once('\n').unwrap_or_default();
        assert!(after.contains(hint), "{hint} is not in {ended:?}");
        ended
    }
}

fn ended(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(!(stdout.contains(ADMIN) || stderr.contains(ADMIN)), "the token is printed: {stdout} {stderr}");
    Ended { code: output.status.code(), stdout, stderr }
}

/// `key` of each entry of a list.
fn column<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap()).collect()
}

#[test]
fn the_whole_life_of_an_artifact_as_it_is_typed() {
    let server = Server::start();
    let home = Home::new();
    let to = format!("--server {} --token {ADMIN}", server.url());
    let bytes = Random::new(1).bytes(3_000_000);
    let digest = sha256(&bytes);
    home.write("f", &bytes);

    let pushed = home.silently(&format!("push mypkg 1.0.0 ./f {to}"));
    assert_eq!(pushed, format!("Pushed mypkg 1.0.0: 2.86 MiB, {digest}\n"));
    let stored = server.get("/api/v1/artifacts/mypkg/1.0.0").expect(200);
    assert!(stored.body == bytes);
    assert_eq!(stored.header("content-disposition"), Some("attachment; filename=\"f\""));

    home.silently(&format!("push mypkg 1.10.0 ./f --filename model.bin --content-type application/x-model {to}"));
    home.silently(&format!("push mypkg 1.9.0 ./f {to}"));
    home.silently(&format!("push other 1 ./f {to}"));
    let described = server.request("HEAD", "/api/v1/artifacts/mypkg/1.10.0", &[], b"").expect(200);
    assert_eq!(described.header("content-type"), Some("application/x-model"));
    assert_eq!(described.header("content-disposition"), Some("attachment; filename=\"model.bin\""));

    let first_words = |table: String| {
        table.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect()
    };
    let listed: Vec<String> = first_words(home.silently(&format!("list {to}")));
    assert_eq!(listed, ["PACKAGE VERSIONS LATEST", "mypkg 3 1.10.0", "other 1 1"]);
    let found: Vec<String> = first_words(home.silently(&format!("search YPK {to}")));
    assert_eq!(found, ["PACKAGE VERSIONS LATEST", "mypkg 3 1.10.0"]);
    let versions: Vec<String> = first_words(home.silently(&format!("versions mypkg {to}")));
    assert_eq!(versions, ["VERSION SIZE UPLOADED", "1.0.0 2.86 MiB", "1.9.0 2.86 MiB", "1.10.0 2.86 MiB"]);

    let pulled = home.silently(&format!("pull mypkg 1.0.0 --output ./copy {to}"));
    assert_eq!(pulled, format!("Pulled mypkg 1.0.0 into ./copy: 2.86 MiB, {digest}\n"));
    assert!(home.read("copy") == bytes);
    // Without a name the one that was pushed; nothing is left but the file.
    home.silently(&format!("pull mypkg 1.10.0 {to}"));
    assert!(home.read("model.bin") == bytes);
    assert_eq!(home.names(), ["copy", "f", "model.bin"]);

    for (package, version) in [("mypkg", "1.0.0"), ("mypkg", "1.9.0"), ("mypkg", "1.10.0")] {
        let deleted = home.silently(&format!("delete {package} {version} {to}"));
        assert_eq!(deleted, format!("Deleted {package} {version}\n"));
        server.get(&format!("/api/v1/artifacts/{package}/{version}")).expect(404);
    }
    let kept = home.silently(&format!("gc {to}"));
    assert!(kept.starts_with("Deleted 0 blobs (0 B)"), "another package has the same bytes: {kept}");
    home.silently(&format!("delete other 1 {to}"));
    let would = home.silently(&format!("gc --dry-run {to}"));
    assert_eq!(would, "Would delete 1 blob (2.86 MiB)\n");
    let freed = home.silently(&format!("gc {to}"));
    assert!(freed.starts_with("Deleted 1 blob (2.86 MiB) and 1 object;"), "{freed}");
    let ended = home.run(&format!("list {to}"));
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(0), "", "there are no packages\n"));
}

#[test]
fn every_command_answers_in_json() {
    let server = Server::start();
    let home = Home::at(&server.url());
    home.write("f", b"hello");
    let digest = sha256(b"hello");

    let pushed = home.document("push p 1.0 f --content-type text/plain");
    assert_eq!(pushed, server.get("/api/v1/packages/p").expect(200).json()["versions"][0]);
    assert_eq!((&pushed["digest"], &pushed["filename"], &pushed["size"]), (&json!(digest), &json!("f"), &json!(5)));
    let expected = json!({
        "package": "p", "version": "1.0", "digest": digest, "size": 5, "content_type": "text/plain", "filename": "f",
        "output": "copy",
    });
    assert_eq!(home.document("pull p 1.0 --output copy"), expected);
    assert_eq!(home.document("list"), server.get("/api/v1/packages").expect(200).json());
    assert_eq!(home.document("search p"), server.get("/api/v1/packages?search=p").expect(200).json());
    assert_eq!(home.document("search q"), json!({ "packages": [] }));
    assert_eq!(home.document("versions p"), json!({ "package": "p", "versions": [pushed] }));
    assert_eq!(home.document("delete p 1.0"), json!({ "package": "p", "version": "1.0", "deleted": true }));
    let report = home.document("gc --dry-run");
    assert_eq!(
        (&report["dry_run"], &report["blobs_deleted"], &report["bytes_freed"]),
        (&json!(true), &json!(1), &json!(5))
    );
    assert_eq!(home.document("gc --grace 0s")["dry_run"], false);

    let created = home.document("token create ci --scope generic:p:pull --expires-in 1h");
    assert_eq!((&created["name"], &created["scopes"]), (&json!("ci"), &json!(["generic:p:pull"])));
    let secret = created["token"].as_str().unwrap();
    server.with_token(secret, "GET", "/api/v1/packages", &[], b"").expect(200);
    let listed = home.document("token list");
    let mut known = created.clone();
    known.as_object_mut().unwrap().remove("token");
    assert_eq!(listed, json!({ "tokens": [known] }));
    let id = created["id"].as_str().unwrap();
    assert_eq!(home.document(&format!("token revoke {id}")), json!({ "id": id, "revoked": true }));

    let file = home.path(".config/registry-cli/credentials.json");
    assert_eq!(home.document("login"), json!({ "server": server.url(), "file": file }));
    assert_eq!(home.document("logout"), json!({ "forgotten": [server.url()] }));
    let completions = home.document("completions bash");
    assert_eq!(completions["shell"], "bash");
    assert!(completions["script"].as_str().unwrap().contains("registry-cli"));

    // An error is one document too, on standard error.
    let ended = home.run("versions nothing --json");
    let error: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""));
    assert_eq!((&error["code"], &error["exit_code"], &error["status"]), (&json!("not_found"), &json!(3), &json!(404)));
    let id = error["request_id"].as_str().unwrap();
    // An answer is logged once it is sent.
    eventually("the server knows the request by that id", || {
        server.log().iter().any(|line| line.contains(id)).then_some(())
    });
}

#[test]
fn lists_go_on_over_pages_and_end_at_a_limit() {
    let server = Server::start();
    let home = Home::at(&server.url());
    let names: Vec<String> = (0..105).map(|n| format!("p{n:03}")).collect();
    for name in &names {
        server.request("POST", &format!("/api/v1/artifacts/{name}/1"), &[], b"x").expect(201);
    }
    assert_eq!(column(&home.document("list")["packages"], "package"), names);
    assert_eq!(column(&home.document("list --limit 102")["packages"], "package"), names[..102]);
    assert_eq!(column(&home.document("search 00 --limit 3")["packages"], "package"), names[..3]);
}

#[test]
fn what_is_not_a_file_is_pushed_and_pulled_too() {
    let server = Server::start();
    let home = Home::at(&server.url());
    home.write("f", b"piped in");
    let pushed = home.run_with_input("push p 1 -", "f");
    assert_eq!((pushed.code, pushed.stderr.as_str()), (Some(0), ""), "{pushed:?}");
    assert_eq!(home.silently("pull p 1 --output -"), "piped in");
    home.silently("pull p 1 --output /dev/null");
    home.write("empty", b"");
    home.silently("push p 2 empty");
    home.silently("pull p 2 --output copy");
    assert_eq!(home.read("copy"), b"");
}

#[test]
fn server_and_token_come_from_the_command_line_the_environment_or_a_login() {
    let (first, second) = (Server::start(), Server::start());
    for (server, package) in [(&first, "in-first"), (&second, "in-second")] {
        server.request("POST", &format!("/api/v1/artifacts/{package}/1"), &[], b"x").expect(201);
    }
    let mut home = Home::new();
    let listed = |home: &Home, line: &str| column(&home.document(line)["packages"], "package").join(" ");

    // Nothing is saved unless the token is good.
    home.write("wrong", b"wrong\n");
    let login = format!("login --server {} --token-stdin", first.url());
    let ended = home.run_with_input(&login, "wrong");
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let file = home.path(".config/registry-cli/credentials.json");
    assert!(!file.exists());
    home.write("token", format!("{ADMIN}\n").as_bytes());
    let ended = home.run_with_input(&login, "token");
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(listed(&home, "list"), "in-first");

    // A saved token is for its own server.
    home.refused(
        &format!("list --server {}", second.url()),
        4,
        &format!("registry-cli login --server {}", second.url()),
    );
    home.variables = vec![("REGISTRY_SERVER", second.url()), ("REGISTRY_TOKEN", ADMIN.to_owned())];
    assert_eq!(listed(&home, "list"), "in-second");
    assert_eq!(listed(&home, &format!("list --server {} --token {ADMIN}", first.url())), "in-first");
    home.variables = vec![("REGISTRY_TOKEN", "wrong".to_owned())];
    home.refused("list", 4, "the token in --token or REGISTRY_TOKEN is wrong");
    assert_eq!(listed(&home, &format!("list --token {ADMIN}")), "in-first");

    // Elsewhere nothing was saved.
    home.variables = vec![("XDG_CONFIG_HOME", home.path("elsewhere").display().to_string())];
    home.refused(&format!("list --server {}", first.url()), 4, "registry-cli login");
    home.variables.clear();
    assert_eq!(home.silently("logout"), format!("Logged out of {}\n", first.url()));
    assert!(!fs::read_to_string(&file).unwrap().contains(ADMIN));
    home.refused(&format!("list --server {}", first.url()), 4, "registry-cli login");
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named() {
    let home = Home::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    home.write("cert.pem", made.cert.pem().as_bytes());
    home.write("key.pem", made.signing_key.serialize_pem().as_bytes());
    let mut command = server_command(home.folder.path());
    command.args(["-port", "0"]).env("FOUNDRY_AUTH__TOKENS", ADMIN);
    command.env("FOUNDRY_SERVER__TLS__CERTIFICATE", "cert.pem").env("FOUNDRY_SERVER__TLS__KEY", "key.pem");
    let mut server = Process::start(&mut command);
    let url = format!("https://localhost:{}", server.address().port());

    let mut home = Home { variables: Home::at(&url).variables, ..home };
    home.refused("list", 7, "--ca-cert or REGISTRY_CA_CERT");
    assert_eq!(home.document("list --ca-cert cert.pem"), json!({ "packages": [] }));
    home.variables.push(("REGISTRY_CA_CERT", "cert.pem".to_owned()));
    assert_eq!(home.document("list"), json!({ "packages": [] }));
}

#[test]
fn a_token_does_what_its_scopes_say_until_it_is_revoked() {
    let server = Server::start();
    let admin = Home::at(&server.url());
    admin.write("f", b"hello");
    admin.silently("push theirs 1 f");
    let made = admin.run("token create ci --scope generic:mine:pull,push --expires-in 30d");
    assert_eq!(made.code, Some(0), "{made:?}");
    let secret = made.stdout.trim();
    assert!(!secret.contains(char::is_whitespace), "the token alone, so that it can be kept: {made:?}");
    assert!(made.stderr.contains("generic:mine:pull,push") && !made.stderr.contains(secret), "{made:?}");
    let table = admin.silently("token list");
    let line = table.lines().find(|line| line.contains("ci")).unwrap();
    assert!(line.contains("generic:mine:pull,push") && !table.contains(secret), "{table}");

    let mut theirs = Home::at(&server.url());
    theirs.variables[1].1 = secret.to_owned();
    theirs.write("f", b"hello");
    theirs.silently("push mine 1 f");
    theirs.silently("pull mine 1 --output copy");
    assert_eq!(column(&theirs.document("list")["packages"], "package"), ["mine"]);
    theirs.refused("delete mine 1", 4, "registry-cli token create NAME --scope generic:mine:pull,push,delete");
    theirs.refused("push theirs 2 f", 4, "registry-cli token create NAME --scope generic:theirs:");
    theirs.refused("pull theirs 1 --output other", 4, "--scope generic:theirs:");
    theirs.refused("gc", 4, "'*:*:admin'");
    theirs.refused("token list", 4, "'*:*:admin'");

    let id = line.split_whitespace().next().unwrap();
    assert_eq!(admin.silently(&format!("token revoke {id}")), format!("Revoked the token {id}\n"));
    // A server that has just seen a token need not look it up again at once, but soon.
    eventually("the revoked token is refused", || (theirs.run("list").code == Some(4)).then_some(()));
    theirs.refused("list", 4, "registry-cli token create");
    admin.refused(&format!("token revoke {id}"), 3, "");
}

#[test]
fn every_exit_code_is_the_documented_one() {
    let server = Server::builder().config("limits:\n  max_artifact_bytes: 1KiB").start();
    let home = Home::at(&server.url());
    home.write("f", b"hello");
    home.write("other", b"others");
    home.write("long", &[0; 2_000]);
    home.silently("push p 1 f");

    home.refused("push p 2 long", 1, "limits how large");
    home.refused("push p 2 nothing", 1, "");
    home.refused("pull p 1 --output .", 1, "--output");
    home.refused("push p/q 2 f", 2, "");
    home.refused("push p !2 f", 2, "");
    home.refused("token create t --scope nonsense", 2, "");
    home.refused("list --server localhost:1", 2, "try --server http://localhost:1");
    assert_eq!(home.run("push p").code, Some(2));
    assert_eq!(home.run("pusch p 2 f").code, Some(2));
    home.refused("pull p 2 --output copy", 3, "registry-cli versions p");
    home.refused("versions q", 3, "registry-cli list");
    home.refused("delete p 2", 3, "registry-cli versions p");
    home.refused("push p 1 f", 5, "nothing is left to do");
    home.refused("push p 1 other", 5, "registry-cli delete p 1");
    home.refused("list --server http://127.0.0.1:1 --retries 0", 7, "Start it with registry-server");
    assert_eq!(home.names(), ["f", "long", "other"], "nothing that failed leaves a file");
    assert_eq!(server.get("/api/v1/packages/p").expect(200).json()["versions"].as_array().unwrap().len(), 1);

    // Bytes that rotted on the server's disk.
    let hex = sha256(b"hello").strip_prefix("sha256:").unwrap().to_owned();
    let blob = server.data().join("blobs").join(&hex[..2]).join(&hex);
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&blob, b"hullo").unwrap();
    home.refused("pull p 1 --output copy", 6, "must not be used");
    assert_eq!(home.names(), ["f", "long", "other"]);

    let help = home.silently("--help");
    for (code, meaning) in
        [(0, "done"), (1, "another failure"), (2, "command line"), (3, "no such"), (130, "interrupted")]
    {
        let documented =
            |line: &str| line.split_whitespace().next() == Some(&code.to_string()) && line.contains(meaning);
        assert!(help.lines().any(documented), "{code} {meaning}: {help}");
    }
}

/// The file that a pull to `f` keeps what it received in.
fn partial(home: &Home, bytes: &[u8]) -> PathBuf {
    home.path(&format!("f.{}.partial", sha256(bytes).replace(':', "-")))
}

fn length(path: &Path) -> usize {
    fs::metadata(path).map_or(0, |metadata| metadata.len() as usize)
}

#[test]
fn a_pull_goes_on_where_it_was_interrupted() {
    let server = Server::start();
    let bytes = Random::new(2).bytes(8 << 20);
    server.request("POST", "/api/v1/artifacts/p/1", &[], &bytes).expect(201);
    let relay = Relay::start(server.address());
    let home = Home::at(&relay.url());
    let partial = partial(&home, &bytes);

    // The connection breaks.
    relay.break_after(2 << 20, Break::Cut);
    home.refused("pull p 1 --output f --retries 0", 7, "a pull goes on where it stopped");
    let kept = length(&partial);
    assert!((1 << 20..2 << 20).contains(&kept), "{kept} bytes are kept");
    assert!(fs::read(&partial).unwrap() == bytes[..kept]);
    assert!(!home.path("f").exists());

    // A person interrupts it, and kills the next one.
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        let before = length(&partial);
        relay.break_after(1 << 20, Break::Hang);
        let mut child = home.command("pull p 1 --output f").stderr(Stdio::null()).spawn().unwrap();
        eventually("some more bytes are kept", || (length(&partial) > before + (1 << 19)).then_some(()));
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), code);
        assert!(!home.path("f").exists());
    }

    // The server dies meanwhile, and comes back.
    relay.break_after(1 << 20, Break::Hang);
    let before = length(&partial);
    let pull = Process::start(&mut home.command("pull p 1 --output f --retries 0"));
    eventually("some more bytes are kept", || (length(&partial) > before + (1 << 19)).then_some(()));
    let server = server.restart();
    relay.cut();
    let ended = pull.wait();
    assert_eq!(ended.code, Some(7), "{ended:?}");
    relay.lead_to(server.address());

    let kept = length(&partial);
    relay.passed();
    home.silently("pull p 1 --output f");
    assert!(home.read("f") == bytes);
    assert_eq!(home.names(), ["f"]);
    let rest = bytes.len() - kept;
    let passed = relay.passed();
    assert!((rest..rest + 10_000).contains(&passed), "{passed} bytes came for the {rest} that were missing");
}

#[test]
fn one_command_survives_broken_connections() {
    let server = Server::start();
    let bytes = Random::new(3).bytes(4 << 20);
    server.request("POST", "/api/v1/artifacts/p/1", &[], &bytes).expect(201);
    let relay = Relay::start(server.address());
    let home = Home::at(&relay.url());
    relay.break_after(1 << 20, Break::Cut);
    home.silently("pull p 1 --output f");
    assert!(home.read("f") == bytes);
    assert!(relay.passed() < bytes.len() + 20_000, "nothing came twice");

    // The push arrives, its answer does not: it is recognised as what was pushed.
    home.write("small", b"hello");
    relay.break_after(0, Break::Cut);
    let pushed = home.silently("push p 2 small");
    assert_eq!(pushed, format!("Pushed p 2: 5 B, {}\n", sha256(b"hello")));
}

/// Runs a command with standard error on a terminal: how it ended, and what the terminal showed.
fn on_a_terminal(home: &Home, line: &str) -> (Ended, String) {
    let terminal = Terminal::new();
    let mut command = home.command(line);
    command.env("TERM", "xterm").stderr(terminal.side()).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    // The command's own copy of the terminal is closed, so that the reader sees the end.
    drop(command);
    let reader = std::thread::spawn(move || terminal.read_to_end());
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    (Ended { code: output.status.code(), stdout, stderr: String::new() }, reader.join().unwrap())
}

#[test]
fn a_person_sees_progress_and_a_pipe_does_not() {
    let server = Server::start();
    let home = Home::at(&server.url());
    home.write("f", &Random::new(4).bytes(5 << 20));
    for (line, word) in [("push p 1 f", "Pushing"), ("pull p 1 --output copy", "Pulling")] {
        let (ended, shown) = on_a_terminal(&home, line);
        assert_eq!(ended.code, Some(0), "{shown:?}");
        assert_eq!(ended.stdout.lines().count(), 1, "{ended:?}");
        for part in [word, "5.00 MiB", "/s", " left", "%", "["] {
            assert!(shown.contains(part), "{part} is not in {shown:?}");
        }
        let again = line.replace(" 1 ", " 2 ").replace("copy", "again");
        home.silently(&again);
    }
}

#[test]
fn a_person_is_asked_for_the_token() {
    let server = Server::start();
    let home = Home::new();
    let terminal = Terminal::new();
    let mut command = home.command(&format!("login --server {}", server.url()));
    command.stdin(terminal.side()).stderr(terminal.side()).stdout(Stdio::piped());
    let child = command.spawn().unwrap();
    drop(command);
    eventually("the terminal shows no more what is typed", || (!terminal.echoes()).then_some(()));
    terminal.type_line(ADMIN);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let shown = terminal.read_to_end();
    assert!(shown.contains("Token for ") && !shown.contains(ADMIN), "{shown:?}");
    assert_eq!(home.document("list"), json!({ "packages": [] }));
}

#[test]
fn a_shell_completes_commands_and_options() {
    let home = Home::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = home.silently(&format!("completions {shell}"));
        for word in ["registry-cli", "versions", "completions", "dry-run"] {
            assert!(script.contains(word), "{word} is not in the completions of {shell}");
        }
    }
    home.write("completions", home.silently("completions bash").as_bytes());
    let completed = |words: &str| {
        // As bash calls it: the command, the word to complete and the one before.
        let ask = format!(
            "source ./completions; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             complete -p registry-cli > specification; [[ $(< specification) =~ -F\\ ([^ ]+) ]]; \
             \"${{BASH_REMATCH[1]}}\" registry-cli \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        let printed = succeed(bash.args(["--norc", "-ec", &ask]).current_dir(home.folder.path()));
        printed.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed("registry-cli pu"), ["push", "pull"]);
    assert_eq!(completed("registry-cli token re"), ["revoke"]);
    assert_eq!(completed("registry-cli gc --dr"), ["--dry-run"]);
}
