//! A mirror, from which the four files come: a URL, or a directory for machines without a network.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;

use url::{Position, Url};

use crate::error::{Error, Result};

/// How to write characters that would end a login in a URL.
pub const IN_A_LOGIN: &str = r"in a login, write % / \ ? # as %25 %2F %5C %3F %23";

/// A place that holds each file as `NAME.gz`. A directory may hold `NAME` instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mirror {
    /// An http or https URL. The file's name is appended to its path.
    Url(Url),
    /// A directory.
    Directory(PathBuf),
}

impl Mirror {
    /// Reads what a user gives as `--mirror`.
    ///
    /// # Errors
    /// It is a malformed URL or one of another scheme, or a directory that is not there.
    pub fn parse(given: &OsStr) -> Result<Self> {
        // What is not UTF-8 is no URL. As a path it holds no login.
        let text = given.to_str();
        let shown = || text.map_or_else(|| given.display().to_string(), unrevealing);
        let wrong = |found: String| Error::Mirror { given: shown(), found };
        let directory = match text.and_then(|text| Some((text, split_scheme(text)?.0))) {
            None => PathBuf::from(given),
            Some((text, scheme)) => {
                let url = Url::parse(text).map_err(|e| wrong(format!("a malformed URL: {e} ({IN_A_LOGIN})")))?;
                match url.scheme() {
                    "http" | "https" if url[Position::BeforePath..].contains('@') => {
                        let found = format!("a URL with an @ after its host ({IN_A_LOGIN}, and in a path @ as %40)");
                        return Err(wrong(found));
                    }
                    "http" | "https" => return Ok(Self::Url(url)),
                    "file" => url.to_file_path().map_err(|()| wrong("a file URL of another machine".to_string()))?,
                    _ => return Err(wrong(format!("a URL with {scheme}://"))),
                }
            }
        };
        match std::fs::metadata(&directory) {
            Ok(metadata) if metadata.is_dir() => Ok(Self::Directory(directory)),
            Ok(_) => Err(wrong("a file".to_string())),
            Err(error) => Err(wrong(format!("a path that cannot be opened: {error}"))),
        }
    }
}

/// The scheme of a URL, and what follows `://`; `None` for a path.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let letters = |scheme: &str| scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    text.split_once("://").filter(|(scheme, _)| letters(scheme))
}

/// What a user has given as a mirror, without what may be a login. Where that stands in a malformed URL, nobody knows.
fn unrevealing(text: &str) -> String {
    match split_scheme(text) {
        Some((scheme, rest)) if rest.contains([':', '@', '?', '#', '\\']) => format!("{scheme}://..."),
        None if text.contains('@') && !text.starts_with(['/', '.']) => {
            "(not shown, since it may hold a login)".to_string()
        }
        _ => text.to_string(),
    }
}

/// The mirror without user, password and query, which may be secret.
impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(shown(url).as_str().trim_end_matches('/')),
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

/// The URL of `name` below `mirror`. A query stays at the end.
pub fn url_of(mirror: &Url, name: &str) -> Url {
    let mut url = mirror.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(name);
    }
    url
}

/// A URL without user, password and query, which may be secret.
pub fn shown(url: &Url) -> Url {
    let mut url = url.clone();
    // These fail only for URLs without a host. Such a URL has neither user nor password.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_their_query_and_show_no_secret() {
        let mirror = Mirror::parse(OsStr::new("https://me:secret@host/mnist/?token=1")).unwrap();
        assert_eq!(mirror.to_string(), "https://host/mnist");
        let Mirror::Url(url) = mirror else { panic!() };
        assert_eq!(url_of(&url, "a.gz").as_str(), "https://me:secret@host/mnist/a.gz?token=1");
    }

    #[test]
    fn directories_may_be_paths_or_file_urls() {
        let dir = tempfile::tempdir().unwrap();
        let spaced = dir.path().join("with space é");
        std::fs::create_dir(&spaced).unwrap();
        assert_eq!(Mirror::parse(spaced.as_os_str()).unwrap(), Mirror::Directory(spaced.clone()));
        let url = Url::from_directory_path(&spaced).unwrap();
        assert!(url.as_str().contains("with%20space%20%C3%A9"), "{url}");
        assert_eq!(Mirror::parse(OsStr::new(url.as_str())).unwrap(), Mirror::Directory(spaced));
    }

    #[test]
    fn a_bad_mirror_is_named() {
        let message = |text: &str| Mirror::parse(OsStr::new(text)).unwrap_err().to_string();
        assert_eq!(
            message("ftp://host/mnist"),
            "mirror ftp://host/mnist: expected a URL with http:// or https://, or a directory, found a URL with ftp://"
        );
        assert_eq!(
            message("http://"),
            format!(
                "mirror http://: expected a URL with http:// or https://, or a directory, \
                 found a malformed URL: empty host ({IN_A_LOGIN})"
            )
        );
        assert_eq!(
            message("/no/such/place"),
            "mirror /no/such/place: expected a URL with http:// or https://, or a directory, \
             found a path that cannot be opened: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_bad_mirror_shows_nothing_that_may_be_a_login() {
        let hidden = "(not shown, since it may hold a login)";
        for (text, shown) in [
            ("http://me:S3cret@host:99999/x", "http://..."),
            ("http://me:S3cret", "http://..."),
            ("ftp://me:S3cret@host/x", "ftp://..."),
            ("https://me:pa/S3cret@host/mnist", "https://..."),
            ("https://me:12/S3cret@host.invalid/mnist", "https://..."),
            (r"https://me:12\S3cret@host.invalid/mnist", "https://..."),
            ("https://me:12?S3cret@host.invalid/mnist", "https://..."),
            ("https://me:12#S3cret@host.invalid/mnist", "https://..."),
            ("https://me:p@a/S3cret@host.invalid/mnist", "https://..."),
            ("https:/me:S3cret@host/mnist", hidden),
            ("me:S3cret@host/mnist", hidden),
            ("me:S3cret@http://host/mnist", hidden),
            ("file://me:S3cret@host/mnist", "file://..."),
        ] {
            let message = Mirror::parse(text.as_ref()).unwrap_err().to_string();
            assert!(message.starts_with(&format!("mirror {shown}: expected ")), "{message}");
            assert!(!message.contains("S3cret"), "{message}");
        }
        let mirror = Mirror::parse("https://cdn.example/gh/mnist%401.0".as_ref()).unwrap();
        assert_eq!(mirror.to_string(), "https://cdn.example/gh/mnist%401.0");
    }

    #[test]
    fn the_known_mirrors_are_mirrors() {
        let mut known = crate::data::sets::SETS.iter().flat_map(|set| set.mirrors);
        assert!(known.all(|mirror| Mirror::parse(OsStr::new(mirror)).is_ok()));
    }
}
