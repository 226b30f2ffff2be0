//! curl, as the README uses it: generic artifacts, blobs in several requests, HTTP/2 and TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use registry_tests::clients;
use registry_tests::oci::sha256;
use registry_tests::server::ADMIN;
use registry_tests::tools::{fail, run, succeed};
use registry_tests::{Random, Server, ServerBuilder};
use serde_json::Value;
use tempfile::TempDir;

struct Curl {
    program: PathBuf,
    folder: TempDir,
}

/// What one request was answered.
struct Answered {
    status: String,
    version: String,
    headers: String,
    body: Vec<u8>,
}

impl Answered {
    fn header(&self, name: &str) -> Option<&str> {
        let matches = |line: &&str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.headers.lines().find(matches).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    #[track_caller]
    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status.to_string(), "{}{}", self.headers, String::from_utf8_lossy(&self.body));
        self
    }
}

impl Curl {
    fn new(test: &str) -> Option<Self> {
        let [program] = clients::tools(test, ["curl"])?;
        Some(Self { program, folder: TempDir::new().expect("a temporary folder can be made") })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// curl without any request: nobody's configuration is read.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--disable", "--silent", "--show-error", "--max-time", "60"]).current_dir(self.folder.path());
        command.env_remove("http_proxy").env_remove("https_proxy").env_remove("all_proxy");
        command
    }

    /// The same with the administrator's token.
    fn with_token(&self) -> Command {
        let mut command = self.command();
        command.args(["-H", &format!("Authorization: Bearer {ADMIN}")]);
        command
    }

    /// Runs one request; what curl would print goes to files.
    fn ask(&self, command: &mut Command) -> Answered {
        let (headers, body) = (self.path("answer.headers"), self.path("answer.body"));
        for file in [&headers, &body] {
            let _ = fs::remove_file(file);
        }
        command.arg("-D").arg(&headers).arg("-o").arg(&body).args(["-w", "%{http_code} %{http_version}"]);
        let written = succeed(command);
        let (status, version) = written.split_once(' ').expect("curl writes what it was told to");
        Answered {
            status: status.to_owned(),
            version: version.to_owned(),
            headers: fs::read_to_string(headers).expect("curl wrote the headers"),
            // Where there was no body there may be no file.
            body: fs::read(body).unwrap_or_default(),
        }
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file can be written");
        path
    }
}

fn upload(path: &Path) -> String {
    format!("@{}", path.display())
}

#[test]
fn an_artifact_from_upload_to_deletion() {
    let Some(curl) = Curl::new("curl uploads an artifact") else { return };
    let server = Server::start();
    let content = Random::new(1).bytes(200_000);
    let model = curl.file("model.gguf", &content);
    let url = format!("{}/api/v1/artifacts/mypkg/1.0.0", server.url());

    let post = |url: &str| {
        let mut command = curl.with_token();
        command.args(["-H", "Content-Type: application/x-gguf", "--data-binary", &upload(&model), url]);
        curl.ask(&mut command)
    };
    let artifact = post(&format!("{url}?filename=model.gguf")).expect(201).json();
    assert_eq!(artifact["digest"], sha256(&content));
    assert_eq!(artifact["size"], content.len());
    assert_eq!(artifact["filename"], "model.gguf");
    assert_eq!(artifact["content_type"], "application/x-gguf");
    post(&url).expect(409);

    let head = curl.ask(curl.with_token().args(["--head", &url])).expect(200);
    assert_eq!(head.header("content-length"), Some("200000"));
    let got = curl.ask(curl.with_token().arg(&url)).expect(200);
    assert_eq!(got.body, content);
    assert_eq!(got.header("content-type"), Some("application/x-gguf"));
    let etag = got.header("etag").expect("an artifact has an ETag").to_owned();
    let unchanged = curl.ask(curl.with_token().args(["-H", &format!("If-None-Match: {etag}"), &url])).expect(304);
    assert_eq!(unchanged.body, b"");

    // Into a file of the name that it was uploaded with.
    let downloads = curl.path("downloads");
    fs::create_dir(&downloads).expect("a folder can be made");
    succeed(curl.with_token().args(["--remote-name", "--remote-header-name", &url]).current_dir(&downloads));
    assert_eq!(fs::read(downloads.join("model.gguf")).expect("curl wrote the file"), content);

    let listed = curl.ask(curl.with_token().arg(format!("{}/api/v1/packages?search=MYP", server.url()))).expect(200);
    assert_eq!(listed.json()["packages"][0]["package"], "mypkg");
    let versions = curl.ask(curl.with_token().arg(format!("{}/api/v1/packages/mypkg", server.url()))).expect(200);
    assert_eq!(versions.json()["versions"][0]["version"], "1.0.0");

    curl.ask(curl.with_token().args(["-X", "DELETE", &url])).expect(204);
    curl.ask(curl.with_token().arg(&url)).expect(404);
    let collected =
        curl.ask(curl.with_token().args(["-X", "POST", &format!("{}/api/v1/gc", server.url())])).expect(200);
    assert_eq!(collected.json()["bytes_freed"], content.len());
}

