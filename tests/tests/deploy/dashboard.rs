//! The Grafana dashboard asks for what a server really says.

use std::collections::BTreeSet;

use registry_tests::{Connection, Image, Random, Server, eventually};
use serde_json::Value;

use super::read;

/// The names of metrics in a query.
fn metrics(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("foundry_"))
}

/// The labels that a query selects or groups by.
fn labels(query: &str) -> BTreeSet<&str> {
    let braces = query.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let selected = braces.flat_map(|inside| inside.split(',')).filter_map(|matcher| matcher.split(['=', '!']).next());
    let groups = query.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    selected.chain(groups.flat_map(|inside| inside.split(','))).map(str::trim).collect()
}

/// All texts below keys of that name.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                match value {
                    Value::String(text) if name == key => found.push(text),
                    other => texts(other, key, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

/// The names of the samples of a page, and of their labels.
fn samples(page: &str) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let (mut names, mut labels) = (BTreeSet::new(), BTreeSet::new());
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        names.insert(line.split(['{', ' ']).next().unwrap());
        let inside = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inside, _)| inside);
        labels.extend(inside.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name));
    }
    (names, labels)
}

#[test]
fn every_query_asks_for_metrics_and_labels_that_a_server_has() {
    let server = Server::start();
    let repository = server.repository("team/app");
    repository.push("1", &Image::new(vec![Random::new(3).bytes(10_000)]));
    repository.get_manifest("1").expect(200);
    server.get("/v2/team/app/manifests/absent").expect(404);
    server.gc("0s");
    // A connection that is refused because of what it sent.
    let mut connection = Connection::open(server.address());
    connection.send(b"not HTTP\r\n\r\n").unwrap();
    let _ = connection.answer();
    // It is counted when the connection is over, which may be after its answer.
    let page = eventually("the refused connection is counted", || {
        let page = server.get("/metrics").expect(200).text();
        page.contains("\nfoundry_http_connections_refused_total{").then_some(page)
    });
    let (names, mut known) = samples(&page);
    // What Prometheus adds.
    known.extend(["job", "instance"]);

    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/foundry.json")).unwrap();
    let mut queries = Vec::new();
    texts(&dashboard, "expr", &mut queries);
    assert!(queries.len() >= 15, "{queries:?}");
    for query in queries {
        assert!(metrics(query).next().is_some(), "{query} asks for nothing of Foundry's");
        let absent: Vec<_> = metrics(query).filter(|metric| !names.contains(metric)).collect();
        assert!(absent.is_empty(), "{query}: no server has {absent:?}:\n{page}");
        let unknown: Vec<_> = labels(query).into_iter().filter(|label| !known.contains(label)).collect();
        assert!(unknown.is_empty(), "{query}: no sample has {unknown:?}:\n{page}");
    }
    let mut variables = Vec::new();
    texts(&dashboard["templating"], "query", &mut variables);
    let variables: Vec<_> = variables.iter().flat_map(|query| metrics(query)).collect();
    assert!(!variables.is_empty() && variables.iter().all(|metric| names.contains(metric)), "{variables:?}");
}

#[test]
fn what_readiness_says_is_no_failure() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/foundry.json")).unwrap();
    let mut queries = Vec::new();
    texts(&dashboard, "expr", &mut queries);
    let failures: Vec<_> =
        queries.iter().filter(|query| query.contains("5xx") || query.contains("by (status)")).collect();
    assert!(failures.len() >= 3, "{failures:?}");
    for query in failures {
        // Of the share, too, both of what is divided.
        let selected = query.matches("foundry_http_requests_total{").count();
        assert_eq!(query.matches("route!=\"/readyz\"").count(), selected, "{query}");
    }
}

#[test]
fn its_panels_have_places_and_explanations() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/foundry.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}: an id twice", panel["title"]);
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{} is off the grid", panel["title"]);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} lies on another panel", panel["title"]);
            }
        }
        if panel["type"] != "row" {
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{} has no description", panel["title"]);
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
        }
    }
}
