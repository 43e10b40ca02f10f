//! The proxies that the environment asks for: `http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`, in lower or upper
//! case. An empty variable counts as not set. As in Go and in browsers, this machine itself is never asked by proxy.

use reqwest::{NoProxy, Proxy, Url};

use crate::data::download::environment::{PROXIES, spellings};
use crate::data::download::mirror::shown;
use crate::error::{Error, Result};

const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1";

/// What the environment says about proxies.
#[derive(Debug, Default)]
pub struct Proxies {
    /// Which proxy serves which URLs, and the variable that says so; `all` comes last.
    rules: Vec<Rule>,
    /// Hosts, domains and networks that are asked directly.
    direct: Option<(String, String)>,
}

#[derive(Debug)]
struct Rule {
    scheme: &'static str,
    variable: String,
    proxy: Url,
}

impl Proxies {
    /// Reads the variables through `lookup`, which is `std::env::var` but in tests.
    ///
    /// # Errors
    /// A variable holds no URL of an HTTP proxy.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let find = |name: &str| {
            spellings(name)
                .into_iter()
                .find_map(|name| lookup(&name).filter(|value| !value.trim().is_empty()).map(|value| (name, value)))
        };
        let [http, https, all, no_proxy] = PROXIES;
        let mut proxies = Self { rules: Vec::new(), direct: find(no_proxy) };
        for (scheme, name) in [("http", http), ("https", https), ("all", all)] {
            if let Some((variable, value)) = find(name) {
                let proxy = parse(value.trim()).ok_or(Error::Proxy { variable: variable.clone() })?;
                proxies.rules.push(Rule { scheme, variable, proxy });
            }
        }
        Ok(proxies)
    }

    /// The same, for the HTTP client.
    ///
    /// # Errors
    /// The client refuses a proxy's URL.
    pub fn for_client(&self) -> Result<Vec<Proxy>> {
        let direct = self.direct.as_ref().map_or("", |(_, value)| value.as_str());
        let direct = entries(direct);
        if direct.contains(&"*") {
            return Ok(Vec::new());
        }
        let direct = NoProxy::from_string(&format!("{},{THIS_MACHINE}", direct.join(",")));
        self.rules
            .iter()
            .map(|rule| {
                let proxy = rule.proxy.clone();
                match rule.scheme {
                    "http" => Proxy::http(proxy),
                    "https" => Proxy::https(proxy),
                    _ => Proxy::all(proxy),
                }
                .map(|proxy| proxy.no_proxy(direct.clone()))
                .map_err(|_| Error::Proxy { variable: rule.variable.clone() })
            })
            .collect()
    }

    /// The settings that decide how `url` is reached, for messages about a connection that failed: `http_proxy=...`.
    pub fn for_url(&self, url: &Url) -> Option<String> {
        if url.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]") {
            return None;
        }
        let rule = self.rules.iter().find(|rule| [url.scheme(), "all"].contains(&rule.scheme))?;
        let mut text = format!("{}={}", rule.variable, shown(&rule.proxy).as_str().trim_end_matches('/'));
        if let Some((variable, value)) = &self.direct {
            text += &format!(" {variable}={value}");
        }
        Some(text)
    }
}

/// The URL of a proxy, whose scheme may be missing: `proxy:3128`.
fn parse(value: &str) -> Option<Url> {
    let with_scheme = if value.contains("://") { value.to_string() } else { format!("http://{value}") };
    Url::parse(&with_scheme).ok().filter(|url| ["http", "https"].contains(&url.scheme()))
}

/// The entries of `no_proxy`, between commas or spaces. A port is dropped and `*.` is read as `.`, since the client
/// knows neither.
fn entries(direct: &str) -> Vec<&str> {
    direct
        .split([',', ' ', '\t'])
        .filter(|entry| !entry.is_empty())
        .map(|entry| match entry.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') && port.parse::<u16>().is_ok() => host,
            _ => entry,
        })
        .map(|entry| if entry.starts_with("*.") { &entry[1..] } else { entry })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies> {
        Proxies::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string()))
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn lower_case_upper_case_and_all() {
        let both =
            proxies(&[("HTTP_PROXY", "http://me:secret@upper:3128"), ("http_proxy", ""), ("all_proxy", "all:1")]);
        let both = both.unwrap();
        assert_eq!(both.for_url(&url("http://host/")).unwrap(), "HTTP_PROXY=http://upper:3128");
        assert_eq!(both.for_url(&url("https://host/")).unwrap(), "all_proxy=http://all:1");
        assert_eq!(both.for_url(&url("http://127.0.0.1:80/")), None);
        assert_eq!(both.for_client().unwrap().len(), 2);
        assert_eq!(proxies(&[]).unwrap().for_url(&url("http://host/")), None);
    }

    #[test]
    fn what_is_asked_directly() {
        let direct = proxies(&[("https_proxy", "http://p:1"), ("no_proxy", "a.org, 10.0.0.0/8")]).unwrap();
        assert_eq!(direct.for_url(&url("https://host/")).unwrap(), "https_proxy=http://p:1 no_proxy=a.org, 10.0.0.0/8");
        assert_eq!(
            entries("a.org:80, .b.org *.c.org,::1,10.0.0.0/8"),
            ["a.org", ".b.org", ".c.org", "::1", "10.0.0.0/8"]
        );
        let none = proxies(&[("https_proxy", "http://p:1"), ("no_proxy", "*")]).unwrap();
        assert!(none.for_client().unwrap().is_empty());
    }

    #[test]
    fn a_proxy_that_is_none_is_named_without_its_password() {
        let message = |value: &str| proxies(&[("https_proxy", value)]).unwrap_err().to_string();
        let expected = "the environment variable https_proxy: expected the URL of an HTTP proxy, such as \
                        http://proxy.example:3128";
        assert_eq!(message("socks5://me:secret@host:1080"), expected);
        assert_eq!(message("http://"), expected);
    }
}
