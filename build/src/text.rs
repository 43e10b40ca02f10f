//! Small pieces of text in messages and files.

use std::fmt::{Display, Write};
use std::path::Path;

/// The log target of messages about progress: on a terminal, bars take their place.
pub const PROGRESS: &str = "mnist::progress";
/// The log target of messages for the log file alone.
pub const LOG: &str = "mnist::log";

/// `path` as a shell takes it, for commands to be copied from messages.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The known name nearest to `typed`, if any is near enough to be what was meant.
fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
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
        Some(near) => format!("did you mean {near}?"),
        None => format!("known are {}", listed.join(", ")),
    }
}

/// `a, b or c`, for messages that list what is allowed.
pub fn one_of<T: Display>(names: &[T]) -> String {
    match names {
        [] => String::new(),
        [only] => only.to_string(),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(T::to_string).collect();
            format!("{} or {last}", first.join(", "))
        }
    }
}

/// A text short enough for a message.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
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

/// A number of bytes, rounded up.
pub fn bytes(number: u64) -> String {
    match number {
        1_000_000_000.. => format!("{:.1} GB", (number as f64 / 1e8).ceil() / 10.0),
        _ => format!("{} MB", number.div_ceil(1_000_000)),
    }
}

/// `number` with its noun: `1 thread`, `2 threads`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A line for each name and its value, with the values in one column.
pub fn named_values(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect()
}

/// A line for each of `rows`, in columns as wide as their widest cells, two spaces apart. `align` has a sign for each
/// column: `<` puts its cells to the left, `>` to the right.
pub fn table<const COLUMNS: usize>(align: [char; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let line = |row: &[String; COLUMNS]| {
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
    use super::*;

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
    }

    #[test]
    fn cells_stand_in_columns() {
        let rows = [["image", "digit"], ["a ä.png", "3"]].map(|row| row.map(String::from));
        assert_eq!(table(['<', '>'], &rows), "image    digit\na ä.png      3\n");
        assert_eq!(table(['>', '<'], &rows), "  image  digit\na ä.png  3\n");
        assert_eq!(table(['<', '>'], &[]), "");
    }

    #[test]
    fn bytes_are_rounded_up() {
        let shown = [0, 1, 999_999_999, 1_000_000_000, 5_010_000_000].map(bytes);
        assert_eq!(shown, ["0 MB", "1 MB", "1000 MB", "1.0 GB", "5.1 GB"]);
    }

    #[test]
    fn one_thing_is_singular() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "thread")), ["0 threads", "1 thread", "2 threads"]);
    }

    #[test]
    fn lists_read_as_sentences() {
        assert_eq!(one_of(&["a", "b", "c"]), "a, b or c");
        assert_eq!(one_of(&["a"]), "a");
    }
}
