//! Lists of packages and versions, and parts of artifacts: the reading side of `/api/v1`.

use registry_tests::oci::sha256;
use registry_tests::{Random, Server};
use serde_json::{Value, json};

fn path(package: &str, version: &str) -> String {
    format!("/api/v1/artifacts/{package}/{version}")
}

#[track_caller]
fn upload(server: &Server, package: &str, version: &str) {
    let body = format!("{package} {version}");
    server.request("POST", &path(package, version), &[], body.as_bytes()).expect(201);
}

/// The values of `field` in the documents of a list.
fn column(list: &Value, field: &str) -> Vec<String> {
    let documents = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    documents.iter().map(|document| document[field].as_str().unwrap().to_owned()).collect()
}

/// All pages of `limit` entries, joined; checks that each page but the last is full and says what comes after it.
#[track_caller]
fn pages(server: &Server, target: &str, list: &str, field: &str, limit: usize) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let separator = if target.contains('?') { '&' } else { '?' };
    let mut page = server.get(&format!("{target}{separator}limit={limit}")).expect(200).json();
    loop {
        let names = column(&page[list], field);
        assert!(names.len() <= limit);
        assert!(names.iter().all(|name| !all.contains(name)), "{names:?} come again after {all:?}");
        all.extend(names.iter().cloned());
        let Some(next) = page["next"].as_str() else { return all };
        assert_eq!((names.len(), names.last().map(String::as_str)), (limit, Some(next)), "{page}");
        page = server.get(&format!("{target}{separator}limit={limit}&after={}", encoded(next))).expect(200).json();
        assert!(!page[list].as_array().unwrap().is_empty(), "a page that was announced holds something");
    }
}

/// `+` means a space in a query.
fn encoded(text: &str) -> String {
    text.replace('%', "%25").replace('+', "%2B")
}

#[test]
fn versions_sort_as_versions() {
    let server = Server::start();
    let sorted = [
        "0.9",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.0+build",
        "1.2.0",
        "1.9.0",
        "v1.9.1",
        "1.10.0",
        "1.99999999999999999999999",
        "2.0.0-rc1",
        "2.0.0",
        "2024-01-01",
        "10.0",
    ];
    let sorted: Vec<&str> = sorted.into_iter().filter(|version| *version != "2024-01-01").collect();
    let mut random = Random::seeded("versions_sort_as_versions", 11);
    let mut shuffled = sorted.clone();
    for index in (1..shuffled.len()).rev() {
        shuffled.swap(index, random.below(index as u64 + 1) as usize);
    }
    for version in shuffled {
        upload(&server, "p", version);
    }
    let listed = server.get("/api/v1/packages/p").expect(200).json();
    assert_eq!(column(&listed["versions"], "version"), sorted);
    for limit in [1, 2, 5, sorted.len(), sorted.len() + 1] {
        assert_eq!(pages(&server, "/api/v1/packages/p", "versions", "version", limit), sorted, "in pages of {limit}");
    }
    // A version that is not there is a place in the order, not an error.
    let after = server.get("/api/v1/packages/p?after=1.9.7").expect(200).json();
    assert_eq!(column(&after["versions"], "version"), &sorted[sorted.iter().position(|v| *v == "1.10.0").unwrap()..]);
    server.get("/api/v1/packages/p?after=..").expect(400);
}

