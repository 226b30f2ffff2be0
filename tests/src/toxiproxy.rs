//! Networks that are slow, or that swallow what they are given: toxiproxy between a server and what it talks to.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use crate::http::Answer;
use crate::process::{Process, free_port};
use crate::server::request;
use crate::tools::tool;
use crate::wait::{PATIENCE, pause};

/// A running toxiproxy. It ends with this.
pub struct Toxiproxy {
    api: SocketAddr,
    process: Process,
}

/// A way through it, to one address.
pub struct Way<'a> {
    name: String,
    /// The port of this machine that leads there.
    pub port: u16,
    proxy: &'a Toxiproxy,
}

impl Toxiproxy {
    /// Starts it; `None` after saying that `test` is skipped.
    pub fn start(test: &str) -> Option<Self> {
        let program = tool(test, "toxiproxy")?;
        // Its port is free when it is looked for, and may not be a moment later.
        for _ in 0..3 {
            let port = free_port();
            let mut command = Command::new(&program);
            command.args(["-host", "127.0.0.1", "-port", &port.to_string()]);
            let mut proxy = Self { api: ([127, 0, 0, 1], port).into(), process: Process::start(&mut command) };
            if proxy.serves() {
                return Some(proxy);
            }
        }
        panic!("toxiproxy does not start");
    }

    fn serves(&mut self) -> bool {
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline && !self.process.has_ended() {
            if request(self.api, None, "GET", "/version", &[], b"").is_ok_and(|answer| answer.status == 200) {
                return true;
            }
            pause();
        }
        false
    }

    #[track_caller]
    fn ask(&self, method: &str, target: &str, body: &Value) -> Answer {
        let headers = ["Content-Type: application/json"];
        request(self.api, None, method, target, &headers, body.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// A way to `upstream`, an address and a port.
    pub fn way(&self, name: &str, upstream: &str) -> Way<'_> {
        let proxy = json!({ "name": name, "listen": "127.0.0.1:0", "upstream": upstream, "enabled": true });
        let made = self.ask("POST", "/proxies", &proxy).expect(201).json();
        let address: SocketAddr =
            made["listen"].as_str().expect("it says where it listens").parse().expect("an address");
        Way { name: name.to_owned(), port: address.port(), proxy: self }
    }
}

impl Way<'_> {
    /// From now on every answer comes so much later.
    pub fn delay(&self, milliseconds: u64) {
        self.add("latency", json!({ "latency": milliseconds }));
    }

    /// From now on connections open, and nothing comes through them, either way.
    pub fn swallow(&self) {
        for stream in ["upstream", "downstream"] {
            self.add_to("timeout", stream, json!({ "timeout": 0 }));
        }
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        let target = format!("/proxies/{}/toxics", self.name);
        let toxics = self.proxy.ask("GET", &target, &Value::Null).expect(200).json();
        for toxic in toxics.as_array().expect("a list") {
            let name = toxic["name"].as_str().expect("a toxic has a name");
            self.proxy.ask("DELETE", &format!("{target}/{name}"), &Value::Null).expect(204);
        }
    }

    fn add(&self, kind: &str, attributes: Value) {
        self.add_to(kind, "downstream", attributes);
    }

    fn add_to(&self, kind: &str, stream: &str, attributes: Value) {
        let toxic = json!({ "type": kind, "stream": stream, "toxicity": 1.0, "attributes": attributes });
        self.proxy.ask("POST", &format!("/proxies/{}/toxics", self.name), &toxic).expect(200);
    }
}
