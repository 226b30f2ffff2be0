//! Starting a server: the command lines, configuration files and variables that people bring along.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use registry_tests::process::{Ended, free_port, server_command};
use registry_tests::server::request;
use registry_tests::{Answer, Process};

fn get(address: SocketAddr, token: Option<&str>, path: &str) -> Answer {
    request(address, token, "GET", path, &[], b"").unwrap()
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[track_caller]
fn refused(command: &mut Command, needles: &[&str]) -> Ended {
    let ended = Process::run(command);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for needle in needles {
        assert!(ended.stderr.contains(needle), "{needle} is not in: {}", ended.stderr);
    }
    ended
}

#[test]
fn an_empty_folder_is_enough() {
    let folder = folder();
    // The port is the test's, so that tests do not meet; all else is the default.
    let mut server = Process::start(server_command(folder.path()).args(["-port", "0"]));
    let address = server.address();
    assert!(address.ip().is_loopback(), "safe by default");
    get(address, None, "/healthz").expect(200);
    let entries: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(entries, ["data"]);
}

#[test]
fn the_configuration_that_people_bring_works_verbatim() {
    let folder = folder();
    let port = free_port();
    let text = format!(
        "server:\n  port: {port}\nstorage:\n  dataDir: ./artifacts\nauth:\n  tokens:\n    - my-own-token-of-old\n    - \"another-one-of-them\"\n"
    );
    write(folder.path(), "config.yaml", &text);
    for arguments in [&["-config", "./config.yaml"][..], &["--config", "config.yaml"], &["-config=./config.yaml"], &[]]
    {
        let mut server = Process::start(server_command(folder.path()).args(arguments));
        let address = server.address();
        assert_eq!(address, SocketAddr::from(([127, 0, 0, 1], port)), "{arguments:?}");
        for token in ["my-own-token-of-old", "another-one-of-them"] {
            get(address, Some(token), "/api/v1/packages").expect(200);
        }
        get(address, Some("yet-another-one"), "/api/v1/packages").expect(401);
        assert!(folder.path().join("artifacts/blobs").is_dir());
    }
    assert!(!folder.path().join("data").exists());
}

#[test]
fn port_and_verbose_with_one_dash() {
    let folder = folder();
    let port = free_port();
    let mut server = Process::start(server_command(folder.path()).args(["-port", &port.to_string(), "-verbose"]));
    assert_eq!(server.address().port(), port);
    get(server.address(), None, "/v2/").expect(401);
    let ended = Process::run(server_command(folder.path()).args(["config", "-verbose"]));
    let level = ended.stdout.lines().find(|line| line.trim_start().starts_with("level:")).unwrap();
    assert!(level.contains("debug") && level.contains("--verbose"), "{level}");
}

#[test]
fn a_port_in_use_is_named() {
    let folder = folder();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let ended = Process::run(server_command(folder.path()).args(["-port", &port]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&port) && ended.stderr.contains("server.port"), "{}", ended.stderr);
    assert!(!folder.path().join("data").exists(), "nothing is made before the port is had");
}

#[test]
fn flags_beat_the_environment_and_that_beats_the_file() {
    let folder = folder();
    write(folder.path(), "config.yaml", "server: {port: 1, host: 127.0.0.3}\nlog: {format: text}\n");
    let config = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = server_command(folder.path());
        let ended = Process::run(command.arg("config").args(arguments).envs(variables.iter().copied()));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let line = |key: &str| {
            let found = ended.stdout.lines().find(|line| line.trim_start().starts_with(&format!("{key}:")));
            found.unwrap_or_else(|| panic!("{key}: {}", ended.stdout)).trim().to_owned()
        };
        (line("port"), line("host"))
    };
    let (port, host) = config(&[], &[]);
    assert!(port.starts_with("port: 1 ") && port.contains("config.yaml"), "{port}");
    assert!(host.contains("127.0.0.3"), "{host}");
    let (port, _) = config(&[], &[("PORT", "2")]);
    assert!(port.starts_with("port: 2 ") && port.contains("PORT"), "{port}");
    let (port, _) = config(&[], &[("PORT", "2"), ("HTTP_PORT", "3")]);
    assert!(port.starts_with("port: 3 "), "{port}");
    let (port, host) = config(&["-port", "4"], &[("PORT", "2"), ("HTTP_HOST", "::1")]);
    assert!(port.starts_with("port: 4 ") && port.contains("--port"), "{port}");
    assert!(host.contains("::1") && host.contains("HTTP_HOST"), "{host}");
    // An empty variable counts as absent.
    let (port, _) = config(&[], &[("PORT", "")]);
    assert!(port.starts_with("port: 1 "), "{port}");
}

