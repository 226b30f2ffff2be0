//! Keys that do not exist, and the ones that were probably meant.

use figment::value::{Dict, Value};

use super::keys::{self, KEYS};
use super::tokens;

/// How alike two names must be (Jaro–Winkler, 0 to 1) for one to be suggested for the other.
const ALIKE: f64 = 0.84;

/// A key that does not exist.
#[derive(Debug, PartialEq)]
pub struct UnknownKey {
    /// Its full path.
    pub path: String,
    /// The full path of the nearest that exists.
    pub nearest: Option<String>,
    /// What its section holds, where nothing is near.
    pub section: Vec<String>,
}

/// Every key in `document` that does not exist, and every section that should be one and is not.
pub fn find(document: &Dict) -> Vec<UnknownKey> {
    let mut found = Vec::new();
    walk(document, &mut Vec::new(), &mut found);
    found
}

fn walk(dict: &Dict, path: &mut Vec<String>, found: &mut Vec<UnknownKey>) {
    for (name, value) in dict {
        path.push(name.clone());
        if keys::find(path).is_some() {
            check_tokens(value, path, found);
        } else if KEYS.iter().any(|key| key.lies_in(path)) {
            // A scalar where a section belongs is a type error, which the reader of values reports.
            if let Value::Dict(_, section) = value {
                walk(section, path, found);
            }
        } else {
            found.push(describe(path));
        }
        path.pop();
    }
}

fn check_tokens(value: &Value, path: &[String], found: &mut Vec<UnknownKey>) {
    let Some(entries) = value.as_array().filter(|_| path.join(".") == "auth.tokens") else { return };
    for (index, entry) in entries.iter().enumerate() {
        let Some(entry) = entry.as_dict() else { continue };
        for field in entry.keys().filter(|field| !tokens::FIELDS.contains(&field.as_str())) {
            let place = |field: &str| format!("auth.tokens[{index}].{field}");
            found.push(UnknownKey {
                path: place(field),
                nearest: nearest(field, tokens::FIELDS.into_iter()).map(place),
                section: tokens::FIELDS.map(place).to_vec(),
            });
        }
    }
}

fn describe(path: &[String]) -> UnknownKey {
    let full = path.join(".");
    // A `*` takes the name that stands in its place, so that the suggestion can be pasted.
    let candidates: Vec<String> = KEYS
        .iter()
        .map(|key| {
            let own = key.path.split('.').enumerate();
            let filled = own.map(|(depth, own)| match path.get(depth) {
                Some(given) if own == "*" && depth + 1 < path.len() => given.as_str(),
                _ => own,
            });
            filled.collect::<Vec<_>>().join(".")
        })
        .collect();
    let parent = &path[..path.len() - 1];
    // A section itself may be what is misspelt.
    let sections = candidates
        .iter()
        .flat_map(|candidate| candidate.match_indices('.').map(|(dot, _)| &candidate[..dot]))
        .filter(|section| !full.starts_with(&format!("{section}.")));
    let section = KEYS.iter().zip(&candidates).filter(|(key, _)| parent.is_empty() || key.lies_in(parent));
    UnknownKey {
        nearest: nearest(&full, candidates.iter().map(String::as_str).chain(sections)).map(str::to_owned),
        section: section.map(|(_, candidate)| candidate.clone()).collect(),
        path: full,
    }
}

/// The candidate that `name` was probably meant to be: the same last word in another spelling, or a similar name.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
    let leaf = |text: &str| plain(text.rsplit('.').next().unwrap_or(text));
    let score = |candidate: &str| {
        let alike = strsim::jaro_winkler(&plain(name), &plain(candidate));
        let same_leaf = leaf(name) == leaf(candidate);
        let near_leaf = strsim::jaro_winkler(&leaf(name), &leaf(candidate)) * 0.9;
        if same_leaf { 1.0 + alike } else { alike.max(near_leaf) }
    };
    candidates
        .filter(|candidate| !candidate.contains('*'))
        .map(|candidate| (score(candidate), candidate))
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .filter(|(score, _)| *score >= ALIKE)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use figment::providers::Format;

    fn unknown(text: &str) -> Vec<UnknownKey> {
        find(&super::super::yaml::Yaml::from_str::<Dict>(text).unwrap())
    }

    #[test]
    fn known_keys_are_known() {
        let text = "server: {port: 1, tls: {key: k}}\nauth: {tokens: [a, {name: n, token: t}]}\nregistries: {x: {format: oci}}";
        assert_eq!(unknown(text), []);
    }

    #[test]
    fn each_unknown_key_is_found_with_what_was_meant() {
        for (text, path, nearest) in [
            ("server: {prot: 1}", "server.prot", Some("server.port")),
            ("storage: {data_dir: x}", "storage.data_dir", Some("storage.dataDir")),
            ("storage: {datadir: x}", "storage.datadir", Some("storage.dataDir")),
            ("port: 1", "port", Some("server.port")),
            ("tokens: [a]", "tokens", Some("auth.tokens")),
            ("serer: {port: 1}", "serer", Some("server")),
            ("server: {baseUrl: x}", "server.baseUrl", Some("server.base_url")),
            ("server: {tls: {cert: x}}", "server.tls.cert", Some("server.tls.certificate")),
            (
                "registries: {team: {refrences: strict}}",
                "registries.team.refrences",
                Some("registries.team.references"),
            ),
            ("auth: {tokens: [{token: a}, {nmae: b}]}", "auth.tokens[1].nmae", Some("auth.tokens[1].name")),
            ("log: {zzz: 1}", "log.zzz", None),
        ] {
            let found = unknown(text);
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(found[0].path, path);
            assert_eq!(found[0].nearest.as_deref(), nearest, "{text}");
        }
    }

    #[test]
    fn where_nothing_is_near_the_section_is_listed() {
        let found = unknown("log: {zzz: 1}");
        assert_eq!(found[0].nearest, None);
        assert_eq!(found[0].section, ["log.level", "log.format", "log.access"]);
    }

    #[test]
    fn all_are_reported_at_once() {
        assert_eq!(unknown("a: 1\nserver: {b: 1, c: 2}").len(), 3);
    }
}
