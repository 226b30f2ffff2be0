//! Where a server is, and the addresses of its API.
use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

use crate::{Error, Result};

/// The server of a machine on which nothing was configured.
pub const DEFAULT_SERVER: &str = "http://localhost:8080";

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The address of a server: `http` or `https`, a host, perhaps a port, perhaps a path below which a proxy serves it.
///
/// Two spellings of one address (a trailing slash, an upper-case host, the scheme's own port) are equal and print the
/// same.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerUrl(Url);

impl ServerUrl {
    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether the host is this machine: `localhost` or a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.0.host_str().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.ends_with(".localhost")
            || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// The URL of `segments` below `/api/v1`, each percent-encoded as one path segment.
    ///
    /// # Errors
    /// [`Error::InvalidName`] for an empty segment, `.` and `..`: no encoding keeps those from changing the path.
    pub(crate) fn api(&self, segments: &[&str]) -> Result<Url> {
        let mut text = self.to_string();
        text.push_str("/api/v1");
        for segment in segments {
            if matches!(*segment, "" | "." | "..") {
                return Err(Error::InvalidName((*segment).to_owned()));
            }
            text.push('/');
            text.extend(utf8_percent_encode(segment, SEGMENT));
        }
        Ok(Url::parse(&text).expect("a valid base and encoded segments are a valid URL"))
    }
}

impl FromStr for ServerUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // What stands before the last `@` may be a secret.
        let shown = text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, rest)| format!("…@{rest}"));
        let invalid = |reason: &str| Error::InvalidServer { text: shown.clone(), reason: reason.to_owned() };
        if !(text.starts_with("http://") || text.starts_with("https://")) {
            return Err(invalid("it has to begin with http:// or https://"));
        }
        let mut url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            // The text is not repeated: it holds a secret.
            let reason = "it must not hold a user name or a password; give the token by itself".to_owned();
            return Err(Error::InvalidServer { text: format!("{}://…", url.scheme()), reason });
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it must not hold a query or a fragment"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self(url))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server(text: &str) -> ServerUrl {
        text.parse().expect("valid")
    }

    #[test]
    fn spellings_of_one_address_are_one() {
        assert_eq!(server("http://LocalHost:8080/").to_string(), DEFAULT_SERVER);
        assert_eq!(server("https://example.com:443/"), server("https://example.com"));
        assert_eq!(server("https://example.com/foundry/"), server("https://example.com/foundry"));
        assert_eq!(server("https://example.com/foundry/").to_string(), "https://example.com/foundry");
    }

    #[test]
    fn what_is_no_server_says_why_and_keeps_its_password() {
        for (text, reason) in [
            ("localhost:8080", "http://"),
            ("ftp://example.com", "http://"),
            ("http://", "empty host"),
            ("http://example.com/?a=b", "query"),
            ("http://example.com/#a", "fragment"),
            ("http://user:pa55@example.com", "password"),
        ] {
            let error = text.parse::<ServerUrl>().expect_err(text).to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains("pa55"), "{error}");
        }
    }

    #[test]
    fn loopback_is_this_machine_only() {
        for text in ["http://localhost:1", "http://127.0.0.2", "http://[::1]:8080", "http://a.localhost"] {
            assert!(server(text).is_loopback(), "{text}");
        }
        for text in ["http://example.com", "http://10.0.0.1", "http://localhost.example.com"] {
            assert!(!server(text).is_loopback(), "{text}");
        }
    }

    #[test]
    fn segments_stay_segments() {
        let url = server("http://h/base").api(&["artifacts", "a/../b?c#d %", "1.0+é"]).expect("valid");
        assert_eq!(url.as_str(), "http://h/base/api/v1/artifacts/a%2F..%2Fb%3Fc%23d%20%25/1.0%2B%C3%A9");
        for segment in ["", ".", ".."] {
            assert!(matches!(server("http://h").api(&["artifacts", segment]), Err(Error::InvalidName(_))));
        }
    }

    proptest! {
        #[test]
        fn every_segment_comes_back_as_it_was(segment in "\\PC{1,40}") {
            prop_assume!(segment != "." && segment != "..");
            let url = server("http://h").api(&["artifacts", &segment, "1"]).expect("valid");
            let segments: Vec<_> = url.path_segments().expect("http has a path").collect();
            prop_assert_eq!(segments.len(), 5);
            let decoded = percent_encoding::percent_decode_str(segments[3]).decode_utf8().expect("UTF-8");
            prop_assert_eq!(decoded, segment);
        }
    }
}
