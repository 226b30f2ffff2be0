//! An S3 server for tests: the one that the environment names, or SeaweedFS, started once for each test executable.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::http::Connection;
use crate::process::free_port;
use crate::tools::skip;
use crate::wait::pause;

/// How long the server may take to start; on a busy machine it takes ten seconds.
const START: Duration = Duration::from_secs(120);

/// An S3 server with a bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    /// Its URL, plain HTTP.
    pub endpoint: String,
    /// The bucket, which is there.
    pub bucket: String,
    /// The key's identifier.
    pub access_key: String,
    /// The key's secret.
    pub secret_key: String,
}

impl S3 {
    /// The server that all tests of this executable share; `None` after saying that `test` is skipped.
    pub fn shared(test: &str) -> Option<&'static S3> {
        static SHARED: OnceLock<Option<S3>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::from_environment().or_else(Self::start));
        if shared.is_none() {
            skip(test, "there is neither FOUNDRY_S3_ENDPOINT nor the program weed; tests/run installs it");
        }
        shared.as_ref()
    }

    fn from_environment() -> Option<S3> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(S3 {
            endpoint: variable("FOUNDRY_S3_ENDPOINT")?,
            bucket: variable("FOUNDRY_S3_BUCKET").unwrap_or_else(|| "foundry".to_owned()),
            access_key: variable("FOUNDRY_S3_ACCESS_KEY").unwrap_or_else(|| "test-key".to_owned()),
            secret_key: variable("FOUNDRY_S3_SECRET_KEY").unwrap_or_else(|| "test-secret".to_owned()),
        })
    }

    /// Starts the server. It ends with this process, however that ends: then the pipe to its shell closes.
    fn start() -> Option<S3> {
        let weed = crate::tools::find("weed")?;
        let folder = TempDir::new().expect("a temporary folder can be made").keep();
        let s3 = S3 {
            endpoint: String::new(),
            bucket: "foundry".to_owned(),
            access_key: "test-key".to_owned(),
            secret_key: "test-secret".to_owned(),
        };
        // Its ports are free when they are looked for, and may not be a moment later.
        for _ in 0..3 {
            let [port, filer] = [free_port(), free_port()];
            let mut child = s3.spawn(&weed, &folder, port, filer);
            if s3.serves(&mut child, port, filer) {
                // The shell waits for the end of its input: never drop it.
                std::mem::forget(child);
                return Some(S3 { endpoint: format!("http://127.0.0.1:{port}"), ..s3 });
            }
            drop(child.stdin.take());
            let _ = child.wait();
        }
        panic!("the S3 server does not start:\n{}", fs::read_to_string(folder.join("log")).unwrap_or_default());
    }

    fn spawn(&self, weed: &Path, folder: &Path, port: u16, filer: u16) -> Child {
        let keys = serde_json::json!({ "identities": [{
            "name": "tests",
            "credentials": [{ "accessKey": self.access_key, "secretKey": self.secret_key }],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }] });
        fs::write(folder.join("keys.json"), keys.to_string()).expect("the keys can be written");
        let at = |name: &str| folder.join(name).display().to_string();
        let mut arguments = vec![
            "-logtostderr=true".to_owned(),
            "server".to_owned(),
            format!("-dir={}", folder.display()),
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            // Tests talk to nobody outside.
            "-master.telemetry=false".to_owned(),
            "-master.volumeSizeLimitMB=256".to_owned(),
            "-volume.max=200".to_owned(),
            "-s3".to_owned(),
            "-s3.iam=false".to_owned(),
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
            format!("-s3.config={}", at("keys.json")),
            format!("-s3.port={port}"),
            format!("-filer.port={filer}"),
            format!("-filer.localSocket={}", at("filer.sock")),
            format!("-s3.localSocket={}", at("s3.sock")),
        ];
        for name in ["master", "master.grpc", "volume", "volume.grpc", "filer.grpc", "s3.grpc"] {
            let flag = name.replace(".grpc", ".port.grpc");
            let flag = if flag.contains('.') { flag } else { format!("{flag}.port") };
            arguments.push(format!("-{flag}={}", free_port()));
        }
        let mut command = Command::new("sh");
        let script = r#"exec 3<&0; "$@" 2>"$0/log" & child=$!
            (cat <&3 >/dev/null; kill -9 $child; rm -rf "$0") & wait $child"#;
        command.args(["-c", script]);
        command.arg(folder).arg(weed).args(&arguments).current_dir(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("a shell can be started")
    }

    /// Whether it serves and has the bucket, before the patience ends.
    fn serves(&self, child: &mut Child, port: u16, filer: u16) -> bool {
        let status = |port: u16, method: &str, target: &str| {
            let answer = Connection::try_open(([127, 0, 0, 1], port).into()).and_then(|mut connection| {
                connection.send_head(
                    method,
                    target,
                    &["Connection: close".to_owned(), "Content-Length: 0".to_owned()],
                )?;
                connection.answer_to(method)
            });
            answer.map_or(0, |answer| answer.status)
        };
        let deadline = Instant::now() + START;
        while Instant::now() < deadline && child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // Strangers are refused: then it is there, and knows its keys. A folder of its file system is a bucket.
            if status(port, "GET", "/") == 403 && status(filer, "POST", &format!("/buckets/{}/", self.bucket)) == 201 {
                return true;
            }
            pause();
        }
        false
    }

    /// A name for a folder in the bucket that nobody else has.
    pub fn prefix() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut bytes = [0; 8];
        let random = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        random.expect("there is randomness");
        format!("test-{}-{:016x}", NEXT.fetch_add(1, Ordering::Relaxed), u64::from_le_bytes(bytes))
    }

    /// The variables by which a server uses this bucket, through `endpoint`.
    pub fn variables(&self, endpoint: &str, prefix: &str) -> Vec<(String, String)> {
        let variables = [
            ("S3_BUCKET", self.bucket.as_str()),
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", self.access_key.as_str()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.as_str()),
            ("S3_REGION", "us-east-1"),
            ("FOUNDRY_STORAGE__S3__PREFIX", prefix),
        ];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }
}
