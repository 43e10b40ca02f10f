//! Small pieces of text in messages and files.

use std::borrow::Cow;
use std::fmt::{Display, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The log target of messages about progress: on a terminal, bars take their place.
pub const PROGRESS: &str = "mnist::progress";
/// The log target of lines for a terminal alone, where they take the place of those messages.
pub const SCREEN: &str = "mnist::screen";
/// The log target of messages for the log file alone.
pub const LOG: &str = "mnist::log";

/// A problem of a text file. The order is that of the lines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// What was expected and what was found.
    pub text: String,
}

impl Problem {
    /// One that is no line's.
    pub fn of_file(text: impl Into<String>) -> Self {
        Self { line: None, text: text.into() }
    }

    /// After the name of its file: `FILE:LINE: TEXT`.
    pub fn in_file(&self, file: &Path) -> String {
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        format!("{}{line}: {}", file.display(), self.text)
    }
}

/// The most names that a message lists.
const MOST_NAMES: usize = 50;

/// `text` on one line, in which no character does anything: each that a terminal obeys, that ends a line or that turns
/// the direction of writing becomes an escape. All that leaves the program for a terminal or a log passes here, in
/// `output/console.rs` or before. The escapes are JSON's, so that a line of JSON keeps its meaning.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let escape = |mut done: String, c: char| {
        match c {
            '\n' => done.push_str(r"\n"),
            '\r' => done.push_str(r"\r"),
            '\t' => done.push_str(r"\t"),
            c if acts(c) => done.push_str(&format!(r"\u{:04x}", c as u32)),
            c => done.push(c),
        }
        done
    };
    Cow::Owned(text.chars().fold(String::with_capacity(text.len()), escape))
}

/// Control characters, and the format characters that break lines or turn the direction of writing.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text`, whose line breaks are meant, with each of its lines [`escaped`].
pub fn escaped_lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

/// A line for each of `items`, [`escaped`].
pub fn lines<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("{}\n", escaped(&item.to_string()))).collect()
}

/// ` and in FILE`; nothing without a file.
pub fn and_in(file: Option<&Path>) -> String {
    file.map(|file| format!(" and in {}", file.display())).unwrap_or_default()
}

/// `path` as a shell takes it, for commands to be copied from messages. One that is not UTF-8 or holds characters that
/// act is written as `$'...'`, which bash and zsh know.
pub fn quoted(path: &Path) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    match path.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(plain) => text.to_string(),
        Some(text) if !text.contains(acts) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!(r"\x{byte:02x}")).collect::<String>();
            let quoted = |c: char| match c {
                '\'' | '\\' => format!("\\{c}"),
                c if acts(c) => bytes(c.to_string().as_bytes()),
                c => c.to_string(),
            };
            let chunks = path.as_os_str().as_encoded_bytes().utf8_chunks();
            let text: String = chunks
                .map(|chunk| chunk.valid().chars().map(quoted).collect::<String>() + &bytes(chunk.invalid()))
                .collect();
            format!("$'{text}'")
        }
    }
}

/// The known name nearest to `typed`, if any is near enough to be what was meant.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&typed.to_lowercase(), name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The end of a message about an unknown name: the name in `known` that was probably meant, or else all of `listed`.
pub fn suggestion<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>, listed: &[&str]) -> String {
    match nearest(typed, known) {
        Some(near) => format!("did you mean {}?", shortened(near)),
        None => {
            let shown: Vec<String> = listed.iter().take(MOST_NAMES).map(|name| shortened(name)).collect();
            let rest = listed.len() - shown.len();
            let rest = if rest == 0 { String::new() } else { format!(" and {rest} more") };
            format!("known are {}{rest}", shown.join(", "))
        }
    }
}

/// `a, b or c`, for messages that list what is allowed.
pub fn one_of<T: Display>(names: &[T]) -> String {
    match names {
        [] => String::new(),
        [only] => only.to_string(),
        [first @ .., _] if first.len() >= MOST_NAMES => {
            let first: Vec<String> = first[..MOST_NAMES].iter().map(T::to_string).collect();
            format!("{} or one of {} more", first.join(", "), names.len() - MOST_NAMES)
        }
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(T::to_string).collect();
            format!("{} or {last}", first.join(", "))
        }
    }
}

