//! What a handler is told about the client and about how the client sees this server.

use registry_http::origin::OriginPolicy;

use crate::client::Client;
use crate::server::TestServer;

async fn who(server: &TestServer, headers: &str) -> String {
    let mut client = Client::connect(server.address).await;
    client.send(format!("GET /who HTTP/1.1\r\n{headers}x-request-id: x\r\n\r\n")).await;
    client.answer().await.text().to_owned()
}

#[tokio::test]
async fn the_host_header_is_the_origin() {
    let server = TestServer::start().await;
    assert_eq!(who(&server, "host: registry.test:5000\r\n").await, "http://registry.test:5000 127.0.0.1 x");
}

#[tokio::test]
async fn a_stranger_forwards_nothing() {
    let server = TestServer::start().await;
    let forwarded = "x-forwarded-for: 1.2.3.4\r\nx-forwarded-host: evil.test\r\nx-forwarded-proto: https\r\n";
    assert_eq!(who(&server, &format!("host: a\r\n{forwarded}")).await, "http://a 127.0.0.1 x");
}

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let trusted = ["127.0.0.0/8".to_owned(), "10.0.0.1".to_owned()];
    let policy = OriginPolicy::new(None, &trusted).unwrap();
    let server = TestServer::with(|server| server.origin = policy).await;
    for (headers, expected) in [
        ("host: a\r\n", "http://a 127.0.0.1 x"),
        ("host: a\r\nx-forwarded-proto: https\r\n", "https://a 127.0.0.1 x"),
        ("host: a\r\nx-forwarded-host: b:1\r\nx-forwarded-proto: https, http\r\n", "https://b:1 127.0.0.1 x"),
        ("host: a\r\nx-forwarded-host: evil, b\r\n", "http://b 127.0.0.1 x"),
        ("host: a\r\nx-forwarded-host: user@b\r\nx-forwarded-proto: gopher\r\n", "http://a 127.0.0.1 x"),
        ("host: a\r\nx-forwarded-for: 9.9.9.9, 1.2.3.4, 10.0.0.1\r\n", "http://a 1.2.3.4 x"),
        ("host: a\r\nx-forwarded-for: 9.9.9.9\r\nx-forwarded-for: 1.2.3.4:80\r\n", "http://a 1.2.3.4 x"),
        ("host: a\r\nx-forwarded-for: [2001:db8::1]\r\n", "http://a 2001:db8::1 x"),
        ("host: a\r\nx-forwarded-for: nonsense\r\n", "http://a 127.0.0.1 x"),
    ] {
        assert_eq!(who(&server, headers).await, expected, "{headers:?}");
    }
}

#[tokio::test]
async fn a_base_url_is_the_origin_whatever_the_headers_say() {
    let base = "https://registry.example.org/below/".parse().unwrap();
    let policy = OriginPolicy::new(Some(base), &[]).unwrap();
    let server = TestServer::with(|server| server.origin = policy).await;
    assert_eq!(who(&server, "host: a\r\n").await, "https://registry.example.org/below 127.0.0.1 x");
}

#[tokio::test]
async fn a_request_names_exactly_one_valid_host() {
    let server = TestServer::start().await;
    for headers in ["", "host: a\r\nhost: b\r\n", "host: a b\r\n", "host: user@a\r\n", "host: \r\n", "host: a/b\r\n"] {
        let mut client = Client::connect(server.address).await;
        client.send(format!("GET /hello?a=b HTTP/1.1\r\nx-request-id: x\r\n{headers}\r\n")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text()), (400, "/hello x"), "{headers:?}");
        assert_eq!(client.get("/hello").await.status, 200, "the connection goes on");
    }
    let mut client = Client::connect(server.address).await;
    client.send("GET http://c:1/who HTTP/1.1\r\nhost: a\r\nx-request-id: x\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "http://c:1 127.0.0.1 x", "an absolute target goes before Host");
}

#[test]
fn nonsense_in_the_configuration_is_refused() {
    for base in ["registry.example.org", "ftp://a", "https://", "https://a?b=c", "https://u@a", "/x"] {
        assert!(base.parse::<registry_http::origin::Origin>().is_err(), "{base}");
    }
    assert!(OriginPolicy::new(None, &["10.0.0.0/33".to_owned()]).is_err());
    assert!(OriginPolicy::new(None, &["proxy".to_owned()]).is_err());
}
