//! The `Authorization` header: Bearer (RFC 6750) and Basic (RFC 7617).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What a request's header shows.
#[derive(Clone, PartialEq, Eq)]
pub enum Presented {
    /// There is no such header.
    Nothing,
    /// A Bearer token.
    Bearer(String),
    /// Basic: the token is the password; any user name will do.
    Basic {
        /// The password.
        password: String,
    },
}

/// Reads the header's value; `None` when it is neither Bearer nor Basic, or is malformed.
pub fn read_authorization(value: &str) -> Option<Presented> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    let rest = rest.trim();
    if rest.is_empty() {
        return None;
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Presented::Bearer(rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (_, password) = decoded.split_once(':')?;
    (!password.is_empty()).then(|| Presented::Basic { password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(value: &str) -> Option<String> {
        match read_authorization(value)? {
            Presented::Nothing => None,
            Presented::Bearer(text) | Presented::Basic { password: text } => Some(text),
        }
    }

    #[test]
    fn bearer_and_basic() {
        assert_eq!(secret("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(secret("bearer  abc ").as_deref(), Some("abc"));
        // user:pass:word
        assert_eq!(secret("Basic dXNlcjpwYXNzOndvcmQ=").as_deref(), Some("pass:word"));
        for value in ["", "Bearer", "Bearer ", "Basic", "Basic !!!", "Basic dXNlcg==", "Basic dXNlcjo=", "Digest x"] {
            assert_eq!(secret(value), None, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = read_authorization(&text);
        }

        #[test]
        fn any_user_name_goes_with_any_password(user in "[^:]{0,20}", password in ".{1,40}") {
            let header = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            prop_assert_eq!(secret(&header), Some(password));
        }
    }
}
