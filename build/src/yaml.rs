//! Short YAML files: read up to a limit, and what is wrong with one as a line and a text.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use crate::open;

/// The longest file that is read, in bytes.
pub const LONGEST: usize = 65_536;
/// The most `[` and `{` of a file. The parser's time grows with the product of their depth and the file's length.
const MOST_BRACKETS: usize = 500;
/// The most that a file may unfold to, in bytes of its texts and one for each value: an alias repeats what it names.
const MOST_UNFOLDED: usize = 4 * LONGEST;
/// The error of a file that unfolds to more.
const UNFOLDS: &str = "unfolds to too much";
/// The longest message of the parser, in characters: it may quote the file.
const LONGEST_MESSAGE: usize = 200;

pub use crate::text::Problem;

/// Reads the text file at `path`, without a byte order mark. `kind` stands in the message about a longer one: "a
/// parameters file".
///
/// # Errors
/// The file cannot be read. The inner result is the problem of a file that is too long or is not UTF-8.
pub fn read(path: &Path, kind: &str) -> io::Result<Result<String, Problem>> {
    let mut bytes = Vec::new();
    open::regular_or_pipe(path)?.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(if bytes.len() > LONGEST {
        Err(Problem::of_file(format!("is longer than {LONGEST} bytes, too long for {kind}")))
    } else {
        decoded(&bytes)
    })
}

/// The text that `bytes` are in UTF-8.
fn decoded(bytes: &[u8]) -> Result<String, Problem> {
    let other = match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        _ => is_utf_16(bytes).then_some("UTF-16"),
    };
    if let Some(found) = other {
        let how = format!("with `iconv -f {found} -t UTF-8`, or in PowerShell with `Set-Content -Encoding utf8`");
        return Err(Problem::of_file(format!("expected UTF-8, found {found}: save it as UTF-8 ({how})")));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map(str::to_string).map_err(|error| {
        let (before, rest) = bytes.split_at(error.valid_up_to());
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let found = rest.first().copied().unwrap_or_default();
        Problem {
            line: Some(line),
            text: format!("expected UTF-8, found the byte 0x{found:02x} that is not part of it: save it as UTF-8"),
        }
    })
}

/// Whether `bytes` begin with the mark of UTF-16, or hold mostly ASCII in it, as any file that is read here.
fn is_utf_16(bytes: &[u8]) -> bool {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let most = |is_ascii: fn(&[u8; 2]) -> bool| {
        rest.is_empty() && 2 * pairs.iter().filter(|pair| is_ascii(pair)).count() > pairs.len()
    };
    matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..])
        || most(|pair| matches!(pair, [1..0x80, 0]))
        || most(|pair| matches!(pair, [0, 1..0x80]))
}

/// Parses `text`.
///
/// # Errors
/// It is not YAML, or not a `T`, or would take long.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    if text.bytes().filter(|byte| b"[{".contains(byte)).count() > MOST_BRACKETS {
        return Err(Problem::of_file(format!("expected at most {MOST_BRACKETS} of the brackets [ and {{, found more")));
    }
    let read = if text.contains('*') { measure(text) } else { Ok(()) };
    read.and_then(|()| serde_yaml::from_str(text)).map_err(|error| {
        let message = error.to_string();
        if [UNFOLDS, "repetition limit"].iter().any(|refusal| message.contains(refusal)) {
            let text = format!("its aliases unfold to more than {MOST_UNFOLDED} bytes: write it without them");
            return Problem::of_file(text);
        }
        // The parser appends the place to its message; it is reported apart.
        let end = message.find(" at line ").unwrap_or(message.len());
        let message: String = message[..end].chars().take(LONGEST_MESSAGE).collect();
        Problem { line: line_of(&error), text: format!("is not YAML: {message}") }
    })
}

/// Reads `text` without keeping anything. It is an error if its aliases unfold to much.
fn measure(text: &str) -> Result<(), serde_yaml::Error> {
    Measure(&Cell::new(0)).deserialize(serde_yaml::Deserializer::from_str(text))
}

