//! The proxies that the environment names: `http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`, in lower or upper
//! case. An empty variable counts as not set. As in Go and in browsers, no proxy is used to reach this machine itself.

use std::ffi::OsString;
use std::net::IpAddr;

use ureq::Proxy;
use url::{Host, Position, Url};

use crate::data::download::environment::{PROXIES, spellings};
use crate::data::download::fault::{Again, MirrorFault};
use crate::data::download::mirror::IN_A_LOGIN;

/// What the environment says about proxies.
#[derive(Debug, Default)]
pub struct Proxies {
    /// Which proxy serves which URLs; `all` comes last.
    rules: Vec<ProxyRule>,
    /// The variable that lists hosts, domains and networks to be reached directly, and its value.
    direct: Option<(String, String)>,
}

/// A proxy and the URLs that it serves.
#[derive(Debug)]
struct ProxyRule {
    /// `http`, `https` or `all`.
    scheme: &'static str,
    /// The variable that names the proxy.
    variable: String,
    /// Where the proxy is, perhaps with user and password; `None` if the variable does not hold the URL of an HTTP proxy.
    proxy: Option<Url>,
}

impl Proxies {
    /// Reads the variables through `lookup`, which is `std::env::var_os` outside tests.
    pub fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let find = |name: &str| {
            let set = |value: &OsString| !value.to_string_lossy().trim().is_empty();
            spellings(name).into_iter().find_map(|name| lookup(&name).filter(set).map(|value| (name, value)))
        };
        let [http, https, all, no_proxy] = PROXIES;
        // An entry that is not UTF-8 is no host's name.
        let direct = find(no_proxy).map(|(variable, value)| (variable, value.to_string_lossy().into_owned()));
        let mut proxies = Self { rules: Vec::new(), direct };
        for (scheme, name) in [("http", http), ("https", https), ("all", all)] {
            if let Some((variable, value)) = find(name) {
                let proxy = value.to_str().and_then(|value| parse(value.trim()));
                proxies.rules.push(ProxyRule { scheme, variable, proxy });
            }
        }
        proxies
    }

    /// All usable proxies. The HTTP client takes each of them.
    pub fn all(&self) -> impl Iterator<Item = &Url> {
        self.rules.iter().filter_map(|rule| rule.proxy.as_ref())
    }

    /// The proxy through which `url` is reached; `None` if it is reached directly.
    ///
    /// # Errors
    /// The variable for it does not hold the URL of an HTTP proxy. Its value may hold a password and is not shown.
    pub fn for_url(&self, url: &Url) -> Result<Option<&Url>, MirrorFault> {
        let Some(ProxyRule { variable, proxy, .. }) = self.rule(url) else { return Ok(None) };
        let unusable = || {
            let answer = format!(
                "the environment variable {variable}: expected the URL of an HTTP proxy, such as \
                 http://proxy.example:3128 or http://USER:PASSWORD@proxy.example:3128 ({IN_A_LOGIN}); correct or unset it"
            );
            MirrorFault::new(Again::Never, answer)
        };
        proxy.as_ref().map(Some).ok_or_else(unusable)
    }

    fn rule(&self, url: &Url) -> Option<&ProxyRule> {
        let host = url.host()?;
        let direct = self.direct.as_ref().map_or("", |(_, value)| value.as_str());
        if is_this_machine(&host) || entries(direct).any(|entry| covers(entry, &host)) {
            return None;
        }
        self.rules.iter().find(|rule| [url.scheme(), "all"].contains(&rule.scheme))
    }

    /// The settings that decide how `url` is reached, for messages about a connection that failed: `http_proxy=...`.
    pub fn described(&self, url: &Url) -> Option<String> {
        let rule = self.rule(url)?;
        let mut text = format!("{}={}", rule.variable, rule.proxy.as_ref()?.origin().ascii_serialization());
        if let Some((variable, value)) = self.direct.as_ref().filter(|(_, value)| !value.contains('@')) {
            text += &format!(" {variable}={value}");
        }
        Some(text)
    }

    /// What a proxy asks for with 407 (Proxy Authentication Required), for messages.
    pub fn wanted_login(&self, url: &Url) -> Option<String> {
        let ProxyRule { variable, proxy, .. } = self.rule(url)?;
        let anonymous = proxy.as_ref()?[Position::BeforeUsername..Position::BeforeHost].is_empty();
        Some(match anonymous {
            true => format!("it wants a login: set {variable}=http://USER:PASSWORD@HOST:PORT"),
            false => format!("it refuses the login in {variable}"),
        })
    }
}

/// The URL of a proxy. Its scheme may be missing, as in `proxy:3128`. More than a login, a host and a port is most likely
/// a login with characters that end it.
fn parse(value: &str) -> Option<Url> {
    let with_scheme = if value.contains("://") { value.to_string() } else { format!("http://{value}") };
    let url = Url::parse(&with_scheme).ok()?;
    let alone = ["", "/"].contains(&&url[Position::BeforePath..]);
    (alone && ["http", "https"].contains(&url.scheme()) && Proxy::new(url.as_str()).is_ok()).then_some(url)
}

/// The entries of `no_proxy`, between commas or spaces, without ports.
fn entries(direct: &str) -> impl Iterator<Item = &str> {
    direct.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).map(|entry| match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
        _ => entry,
    })
}

