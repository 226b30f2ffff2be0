//! What to do next after a failure.
use std::io;

use registry_client::{Error, Refusal, RefusalKind, UnreachableReason};

use crate::context::{Context, TokenOrigin};
use crate::failure::Failure;

const AGAIN: &str = "run the same command again: a pull goes on where it stopped";

/// The words that a hint is made of.
struct Words {
    server: String,
    /// The package as a shell takes it, or a placeholder.
    package: String,
    names_package: bool,
    token: TokenOrigin,
}

/// What to do next, where there is something to do.
pub fn next_step(failure: &Failure, context: &Context) -> Option<String> {
    let used = context.used();
    let words = Words {
        server: used.server.map_or_else(|| "the server".to_owned(), |server| server.to_string()),
        package: context.package().map_or_else(|| "PACKAGE".to_owned(), quoted),
        names_package: context.package().is_some(),
        token: used.token,
    };
    match failure {
        Failure::Client(Error::Refused(refusal)) => after_refusal(refusal, &words),
        Failure::Client(error) => after_error(error, &words),
        Failure::OutputExists { .. } => Some("name the file with --output to replace it".to_owned()),
        Failure::DamagedCredentials { path } => Some(format!("remove {} and log in again", path.display())),
        Failure::Interrupted if context.package().is_some() => Some(AGAIN.to_owned()),
        _ => None,
    }
}

fn after_error(error: &Error, words: &Words) -> Option<String> {
    let Words { server, package, .. } = words;
    Some(match error {
        Error::InvalidServer { text, .. } if text.contains('@') => {
            "give the token by itself: --token, REGISTRY_TOKEN, or registry-cli login".to_owned()
        }
        Error::InvalidServer { text, .. } if !text.contains("://") => format!("try --server http://{text}"),
        Error::Tls(_) => "install the platform's certificate authorities (the package ca-certificates), or name a PEM \
                          file with --ca-cert or REGISTRY_CA_CERT"
            .to_owned(),
        Error::Unreachable { reason, .. } => unreachable(*reason, server),
        Error::Interrupted { .. } | Error::TimedOut { .. } => {
            format!("{AGAIN}, and what a push achieved is shown by: registry-cli versions {package}")
        }
        Error::VersionExists { stored: Some(stored), sent: Some(sent), .. } if stored == sent => {
            "nothing is left to do: these very bytes are stored".to_owned()
        }
        Error::VersionExists { version, .. } => format!(
            "a version is never overwritten: push under another one, or first run: registry-cli delete {package} {}",
            quoted(version)
        ),
        Error::Redirected { location, .. } => {
            format!("redirects are not followed; use the address that it leads to as --server: {location}")
        }
        Error::UnexpectedAnswer { .. } => not_foundry(server),
        Error::DigestMismatch { .. } => "the bytes were altered on their way or in the store, and must not be used; \
                                         try again, and if it happens again, check the store: registry-server check \
                                         --deep"
            .to_owned(),
        Error::Changed { .. } => "somebody replaced this version just now; pull it again".to_owned(),
        Error::Busy { .. } => "wait for the other pull, or choose another --output".to_owned(),
        Error::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            format!("free some space and {AGAIN}")
        }
        _ => return None,
    })
}

fn unreachable(reason: UnreachableReason, server: &str) -> String {
    match reason {
        UnreachableReason::ConnectionRefused => format!(
            "is the server running at {server}? Start it with registry-server, or name another one with --server or \
             REGISTRY_SERVER"
        ),
        UnreachableReason::UnknownHost => {
            format!("check the host name in {server}: it comes from --server, REGISTRY_SERVER or a login")
        }
        UnreachableReason::Certificate => {
            "if a private authority signed the certificate, name its PEM file with --ca-cert or REGISTRY_CA_CERT"
                .to_owned()
        }
        UnreachableReason::Tls => format!("does {server} speak TLS at that port? Try http:// in its place"),
        _ => format!("check that {server} is the right address and that no firewall is in between"),
    }
}

fn after_refusal(refusal: &Refusal, words: &Words) -> Option<String> {
    let Words { server, package, token, .. } = words;
    Some(match refusal.kind() {
        RefusalKind::Unauthenticated => match token {
            TokenOrigin::Nowhere => format!(
                "log in with: registry-cli login --server {server}; or set REGISTRY_TOKEN. A server prints its first \
                 token when it starts for the first time; an administrator makes more with: registry-cli token create"
            ),
            TokenOrigin::Given => format!(
                "the token in --token or REGISTRY_TOKEN is wrong, expired or revoked at {server}; an administrator \
                 makes a new one with: registry-cli token create"
            ),
            TokenOrigin::Saved => format!(
                "the saved token is wrong, expired or revoked; get a new one and run: registry-cli login --server \
                 {server}"
            ),
        },
        RefusalKind::Forbidden => {
            let scope = match words.names_package {
                true => format!("generic:{package}:pull,push,delete"),
                false => "'*:*:admin'".to_owned(),
            };
            format!(
                "this needs a token with another scope; an administrator makes one with: registry-cli token create \
                 NAME --scope {scope}"
            )
        }
        // Every error of the API has a code: this came from something else.
        RefusalKind::NotFound if refusal.code.is_none() => not_foundry(server),
        RefusalKind::NotFound if words.names_package => {
            format!("see what there is: registry-cli versions {package}, registry-cli list")
        }
        RefusalKind::TooLarge => {
            "the server limits how large an upload may be; its administrator can raise that".to_owned()
        }
        RefusalKind::Throttled => match refusal.retry_after {
            Some(delay) => format!("wait {} s and try again", delay.as_secs()),
            None => "wait a moment and try again".to_owned(),
        },
        RefusalKind::Server if refusal.status == 507 => {
            "the server has to get more space, or to free some: registry-cli delete, registry-cli gc".to_owned()
        }
        RefusalKind::Server if refusal.request_id.is_some() => {
            "the server's log tells more under that request id".to_owned()
        }
        _ => return None,
    })
}

fn not_foundry(server: &str) -> String {
    format!("is {server} a Foundry server? Check --server and REGISTRY_SERVER")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./+:@%=,".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_can_be_pasted_into_a_shell() {
        assert_eq!(quoted("my-pkg_1.0"), "my-pkg_1.0");
        assert_eq!(quoted("a b; rm 'x'"), "'a b; rm '\\''x'\\'''");
        assert_eq!(quoted(""), "''");
    }
}
