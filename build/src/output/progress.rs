//! The progress of training: a bar per epoch on a terminal, a line per epoch elsewhere and in the log file.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::info;

use crate::engine::Progress;
use crate::output::console::{LOG, PROGRESS};
use crate::output::event::{Listener, RunEvent, SplitScore};
use crate::text::{self, percent};

/// A line per epoch, and one for each evaluation by itself.
pub struct Lines;

impl Listener for Lines {
    fn on(&mut self, event: RunEvent) {
        let named = |SplitScore { split, loss, accuracy }: &SplitScore| {
            format!("{split} loss {loss:.4}, {split} accuracy {}", percent(*accuracy))
        };
        match event {
            RunEvent::EpochFinished { epochs, record } => {
                let splits: String = record.splits.iter().map(|score| format!(" {},", named(score))).collect();
                info!(
                    target: PROGRESS,
                    "epoch {}/{epochs}: loss {:.4}, accuracy {},{splits} {:.2} s, {:.0} images/s",
                    record.epoch,
                    record.loss,
                    percent(record.accuracy),
                    record.seconds,
                    record.images_per_second,
                );
            }
            // Not after an epoch: the score of a model at the end, which the task prints too.
            RunEvent::Evaluated { evaluation, epoch: None } => info!(target: LOG, "{}", named(&evaluation.summary())),
            _ => {}
        }
    }
}

/// A bar per epoch. When the epoch is over, a line with its results takes the bar's place.
pub struct Bars {
    all: MultiProgress,
    current: Option<ProgressBar>,
    way: Option<Way>,
    /// The highest accuracy so far on the split that is evaluated after every epoch.
    best: Option<SplitScore>,
}

/// How far the training is, in epochs.
#[derive(Debug, Clone, Copy)]
struct Way {
    began: Instant,
    /// The epochs that were done before.
    before: u32,
    /// The epoch in progress, from 1.
    epoch: u32,
    epochs: u32,
}

impl Way {
    /// The time that the rest of all epochs takes at the speed so far, evaluations included; `part` of the epoch in progress
    /// is done, and `elapsed` is the time since `began`. None at the beginning.
    fn left(self, part: f64, elapsed: Duration) -> Option<String> {
        let done = f64::from(self.epoch - 1 - self.before) + part;
        let all = f64::from(self.epochs - self.before);
        (done > 0.0).then(|| text::about(elapsed.as_secs_f64() * (all - done).max(0.0) / done))
    }
}

impl Bars {
    /// Bars on `all`.
    pub fn new(all: MultiProgress) -> Self {
        Self { all, current: None, way: None, best: None }
    }

