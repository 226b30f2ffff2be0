//! Where the keys of the bucket come from: each source by itself, and which of several is taken.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use registry_tests::oci::sha256;
use registry_tests::process::free_port;
use registry_tests::{Answer, S3, Server, ServerBuilder, StoreProxy};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use tempfile::TempDir;

use crate::{Bucket, objects};

/// The keys are wrong until somebody sets the secret right.
const WRONG: &str = "wrong-secret";
/// They have ended already: whoever uses them asks for new ones first.
const ENDED: &str = "2000-01-01T00:00:00Z";
const ROLE: &str = "arn:aws:iam::123456789012:role/foundry";
const ROLE_IN_QUERY: &str = "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Ffoundry";
const IDENTITY: &str = "the-identity-of-a-service-account";
const POD: &str = "the-token-of-a-pod";
const INSTANCE: &str = "/latest/meta-data/iam/security-credentials/";

/// What hands out keys for the bucket: a security token service, a task's and a pod's credentials, an instance's metadata
/// service. The session token of each says who gave it.
struct Vendor {
    access_key: String,
    secret: Mutex<String>,
}

impl Vendor {
    /// The vendor, its address, and the address at which it is the security token service, by this certificate.
    fn start(s3: &S3, certificate: &Path) -> (Arc<Self>, SocketAddr, SocketAddr) {
        let vendor = Arc::new(Self { access_key: s3.access_key.clone(), secret: Mutex::new(WRONG.to_owned()) });
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(certificate, made.cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let tls = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let tls = Arc::new(tls);

        let plain = vendor.listen(|vendor, stream| drop(vendor.serve(stream, false)));
        let encrypted = vendor.listen(move |vendor, stream| {
            let connection = ServerConnection::new(Arc::clone(&tls)).unwrap();
            drop(vendor.serve(StreamOwned::new(connection, stream), true));
        });
        (vendor, plain, encrypted)
    }

    fn listen(self: &Arc<Self>, serve: impl Fn(&Self, TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let vendor = Arc::clone(self);
        std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(|it| serve(&vendor, it)));
        address
    }

    fn serve(&self, stream: impl Read + Write, is_encrypted: bool) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while reader.read_line(&mut head)? > 2 {}
        let answer = self.answer(&head, is_encrypted);
        let status = if answer.is_some() { "200 OK" } else { "403 Forbidden" };
        let body = answer.unwrap_or_default();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        reader.get_mut().write_all(format!("{head}{body}").as_bytes())?;
        reader.get_mut().flush()
    }

    /// The answer to whom it knows.
    fn answer(&self, head: &str, is_encrypted: bool) -> Option<String> {
        let header = |name: &str| {
            let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
            lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
        };
        let mut words = head.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let host = header("host");
        // As the proxy of those that have an address on a real machine only, it is sent whole URLs.
        let target = target.strip_prefix(&format!("http://{host}")).unwrap_or(target);
        let has_session = header("x-aws-ec2-metadata-token") == "session";
        match (method, host, target) {
            ("POST", _, query) if is_encrypted => {
                let asks = ["Action=AssumeRoleWithWebIdentity", ROLE_IN_QUERY, &format!("WebIdentityToken={IDENTITY}")];
                asks.iter().all(|part| query.contains(part)).then(|| self.role())
            }
            ("GET", "169.254.170.2", "/task") => Some(self.keys("task")),
            ("GET", _, "/pod") if header("authorization") == POD => Some(self.keys("pod")),
            ("PUT", _, "/latest/api/token") => Some("session".to_owned()),
            ("GET", _, INSTANCE) if has_session => Some("the-role".to_owned()),
            ("GET", _, target) if has_session && target.strip_prefix(INSTANCE) == Some("the-role") => {
                let is_usual = host == "169.254.169.254";
                Some(self.keys(if is_usual { "instance" } else { "instance elsewhere" }))
            }
            _ => None,
        }
    }

