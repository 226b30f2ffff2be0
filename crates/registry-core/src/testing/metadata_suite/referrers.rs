//! Manifests whose subject is the one asked about.

use std::collections::BTreeMap;

use super::world::{image, pages, texts};
use super::{Subject, World, at};
use crate::digest::Digest;
use crate::ports::metadata::manifests::{ManifestDescription, REFERRERS_PAGE_BYTES, Referrer};
use crate::registry::Repository;

async fn refer(world: &World, repository: &Repository, text: &str, subject: &Digest, artifact_type: &str) -> Referrer {
    let mut new = image(repository, text, &[]);
    new.facts.subject = Some(subject.clone());
    new.facts.artifact_type = artifact_type.into();
    new.facts.annotations = format!("{{\"text\":\"{text}\"}}");
    let referrer = Referrer {
        manifest: ManifestDescription {
            digest: new.digest.clone(),
            media_type: new.facts.media_type.clone(),
            size: new.content.len() as u64,
        },
        artifact_type: artifact_type.into(),
        annotations: new.facts.annotations.clone(),
    };
    world.put(new).await;
    referrer
}

/// In the repository asked about, and only those of the subject asked about.
pub async fn referrers_are_listed_with_their_facts(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (repository, other) = (world.repository("team/app"), world.repository("team/other"));
    let image_digest = world.tagged(&repository, "image", &["v1"]).await;
    let another = world.tagged(&repository, "another", &[]).await;
    let mut expected = vec![
        refer(&world, &repository, "signature", &image_digest, "application/x-signature").await,
        refer(&world, &repository, "untyped", &image_digest, "").await,
    ];
    refer(&world, &repository, "of another", &another, "application/x-signature").await;
    refer(&world, &other, "elsewhere", &image_digest, "application/x-signature").await;
    expected.sort_by(|one, other| one.manifest.digest.cmp(&other.manifest.digest));
    let (found, more) = world.other.referrers(&repository, &image_digest, None, None, 10).await.unwrap();
    assert_eq!((found, more), (expected.clone(), false));
    let deleted = &expected[0].manifest.digest;
    world.store.delete_manifest(&repository, deleted, at(9), at(5)).await.unwrap();
    let (found, _) = world.other.referrers(&repository, &image_digest, None, None, 10).await.unwrap();
    assert_eq!(found, expected[1..]);
}

/// By digest, after one that need not exist.
pub async fn referrers_come_in_pages_and_by_type(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let image_digest = world.tagged(&repository, "image", &["v1"]).await;
    let mut digests = [Vec::new(), Vec::new()];
    for number in 0..20 {
        let kind = usize::from(number % 3 == 0);
        let text = format!("referrer {number}");
        let referrer = refer(&world, &repository, &text, &image_digest, ["a/sbom", "a/signature"][kind]).await;
        digests[kind].push(referrer.manifest.digest);
    }
    let mut every: Vec<Digest> = digests.concat();
    every.sort();
    for digests in &mut digests {
        digests.sort();
    }
    let [sboms, signatures] = &digests;
    for (artifact_type, expected) in [(None, &every), (Some("a/sbom"), sboms), (Some("a/signature"), signatures)] {
        for limit in [1, 3, 20, 50] {
            let page = async |after: Option<&Digest>| {
                let after = after.map(Digest::as_str);
                let page = world.other.referrers(&repository, &image_digest, artifact_type, after, limit).await;
                let (page, more) = page.unwrap();
                let last = page.last().map(|referrer| &referrer.manifest.digest);
                assert_eq!(more, last.is_some_and(|last| Some(last) != expected.last()), "{artifact_type:?}, {limit}");
                page.into_iter().map(|referrer| referrer.manifest.digest).collect()
            };
            let all = pages(limit, page).await;
            assert_eq!(texts(&all), texts(expected), "{artifact_type:?} in pages of {limit}");
        }
    }
    let after =
        async |after| world.other.referrers(&repository, &image_digest, None, Some(after), 100).await.unwrap().0.len();
    assert_eq!(after("sha256:").await, 20);
    assert_eq!(after("sha256:~").await, 0);
    assert_eq!(after(&every[4].as_str()[..50]).await, 16);
    for unknown in ["a/sbo", "a/sbom2", "", "A/SBOM"] {
        let found = world.other.referrers(&repository, &image_digest, Some(unknown), None, 10).await.unwrap();
        assert_eq!(found, (Vec::new(), false), "{unknown}");
    }
}

/// Fewer where they are long, but never none.
pub async fn a_page_of_referrers_is_bounded_in_bytes(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let image_digest = world.tagged(&repository, "image", &["v1"]).await;
    let third = usize::try_from(REFERRERS_PAGE_BYTES).unwrap() / 3;
    let mut sizes = BTreeMap::new();
    for (number, length) in [third, third, 4 * third, third, third, 10, third].into_iter().enumerate() {
        let mut new = image(&repository, &format!("referrer {number}"), &[]);
        new.facts.subject = Some(image_digest.clone());
        new.facts.annotations = format!(r#"{{"é":"{}"}}"#, "x".repeat(length));
        sizes.insert(world.put(new).await, length);
    }
    let mut expected = Vec::new();
    let (mut left, mut after) = (sizes.iter().peekable(), None);
    while let Some((first, length)) = left.next() {
        let (mut page, mut total) = (vec![first.clone()], *length);
        // What else is in a description matters for three thirds.
        while let Some((next, length)) = left.next_if(|(_, length)| total + **length < 3 * third) {
            page.push(next.clone());
            total += length;
        }
        expected.push(page);
    }
    for (number, expected_page) in expected.iter().enumerate() {
        let page = world.other.referrers(&repository, &image_digest, None, after.as_deref(), 100).await.unwrap();
        let (found, more) = page;
        let digests: Vec<_> = found.into_iter().map(|referrer| referrer.manifest.digest).collect();
        assert_eq!((&digests, more), (expected_page, number + 1 < expected.len()), "page {number} of {expected:?}");
        after = digests.last().map(|digest| digest.as_str().to_owned());
    }
    assert!(expected.len() >= 3, "{expected:?}");
}

/// A signature may come before what it signs, and outlives it.
pub async fn the_subject_need_not_be_there(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let later = image(&repository, "image", &[]);
    let referrer = refer(&world, &repository, "signature", &later.digest, "a/signature").await;
    let found = async || world.other.referrers(&repository, &later.digest, None, None, 10).await.unwrap().0;
    assert_eq!(found().await, std::slice::from_ref(&referrer));
    let digest = world.put(later.clone()).await;
    assert_eq!(found().await, std::slice::from_ref(&referrer));
    world.store.delete_manifest(&repository, &digest, at(9), at(5)).await.unwrap();
    assert_eq!(found().await, [referrer]);
    let nowhere = world.repository("never/seen");
    assert_eq!(world.other.referrers(&nowhere, &later.digest, None, None, 10).await.unwrap().0, []);
}
