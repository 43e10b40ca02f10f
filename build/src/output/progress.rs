//! The progress of training: a bar per epoch on a terminal, a line per epoch elsewhere and in the log file.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::info;

use crate::engine::Progress;
use crate::output::console::{LOG, PROGRESS};
use crate::output::event::{EpochRecord, Listener, RunEvent, SplitScore};
use crate::text::{self, percent};

/// A line per epoch, and one for each evaluation by itself.
pub struct Lines;

impl Listener for Lines {
    fn on(&mut self, event: RunEvent) {
        match event {
            // The log tells of all epochs: this run's takes the place of that of the run before.
            RunEvent::TrainingStarted { epochs, before, .. } => {
                before.iter().for_each(|record| info!(target: LOG, "{}", line(epochs, record)));
            }
            RunEvent::EpochFinished { epochs, record } => info!(target: PROGRESS, "{}", line(epochs, record)),
            // Not after an epoch: the score of a model at the end, which the task prints too.
            RunEvent::Evaluated { evaluation, epoch: None } => info!(target: LOG, "{}", named(&evaluation.summary())),
            _ => {}
        }
    }
}

fn named(SplitScore { split, loss, accuracy }: &SplitScore) -> String {
    format!("{split} loss {loss:.4}, {split} accuracy {}", percent(*accuracy))
}

fn line(epochs: u32, record: &EpochRecord) -> String {
    let EpochRecord { epoch, loss, accuracy, ref splits, seconds, images_per_second, .. } = *record;
    let splits: String = splits.iter().map(|score| format!(" {},", named(score))).collect();
    let accuracy = percent(accuracy);
    format!(
        "epoch {epoch}/{epochs}: loss {loss:.4}, accuracy {accuracy},{splits} {seconds:.2} s, {images_per_second:.0} images/s"
    )
}

/// A bar per epoch. When the epoch is over, a line with its results takes the bar's place.
pub struct Bars {
    all: MultiProgress,
    current: Option<ProgressBar>,
    way: Option<Way>,
    /// The lowest loss so far on the split that is evaluated after every epoch: `keep` and `early_stopping` go by it.
    best: Option<SplitScore>,
    /// When `max_seconds` are over.
    deadline: Option<Instant>,
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
    /// The seconds that the rest of all epochs takes at the speed so far, evaluations included; `part` of the epoch in
    /// progress is done, and `elapsed` is the time since `began`. None at the beginning.
    fn left(self, part: f64, elapsed: Duration) -> Option<f64> {
        let done = f64::from(self.epoch - 1 - self.before) + part;
        let all = f64::from(self.epochs - self.before);
        (done > 0.0).then(|| elapsed.as_secs_f64() * (all - done).max(0.0) / done)
    }
}

impl Bars {
    /// Bars on `all`.
    pub fn new(all: MultiProgress) -> Self {
        Self { all, current: None, way: None, best: None, deadline: None }
    }

