//! Curves over the epochs, as coordinates in an SVG image.

use serde::Serialize;

use crate::data::dataset::TRAIN;
use crate::output::event::{EpochRecord, SplitScore};
use crate::text::percent;

/// A chart with a curve for training and one for each evaluated split.
#[derive(Debug, Serialize)]
pub struct Chart {
    title: &'static str,
    /// The ends of the curves in words, for screen readers.
    summary: String,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    lines: Vec<Curve>,
    /// The place of the epoch whose model is kept, if that is worth a mark.
    kept: Option<Tick>,
}

#[derive(Debug, Serialize)]
struct Tick {
    at: f64,
    label: String,
}

#[derive(Debug, Serialize)]
struct Curve {
    class: &'static str,
    points: String,
    /// None where there are too many to tell apart.
    marks: Vec<Mark>,
}

#[derive(Debug, Serialize)]
struct Mark {
    x: f64,
    y: f64,
    label: String,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = WIDTH - 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = HEIGHT - 30.0;
/// More epochs than this have no marks.
const MOST_MARKS: usize = 50;

/// The values of a chart.
pub struct Axis {
    /// The chart's title.
    title: &'static str,
    /// The value of an epoch's training.
    train: fn(&EpochRecord) -> f64,
    /// The value of a split after an epoch.
    split: fn(&SplitScore) -> f64,
    /// No value is above.
    most: f64,
    /// A narrower range of values is shown this wide: it means nothing.
    least_width: f64,
    /// A value as text.
    name: fn(f64) -> String,
}

impl Axis {
    /// Losses, in nats.
    pub const LOSS: Self = Self {
        title: "Loss",
        train: |epoch| epoch.loss,
        split: |split| split.loss,
        most: f64::MAX,
        least_width: 0.004,
        name: |loss| format!("{loss:.3}"),
    };
    /// Accuracies, from 0 to 1.
    pub const ACCURACY: Self = Self {
        title: "Accuracy",
        train: |epoch| epoch.accuracy,
        split: |split| split.accuracy,
        most: 1.0,
        least_width: 0.001,
        name: percent,
    };
}

impl Chart {
    /// A chart of `epochs`, at least one, with a curve for training and one for each evaluated split. All values are
    /// finite. The epoch `kept` has a mark.
    pub fn new(epochs: &[EpochRecord], axis: Axis, kept: Option<u32>) -> Self {
        let Axis { title, train, split, most, least_width, name } = axis;
        let mut curves: Vec<(&str, Vec<f64>)> = vec![(TRAIN, epochs.iter().map(train).collect())];
        for SplitScore { split: name, .. } in &epochs[0].splits {
            let score = |epoch: &EpochRecord| epoch.splits.iter().find(|score| score.split == *name).map(split);
            curves.push((name, epochs.iter().filter_map(score).collect()));
        }
        let all = || curves.iter().flat_map(|(_, values)| values).copied();
        let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(f64::MIN, f64::max));
        let range = Range::around(low, high, least_width, most);
        let x = |epoch: usize| match epochs.len() {
            1 => (LEFT + RIGHT) / 2.0,
            epochs => LEFT + 10.0 + (RIGHT - LEFT - 20.0) * epoch as f64 / (epochs - 1) as f64,
        };
        let y = |value: f64| tenths(BOTTOM - (BOTTOM - TOP) * (value - range.low) / (range.high() - range.low));
        let line = |&(class, ref values): &(&'static str, Vec<f64>)| {
            let mark = |(epoch, &value): (usize, &f64)| Mark {
                x: tenths(x(epoch)),
                y: y(value),
                label: format!("epoch {}: {}", epoch + 1, name(value)),
            };
            let marks: Vec<Mark> = values.iter().enumerate().map(mark).collect();
            let points: Vec<String> = marks.iter().map(|mark| format!("{},{}", mark.x, mark.y)).collect();
            Curve { class, points: points.join(" "), marks: if epochs.len() > MOST_MARKS { vec![] } else { marks } }
        };
        Self {
            title,
            summary: summary(title, &curves, name),
            width: WIDTH,
            height: HEIGHT,
            left: LEFT,
            right: RIGHT,
            top: TOP,
            bottom: BOTTOM,
            x_ticks: (0..epochs.len())
                .step_by(epochs.len().div_ceil(10))
                .map(|epoch| Tick { at: tenths(x(epoch)), label: (epoch + 1).to_string() })
                .collect(),
            y_ticks: range.values().map(|value| Tick { at: y(value), label: name(value) }).collect(),
            lines: curves.iter().map(line).collect(),
            kept: kept.map(|epoch| Tick { at: tenths(x(epoch as usize - 1)), label: format!("epoch {epoch} is kept") }),
        }
    }
}