    /// The results so far, short enough for a terminal of 80 columns.
    fn message(&self, progress: Progress, left: Option<String>) -> String {
        let loss = progress.loss.map(|loss| format!("loss {loss:.3}"));
        let accuracy = progress.accuracy.map(|accuracy| format!("accuracy {}", percent(accuracy)));
        let best = self.best.as_ref().map(|best| format!("best {} {}", best.split, percent(best.accuracy)));
        let left = left.map(|left| format!("{left} left"));
        [loss, accuracy, best, left].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl Listener for Bars {
    fn on(&mut self, event: RunEvent) {
        match (event, &self.current) {
            (RunEvent::EpochStarted { epoch, epochs, images }, _) => {
                let bar = self.all.add(ProgressBar::new(images as u64));
                // The bar is as wide as the terminal leaves it.
                bar.set_style(style("{prefix} {wide_bar} {msg}"));
                bar.set_prefix(format!("{epoch}/{epochs}"));
                self.current = Some(bar);
                let first = Way { began: Instant::now(), before: epoch - 1, epoch, epochs };
                self.way = Some(Way { epoch, ..self.way.unwrap_or(first) });
            }
            (RunEvent::Progress(progress), Some(bar)) => {
                let images = bar.length().unwrap_or_default().max(1);
                let part = progress.images as f64 / images as f64;
                let left = self.way.and_then(|way| way.left(part, way.began.elapsed()));
                bar.set_message(self.message(progress, left));
                bar.set_position(progress.images as u64);
            }
            (RunEvent::EpochFinished { epochs, record }, Some(bar)) => {
                let split = |SplitScore { split, accuracy, .. }: &SplitScore| {
                    format!(" {split} accuracy {},", percent(*accuracy))
                };
                let splits: String = record.splits.iter().map(split).collect();
                bar.finish_and_clear();
                // Printed, since messages on the terminal take finished bars away. A terminal that is gone needs no line.
                let _ = self.all.println(format!(
                    "epoch {}/{epochs}: loss {:.4},{splits} {:.2} s, {:.0} images/s",
                    record.epoch, record.loss, record.seconds, record.images_per_second
                ));
                self.current = None;
                let best = self.best.take().into_iter().chain(record.splits.first().cloned());
                self.best = best.reduce(|best, score| if score.accuracy > best.accuracy { score } else { best });
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;
    use crate::output::event::EpochRecord;
    use crate::output::screen::Screen;

    /// Bars on a screen of `width` columns.
    fn bars(width: u16) -> (Bars, Screen) {
        let screen = Screen::new(width);
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        (Bars::new(all), screen)
    }

    fn record(epoch: u32, split: &'static str, accuracy: f64) -> EpochRecord {
        EpochRecord {
            epoch,
            loss: 0.2,
            accuracy: 0.9,
            seconds: 0.5,
            images_per_second: 600_000.0,
            learning_rate: 0.1,
            splits: vec![SplitScore { split, loss: 0.1, accuracy }],
            finished: SystemTime::UNIX_EPOCH,
        }
    }

    /// The last line on `screen` in the middle of an epoch.
    fn halfway(bars: &mut Bars, screen: &Screen, epoch: u32, epochs: u32) -> String {
        bars.on(RunEvent::EpochStarted { epoch, epochs, images: 1000 });
        bars.on(RunEvent::Progress(Progress { images: 500, loss: Some(0.25), accuracy: Some(0.9) }));
        if let Some(bar) = &bars.current {
            bar.tick();
        }
        screen.contents().lines().last().unwrap_or_default().into()
    }

    #[test]
    fn the_bar_of_an_epoch_shows_the_results_so_far_and_a_line_stays() {
        let (mut bars, screen) = bars(80);
        let line = halfway(&mut bars, &screen, 1, 5);
        assert!(
            line.starts_with("1/5 ████████") && line.ends_with("░ loss 0.250, accuracy 90.00 %, 0 s left"),
            "{line}"
        );
        let filled = [line.matches('█').count(), line.matches('░').count()];
        assert!(filled[0] == filled[1] || filled[0] + 1 == filled[1], "{line}");
        bars.on(RunEvent::EpochFinished { epochs: 5, record: &record(1, "test", 0.95) });
        let kept = "epoch 1/5: loss 0.2000, test accuracy 95.00 %, 0.50 s, 600000 images/s";
        assert_eq!(screen.contents(), kept);
        let line = halfway(&mut bars, &screen, 2, 5);
        assert!(line.ends_with(" loss 0.250, accuracy 90.00 %, best test 95.00 %, 0 s left"), "{line}");
        assert_eq!(screen.contents().lines().next(), Some(kept));
        bars.all.suspend(|| screen.write_line("a message")).unwrap();
        assert_eq!(screen.contents().lines().take(2).collect::<Vec<_>>(), [kept, "a message"]);
        // A worse epoch does not take the place of the best one.
        bars.on(RunEvent::EpochFinished { epochs: 5, record: &record(2, "test", 0.94) });
        assert!(halfway(&mut bars, &screen, 3, 5).contains("best test 95.00 %"));
    }

    #[test]
    fn every_line_fits_a_terminal_of_80_columns() {
        let (mut bars, screen) = bars(80);
        halfway(&mut bars, &screen, 99, 100);
        bars.on(RunEvent::EpochFinished { epochs: 100, record: &record(99, "validation", 1.0) });
        let line = halfway(&mut bars, &screen, 100, 100);
        assert!(line.contains("░ ") && line.contains(" best validation 100.00 %, 0 s left"), "{line}");
        let (kept, _) = screen.contents().split_once('\n').map(|(a, b)| (a.to_string(), b.to_string())).unwrap();
        assert!(line.chars().count() <= 80 && kept.chars().count() <= 80, "{kept}\n{line}");
        // The longest words.
        let progress = Progress { images: 1, loss: Some(0.25), accuracy: Some(1.0) };
        let message = bars.message(progress, Some("99 min".into()));
        assert!("100/100  ".len() + message.len() < 80, "{message}");
    }

    #[test]
    fn the_time_left_is_that_of_all_epochs_to_come() {
        let way = Way { began: Instant::now(), before: 0, epoch: 2, epochs: 5 };
        let left = |way: Way, part, seconds| way.left(part, Duration::from_secs(seconds));
        assert_eq!(left(way, 0.5, 30).as_deref(), Some("70 s"));
        assert_eq!(left(way, 0.5, 3600).as_deref(), Some("2 h"));
        // A training that goes on knows nothing of the time before.
        assert_eq!(left(Way { before: 1, ..way }, 0.0, 30), None);
        assert_eq!(left(Way { before: 1, ..way }, 0.5, 30).as_deref(), Some("4 min"));
    }
}
