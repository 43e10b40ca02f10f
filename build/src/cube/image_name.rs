//! The names of images in Docker.

/// The longest name before tag and digest.
const LONGEST: usize = 255;

/// Whether `text` is the name of an image as Docker and OCI registries write it, `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`. None
/// begins with a hyphen, so none is taken for an option.
///
/// The grammar: <https://pkg.go.dev/github.com/distribution/reference>.
pub fn is_image(text: &str) -> bool {
    let (text, digest) = text.split_once('@').map_or((text, None), |(text, digest)| (text, Some(digest)));
    // A colon before a slash is that of a port.
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (text, None),
    };
    name.len() <= LONGEST && is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

fn is_name(name: &str) -> bool {
    let is_path = |path: &str| path.split('/').all(is_component);
    is_path(name) || name.split_once('/').is_some_and(|(host, path)| is_address(host) && is_path(path))
}

fn is_address(address: &str) -> bool {
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    };
    let is_label = |label: &str| {
        let plain = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        !label.is_empty() && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    let six = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match six {
        Some(six) => !six.is_empty() && six.chars().all(|c| c.is_ascii_hexdigit() || c == ':'),
        None => host.split('.').all(is_label),
    };
    is_host && port.is_none_or(|port| !port.is_empty() && port.chars().all(|c| c.is_ascii_digit()))
}

/// Lower-case letters and digits, with a point, one or two underscores or any number of hyphens between.
fn is_component(component: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |text: &str| ["", ".", "_", "__"].contains(&text) || text.chars().all(|c| c == '-');
    component.starts_with(plain) && component.ends_with(plain) && component.split(plain).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hash)) = digest.split_once(':') else { return false };
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.chars().all(|c| c.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_part)
        && hash.len() >= 32
        && hash.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_options_and_other_texts() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        for name in [
            "i",
            "mlcommons/mlcube:mnist",
            "a.b__c--d/e_f:V1.2-rc_3",
            "localhost/a",
            "localhost:5000/a/b:c",
            "registry.example:5000/team/mnist:1",
            "REGISTRY/a",
            "[2001:db8::1]:5000/a",
            "[::1]/a",
            &format!("a@{digest}"),
            &format!("gcr.io/a/b:c@{digest}"),
            &"0f".repeat(32),
        ] {
            assert!(is_image(name), "{name}");
        }
        for text in [
            "",
            "-",
            "--privileged",
            "-v=/:/host",
            "a b",
            "a:",
            ":a",
            "a:-b",
            "A",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "a-",
            ".a",
            "a\n",
            "a\n--privileged",
            "-a.b/c",
            "a.b-/c",
            "a.b:x/c",
            "a@sha256:0f",
            "a@",
            "ä",
            "$A",
            "~/a",
            "a:b:c",
            "[]/a",
            "[x]/a",
            "a.b:/c",
        ] {
            assert!(!is_image(text), "{text}");
        }
        assert!(!is_image(&"a".repeat(256)) && !is_image(&format!("a:{}", "b".repeat(129))));
    }
}
