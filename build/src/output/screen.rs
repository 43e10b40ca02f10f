//! A terminal for tests of progress bars.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use indicatif::TermLike;

/// A terminal of some width that remembers its lines. Clones share them.
#[derive(Debug, Clone)]
pub struct Screen {
    width: u16,
    lines: Arc<Mutex<ScreenLines>>,
}

#[derive(Debug, Default)]
struct ScreenLines {
    texts: Vec<String>,
    /// The line of the cursor.
    at: usize,
}

impl Screen {
    /// An empty screen.
    pub fn new(width: u16) -> Self {
        Self { width, lines: Arc::default() }
    }

    /// The text on the screen, without blanks at the ends of lines.
    pub fn contents(&self) -> String {
        let texts: Vec<String> = self.lines().texts.iter().map(|line| line.trim_end().to_string()).collect();
        texts.join("\n").trim_end().to_string()
    }

    fn lines(&self) -> MutexGuard<'_, ScreenLines> {
        self.lines.lock().unwrap()
    }
}

impl ScreenLines {
    fn current(&mut self) -> &mut String {
        let least = self.texts.len().max(self.at + 1);
        self.texts.resize(least, String::new());
        &mut self.texts[self.at]
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
        self.move_cursor_down(1)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.lines().current().push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.lines().current().clear();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