/// The line of a parser's error, from 1.
pub fn line_of(error: &serde_yaml::Error) -> Option<usize> {
    error.location().map(|location| location.line())
}

/// Adds up what a value takes, with aliases unfolded, and stops above [`MOST_UNFOLDED`].
#[derive(Clone, Copy)]
struct Measure<'a>(&'a Cell<usize>);

impl Measure<'_> {
    fn add<E: serde::de::Error>(self, bytes: usize) -> Result<(), E> {
        self.0.set(self.0.get() + 1 + bytes);
        if self.0.get() > MOST_UNFOLDED { Err(E::custom(UNFOLDS)) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Measure<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Measure<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.add(0)
    }
    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.add(0)
    }
    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.add(0)
    }
    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.add(0)
    }
    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.add(0)
    }
    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<(), E> {
        self.add(0)
    }
    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<(), E> {
        self.add(0)
    }
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.add(0)
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.add(text.len())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        self.add(0)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry_seed(self, self)?.is_some() {}
        self.add(0)
    }
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let (_, value) = tagged.variant::<serde::de::IgnoredAny>()?;
        value.newtype_variant_seed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_a_problem_and_not_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let longest = "#".repeat(LONGEST);
        std::fs::write(&path, &longest).unwrap();
        assert_eq!(read(&path, "a file").unwrap().unwrap(), longest);
        std::fs::write(&path, longest + "#").unwrap();
        let problem = read(&path, "a file").unwrap().unwrap_err();
        assert_eq!(problem.text, "is longer than 65536 bytes, too long for a file");
        assert!(read(Path::new("/dev/zero"), "a file").is_err());
    }

    #[test]
    fn utf_16_is_told_from_other_bytes() {
        let utf_16 = |text: &str, bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        for text in ["a: 1\n", "\u{feff}a: 1\n", "\u{feff}", "x", "seed: 1 # \u{4e00}\n"] {
            for bytes in [utf_16(text, u16::to_le_bytes), utf_16(text, u16::to_be_bytes)] {
                let problem = decoded(&bytes).unwrap_err();
                assert!(problem.text.starts_with("expected UTF-8, found UTF-16: "), "{bytes:?}: {problem:?}");
            }
        }
        for bytes in [&b"\xff\xfe\0\0a\0\0\0"[..], b"\0\0\xfe\xff\0\0\0a"] {
            let problem = decoded(bytes).unwrap_err();
            assert!(problem.text.starts_with("expected UTF-8, found UTF-32: "), "{bytes:?}: {problem:?}");
        }
        for (bytes, found) in [(&b"x\0\xff"[..], 0xff), (b"\0x\0\xff\xff\xff", 0xff), (b"a: \x80\0\0", 0x80)] {
            let expected = format!("expected UTF-8, found the byte 0x{found:02x} that is not part of it: ");
            assert!(decoded(bytes).unwrap_err().text.starts_with(&expected), "{bytes:?}");
        }
        for text in ["", "a: 1\n", "x\0y", "\0\0\0\0", "a: 1\n\0\0"] {
            assert_eq!(decoded(text.as_bytes()).unwrap(), text);
        }
    }

    #[test]
    fn an_error_of_the_parser_has_its_line_apart() {
        let problem = parse::<serde_yaml::Value>("a: 1\n b: 2\n").unwrap_err();
        assert_eq!(problem.line, Some(2));
        assert_eq!(problem.text, "is not YAML: mapping values are not allowed in this context");
    }

    #[test]
    fn a_few_aliases_are_taken_and_those_that_unfold_to_much_are_not() {
        let parsed: serde_yaml::Value = parse("a: &a [1, x, !tag 2, null, 1.5]\nb: *a\n").unwrap();
        assert_eq!(parsed["a"], parsed["b"]);
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(10_000), "*a,".repeat(30));
        let problem = parse::<serde_yaml::Value>(&text).unwrap_err();
        assert_eq!(problem.text, "its aliases unfold to more than 262144 bytes: write it without them");
    }
}
