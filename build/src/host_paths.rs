//! In a container, the host's names of the paths that the program shows: `/mlcube_io3/model.safetensors` cannot be opened
//! outside. Whoever starts the container says in [`VARIABLE`] which directory is which.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use crate::text::quoted;

/// The environment variable: a JSON object from paths here to paths of the host.
pub const VARIABLE: &str = "MLCUBE_HOST_PATHS";

/// The value of [`VARIABLE`] for directories given as paths inside and outside. Where this process has a host itself, the
/// outside is that one's.
pub fn value<'a>(directories: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let names: BTreeMap<&str, Cow<str>> =
        directories.into_iter().map(|(inside, outside)| (inside, of_host(outside))).collect();
    serde_json::json!(names).to_string()
}

/// Whether this process has a host.
pub fn are_set() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// `text` with the host's names in place of the paths of this container.
pub fn of_host(text: &str) -> Cow<'_, str> {
    static NAMES: OnceLock<Vec<(String, String)>> = OnceLock::new();
    replaced(text, NAMES.get_or_init(|| parsed(std::env::var(VARIABLE).ok().as_deref())))
}

/// The pairs of a value, longer paths first; none if it is no such value.
fn parsed(value: Option<&str>) -> Vec<(String, String)> {
    let names: BTreeMap<String, String> = value.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let mut names: Vec<_> =
        names.into_iter().filter(|(inside, _)| inside.len() > 1 && inside.starts_with('/')).collect();
    names.sort_by_key(|(inside, _)| std::cmp::Reverse(inside.len()));
    names
}

fn replaced<'a>(text: &'a str, names: &[(String, String)]) -> Cow<'a, str> {
    let is_word = |c: char| c.is_alphanumeric() || ['_', '-', '.', '/'].contains(&c);
    let mut done = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(next) = text[at..].find('/').map(|found| at + found) {
        at = next + 1;
        let before = &text[..next];
        let ends = |inside: &str| !text[next + inside.len()..].starts_with(|c| c != '/' && c != '.' && is_word(c));
        let here = |inside: &str| !before.ends_with(is_word) && text[next..].starts_with(inside) && ends(inside);
        let Some((inside, outside)) = names.iter().find(|(inside, _)| here(inside)) else { continue };
        done.push_str(&text[copied..next]);
        at = next + inside.len();
        copied = at;
        if is_bare_value(before) {
            copied += text[at..]
                .find(|c: char| c.is_whitespace() || ['`', '\'', '"', ','].contains(&c))
                .unwrap_or(text[at..].len());
            done.push_str(&quoted(Path::new(&format!("{outside}{}", &text[at..copied]))));
            at = copied;
        } else {
            done.push_str(outside);
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    done.push_str(&text[copied..]);
    Cow::Owned(done)
}

/// Whether a value of a flag without quotes follows `before`, as in a command to type.
fn is_bare_value(before: &str) -> bool {
    let word = before.rsplit([' ', '`', '\n']).next().unwrap_or_default();
    word.starts_with("--") && word.ends_with('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_container_get_the_hosts_names() {
        let names = parsed(Some(r#"{"/mlcube_io1": "/w s/model", "/mlcube_io10": "/w s/logs", "/": "/x", "b": "c"}"#));
        let shown = |text: &'static str| replaced(text, &names);
        assert_eq!(
            shown("model /mlcube_io1/model.safetensors, `--model_dir=/mlcube_io1`."),
            "model /w s/model/model.safetensors, `--model_dir='/w s/model'`."
        );
        assert_eq!(
            shown("`m --a=/mlcube_io10/b/c`, '--a=/mlcube_io10/b'"),
            "`m --a='/w s/logs/b/c'`, '--a=/w s/logs/b'"
        );
        assert_eq!(shown("/mlcube_io10/a /mlcube_io1: cannot read"), "/w s/logs/a /w s/model: cannot read");
        for other in ["/mlcube_io100", "/a/mlcube_io1", "/mlcube_io1x", "mlcube_io1", "a/b", "/", ""] {
            assert!(matches!(shown(other), Cow::Borrowed(same) if same == other), "{other}");
        }
    }

    #[test]
    fn an_odd_value_names_nothing() {
        for odd in [None, Some(""), Some("[]"), Some("{\"/a\": 1}"), Some("{")] {
            assert_eq!(parsed(odd), []);
        }
    }

    #[test]
    fn a_value_is_one_line_whatever_the_names_hold() {
        assert_eq!(value([("/mlcube_io0", "/a \"b\"\n:c")]), r#"{"/mlcube_io0":"/a \"b\"\n:c"}"#);
    }
}