#[test]
fn parts_of_an_artifact_and_an_interrupted_download() {
    let Some(curl) = Curl::new("curl resumes") else { return };
    let server = Server::start();
    let content = Random::new(2).bytes(300_000);
    let file = curl.file("file", &content);
    let url = format!("{}/api/v1/artifacts/mypkg/1.0.0", server.url());
    curl.ask(curl.with_token().args(["--data-binary", &upload(&file), &url])).expect(201);

    for (range, expected, part) in [
        ("0-99", "bytes 0-99/300000", &content[..100]),
        ("1000-1999", "bytes 1000-1999/300000", &content[1000..2000]),
        ("299990-", "bytes 299990-299999/300000", &content[299_990..]),
        ("-10", "bytes 299990-299999/300000", &content[299_990..]),
    ] {
        let got = curl.ask(curl.with_token().args(["--range", range, &url])).expect(206);
        assert_eq!(got.header("content-range"), Some(expected));
        assert!(got.body == part, "{range}");
    }
    let several = curl.ask(curl.with_token().args(["-r", "0-9,100-109", &url])).expect(206);
    let content_type = several.header("content-type").expect("parts have a type");
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("there are several parts");
    let mut expected = Vec::new();
    for (range, bytes) in [("0-9", &content[..10]), ("100-109", &content[100..110])] {
        // What curl sends with --data-binary is of this type unless it is told another.
        let head = "Content-Type: application/x-www-form-urlencoded\r\nContent-Range: bytes";
        expected.extend(format!("--{boundary}\r\n{head} {range}/300000\r\n\r\n").into_bytes());
        expected.extend([bytes, b"\r\n"].concat());
    }
    expected.extend(format!("--{boundary}--\r\n").into_bytes());
    assert!(several.body == expected, "{}", String::from_utf8_lossy(&several.body));
    let beyond = curl.ask(curl.with_token().args(["--range", "300000-", &url])).expect(416);
    assert_eq!(beyond.header("content-range"), Some("bytes */300000"));

    // What came before the connection broke stays, and only the rest is sent.
    let partial = curl.file("partial", &content[..123_456]);
    let requests = server.requests_from_now();
    succeed(curl.with_token().args(["--continue-at", "-", "-o"]).arg(&partial).arg(&url));
    assert_eq!(fs::read(&partial).expect("curl wrote the file"), content);
    assert_eq!(requests.count(|request| request.status == 206), 1);
}

#[test]
fn a_blob_in_one_request_and_in_three() {
    let Some(curl) = Curl::new("curl pushes blobs") else { return };
    let server = Server::start();
    let content = Random::new(3).bytes(500_000);
    let digest = sha256(&content);
    let uploads = format!("{}/v2/team/app/blobs/uploads/", server.url());
    let blob = format!("{}/v2/team/app/blobs/{digest}", server.url());
    let whole = curl.file("whole", &content);

    let pushed =
        curl.ask(curl.with_token().args(["--data-binary", &upload(&whole), &format!("{uploads}?digest={digest}")]));
    assert_eq!(pushed.expect(201).header("docker-content-digest"), Some(digest.as_str()));
    assert!(curl.ask(curl.with_token().arg(&blob)).expect(200).body == content);
    curl.ask(curl.with_token().args(["-X", "DELETE", &blob])).expect(202);
    curl.ask(curl.with_token().args(["--head", &blob])).expect(404);

    // A session; a piece with -T, which is a PUT unless told otherwise; the rest with the digest.
    let location =
        |answered: &Answered| format!("{}{}", server.url(), answered.header("location").expect("a location"));
    let (first, second) = (curl.file("first", &content[..200_000]), curl.file("second", &content[200_000..]));
    let started = curl.ask(curl.with_token().args(["-X", "POST", &uploads])).expect(202);
    let patch = curl.ask(curl.with_token().args(["-X", "PATCH", "--upload-file"]).arg(&first).arg(location(&started)));
    let patch = patch.expect(202);
    assert_eq!(patch.header("range"), Some("0-199999"));
    let finish = format!("{}?digest={digest}", location(&patch));
    curl.ask(curl.with_token().arg("--upload-file").arg(&second).arg(&finish)).expect(201);
    assert!(curl.ask(curl.with_token().arg(&blob)).expect(200).body == content);
    // Basic credentials do as well.
    curl.ask(curl.command().args(["--user", &format!("any:{ADMIN}"), &blob])).expect(200);
}

