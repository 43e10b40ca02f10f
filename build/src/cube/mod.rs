//! The cube's files: the schemas of the MLCube documents, the check of a whole cube against them, and what they ask for:
//! an image built, a task run in it.

pub mod check;
pub mod clean;
pub mod command;
pub mod docker;
mod locate;
pub mod mount;
pub mod platform;
mod schema;
pub mod singularity;

/// The variables of the environment that a task gets too, as far as they are set: proxies, and a mirror.
fn passed_on() -> impl Iterator<Item = String> {
    let proxies = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];
    let names = proxies.into_iter().flat_map(|name| [name.to_string(), name.to_uppercase()]);
    names.chain(["MNIST_MIRROR".to_string()]).filter(|name| std::env::var_os(name).is_some())
}
