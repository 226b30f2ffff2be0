//! Registries, and the repositories inside them.

use super::world::{image, new_registry, pages, range, target, texts};
use super::{Subject, World, at};
use crate::permission::AnonymousAccess;
use crate::ports::metadata::NameRange;
use crate::ports::metadata::registries::CreateRegistry;
use crate::ports::metadata::uploads::{CreateUpload, NewUpload};
use crate::registry::{Format, Mode, References, RegistryId, RegistrySettings, Repository};
use crate::upload::Checkpoint;

/// All of them, with everything that was said of them.
pub async fn registries_are_listed_by_name(subject: &impl Subject) {
    let world = World::new(subject).await;
    world.registry("zoo", Format::Generic).await;
    let animals = world.registry("animals", Format::Oci).await;
    let registries = world.other.registries().await.unwrap();
    assert_eq!(texts(registries.iter().map(|registry| &registry.name)), ["animals", "generic", "oci", "zoo"]);
    let listed = &registries[0];
    assert_eq!((listed.id, listed.format, listed.mode), (animals, Format::Oci, Mode::Local));
    assert_eq!(listed.settings, new_registry("animals", Format::Oci).settings);
    assert_eq!(listed.created_at, at(0));
}

/// The second time it is returned as it is.
pub async fn a_registry_is_made_once(subject: &impl Subject) {
    let world = World::new(subject).await;
    let new = new_registry("mine", Format::Oci);
    let CreateRegistry::Created(made) = world.store.create_registry(new.clone(), at(1)).await.unwrap() else {
        panic!("it is new");
    };
    let again = world.other.create_registry(new_registry("mine", Format::Generic), at(2)).await.unwrap();
    assert_eq!(again, CreateRegistry::Exists(made.clone()));
    assert!(world.store.registries().await.unwrap().contains(&made));
    assert_eq!(made.created_at, at(1));
}

/// Those of one registry, by its identity.
pub async fn settings_are_replaced(subject: &impl Subject) {
    let world = World::new(subject).await;
    let settings =
        RegistrySettings { references: References::Strict, anonymous: Some(AnonymousAccess::Pull), redirect: true };
    assert!(world.store.change_settings(world.oci, settings.clone()).await.unwrap());
    let registries = world.other.registries().await.unwrap();
    let of = |id| registries.iter().find(|registry| registry.id == id).unwrap().settings.clone();
    assert_eq!(of(world.oci), settings);
    assert_eq!(of(world.generic), new_registry("generic", Format::Generic).settings);
    assert!(!world.store.change_settings(RegistryId(99_999), settings).await.unwrap());
}

/// Neither can come to stand before the other, and the attempt leaves no trace.
pub async fn a_registry_and_a_first_segment_exclude_each_other(subject: &impl Subject) {
    let world = World::new(subject).await;
    world.registry("mirror", Format::Oci).await;
    for name in ["mirror/app", "mirror", "oci/app", "mirror/deep/app"] {
        let repository = world.repository(name);
        let new =
            NewUpload { id: world.id(), target: target(&repository), start: Checkpoint::start(false), writing: false };
        let id = new.id;
        assert_eq!(world.store.create_upload(new, at(0)).await.unwrap(), CreateUpload::NameTaken, "{name}");
        assert_eq!(world.other.find_upload(id).await.unwrap(), None);
        assert!(!world.exists(&repository).await, "{name}");
    }

    world.open_blob(&world.repository("team/app")).await;
    world.open_blob(&world.repository("alpine")).await;
    let before = world.store.registries().await.unwrap();
    for name in ["team", "alpine"] {
        let refused = world.other.create_registry(new_registry(name, Format::Oci), at(0)).await.unwrap();
        assert_eq!(refused, CreateRegistry::NameTaken, "{name}");
    }
    assert_eq!(world.store.registries().await.unwrap(), before);
    // The names are not taken for what does not stand there.
    world.open_blob(&world.repository("team/other")).await;
    world.registry("app", Format::Oci).await;
}

