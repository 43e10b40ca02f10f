//! The progress of training: a bar with a line per epoch on a terminal, a line per epoch elsewhere and in the log file.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tracing::info;

use crate::engine::Progress;
use crate::output::console::{LOG, PROGRESS, SCREEN};
use crate::output::event::{EpochRecord, Listener, RunEvent, SplitScore};
use crate::output::terminal;
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

/// A bar for the whole training. When an epoch is over, a line with its results stays above the bar.
pub struct Bars {
    all: MultiProgress,
    /// The columns of a line.
    columns: fn() -> usize,
    bar: Option<ProgressBar>,
    way: Option<Way>,
    /// The lowest loss so far on the split that is evaluated after every epoch: `keep` and `early_stopping` go by it.
    best: Option<SplitScore>,
    /// When `max_seconds` are over.
    deadline: Option<Instant>,
    /// When the words beside the bar were changed last. More often than people read makes them flicker.
    changed: Option<Instant>,
}

/// How often the words beside a bar change at most.
const WORDS_LAST: Duration = Duration::from_millis(250);
/// The least columns of a bar, with the blanks around it and the end of the line that stays free.
const LEAST_BAR: usize = 12;

/// How far the training is, in epochs.
#[derive(Debug, Clone, Copy)]
struct Way {
    began: Instant,
    epoch_began: Instant,
    /// The epochs that were done before.
    before: u32,
    /// The epoch in progress, from 1.
    epoch: u32,
    epochs: u32,
    /// The images of an epoch.
    images: usize,
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
    /// Bars on `all`, on a terminal with lines of so many `columns`.
    pub fn new(all: MultiProgress, columns: fn() -> usize) -> Self {
        Self { all, columns, bar: None, way: None, best: None, deadline: None, changed: None }
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

    /// What stands beside the bar: as much of the results so far as `columns` have place for.
    fn words(&self, progress: Progress, part: f64, columns: usize) -> String {
        let loss = progress.loss.map(|loss| format!("loss {loss:.3}"));
        let accuracy = progress.accuracy.map(|accuracy| format!("accuracy {:.1} %", 100.0 * accuracy));
        let best = self.best.as_ref().map(|best| format!("best {:.1} %", 100.0 * best.accuracy));
        let seconds = self.way.map_or(0.0, |way| way.epoch_began.elapsed().as_secs_f64());
        let rate = (seconds > 0.0).then(|| format!("{} img/s", text::rounded(progress.images as f64 / seconds)));
        let left = self.left(part).map(|left| format!("{left} left"));
        let of = |parts: &[&Option<String>]| {
            let parts: Vec<&str> = parts.iter().filter_map(|part| part.as_deref()).collect();
            parts.join(", ")
        };
        let all = of(&[&loss, &accuracy, &best, &rate, &left]);
        terminal::fitting(columns, [all, of(&[&loss, &accuracy, &best, &left]), of(&[&loss, &left]), of(&[&left])])
    }

    fn begin_epoch(&mut self, epoch: u32, epochs: u32, images: usize) {
        let all = &self.all;
        let bar = self.bar.get_or_insert_with(|| {
            let bar = all.add(ProgressBar::new(u64::from(epochs) * images as u64));
            // The bar is as wide as the terminal leaves it.
            bar.with_style(style("{prefix} {wide_bar:.green/dim} {msg}"))
        });
        bar.set_prefix(format!("{epoch}/{epochs}"));
        bar.set_position(u64::from(epoch - 1) * images as u64);
        let now = Instant::now();
        let first = Way { began: now, epoch_began: now, before: epoch - 1, epoch, epochs, images };
        self.way = Some(Way { epoch, epoch_began: now, ..self.way.unwrap_or(first) });
    }

    fn advance(&mut self, progress: Progress) {
        let (Some(bar), Some(way)) = (&self.bar, self.way) else { return };
        if self.changed.is_none_or(|changed| changed.elapsed() >= WORDS_LAST) {
            let columns = (self.columns)().saturating_sub(bar.prefix().len() + LEAST_BAR);
            bar.set_message(self.words(progress, progress.images as f64 / way.images.max(1) as f64, columns));
            self.changed = Some(Instant::now());
        }
        bar.set_position(u64::from(way.epoch - 1) * way.images as u64 + progress.images as u64);
    }
}

/// The line that stays of an epoch, in at most `columns`.
fn kept(epochs: u32, record: &EpochRecord, columns: usize) -> String {
    let EpochRecord { epoch, loss, ref splits, seconds, .. } = *record;
    let scores = |words: &dyn Fn(&SplitScore) -> String| splits.iter().map(words).collect::<String>();
    let long = scores(&|SplitScore { split, loss, accuracy }| {
        format!(" {split} loss {loss:.4} and accuracy {},", percent(*accuracy))
    });
    let short = scores(&|score| format!(", {} accuracy {}", score.split, percent(score.accuracy)));
    terminal::fitting(
        columns,
        [
            format!("epoch {epoch}/{epochs}: loss {loss:.4},{long} {seconds:.2} s"),
            format!("epoch {epoch}/{epochs}: loss {loss:.4}{short}"),
            format!("{epoch}/{epochs}{short}"),
        ],
    )
}

impl Listener for Bars {
    fn on(&mut self, event: RunEvent) {
        match event {
            RunEvent::TrainingStarted { before, deadline, .. } => {
                self.deadline = deadline;
                before.iter().for_each(|record| self.note(record));
            }
            RunEvent::EpochStarted { epoch, epochs, images } => self.begin_epoch(epoch, epochs, images),
            RunEvent::Progress(progress) => self.advance(progress),
            RunEvent::EpochFinished { epochs, record } => {
                if record.epoch == epochs
                    && let Some(bar) = self.bar.take()
                {
                    bar.finish_and_clear();
                }
                info!(target: SCREEN, "{}", kept(epochs, record, (self.columns)()));
                self.note(record);
            }
            _ => {}
        }
    }
}

/// Nothing remains of a training that ends early but its lines.
impl Drop for Bars {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use indicatif::ProgressDrawTarget;