/// `expected the SHA-256 ..., found ...`, with as many characters of two hashes as tell them apart.
pub fn different_hashes(expected: &str, found: &str) -> String {
    const LEAST: usize = 12;
    let common = expected.chars().zip(found.chars()).take_while(|(a, b)| a == b).count();
    let shown = |hash: &str| match hash.chars().nth(LEAST.max(common + 1)) {
        None => hash.to_string(),
        Some(_) => hash.chars().take(LEAST.max(common + 1)).chain("...".chars()).collect(),
    };
    format!("expected the SHA-256 {}, found {}", shown(expected), shown(found))
}

/// Two shares from 0 to 1 as percentages with as many decimals as tell them apart, two at least.
pub fn different_percents(one: f64, other: f64) -> [String; 2] {
    let with = |decimals: usize| [one, other].map(|share| format!("{:.decimals$} %", 100.0 * share));
    (2..17).map(with).find(|[one, other]| one != other).unwrap_or_else(|| with(2))
}

/// A number with its power of ten where it would have many zeros.
pub fn number(number: f64) -> String {
    let is_short = number == 0.0 || (1e-6..1e15).contains(&number.abs());
    if is_short { number.to_string() } else { format!("{number:e}") }
}

/// A text short enough for a message that says what it is.
pub fn shortened(text: &str) -> String {
    at_most(60, text)
}

/// An argument as a message repeats it: whole, unless nobody would read so much.
pub fn repeated(argument: &str) -> String {
    at_most(200, argument)
}

/// The first `most` characters of `text`.
fn at_most(most: usize, text: &str) -> String {
    match text.char_indices().nth(most) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// Bytes in hexadecimal, lower case.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A share from 0 to 1 as a percentage with two decimals.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// `number` with commas between its thousands.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or("")).collect();
    groups.join(",")
}

/// A large number in a few characters: `950`, `62k`, `1.2M`.
pub fn rounded(number: f64) -> String {
    match number {
        ..9_950.0 => format!("{number:.0}"),
        ..999_500.0 => format!("{:.0}k", number / 1e3),
        _ => format!("{:.1}M", number / 1e6),
    }
}

/// A number of bytes, rounded up.
pub fn bytes(number: u64) -> String {
    match number {
        1_000_000_000.. => format!("{:.1} GB", (number as f64 / 1e8).ceil() / 10.0),
        _ => format!("{} MB", number.div_ceil(1_000_000)),
    }
}

/// Date and time in UTC, to the second, for people: `2024-02-29 23:59:59 UTC`.
pub fn utc(time: SystemTime) -> String {
    let (date, time) = calendar(time);
    format!("{date} {time} UTC")
}

/// Date and time in UTC, to the second, for programs: `2024-02-29T23:59:59Z`, as RFC 3339 has it.
pub fn rfc3339(time: SystemTime) -> String {
    let (date, time) = calendar(time);
    format!("{date}T{time}Z")
}

/// The date and the time of day in UTC; before 1970 its beginning.
///
/// The date is Howard Hinnant's `civil_from_days`: <https://howardhinnant.github.io/date_algorithms.html>. Years begin in
/// March there, so that a leap day is the last day of its year.
fn calendar(time: SystemTime) -> (String, String) {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let days = seconds / 86400 + 719_468; // since 1 March of the year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    (format!("{year:04}-{month:02}-{day:02}"), format!("{hours:02}:{minutes:02}:{seconds:02}"))
}

/// A time in seconds, in the unit that leaves the fewest digits: `90 s`, `3 min`, `5 h`.
pub fn about(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.0} s"),
        ..5970.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

/// `number` with its noun: `1 thread`, `2 threads`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A line for each name and its value, with the values in one column.
pub fn named_values(rows: &[(&str, String)]) -> String {
    lines(rows.iter().map(|(name, value)| format!("{name:<14} {value}")))
}