    fn keys(&self, name: &str) -> String {
        let secret = &*self.secret.lock().unwrap();
        json!({
            "AccessKeyId": self.access_key, "SecretAccessKey": secret, "Token": session(name), "Expiration": ENDED,
        })
        .to_string()
    }

    fn role(&self) -> String {
        let (key, secret, token) = (&self.access_key, &*self.secret.lock().unwrap(), session("web identity"));
        format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>{token}</SessionToken><Expiration>{ENDED}</Expiration>\
             </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )
    }
}

/// The session token by which the store's proxy knows whose keys a request is signed with.
fn session(name: &str) -> String {
    format!("token-of-the-{}", name.replace(' ', "-"))
}

/// A server's surroundings: the bucket behind a proxy that sees session tokens, and all that hands out keys for it.
struct Surroundings {
    bucket: Bucket,
    proxy: StoreProxy,
    folder: TempDir,
    vendor: Arc<Vendor>,
    plain: SocketAddr,
    encrypted: SocketAddr,
}

/// The sources in the order in which they are asked.
const SOURCES: [&str; 6] = ["environment", "web identity", "task", "pod", "file", "instance"];

impl Surroundings {
    fn new(test: &str) -> Option<Self> {
        let bucket = Bucket::new(test)?;
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("identity"), IDENTITY).unwrap();
        fs::write(folder.path().join("pod"), POD).unwrap();
        let (vendor, plain, encrypted) = Vendor::start(bucket.s3, &folder.path().join("sts.pem"));
        let proxy = StoreProxy::start(&bucket.endpoint);
        let surroundings = Self { bucket, proxy, folder, vendor, plain, encrypted };
        surroundings.set_secret(WRONG);
        Some(surroundings)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join(".aws/credentials")
    }

    /// What all of them hand out from now on.
    fn set_secret(&self, secret: &str) {
        *self.vendor.secret.lock().unwrap() = secret.to_owned();
        let (key, token) = (&self.bucket.s3.access_key, session("file"));
        fs::create_dir_all(self.file().parent().unwrap()).unwrap();
        let keys = format!("aws_access_key_id={key}\naws_secret_access_key={secret}\naws_session_token={token}\n");
        // Two files within one tick of the clock would have the same time.
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(if secret == WRONG { 1 } else { 2 });
        fs::write(self.file(), format!("[default]\n{keys}")).unwrap();
        fs::File::options().write(true).open(self.file()).unwrap().set_modified(time).unwrap();
    }

    /// The variables that lead to a source.
    fn variables(&self, source: &str, secret: &str) -> Vec<(&'static str, String)> {
        match source {
            "environment" => vec![
                ("AWS_ACCESS_KEY_ID", self.bucket.s3.access_key.clone()),
                ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
                ("AWS_SESSION_TOKEN", session("environment")),
            ],
            "web identity" => vec![
                ("AWS_WEB_IDENTITY_TOKEN_FILE", self.path("identity")),
                ("AWS_ROLE_ARN", ROLE.to_owned()),
                ("AWS_ENDPOINT_URL_STS", format!("https://{}", self.encrypted)),
                ("SSL_CERT_FILE", self.path("sts.pem")),
            ],
            "task" => vec![("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/task".to_owned())],
            "pod" => vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{}/pod", self.plain)),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", self.path("pod")),
            ],
            "file" => vec![("HOME", self.path(""))],
            "instance elsewhere" => {
                vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}", self.plain))]
            }
            // Without anything.
            _ => Vec::new(),
        }
    }

    /// A server that finds these sources.
    fn server(&self, sources: &[&str], secret: &str) -> Server {
        let mut builder = ServerBuilder::on_files()
            // No home, no file.
            .environment("HOME", &self.path("nothing"))
            // The addresses of tasks' and instances' services are there on real machines only.
            .environment("HTTP_PROXY", &format!("http://{}", self.plain))
            .environment("NO_PROXY", "127.0.0.1")
            .environment("FOUNDRY_STORAGE__S3__RETRY_TIMEOUT", "1s");
        for (name, value) in self.bucket.s3.variables(&self.proxy.endpoint(), &self.bucket.prefix) {
            if !name.ends_with("KEY_ID") && !name.ends_with("ACCESS_KEY") {
                builder = builder.environment(&name, &value);
            }
        }
        for (name, value) in sources.iter().flat_map(|source| self.variables(source, secret)) {
            builder = builder.environment(name, &value);
        }
        builder.start()
    }

    /// Whose keys the requests since the last call were signed with.
    fn signers(&self) -> Vec<String> {
        let mut signers: Vec<_> =
            self.proxy.take().into_iter().map(|it| it.session_token.unwrap_or_default()).collect();
        signers.sort();
        signers.dedup();
        signers
    }
}

