//! Under which scheme, host and address clients see this server, and who the client is.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::header::{HOST, HeaderMap};
use http::uri::{Authority, Uri};
use http::{HeaderName, Version};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A scheme and a host as the client sees them, perhaps with a path under which a proxy publishes the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: &'static str,
    authority: String,
    path: Cow<'static, str>,
}

impl Origin {
    /// `scheme://authority`.
    pub fn new(scheme: &'static str, authority: impl Into<String>) -> Self {
        Self { scheme, authority: authority.into(), path: Cow::Borrowed("") }
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The host, with its port where that is not the scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The absolute URL of `path`, which begins with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

/// A base URL or a list of proxies that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    /// Not an absolute `http` or `https` URL.
    #[error("{0:?} is no absolute http or https URL (such as https://registry.example.org)")]
    BaseUrl(String),
    /// Neither an address nor a network.
    #[error("{0:?} is neither an address nor a network (such as 10.0.0.0/8 or ::1)")]
    Network(String),
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    /// An absolute URL without a query; a `/` at its end is no part of it.
    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let refuse = || InvalidOrigin::BaseUrl(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| refuse())?;
        let scheme = known_scheme(uri.scheme_str().unwrap_or_default()).ok_or_else(refuse)?;
        let authority = uri.authority().filter(|authority| is_host(authority)).ok_or_else(refuse)?;
        if uri.query().is_some() {
            return Err(refuse());
        }
        let path = uri.path().trim_end_matches('/').to_owned().into();
        Ok(Self { scheme, authority: authority.as_str().to_owned(), path })
    }
}

/// The two ends of a connection, and whether it is encrypted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) tls: bool,
}

/// How the public origin and the client's address are found.
///
/// `X-Forwarded-*` counts only when the peer is a trusted proxy. Such a proxy must set (not pass on) the headers that
/// it forwards; one that sets none of them is fine too.
#[derive(Clone, Debug, Default)]
pub struct OriginPolicy {
    base_url: Option<Origin>,
    trusted_proxies: Vec<IpNet>,
}

impl OriginPolicy {
    /// With a fixed public URL, if any, and the addresses or networks (CIDR) of proxies.
    ///
    /// # Errors
    /// [`InvalidOrigin`] for the first entry that is no network.
    pub fn new(base_url: Option<Origin>, trusted_proxies: &[String]) -> Result<Self, InvalidOrigin> {
        let trusted_proxies = trusted_proxies
            .iter()
            .map(|text| {
                let address = || text.parse::<IpAddr>().map(IpNet::from);
                text.parse::<IpNet>().or_else(|_| address()).map_err(|_| InvalidOrigin::Network(text.clone()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { base_url, trusted_proxies })
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    /// The origin as the client sees it: the configured one, else from the headers; `None` when the request names no
    /// valid host although its version demands one (RFC 9112, 3.2: 400).
    pub(crate) fn origin(&self, ends: Ends, version: Version, uri: &Uri, headers: &HeaderMap) -> Option<Origin> {
        let named = named_host(ends.local, version, uri, headers)?;
        if let Some(base_url) = &self.base_url {
            return Some(base_url.clone());
        }
        let mut scheme = if ends.tls { "https" } else { "http" };
        let mut authority = named;
        if !self.trusted_proxies.is_empty() && self.trusts(ends.peer.ip().to_canonical()) {
            // Of a list, the first protocol is what the client spoke; of hosts, only the last was written by the
            // proxy that we trust.
            if let Some(forwarded) = first(headers, X_FORWARDED_PROTO).and_then(known_scheme) {
                scheme = forwarded;
            }
            if let Some(forwarded) = last(headers, X_FORWARDED_HOST).and_then(|text| valid_host(text.as_bytes())) {
                authority = forwarded;
            }
        }
        Some(Origin { scheme, authority, path: Cow::Borrowed("") })
    }

    /// The client's address: the last in the chain of proxies that no trusted proxy vouches to be one of its own.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if self.trusted_proxies.is_empty() || !self.trusts(client) {
            return client;
        }
        let lines: Vec<&str> =
            headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            let Some(address) = forwarded_address(hop.trim()) else { break };
            client = address.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
}

/// The host that the request names: `:authority` or an absolute target before Host. HTTP/1.0 may name none.
fn named_host(local: SocketAddr, version: Version, uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return None;
    }
    // Whatever the target says, a Host that is there must be valid.
    let from_header = match host {
        Some(value) => Some(valid_host(value.as_bytes())?),
        None => None,
    };
    match uri.authority() {
        Some(authority) if version == Version::HTTP_2 || from_header.is_some() => {
            is_host(authority).then(|| authority.as_str().to_owned())
        }
        _ => from_header.or_else(|| (version < Version::HTTP_11).then(|| local.to_string())),
    }
}

fn valid_host(bytes: &[u8]) -> Option<String> {
    let authority = Authority::try_from(bytes).ok()?;
    is_host(&authority).then(|| authority.as_str().to_owned())
}

/// A host with perhaps a port; no user before it.
fn is_host(authority: &Authority) -> bool {
    !authority.host().is_empty() && !authority.as_str().contains('@')
}

fn known_scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme))
}