/// A line for each of `rows`, in columns as wide as their widest cells, two spaces apart. `align` has a sign for each
/// column: `<` puts its cells to the left, `>` to the right.
pub fn table<const COLUMNS: usize>(align: [char; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let rows: Vec<[Cow<str>; COLUMNS]> = rows.iter().map(|row| row.each_ref().map(|cell| escaped(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let line = |row: &[Cow<str>; COLUMNS]| {
        let cells = row.iter().zip(align).zip(widths).map(|((cell, align), width)| match align {
            '>' => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn two_that_differ_are_shown_so_that_they_do() {
        let [one, other] = ["ab".repeat(32), "ab".repeat(31) + "ac"];
        assert_eq!(different_hashes(&one, &other), format!("expected the SHA-256 {one}, found {other}"));
        let other = "ab".repeat(10) + &"cd".repeat(22);
        let shown = "ab".repeat(10);
        assert_eq!(different_hashes(&one, &other), format!("expected the SHA-256 {shown}a..., found {shown}c..."));
        assert_eq!(different_hashes("none", &one), "expected the SHA-256 none, found abababababab...");
        assert_eq!(different_percents(0.9, 0.5), ["90.00 %", "50.00 %"]);
        assert_eq!(different_percents(0.902, 0.90197), ["90.200 %", "90.197 %"]);
    }

    #[test]
    fn a_number_has_no_row_of_zeros() {
        for (value, text) in [(0.0, "0"), (0.000001, "0.000001"), (90.5, "90.5"), (5e-324, "5e-324"), (-1e20, "-1e20")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn nearest_finds_misspellings_and_nothing_far() {
        let keys = ["optimizer", "train_epochs", "batch_size"];
        assert_eq!(nearest("batchsize", keys), Some("batch_size"));
        assert_eq!(nearest("Optimiser", keys), Some("optimizer"));
        assert_eq!(nearest("verbose", keys), None);
    }

    #[test]
    fn an_unknown_name_is_corrected_or_all_known_ones_are_listed() {
        assert_eq!(suggestion("epoch", ["epochs", "train_epochs"], &["train_epochs"]), "did you mean epochs?");
        assert_eq!(suggestion("verbose", ["seed", "epochs"], &["seed", "epochs"]), "known are seed, epochs");
    }

    #[test]
    fn paths_in_commands_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(quoted(Path::new("/data/mnist-1")), "/data/mnist-1");
        assert_eq!(quoted(Path::new("my data")), "'my data'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
        assert_eq!(quoted(Path::new("it's\n\\")), r"$'it\'s\x0a\\'");
        #[cfg(unix)]
        {
            let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"a\xff\xc3\xa4");
            assert_eq!(quoted(Path::new(path)), r"$'a\xffä'");
        }
    }

    #[test]
    fn characters_that_act_are_escaped_as_json_does() {
        let text = "a\u{1b}[0m\u{7}\0\n\r\t\u{7f}\u{9b}\u{85}\u{2028}\u{202e}\u{2066} ä€😀\\";
        let plain = r"a\u001b[0m\u0007\u0000\n\r\t\u007f\u009b\u0085\u2028\u202e\u2066 ä€😀\";
        assert_eq!(escaped(text), plain);
        assert!(matches!(escaped("plain ä"), Cow::Borrowed(_)));
        let back: String = serde_json::from_str(&format!("\"{}\"", escaped(&text.replace('\\', "")))).unwrap();
        assert_eq!(back, text.replace('\\', ""));
        assert_eq!(escaped_lines("a\rb\nc"), "a\\rb\nc");
        assert_eq!(lines(["a\nb", "c"]), "a\\nb\nc\n");
    }

    #[test]
    fn cells_stand_in_columns() {
        let rows = [["image", "digit"], ["a ä.png", "3"]].map(|row| row.map(String::from));
        assert_eq!(table(['<', '>'], &rows), "image    digit\na ä.png      3\n");
        assert_eq!(table(['>', '<'], &rows), "  image  digit\na ä.png  3\n");
        assert_eq!(table(['<', '>'], &[]), "");
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // By GNU date: date -u -d @SECONDS.
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(utc(time), expected);
            assert_eq!(rfc3339(time), expected.replacen(' ', "T", 1).replace(" UTC", "Z"));
        }
    }

    #[test]
    fn bytes_are_rounded_up() {
        let shown = [0, 1, 999_999_999, 1_000_000_000, 5_010_000_000].map(bytes);
        assert_eq!(shown, ["0 MB", "1 MB", "1000 MB", "1.0 GB", "5.1 GB"]);
    }

    #[test]
    fn times_are_short() {
        let shown = [0.0, 99.4, 100.0, 5969.0, 5970.0, 36_000.0].map(about);
        assert_eq!(shown, ["0 s", "99 s", "2 min", "99 min", "2 h", "10 h"]);
    }

    #[test]
    fn one_thing_is_singular() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "thread")), ["0 threads", "1 thread", "2 threads"]);
    }

    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(one_of(&["a", "b", "c"]), "a, b or c");
        assert_eq!(one_of(&["a"]), "a");
        assert!(one_of(&[1; 53]).ends_with("1, 1 or one of 3 more"));
    }
}