fn push(server: &Server, bytes: &[u8]) -> Answer {
    let target = format!("/v2/team/app/blobs/uploads/?digest={}", sha256(bytes));
    server.request("POST", &target, &["Content-Type: application/octet-stream"], bytes)
}

#[test]
fn keys_come_from_the_first_source_that_there_is() {
    let Some(here) = Surroundings::new("the sources of keys") else { return };
    let right = here.bucket.s3.secret_key.clone();
    for (index, source) in SOURCES.iter().enumerate() {
        let bytes = source.as_bytes();
        here.set_secret(WRONG);
        // With all those that come after it.
        let mut server = here.server(&SOURCES[index..], WRONG);
        let refused = push(&server, bytes);
        assert_eq!(refused.status, 500, "{source}: {refused:?}");
        assert_eq!(here.signers(), [session(source)], "{source}");
        server.repository("team/app").head_blob(&sha256(bytes)).expect(404);
        assert_eq!(objects(&here.bucket), index, "{source}");

        // Who was given them for a time asks again; the environment of a process stays what it was.
        here.set_secret(&right);
        if *source == "environment" {
            server = here.server(&SOURCES[index..], &right);
        }
        push(&server, bytes).expect(201);
        assert_eq!(server.repository("team/app").get_blob(&sha256(bytes)).expect(200).body, bytes, "{source}");
        assert_eq!(here.signers(), [session(source)], "{source}");
        assert!(server.log().iter().all(|line| !line.contains(&right) && !line.contains(WRONG)), "{source}");
    }
    assert_eq!(objects(&here.bucket), SOURCES.len());
}

#[test]
fn an_instance_may_have_its_service_elsewhere() {
    let Some(here) = Surroundings::new("another address of the instance's service") else { return };
    here.set_secret(&here.bucket.s3.secret_key);
    let server = here.server(&["instance elsewhere"], "");
    push(&server, b"elsewhere").expect(201);
    assert_eq!(here.signers(), [session("instance elsewhere")]);
}

#[test]
fn without_keys_nothing_is_stored_and_clients_are_told_so() {
    let Some(here) = Surroundings::new("no keys") else { return };
    here.set_secret(&here.bucket.s3.secret_key);
    // Services that refuse, and one that is not there.
    fs::write(here.path("identity"), "of-somebody-else").unwrap();
    fs::write(here.path("pod"), "of-somebody-else").unwrap();
    for source in ["web identity", "pod"] {
        let server = here.server(&[source], "");
        push(&server, b"nothing").expect(500);
        server.get("/readyz").expect(503);
    }
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let server = ServerBuilder::on_files()
        .environment("S3_BUCKET", &here.bucket.s3.bucket)
        .environment("AWS_ENDPOINT_URL", &here.proxy.endpoint())
        .environment("AWS_ALLOW_HTTP", "true")
        .environment("HOME", &here.path("nothing"))
        .environment("AWS_EC2_METADATA_SERVICE_ENDPOINT", &nowhere)
        .environment("FOUNDRY_STORAGE__S3__RETRY_TIMEOUT", "1s")
        .start();
    let answer = push(&server, b"nothing").expect(503);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!((here.signers(), objects(&here.bucket)), (vec![], 0));
}
