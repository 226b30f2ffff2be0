//! Tags: of one repository, and of all.

use super::world::{if_absent, if_match, image, on_condition, pages, range, texts, with_tags};
use super::{Subject, World, at};
use crate::digest::Digest;
use crate::names::{Reference, Tag};
use crate::ports::metadata::NameRange;
use crate::ports::metadata::manifests::PutManifest;
use crate::precondition::Precondition;
use crate::registry::{Format, Repository};

/// And at nothing else.
pub async fn a_tag_points_at_the_last_manifest_put(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let one = world.tagged(&repository, "one", &["latest", "v1"]).await;
    let two = world.tagged(&repository, "two", &["latest", "v2"]).await;
    assert_eq!(world.resolve(&repository, "latest").await, Some(two.clone()));
    assert_eq!(world.resolve(&repository, "v1").await, Some(one.clone()));
    // Back again, though the manifest was there before.
    world.tagged(&repository, "one", &["latest"]).await;
    assert_eq!(world.resolve(&repository, "latest").await, Some(one.clone()));
    // The manifest that lost it does not take it along.
    world.store.delete_manifest(&repository, &two, at(9), at(5)).await.unwrap();
    assert_eq!(world.resolve(&repository, "latest").await, Some(one));
    assert_eq!(world.resolve(&repository, "v2").await, None);
}

/// Not the manifest, and not the tag of that name elsewhere.
pub async fn deleting_a_tag_deletes_nothing_else(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (repository, other) = (world.repository("team/app"), world.repository("team/other"));
    let digest = world.tagged(&repository, "x", &["one", "two"]).await;
    world.tagged(&other, "x", &["one"]).await;
    let one = "one".parse().unwrap();
    assert!(world.store.delete_tag(&repository, &one, &Precondition::NONE).await.unwrap());
    assert!(!world.store.delete_tag(&repository, &one, &Precondition::NONE).await.unwrap());
    assert!(!world.store.delete_tag(&world.repository("never/seen"), &one, &Precondition::NONE).await.unwrap());
    assert_eq!(world.resolve(&repository, "one").await, None);
    assert_eq!(world.resolve(&repository, "two").await, Some(digest.clone()));
    assert_eq!(world.resolve(&other, "one").await, Some(digest.clone()));
    assert!(world.holds_manifest(&repository, &digest).await);
}

