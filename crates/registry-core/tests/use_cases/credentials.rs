//! Who asks: strangers, configured tokens, made tokens, those who guess.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use registry_core::permission::{AnonymousAccess, Principal};
use registry_core::ports::clock::Clock;
use registry_core::ports::metadata::TokenStore;
use registry_core::registry::{Format, RegistrySettings};
use registry_core::services::{
    BadCredential, ConfiguredToken, Credential, NewToken, Services, Settings, TOKEN_NAME_LIMIT, TokenRefusal,
};
use registry_core::token::{TokenId, TokenSecret};

use crate::world::{HOUR, MICROSECOND, World};

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const SECOND: Duration = Duration::from_secs(1);

async fn show(services: &Services, secret: &str) -> Result<Arc<Principal>, BadCredential> {
    services.authenticate(&Credential::Token(TokenSecret::presented(secret)), HOME).await
}

fn scopes(principal: &Principal) -> Vec<String> {
    principal.scopes.iter().map(ToString::to_string).collect()
}

impl World {
    async fn token(&self, lifetime: Option<Duration>) -> (TokenId, String) {
        let new = NewToken { name: "ci".into(), scopes: vec!["oci:team/*:pull".parse().unwrap()], lifetime };
        let (record, secret) = self.services.create_token(new).await.unwrap();
        (record.id, secret.reveal().to_owned())
    }
}

#[tokio::test]
async fn a_stranger_may_what_the_server_says_unless_a_registry_says_otherwise() {
    for (anonymous, expected) in [(AnonymousAccess::None, &[][..]), (AnonymousAccess::Pull, &["*:*:pull"])] {
        let world = World::with(Settings { anonymous, ..Settings::default() }).await;
        let stranger = world.services.authenticate(&Credential::None, HOME).await.unwrap();
        assert_eq!((stranger.anonymous, scopes(&stranger)), (true, expected.iter().map(|s| s.to_string()).collect()));
        let settings = RegistrySettings { anonymous: Some(AnonymousAccess::Push), ..RegistrySettings::default() };
        world.prepare("public", Format::Oci, Some(settings)).await;
        let stranger = world.services.authenticate(&Credential::None, HOME).await.unwrap();
        let mut expected = vec!["public:*:pull,push".to_owned()];
        if anonymous == AnonymousAccess::Pull {
            expected.splice(0..0, ["generic:*:pull".to_owned(), "oci:*:pull".to_owned()]);
        }
        assert_eq!(scopes(&stranger), expected);
    }
}

#[tokio::test]
async fn a_configured_token_works_until_its_end() {
    let end = World::new().await.clock.now() + HOUR;
    let configured = |name: &str, expires_at| ConfiguredToken {
        name: name.into(),
        hash: TokenSecret::presented(format!("secret of {name}")).hash(),
        scopes: vec!["*:*:admin".parse().unwrap()],
        expires_at,
    };
    let tokens = vec![configured("for ever", None), configured("short", Some(end))];
    let world = World::with(Settings { tokens, ..Settings::default() }).await;
    let principal = show(&world.services, "secret of short").await.unwrap();
    assert_eq!((principal.name.as_str(), principal.anonymous), ("short", false));
    assert_eq!(scopes(&principal), ["*:*:admin"]);
    world.clock.advance(HOUR - MICROSECOND);
    assert!(show(&world.services, "secret of short").await.is_ok());
    world.clock.advance(MICROSECOND);
    assert!(matches!(show(&world.services, "secret of short").await, Err(BadCredential::Invalid)));
    assert!(show(&world.services, "secret of for ever").await.is_ok());
}

#[tokio::test]
async fn a_made_token_works_until_its_end() {
    let world = World::new().await;
    let (_, secret) = world.token(Some(HOUR)).await;
    let (_, for_ever) = world.token(None).await;
    let principal = show(&world.services, &secret).await.unwrap();
    assert_eq!((principal.name.as_str(), scopes(&principal)), ("ci", vec!["oci:team/*:pull".to_owned()]));
    world.clock.advance(HOUR - MICROSECOND);
    assert!(show(&world.services, &secret).await.is_ok());
    world.clock.advance(MICROSECOND);
    assert!(matches!(show(&world.services, &secret).await, Err(BadCredential::Invalid)));
    assert!(matches!(show(&world.replica(), &secret).await, Err(BadCredential::Invalid)));
    assert!(show(&world.services, &for_ever).await.is_ok());
}

#[tokio::test]
async fn a_secret_of_another_value_or_shape_is_never_a_principal() {
    let world = World::new().await;
    let (_, secret) = world.token(None).await;
    let altered = if secret.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{altered}", &secret[..secret.len() - 1]);
    let unknown = format!("fdy_{}_{}", "0".repeat(16), "0".repeat(64));
    for presented in [wrong.as_str(), unknown.as_str(), "", "guess"] {
        assert!(matches!(show(&world.services, presented).await, Err(BadCredential::Invalid)), "{presented}");
    }
}

#[tokio::test]
async fn a_proven_token_is_believed_for_five_seconds() {
    let world = World::new().await;
    let (id, secret) = world.token(None).await;
    show(&world.services, &secret).await.unwrap();
    assert!(world.metadata.delete_token(&id).await.unwrap(), "on another replica");
    world.clock.advance(5 * SECOND - MICROSECOND);
    assert!(show(&world.services, &secret).await.is_ok());
    world.clock.advance(MICROSECOND);
    assert!(matches!(show(&world.services, &secret).await, Err(BadCredential::Invalid)));
}

