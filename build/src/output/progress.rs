//! Training as it is watched: a bar per epoch on a terminal, a line per epoch elsewhere and in the log file.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
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
                bar.set_style(style("{prefix} {bar:24} {percent:>3} %  {msg}  {rate} images/s, {eta} left"));
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
    let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        let _ = write!(text, "{:.0}", state.per_sec()); // a bar that cannot be drawn is no failure
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate)
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    use super::*;
    use crate::engine::Progress;
    use crate::output::event::EpochRecord;

    #[test]
    fn an_epoch_has_a_bar_with_loss_rate_and_time_left_and_then_its_result() {
        let screen = InMemoryTerm::new(5, 100);
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        let mut bars = Bars::new(all);
        bars.on(Event::EpochStarted { epoch: 2, epochs: 5, images: 1000 });
        bars.on(Event::Progress(Progress { images: 500, loss: Some(0.25) }));
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
            test_loss: 0.1,
            test_accuracy: 0.95,
        };
        bars.on(Event::EpochFinished { epochs: 5, record: &record });
        let line = screen.contents();
        assert_eq!(
            line,
            "epoch 2/5 ████████████████████████ loss 0.2000  test accuracy 95.00 %  0.50 s  2000 images/s"
        );
    }
}
