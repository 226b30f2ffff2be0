//! What a server was asked, from its access log.

use std::time::{Duration, Instant};

use crate::server::Server;

/// How long the log may take to show a request that has been answered.
const PATIENCE: Duration = Duration::from_secs(20);

/// A finished request.
#[derive(Clone, Debug)]
pub struct Logged {
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The status of its answer.
    pub status: u64,
    /// Who sent it.
    pub user: String,
    /// How many bytes its body had.
    pub bytes_in: u64,
    /// The version of HTTP: `1.1` or `2`.
    pub version: String,
}

/// The requests of a server from some moment on.
pub struct Requests<'a> {
    server: &'a Server,
    from: usize,
}

impl Server {
    /// The requests that are finished after this call.
    pub fn requests_from_now(&self) -> Requests<'_> {
        let requests = Requests { server: self, from: 0 };
        let from = requests.settled().len();
        Requests { from, ..requests }
    }
}

impl Requests<'_> {
    /// Those requests, in the order in which they ended.
    #[track_caller]
    pub fn list(&self) -> Vec<Logged> {
        self.settled().split_off(self.from)
    }

    /// How many of them `wanted` picks.
    #[track_caller]
    pub fn count(&self, wanted: impl Fn(&Logged) -> bool) -> usize {
        self.list().iter().filter(|request| wanted(request)).count()
    }

    /// Asserts that `repository` got its layer by a mount: what was sent to it, as configs are, is less than `layer` bytes.
    #[track_caller]
    pub fn assert_mounted(&self, repository: &str, layer: usize) {
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let requests = self.list();
        let mounts = requests.iter().filter(|request| request.path == uploads && request.status == 201).count();
        assert!(mounts > 0, "nothing was mounted into {repository}: {requests:#?}");
        let sent: u64 = requests.iter().filter(|to| to.path.starts_with(&uploads)).map(|to| to.bytes_in).sum();
        assert!(sent < layer as u64, "{sent} bytes were sent to {repository}: {requests:#?}");
    }

    /// The whole log up to a request of our own. Lines are written by a thread of their own, a moment after the answer.
    #[track_caller]
    fn settled(&self) -> Vec<Logged> {
        let marker = format!("marker-{}", self.server.log().len());
        let request_id = format!("X-Request-Id: {marker}");
        self.server.anonymous("GET", "/healthz", &[&request_id], b"").expect(200);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lines = self.server.log();
            let lines: Vec<serde_json::Value> =
                lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let accesses: Vec<_> = lines.iter().filter(|line| line["target"] == "access").collect();
            if accesses.iter().any(|line| line["request_id"] == marker.as_str()) {
                return accesses.into_iter().filter(|line| line["path"] != "/healthz").map(logged).collect();
            }
            assert!(Instant::now() < deadline, "the access log does not show {marker}: {lines:#?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn logged(line: &serde_json::Value) -> Logged {
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    Logged {
        method: text("method"),
        path: text("path"),
        status: line["status"].as_u64().unwrap_or_default(),
        user: text("user"),
        bytes_in: line["bytes_in"].as_u64().unwrap_or_default(),
        version: text("version"),
    }
}
