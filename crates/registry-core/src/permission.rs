//! Who may do what, where.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::RegistryName;

/// Something a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Read.
    Pull,
    /// Add: implies nothing else.
    Push,
    /// Remove.
    Delete,
    /// Everything, and the administration of the server where it covers every name.
    Admin,
}

impl Action {
    /// Its name in scopes and tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Pull => "pull",
            Action::Push => "push",
            Action::Delete => "delete",
            Action::Admin => "admin",
        }
    }
}

impl FromStr for Action {
    type Err = InvalidScope;
    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        match text {
            "pull" => Ok(Action::Pull),
            "push" => Ok(Action::Push),
            "delete" => Ok(Action::Delete),
            "admin" => Ok(Action::Admin),
            _ => Err(InvalidScope),
        }
    }
}

/// A set of actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Actions(u8);

impl Actions {
    /// No action.
    pub const NONE: Actions = Actions(0);
    const ALL: [Action; 4] = [Action::Pull, Action::Push, Action::Delete, Action::Admin];

    const fn bit(action: Action) -> u8 {
        match action {
            Action::Pull => 1,
            Action::Push => 2,
            Action::Delete => 4,
            Action::Admin => 8,
        }
    }

    /// This set and `action`.
    #[must_use]
    pub const fn with(self, action: Action) -> Self {
        Self(self.0 | Self::bit(action))
    }

    /// Whether `action` is in the set, or everything is (admin).
    pub const fn allows(self, action: Action) -> bool {
        self.0 & (Self::bit(action) | Self::bit(Action::Admin)) != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The actions in the set, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Self::ALL.into_iter().filter(move |action| self.0 & Self::bit(*action) != 0)
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions.into_iter().fold(Actions::NONE, Actions::with)
    }
}

/// Which names a permission covers: one name, everything below a prefix, or every name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// `*`
    Any,
    /// Exactly this name.
    Exact(String),
    /// `prefix/*`: the names that begin with `prefix/`; kept with its slash.
    Below(String),
}

impl Pattern {
    /// Whether `name` is covered.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::Exact(exact) => exact == name,
            Pattern::Below(prefix) => name.len() > prefix.len() && name.starts_with(prefix.as_str()),
        }
    }

    /// The names covered, as the range `[start, end)` of byte-wise sorted names; `None` is no upper bound.
    pub fn range(&self) -> (String, Option<String>) {
        match self {
            Pattern::Any => (String::new(), None),
            Pattern::Exact(name) => (name.clone(), Some(format!("{name}\0"))),
            // '0' is the character after '/', so this is the first text that does not begin with the prefix.
            Pattern::Below(prefix) => (prefix.clone(), Some(format!("{}0", &prefix[..prefix.len() - 1]))),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Any => f.write_str("*"),
            Pattern::Exact(name) => f.write_str(name),
            Pattern::Below(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl FromStr for Pattern {
    type Err = InvalidScope;
    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        let plain = |text: &str| {
            !text.is_empty()
                && text.len() <= 255
                && !text.starts_with('/')
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/+~@".contains(&byte))
        };
        match text.strip_suffix('*') {
            Some("") => Ok(Pattern::Any),
            Some(prefix) if prefix.ends_with('/') && plain(prefix) => Ok(Pattern::Below(prefix.to_owned())),
            None if plain(text) && !text.ends_with('/') => Ok(Pattern::Exact(text.to_owned())),
            _ => Err(InvalidScope),
        }
    }
}

/// A scope breaks its grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a scope is `registry:name:actions`: a registry or `*`, a name or `prefix/*` or `*`, and actions of pull, push, \
     delete, admin separated by commas"
)]
pub struct InvalidScope;

/// A permission: actions on the names of a registry that match a pattern. Written `registry:name:actions`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope {
    /// The registry; `None` is every registry.
    pub registry: Option<RegistryName>,
    /// The names.
    pub pattern: Pattern,
    /// What may be done.
    pub actions: Actions,
}