/// The first and the last value of each curve, in words.
fn summary(title: &str, curves: &[(&str, Vec<f64>)], name: fn(f64) -> String) -> String {
    let ends = |(split, values): &(&str, Vec<f64>)| {
        let split = if *split == TRAIN { "training".into() } else { format!("{split} set") };
        format!("{split} from {} to {}", name(values[0]), name(values[values.len() - 1]))
    };
    let curves_ends: Vec<String> = curves.iter().map(ends).collect();
    format!("{title} over {} epochs: {}", curves[0].1.len(), curves_ends.join(", "))
}

/// Equal steps of 1, 2 or 5 times a power of ten, from a multiple of the step upwards.
#[derive(Debug)]
struct Range {
    low: f64,
    step: f64,
    steps: u8,
}

impl Range {
    /// The range that holds `low` to `high`, at least `least_width` wide, in two to five steps; nothing is above `most`.
    fn around(low: f64, high: f64, least_width: f64, most: f64) -> Self {
        // Between large numbers a narrow range has no f64 to step to, so it is widened.
        let width = (high - low).max(least_width).max(1e-6 * high.abs());
        let power = 10f64.powf((width / 4.0).log10().floor());
        let step = [1.0, 2.0, 5.0].map(|times| times * power).into_iter().find(|step| width / step <= 4.0);
        let step = step.unwrap_or(10.0 * power);
        let middle = (low + high - width) / 2.0;
        let first = (low.min(middle.max(0.0)) / step).floor() * step;
        let last = (high.max(first + width) / step - 1e-9).ceil() * step;
        let steps = ((last - first) / step).round().clamp(2.0, 6.0);
        let above = ((first + steps * step - most) / step).ceil().max(0.0);
        Self { low: first - above * step, step, steps: steps as u8 }
    }

    fn high(&self) -> f64 {
        self.low + self.step * f64::from(self.steps)
    }

    /// From the lowest to the highest.
    fn values(&self) -> impl Iterator<Item = f64> {
        (0..=self.steps).map(|step| self.low + self.step * f64::from(step))
    }
}

fn tenths(value: f64) -> f64 {
    (10.0 * value).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_values_in_a_few_steps() {
        let cases = [
            (0.07, 0.31, f64::MAX),
            (0.912, 0.978, 1.0),
            (1.0, 1.0, 1.0),
            (0.0, 0.0, 1.0),
            (0.9996, 1.0, 1.0),
            (0.0, 2.3, f64::MAX),
            (5.0, 5.0, f64::MAX),
            (1e-7, 3e-6, f64::MAX),
            (12.0, 9e5, f64::MAX),
            (1e20, 1e20, f64::MAX),
            (1e30, 1e30, f64::MAX),
        ];
        for (low, high, most) in cases {
            let range = Range::around(low, high, 0.001, most);
            let slack = 1e-9 * high.abs().max(1.0);
            assert!(range.low <= low + slack && high <= range.high() + slack, "{low} {high}: {range:?}");
            assert!(range.high() <= most + slack && range.low < range.high(), "{low} {high}: {range:?}");
            assert!((2..=6).contains(&range.steps), "{low} {high}: {range:?}");
        }
    }

    fn record(epoch: u32) -> EpochRecord {
        EpochRecord {
            epoch,
            loss: 1.0 / f64::from(epoch),
            accuracy: 0.5,
            seconds: 1.0,
            images_per_second: 1.0,
            learning_rate: 0.1,
            splits: vec![SplitScore { split: "test", loss: 2.0 / f64::from(epoch), accuracy: 0.5 }],
            finished: std::time::SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn epochs_with_other_splits_than_the_first_have_no_point() {
        let mut epochs: Vec<_> = (1..=3).map(record).collect();
        epochs[0].splits.push(SplitScore { split: "validation", loss: 1.0, accuracy: 0.5 });
        epochs[2].splits.clear();
        let chart = Chart::new(&epochs, Axis::LOSS, None);
        let points: Vec<usize> = chart.lines.iter().map(|line| line.points.split(' ').count()).collect();
        assert_eq!(points, [3, 2, 1]);
    }

    #[test]
    fn every_point_is_within_the_image() {
        for epochs in [1, 2, 30, 400] {
            let chart = Chart::new(&(1..=epochs).map(record).collect::<Vec<_>>(), Axis::LOSS, Some(1));
            assert!(chart.x_ticks.len() <= 10 && chart.y_ticks.len() >= 2);
            for place in chart.lines.iter().flat_map(|line| line.points.split(' ')) {
                let (x, y) = place.split_once(',').unwrap();
                assert!((0.0..=WIDTH).contains(&x.parse().unwrap()) && (0.0..=HEIGHT).contains(&y.parse().unwrap()));
            }
        }
    }
}
