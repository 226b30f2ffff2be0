//! The file name in a `Content-Disposition` header (RFC 6266).
use percent_encoding::percent_decode_str;

/// The file name, exactly as the server keeps it: `filename*` (RFC 8187, UTF-8) before `filename`.
///
/// It is a name that somebody chose, not a safe path: it may hold separators.
pub(crate) fn filename(header: &str) -> Option<String> {
    let mut plain = None;
    for (name, value) in parameters(header) {
        if name.eq_ignore_ascii_case("filename*") {
            let mut parts = value.splitn(3, '\'');
            if let (Some(charset), Some(_language), Some(encoded)) = (parts.next(), parts.next(), parts.next())
                && charset.eq_ignore_ascii_case("utf-8")
                && let Ok(decoded) = percent_decode_str(encoded).decode_utf8()
            {
                return Some(decoded.into_owned());
            }
        } else if name.eq_ignore_ascii_case("filename") {
            plain.get_or_insert(value);
        }
    }
    plain.filter(|name| !name.is_empty())
}

/// The `name=value` parameters behind the disposition type, quoted strings unquoted.
fn parameters(header: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut rest = header.split_once(';').map_or("", |(_, rest)| rest);
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (value, remaining) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let (value, remaining) = after.split_once(';').unwrap_or((after, ""));
                (value.trim_end().to_owned(), remaining)
            }
        };
        found.push((name.trim_matches([' ', '\t', ';']), value));
        rest = remaining;
    }
    found
}

/// The string up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_as_rfc_6266_writes_them() {
        for (header, name) in [
            ("attachment; filename=f.txt", Some("f.txt")),
            ("attachment; filename=\"a b.txt\"", Some("a b.txt")),
            ("attachment; FileName=\"a\\\"b;c.txt\"; x=y", Some("a\"b;c.txt")),
            ("attachment; filename=\"e.txt\"; filename*=UTF-8''%C3%A9.txt", Some("é.txt")),
            ("attachment; filename*=utf-8'en'%e2%82%ac; filename=plain", Some("€")),
            ("attachment; filename*=latin1''x; filename=plain", Some("plain")),
            ("inline; filename=\"\"", None),
            ("attachment", None),
            ("", None),
        ] {
            assert_eq!(filename(header).as_deref(), name, "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(header in "\\PC{0,60}") {
            let _ = filename(&format!("attachment;{header}"));
        }
    }
}