/// And otherwise nothing is stored: neither the manifest nor a tag.
pub async fn tags_change_only_where_the_precondition_holds(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let one = world.tagged(&repository, "one", &["latest"]).await;
    let (latest, next): (Tag, Tag) = ("latest".parse().unwrap(), "next".parse().unwrap());
    let put = async |text: &str, tag: &Tag, precondition: Precondition| {
        let new = with_tags(image(&repository, text, &[]), &[tag.as_str()]);
        let digest = new.digest.clone();
        let new = on_condition(new, Reference::Tag(tag.clone()), precondition);
        (world.store.put_manifest(new, at(1)).await.unwrap(), digest)
    };
    let absent = Digest::sha256(b"absent");
    for precondition in [if_absent(), if_match(&[&absent]), if_match(&[])] {
        let (outcome, two) = put("two", &latest, precondition.clone()).await;
        assert_eq!(outcome, PutManifest::PreconditionFailed, "{precondition:?}");
        assert_eq!(world.resolve(&repository, "latest").await, Some(one.clone()));
        assert!(!world.holds_manifest(&repository, &two).await);
        assert!(
            precondition == if_absent() || !world.store.delete_tag(&repository, &latest, &precondition).await.unwrap()
        );
    }
    assert!(!world.store.delete_tag(&repository, &latest, &if_absent()).await.unwrap());
    assert_eq!(put("two", &next, if_match(&[&one])).await.0, PutManifest::PreconditionFailed, "there is no such tag");
    let elsewhere = world.repository("new/app");
    let new = with_tags(image(&elsewhere, "two", &[]), &["latest"]);
    let refused = on_condition(new.clone(), Reference::Tag(latest.clone()), if_match(&[&one]));
    assert_eq!(world.store.put_manifest(refused, at(1)).await.unwrap(), PutManifest::PreconditionFailed);
    assert_eq!(world.other.tags(&elsewhere, None, 10).await.unwrap(), None, "nor was the repository made");
    let first = on_condition(new, Reference::Tag(latest.clone()), if_absent());
    assert_eq!(world.store.put_manifest(first, at(1)).await.unwrap(), PutManifest::Stored);

    let (outcome, two) = put("two", &latest, if_match(&[&absent, &one])).await;
    assert_eq!((outcome, world.resolve(&repository, "latest").await), (PutManifest::Stored, Some(two.clone())));
    let (outcome, three) = put("three", &next, if_absent()).await;
    assert_eq!((outcome, world.resolve(&repository, "next").await), (PutManifest::Stored, Some(three.clone())));
    // By digest it is the manifest that is there or not.
    let by_digest = async |text: &str| {
        let new = image(&repository, text, &[]);
        let reference = Reference::Digest(new.digest.clone());
        world.store.put_manifest(on_condition(new, reference, if_absent()), at(1)).await.unwrap()
    };
    assert_eq!(by_digest("three").await, PutManifest::PreconditionFailed);
    assert_eq!(by_digest("four").await, PutManifest::Stored);

    assert!(!world.store.delete_tag(&repository, &latest, &if_match(&[&one])).await.unwrap());
    assert!(world.store.delete_tag(&repository, &latest, &if_match(&[&two])).await.unwrap());
    assert_eq!(world.resolve(&repository, "latest").await, None);
    assert!(!world.store.delete_tag(&repository, &latest, &if_match(&[&two])).await.unwrap());
}

/// After a tag that need not exist.
pub async fn tags_come_in_pages_in_byte_order(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let sorted = ["0", "00", "1.0", "1.0-rc", "1.10", "1.9", "A", "Z", "_", "a", "a-b", "a.b", "aB", "ab", "z"];
    let mut shuffled = sorted;
    shuffled.reverse();
    world.tagged(&repository, "x", &shuffled[..7]).await;
    world.tagged(&repository, "y", &shuffled[7..]).await;
    world.tagged(&world.repository("team/other"), "x", &["b"]).await;
    let page =
        async |after: Option<&str>, limit| texts(world.other.tags(&repository, after, limit).await.unwrap().unwrap());
    assert_eq!(page(None, 100).await, sorted);
    for limit in [1, 2, 7, 15, 16] {
        let all = pages(limit, async |after: Option<&String>| page(after.map(String::as_str), limit).await).await;
        assert_eq!(all, sorted, "in pages of {limit}");
    }
    assert_eq!(page(Some("1.1"), 3).await, ["1.10", "1.9", "A"]);
    assert_eq!(page(Some("a"), 2).await, ["a-b", "a.b"]);
    assert_eq!(page(Some("~not/a:tag"), 2).await, Vec::<String>::new());
    assert_eq!(page(Some("z"), 2).await, Vec::<String>::new());
    assert_eq!(page(Some("z\0"), 2).await, Vec::<String>::new());
    assert_eq!(page(Some("ab\0"), 2).await, ["z"]);
    assert_eq!(page(None, 0).await, Vec::<String>::new());
    assert_eq!(world.other.tags(&world.repository("team"), None, 10).await.unwrap(), None);
    assert_eq!(world.other.tags(&world.repository("team"), Some("x"), 10).await.unwrap(), None);
}

