//! A terminal for tests of progress bars.

use std::fmt;
use std::io;
use std::num::NonZero;
use std::sync::{Arc, Mutex};

use indicatif::TermLike;

const ROWS: NonZero<u16> = NonZero::new(24).unwrap();

/// A terminal of some width. Clones share it.
#[derive(Clone)]
pub struct Screen(Arc<Mutex<vt100::Parser>>);

impl Screen {
    /// An empty screen.
    pub fn new(width: u16) -> Self {
        Self(Arc::new(Mutex::new(vt100::Parser::new(ROWS, NonZero::new(width).unwrap(), 0))))
    }

    /// The text on the screen, without blanks at the ends of lines.
    pub fn contents(&self) -> String {
        let text = self.0.lock().unwrap().screen().contents();
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().into()
    }

    fn put(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap().process(text.as_bytes());
        Ok(())
    }

    /// Moves the cursor, as the control sequence that ends with `direction` does.
    fn go(&self, by: usize, direction: char) -> io::Result<()> {
        if by == 0 { Ok(()) } else { self.put(&format!("\x1b[{by}{direction}")) }
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.contents())
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.0.lock().unwrap().screen().size().1.get()
    }
    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.go(lines, 'A')
    }
    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.go(lines, 'B')
    }
    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.go(columns, 'C')
    }
    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.go(columns, 'D')
    }
    fn write_line(&self, text: &str) -> io::Result<()> {
        self.put(&format!("{text}\r\n"))
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        self.put(text)
    }
    fn clear_line(&self) -> io::Result<()> {
        self.put("\r\x1b[2K")
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