    use super::*;
    use crate::output::screen::Screen;

    /// Bars on a screen of `width` columns.
    fn bars(width: u16, columns: fn() -> usize) -> (Bars, Screen) {
        let screen = Screen::new(width);
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        (Bars::new(all, columns), screen)
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
        bars.changed = None;
        bars.on(RunEvent::Progress(Progress { images: 500, loss: Some(0.25), accuracy: Some(0.9) }));
        if let Some(bar) = &bars.bar {
            bar.tick();
        }
        screen.contents().lines().last().unwrap_or_default().into()
    }

    #[test]
    fn the_bar_shows_the_results_so_far_and_a_line_of_each_epoch_stays() {
        let (mut bars, screen) = bars(80, || 79);
        let line = halfway(&mut bars, &screen, 1, 5);
        assert!(line.starts_with("1/5 █"), "{line}");
        assert!(line.contains("░ loss 0.250, accuracy 90.0 %, ") && line.ends_with(" img/s, 0 s left"), "{line}");
        bars.on(RunEvent::EpochFinished { epochs: 5, record: &record(1, "test", 0.1, 0.95) });
        let line = halfway(&mut bars, &screen, 3, 5);
        assert!(line.contains(" loss 0.250, accuracy 90.0 %, best 95.0 %, "), "{line}");
        let filled = [line.matches('█').count(), line.matches('░').count()];
        assert!(filled[0].abs_diff(filled[1]) <= 1, "half of five epochs: {line}");
        // The best epoch is the one that `keep: best` keeps: accuracy does not count.
        bars.on(RunEvent::EpochFinished { epochs: 5, record: &record(3, "test", 0.2, 0.96) });
        assert!(halfway(&mut bars, &screen, 4, 5).contains("best 95.0 %"));
        bars.on(RunEvent::EpochFinished { epochs: 5, record: &record(5, "test", 0.2, 0.96) });
        assert_eq!(screen.contents(), "");
    }

    #[test]
    fn an_ended_training_takes_its_bar_away() {
        let (mut bars, screen) = bars(80, || 79);
        halfway(&mut bars, &screen, 1, 5);
        drop(bars);
        assert_eq!(screen.contents(), "");
    }

    #[test]
    fn what_does_not_fit_is_left_out_by_its_weight() {
        let lines = |width: u16, columns: fn() -> usize| {
            let (mut bars, screen) = bars(width, columns);
            bars.on(RunEvent::EpochFinished { epochs: 100, record: &record(99, "validation", 0.1, 1.0) });
            let line = halfway(&mut bars, &screen, 100, 100);
            assert!(line.chars().count() <= width.into() && line.contains('█'), "{line}");
            (kept(100, &record(99, "validation", 0.1, 1.0), columns()), line)
        };
        let (kept, line) = lines(80, || 79);
        assert_eq!(kept, "epoch 99/100: loss 0.2000, validation loss 0.1000 and accuracy 100.00 %, 0.50 s");
        assert!(line.contains(" loss 0.250, accuracy 90.0 %, best 100.0 %, 0 s left"), "{line}");
        let (kept, line) = lines(120, || 119);
        assert!(kept.ends_with(" 0.50 s") && line.contains(" img/s, 0 s left"), "{kept}\n{line}");
        let (kept, line) = lines(40, || 39);
        assert_eq!(kept, "99/100, validation accuracy 100.00 %");
        assert!(line.ends_with(" loss 0.250, 0 s left"), "{line}");
    }

    #[test]
    fn a_training_that_goes_on_has_the_best_epoch_and_the_time_left_of_its_own() {
        let (mut bars, screen) = bars(80, || 79);
        let before = [record(1, "validation", 0.1, 0.9), record(2, "validation", 0.3, 0.95)];
        let hour = Instant::now() + Duration::from_secs(3590);
        bars.on(RunEvent::TrainingStarted { epochs: 100_000, before: &before, deadline: Some(hour) });
        assert!(halfway(&mut bars, &screen, 3, 100_000).contains(", best 90.0 %, "));
        // A day of epochs would come, but max_seconds end them in an hour.
        let began = Instant::now() - Duration::from_secs(30);
        bars.way = bars.way.map(|way| Way { began, ..way });
        assert_eq!(bars.left(0.5).as_deref(), Some("60 min"));
        bars.way = bars.way.map(|way| Way { epochs: 4, ..way });
        assert_eq!(bars.left(0.5).as_deref(), Some("90 s"));
    }

    #[test]
    fn the_time_left_is_that_of_all_epochs_to_come() {
        let way = Way { began: Instant::now(), epoch_began: Instant::now(), before: 0, epoch: 2, epochs: 5, images: 1 };
        let left = |way: Way, part, seconds| way.left(part, Duration::from_secs(seconds)).map(text::about);
        assert_eq!(left(way, 0.5, 30).as_deref(), Some("70 s"));
        assert_eq!(left(way, 0.5, 3600).as_deref(), Some("2 h"));
        // A training that goes on knows nothing of the time before.
        assert_eq!(left(Way { before: 1, ..way }, 0.0, 30), None);
        assert_eq!(left(Way { before: 1, ..way }, 0.5, 30).as_deref(), Some("4 min"));
    }
}
