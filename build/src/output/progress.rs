//! Training as it is watched: a bar per epoch on a terminal, a line per epoch elsewhere and in the log file.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::info;

use crate::output::console::PROGRESS;
use crate::output::event::{Event, Listener};

/// A line per epoch.
pub struct Lines;

impl Listener for Lines {
    fn on(&mut self, event: Event) {
        if let Event::EpochFinished { epochs, record } = event {
            info!(
                target: PROGRESS,
                "epoch {}/{epochs}: loss {:.4}, accuracy {:.2} %, test loss {:.4}, test accuracy {:.2} %, {:.2} s, {:.0} images/s",
                record.epoch,
                record.loss,
                100.0 * record.accuracy,
                record.test_loss,
                100.0 * record.test_accuracy,
                record.seconds,
                record.images_per_second,
            );
        }
    }
}

/// A bar per epoch, which stays with the epoch's result once it is over.
pub struct Bars {
    all: MultiProgress,
    current: Option<ProgressBar>,
}

impl Bars {
    /// Bars on `all`.
    pub fn new(all: MultiProgress) -> Self {
        Self { all, current: None }
    }
}

impl Listener for Bars {
    fn on(&mut self, event: Event) {
        match (event, &self.current) {
            (Event::EpochStarted { epoch, epochs, images }, _) => {
                let bar = self.all.add(ProgressBar::new(images as u64));
                bar.set_style(style("{prefix} {bar:24} {percent:>3} %  {msg}  {per_sec}, {eta} left"));
                bar.set_prefix(format!("epoch {epoch}/{epochs}"));
                bar.enable_steady_tick(Duration::from_millis(200));
                self.current = Some(bar);
            }
            (Event::Progress(progress), Some(bar)) => {
                bar.set_position(progress.images as u64);
                if let Some(loss) = progress.loss {
                    bar.set_message(format!("loss {loss:.4}"));
                }
            }
            (Event::EpochFinished { record, .. }, Some(bar)) => {
                bar.set_style(style("{prefix} {bar:24} {msg}"));
                bar.finish_with_message(format!(
                    "loss {:.4}  test accuracy {:.2} %  {:.2} s  {:.0} images/s",
                    record.loss,
                    100.0 * record.test_accuracy,
                    record.seconds,
                    record.images_per_second
                ));
                self.current = None;
            }
            _ => {}
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some(bar) = &self.current {
            bar.abandon();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