#[test]
fn variables_choose_where_it_listens() {
    let folder = folder();
    let port = free_port();
    let mut command = server_command(folder.path());
    let mut server = Process::start(command.env("PORT", port.to_string()).env("HTTP_HOST", "127.0.0.2"));
    assert_eq!(server.address(), SocketAddr::from(([127, 0, 0, 2], port)));
    get(server.address(), None, "/healthz").expect(200);
}

#[test]
fn the_public_url_is_the_one_configured() {
    let folder = folder();
    let mut command = server_command(folder.path());
    command.args(["-port", "0"]).env("BASE_URL", "https://registry.example/");
    let mut server = Process::start(&mut command);
    let answer = get(server.address(), None, "/v2/").expect(401);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(challenge.contains("realm=\"https://registry.example/auth/token\""), "{challenge}");
    assert!(server.stdout().contains("https://registry.example/api/v1/packages"), "{}", server.stdout());
}

#[test]
fn forwarded_headers_count_only_from_trusted_proxies() {
    let realm = |proxies: Option<&str>| {
        let folder = folder();
        let mut command = server_command(folder.path());
        command.args(["-port", "0"]);
        if let Some(proxies) = proxies {
            command.env("FOUNDRY_SERVER__TRUSTED_PROXIES", proxies);
        }
        let mut server = Process::start(&mut command);
        let headers = ["X-Forwarded-Proto: https", "X-Forwarded-Host: r.example"];
        let answer = request(server.address(), None, "GET", "/v2/", &headers, b"").unwrap().expect(401);
        answer.header("www-authenticate").unwrap().to_owned()
    };
    assert!(realm(None).contains("realm=\"http://localhost/auth/token\""));
    assert!(realm(Some("10.0.0.0/8")).contains("realm=\"http://localhost/auth/token\""));
    assert!(realm(Some("10.0.0.0/8,127.0.0.1")).contains("realm=\"https://r.example/auth/token\""));
}

#[test]
fn an_unknown_key_stops_the_start_and_the_nearest_is_named() {
    let folder = folder();
    for (text, needles) in [
        ("server: {prot: 1}", ["server.prot", "server.port"]),
        ("storage: {data_dir: x}", ["storage.data_dir", "storage.dataDir"]),
        ("auth: {token: [x]}", ["auth.token", "auth.tokens"]),
        ("servr: {port: 1}", ["servr", "server"]),
        ("registries: {hub: {fromat: oci}}", ["registries.hub.fromat", "registries.hub.format"]),
        ("server: {port: many}", ["server.port", "many"]),
        ("server: {port: 70000}", ["server.port", "70000"]),
        ("auth: {anonymous: everything}", ["auth.anonymous", "everything"]),
        ("gc: {grace: 0s}", ["gc.grace", "longer than 0s"]),
        ("gc: {grace: soon}", ["gc.grace", "soon"]),
        ("registries: {hub: {anonymous: pull}}", ["registries.hub", "format"]),
        ("server: {tls: {key: k.pem}}", ["server.tls.key", "server.tls.certificate"]),
        ("server: [", ["config.yaml", "line"]),
    ] {
        write(folder.path(), "config.yaml", text);
        refused(&mut server_command(folder.path()), &needles);
    }
    std::fs::remove_file(folder.path().join("config.yaml")).unwrap();
    let mut command = server_command(folder.path());
    refused(command.env("FOUNDRY_SERVER__PROT", "1"), &["FOUNDRY_SERVER__PROT", "FOUNDRY_SERVER__PORT"]);
    refused(server_command(folder.path()).args(["-prot", "1"]), &["--prot", "--port"]);
    refused(server_command(folder.path()).args(["-config", "none.yaml"]), &["none.yaml"]);
    assert!(!folder.path().join("data").exists(), "nothing was opened");
}