#[tokio::test]
async fn a_revoked_token_ends_at_once_and_no_other_does() {
    let world = World::new().await;
    let ((id, revoked), (_, other)) = (world.token(None).await, world.token(None).await);
    for secret in [&revoked, &other] {
        show(&world.services, secret).await.unwrap();
    }
    assert!(world.services.revoke_token(&id).await.unwrap());
    assert!(!world.services.revoke_token(&id).await.unwrap());
    assert!(matches!(show(&world.services, &revoked).await, Err(BadCredential::Invalid)));
    assert!(show(&world.services, &other).await.is_ok());
}

#[tokio::test]
async fn who_guesses_is_throttled_and_who_proved_a_token_within_the_hour_is_not() {
    let world = World::with(Settings { failed_attempts_per_minute: 3, ..Settings::default() }).await;
    let ((id, proven), (_, unproven)) = (world.token(None).await, world.token(None).await);
    let guess = async || {
        for _ in 0..3 {
            assert!(matches!(show(&world.services, "guess").await, Err(BadCredential::Invalid)));
        }
        let refused = show(&world.services, "guess").await;
        assert!(matches!(refused, Err(BadCredential::Throttled(throttled)) if throttled.retry_after == 60 * SECOND));
    };
    show(&world.services, &proven).await.unwrap();
    world.clock.advance(HOUR - MICROSECOND);
    guess().await;
    assert!(matches!(show(&world.services, &unproven).await, Err(BadCredential::Throttled(_))));
    assert!(show(&world.services, &proven).await.is_ok(), "it is asked for in the store");
    world.clock.advance(HOUR);
    guess().await;
    assert!(matches!(show(&world.services, &proven).await, Err(BadCredential::Throttled(_))), "an hour is over");
    world.clock.advance(60 * SECOND);
    assert!(show(&world.services, &proven).await.is_ok());
    world.services.revoke_token(&id).await.unwrap();
    assert!(matches!(show(&world.services, &proven).await, Err(BadCredential::Invalid)));
    for _ in 0..2 {
        assert!(matches!(show(&world.services, "guess").await, Err(BadCredential::Invalid)));
    }
    let refused = show(&world.services, &proven).await;
    assert!(matches!(refused, Err(BadCredential::Throttled(_))), "a revoked token is trusted no more");
}

#[tokio::test]
async fn attempts_that_failed_elsewhere_count_too() {
    let world = World::with(Settings { failed_attempts_per_minute: 2, ..Settings::default() }).await;
    for _ in 0..2 {
        assert!(matches!(world.services.refuse_attempt(HOME), BadCredential::Invalid));
    }
    assert!(matches!(world.services.refuse_attempt(HOME), BadCredential::Throttled(_)));
    assert!(matches!(show(&world.services, "guess").await, Err(BadCredential::Throttled(_))));
}

#[tokio::test]
async fn a_token_has_a_name_and_scopes_within_bounds() {
    let world = World::new().await;
    let scope = || "*:*:pull".parse().unwrap();
    let make = async |name: &str, scopes: usize| {
        let scopes = std::iter::repeat_with(scope).take(scopes).collect();
        world.services.create_token(NewToken { name: name.into(), scopes, lifetime: None }).await
    };
    for (name, count) in [("é".repeat(TOKEN_NAME_LIMIT), 100), ("x".into(), 1)] {
        assert!(make(&name, count).await.is_ok(), "{name} {count}");
    }
    for name in ["", "a\nb", &"x".repeat(TOKEN_NAME_LIMIT + 1), &"x".repeat(TOKEN_NAME_LIMIT + 2)] {
        assert!(matches!(make(name, 1).await, Err(TokenRefusal::Name)), "{name}");
    }
    for count in [0, 101, 102] {
        assert!(matches!(make("x", count).await, Err(TokenRefusal::Scopes)), "{count}");
    }
}

#[tokio::test]
async fn tokens_are_listed_in_pages_without_their_secrets() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.token(Some(HOUR)).await.0);
    }
    ids.sort();
    for limit in 0..5 {
        for (after, all) in [(None, &ids[..]), (Some(&ids[0]), &ids[1..])] {
            let (page, more) = world.services.list_tokens(after, limit).await.unwrap();
            let expected: Vec<_> = all.iter().take(limit).collect();
            assert_eq!((page.iter().map(|token| &token.id).collect(), more), (expected, all.len() > limit));
            assert!(page.iter().all(|token| token.expires_at == Some(token.created_at + HOUR)));
        }
    }
}

#[tokio::test]
async fn a_signing_key_signs_for_a_week_and_verifies_for_another_and_a_tokens_life() {
    let world = World::new().await;
    let life = world.services.settings().registry_token_lifetime;
    let week = 7 * 24 * HOUR;
    let [first] = &world.services.rotate_signing_keys().await.unwrap()[..] else { panic!("one key") };
    assert_eq!(first.secret.len(), 32);
    let ids = async || -> Vec<String> {
        let keys = world.services.rotate_signing_keys().await.unwrap();
        let known = world.services.signing_keys().await.unwrap();
        assert!(keys.iter().map(|key| &key.id).eq(known.iter().map(|key| &key.id)));
        keys.into_iter().map(|key| key.id).collect()
    };
    world.clock.advance(week);
    assert_eq!(ids().await, [first.id.as_str()], "for a whole week");
    world.clock.advance(MICROSECOND);
    let [second, old] = &ids().await[..] else { panic!("two keys") };
    assert_eq!(old, &first.id);
    world.clock.advance(week + life - MICROSECOND);
    let kept = ids().await;
    assert_eq!((kept.len(), &kept[2]), (3, &first.id), "what it signed last is verified to its end");
    world.clock.advance(MICROSECOND);
    assert_eq!(ids().await, [kept[0].clone(), second.clone()], "and no longer");
}