impl Scope {
    /// Everything, everywhere: `*:*:admin`.
    pub fn everything() -> Self {
        Self { registry: None, pattern: Pattern::Any, actions: Actions::NONE.with(Action::Admin) }
    }
}

impl FromStr for Scope {
    type Err = InvalidScope;
    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        let mut parts = text.split(':');
        let (Some(registry), Some(pattern), Some(actions), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidScope);
        };
        let registry = match registry {
            "*" => None,
            name => Some(name.parse().map_err(|_| InvalidScope)?),
        };
        let actions = actions.split(',').map(str::parse).collect::<Result<Actions, _>>()?;
        Ok(Self { registry, pattern: pattern.parse()?, actions })
    }
}

impl TryFrom<String> for Scope {
    type Error = InvalidScope;
    fn try_from(text: String) -> Result<Self, InvalidScope> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> String {
        scope.to_string()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registry = self.registry.as_ref().map_or("*", RegistryName::as_str);
        write!(f, "{registry}:{}:", self.pattern)?;
        for (index, action) in self.actions.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { "," }, action.as_str())?;
        }
        Ok(())
    }
}

/// What strangers may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnonymousAccess {
    /// Nothing.
    #[default]
    None,
    /// Read.
    Pull,
    /// Read and add.
    Push,
    /// Everything.
    Admin,
}

impl AnonymousAccess {
    /// The actions of this level.
    pub fn actions(self) -> Actions {
        match self {
            AnonymousAccess::None => Actions::NONE,
            AnonymousAccess::Pull => Actions::NONE.with(Action::Pull),
            AnonymousAccess::Push => Actions::NONE.with(Action::Pull).with(Action::Push),
            AnonymousAccess::Admin => Actions::NONE.with(Action::Admin),
        }
    }
}

impl fmt::Display for AnonymousAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AnonymousAccess::None => "none",
            AnonymousAccess::Pull => "pull",
            AnonymousAccess::Push => "push",
            AnonymousAccess::Admin => "admin",
        })
    }
}

/// Who asks, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// A name for logs; the name of the token, or `anonymous`.
    pub name: String,
    /// Whether the request came without credentials.
    pub anonymous: bool,
    /// What they may do.
    pub scopes: Vec<Scope>,
}

impl Principal {
    /// Whether they may do `action` on `name` (canonical) in `registry`.
    pub fn may(&self, action: Action, registry: &RegistryName, name: &str) -> bool {
        self.scopes.iter().any(|scope| {
            scope.registry.as_ref().is_none_or(|covered| covered == registry)
                && scope.pattern.matches(name)
                && scope.actions.allows(action)
        })
    }

    /// Whether they administer the whole server.
    pub fn is_administrator(&self) -> bool {
        self.scopes.iter().any(|scope| {
            scope.registry.is_none() && scope.pattern == Pattern::Any && scope.actions.allows(Action::Admin)
        })
    }

