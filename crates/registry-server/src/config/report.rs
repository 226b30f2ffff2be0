//! `registry-server config`: the effective configuration as YAML.

use std::fmt::Write as _;

use figment::value::{Dict, Value};

use super::keys::{self, KEYS, Key};
use super::{Loaded, MASK, Origin};

/// The configuration as YAML that can be read back, each value with where it came from.
pub fn render(loaded: &Loaded) -> String {
    let mut text = String::new();
    let mut open: Vec<String> = Vec::new();
    for path in paths(loaded) {
        let Some(key) = keys::find(&path) else { continue };
        let (leaf, sections) = path.split_last().expect("a key has at least one segment");
        let common = open.iter().zip(sections).take_while(|(left, right)| left == right).count();
        for (depth, section) in sections.iter().enumerate().skip(common) {
            let _ = writeln!(text, "{}{section}:", "  ".repeat(depth));
        }
        open = sections.to_vec();
        let full = path.join(".");
        let value = loaded.raw(&full).unwrap_or_else(|| Value::from(figment::value::Empty::Unit));
        let origin = match loaded.origin(&full) {
            Origin::Default => "default".to_owned(),
            Origin::Set(origin) => origin,
        };
        let indent = "  ".repeat(sections.len());
        match list(key, &value) {
            Some(items) if !items.is_empty() => {
                let _ = writeln!(text, "{indent}{leaf}: # {origin}");
                for item in items {
                    let _ = writeln!(text, "{indent}  - {item}");
                }
            }
            Some(_) => drop(writeln!(text, "{indent}{leaf}: [] # {origin}")),
            None => drop(writeln!(text, "{indent}{leaf}: {} # {origin}", scalar(key, &value))),
        }
    }
    text
}

/// The paths to show: every key of the table, and for the registries those that are set.
fn paths(loaded: &Loaded) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut registries_shown = false;
    for key in KEYS {
        if !key.path.contains('*') {
            paths.push(key.path.split('.').map(str::to_owned).collect());
        } else if !registries_shown {
            registries_shown = true;
            if let Some(Value::Dict(_, registries)) = loaded.raw("registries") {
                paths.extend(registry_paths(&registries));
            }
        }
    }
    paths
}

fn registry_paths(registries: &Dict) -> impl Iterator<Item = Vec<String>> + '_ {
    registries.iter().flat_map(|(name, settings)| {
        let settings = settings.as_dict().into_iter().flat_map(Dict::keys);
        settings.map(move |setting| vec!["registries".to_owned(), name.clone(), setting.clone()])
    })
}

/// The items of a list, one line each; `None` when the value is not a list.
fn list(key: &Key, value: &Value) -> Option<Vec<String>> {
    let items = value.as_array()?;
    let one = |item: &Value| match item {
        Value::Dict(_, fields) => {
            let shown = fields.iter().map(|(field, value)| {
                let secret = matches!(field.as_str(), "token" | "hash");
                format!("{field}: {}", if secret { quoted(MASK) } else { flow(value) })
            });
            format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
        }
        _ if key.secret => quoted(MASK),
        other => flow(other),
    };
    Some(items.iter().map(one).collect())
}

fn scalar(key: &Key, value: &Value) -> String {
    match value {
        Value::Empty(..) => "null".to_owned(),
        Value::String(_, text) if key.path == "database.url" => quoted(&mask_password(text)),
        _ if key.secret => quoted(MASK),
        other => flow(other),
    }
}

/// A value on one line. JSON's spelling of texts is YAML's too.
fn flow(value: &Value) -> String {
    match value {
        Value::Array(_, items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Dict(_, fields) => {
            let fields = fields.iter().map(|(field, value)| format!("{}: {}", quoted(field), flow(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Empty(..) => "null".to_owned(),
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, number) => number.to_i128().map_or_else(
            || number.to_u128().map_or_else(|| number.to_f64().unwrap_or_default().to_string(), |n| n.to_string()),
            |number| number.to_string(),
        ),
        Value::Char(_, character) => quoted(&character.to_string()),
        Value::String(_, text) => {
            // A word that only ever reads as text needs no quotes.
            let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '.'))
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./_-".contains(&byte))
                && matches!(serde_norway::from_str(text), Ok(serde_norway::Value::String(_)));
            if plain { text.clone() } else { quoted(text) }
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is always JSON")
}

/// `postgres://user:password@host/db` without the password; a text of another shape disappears whole.
fn mask_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return MASK.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // A password may stand in the query (libpq allows `?password=`), or hold a `/` that nobody escaped.
    if path.contains('@') || path.contains("password") {
        return MASK.to_owned();
    }
    let Some((credentials, host)) = authority.rsplit_once('@') else {
        return url.to_owned();
    };
    match credentials.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{MASK}@{host}{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::mask_password;

    #[test]
    fn passwords_leave_urls() {
        for (url, shown) in [
            ("postgres://u:secret@h:5432/d?sslmode=require", "postgres://u:********@h:5432/d?sslmode=require"),
            ("postgres://u:se@cret@h/d", "postgres://u:********@h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgres://u:se/cret@h/d", "********"),
            ("postgres://h/d?password=secret", "********"),
            ("host=h password=secret", "********"),
        ] {
            assert_eq!(mask_password(url), shown);
        }
    }
}