/// Whether an entry of `no_proxy` covers `host`: `*` all hosts, `a.org` itself and its subdomains, `.a.org` and
/// `*.a.org` the same, `10.0.0.0/8` a network, `10.0.0.1` or `::1` an address.
fn covers(entry: &str, host: &Host<&str>) -> bool {
    let address = match host {
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            let domain = entry.strip_prefix('*').unwrap_or(entry).trim_matches('.').to_ascii_lowercase();
            return entry == "*"
                || name
                    .strip_suffix(domain.as_str())
                    .is_some_and(|before| !domain.is_empty() && (before.is_empty() || before.ends_with('.')));
        }
        Host::Ipv4(address) => IpAddr::V4(*address),
        Host::Ipv6(address) => IpAddr::V6(*address),
    };
    let (network, length) = match entry.split_once('/') {
        Some((network, length)) => (network, length.parse().ok()),
        None => (entry, Some(128)),
    };
    let network = network.trim_start_matches('[').trim_end_matches(']').parse();
    entry == "*" || matches!((network, length), (Ok(network), Some(length)) if shares_prefix(network, address, length))
}

/// Whether the first `length` bits of two addresses are equal; more bits than an address has count as all of them.
fn shares_prefix(a: IpAddr, b: IpAddr, length: u32) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= length.min(32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= length.min(128),
        _ => false,
    }
}

fn is_this_machine(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn lower_case_upper_case_and_all() {
        let both =
            proxies(&[("HTTP_PROXY", "http://me:secret@upper:3128"), ("http_proxy", ""), ("all_proxy", "all:1")]);
        assert_eq!(both.described(&url("http://host/")).unwrap(), "HTTP_PROXY=http://upper:3128");
        assert_eq!(both.described(&url("https://host/")).unwrap(), "all_proxy=http://all:1");
        for this_machine in ["http://127.0.0.1:80/", "http://localhost/", "http://[::1]/"] {
            assert_eq!(both.described(&url(this_machine)), None);
        }
        assert_eq!(proxies(&[]).described(&url("http://host/")), None);
    }

    #[test]
    fn hosts_in_no_proxy_are_reached_directly() {
        let direct = proxies(&[("https_proxy", "http://p:1"), ("no_proxy", "a.org, 10.0.0.0/8")]);
        let settings = "https_proxy=http://p:1 no_proxy=a.org, 10.0.0.0/8";
        assert_eq!(direct.described(&url("https://host/")).unwrap(), settings);
        let list = "a.org:80, .b.org *.C.org,fd00::/8,::2,10.0.0.0/8,192.168.1.7";
        assert_eq!(
            entries(list).collect::<Vec<_>>(),
            ["a.org", ".b.org", "*.C.org", "fd00::/8", "::2", "10.0.0.0/8", "192.168.1.7"]
        );
        let some = proxies(&[("all_proxy", "http://p:1"), ("no_proxy", list)]);
        for (host, proxied) in [
            ("a.org", false),
            ("A.ORG.", false),
            ("www.a.org", false),
            ("aa.org", true),
            ("a.org.uk", true),
            ("x.b.org", false),
            ("b.org", false),
            ("x.c.org", false),
            ("org", true),
            ("10.255.0.1", false),
            ("11.0.0.1", true),
            ("192.168.1.7", false),
            ("192.168.1.8", true),
            ("[fd12::1]", false),
            ("[fe80::1]", true),
            ("[::2]", false),
        ] {
            assert_eq!(some.for_url(&url(&format!("http://{host}/"))).unwrap().is_some(), proxied, "{host}");
        }
        let none = proxies(&[("https_proxy", "http://p:1"), ("no_proxy", "*")]);
        assert!(["host", "1.2.3.4"].iter().all(|host| none.rule(&url(&format!("https://{host}/"))).is_none()));
    }

    #[test]
    fn only_scheme_host_and_port_of_a_proxy_are_shown() {
        let shown = |value: &str| {
            let both = proxies(&[("https_proxy", value), ("no_proxy", "me:S3cret@host")]);
            let url = url("https://host/");
            (both.described(&url), both.for_url(&url).map(|proxy| proxy.is_some()).map_err(|fault| fault.answer))
        };
        for (value, expected) in [
            ("me:S3cret@proxy:3128", "https_proxy=http://proxy:3128"),
            ("http://me:S3cret@proxy", "https_proxy=http://proxy"),
            ("https://me:S3cr@et@proxy/", "https_proxy=https://proxy"),
            (r"http://CORP%5Cjdoe:S%2F3cret@[::1]:3128", "https_proxy=http://[::1]:3128"),
        ] {
            assert_eq!(shown(value), (Some(expected.to_string()), Ok(true)), "{value}");
        }
        for value in [
            r"http://CORP\jdoe:S3cret@127.0.0.1:18101",
            "http://me:12/S3cret@proxy",
            "http://me:12?S3cret@proxy",
            "http://me:12#S3cret@proxy",
            "http://proxy:3128/S3cret",
            "socks5://me:S3cret@host:1080",
            "http://",
        ] {
            let (described, outcome) = shown(value);
            let answer = outcome.unwrap_err();
            assert_eq!(described, None);
            assert!(answer.starts_with("the environment variable https_proxy: expected "), "{answer}");
            assert!(!answer.contains("S3cret") && !answer.contains("jdoe"), "{answer}");
        }
    }
}
