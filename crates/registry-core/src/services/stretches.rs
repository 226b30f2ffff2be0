//! The order of a list over every `oci` registry.
//!
//! Names are listed as they are pulled: those of the default registry as they are, those of a further one below its own
//! name. As a registry's name and the first segments in use in the default registry exclude each other, the names below
//! a further registry are one stretch of the common order; the default registry has what lies between such stretches.
//! So one page is read from a few index ranges, one after the other, and nothing is merged.

use std::sync::Arc;

use crate::names::RegistryName;
use crate::permission::{Action, Principal};
use crate::registry::{Format, Registry, RegistryId};

/// Names that follow each other in the common order and lie in one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) registry: RegistryId,
    /// What stands before the registry's own names: nothing, or `<registry>/`.
    prefix: String,
    /// The registry's own names: from here on,
    pub(super) start: String,
    /// and before this; `None` is no upper bound.
    pub(super) end: Option<String>,
}

/// Where a name lies relative to a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position<'a> {
    /// All names of the stretch come later.
    Before,
    /// Inside; the name as the registry has it.
    Inside(&'a str),
    /// All names of the stretch come earlier.
    Behind,
}

impl Stretch {
    /// A name of the registry as it is listed and pulled.
    pub(super) fn listed(&self, name: impl std::fmt::Display) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Where a listed name lies; it need not exist.
    pub(super) fn position<'a>(&self, listed: &'a str) -> Position<'a> {
        if listed < self.first().as_str() {
            return Position::Before;
        }
        match listed.strip_prefix(&self.prefix) {
            Some(name) if self.end.as_deref().is_none_or(|end| name < end) => Position::Inside(name),
            _ => Position::Behind,
        }
    }

    fn first(&self) -> String {
        self.listed(&self.start)
    }
}

/// What the principal may read, stretch by stretch, in the order of listed names.
pub(super) fn stretches(registries: &[Arc<Registry>], principal: &Principal) -> Vec<Stretch> {
    let default = RegistryName::default_oci();
    let oci = || registries.iter().filter(|registry| registry.format == Format::Oci);
    let mut further: Vec<&Arc<Registry>> = oci().filter(|registry| registry.name != default).collect();
    further.sort_by_key(|registry| below(&registry.name));
    let mut stretches = Vec::new();
    for registry in &further {
        let prefix = below(&registry.name);
        stretches.extend(principal.ranges(Action::Pull, &registry.name).into_iter().map(|(start, end)| Stretch {
            registry: registry.id,
            prefix: prefix.clone(),
            start,
            end,
        }));
    }
    if let Some(registry) = oci().find(|registry| registry.name == default) {
        for (mut start, end) in principal.ranges(Action::Pull, &default) {
            let mut add = |start: &str, end: Option<String>| {
                if end.as_deref().is_none_or(|end| start < end) {
                    let (prefix, start) = (String::new(), start.to_owned());
                    stretches.push(Stretch { registry: registry.id, prefix, start, end });
                }
            };
            for other in &further {
                let (from, to) = (below(&other.name), beyond(&other.name));
                if to <= start || end.as_ref().is_some_and(|end| *end <= from) {
                    continue;
                }
                add(&start, Some(from));
                start = to;
            }
            add(&start, end);
        }
    }
    stretches.sort_by_key(Stretch::first);
    stretches
}

fn below(registry: &RegistryName) -> String {
    format!("{registry}/")
}

