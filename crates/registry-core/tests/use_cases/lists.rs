//! Lists: pages that hold what one may read, and say whether more follows.

use registry_core::digest::Digest;
use registry_core::manifest::OCI_MANIFEST;
use registry_core::names::Reference;
use registry_core::precondition::Precondition;
use registry_core::registry::References;
use registry_core::services::{PackageQuery, PutManifestRequest};

use crate::world::{World, image, principal, sha256};

/// Pages of every size up to one more than there is must hold a prefix of `all`, and know whether more follows.
fn assert_page<T: ToString>((page, more): (Vec<T>, bool), all: &[&str], limit: usize) {
    let page: Vec<_> = page.iter().map(ToString::to_string).collect();
    assert_eq!((page, more), (all.iter().take(limit).map(|name| name.to_string()).collect(), all.len() > limit));
}

/// Permissions that are two ranges of names, with others before, between and behind.
const TWO_RANGES: [&str; 2] = ["*:b/*:pull", "*:d/*:pull"];

#[tokio::test]
async fn repositories() {
    let world = World::new().await;
    for name in ["a/1", "b/1", "b/2", "c/1", "d/1", "d/2", "e/1"] {
        let config = world.push(name, "config").await;
        world.tag(name, "v1", &config).await;
    }
    let list = async |after: Option<&str>, limit: usize| {
        world.services.list_repositories(&principal(&TWO_RANGES), after, limit).await.unwrap()
    };
    for limit in 0..6 {
        assert_page(list(None, limit).await, &["b/1", "b/2", "d/1", "d/2"], limit);
        assert_page(list(Some("b/1"), limit).await, &["b/2", "d/1", "d/2"], limit);
        assert_page(list(Some("b/2"), limit).await, &["d/1", "d/2"], limit);
    }
}

#[tokio::test]
async fn packages() {
    let world = World::new().await;
    for package in ["a", "b.1", "b.2", "c", "d.1", "d.2"] {
        world.publish(package, "1", package).await.unwrap();
    }
    let registry = world.registry("generic").await;
    let permitted = principal(&["generic:b.1:pull", "generic:b.2:pull", "generic:d.1:pull", "generic:d.2:pull"]);
    let list = async |search: Option<&str>, after: Option<&str>, limit: usize| {
        let query = PackageQuery { search: search.map(str::to_owned), after: after.map(str::to_owned), limit };
        let (page, more) = world.services.list_packages(&registry, &permitted, &query).await.unwrap();
        (page.into_iter().map(|summary| summary.package).collect::<Vec<_>>(), more)
    };
    for limit in 0..6 {
        assert_page(list(None, None, limit).await, &["b.1", "b.2", "d.1", "d.2"], limit);
        assert_page(list(Some(""), Some("b.2"), limit).await, &["d.1", "d.2"], limit);
        assert_page(list(Some(".1"), None, limit).await, &["b.1", "d.1"], limit);
    }
}

#[tokio::test]
async fn versions() {
    let world = World::new().await;
    for version in ["1.10", "1.9", "2.0-rc1", "2.0"] {
        world.publish("tool", version, version).await.unwrap();
    }
    let (registry, package) = (world.registry("generic").await.id, "tool".parse().unwrap());
    for limit in 0..6 {
        for (after, all) in [(None, &["1.9", "1.10", "2.0-rc1", "2.0"][..]), (Some("1.10"), &["2.0-rc1", "2.0"])] {
            let after = after.map(|after| after.parse().unwrap());
            let page = world.services.list_versions(registry, &package, after.as_ref(), limit).await.unwrap();
            let (page, more) = page.expect("the package is there");
            assert_page((page.into_iter().map(|artifact| artifact.version).collect(), more), all, limit);
        }
    }
    let other = world.services.list_versions(registry, &"other".parse().unwrap(), None, 9).await.unwrap();
    assert_eq!(other, None);
}

