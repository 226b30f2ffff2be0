//! helm: a chart.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use registry_tests::clients::{self, LOG_IN, assert_says};
use registry_tests::oci::sha256;
use registry_tests::server::ADMIN;
use registry_tests::tools::{fail, succeed};
use registry_tests::{Server, ServerBuilder};
use tempfile::TempDir;

const CHART: &str = "demo-0.1.0.tgz";

struct Helm {
    program: PathBuf,
    folder: TempDir,
}

impl Helm {
    /// helm with a packaged chart.
    fn new(test: &str) -> Option<Self> {
        let [program] = clients::tools(test, ["helm"])?;
        let helm = Self { program, folder: TempDir::new().expect("a temporary folder can be made") };
        succeed(&mut helm.command(&["create", "demo"]));
        succeed(&mut helm.command(&["package", "demo"]));
        Some(helm)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let folder = self.folder.path();
        for (variable, name) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, folder.join(name));
        }
        command.env("HELM_REGISTRY_CONFIG", folder.join("registry.json"));
        command.env("DOCKER_CONFIG", folder.join("docker")).env("HOME", folder);
        command.args(arguments).current_dir(folder);
        command
    }

    fn remote(&self, token: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.arg("--plain-http");
        if let Some(token) = token {
            command.args(["--username", clients::USER, "--password", token]);
        }
        command
    }

    fn login(&self, server: &Server, token: &str) -> (bool, String) {
        let options = ["registry", "login", &server.host(), "-u", clients::USER, "--password-stdin", "--plain-http"];
        let mut command = self.command(&options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("helm can be started");
        child.stdin.take().expect("it is piped").write_all(token.as_bytes()).expect("helm reads it");
        let output = child.wait_with_output().expect("helm is our child");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }
}

#[test]
fn a_chart_is_pushed_pulled_and_used() {
    let Some(helm) = Helm::new("helm pushes a chart") else { return };
    let server = Server::start();
    let repository = format!("oci://{}/charts", server.host());
    succeed(&mut helm.remote(Some(ADMIN), &["push", CHART, &repository]));
    let packaged = fs::read(helm.folder.path().join(CHART)).expect("helm packaged the chart");
    let stored = server.repository("charts/demo").get_manifest("0.1.0").expect(200).json();
    assert_eq!(stored["layers"][0]["digest"], sha256(&packaged));
    assert_eq!(stored["layers"][0]["mediaType"], "application/vnd.cncf.helm.chart.content.v1.tar+gzip");

    let chart = format!("{repository}/demo");
    let back = helm.folder.path().join("back");
    fs::create_dir(&back).expect("a folder can be made");
    let back_option = format!("--destination={}", back.display());
    succeed(&mut helm.remote(Some(ADMIN), &["pull", &chart, "--version", "0.1.0", &back_option]));
    assert_eq!(fs::read(back.join(CHART)).expect("helm pulled the chart"), packaged);

    let shown = succeed(&mut helm.remote(Some(ADMIN), &["show", "chart", &chart, "--version", "0.1.0"]));
    assert_says(&shown, &["name: demo"]);
    let rendered = succeed(&mut helm.remote(Some(ADMIN), &["template", "x", &chart, "--version", "0.1.0"]));
    assert_says(&rendered, &["kind: Deployment"]);
    // The newest version that fits is found among the tags.
    let shown = succeed(&mut helm.remote(Some(ADMIN), &["show", "chart", &chart, "--version", ">=0.0.1"]));
    assert_says(&shown, &["version: 0.1.0"]);
}

#[test]
fn credentials_decide() {
    let Some(helm) = Helm::new("helm's credentials") else { return };
    let push = |token: Option<&str>, server: &Server, namespace: &str| {
        helm.remote(token, &["push", CHART, &format!("oci://{}/{namespace}", server.host())])
    };
    let closed = ServerBuilder::new().config("registries:\n  staging:\n    format: oci").start();
    assert_says(&fail(&mut push(None, &closed, "team")), &[LOG_IN]);
    let (refused, text) = helm.login(&closed, "wrong");
    assert!(!refused, "{text}");
    assert_says(&text, &["the credentials are not valid"]);
    let (accepted, text) = helm.login(&closed, ADMIN);
    assert!(accepted, "{text}");
    assert_says(&text, &["Login Succeeded"]);
    succeed(&mut push(None, &closed, "team"));
    succeed(&mut push(None, &closed, "staging/charts"));
    succeed(&mut helm.command(&["registry", "logout", &closed.host()]));
    fail(&mut push(None, &closed, "team"));

    let token = clients::token(&closed, "team", &["oci:team/*:pull,push"]);
    succeed(&mut push(Some(&token), &closed, "team"));
    assert_says(&fail(&mut push(Some(&token), &closed, "other")), &["response status code 401: Unauthorized"]);

    let open = ServerBuilder::new().anonymous("push").start();
    succeed(&mut push(None, &open, "team"));
    let chart = format!("oci://{}/team/demo", open.host());
    assert_says(&succeed(&mut helm.remote(None, &["show", "chart", &chart])), &["name: demo"]);
}
