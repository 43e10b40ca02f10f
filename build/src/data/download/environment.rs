//! The environment variables that a download reads.

/// Names a mirror where no flag does: a URL or a directory.
pub const MIRROR: &str = "MNIST_MIRROR";

/// Proxies for URLs with http, for those with https and for both, then the hosts that are reached without one. Each is
/// read in lower case and then in upper case.
pub const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];

/// The two spellings of a proxy variable, in the order in which they are read.
pub fn spellings(name: &str) -> [String; 2] {
    [name.to_string(), name.to_uppercase()]
}

/// The variables that are set and passed on to containers: proxies, in both spellings, and the mirror.
pub fn passed_on() -> impl Iterator<Item = String> {
    proxies_set().chain([MIRROR.to_string()].into_iter().filter(|name| std::env::var_os(name).is_some()))
}

/// The proxy variables that are set, in both spellings.
pub fn proxies_set() -> impl Iterator<Item = String> {
    PROXIES.into_iter().flat_map(spellings).filter(|name| std::env::var_os(name).is_some())
}