/// Other formats are reached by other paths, and other registries stand behind their own name.
pub async fn only_what_stands_first_is_exclusive(subject: &impl Subject) {
    let world = World::new(subject).await;
    world.open_blob(&world.repository("generic/app")).await;
    world.open_blob(&world.repository("files/app")).await;
    world.registry("files", Format::Generic).await;
    let mirror = world.registry("mirror", Format::Oci).await;
    for name in ["oci/app", "mirror/app", "team"] {
        let repository = Repository { registry: mirror, name: name.parse().unwrap() };
        world.open_blob(&repository).await;
        assert!(world.exists(&repository).await);
    }
    // `team` stands behind `mirror`, not first.
    world.registry("team", Format::Oci).await;
}

/// Not before the first, and not after the last.
pub async fn repositories_are_listed_while_they_hold_a_manifest(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    world.push(&repository, "layer").await;
    assert_eq!(world.listed(world.oci).await, Vec::<String>::new());
    let [one, two] = ["one", "two"].map(|text| image(&repository, text, &[]));
    let (one, two) = (world.put(one).await, world.put(two).await);
    assert_eq!(world.listed(world.oci).await, ["team/app"]);
    assert!(world.store.delete_manifest(&repository, &one, at(1), at(0)).await.unwrap());
    assert_eq!(world.listed(world.oci).await, ["team/app"]);
    assert!(world.store.delete_manifest(&repository, &two, at(1), at(0)).await.unwrap());
    assert_eq!(world.listed(world.oci).await, Vec::<String>::new());
    assert!(world.exists(&repository).await);
    world.put(image(&repository, "three", &[])).await;
    assert_eq!(world.listed(world.oci).await, ["team/app"]);
}

/// Bounds and `after` need not exist.
pub async fn repositories_come_in_pages_and_ranges(subject: &impl Subject) {
    let world = World::new(subject).await;
    let elsewhere = world.registry("mirror", Format::Oci).await;
    world.put(image(&Repository { registry: elsewhere, name: "b/elsewhere".parse().unwrap() }, "x", &[])).await;
    let names = ["a", "a-b", "a/b", "a/b/c", "ab", "b", "b/a", "c"];
    for name in names {
        world.put(image(&world.repository(name), name, &[])).await;
    }
    // A repository without a manifest lies between them.
    world.open_blob(&world.repository("a/c")).await;
    let list = async |range: NameRange, limit| texts(world.other.repositories(world.oci, &range, limit).await.unwrap());

    let page = async |after: Option<&String>| list(range("", None, after.map(String::as_str)), 3).await;
    assert_eq!(pages(3, page).await, names);
    for (start, end, after, expected) in [
        ("", None, None, &names[..]),
        ("a/", Some("a0"), None, &["a/b", "a/b/c"]),
        ("a/", Some("a0"), Some("a/b"), &["a/b/c"]),
        ("a/", Some("a0"), Some("a/bb"), &[]),
        ("a/", Some("a0"), Some("0"), &["a/b", "a/b/c"]),
        ("a/", Some("a0"), Some("zzz"), &[]),
        ("b", Some("b\0"), None, &["b"]),
        ("b", Some("b\0"), Some("b"), &[]),
        ("b", Some("c"), None, &["b", "b/a"]),
        ("aa", None, None, &["ab", "b", "b/a", "c"]),
        ("", Some("a"), None, &[]),
        ("d", None, None, &[]),
    ] {
        assert_eq!(list(range(start, end, after), 100).await, expected, "{start} {end:?} {after:?}");
    }
    assert_eq!(list(range("a/", Some("a0"), None), 1).await, ["a/b"]);
    assert_eq!(list(range("", None, None), 0).await, Vec::<String>::new());
    assert_eq!(world.listed(elsewhere).await, ["b/elsewhere"]);
}

/// For readiness.
pub async fn the_store_answers(subject: &impl Subject) {
    let world = World::new(subject).await;
    world.store.ping().await.unwrap();
    world.other.ping().await.unwrap();
}
