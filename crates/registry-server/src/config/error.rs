//! What is wrong with a configuration, in words that say where and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use figment::error::{Actual, Kind, OneOf};

use super::environment::Unknown;
use super::keys;
use super::unknown::UnknownKey;
use super::{Origin, environment};

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        message: String,
    },
    /// Keys or values are wrong.
    #[error("{}", Lines(.0))]
    Problems(Vec<Problem>),
    /// What is chosen is not in this build.
    #[error("{0}")]
    Unsupported(String),
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    origin: String,
    key: String,
    message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.origin.as_str(), self.key.as_str()) {
            ("", "") => f.write_str(&self.message),
            ("", key) => write!(f, "{key}: {}", self.message),
            (origin, "") => write!(f, "{origin}: {}", self.message),
            (origin, key) => write!(f, "{origin}: {key}: {}", self.message),
        }
    }
}

impl Problem {
    /// `key`, whose value came from `origin`, is wrong.
    pub fn at(key: &str, origin: Origin, message: String) -> Self {
        let origin = match origin {
            Origin::Default => String::new(),
            Origin::Set(origin) => origin,
        };
        Self { origin, key: key.to_owned(), message }
    }

    pub fn unknown_key(unknown: UnknownKey, file: &Path) -> Self {
        let hint = match unknown.nearest {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("known here: {}", unknown.section.join(", ")),
        };
        Self { origin: file.display().to_string(), key: unknown.path, message: format!("unknown key; {hint}") }
    }

    pub fn unknown_variable(unknown: Unknown) -> Self {
        let hint = match unknown.nearest {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "see docs/configuration.md for all names".to_owned(),
        };
        let origin = format!("environment variable {}", unknown.variable);
        Self { origin, key: String::new(), message: format!("names no key; {hint}") }
    }

    /// A value of the wrong type or outside its words. Values of secret keys are not repeated.
    pub fn from_figment(error: &figment::Error) -> Self {
        let secret = (1..=error.path.len()).any(|end| keys::find(&error.path[..end]).is_some_and(|key| key.secret));
        let message = match &error.kind {
            Kind::InvalidType(actual, expected) => format!("expected {expected}, found {}", shown(actual, secret)),
            Kind::InvalidValue(actual, expected) => {
                format!("invalid value {}, expected {expected}", shown(actual, secret))
            }
            Kind::UnknownVariant(variant, words) => {
                let hint = super::unknown::nearest(variant, words.iter().copied())
                    .map(|nearest| format!("; did you mean `{nearest}`?"));
                let found = if secret { "a word".to_owned() } else { format!("`{variant}`") };
                format!("expected `{}`, found {found}{}", OneOf(words), hint.unwrap_or_default())
            }
            Kind::UnknownField(field, _) => format!("unknown key `{field}`"),
            other => other.to_string(),
        };
        let key = place(&error.path);
        let origin = error.metadata.as_ref().map(|metadata| metadata.name.clone().into_owned()).unwrap_or_default();
        let hint = if origin.is_empty() { names_hint(&error.path) } else { String::new() };
        Self { origin, key, message: message + &hint }
    }
}

fn names_hint(path: &[String]) -> String {
    let names = environment::names(path);
    if names.is_empty() { String::new() } else { format!(" (in the environment: {})", names.join(", ")) }
}

/// `auth.tokens[1].scopes[0]`
fn place(path: &[String]) -> String {
    let mut text = String::new();
    for segment in path {
        if segment.parse::<usize>().is_ok() && !text.is_empty() {
            text.push_str(&format!("[{segment}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(segment);
        }
    }
    text
}

fn shown(actual: &Actual, secret: bool) -> String {
    if !secret {
        return match actual {
            Actual::Unit => "nothing".to_owned(),
            Actual::Seq => "a list".to_owned(),
            Actual::Map => "a section".to_owned(),
            Actual::Str(text) => format!("{text:?}"),
            other => other.to_string(),
        };
    }
    match actual {
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) | Actual::Bytes(_) => "text",
        Actual::Unit | Actual::Option => "nothing",
        Actual::Seq => "a list",
        _ => "a section",
    }
    .to_owned()
}