fn first(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()?.split(',').next().map(str::trim)
}

fn last(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get_all(name).iter().next_back()?.to_str().ok()?.rsplit(',').next().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const PROXY: &str = "10.0.0.1:40000";
    const STRANGER: &str = "192.0.2.1:40000";

    fn policy() -> OriginPolicy {
        OriginPolicy::new(None, &["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()]).unwrap()
    }

    fn origin(peer: &str, headers: &HeaderMap) -> Origin {
        let ends = Ends { peer: peer.parse().unwrap(), local: "10.0.0.2:80".parse().unwrap(), tls: false };
        policy().origin(ends, Version::HTTP_11, &Uri::from_static("/v2/"), headers).expect("it has a host")
    }

    fn headers(lines: &[(HeaderName, Vec<u8>)]) -> HeaderMap {
        let host = (HOST, HeaderValue::from_static("own.example"));
        let lines = lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value).unwrap()));
        lines.chain([host]).collect()
    }

    fn client(peer: &str, headers: &HeaderMap) -> IpAddr {
        policy().client(peer.parse::<SocketAddr>().unwrap().ip(), headers)
    }

    /// An address, half of them a proxy's, and one of the ways in which proxies write it.
    fn hop() -> impl Strategy<Value = (IpAddr, String)> {
        let proxies = prop_oneof![
            any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([10, a, b, c])),
            any::<u16>().prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])),
        ];
        let others = any::<IpAddr>().prop_map(|address| address.to_canonical());
        (prop_oneof![proxies, others], 0..3u8, any::<u16>()).prop_map(|(address, way, port)| {
            let written = match way {
                0 => address.to_string(),
                1 => SocketAddr::new(address, port).to_string(),
                _ if address.is_ipv6() => format!("[{address}]"),
                _ => format!("::ffff:{address}"),
            };
            (address, written)
        })
    }

    proptest! {
        /// Of protocols the first, which the client spoke; of hosts the last, which the trusted proxy wrote.
        #[test]
        fn the_origin_is_what_the_proxy_says(
            protocols in prop::collection::vec("http|https|HTTPS", 1..4),
            hosts in prop::collection::vec("[a-z0-9]{1,8}(\\.[a-z]{1,8}){0,2}(:[0-9]{1,4})?|\\[fd00::[0-9a-f]{1,4}\\](:80)?", 1..4),
            separator in "[ \t]{0,2},[ \t]{0,2}",
            in_lines: bool,
        ) {
            let mut lines = vec![(X_FORWARDED_PROTO, protocols.join(&separator).into_bytes())];
            if in_lines {
                lines.extend(hosts.iter().map(|host| (X_FORWARDED_HOST, host.clone().into_bytes())));
            } else {
                lines.push((X_FORWARDED_HOST, hosts.join(&separator).into_bytes()));
            }
            let headers = headers(&lines);
            let forwarded = origin(PROXY, &headers);
            prop_assert_eq!(forwarded.scheme(), protocols[0].to_ascii_lowercase());
            prop_assert_eq!(forwarded.authority(), hosts.last().unwrap());
            prop_assert_eq!(origin(STRANGER, &headers), Origin::new("http", "own.example"));
        }

        /// The last that no trusted proxy has; the first of the chain where all are trusted.
        #[test]
        fn the_client_is_the_last_that_is_no_proxy(hops in prop::collection::vec((hop(), any::<bool>()), 1..6)) {
            let mut lines = vec![String::new()];
            for ((_, written), begins_line) in &hops {
                if *begins_line {
                    lines.push(String::new());
                }
                let line = lines.last_mut().unwrap();
                line.push_str(if line.is_empty() { "" } else { ", " });
                line.push_str(written);
            }
            let lines = lines.into_iter().filter(|line| !line.is_empty());
            let lines: Vec<_> = lines.map(|line| (X_FORWARDED_FOR, line.into_bytes())).collect();
            let addresses: Vec<IpAddr> = hops.iter().map(|((address, _), _)| *address).collect();
            let is_proxy = |address: &IpAddr| match address {
                IpAddr::V4(address) => address.octets()[0] == 10,
                IpAddr::V6(address) => address.octets()[0] == 0xfd,
            };
            let expected = addresses.iter().rev().find(|address| !is_proxy(address)).unwrap_or(&addresses[0]);
            prop_assert_eq!(client(PROXY, &headers(&lines)), *expected);
        }
    }
}