#[tokio::test]
async fn tags_of_one_repository() {
    let world = World::new().await;
    let config = world.push("app", "config").await;
    for tag in ["v1", "v2", "v3"] {
        world.tag("app", tag, &config).await;
    }
    let repository = world.repository("app").await;
    for limit in 0..5 {
        for (after, all) in [(None, &["v1", "v2", "v3"][..]), (Some("v1"), &["v2", "v3"])] {
            let page = world.services.list_tags(&repository, after, limit).await.unwrap();
            assert_page(page.expect("the repository is there"), all, limit);
        }
    }
    assert_eq!(world.services.list_tags(&world.repository("other").await, None, 9).await.unwrap(), None);
}

#[tokio::test]
async fn tags_of_all_repositories() {
    let world = World::new().await;
    for name in ["a/1", "b/1", "b/2", "c/1", "d/1"] {
        let config = world.push(name, "config").await;
        for tag in ["v1", "v2"] {
            world.tag(name, tag, &config).await;
        }
    }
    let list = async |after: Option<(&str, &str)>, limit: usize| {
        let (page, more) = world.services.list_all_tags(&principal(&TWO_RANGES), after, limit).await.unwrap();
        (page.into_iter().map(|entry| format!("{}:{}", entry.repository, entry.tag)).collect::<Vec<_>>(), more)
    };
    let all = ["b/1:v1", "b/1:v2", "b/2:v1", "b/2:v2", "d/1:v1", "d/1:v2"];
    for limit in 0..8 {
        assert_page(list(None, limit).await, &all, limit);
        assert_page(list(Some(("b/1", "v1")), limit).await, &all[1..], limit);
        assert_page(list(Some(("b/2", "v2")), limit).await, &all[4..], limit);
        assert_page(list(Some(("c/1", "v1")), limit).await, &all[4..], limit);
    }
}

#[tokio::test]
async fn referrers() {
    let world = World::new().await;
    let (config, subject) = (world.push("app", "config").await, sha256("subject"));
    let repository = world.repository("app").await;
    let mut signatures: Vec<Digest> = Vec::new();
    for (artifact_type, annotation) in [("a/signature", 1), ("a/signature", 2), ("a/sbom", 3)] {
        let text = String::from_utf8(image(&config).to_vec()).unwrap();
        let head = format!(
            r#"{{"artifactType":"{artifact_type}","annotations":{{"n":"{annotation}"}},"subject":{{"digest":"{subject}","size":7}},"#
        );
        let put = PutManifestRequest {
            repository: repository.clone(),
            reference: Reference::Tag(format!("t{annotation}").parse().unwrap()),
            tags: Vec::new(),
            content_type: Some(OCI_MANIFEST.into()),
            content: text.replacen('{', &head, 1).into(),
            references: References::Strict,
            precondition: Precondition::NONE,
        };
        let (digest, _) = world.services.put_manifest(put).await.unwrap();
        if artifact_type == "a/signature" {
            signatures.push(digest);
        }
    }
    signatures.sort();
    let signatures: Vec<_> = signatures.iter().map(Digest::as_str).collect();
    let list = async |artifact_type: Option<&str>, after: Option<&str>, limit: usize| {
        let (page, more) =
            world.services.list_referrers(&repository, &subject, artifact_type, after, limit).await.unwrap();
        (page.into_iter().map(|referrer| referrer.manifest.digest).collect::<Vec<_>>(), more)
    };
    for limit in 0..4 {
        assert_page(list(Some("a/signature"), None, limit).await, &signatures, limit);
        assert_page(list(Some("a/signature"), Some(signatures[0]), limit).await, &signatures[1..], limit);
    }
    assert_eq!(list(None, None, 9).await.0.len(), 3);
    let nobody = world.services.list_referrers(&repository, &sha256("other"), None, None, 9).await.unwrap();
    assert_eq!(nobody, (Vec::new(), false));
}