/// The first text behind all that begin with `<registry>/`: '0' is the character after '/'.
fn beyond(registry: &RegistryName) -> String {
    format!("{registry}0")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::registry::{Mode, RegistrySettings};
    use crate::time::Timestamp;

    const NAMES: [&str; 5] = ["oci", "b", "b-c", "generic", "a0"];

    fn registries() -> Vec<Arc<Registry>> {
        let made = NAMES.iter().zip(1..).map(|(name, id)| Registry {
            id: RegistryId(id),
            name: name.parse().unwrap(),
            format: if *name == "generic" { Format::Generic } else { Format::Oci },
            mode: Mode::Local,
            settings: RegistrySettings::default(),
            created_at: Timestamp::from_micros(0),
        });
        made.map(Arc::new).collect()
    }

    /// Every repository that there can be of these parts, as it is listed: registry, own name, listed name.
    fn repositories() -> Vec<(&'static str, String, String)> {
        let parts = ["a", "a0", "b", "b-", "b-c", "b.c", "b0", "c", "oci"];
        let valid = parts.iter().filter(|part| !part.ends_with('-'));
        let single: Vec<String> = valid.clone().map(|part| (*part).to_owned()).collect();
        let double = valid.clone().flat_map(|one| valid.clone().map(move |two| format!("{one}/{two}")));
        let names: Vec<String> = single.into_iter().chain(double).collect();
        let further = |name: &str| NAMES.contains(&name) && name != "generic";
        let mut all = Vec::new();
        for name in &names {
            // The first segments of the default registry are none of the registries' names.
            if !further(name.split('/').next().unwrap()) {
                all.push(("oci", name.clone(), name.clone()));
            }
            for registry in ["b", "b-c", "a0"] {
                all.push((registry, name.clone(), format!("{registry}/{name}")));
            }
        }
        all.sort_by(|one, other| one.2.cmp(&other.2));
        all
    }

    fn principal(scopes: &[String]) -> Principal {
        let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        Principal { name: "p".into(), anonymous: false, scopes }
    }

    proptest! {
        #[test]
        fn stretches_hold_what_may_be_read_in_the_order_of_listed_names(
            scopes in proptest::collection::vec(
                "(oci|\\*|b|b-c|a0):(\\*|(a|b|b0|c)(/\\*|/b)?):(pull|push)", 0..6),
            last in "(a|b|b-c|b0|c)?(/|/a|/c|-)?",
        ) {
            let registries = registries();
            let principal = principal(&scopes);
            let id = |name: &str| RegistryId(NAMES.iter().position(|known| *known == name).unwrap() as i64 + 1);
            let all = repositories();
            let readable = all.iter().filter(|(registry, name, listed)| {
                principal.may(Action::Pull, &registry.parse().unwrap(), name) && *listed > last
            });
            let expected: Vec<String> = readable.map(|(_, _, listed)| listed.clone()).collect();

            let mut found = Vec::new();
            for stretch in stretches(&registries, &principal) {
                let after = match stretch.position(&last) {
                    Position::Behind => continue,
                    Position::Before => None,
                    Position::Inside(name) => Some(name),
                };
                let mut own: Vec<_> = all
                    .iter()
                    .filter(|(registry, name, _)| {
                        id(registry) == stretch.registry
                            && *name >= stretch.start
                            && stretch.end.as_ref().is_none_or(|end| name < end)
                            && after.is_none_or(|after| name.as_str() > after)
                    })
                    .map(|(_, name, _)| name.clone())
                    .collect();
                own.sort();
                found.extend(own.iter().map(|name| stretch.listed(name)));
            }
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_name_lies_before_a_stretch_inside_it_or_behind_it() {
        let all = stretches(&registries(), &principal(&["oci:c/*:pull".to_owned(), "b:c/*:pull".to_owned()]));
        let [below, own] = &all[..] else { panic!("{all:?}") };
        for (name, expected) in [
            ("c", Position::Before),
            // It need not be a name that there can be.
            ("c/", Position::Inside("c/")),
            ("c/x", Position::Inside("c/x")),
            ("c0", Position::Behind),
            ("d", Position::Behind),
        ] {
            assert_eq!(own.position(name), expected, "{name}");
        }
        for (name, expected) in [
            ("b", Position::Before),
            ("b/b", Position::Before),
            ("b/c/x", Position::Inside("c/x")),
            ("b/c0", Position::Behind),
            ("c", Position::Behind),
        ] {
            assert_eq!(below.position(name), expected, "{name}");
        }
    }

    #[test]
    fn nothing_is_asked_for_where_nothing_can_be() {
        // All names below `b/` are those of the registry `b`.
        assert_eq!(stretches(&registries(), &principal(&["oci:b/*:pull".to_owned()])), []);
    }

    #[test]
    fn without_the_default_registry_the_others_are_listed() {
        let registries: Vec<_> = registries().into_iter().filter(|registry| registry.name.as_str() == "b").collect();
        let all = stretches(&registries, &principal(&["*:*:pull".to_owned()]));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].listed("x"), "b/x");
        assert!(stretches(&registries, &principal(&["oci:*:pull".to_owned()])).is_empty());
    }
}
