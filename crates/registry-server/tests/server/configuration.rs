//! What the program makes of its command line, environment and file.

use crate::support::{Place, TOKEN};

#[test]
fn config_prints_what_is_in_effect_and_where_it_came_from() {
    let place = Place::new()
        .file("config.yaml", "server: {port: 1001, host: 0.0.0.0}\nauth: {tokens: [hunter2]}\n")
        .variable("PORT", "1002")
        .variable("DB_PASSWORD", "hunter2");
    let ended = place.run(&["config", "-verbose"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for line in [
        "  host: \"0.0.0.0\" # ./config.yaml",
        "  port: 1002 # environment variable PORT",
        "  level: debug # flag --verbose",
        "  password: \"********\" # environment variable DB_PASSWORD",
        "  grace: \"24h\" # default",
    ] {
        assert!(ended.stdout.lines().any(|own| own == line), "{line}\n{}", ended.stdout);
    }
    assert!(!ended.stdout.contains("hunter2"));
    assert!(!place.data().exists(), "it only prints");
    let file = place.file("again.yaml", &ended.stdout.replace("********", "hunter2-again"));
    assert_eq!(file.run(&["-config", "again.yaml", "config"]).code, Some(0), "what is printed reads back");
}

#[test]
fn a_wrong_configuration_stops_the_start_before_anything_is_made() {
    let place = |text: &str| Place::new().file("config.yaml", text);
    for (place, arguments, expected) in [
        (
            place("server: {prot: 1}"),
            &[][..],
            "registry-server: configuration: ./config.yaml: server.prot: unknown key; did you mean `server.port`?\n",
        ),
        (
            place("server: {port: x}"),
            &[],
            "registry-server: configuration: ./config.yaml: server.port: expected u16, found \"x\"\n",
        ),
        (
            Place::new(),
            &["-config", "none.yaml"],
            "registry-server: configuration: cannot read the configuration file none.yaml: No such file or directory (os error 2)\n",
        ),
        (
            Place::new().variable("FOUNDRY_GC__GRACE", "long"),
            &[],
            "registry-server: configuration: environment variable FOUNDRY_GC__GRACE: gc.grace: invalid value \
             \"long\", expected a duration with its unit, e.g. 30s, 15m, 24h\n",
        ),
        (
            Place::new(),
            &["-port", "99999"],
            "registry-server: configuration: flag --port: server.port: invalid value unsigned int `99999`, expected u16\n",
        ),
        (
            Place::new().variable("DATABASE_URL", "mysql://me:hunter2@db/artifacts"),
            &[],
            "registry-server: configuration: environment variable DATABASE_URL: database.url: is not of the form \
             postgres://user:password@host:port/database\n",
        ),
        (
            Place::new().variable("S3_BUCKET", "b").variable("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
            &[],
            "registry-server: configuration: environment variable AWS_ENDPOINT_URL: storage.s3.endpoint: is plain HTTP, \
             which `storage.s3.allow_http` (AWS_ALLOW_HTTP) has to permit\n",
        ),
    ] {
        let ended = place.run(arguments);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(2), expected), "{arguments:?}");
        assert!(!place.data().exists() && ended.stdout.is_empty());
    }
    let dynamo = Place::new().variable("DYNAMODB_TABLE", "artifacts").run(&[]);
    assert_eq!(dynamo.code, Some(2));
    assert!(dynamo.stderr.contains("docs/adr/0007-postgres-not-dynamodb.md"), "{}", dynamo.stderr);
}

#[test]
fn help_and_version_are_no_errors_and_a_wrong_option_is() {
    let place = Place::new();
    let version = place.run(&["--version"]);
    assert_eq!((version.code, version.stdout.as_str()), (Some(0), "registry-server 0.1.0\n"));
    let help = place.run(&["-help"]);
    assert_eq!(help.code, Some(0));
    for word in ["healthcheck", "backup", "--config", "FOUNDRY_<SECTION>__<KEY>", "Exit codes"] {
        assert!(help.stdout.contains(word), "{word}");
    }
    let wrong = place.run(&["-prot", "1"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("--port"), "{}", wrong.stderr);
}

#[test]
fn the_command_line_that_people_bring_along_works() {
    let place = Place::new();
    let data = place.path("elsewhere");
    let text =
        format!("server:\n  port: 1\nstorage:\n  dataDir: {}\nauth:\n  tokens:\n    - {TOKEN}\n", data.display());
    let place = place.file("my.yaml", &text);
    let server = place.serve(&["-config", "./my.yaml", "-verbose"]);
    assert_eq!(server.authorized("GET", "/api/v1/packages", b"").status, 200);
    let other = server.request("GET", "/api/v1/packages", &["Authorization: Bearer other"], b"");
    assert_eq!(other.status, 401);
    assert!(data.join("metadata.sqlite").exists() && !place.data().exists());
    assert!(!data.join("admin-token").exists(), "there are tokens already");
    let (code, stdout, log) = server.stop();
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    assert!(log.iter().any(|line| line["message"] == "configuration read" && line["file"] == "./my.yaml"));
    assert!(!log.iter().any(|line| line.to_string().contains(TOKEN)), "no secret reaches the log");
}
