//! A terminal for tests of progress bars.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use indicatif::TermLike;

/// A terminal of some width that remembers its lines; what does not fit goes to the next one. Clones share them.
#[derive(Debug, Clone)]
pub struct Screen {
    width: u16,
    lines: Arc<Mutex<ScreenLines>>,
}

#[derive(Debug, Default)]
struct ScreenLines {
    texts: Vec<Vec<char>>,
    /// The line of the cursor.
    at: usize,
    /// The column of the cursor; behind the last one, until something is written, after a line that is full.
    column: usize,
}

impl Screen {
    /// An empty screen.
    pub fn new(width: u16) -> Self {
        Self { width, lines: Arc::default() }
    }

    /// The text on the screen, without blanks at the ends of lines.
    pub fn contents(&self) -> String {
        let texts: Vec<String> =
            self.lines().texts.iter().map(|line| String::from_iter(line).trim_end().into()).collect();
        texts.join("\n").trim_end().to_string()
    }

    fn lines(&self) -> MutexGuard<'_, ScreenLines> {
        self.lines.lock().unwrap()
    }
}

impl ScreenLines {
    fn current(&mut self) -> &mut Vec<char> {
        let least = self.texts.len().max(self.at + 1);
        self.texts.resize(least, vec![]);
        &mut self.texts[self.at]
    }

    fn put(&mut self, c: char, width: usize) {
        if c == '\r' {
            self.column = 0;
            return;
        }
        if c == '\n' || self.column == width {
            (self.at, self.column) = (self.at + 1, 0);
        }
        if c != '\n' {
            let column = self.column;
            let line = self.current();
            line.resize(line.len().max(column + 1), ' ');
            line[column] = c;
            self.column += 1;
        }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.width
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        let mut screen = self.lines();
        screen.at = screen.at.saturating_sub(lines);
        Ok(())
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.lines().at += lines;
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)?;
        self.write_str("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let mut screen = self.lines();
        text.chars().for_each(|c| screen.put(c, self.width.into()));
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        let mut screen = self.lines();
        screen.current().clear();
        screen.column = 0;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
