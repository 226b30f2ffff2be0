//! The values of keys that are more than text and numbers.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, Unexpected, Visitor};

/// A length of time, written with its unit: `30s`, `24h`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

/// A number of bytes, written with a unit (`4MiB`, `10GB`) or as a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Text that no output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// An address, or the network of all addresses that share its first `prefix` bits (CIDR notation, RFC 4632).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// An address inside.
    pub address: IpAddr,
    /// How many leading bits all addresses inside share.
    pub prefix: u8,
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = HumanDuration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration with its unit, e.g. 30s, 15m, 24h")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<HumanDuration, E> {
        humantime::parse_duration(text).map(HumanDuration).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = ByteSize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, e.g. 4MiB, 10GB (units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)")
    }

    fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(bytes))
    }

    fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
        u64::try_from(bytes).map(ByteSize).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
        parse_size(text).map(ByteSize).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_network(&text).ok_or_else(|| {
            D::Error::invalid_value(
                Unexpected::Str(&text),
                &"an address or a network, e.g. 10.1.2.3, 10.0.0.0/8, fd00::/8",
            )
        })
    }
}

fn parse_network(text: &str) -> Option<Network> {
    let (address, prefix) = match text.split_once('/') {
        // A sign would be a number, too.
        Some((address, prefix)) if prefix.starts_with(|first: char| first.is_ascii_digit()) => {
            (address, Some(prefix.parse::<u8>().ok()?))
        }
        Some(_) => return None,
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.unwrap_or(longest);
    (prefix <= longest).then_some(Network { address, prefix })
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The public URL of the server: `http` or `https`, a host, perhaps a port and a path; without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(pub String);

impl<'de> Deserialize<'de> for BaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let url = text.trim_end_matches('/');
        let authority = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let valid = authority.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
            && !url.contains(['?', '#', '@', ' ', '\\', '"'])
            && url.bytes().all(|byte| byte.is_ascii_graphic());
        if valid {
            Ok(Self(url.to_owned()))
        } else {
            Err(D::Error::custom(
                "invalid URL: expected http:// or https:// with a host, e.g. https://registry.example",
            ))
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Which events are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel {
    directives: String,
}

/// The levels that can be named alone.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
/// Foundry's own crates, as tracing names them.
const OWN_TARGETS: [&str; 4] = ["registry_server", "registry_http", "registry_core", "registry_adapters"];

impl LogLevel {
    /// The filter, as tracing's directives.
    ///
    /// A level that is named alone is that of Foundry's own crates: below `info` the libraries beneath them stay at
    /// `info`, because their details bury everything else, and because an HTTP library's trace holds headers.
    pub fn directives(&self) -> &str {
        &self.directives
    }
}

impl<'de> Deserialize<'de> for LogLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let word = text.trim().to_ascii_lowercase();
        let word = if word == "warning" { "warn".to_owned() } else { word };
        if matches!(word.as_str(), "debug" | "trace") {
            let own: Vec<_> = OWN_TARGETS.iter().map(|target| format!("{target}={word}")).collect();
            return Ok(Self { directives: format!("info,{}", own.join(",")) });
        }
        if LEVELS.contains(&word.as_str()) {
            return Ok(Self { directives: word });
        }
        let filter = tracing_subscriber::EnvFilter::builder().parse(&text);
        if text.contains('=') && filter.is_ok() {
            return Ok(Self { directives: text });
        }
        Err(D::Error::invalid_value(
            Unexpected::Str(&text),
            &"one of error, warn, info, debug, trace, off, or directives like `info,registry_http=debug`",
        ))
    }
}

/// `expires` of a token: RFC 3339, or a date, which ends when it begins (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub std::time::SystemTime);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let full = if text.contains(['T', 't', ' ']) { text } else { format!("{text}T00:00:00Z") };
        humantime::parse_rfc3339_weak(&full)
            .map(Self)
            .map_err(|_| D::Error::custom("invalid time: expected RFC 3339, e.g. 2030-01-31T12:00:00Z, or 2030-01-31"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn yaml<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
        serde_norway::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn durations_need_their_unit() {
        assert_eq!(yaml::<HumanDuration>("1h 30m").unwrap().0, Duration::from_secs(5400));
        assert_eq!(yaml::<HumanDuration>("250ms").unwrap().0, Duration::from_millis(250));
        assert_eq!(yaml::<HumanDuration>("0s").unwrap().0, Duration::ZERO);
        for text in ["3600", "\"3600\"", "soon", "-1s", "true"] {
            assert!(yaml::<HumanDuration>(text).unwrap_err().contains("a duration with its unit"), "{text}");
        }
    }

    #[test]
    fn sizes_know_decimal_and_binary_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4194304", 4 << 20),
            ("\"512\"", 512),
            ("512B", 512),
            ("4MiB", 4 << 20),
            ("4 MiB", 4 << 20),
            ("10GB", 10_000_000_000),
            ("1kB", 1000),
            ("1KiB", 1024),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(yaml::<ByteSize>(text).unwrap().0, bytes, "{text}");
        }
        for text in ["4M", "MiB", "-1", "1.5GiB", "4mib", "99999999999TiB", "18446744073709551616B"] {
            assert!(yaml::<ByteSize>(text).unwrap_err().contains("a number of bytes"), "{text}");
        }
    }

    #[test]
    fn networks() {
        assert_eq!(yaml::<Network>("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(yaml::<Network>("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert_eq!(yaml::<Network>("\"fd00::/8\"").unwrap().to_string(), "fd00::/8");
        for text in ["10.0.0.0/33", "\"::/129\"", "localhost", "10.0.0.0/", "10.0.0/8"] {
            assert!(yaml::<Network>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn base_urls_lose_their_trailing_slash() {
        assert_eq!(yaml::<BaseUrl>("https://registry.example/").unwrap().0, "https://registry.example");
        assert_eq!(yaml::<BaseUrl>("http://10.0.0.1:5000/sub/").unwrap().0, "http://10.0.0.1:5000/sub");
        for text in
            ["registry.example", "ftp://x", "https://", "https:///x", "http://u:p@x", "http://x?y=1", "http://a b"]
        {
            let error = yaml::<BaseUrl>(&format!("{text:?}")).unwrap_err();
            assert!(error.contains("invalid URL"), "{text}");
            assert!(!error.contains("u:p"), "{error}");
        }
    }

    #[test]
    fn levels_stay_with_our_own_crates() {
        assert_eq!(yaml::<LogLevel>("INFO").unwrap().directives(), "info");
        assert_eq!(yaml::<LogLevel>("warning").unwrap().directives(), "warn");
        assert!(yaml::<LogLevel>("debug").unwrap().directives().starts_with("info,registry_server=debug,"));
        assert_eq!(yaml::<LogLevel>("info,hyper=debug").unwrap().directives(), "info,hyper=debug");
        for text in ["inof", "verbose", "info,hyper=loud", "''"] {
            assert!(yaml::<LogLevel>(text).unwrap_err().contains("one of error, warn"), "{text}");
        }
    }

    #[test]
    fn moments() {
        let half = yaml::<Moment>("1970-01-01T12:00:00Z").unwrap().0;
        assert_eq!(half.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 43_200);
        let day = yaml::<Moment>("1970-01-02").unwrap().0;
        assert_eq!(day.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 86_400);
        assert!(yaml::<Moment>("tomorrow").is_err());
    }

    #[test]
    fn secrets_hide_from_debug() {
        assert!(!format!("{:?}", Secret("hunter2".into())).contains("hunter2"));
    }

    /// What the configuration has of a value that was given as text.
    fn text<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, String> {
        let value = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
        T::deserialize(value).map_err(|error| error.to_string())
    }

    const UNITS: [(&str, u64); 10] = [
        ("", 1),
        ("B", 1),
        ("kB", 1_000),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];

    proptest! {
        #[test]
        fn any_size_is_its_number_of_units(
            number in prop_oneof![0..1u64 << 30, any::<u64>()],
            (unit, factor) in prop::sample::select(UNITS.to_vec()),
            space in " {0,2}",
        ) {
            let written = format!("{space}{number}{space}{unit}{space}");
            match number.checked_mul(factor) {
                Some(bytes) => prop_assert_eq!(text(&written), Ok(ByteSize(bytes))),
                None => prop_assert!(text::<ByteSize>(&written).unwrap_err().contains("a number of bytes")),
            }
        }

        /// There is nothing between the digits and a unit that is known, and nothing else.
        #[test]
        fn other_text_is_no_size(written in "[0-9kKMGTiBb.,+ -]{0,8}|[0-9]{1,25}[kKMGTiBb]{0,3}|\\PC{0,8}") {
            let digits: String = written.trim().chars().take_while(char::is_ascii_digit).collect();
            let unit = written.trim()[digits.len()..].trim_start();
            let factor = UNITS.into_iter().chain([("TiB", 1 << 40)]).find(|(known, _)| *known == unit);
            let bytes = factor.and_then(|(_, factor)| digits.parse::<u64>().ok()?.checked_mul(factor));
            prop_assert_eq!(text(&written).ok(), bytes.map(ByteSize));
        }

        #[test]
        fn any_duration_reads_back(seconds in prop_oneof![0..100_000u64, 0..u64::MAX / 2], nanoseconds in 0..1_000_000_000u32) {
            let duration = Duration::new(seconds, nanoseconds);
            prop_assert_eq!(text(&humantime::format_duration(duration).to_string()), Ok(HumanDuration(duration)));
        }

        /// Text that is a duration says its unit, and is as long as the sum of its parts; other text is refused with what
        /// was expected.
        #[test]
        fn other_text_is_no_duration(written in "[0-9]{0,22}|-[0-9]{1,3}s|([0-9]{1,20}(s|m|h|d|y|ms|q)? ?){1,3}|\\PC{0,12}") {
            match text::<HumanDuration>(&written) {
                Ok(HumanDuration(duration)) => {
                    let shown = humantime::format_duration(duration).to_string();
                    prop_assert_eq!(text(&shown), Ok(HumanDuration(duration)));
                    prop_assert!(written == "0" || written.chars().any(char::is_alphabetic), "{}", written);
                }
                Err(refused) => prop_assert!(refused.contains("a duration with its unit"), "{}", refused),
            }
        }

        /// It is shown as it is written, and who checks addresses understands what is shown.
        #[test]
        fn any_network_reads_back(address: IpAddr, prefix in 0..=128u8) {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let written = format!("{address}/{prefix}");
            if prefix <= longest {
                let network = text::<Network>(&written).unwrap();
                prop_assert_eq!(network, Network { address, prefix });
                prop_assert_eq!(network.to_string(), &written[..]);
                registry_http::origin::OriginPolicy::new(None, &[written]).unwrap();
            } else {
                prop_assert!(text::<Network>(&written).is_err());
            }
            prop_assert_eq!(text::<Network>(&address.to_string()).unwrap(), Network { address, prefix: longest });
        }

        /// What is read of other text has bits that its address has, and is understood by who checks addresses.
        #[test]
        fn other_text_is_no_network(
            written in "[0-9.:/a-f+ ]{0,20}|([0-9]{1,3}\\.){3}[0-9]{1,3}(/[+-]?[0-9]{0,3}){0,2}|\\PC{0,12}",
        ) {
            match text::<Network>(&written) {
                Ok(network) => {
                    let longest = if network.address.is_ipv4() { 32 } else { 128 };
                    prop_assert!(network.prefix <= longest);
                    let (address, prefix) = written.split_once('/').unwrap_or((&written, ""));
                    prop_assert_eq!(address.parse(), Ok(network.address));
                    prop_assert!(prefix.bytes().all(|byte| byte.is_ascii_digit()), "{}", written);
                    registry_http::origin::OriginPolicy::new(None, &[network.to_string()]).unwrap();
                }
                Err(refused) => prop_assert!(refused.contains("an address or a network"), "{}", refused),
            }
        }
    }
}