#[test]
fn packages_are_listed_in_pages_with_what_they_hold() {
    let server = Server::start();
    let mut names: Vec<String> = (0..23).map(|number| format!("pkg-{number}")).collect();
    names.extend(["Zoo".to_owned(), "a".to_owned(), "zz.zz_zz-zz".to_owned()]);
    for name in &names {
        upload(&server, name, "1.9.0");
    }
    names.sort();
    for limit in [1, 5, 26, 1000] {
        assert_eq!(pages(&server, "/api/v1/packages", "packages", "package", limit), names, "in pages of {limit}");
    }
    for version in ["1.10.0", "1.2.0", "2.0.0-rc.1"] {
        upload(&server, "a", version);
    }
    let summary = || -> Value {
        let list = server.get("/api/v1/packages").expect(200).json();
        let mut found: Vec<Value> = list["packages"].as_array().unwrap().clone();
        found.retain(|package| package["package"] == "a");
        found.pop().unwrap_or_default()
    };
    let before = summary();
    assert_eq!((&before["version_count"], &before["latest_version"]), (&4.into(), &"2.0.0-rc.1".into()));
    humantime::parse_rfc3339(before["updated_at"].as_str().unwrap()).unwrap();
    for (delete, count, latest) in [("2.0.0-rc.1", 3, "1.10.0"), ("1.2.0", 2, "1.10.0"), ("1.10.0", 1, "1.9.0")] {
        server.request("DELETE", &path("a", delete), &[], b"").expect(204);
        let now = summary();
        assert_eq!((&now["version_count"], &now["latest_version"]), (&count.into(), &latest.into()));
    }
    server.request("DELETE", &path("a", "1.9.0"), &[], b"").expect(204);
    assert_eq!(summary(), Value::Null, "a package without versions is gone");
    server.get("/api/v1/packages/a").expect(404);
    assert_eq!(server.get("/api/v1/packages?search=a").expect(200).json()["packages"], json!([]), "from searches too");

    let after = server.get("/api/v1/packages?after=pkg-8zzz").expect(200).json();
    assert_eq!(column(&after["packages"], "package"), ["pkg-9", "zz.zz_zz-zz"]);
    let none = server.get("/api/v1/packages?after=zzzzz").expect(200).json();
    assert_eq!(none, json!({ "packages": [] }));
    for limit in ["x", "-1", "1.5", "%20"] {
        assert_eq!(server.get(&format!("/api/v1/packages?limit={limit}")).expect(400).json()["code"], "invalid_limit");
    }
    // Out of bounds is the nearest bound.
    for (limit, length) in [("0", 1), ("99999999999999999999", 25)] {
        let list = server.get(&format!("/api/v1/packages?limit={limit}")).expect(200).json();
        assert_eq!(list["packages"].as_array().unwrap().len(), length, "limit={limit}");
    }
}

#[test]
fn a_search_finds_every_name_that_contains_it() {
    let server = Server::start();
    let mut names: Vec<&str> = vec![
        "llama-3", "Llama-2", "alpaca", "my_model", "myXmodel", "a.b", "a-b", "ab", "abab", "aaa", "ABC", "q8_0", "x",
    ];
    for name in &names {
        upload(&server, name, "1");
    }
    names.sort_unstable();
    for search in [
        "llama", "LLAMA", "ama-", "a", "A", "ab", "aB", "aba", "abab", "ababa", "_", "my_", ".", "-", "8_0", "x", "X",
        "%25", "%5C", "'", "*", "aaaa", "llama-3", "\u{0}",
    ] {
        let plain = search.replace("%25", "%").replace("%5C", "\\").to_ascii_lowercase();
        let expected: Vec<&str> =
            names.iter().copied().filter(|name| name.to_ascii_lowercase().contains(&plain)).collect();
        let target = format!("/api/v1/packages?search={}", search.replace('\0', "%00"));
        let found = server.get(&target).expect(200).json();
        assert_eq!(column(&found["packages"], "package"), expected, "search={search}");
        assert_eq!(pages(&server, &target, "packages", "package", 1), expected, "search={search} in pages of 1");
    }
    let all = server.get("/api/v1/packages?search=").expect(200).json();
    assert_eq!(column(&all["packages"], "package"), names, "an empty search is none");
    let long = "a".repeat(129);
    server.get(&format!("/api/v1/packages?search={long}")).expect(400);
}

