//! What can fail, and with which exit code.
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use registry_client::{Error, Refusal, RefusalKind};
use serde::Serialize;

use crate::context::Context;
use crate::hints;
use crate::output::{json, printable};

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Client(#[from] Error),
    #[error("{0}")]
    Usage(String),
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} exists already", path.display())]
    OutputExists { path: PathBuf },
    #[error("the saved credentials in {} cannot be read", path.display())]
    DamagedCredentials { path: PathBuf },
    #[error("cannot write to stdout: {0}")]
    Output(io::Error),
    #[error("nobody reads the output any more")]
    OutputClosed,
    #[error("interrupted")]
    Interrupted,
}

/// An error as JSON on stderr.
#[derive(Serialize)]
struct Document<'a> {
    error: String,
    code: &'a str,
    exit_code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

/// Says what is wrong with the command line, or shows the help or the version that it asks for, and returns the exit
/// code. There are no options yet that say whether errors are JSON, so the arguments themselves do.
pub fn report_wrong_usage(error: &clap::Error) -> ExitCode {
    let json_is_wanted =
        std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json");
    if error.use_stderr() && json_is_wanted {
        let text = error.to_string();
        let (message, hint) = text.split_once("\n\n").unwrap_or((&text, ""));
        let message = message.strip_prefix("error: ").unwrap_or(message).trim().to_owned();
        let hint = Some(hint.trim().to_owned()).filter(|hint| !hint.is_empty());
        Failure::Usage(message).print_json(hint, None);
    } else {
        // That nobody reads it changes nothing.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).expect("clap's exit codes are 0 and 2"))
}

impl Failure {
    pub fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { action, path: path.to_owned(), source }
    }

    /// Says what failed and what to do next, on stderr, and returns the exit code.
    pub fn report(&self, context: &Context) -> u8 {
        if matches!(self, Self::OutputClosed) {
            // As when a list is piped into `head`: the reader has what it wanted.
            return 0;
        }
        let (exit_code, hint, refusal) = (self.exit_code(), hints::next_step(self, context), self.refusal());
        let request_id = refusal.and_then(|refusal| refusal.request_id.as_deref());
        if context.json() {
            self.print_json(hint, refusal);
            return exit_code;
        }
        eprintln!("error: {}", printable(&self.to_string()));
        if let Some(id) = request_id.filter(|_| refusal.is_some_and(|refusal| refusal.kind() == RefusalKind::Server)) {
            eprintln!("request id: {}", printable(id));
        }
        if let Some(hint) = hint {
            eprintln!("hint: {}", printable(&hint));
        }
        exit_code
    }

    fn print_json(&self, hint: Option<String>, refusal: Option<&Refusal>) {
        let document = Document {
            error: self.to_string(),
            code: self.code(),
            exit_code: self.exit_code(),
            hint,
            status: refusal.map(|refusal| refusal.status),
            request_id: refusal.and_then(|refusal| refusal.request_id.as_deref()),
        };
        eprintln!("{}", json(&document));
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Client(Error::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    /// The documented exit code: see `--help`.
    pub fn exit_code(&self) -> u8 {
        let error = match self {
            Self::Client(error) => error,
            Self::OutputClosed => return 0,
            Self::Usage(_) => return 2,
            Self::Interrupted => return 130,
            Self::File { .. } | Self::OutputExists { .. } | Self::DamagedCredentials { .. } | Self::Output(_) => {
                return 1;
            }
        };
        match error {
            Error::InvalidServer { .. } | Error::InvalidToken | Error::InvalidName(_) => 2,
            Error::VersionExists { .. } => 5,
            Error::DigestMismatch { .. } => 6,
            Error::Unreachable { .. } | Error::Interrupted { .. } | Error::TimedOut { .. } => 7,
            Error::Refused(refusal) if is_digest_refusal(refusal) => 6,
            Error::Refused(refusal) => match refusal.kind() {
                RefusalKind::Invalid => 2,
                RefusalKind::NotFound => 3,
                RefusalKind::Unauthenticated | RefusalKind::Forbidden => 4,
                RefusalKind::Conflict => 5,
                _ => 1,
            },
            _ => 1,
        }
    }

    /// A word for programs: the server's own where it gave one.
    fn code(&self) -> &str {
        let error = match self {
            Self::Client(error) => error,
            Self::Usage(_) => return "usage",
            Self::File { .. } => return "file",
            Self::OutputExists { .. } => return "output_exists",
            Self::DamagedCredentials { .. } => return "damaged_credentials",
            Self::Output(_) | Self::OutputClosed => return "output",
            Self::Interrupted => return "interrupted",
        };
        match error {
            Error::InvalidServer { .. } => "invalid_server",
            Error::InvalidToken => "invalid_token",
            Error::InvalidName(_) => "invalid_name",
            Error::Tls(_) => "tls",
            Error::Unreachable { .. } => "unreachable",
            Error::Interrupted { .. } => "connection_broken",
            Error::TimedOut { .. } => "timed_out",
            Error::VersionExists { .. } => "version_exists",
            Error::Redirected { .. } => "redirected",
            Error::UnexpectedAnswer { .. } => "unexpected_answer",
            Error::DigestMismatch { .. } => "digest_mismatch",
            Error::Changed { .. } => "changed",
            Error::Busy { .. } => "busy",
            Error::File { .. } | Error::Source(_) => "file",
            Error::Refused(refusal) => match (&refusal.code, refusal.kind()) {
                (Some(code), _) => code,
                (None, RefusalKind::Invalid) => "invalid",
                (None, RefusalKind::Unauthenticated) => "unauthenticated",
                (None, RefusalKind::Forbidden) => "forbidden",
                (None, RefusalKind::NotFound) => "not_found",
                (None, RefusalKind::Conflict) => "conflict",
                (None, RefusalKind::TooLarge) => "too_large",
                (None, RefusalKind::Throttled) => "throttled",
                (None, RefusalKind::Server) => "server",
                (None, _) => "refused",
            },
            _ => "other",
        }
    }
}

/// The server stored nothing because the bytes that arrived are not those that were announced.
fn is_digest_refusal(refusal: &Refusal) -> bool {
    matches!(refusal.code.as_deref(), Some("digest_mismatch" | "size_mismatch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_documented_exit_code() {
        for (status, code, exit_code) in [
            (400, "invalid_name", 2),
            (400, "digest_mismatch", 6),
            (401, "unauthenticated", 4),
            (403, "forbidden", 4),
            (404, "not_found", 3),
            (409, "version_exists", 5),
            (413, "too_large", 1),
            (429, "throttled", 1),
            (500, "internal", 1),
        ] {
            let message = String::new();
            let refusal = Refusal { status, code: Some(code.to_owned()), message, request_id: None, retry_after: None };
            assert_eq!(Failure::Client(refusal.into()).exit_code(), exit_code, "{status} {code}");
        }
    }
}
