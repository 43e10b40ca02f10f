//! The progress of training: a bar per epoch on a terminal, a line per epoch elsewhere and in the log file.

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use tracing::info;

use crate::output::console::PROGRESS;
use crate::output::event::{Listener, RunEvent, SplitScore};

/// A line per epoch.
pub struct Lines;

impl Listener for Lines {
    fn on(&mut self, event: RunEvent) {
        if let RunEvent::EpochFinished { epochs, record } = event {
            let split = |SplitScore { split, loss, accuracy }: &SplitScore| {
                format!(" {split} loss {loss:.4}, {split} accuracy {:.2} %,", 100.0 * accuracy)
            };
            let splits: String = record.splits.iter().map(split).collect();
            info!(
                target: PROGRESS,
                "epoch {}/{epochs}: loss {:.4}, accuracy {:.2} %,{splits} {:.2} s, {:.0} images/s",
                record.epoch,
                record.loss,
                100.0 * record.accuracy,
                record.seconds,
                record.images_per_second,
            );
        }
    }
}

/// A bar per epoch. When the epoch is over, the bar stays and shows the results.
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
    fn on(&mut self, event: RunEvent) {
        match (event, &self.current) {
            (RunEvent::EpochStarted { epoch, epochs, images }, _) => {
                let bar = self.all.add(ProgressBar::new(images as u64));
                bar.set_style(style("{prefix} {bar:24} {percent:>3} %  {msg}  {rate} images/s, {eta} left"));
                bar.set_prefix(format!("epoch {epoch}/{epochs}"));
                self.current = Some(bar);
            }
            (RunEvent::Progress(progress), Some(bar)) => {
                bar.set_position(progress.images as u64);
                if let Some(loss) = progress.loss {
                    bar.set_message(format!("loss {loss:.4}"));
                }
            }
            (RunEvent::EpochFinished { record, .. }, Some(bar)) => {
                let split = |SplitScore { split, accuracy, .. }: &SplitScore| {
                    format!("  {split} accuracy {:.2} %", 100.0 * accuracy)
                };
                let splits: String = record.splits.iter().map(split).collect();
                bar.set_style(style("{prefix} {bar:24} {msg}"));
                bar.finish_with_message(format!(
                    "loss {:.4}{splits}  {:.2} s  {:.0} images/s",
                    record.loss, record.seconds, record.images_per_second
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
    let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        let _ = write!(text, "{:.0}", state.per_sec()); // nobody needs to know that a bar cannot be drawn
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate)
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressDrawTarget;

    use super::*;
    use crate::engine::Progress;
    use crate::output::event::EpochRecord;
    use crate::output::screen::Screen;

    #[test]
    fn the_bar_of_an_epoch_shows_loss_rate_and_time_left_and_then_the_results() {
        let screen = Screen::new(100);
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        let mut bars = Bars::new(all);
        bars.on(RunEvent::EpochStarted { epoch: 2, epochs: 5, images: 1000 });
        bars.on(RunEvent::Progress(Progress { images: 500, loss: Some(0.25), accuracy: Some(0.9) }));
        if let Some(bar) = &bars.current {
            bar.tick();
        }
        let line = screen.contents();
        assert!(line.starts_with("epoch 2/5 ████████████░░░░░░░░░░░░  50 %  loss 0.2500  "), "{line}");
        assert!(line.contains(" images/s, ") && line.ends_with(" left"), "{line}");
        let record = EpochRecord {
            epoch: 2,
            loss: 0.2,
            accuracy: 0.9,
            seconds: 0.5,
            images_per_second: 2000.0,
            learning_rate: 0.1,
            splits: vec![SplitScore { split: "test", loss: 0.1, accuracy: 0.95 }],
            finished: std::time::SystemTime::UNIX_EPOCH,
        };
        bars.on(RunEvent::EpochFinished { epochs: 5, record: &record });
        let line = screen.contents();
        assert_eq!(
            line,
            "epoch 2/5 ████████████████████████ loss 0.2000  test accuracy 95.00 %  0.50 s  2000 images/s"
        );
    }
}
