//! The operators' pages.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use registry_core::testing::entropy::SeededEntropy;
use registry_http::health::{Check, Readiness, Scope};
use registry_http::metrics::Metrics;
use registry_http::operations::{MetricsAccess, Operations};

use crate::client::Client;
use crate::server::{TestApplication, TestServer};

#[derive(Default)]
struct Database(Mutex<Option<String>>);

#[async_trait]
impl Readiness for Database {
    async fn checks(&self, scope: Scope) -> Vec<Check> {
        if scope == Scope::Process {
            return vec![Check { name: "process", outcome: Ok(()) }];
        }
        let outcome = self.0.lock().unwrap().clone().map_or(Ok(()), Err);
        vec![Check { name: "database", outcome }, Check { name: "blobs", outcome: Ok(()) }]
    }
}

async fn start(database: Arc<Database>) -> TestServer {
    TestServer::with(|server| {
        let inner = Arc::<TestApplication>::default();
        server.metrics = Arc::new(Metrics::new());
        server.entropy = Arc::new(SeededEntropy::new(1));
        let metrics = server.metrics.clone();
        server.application = Arc::new(Operations::new(inner, database, metrics, MetricsAccess::Open));
    })
    .await
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let database = Arc::<Database>::default();
    let server = start(database.clone()).await;
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.get("/healthz").await.status, 200);
    let answer = client.get("/readyz").await;
    let all = r#"{"ready":true,"checks":[{"name":"database","ok":true},{"name":"blobs","ok":true}]}"#;
    assert_eq!((answer.status, answer.text()), (200, all));
    *database.0.lock().unwrap() = Some("locked".to_owned());
    let answer = client.get("/readyz").await;
    let some =
        r#"{"ready":false,"checks":[{"name":"database","ok":false,"reason":"locked"},{"name":"blobs","ok":true}]}"#;
    assert_eq!((answer.status, answer.text()), (503, some));
    assert_eq!(client.get("/healthz").await.status, 200, "it lives all the same");
}

#[tokio::test]
async fn readiness_can_leave_out_the_stores_and_nothing_else() {
    let database = Arc::<Database>::default();
    *database.0.lock().unwrap() = Some("locked".to_owned());
    let server = start(database).await;
    let mut client = Client::connect(server.address).await;
    let process = r#"{"ready":true,"checks":[{"name":"process","ok":true}]}"#;
    for query in ["exclude=stores", "exclude=stores&exclude=stores", "a=b&exclude=%73tores"] {
        let answer = client.get(&format!("/readyz?{query}")).await;
        assert_eq!((answer.status, answer.text()), (200, process), "{query}");
    }
    for query in ["", "a=b", "excluded=stores", "stores"] {
        assert_eq!(client.get(&format!("/readyz?{query}")).await.status, 503, "{query}");
    }
    for query in ["exclude", "exclude=", "exclude=store", "exclude=stores&exclude=process"] {
        let answer = client.get(&format!("/readyz?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().ends_with("to exclude: `stores` can be\n"), "{}", answer.text());
    }
}

#[tokio::test]
async fn metrics_count_requests_by_route_method_and_class() {
    let server = start(Arc::default()).await;
    let mut client = Client::connect(server.address).await;
    for _ in 0..3 {
        assert_eq!(client.get("/hello").await.text(), "hello");
    }
    client.send("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nabcd").await;
    assert_eq!(client.answer().await.text(), "abcd");
    client.send("BREW /coffee HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 404);
    let page = client.get("/metrics").await;
    assert!(page.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    for line in [
        "foundry_http_requests_total{route=\"/hello\",method=\"GET\",status=\"2xx\"} 3",
        "foundry_http_requests_total{route=\"unmatched\",method=\"POST\",status=\"2xx\"} 1",
        "foundry_http_requests_total{route=\"unmatched\",method=\"other\",status=\"4xx\"} 1",
        "foundry_http_request_duration_seconds_count{route=\"/hello\",method=\"GET\"} 3",
        "foundry_http_requests_in_flight 1",
        "foundry_http_request_body_bytes_total 4",
        "foundry_http_response_body_bytes_total 19",
        "foundry_http_connections 1",
        "foundry_http_connections_accepted_total 1",
        "# EOF",
    ] {
        assert!(page.text().lines().any(|found| found == line), "{line}\n{}", page.text());
    }
}

#[tokio::test]
async fn pages_are_only_read() {
    let server = start(Arc::default()).await;
    let mut client = Client::connect(server.address).await;
    for page in ["/healthz", "/readyz", "/metrics"] {
        client.send(format!("DELETE {page} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    }
}