    /// The names in `registry` on which they may do `action`, as sorted, disjoint ranges `[start, end)`.
    pub fn ranges(&self, action: Action, registry: &RegistryName) -> Vec<(String, Option<String>)> {
        let mut ranges: Vec<_> = self
            .scopes
            .iter()
            .filter(|scope| scope.registry.as_ref().is_none_or(|covered| covered == registry))
            .filter(|scope| scope.actions.allows(action))
            .map(|scope| scope.pattern.range())
            .collect();
        ranges.sort();
        let mut merged: Vec<(String, Option<String>)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match merged.last_mut() {
                Some((_, last)) if last.as_ref().is_none_or(|last| *last >= start) => {
                    *last = match (last.take(), end) {
                        (Some(reached), Some(end)) => Some(reached.max(end)),
                        _ => None,
                    };
                }
                _ => merged.push((start, end)),
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn principal(scopes: &[&str]) -> Principal {
        let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
        Principal { name: "p".into(), anonymous: false, scopes }
    }

    #[test]
    fn scopes_read_back_as_written() {
        for text in ["*:*:admin", "oci:team/*:pull,push", "generic:mypkg:pull", "oci:a/b/*:pull,push,delete"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
            assert_eq!(String::from(Scope::try_from(text.to_owned()).unwrap()), text);
        }
        assert_eq!("oci:a:pull,pull".parse::<Scope>().unwrap().to_string(), "oci:a:pull", "said twice is said once");
        for text in [
            "",
            "*",
            "*:*",
            "*:*:",
            "*:*:fly",
            "*:*:pull:x",
            "Oci:*:pull",
            "oci:/*:pull",
            "oci:team*:pull",
            "oci:a/:pull",
            "oci::pull",
            "oci:a b:pull",
            "oci:*/a:pull",
            "oci:/a:pull",
        ] {
            assert_eq!(text.parse::<Scope>(), Err(InvalidScope), "{text:?}");
        }
    }

    #[test]
    fn a_scope_covers_what_it_says_and_nothing_else() {
        let oci: RegistryName = "oci".parse().unwrap();
        let other: RegistryName = "other".parse().unwrap();
        let team = principal(&["oci:team/*:pull,push"]);
        assert!(team.may(Action::Pull, &oci, "team/app"));
        assert!(team.may(Action::Push, &oci, "team/sub/app"));
        for (action, registry, name) in [
            (Action::Delete, &oci, "team/app"),
            (Action::Admin, &oci, "team/app"),
            (Action::Pull, &other, "team/app"),
            (Action::Pull, &oci, "team"),
            (Action::Pull, &oci, "team/"),
            (Action::Pull, &oci, "teamster/app"),
        ] {
            assert!(!team.may(action, registry, name), "{action:?} {registry} {name}");
        }
        assert!(principal(&["*:*:admin"]).is_administrator());
        assert!(!principal(&["oci:*:admin"]).is_administrator());
        assert!(!principal(&["*:a:admin"]).is_administrator());
        assert!(!principal(&["*:*:pull,push,delete"]).is_administrator());
        assert!(principal(&["oci:*:admin"]).may(Action::Delete, &oci, "x"));
        let push_only = principal(&["oci:a:push"]);
        assert!(push_only.may(Action::Push, &oci, "a") && !push_only.may(Action::Pull, &oci, "a"));
    }

    #[test]
    fn ranges_that_overlap_or_touch_are_one() {
        let oci: RegistryName = "oci".parse().unwrap();
        for (scopes, start, end) in [
            (["oci:a/*:pull", "oci:a/b:pull"], "a/", Some("a0")),
            (["oci:a/b:pull", "oci:a/*:pull"], "a/", Some("a0")),
            // What ends where the other begins.
            (["oci:a/*:pull", "oci:a0:pull"], "a/", Some("a0\0")),
            (["oci:a/*:pull", "oci:a/*:pull"], "a/", Some("a0")),
            (["oci:*:pull", "oci:a:pull"], "", None),
            (["oci:a:pull", "*:*:pull"], "", None),
        ] {
            let ranges = principal(&scopes).ranges(Action::Pull, &oci);
            assert_eq!(ranges, [(start.to_owned(), end.map(str::to_owned))], "{scopes:?}");
        }
        let apart = principal(&["oci:b:pull", "oci:a:pull"]).ranges(Action::Pull, &oci);
        assert_eq!(apart, [("a".to_owned(), Some("a\0".to_owned())), ("b".to_owned(), Some("b\0".to_owned()))]);
    }

    #[test]
    fn anonymous_levels() {
        assert!(AnonymousAccess::None.actions().is_empty());
        assert!(!AnonymousAccess::Pull.actions().allows(Action::Push));
        assert!(AnonymousAccess::Push.actions().allows(Action::Pull));
        assert!(!AnonymousAccess::Push.actions().allows(Action::Delete));
        assert!(AnonymousAccess::Admin.actions().allows(Action::Delete));
        for level in [AnonymousAccess::None, AnonymousAccess::Pull, AnonymousAccess::Push, AnonymousAccess::Admin] {
            assert_eq!(serde_json::to_string(&level).unwrap(), format!("\"{level}\""), "shown as it is configured");
        }
    }

    proptest! {
        #[test]
        fn any_scope_reads_back(
            registry in "\\*|[a-z0-9]{1,8}([._-][a-z0-9]{1,8}){0,2}",
            pattern in "\\*|[a-zA-Z0-9._+~@-]{1,9}(/[a-zA-Z0-9._+~@-]{1,9}){0,3}(/\\*)?",
            actions in prop::sample::subsequence(vec!["pull", "push", "delete", "admin"], 1..=4),
        ) {
            let text = format!("{registry}:{pattern}:{}", actions.join(","));
            let scope: Scope = text.parse().unwrap();
            prop_assert_eq!(scope.to_string(), text);
            prop_assert_eq!(scope.registry.as_ref().map_or("*", RegistryName::as_str), registry);
            let allowed: Vec<_> = scope.actions.iter().map(Action::as_str).collect();
            prop_assert_eq!(allowed, actions);
            match pattern.strip_suffix('*') {
                Some(prefix) => {
                    let below = format!("{prefix}x");
                    prop_assert!(scope.pattern.matches(&below));
                    prop_assert!(prefix.is_empty() || !scope.pattern.matches(prefix));
                }
                None => {
                    let longer = format!("{pattern}x");
                    prop_assert!(scope.pattern.matches(&pattern) && !scope.pattern.matches(&longer));
                }
            }
        }

        /// What is read of any text covers no more than the text says.
        #[test]
        fn a_scope_is_never_more_than_its_text(
            text in "[a-z*:/,.A-Z -]{0,30}|(oci|\\*|O|):(a|/|\\*|a/|\\.\\.| ){0,4}:(pull|push|delete|admin|,|x| ){0,4}|\\PC*",
        ) {
            let Ok(scope) = text.parse::<Scope>() else { return Ok(()) };
            prop_assert_eq!(scope.to_string().parse(), Ok(scope.clone()));
            let parts: Vec<_> = text.split(':').collect();
            let [registry, pattern, actions] = parts[..] else { panic!("{text}") };
            prop_assert_eq!(scope.registry.is_none(), registry == "*");
            prop_assert_eq!(scope.pattern == Pattern::Any, pattern == "*");
            prop_assert_eq!(scope.pattern.to_string(), pattern);
            if let Pattern::Below(prefix) = &scope.pattern {
                prop_assert!(prefix.len() > 1 && prefix.ends_with('/'), "{}", text);
            }
            prop_assert!(!scope.actions.is_empty());
            for action in Actions::ALL {
                let said = actions.split(',').any(|said| said == action.as_str());
                prop_assert_eq!(scope.actions.iter().any(|allowed| allowed == action), said);
            }
        }

        #[test]
        fn ranges_hold_exactly_the_permitted_names(
            scopes in proptest::collection::vec("(oci|\\*|zz):([ab]{1,2}(/[ab])?(/\\*)?|\\*):(pull|push)", 0..6),
            name in "[ab]{1,2}(/[ab]{1,2}){0,2}",
        ) {
            let oci: RegistryName = "oci".parse().unwrap();
            let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
            let principal = principal(&scopes);
            let ranges = principal.ranges(Action::Pull, &oci);
            let inside = ranges.iter().filter(|(start, end)| *start <= name && end.as_ref().is_none_or(|end| name < *end)).count();
            prop_assert_eq!(inside, usize::from(principal.may(Action::Pull, &oci, &name)));
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1.as_ref().is_some_and(|end| *end < pair[1].0)));
        }
    }
}