#[test]
fn lists_hold_only_what_one_may_read() {
    let server = Server::builder().environment("FOUNDRY_REGISTRIES__GENERIC__ANONYMOUS", "none").start();
    for name in ["a", "ab", "abc", "b"] {
        upload(&server, name, "1");
    }
    let body = json!({ "name": "t", "scopes": ["generic:ab:pull", "generic:b:pull", "generic:a:push"] }).to_string();
    let made = server.request("POST", "/api/v1/tokens", &[], body.as_bytes()).expect(201).json();
    let token = made["token"].as_str().unwrap();
    for (target, expected) in [
        ("/api/v1/packages", vec!["ab", "b"]),
        ("/api/v1/packages?search=a", vec!["ab"]),
        ("/api/v1/packages?after=ab", vec!["b"]),
        ("/api/v1/packages?limit=1", vec!["ab"]),
        ("/api/v1/packages?limit=1&after=ab", vec!["b"]),
    ] {
        let list = server.with_token(token, "GET", target, &[], b"").expect(200).json();
        assert_eq!(column(&list["packages"], "package"), expected, "{target}");
    }
}

#[test]
fn parts_of_an_artifact() {
    let server = Server::start();
    const SIZE: usize = 3_000_000;
    let bytes = Random::new(8).bytes(SIZE);
    server.request("POST", &path("p", "1"), &["Content-Type: text/x"], &bytes).expect(201);
    let last = SIZE - 1;
    for (range, first, end) in [
        ("0-0".to_owned(), 0, 1),
        ("0-99".to_owned(), 0, 100),
        ("0-".to_owned(), 0, SIZE),
        ("1000000-1999999".to_owned(), 1_000_000, 2_000_000),
        ("2000000-".to_owned(), 2_000_000, SIZE),
        (format!("{last}-"), last, SIZE),
        (format!("{last}-{last}"), last, SIZE),
        (format!("10-{}", SIZE * 2), 10, SIZE),
        ("-1".to_owned(), last, SIZE),
        ("-1000000".to_owned(), SIZE - 1_000_000, SIZE),
        (format!("-{}", SIZE * 2), 0, SIZE),
        ("2999990-99999999999999999999999999".to_owned(), 2_999_990, SIZE),
    ] {
        let header = format!("Range: bytes={range}");
        let answer = server.request("GET", &path("p", "1"), &[&header], b"").expect(206);
        assert!(answer.body == bytes[first..end], "{range}: {} bytes", answer.body.len());
        let content_range = format!("bytes {first}-{}/{SIZE}", end - 1);
        assert_eq!(answer.header("content-range"), Some(content_range.as_str()), "{range}");
        assert_eq!(answer.header("content-length"), Some((end - first).to_string().as_str()), "{range}");
        assert_eq!(answer.header("content-type"), Some("text/x"), "{range}");
        assert_eq!(answer.header("etag"), Some(format!("\"{}\"", sha256(&bytes)).as_str()), "{range}");
    }
    for range in [format!("{SIZE}-"), "9999999-99999999".to_owned(), "500-0".to_owned(), "-0".to_owned()] {
        let header = format!("Range: bytes={range}");
        let answer = server.request("GET", &path("p", "1"), &[&header], b"").expect(416);
        assert_eq!(answer.header("content-range"), Some(format!("bytes */{SIZE}").as_str()), "{range}");
        assert!(answer.body.len() < 1000, "{range}");
    }
    let answer = server.request("GET", &path("p", "1"), &["Range: bytes=-2,0-1,1000000-1999999"], b"").expect(206);
    let part = |first: usize, end: usize| {
        let content_range = format!("bytes {first}-{}/{SIZE}", end - 1);
        ("text/x".to_owned(), content_range, bytes[first..end].to_vec())
    };
    assert!(answer.parts() == [part(SIZE - 2, SIZE), part(0, 2), part(1_000_000, 2_000_000)], "{:?}", answer.headers);
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    assert!(answer.header("content-disposition").is_some_and(|value| value.contains("p-1")));
    // What is no range is answered with the whole (RFC 9110, 14.2).
    for range in ["bytes=x-y", "bytes=", "bytes", "lines=1-2", "bytes=0-1,x", "bytes=--1"] {
        let answer = server.request("GET", &path("p", "1"), &[&format!("Range: {range}")], b"").expect(200);
        assert!(answer.body == bytes, "{range}");
    }
    let head = server.request("HEAD", &path("p", "1"), &["Range: bytes=0-9"], b"").expect(200);
    assert_eq!(head.header("content-length"), Some(SIZE.to_string().as_str()), "ranges are defined for GET alone");
}