#[test]
fn no_message_repeats_a_secret() {
    let folder = folder();
    let secret = "sesame-open-yourself";
    for text in [
        format!("auth: {{tokens: {secret}}}"),
        format!("auth: {{tokens: [{{token: {secret}, hash: {secret}}}]}}"),
        format!("auth: {{tokens: [{{token: {secret}, scopes: [nonsense]}}]}}"),
        format!("auth: {{tokens: ['{secret} with a space']}}"),
        format!("storage: {{s3: {{secret_access_key: {{is: {secret}}}}}}}"),
    ] {
        write(folder.path(), "config.yaml", &text);
        let ended = refused(&mut server_command(folder.path()), &[]);
        assert!(!ended.stderr.contains("sesame"), "{}", ended.stderr);
    }
    write(folder.path(), "config.yaml", &format!("auth: {{tokens: [{secret}, {{name: ci, token: {secret}2}}]}}"));
    let ended = Process::run(server_command(folder.path()).arg("config").env("DB_PASSWORD", secret));
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stdout.contains("sesame") && ended.stdout.contains("********"), "{}", ended.stdout);
    assert!(ended.stdout.contains("ci"), "what is no secret is shown: {}", ended.stdout);
}

#[test]
fn a_backend_that_is_not_there_is_never_passed_over_in_silence() {
    let folder = folder();
    let start = |name: &str, value: &str| {
        let mut command = server_command(folder.path());
        command.args(["-port", "0"]).env(name, value);
        command
    };
    let ended = refused(&mut start("DYNAMODB_TABLE", "artifacts"), &["DYNAMODB_TABLE", "Postgres", "docs/adr/"]);
    let named =
        ended.stderr.split(' ').find(|word| word.starts_with("docs/adr/")).unwrap().trim_end_matches([':', ',']);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    assert!(root.join(named).is_file(), "{named}");
    refused(&mut start("DATABASE_URL", "mysql://x"), &["DATABASE_URL"]);
    assert!(!folder.path().join("data").exists());
    for (name, value) in [("DYNAMODB_TABLE", "local"), ("S3_BUCKET", "local"), ("DB_PORT", "tcp://10.0.0.1:5432")] {
        let mut server = Process::start(&mut start(name, value));
        get(server.address(), None, "/healthz").expect(200);
    }
}

#[test]
fn what_is_risky_is_said_at_the_start() {
    let warnings = |variables: &[(&str, &str)]| {
        let folder = folder();
        let mut command = server_command(folder.path());
        let mut server = Process::start(command.args(["-port", "0"]).envs(variables.iter().copied()));
        server.address();
        let log = server.log();
        log.iter().filter(|line| line["level"] == "WARN").map(|line| line["message"].to_string()).collect::<Vec<_>>()
    };
    let long = ("FOUNDRY_AUTH__TOKENS", "a-token-that-is-long-enough");
    assert_eq!(warnings(&[long]), Vec::<String>::new());
    assert_eq!(warnings(&[long, ("FOUNDRY_AUTH__ANONYMOUS", "pull")]), Vec::<String>::new());
    for level in ["push", "admin"] {
        let found = warnings(&[long, ("FOUNDRY_AUTH__ANONYMOUS", level)]);
        assert!(found.len() == 1 && found[0].contains("write"), "{level}: {found:?}");
    }
    let found = warnings(&[("FOUNDRY_AUTH__TOKENS", "short")]);
    assert!(found.len() == 1 && found[0].contains("guessed"), "{found:?}");
}

#[test]
fn a_health_check_is_built_in() {
    let folder = folder();
    let port = free_port().to_string();
    let check = || Process::run(server_command(folder.path()).args(["healthcheck", "-port", &port]));
    assert_eq!(check().code, Some(1));
    let mut server = Process::start(server_command(folder.path()).args(["-port", &port]));
    server.address();
    assert_eq!(check().code, Some(0));
}

#[test]
fn help_and_version() {
    let folder = folder();
    let help = Process::run(server_command(folder.path()).arg("-help"));
    assert_eq!(help.code, Some(0));
    for word in ["--config", "--port", "--verbose", "check", "backup", "FOUNDRY_", "Exit codes"] {
        assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
    }
    let version = Process::run(server_command(folder.path()).arg("--version"));
    assert_eq!((version.code, version.stdout.starts_with("registry-server ")), (Some(0), true));
    refused(server_command(folder.path()).arg("sevre"), &["sevre", "serve"]);
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}
