//! A progress bar for each file of a download, on a terminal. Elsewhere the download's messages are enough.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::info;

use crate::data::download::{DownloadEvent, DownloadWatch};
use crate::data::sets::SourceFile;
use crate::output::terminal;
use crate::text::{SCREEN, escaped};

/// For a file of known length.
const KNOWN: &str = "{prefix} {wide_bar:.green/dim} {bytes:>11} of {total_bytes:>11} {bytes_per_sec:>13}";
/// For a file of unknown length: the bytes so far.
const UNKNOWN: &str = "{prefix} {spinner} {bytes} {bytes_per_sec} {msg}";
/// On a narrow terminal.
const NARROW: &str = "{prefix} {wide_bar:.green/dim} {percent:>3} %";
/// The least columns of a terminal that is not narrow.
const WIDE: usize = 79;
/// For a file that is not being transferred: a message.
const TEXT: &str = "{prefix} {wide_msg}";

/// The bars, one per file. When a file is there, a line above the bars takes the place of its own.
#[derive(Debug)]
pub struct Transfers {
    bars: Vec<(&'static str, ProgressBar)>,
    /// The columns of a line.
    columns: fn() -> usize,
}

impl Transfers {
    /// Adds a bar for each of `files` to `all`, which draws them on a terminal with lines of so many `columns`.
    pub fn new(all: &MultiProgress, columns: fn() -> usize, files: &[SourceFile]) -> Self {
        let width = files.iter().map(|file| file.name.len()).max().unwrap_or(0);
        let bar = |file: &SourceFile| {
            let bar = ProgressBar::no_length().with_prefix(format!("{:width$}", file.name));
            (file.name, all.add(bar.with_style(style(TEXT))))
        };
        Self { bars: files.iter().map(bar).collect(), columns }
    }
}

impl DownloadWatch for Transfers {
    fn on(&self, file: &SourceFile, event: &DownloadEvent) {
        let Some((_, bar)) = self.bars.iter().find(|(name, _)| *name == file.name) else { return };
        match event {
            DownloadEvent::Started { total: Some(total), .. } => {
                bar.set_length(*total);
                bar.set_style(style(if (self.columns)() < WIDE { NARROW } else { KNOWN }));
            }
            DownloadEvent::Started { total: None, .. } => {
                bar.unset_length();
                bar.set_style(style(UNKNOWN));
            }
            DownloadEvent::Received { bytes } => bar.set_position(*bytes),
            DownloadEvent::Retry { answer, wait, .. } => {
                let again = format!("once more in {:.1} s", wait.as_secs_f64());
                let place = (self.columns)().saturating_sub(bar.prefix().len() + 3);
                bar.set_style(style(TEXT));
                bar.set_message(terminal::fitting(place, [format!("{}; {again}", escaped(answer)), again]));
            }
            // The answer is a message above the bars.
            DownloadEvent::MirrorFailed { .. } => {
                bar.set_style(style(TEXT));
                bar.set_message("failed");
            }
            DownloadEvent::Done { origin } => {
                let origins = [origin.to_string(), origin.in_short(), "there".into()];
                let texts = origins.map(|origin| format!("{}: {}", file.name, escaped(&origin)));
                bar.finish_and_clear();
                info!(target: SCREEN, "{}", terminal::fitting((self.columns)(), texts));
            }
        }
    }
}

/// Nothing remains of a download that fails but its lines.
impl Drop for Transfers {
    fn drop(&mut self) {
        for (_, bar) in self.bars.iter().filter(|(_, bar)| !bar.is_finished()) {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressDrawTarget;

    use super::*;
    use crate::data::download::Origin;
    use crate::output::screen::Screen;

    #[test]
    fn each_file_has_a_bar_until_it_is_there() {
        let screen = Screen::new(80);
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        let file = |name| SourceFile { name, bytes: 10, sha256: "", blake3: "" };
        let files = [file("images"), file("labels-1"), file("labels-2"), file("labels-3")];
        let transfers = Transfers::new(&multi, || 79, &files);
        transfers.on(&files[0], &DownloadEvent::Started { mirror: "http://host", total: Some(2000) });
        transfers.on(&files[0], &DownloadEvent::Received { bytes: 1000 });
        transfers.on(&files[1], &DownloadEvent::Done { origin: &Origin::There("labels-1".into()) });
        transfers.on(&files[2], &DownloadEvent::MirrorFailed { mirror: "http://host", answer: "404 Not Found" });
        let wait = std::time::Duration::from_millis(1500);
        transfers.on(&files[3], &DownloadEvent::Retry { mirror: "http://host", answer: "500", wait });
        transfers.bars.iter().filter(|(_, bar)| !bar.is_finished()).for_each(|(_, bar)| bar.tick());
        let seen = screen.contents();
        for line in ["images   ███", " 1000 B of    1.95 KiB ", "labels-2 failed", "labels-3 500; once more in 1.5 s"]
        {
            assert!(seen.contains(line), "{line} in {seen}");
        }
        assert!(!seen.contains("labels-1"), "{seen}");
        drop(transfers);
        assert_eq!(screen.contents(), "");
    }
}