#[test]
fn refusals_say_what_is_wrong() {
    let Some(curl) = Curl::new("curl is refused") else { return };
    let server = Server::start();
    let file = curl.file("file", b"content");
    let url = format!("{}/api/v1/artifacts/mypkg/1.0.0", server.url());
    let refused = curl.ask(curl.command().args(["--data-binary", &upload(&file), &url])).expect(401);
    assert_eq!(refused.json()["error"], "authentication required");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    let wrong = curl.ask(curl.command().args(["-H", "Authorization: Bearer wrong", &url])).expect(401);
    assert_eq!(wrong.json()["error"], "the credentials are not valid");
    let token = clients::token(&server, "reader", &["generic:*:pull"]);
    let header = format!("Authorization: Bearer {token}");
    let forbidden = curl.ask(curl.command().args(["-H", &header, "--data-binary", &upload(&file), &url])).expect(403);
    assert_eq!(forbidden.json()["code"], "forbidden");
    curl.ask(curl.command().args(["-H", &header, &url])).expect(404);

    // With --fail, scripts see it too.
    let output = run(curl.command().args(["--fail", &url]));
    assert_eq!(output.status.code(), Some(22));

    // Where strangers may push, nobody needs a token.
    let open = ServerBuilder::new().anonymous("push").start();
    let url = format!("{}/api/v1/artifacts/mypkg/1.0.0", open.url());
    curl.ask(curl.command().args(["--data-binary", &upload(&file), &url])).expect(201);
    assert_eq!(curl.ask(curl.command().arg(&url)).expect(200).body, b"content");
    curl.ask(curl.command().args(["-X", "DELETE", &url])).expect(401);
}

#[test]
fn http_2_without_tls() {
    let Some(curl) = Curl::new("curl speaks HTTP/2") else { return };
    let server = Server::start();
    let content = Random::new(4).bytes(3_000_000);
    let file = curl.file("file", &content);
    let url = format!("{}/api/v1/artifacts/mypkg/1.0.0", server.url());
    let http_2 = || {
        let mut command = curl.with_token();
        command.arg("--http2-prior-knowledge");
        command
    };
    let posted = curl.ask(http_2().args(["--data-binary", &upload(&file), &url])).expect(201);
    assert_eq!(posted.version, "2");
    let got = curl.ask(http_2().arg(&url)).expect(200);
    assert_eq!(got.version, "2");
    assert!(got.body == content);
    assert_eq!(curl.ask(curl.with_token().arg(&url)).expect(200).version, "1.1");
}

#[test]
fn tls_with_a_certificate_of_our_own() {
    let Some(curl) = Curl::new("curl speaks TLS") else { return };
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let certificate = certificate.expect("a certificate can be made");
    let authority = curl.file("certificate.pem", certificate.cert.pem().as_bytes());
    let key = curl.file("key.pem", certificate.signing_key.serialize_pem().as_bytes());
    let server = ServerBuilder::new()
        .environment("FOUNDRY_SERVER__TLS__CERTIFICATE", &authority.display().to_string())
        .environment("FOUNDRY_SERVER__TLS__KEY", &key.display().to_string())
        .start();
    let url = format!("https://localhost:{}/api/v1/artifacts/mypkg/1.0.0", server.address().port());
    let content = Random::new(5).bytes(1_000_000);
    let file = curl.file("file", &content);
    let resolve = format!("localhost:{}:127.0.0.1", server.address().port());
    let trusting = |mut command: Command| {
        command.arg("--cacert").arg(&authority).args(["--resolve", &resolve]);
        command
    };
    // TLS negotiates HTTP/2 by itself.
    let posted = curl.ask(trusting(curl.with_token()).args(["--data-binary", &upload(&file), &url])).expect(201);
    assert_eq!(posted.version, "2");
    let got = curl.ask(trusting(curl.with_token()).args(["--http1.1", &url])).expect(200);
    assert_eq!(got.version, "1.1");
    assert!(got.body == content);
    let base = format!("https://localhost:{}/v2/", server.address().port());
    let challenged = curl.ask(trusting(curl.command()).arg(&base)).expect(401);
    let challenge = challenged.header("www-authenticate").expect("a stranger is challenged");
    assert!(challenge.starts_with("Bearer realm=\"https://localhost:"), "{challenge}");

    // Who does not know the certificate gets nothing, and plain HTTP no answer that could be taken for one.
    assert_eq!(run(curl.with_token().args(["--resolve", &resolve, &url])).status.code(), Some(60));
    fail(curl.command().args(["--fail", "--resolve", &resolve, &url.replace("https:", "http:")]));
}
