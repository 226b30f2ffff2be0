//! Where an interrupted check stands, so that the same check goes on from there.

use super::check_storage::{CheckOptions, CheckSum};
use crate::ports::blob_store::ObjectKey;
use crate::time::Timestamp;

/// What tells a place from those of releases that wrote less: they stood for checks of any kind.
const FORMAT: &str = "2";

/// Which of the two lists a check goes through, and after which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// The ledger, which comes first.
    Ledger(Option<ObjectKey>),
    /// The store.
    Store(Option<ObjectKey>),
}

/// A check that was begun, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckPlace {
    pub(super) deep: bool,
    pub(super) repair: bool,
    pub(super) begun_at: Timestamp,
    /// What it has seen up to here.
    pub(super) sum: CheckSum,
    pub(super) position: Position,
}

impl CheckPlace {
    /// The beginning of a check.
    pub(super) fn start(options: CheckOptions, now: Timestamp) -> Self {
        let CheckOptions { deep, repair, .. } = options;
        Self { deep, repair, begun_at: now, sum: CheckSum::default(), position: Position::Ledger(None) }
    }

    /// Whether a check with `options` looks at the same, and does the same about it.
    pub(super) fn is_of(&self, options: CheckOptions) -> bool {
        (self.deep, self.repair) == (options.deep, options.repair)
    }

    /// As the cursor of the job.
    pub(super) fn cursor(&self) -> String {
        let Self { deep, repair, begun_at, sum, position } = self;
        let CheckSum { objects, bytes, findings, repaired } = sum;
        let (list, after) = match position {
            Position::Ledger(after) => ("ledger", after),
            Position::Store(after) => ("store", after),
        };
        let (begun_at, after) = (begun_at.as_micros(), after.as_ref().map_or("", ObjectKey::as_str));
        format!("{FORMAT} {deep} {repair} {begun_at} {objects} {bytes} {findings} {repaired} {list} {after}")
    }

    /// The place that a cursor stands for; `None` when it is not of this format.
    pub(super) fn read(cursor: &str) -> Option<Self> {
        let mut words = cursor.splitn(10, ' ');
        if words.next()? != FORMAT {
            return None;
        }
        let (deep, repair) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let begun_at = Timestamp::from_micros(words.next()?.parse().ok()?);
        let mut number = || words.next()?.parse().ok();
        let sum = CheckSum { objects: number()?, bytes: number()?, findings: number()?, repaired: number()? };
        let list = words.next()?;
        let after = Some(words.next()?).filter(|key| !key.is_empty()).map(|key| ObjectKey(key.to_owned()));
        let position = match list {
            "ledger" => Position::Ledger(after),
            "store" => Position::Store(after),
            _ => return None,
        };
        Some(Self { deep, repair, begun_at, sum, position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_place_reads_back_and_others_do_not() {
        let sum = CheckSum { objects: 4, bytes: 3, findings: 2, repaired: 1 };
        let key = |text: &str| Some(ObjectKey(text.into()));
        for position in [Position::Ledger(None), Position::Ledger(key("ab/c d")), Position::Store(key("e"))] {
            for (deep, repair) in [(false, true), (true, false)] {
                let (begun_at, position) = (Timestamp::from_micros(-7), position.clone());
                let place = CheckPlace { deep, repair, begun_at, sum, position };
                assert_eq!(CheckPlace::read(&place.cursor()), Some(place));
            }
        }
        for other in [
            "",
            "ledger:ab/cd",
            "store:",
            "2 true false",
            "3 true true 1 2 3 4 5 ledger x",
            "2 true true 1 2 3 4 5 x y",
        ] {
            assert_eq!(CheckPlace::read(other), None, "{other:?}");
        }
    }

    fn place() -> impl Strategy<Value = CheckPlace> {
        // Whatever keys a store may have; none is empty.
        let after = || prop::option::of("(?s).{1,40}".prop_map(ObjectKey));
        let position = prop_oneof![after().prop_map(Position::Ledger), after().prop_map(Position::Store)];
        let sum = any::<[u64; 4]>().prop_map(|[objects, bytes, findings, repaired]| CheckSum {
            objects,
            bytes,
            findings,
            repaired,
        });
        (any::<bool>(), any::<bool>(), any::<i64>(), sum, position).prop_map(
            |(deep, repair, begun_at, sum, position)| CheckPlace {
                deep,
                repair,
                begun_at: Timestamp::from_micros(begun_at),
                sum,
                position,
            },
        )
    }

    proptest! {
        #[test]
        fn any_place_reads_back(place in place()) {
            prop_assert_eq!(CheckPlace::read(&place.cursor()), Some(place));
        }

        /// A cursor that somebody changed stands for what it says, or for nothing.
        #[test]
        fn a_changed_cursor_says_what_it_says(
            place in place(),
            at: prop::sample::Index,
            removed in 0usize..4,
            inserted in "[0-9 a-z+-]{0,3}",
        ) {
            let mut cursor: Vec<char> = place.cursor().chars().collect();
            let at = at.index(cursor.len());
            cursor.splice(at..(at + removed).min(cursor.len()), inserted.chars());
            let cursor: String = cursor.into_iter().collect();
            if let Some(read) = CheckPlace::read(&cursor) {
                prop_assert_eq!(CheckPlace::read(&read.cursor()), Some(read.clone()));
                let key = match &read.position {
                    Position::Ledger(key) | Position::Store(key) => key.as_ref().map_or("", ObjectKey::as_str),
                };
                prop_assert!(cursor.ends_with(key));
                let start = format!("{FORMAT} {} {} ", read.deep, read.repair);
                prop_assert!(cursor.starts_with(&start));
            }
        }

        /// Neither a place of another release nor one that breaks off.
        #[test]
        fn another_format_and_fewer_words_are_no_place(place in place(), format in "[013-9a-z]?|2[0-9a-z]", words in 0..10usize) {
            let cursor = place.cursor();
            let (_, rest) = cursor.split_once(' ').unwrap();
            prop_assert_eq!(CheckPlace::read(&format!("{format} {rest}")), None);
            let fewer: Vec<_> = cursor.splitn(10, ' ').take(words).collect();
            prop_assert_eq!(CheckPlace::read(&fewer.join(" ")), None);
        }
    }
}
