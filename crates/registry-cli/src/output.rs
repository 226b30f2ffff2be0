//! Writing to stdout and stderr.
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;

/// Writes text to stdout. That nobody reads on is [`Failure::OutputClosed`].
pub fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Output(error),
    })
}

/// Writes a command's result: the document with `--json`, else the sentence.
pub fn result(context: &Context, document: &impl Serialize, sentence: &str) -> Result<(), Failure> {
    if context.json() { write(&format!("{}\n", json(document))) } else { write(&format!("{sentence}\n")) }
}

/// The document as one line.
pub fn json(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("documents of text, numbers and lists serialise")
}

/// Tells the person in front of it something that is no part of the result.
pub fn warn(text: &str) {
    // That stderr cannot be written to is no reason to fail.
    drop(writeln!(io::stderr(), "warning: {text}"));
}

/// `text` with its control characters escaped: names come from other people, and a terminal obeys escape sequences.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            write!(safe, "{}", character.escape_default()).expect("writing to a string does not fail");
        } else {
            safe.push(character);
        }
    }
    safe
}

/// A size in bytes for people, such as `1.50 MiB`.
pub fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// How many of something there are, for people: `1 blob`, `2 blobs`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_reach_no_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n\u{9b}é"), "a\\u{1b}[2Jb\\n\\u{9b}é");
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!((size(0), size(1536)), ("0 B".to_owned(), "1.50 KiB".to_owned()));
    }

    #[test]
    fn one_is_not_many() {
        let counted = [0, 1, 2].map(|number| count(number, "blob"));
        assert_eq!(counted, ["0 blobs", "1 blob", "2 blobs"]);
    }
}
