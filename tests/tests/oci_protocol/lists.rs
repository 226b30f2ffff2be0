//! Lists in pages: tags, repositories, and all tags.

use std::collections::BTreeSet;

use registry_tests::{Answer, Image, Random, Server, clients};
use serde_json::json;

/// Where `Link` says that the next page is (RFC 8288).
pub fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link")?;
    let (target, rest) = link.strip_prefix('<').and_then(|link| link.split_once('>')).expect("a link has a target");
    assert_eq!(rest.trim_start_matches([';', ' ']), "rel=\"next\"", "{link}");
    Some(target.to_owned())
}

/// Follows the pages from `first` on: the entries of each.
fn pages(server: &Server, first: &str, member: &str) -> Vec<Vec<String>> {
    let mut target = Some(first.to_owned());
    let mut pages = Vec::new();
    while let Some(here) = target {
        let answer = server.get(&here).expect(200);
        let text = |entry: &serde_json::Value| match entry {
            serde_json::Value::String(text) => text.clone(),
            entry => format!("{}:{}", entry["repository"].as_str().unwrap(), entry["tag"].as_str().unwrap()),
        };
        pages.push(answer.json()[member].as_array().expect("there is a list").iter().map(text).collect());
        assert!(pages.len() < 1_000, "the pages never end");
        target = next(&answer);
    }
    pages
}

/// Asserts that `first` with every size of pages lists exactly `expected`, in pages of that size.
fn assert_pages(server: &Server, first: &str, member: &str, expected: &[String]) {
    assert_eq!(pages(server, first, member).concat(), expected);
    for size in [1, 2, 3, expected.len() - 1, expected.len(), expected.len() + 1] {
        let pages = pages(server, &format!("{first}?n={size}"), member);
        assert_eq!(pages.concat(), expected, "{size} a page");
        let (last, full) = pages.split_last().expect("there is at least one page");
        assert!(full.iter().all(|page| page.len() == size), "{size} a page: {pages:?}");
        assert!(!last.is_empty() && last.len() <= size, "{size} a page: {pages:?}");
    }
}

/// Tags that sort differently as text, as numbers and without case.
fn tags() -> BTreeSet<String> {
    let mut random = Random::new(1);
    let mut tags: BTreeSet<String> =
        ["1", "10", "2", "1.0.0", "1.0.0-rc.1", "A", "a", "Z", "_", "latest"].map(str::to_owned).into();
    tags.extend((0..20).map(|_| format!("t{}", random.below(1_000))));
    tags
}

#[test]
fn tags_in_pages() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let image = Image::new(vec![]);
    for tag in tags() {
        repository.push(&tag, &image);
    }
    // Another repository's tags are not among them.
    server.repository("team/app2").push("other", &image);
    let list = repository.path("tags/list");
    let tags: Vec<String> = tags().into_iter().collect();
    assert_pages(&server, &list, "tags", &tags);
    assert_eq!(server.get(&list).expect(200).json()["name"], "team/app");

    // An unknown `last` is only a place in the order; beyond the end there is nothing.
    let after = |last: &str| server.get(&format!("{list}?last={last}")).expect(200).json()["tags"].clone();
    for last in ["0", "1.0.0", "1.0.0-rc", "b", "zzzz", "%2B"] {
        let decoded = last.replace("%2B", "+");
        let expected: Vec<_> = tags.iter().filter(|tag| **tag > decoded).collect();
        assert_eq!(after(last), json!(expected), "{last}");
    }
    let nothing = server.get(&format!("{list}?n=0")).expect(200);
    assert_eq!(nothing.json()["tags"], json!([]));
    assert_eq!(nothing.header("link"), None);
    assert_eq!(server.get(&format!("{list}?n=99999999999999999999")).expect(200).json()["tags"], json!(tags));
    for n in ["-1", "ten", "1.5", "%2B1"] {
        server.get(&format!("{list}?n={n}")).expect(400);
    }
}

#[test]
fn a_list_that_changes_under_the_reader_stays_in_order() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let image = Image::new(vec![]);
    for tag in ["b", "d", "f", "h"] {
        repository.push(tag, &image);
    }
    let first = server.get(&repository.path("tags/list?n=2")).expect(200);
    assert_eq!(first.json()["tags"], json!(["b", "d"]));
    // The last one seen goes, one comes before it and one after.
    repository.delete_manifest("d").expect(202);
    repository.push("a", &image);
    repository.push("e", &image);
    let rest = server.get(&next(&first).expect("there is more")).expect(200);
    assert_eq!(rest.json()["tags"], json!(["e", "f"]));
    let rest = server.get(&next(&rest).expect("there is more")).expect(200);
    assert_eq!(rest.json()["tags"], json!(["h"]));
    assert_eq!(next(&rest), None);
}

#[test]
fn repositories_without_tags() {
    let server = Server::start();
    let unknown = server.get("/v2/never/pushed/tags/list").expect(404);
    assert_eq!(unknown.oci_code(), "NAME_UNKNOWN");
    let repository = server.repository("team/app");
    let image = Image::new(vec![]);
    repository.push(&image.digest(), &image);
    let list = server.get(&repository.path("tags/list")).expect(200);
    assert_eq!(list.json(), json!({ "name": "team/app", "tags": [] }));
}