#[test]
fn conditional_requests() {
    let server = Server::start();
    server.request("POST", &path("p", "1"), &[], b"0123456789").expect(201);
    let whole = server.get(&path("p", "1")).expect(200);
    let etag = whole.header("etag").unwrap().to_owned();
    let modified = whole.header("last-modified").unwrap().to_owned();
    let (past, future) = ("Thu, 01 Jan 1970 00:00:10 GMT", "Fri, 31 Dec 2100 23:59:59 GMT");
    for (headers, status) in [
        (vec![format!("If-None-Match: {etag}")], 304),
        (vec![format!("If-None-Match: W/{etag}")], 304),
        (vec![format!("If-None-Match: \"x\", {etag}")], 304),
        (vec!["If-None-Match: \"x\"".to_owned(), format!("If-None-Match: {etag}")], 304),
        (vec!["If-None-Match: *".to_owned()], 304),
        (vec!["If-None-Match: \"x\"".to_owned()], 200),
        (vec![format!("If-None-Match: {}", etag.trim_matches('"'))], 200),
        (vec![format!("If-Match: {etag}")], 200),
        (vec!["If-Match: *".to_owned()], 200),
        (vec!["If-Match: \"x\"".to_owned()], 412),
        (vec![format!("If-Match: W/{etag}")], 412),
        (vec![format!("If-Modified-Since: {modified}")], 304),
        (vec![format!("If-Modified-Since: {future}")], 304),
        (vec![format!("If-Modified-Since: {past}")], 200),
        (vec!["If-Modified-Since: yesterday".to_owned()], 200),
        (vec![format!("If-Unmodified-Since: {modified}")], 200),
        (vec![format!("If-Unmodified-Since: {future}")], 200),
        (vec![format!("If-Unmodified-Since: {past}")], 412),
        (vec!["If-Unmodified-Since: yesterday".to_owned()], 200),
        (vec![format!("If-Match: {etag}"), format!("If-Unmodified-Since: {past}")], 200),
        (vec![format!("If-None-Match: {etag}"), format!("If-Unmodified-Since: {past}")], 412),
        // The entity tag decides where there is one (RFC 9110, 13.1.3).
        (vec!["If-None-Match: \"x\"".to_owned(), format!("If-Modified-Since: {future}")], 200),
        (vec![format!("If-None-Match: {etag}"), format!("If-Modified-Since: {past}")], 304),
        (vec!["If-Match: \"x\"".to_owned(), format!("If-None-Match: {etag}")], 412),
        (vec!["Range: bytes=2-3".to_owned(), format!("If-Range: {etag}")], 206),
        (vec!["Range: bytes=2-3".to_owned(), "If-Range: \"x\"".to_owned()], 200),
        (vec!["Range: bytes=2-3".to_owned(), format!("If-None-Match: {etag}")], 304),
        (vec!["Range: bytes=99-".to_owned(), format!("If-None-Match: {etag}")], 304),
    ] {
        let lines: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = server.request("GET", &path("p", "1"), &lines, b"").expect(status);
        let expected: &[u8] = match status {
            200 => b"0123456789",
            206 => b"23",
            _ => b"",
        };
        assert_eq!(answer.body, expected, "{headers:?}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()), "{headers:?}");
        if !headers[0].starts_with("Range") {
            let head = server.request("HEAD", &path("p", "1"), &lines, b"").expect(status);
            assert_eq!(head.header("etag"), Some(etag.as_str()), "HEAD {headers:?}");
        }
    }
}