    /// About how long training goes on, if `part` of the epoch in progress is done.
    fn left(&self, part: f64) -> Option<String> {
        let left = self.way?.left(part, self.way?.began.elapsed())?;
        let allowed = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64());
        Some(text::about(allowed.map_or(left, |allowed| left.min(allowed))))
    }

    /// Takes note of the results of an epoch.
    fn note(&mut self, record: &EpochRecord) {
        let both = self.best.take().into_iter().chain(record.splits.first().cloned());
        self.best = both.reduce(|best, score| if score.loss < best.loss { score } else { best });
    }

    /// The results so far, short enough for a terminal of 80 columns.
    fn message(&self, progress: Progress, left: Option<String>) -> String {
        let loss = progress.loss.map(|loss| format!("loss {loss:.3}"));
        let accuracy = progress.accuracy.map(|accuracy| format!("accuracy {}", percent(accuracy)));
        let best = self.best.as_ref().map(|best| format!("best {} loss {:.3}", best.split, best.loss));
        let left = left.map(|left| format!("{left} left"));
        [loss, accuracy, best, left].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl Listener for Bars {
    fn on(&mut self, event: RunEvent) {
        match (event, &self.current) {
            (RunEvent::TrainingStarted { before, deadline, .. }, _) => {
                self.deadline = deadline;
                before.iter().for_each(|record| self.note(record));
            }
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
                bar.set_message(self.message(progress, self.left(part)));
                bar.set_position(progress.images as u64);
            }
            (RunEvent::EpochFinished { epochs, record }, Some(bar)) => {
                let split = |SplitScore { split, loss, accuracy }: &SplitScore| {
                    format!(" {split} loss {loss:.4} and accuracy {},", percent(*accuracy))
                };
                let splits: String = record.splits.iter().map(split).collect();
                bar.finish_and_clear();
                // Printed, since messages on the terminal take finished bars away. A terminal that is gone needs no line.
                let _ = self.all.println(format!(
                    "epoch {}/{epochs}: loss {:.4},{splits} {:.2} s",
                    record.epoch, record.loss, record.seconds
                ));
                self.current = None;
                self.note(record);
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
    use crate::output::screen::Screen;

    /// Bars on a screen of `width` columns.
    fn bars(width: u16) -> (Bars, Screen) {
        let screen = Screen::new(width);
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        (Bars::new(all), screen)
    }

    fn record(epoch: u32, split: &'static str, loss: f64, accuracy: f64) -> EpochRecord {
        EpochRecord {
            epoch,
            loss: 0.2,
            accuracy: 0.9,
            seconds: 0.5,
            images_per_second: 600_000.0,
            learning_rate: 0.1,
            splits: vec![SplitScore { split, loss, accuracy }],
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
        bars.on(RunEvent::EpochFinished { epochs: 5, record: &record(1, "test", 0.1, 0.95) });
        let kept = "epoch 1/5: loss 0.2000, test loss 0.1000 and accuracy 95.00 %, 0.50 s";
        assert_eq!(screen.contents(), kept);
        let line = halfway(&mut bars, &screen, 2, 5);
        assert!(line.ends_with(" loss 0.250, accuracy 90.00 %, best test loss 0.100, 0 s left"), "{line}");
        assert_eq!(screen.contents().lines().next(), Some(kept));
        bars.all.suspend(|| screen.write_line("a message")).unwrap();
        assert_eq!(screen.contents().lines().take(2).collect::<Vec<_>>(), [kept, "a message"]);
        // The best epoch is the one that `keep: best` keeps: accuracy does not count.
        bars.on(RunEvent::EpochFinished { epochs: 5, record: &record(2, "test", 0.2, 0.96) });
        assert!(halfway(&mut bars, &screen, 3, 5).contains("best test loss 0.100"));
    }

    #[test]
    fn every_line_fits_a_terminal_of_80_columns() {
        let (mut bars, screen) = bars(80);
        halfway(&mut bars, &screen, 99, 100);
        bars.on(RunEvent::EpochFinished { epochs: 100, record: &record(100, "validation", 0.1, 1.0) });
        let line = halfway(&mut bars, &screen, 100, 100);
        assert!(line.contains("░ ") && line.contains(" best validation loss 0.100, 0 s left"), "{line}");
        let (kept, _) = screen.contents().split_once('\n').map(|(a, b)| (a.to_string(), b.to_string())).unwrap();
        assert!(line.chars().count() <= 80 && kept.chars().count() <= 80, "{kept}\n{line}");
        // The longest words.
        let progress = Progress { images: 1, loss: Some(0.25), accuracy: Some(1.0) };
        let message = bars.message(progress, Some("99 min".into()));
        assert!("100/100  ".len() + message.len() < 80, "{message}");
    }

    #[test]
    fn a_training_that_goes_on_has_the_best_epoch_and_the_time_left_of_its_own() {
        let (mut bars, screen) = bars(80);
        let before = [record(1, "validation", 0.1, 0.9), record(2, "validation", 0.3, 0.95)];
        let hour = Instant::now() + Duration::from_secs(3590);
        bars.on(RunEvent::TrainingStarted { epochs: 100_000, before: &before, deadline: Some(hour) });
        assert!(halfway(&mut bars, &screen, 3, 100_000).contains(", best validation loss 0.100, "));
        // A day of epochs would come, but max_seconds end them in an hour.
        let began = Instant::now() - Duration::from_secs(30);
        bars.way = bars.way.map(|way| Way { began, ..way });
        assert_eq!(bars.left(0.5).as_deref(), Some("60 min"));
        bars.way = bars.way.map(|way| Way { epochs: 4, ..way });
        assert_eq!(bars.left(0.5).as_deref(), Some("90 s"));
    }

    #[test]
    fn the_time_left_is_that_of_all_epochs_to_come() {
        let way = Way { began: Instant::now(), before: 0, epoch: 2, epochs: 5 };
        let left = |way: Way, part, seconds| way.left(part, Duration::from_secs(seconds)).map(text::about);
        assert_eq!(left(way, 0.5, 30).as_deref(), Some("70 s"));
        assert_eq!(left(way, 0.5, 3600).as_deref(), Some("2 h"));
        // A training that goes on knows nothing of the time before.
        assert_eq!(left(Way { before: 1, ..way }, 0.0, 30), None);
        assert_eq!(left(Way { before: 1, ..way }, 0.5, 30).as_deref(), Some("4 min"));
    }
}
