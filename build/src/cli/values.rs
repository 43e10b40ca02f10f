//! What the flags take: paths and numbers.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, PathBufValueParser, TypedValueParser};

/// The most images on a sheet, which then has ten million pixels.
const MOST_ON_A_SHEET: usize = 10_000;

/// Takes the number of images on a sheet.
pub fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MOST_ON_A_SHEET).contains(count));
    count.ok_or_else(|| format!("expected a whole number from 1 to {MOST_ON_A_SHEET}, found {text}"))
}

/// Takes what `parse` makes of a text.
pub fn text<T: Clone + Send + Sync + 'static>(
    parse: fn(&str) -> Result<T, String>,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |argument| {
        let text = argument.to_str().ok_or("expected UTF-8, as in the cube's file, found other bytes")?;
        parse(text)
    })
}

/// Takes a path. Every flag for one has this parser.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| with_home(path.as_os_str()).map(PathBuf::from))
}

/// Takes a URL or a path.
pub fn url_or_path() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|text| with_home(&text))
}

/// A path with the user's home directory in place of `~`. Shells do this, but not bash in `--data_dir=~/mnist`.
fn with_home(path: &OsStr) -> Result<OsString, String> {
    let Ok(below) = Path::new(path).strip_prefix("~") else {
        // A file may have such a name. A directory would be made by mistake.
        return match path.as_encoded_bytes() {
            [b'~', user @ ..] if user.contains(&b'/') => Err(
                "expected the path of the user's home directory in place of ~NAME; a directory with such a name is \
                 ./~NAME"
                    .into(),
            ),
            _ => Ok(path.into()),
        };
    };
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or("expected the home directory in the environment variable HOME, found none")?;
    Ok(if below.as_os_str().is_empty() { home } else { Path::new(&home).join(below).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tilde_that_a_shell_would_expand_is_expanded_or_refused() {
        for text in ["a~/b", "./~/b", "~a", "https://host/~user/mnist", ""] {
            assert_eq!(with_home(OsStr::new(text)), Ok(text.into()));
        }
        assert!(with_home(OsStr::new("~user/b")).unwrap_err().contains("in place of ~NAME"));
    }
}