async fn tagged_world(subject: &impl Subject) -> World {
    let world = World::new(subject).await;
    let mirror = world.registry("mirror", Format::Oci).await;
    for (name, tags) in [("b", &["x", "y", "z"][..]), ("a/b", &["1", "2"]), ("a", &["1"]), ("c", &[]), ("d", &["1"])] {
        let repository = world.repository(name);
        world.put(with_tags(image(&repository, name, &[]), tags)).await;
    }
    world.open_blob(&world.repository("aa")).await;
    let elsewhere = Repository { registry: mirror, name: "b".parse().unwrap() };
    world.put(with_tags(image(&elsewhere, "elsewhere", &[]), &["elsewhere"])).await;
    world
}

async fn all(world: &World, range: NameRange, after: Option<(&str, &str)>, limit: usize) -> Vec<String> {
    let entries = world.other.all_tags(world.oci, &range, after, limit).await.unwrap();
    let mut texts = Vec::new();
    for entry in entries {
        let repository = Repository { registry: world.oci, name: entry.repository.clone() };
        assert_eq!(world.resolve(&repository, entry.tag.as_str()).await, Some(entry.digest));
        texts.push(format!("{}:{}", entry.repository, entry.tag));
    }
    texts
}

/// By repository and tag; neither need exist.
pub async fn tags_of_all_repositories_come_in_pages(subject: &impl Subject) {
    let world = tagged_world(subject).await;
    let sorted = ["a:1", "a/b:1", "a/b:2", "b:x", "b:y", "b:z", "d:1"];
    let everything = NameRange::default;
    assert_eq!(all(&world, everything(), None, 100).await, sorted);
    for limit in [1, 2, 3, 7] {
        let page = async |after: Option<&String>| {
            let after = after.map(|last| last.rsplit_once(':').unwrap());
            all(&world, everything(), after, limit).await
        };
        assert_eq!(pages(limit, page).await, sorted, "in pages of {limit}");
    }
    for (after, expected) in [
        (("a/b", "1"), &sorted[2..]),
        (("a/b", "11"), &sorted[2..]),
        (("a/b", "9"), &sorted[3..]),
        (("aa", "0"), &sorted[3..]),
        (("b", ""), &sorted[3..]),
        (("b", "xx"), &sorted[4..]),
        (("c", "zzz"), &sorted[6..]),
        (("d", "1"), &[]),
        (("~", "1"), &[]),
    ] {
        assert_eq!(all(&world, everything(), Some(after), 100).await, expected, "{after:?}");
        let first = expected.first().into_iter().copied().collect::<Vec<_>>();
        assert_eq!(all(&world, everything(), Some(after), 1).await, first, "{after:?}");
    }
    // Not the other registry's.
    let elsewhere = world.other.registries().await.unwrap();
    let mirror = elsewhere.iter().find(|registry| registry.name.as_str() == "mirror").unwrap().id;
    assert_eq!(world.other.all_tags(mirror, &everything(), None, 10).await.unwrap().len(), 1);
}

/// `range.after` does not count here.
pub async fn tags_of_all_repositories_come_in_ranges(subject: &impl Subject) {
    let world = tagged_world(subject).await;
    for (narrowed, after, expected) in [
        (range("a/", Some("a0"), None), None, &["a/b:1", "a/b:2"][..]),
        (range("a/", Some("a0"), Some("zzz")), None, &["a/b:1", "a/b:2"]),
        (range("a/", Some("a0"), None), Some(("a/b", "1")), &["a/b:2"]),
        (range("a/", Some("a0"), None), Some(("a", "1")), &["a/b:1", "a/b:2"]),
        (range("a/", Some("a0"), None), Some(("b", "x")), &[]),
        (range("b", Some("b\0"), None), None, &["b:x", "b:y", "b:z"]),
        (range("b", Some("b\0"), None), Some(("b", "y")), &["b:z"]),
        (range("b", None, None), Some(("a", "1")), &["b:x", "b:y", "b:z", "d:1"]),
        (range("c", None, None), None, &["d:1"]),
        (range("", Some("a"), None), None, &[]),
    ] {
        assert_eq!(all(&world, narrowed.clone(), after, 100).await, expected, "{narrowed:?} {after:?}");
    }
}
