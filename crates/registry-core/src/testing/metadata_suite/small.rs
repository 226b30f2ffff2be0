//! Tokens, signing keys and the places of jobs.

use futures_util::future::join;

use super::{Subject, World, at};
use crate::permission::Scope;
use crate::time::Timestamp;
use crate::token::{SigningKey, TokenHash, TokenId, TokenRecord};

fn token(id: &str, expires_at: Option<Timestamp>) -> TokenRecord {
    TokenRecord {
        id: TokenId(id.into()),
        name: format!("the token “{id}”"),
        hash: TokenHash(std::array::from_fn(|index| index as u8 ^ id.as_bytes()[0])),
        scopes: vec![Scope::everything(), "generic:team/*:pull,push".parse().unwrap()],
        created_at: at(1),
        expires_at,
    }
}

fn assert_same(found: &TokenRecord, expected: &TokenRecord) {
    assert_eq!((&found.id, &found.name, &found.scopes), (&expected.id, &expected.name, &expected.scopes));
    assert_eq!((found.created_at, found.expires_at), (expected.created_at, expected.expires_at));
    assert!(found.hash.matches(&expected.hash));
}

/// With all that is known of it, expired or not.
pub async fn a_token_reads_back(subject: &impl Subject) {
    let world = World::new(subject).await;
    for expected in [token("a", None), token("b", Some(at(2)))] {
        world.store.insert_token(expected.clone()).await.unwrap();
        let found = world.other.find_token(&expected.id).await.unwrap().unwrap();
        assert_same(&found, &expected);
    }
    assert!(world.other.find_token(&TokenId("c".into())).await.unwrap().is_none());
}

/// By identifier.
pub async fn tokens_come_in_pages(subject: &impl Subject) {
    let world = World::new(subject).await;
    for id in ["d", "a", "c", "b", "e"] {
        world.store.insert_token(token(id, None)).await.unwrap();
    }
    let page = async |after: Option<&str>, limit| {
        let after = after.map(|id| TokenId(id.into()));
        let page = world.other.tokens(after.as_ref(), limit).await.unwrap();
        for found in &page {
            assert_same(found, &token(&found.id.0, None));
        }
        page.into_iter().map(|token| token.id.0).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 10).await, ["a", "b", "c", "d", "e"]);
    assert_eq!(page(None, 2).await, ["a", "b"]);
    assert_eq!(page(Some("b"), 2).await, ["c", "d"]);
    assert_eq!(page(Some("bb"), 9).await, ["c", "d", "e"]);
    assert_eq!(page(Some("e"), 2).await, Vec::<String>::new());
}

/// Others stay.
pub async fn a_deleted_token_is_gone(subject: &impl Subject) {
    let world = World::new(subject).await;
    for id in ["a", "b"] {
        world.store.insert_token(token(id, None)).await.unwrap();
    }
    let id = TokenId("a".into());
    assert!(world.store.delete_token(&id).await.unwrap());
    assert!(world.other.find_token(&id).await.unwrap().is_none());
    assert!(!world.store.delete_token(&id).await.unwrap());
    assert_eq!(world.other.tokens(None, 10).await.unwrap().len(), 1);
}

/// Another of the same identifier fails and leaves the first as it is.
pub async fn a_token_is_stored_once(subject: &impl Subject) {
    let world = World::new(subject).await;
    let first = token("a", None);
    world.store.insert_token(first.clone()).await.unwrap();
    let second = TokenRecord { name: "another".into(), ..first.clone() };
    assert!(world.other.insert_token(second).await.is_err());
    assert_same(&world.other.find_token(&first.id).await.unwrap().unwrap(), &first);
}

fn signing_key(id: &str, created_at: Timestamp) -> SigningKey {
    SigningKey { id: id.into(), secret: id.bytes().cycle().take(32).collect(), created_at }
}

fn ids(keys: &[SigningKey]) -> Vec<&str> {
    for key in keys {
        assert_eq!(key.secret, signing_key(&key.id, key.created_at).secret);
    }
    keys.iter().map(|key| key.id.as_str()).collect()
}

/// There is none at first.
pub async fn the_newest_signing_key_is_first(subject: &impl Subject) {
    let world = World::new(subject).await;
    assert_eq!(ids(&world.other.signing_keys().await.unwrap()), Vec::<&str>::new());
    for (id, seconds) in [("m", 10), ("a", 20), ("z", 30)] {
        let keys = world.store.rotate_signing_keys(signing_key(id, at(seconds)), at(seconds), at(0)).await.unwrap();
        assert_eq!((keys[0].id.as_str(), keys[0].created_at), (id, at(seconds)));
    }
    assert_eq!(ids(&world.other.signing_keys().await.unwrap()), ["z", "a", "m"]);
}

/// Old ones are removed, but never the newest.
pub async fn a_signing_key_is_rotated_when_none_is_new(subject: &impl Subject) {
    let world = World::new(subject).await;
    let rotate = async |id, now, newest_before, drop_before| {
        let keys = world.store.rotate_signing_keys(signing_key(id, at(now)), at(newest_before), at(drop_before)).await;
        let keys = keys.unwrap();
        assert_eq!(ids(&keys), ids(&world.other.signing_keys().await.unwrap()));
        ids(&keys).join(" ")
    };
    assert_eq!(rotate("a", 10, 5, 0).await, "a");
    // Made at the limit or after it: new enough.
    assert_eq!(rotate("b", 11, 10, 0).await, "a");
    assert_eq!(rotate("b", 12, 11, 0).await, "b a");
    // Made before the limit is dropped, at it is not.
    assert_eq!(rotate("c", 20, 12, 10).await, "b a");
    assert_eq!(rotate("c", 20, 12, 11).await, "b");
    assert_eq!(rotate("c", 20, 12, 1_000).await, "b");
    assert_eq!(rotate("c", 20, 15, 1_000).await, "c");
}

/// Whoever comes second finds the other's.
pub async fn two_that_rotate_at_once_insert_one_key(subject: &impl Subject) {
    let world = World::new(subject).await;
    for round in 1..=10 {
        let now = at(100 * round);
        let [one, two] = ["one", "two"].map(|name| signing_key(&format!("{name} {round}"), now));
        let rotations = (
            world.store.rotate_signing_keys(one, now, at(100 * (round - 1))),
            world.other.rotate_signing_keys(two, now, at(100 * (round - 1))),
        );
        let (one, two) = join(rotations.0, rotations.1).await;
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(ids(&one), ids(&two));
        assert_eq!(one.len(), if round == 1 { 1 } else { 2 });
    }
}

/// Until it is forgotten.
pub async fn a_job_remembers_its_cursor(subject: &impl Subject) {
    let world = World::new(subject).await;
    assert_eq!(world.other.job_cursor("check").await.unwrap(), None);
    world.store.set_job_cursor("check", Some("sha256:0")).await.unwrap();
    world.store.set_job_cursor("other", Some("")).await.unwrap();
    assert_eq!(world.other.job_cursor("check").await.unwrap().as_deref(), Some("sha256:0"));
    world.store.set_job_cursor("check", Some("sha256:1")).await.unwrap();
    assert_eq!(world.other.job_cursor("check").await.unwrap().as_deref(), Some("sha256:1"));
    world.store.set_job_cursor("check", None).await.unwrap();
    world.store.set_job_cursor("check", None).await.unwrap();
    assert_eq!(world.other.job_cursor("check").await.unwrap(), None);
    assert_eq!(world.other.job_cursor("other").await.unwrap().as_deref(), Some(""));
}
