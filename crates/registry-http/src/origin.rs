//! Under which scheme, host and address clients see this server, and who the client is.

use std::fmt;

/// A scheme and a host as the client sees them, perhaps with a path under which a proxy publishes the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: std::borrow::Cow<'static, str>,
    authority: String,
}

impl Origin {
    /// `scheme://authority`.
    pub fn new(scheme: &'static str, authority: impl Into<String>) -> Self {
        Self { scheme: scheme.into(), authority: authority.into() }
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host, with its port where that is not the scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The absolute URL of `path`, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}