#[test]
fn repositories_and_all_their_tags_in_pages() {
    let server = Server::start();
    let image = Image::new(vec![]);
    // Names that share beginnings, and characters that sort around the slash.
    let names = ["a", "a-b", "a.b", "a/b", "a/b/c", "a/c", "a0", "b", "team/app", "team/app2"];
    for name in names {
        for tag in ["1", "2"] {
            server.repository(name).push(tag, &image);
        }
    }
    let mut sorted: Vec<String> = names.map(str::to_owned).to_vec();
    sorted.sort();
    assert_pages(&server, "/v2/_catalog", "repositories", &sorted);
    let all: Vec<String> = sorted.iter().flat_map(|name| [format!("{name}:1"), format!("{name}:2")]).collect();
    assert_pages(&server, "/v2/tags/list", "tags", &all);
    let entry = &server.get("/v2/tags/list?n=1").expect(200).json()["tags"][0];
    assert_eq!(*entry, json!({ "repository": "a", "tag": "1", "digest": image.digest() }));
    let after = server.get("/v2/_catalog?last=a/bb").expect(200).json();
    assert_eq!(after["repositories"][0], "a/c");

    // Everybody sees what they may read.
    for (scopes, visible) in [
        (&["oci:a/*:pull"][..], &["a/b", "a/b/c", "a/c"][..]),
        (&["oci:a/*:pull", "oci:a/b:pull", "oci:b:pull"], &["a/b", "a/b/c", "a/c", "b"]),
        (&["oci:a:push", "oci:team/app:pull"], &["team/app"]),
        (&["generic:*:pull"], &[]),
    ] {
        let token = clients::token(&server, "reader", scopes);
        let catalog = server.with_token(&token, "GET", "/v2/_catalog", &[], b"").expect(200).json();
        assert_eq!(catalog["repositories"], json!(visible), "{scopes:?}");
        let tags = server.with_token(&token, "GET", "/v2/tags/list?n=1000", &[], b"").expect(200).json();
        assert_eq!(tags["tags"].as_array().expect("a list").len(), visible.len() * 2, "{scopes:?}");
    }
    server.anonymous("GET", "/v2/_catalog", &[], b"").expect(401);
    server.anonymous("GET", "/v2/tags/list", &[], b"").expect(401);

    // One whose manifests are all gone is no longer listed.
    server.repository("b").delete_manifest(&image.digest()).expect(202);
    let catalog = server.get("/v2/_catalog?last=a0&n=1").expect(200).json();
    assert_eq!(catalog["repositories"], json!(["team/app"]));
}

#[test]
fn lists_go_over_every_registry_in_one_order() {
    let config = "registries:\n  hub: {format: oci}\n  hub-2: {format: oci, anonymous: pull}\n  empty: {format: oci}";
    let server = Server::builder().config(config).start();
    let image = Image::new(vec![]);
    // Names of the default registry before, between and behind those of the others.
    let names = [
        "hub/app",
        "hub/hub/x",
        "hub/z",
        "hub-2/app",
        "hub-2/team/b",
        "a",
        "hub-1/x",
        "hub.x",
        "hub0",
        "hubs/app",
        "team/app",
        "empt",
        "emptz",
    ];
    for name in names {
        for tag in ["1", "2"] {
            server.repository(name).push(tag, &image);
        }
    }
    let mut sorted = names.map(str::to_owned).to_vec();
    sorted.sort();
    assert_pages(&server, "/v2/_catalog", "repositories", &sorted);
    let all: Vec<String> = sorted.iter().flat_map(|name| [format!("{name}:1"), format!("{name}:2")]).collect();
    assert_pages(&server, "/v2/tags/list", "tags", &all);
    // A listed name is one to pull with.
    for name in &sorted {
        server.repository(name).assert_holds("1", &image);
    }
    // `last` need not exist, nor lie in a registry.
    for last in ["", "hub", "hub-", "hub-2", "hub-2/", "hub/", "hub/b", "hub/~", "hub0", "empty/x", "zz"] {
        let expected: Vec<_> = sorted.iter().filter(|name| name.as_str() > last).collect();
        let found = server.get(&format!("/v2/_catalog?last={last}")).expect(200).json();
        assert_eq!(found["repositories"], json!(expected), "{last}");
        let expected: Vec<_> = all.iter().filter(|entry| entry.rsplit_once(':').unwrap().0 >= last).collect();
        let found = server.get(&format!("/v2/tags/list?last={last}:")).expect(200).json();
        assert_eq!(found["tags"].as_array().unwrap().len(), expected.len(), "{last}");
    }

    // Everybody sees what they may read, and what strangers may.
    for (scopes, visible) in [
        (&["hub:*:pull"][..], &["hub-2/app", "hub-2/team/b", "hub/app", "hub/hub/x", "hub/z"][..]),
        (&["hub:hub/*:pull", "oci:team/*:pull"], &["hub-2/app", "hub-2/team/b", "hub/hub/x", "team/app"]),
        (&["oci:hub/*:pull", "hub:*:push"], &["hub-2/app", "hub-2/team/b"]),
    ] {
        let token = clients::token(&server, "reader", scopes);
        let catalog = server.with_token(&token, "GET", "/v2/_catalog", &[], b"").expect(200).json();
        assert_eq!(catalog["repositories"], json!(visible), "{scopes:?}");
        let tags = server.with_token(&token, "GET", "/v2/tags/list", &[], b"").expect(200).json();
        assert_eq!(tags["tags"].as_array().unwrap().len(), visible.len() * 2, "{scopes:?}");
    }
    let open = server.anonymous("GET", "/v2/_catalog", &[], b"").expect(200).json();
    assert_eq!(open["repositories"], json!(["hub-2/app", "hub-2/team/b"]));
}
