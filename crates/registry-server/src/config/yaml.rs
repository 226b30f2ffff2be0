//! YAML for figment.

use figment::providers::Format;
use serde::de::DeserializeOwned;

/// YAML 1.2, read by `serde_norway`: figment's own reader stands on a crate that is no longer maintained.
pub struct Yaml;

impl Format for Yaml {
    type Error = serde_norway::Error;

    const NAME: &'static str = "YAML";

    fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Self::Error> {
        let mut document: serde_norway::Value = serde_norway::from_str(text)?;
        document.apply_merge()?;
        remove_empty_sections(&mut document);
        T::deserialize(document)
    }
}

/// A section whose keys are all commented out reads as null; it says nothing, so it is as if it were not there. A null
/// anywhere below a section's name that holds keys is seen by the caller, which knows what is a section.
fn remove_empty_sections(document: &mut serde_norway::Value) {
    // An empty document is null, which is read as a section without keys.
    let Some(map) = document.as_mapping_mut() else { return };
    let sections = |key: &serde_norway::Value| {
        key.as_str().is_some_and(|key| {
            let path = [key.to_owned()];
            super::keys::KEYS.iter().any(|known| known.lies_in(&path))
        })
    };
    map.retain(|key, value| !(value.is_null() && sections(key)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use figment::value::Dict;

    fn dict(text: &str) -> Result<Dict, String> {
        Yaml::from_str::<Dict>(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_document_and_an_empty_section_say_nothing() {
        for text in ["", "# only a comment\n", "---\n", "server:\n", "server:\nstorage: null\n"] {
            assert!(dict(text).unwrap().is_empty(), "{text:?}");
        }
    }

    #[test]
    fn anchors_merge_and_mistakes_name_their_place() {
        let document = dict("a: &a {x: 1}\nb: {<<: *a, y: 2}\n").unwrap();
        assert_eq!(document["b"].as_dict().unwrap().keys().collect::<Vec<_>>(), ["x", "y"]);
        assert!(dict("a: 1\n  b: 2\n").unwrap_err().contains("line 2"));
        assert!(dict("a: 1\na: 2\n").unwrap_err().contains("duplicate"));
        assert!(dict("- a\n").is_err());
    }
}
