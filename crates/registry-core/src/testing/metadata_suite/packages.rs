//! Packages and their versions.

use super::world::{if_absent, if_match, pages, range, texts};
use super::{Subject, World, at};
use crate::digest::Digest;
use crate::names::{PackageName, Version};
use crate::package::PackageSummary;
use crate::ports::metadata::NameRange;
use crate::precondition::Precondition;
use crate::registry::Format;

fn package(name: &str) -> PackageName {
    name.parse().unwrap()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

async fn list(world: &World, range: &NameRange, search: Option<&str>, limit: usize) -> Vec<String> {
    let packages = world.other.packages(world.generic, range, search, limit).await.unwrap();
    texts(packages.iter().map(|summary| &summary.package))
}

/// Not as texts; after one that need not exist.
pub async fn versions_come_in_the_order_of_versions(subject: &impl Subject) {
    let world = World::new(subject).await;
    let sorted =
        ["0.9", "0.10", "1.0.0-alpha", "1.0.0-rc.1", "1.0.0-rc.11", "1", "1.0.0", "v1.2", "1.10", "10", "nightly"];
    for text in
        ["1.10", "10", "nightly", "1", "0.9", "1.0.0-rc.11", "0.10", "v1.2", "1.0.0", "1.0.0-alpha", "1.0.0-rc.1"]
    {
        world.publish("p", text).await;
    }
    world.publish("q", "5").await;
    let page = async |after: Option<&str>, limit| {
        let after = after.map(version);
        let page = world.other.versions(world.generic, &package("p"), after.as_ref(), limit).await.unwrap().unwrap();
        for artifact in &page {
            let text = format!("p {}", artifact.version);
            assert_eq!(artifact.digest, Digest::sha256(text.as_bytes()));
            assert_eq!((artifact.package.as_str(), artifact.size), ("p", text.len() as u64));
            assert_eq!((artifact.content_type.as_str(), artifact.uploaded_at), ("application/x-test", at(0)));
            assert_eq!(artifact.filename.as_str(), format!("p {} ü.bin", artifact.version));
        }
        texts(page.iter().map(|artifact| &artifact.version))
    };
    assert_eq!(page(None, 100).await, sorted);
    for limit in [1, 4, 11] {
        let all = pages(limit, async |after: Option<&String>| page(after.map(String::as_str), limit).await).await;
        assert_eq!(all, sorted, "in pages of {limit}");
    }
    assert_eq!(page(Some("1.0.1"), 2).await, ["v1.2", "1.10"]);
    assert_eq!(page(Some("0.0"), 1).await, ["0.9"]);
    assert_eq!(page(Some("zzz"), 1).await, Vec::<String>::new());
    for after in [None, Some(&version("1"))] {
        assert_eq!(world.other.versions(world.generic, &package("none"), after, 10).await.unwrap(), None);
        assert_eq!(world.other.versions(world.oci, &package("p"), after, 10).await.unwrap(), None);
    }
}

/// The last version in the order of versions, whenever it came; the time of the last change.
pub async fn packages_are_summed_up(subject: &impl Subject) {
    let world = World::new(subject).await;
    let summary = async || {
        let mut packages = world.other.packages(world.generic, &NameRange::default(), None, 10).await.unwrap();
        assert_eq!(packages.len(), 1);
        packages.remove(0)
    };
    let expected = |version_count, latest: &str, seconds| PackageSummary {
        package: package("p"),
        version_count,
        latest_version: version(latest),
        updated_at: at(seconds),
    };
    world.publish_at("p", "1.9", "a", at(1)).await;
    assert_eq!(summary().await, expected(1, "1.9", 1));
    world.publish_at("p", "1.10", "b", at(2)).await;
    assert_eq!(summary().await, expected(2, "1.10", 2));
    world.publish_at("p", "1.2", "c", at(3)).await;
    assert_eq!(summary().await, expected(3, "1.10", 3));
    let delete = async |text: &str, now| {
        world
            .store
            .delete_artifact(world.generic, &package("p"), &version(text), &Precondition::NONE, now)
            .await
            .unwrap()
    };
    assert!(delete("1.10", at(4)).await);
    assert_eq!(summary().await, expected(2, "1.9", 4));
    assert!(delete("1.2", at(5)).await);
    assert_eq!(summary().await, expected(1, "1.9", 5));
    assert!(!delete("1.2", at(6)).await);
    assert_eq!(summary().await, expected(1, "1.9", 5));
    world.publish_at("p", "1.10", "d", at(7)).await;
    assert_eq!(summary().await, expected(2, "1.10", 7));
}

/// Names sort by byte.
pub async fn packages_come_in_pages_and_ranges(subject: &impl Subject) {
    let world = World::new(subject).await;
    let sorted = ["0x", "Zebra", "a", "a-b", "a.b", "ab", "b", "ba"];
    for name in ["b", "a", "Zebra", "a.b", "ba", "ab", "0x", "a-b"] {
        world.publish(name, "1").await;
    }
    let page = async |after: Option<&String>| list(&world, &range("", None, after.map(String::as_str)), None, 3).await;
    assert_eq!(pages(3, page).await, sorted);
    for (start, end, after, expected) in [
        ("a", Some("b"), None, &sorted[2..6]),
        ("a", Some("b"), Some("a."), &sorted[4..6]),
        ("a", Some("a\0"), None, &sorted[2..3]),
        ("a", Some("a\0"), Some("a"), &[]),
        ("", Some("Z"), None, &sorted[..1]),
        ("c", None, None, &[]),
    ] {
        assert_eq!(list(&world, &range(start, end, after), None, 100).await, expected, "{start} {end:?} {after:?}");
        assert_eq!(list(&world, &range(start, end, after), Some(""), 100).await, expected);
    }
    let other = world.registry("files", Format::Generic).await;
    assert_eq!(world.other.packages(other, &NameRange::default(), None, 10).await.unwrap(), []);
    assert_eq!(world.other.packages(other, &NameRange::default(), Some("a"), 10).await.unwrap(), []);
}

const NAMES: [&str; 8] = ["Alpha", "alphabet", "beta_test", "libfoo", "libfoo-dev", "mylib.foo", "py-Lib-Foo", "x"];

async fn searched_world(subject: &impl Subject) -> World {
    let world = World::new(subject).await;
    for name in NAMES {
        world.publish(name, "1").await;
        world.publish(name, "2").await;
    }
    world
}

/// Whatever the case; every character is itself.
pub async fn a_search_finds_parts_of_names(subject: &impl Subject) {
    let world = searched_world(subject).await;
    let everything = NameRange::default();
    for (search, expected) in [
        ("a", &["Alpha", "alphabet", "beta_test"][..]),
        ("A", &["Alpha", "alphabet", "beta_test"]),
        ("x", &["x"]),
        ("al", &["Alpha", "alphabet"]),
        ("LIB", &["libfoo", "libfoo-dev", "mylib.foo", "py-Lib-Foo"]),
        ("libfoo", &["libfoo", "libfoo-dev"]),
        ("lib-foo", &["py-Lib-Foo"]),
        ("lib.foo", &["mylib.foo"]),
        ("_test", &["beta_test"]),
        ("alphabet", &["alphabet"]),
        ("alphabets", &[]),
        ("foolib", &[]),
        ("lib%", &[]),
        ("%", &[]),
        ("lib*", &[]),
        ("l?b", &[]),
        ("é", &[]),
        ("äöü-lang", &[]),
        ("libfoo\0", &[]),
        ("'; --", &[]),
        ("\"", &[]),
    ] {
        assert_eq!(list(&world, &everything, Some(search), 100).await, expected, "{search:?}");
    }
    let long = "lib".repeat(1_000);
    assert_eq!(list(&world, &everything, Some(&long), 100).await, Vec::<String>::new());
    let found = world.other.packages(world.generic, &everything, Some("beta"), 10).await.unwrap();
    assert_eq!((found[0].version_count, found[0].latest_version.as_str()), (2, "2"));
}

/// As the whole list does.
pub async fn a_search_comes_in_pages_and_ranges(subject: &impl Subject) {
    let world = searched_world(subject).await;
    for search in ["a", "lib", "foo", "lib-foo", "o"] {
        let whole = list(&world, &NameRange::default(), Some(search), 100).await;
        let page = async |after: Option<&String>| {
            list(&world, &range("", None, after.map(String::as_str)), Some(search), 2).await
        };
        assert_eq!(pages(2, page).await, whole, "{search}");
    }
    for (start, end, after, expected) in [
        ("l", Some("m"), None, &["libfoo", "libfoo-dev"][..]),
        ("l", Some("m"), Some("libfoo"), &["libfoo-dev"]),
        ("l", Some("n"), Some("libfoo-z"), &["mylib.foo"]),
        ("libfoo", Some("libfoo\0"), None, &["libfoo"]),
        ("a", Some("l"), None, &[]),
    ] {
        assert_eq!(list(&world, &range(start, end, after), Some("foo"), 100).await, expected, "{start} {end:?}");
    }
}

/// Out of every list and search, and it can come back.
pub async fn the_last_version_takes_the_package_with_it(subject: &impl Subject) {
    let world = World::new(subject).await;
    world.publish("package", "1").await;
    world.publish("package-two", "1").await;
    let (name, one) = (package("package"), version("1"));
    assert!(
        !world.store.delete_artifact(world.generic, &name, &version("2"), &Precondition::NONE, at(5)).await.unwrap()
    );
    assert!(!world.store.delete_artifact(world.oci, &name, &one, &Precondition::NONE, at(5)).await.unwrap());
    assert!(world.store.delete_artifact(world.generic, &name, &one, &Precondition::NONE, at(5)).await.unwrap());
    assert_eq!(world.other.find_artifact(world.generic, &name, &one).await.unwrap(), None);
    assert_eq!(world.other.versions(world.generic, &name, None, 10).await.unwrap(), None);
    for search in [None, Some("p"), Some("pack"), Some("package")] {
        assert_eq!(list(&world, &NameRange::default(), search, 10).await, ["package-two"], "{search:?}");
    }
    assert!(!world.store.delete_artifact(world.generic, &name, &one, &Precondition::NONE, at(5)).await.unwrap());
    world.publish("package", "1").await;
    for search in [None, Some("k"), Some("pack"), Some("package")] {
        assert_eq!(list(&world, &NameRange::default(), search, 10).await, ["package", "package-two"], "{search:?}");
    }
}

/// It may have been deleted and published anew, with other bytes.
pub async fn a_version_is_deleted_only_where_the_precondition_holds(subject: &impl Subject) {
    let world = World::new(subject).await;
    let earlier = Digest::sha256(b"earlier");
    let digest = world.publish_at("p", "1", "bytes", at(0)).await;
    let delete = async |precondition: &Precondition| {
        world.store.delete_artifact(world.generic, &package("p"), &version("1"), precondition, at(5)).await.unwrap()
    };
    let unmodified_since = |seconds| Precondition { unmodified_since: Some(seconds), ..Precondition::NONE };
    let second = at(0).as_seconds();
    for precondition in [if_match(&[&earlier]), if_match(&[]), if_absent(), unmodified_since(second - 1)] {
        assert!(!delete(&precondition).await, "{precondition:?}");
        assert_eq!(list(&world, &NameRange::default(), None, 10).await, ["p"]);
        assert_eq!(world.other.garbage_candidates(10).await.unwrap(), []);
    }
    assert!(delete(&if_match(&[&earlier, &digest])).await);
    assert_eq!(world.other.find_artifact(world.generic, &package("p"), &version("1")).await.unwrap(), None);
    assert!(!delete(&if_match(&[&digest])).await);
    world.publish_at("p", "1", "bytes", at(0)).await;
    assert!(delete(&unmodified_since(second)).await);
    let tag_decides = Precondition { unmodified_since: Some(second - 1), ..if_match(&[&digest]) };
    world.publish_at("p", "1", "bytes", at(0)).await;
    assert!(delete(&tag_decides).await);
}

/// Once no other version and no repository has it.
pub async fn a_deleted_version_makes_its_blob_garbage(subject: &impl Subject) {
    let world = World::new(subject).await;
    let digest = world.publish_at("p", "1", "bytes", at(0)).await;
    world.publish_at("p", "2", "bytes", at(0)).await;
    let delete = async |text: &str| {
        world
            .store
            .delete_artifact(world.generic, &package("p"), &version(text), &Precondition::NONE, at(5))
            .await
            .unwrap()
    };
    assert_eq!(world.other.garbage_candidates(10).await.unwrap(), []);
    assert!(delete("1").await);
    assert_eq!(world.other.garbage_candidates(10).await.unwrap(), std::slice::from_ref(&digest));
    assert_eq!(world.store.collect_blob(&digest, at(6)).await.unwrap(), None);
    assert!(world.other.find_artifact(world.generic, &package("p"), &version("2")).await.unwrap().is_some());
    assert!(delete("2").await);
    assert_eq!(world.other.garbage_candidates(10).await.unwrap(), std::slice::from_ref(&digest));
    assert!(world.store.collect_blob(&digest, at(6)).await.unwrap().is_some());
}
