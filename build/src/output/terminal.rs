//! The terminal that stderr may be: what bars are drawn on, and how much fits a line.

use std::io::{self, IsTerminal};

use console::Term;
use indicatif::{ProgressDrawTarget, TermLike};

/// The columns at the end of a line that stay free: a terminal writes `^C` behind the bar when the user interrupts. In a
/// full line it would begin a new one, and clearing the bar would take another line with it.
const FREE_COLUMNS: u16 = 3;
/// How often bars are drawn, a second.
const DRAWS: u8 = 10;

/// The least columns in which a bar and some words have place.
const LEAST_COLUMNS: u16 = 20;

/// Whether stderr is a terminal whose cursor can be moved, and wide enough for bars. Others get plain lines.
pub fn is_capable() -> bool {
    let kind = std::env::var_os("TERM").unwrap_or_default();
    let is_wide = || TermLike::width(&Term::stderr()) >= LEAST_COLUMNS;
    io::stderr().is_terminal() && !kind.is_empty() && kind != "dumb" && is_wide()
}

/// Whether messages have colours: stderr is a terminal that has them, and none of `NO_COLOR`, `CLICOLOR` and
/// `CLICOLOR_FORCE` says otherwise. The same choice as for the help.
pub fn has_colours() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// Stderr as what bars are drawn on.
pub fn target() -> ProgressDrawTarget {
    ProgressDrawTarget::term_like_with_hz(Box::new(Margin(Term::stderr())), DRAWS)
}

/// The columns of a line on stderr, but for the last: text in it makes some terminals begin a new line.
pub fn columns() -> usize {
    usize::from(TermLike::width(&Term::stderr())).saturating_sub(1)
}

/// The first of `texts` that has at most `columns` characters, or else the last. They say the same, ever shorter.
pub fn fitting<const N: usize>(columns: usize, texts: [String; N]) -> String {
    let first = texts.iter().position(|text| text.chars().count() <= columns);
    texts.into_iter().nth(first.unwrap_or(N.saturating_sub(1))).unwrap_or_default()
}

/// A terminal without the last columns.
#[derive(Debug)]
struct Margin(Term);

impl TermLike for Margin {
    fn width(&self) -> u16 {
        TermLike::width(&self.0).saturating_sub(FREE_COLUMNS).max(1)
    }
    fn height(&self) -> u16 {
        TermLike::height(&self.0)
    }
    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_up(lines)
    }
    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_down(lines)
    }
    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_right(columns)
    }
    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_left(columns)
    }
    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }
    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }
    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_text_that_fits_is_taken() {
        let texts = || ["four".to_string(), "two".to_string(), "i".to_string()];
        assert_eq!([9, 4, 3, 1, 0].map(|columns| fitting(columns, texts())), ["four", "four", "two", "i", "i"]);
    }
}
