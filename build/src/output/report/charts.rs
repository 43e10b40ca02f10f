//! Curves over the epochs, as coordinates in an SVG image.

use serde::Serialize;

use super::percent;
use super::scale::Scale;
use crate::data::dataset::TRAIN;
use crate::output::event::{EpochRecord, SplitScore};

/// A chart with a curve for training and one for each evaluated split.
#[derive(Debug, Serialize)]
pub struct Chart {
    title: &'static str,
    /// What the vertical axis shows.
    unit: &'static str,
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
    /// The epochs that are worth a mark.
    marked: Vec<Tick>,
    readouts: Vec<Readout>,
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
    /// Empty where there are too many to tell apart.
    marks: Vec<Mark>,
}

#[derive(Debug, Serialize)]
struct Mark {
    x: f64,
    y: f64,
}

/// The part of the chart in which the pointer asks for the values of one epoch.
#[derive(Debug, Serialize)]
struct Readout {
    left: f64,
    width: f64,
    /// The place of the epoch.
    at: f64,
    values: String,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 310.0;
const LEFT: f64 = 86.0;
const RIGHT: f64 = WIDTH - 14.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = HEIGHT - 48.0;
/// More epochs than this have no marks.
const MOST_MARKS: usize = 50;
/// Of more epochs than this the pointer finds only some, at equal distances.
const MOST_READOUTS: usize = 200;

/// The values of a chart.
pub struct Axis {
    /// The chart's title.
    title: &'static str,
    /// What the vertical axis shows.
    unit: &'static str,
    /// The value of an epoch's training.
    train: fn(&EpochRecord) -> f64,
    /// The value of a split after an epoch.
    split: fn(&SplitScore) -> f64,
    /// The scale for some values, at least one.
    scale: fn(&[f64]) -> Scale,
    /// A value as text.
    name: fn(f64) -> String,
}

impl Axis {
    /// Losses, in nats.
    pub const LOSS: Self = Self {
        title: "Loss",
        unit: "mean loss, in nats",
        train: |epoch| epoch.loss,
        split: |split| split.loss,
        scale: Scale::even,
        name: |loss| format!("{loss:.4}"),
    };
    /// Accuracies, from 0 to 1.
    pub const ACCURACY: Self = Self {
        title: "Accuracy",
        unit: "accuracy, finer towards 100\u{a0}%",
        train: |epoch| epoch.accuracy,
        split: |split| split.accuracy,
        scale: Scale::by_errors,
        name: percent,
    };
}

impl Chart {
    /// A chart of `epochs`, at least one, with a curve for training and one for each evaluated split. All values are
    /// finite. The epochs in `marked` have a mark with these words.
    pub fn new(epochs: &[EpochRecord], axis: &Axis, marked: &[(u32, String)]) -> Self {
        let Axis { title, unit, train, split, scale, name } = *axis;
        let mut curves: Vec<(&str, Vec<f64>)> = vec![(TRAIN, epochs.iter().map(train).collect())];
        for SplitScore { split: name, .. } in &epochs[0].splits {
            let score = |epoch: &EpochRecord| epoch.splits.iter().find(|score| score.split == *name).map(split);
            curves.push((name, epochs.iter().filter_map(score).collect()));
        }
        let scale = scale(&curves.iter().flat_map(|(_, values)| values).copied().collect::<Vec<_>>());
        let x = |epoch: usize| place(epoch, epochs.len());
        let y = |value: f64| tenths(BOTTOM - (BOTTOM - TOP) * scale.share(value));
        let line = |&(class, ref values): &(&'static str, Vec<f64>)| {
            let mark = |(epoch, &value): (usize, &f64)| Mark { x: x(epoch), y: y(value) };
            let marks: Vec<Mark> = values.iter().enumerate().map(mark).collect();
            let points: Vec<String> = marks.iter().map(|mark| format!("{},{}", mark.x, mark.y)).collect();
            Curve { class, points: points.join(" "), marks: if epochs.len() > MOST_MARKS { vec![] } else { marks } }
        };
        Self {
            title,
            unit,
            summary: summary(title, &curves, name),
            width: WIDTH,
            height: HEIGHT,
            left: LEFT,
            right: RIGHT,
            top: TOP,
            bottom: BOTTOM,
            x_ticks: labelled(epochs.len()).map(|e| Tick { at: x(e - 1), label: e.to_string() }).collect(),
            y_ticks: scale.ticks().iter().map(|(value, label)| Tick { at: y(*value), label: label.clone() }).collect(),
            lines: curves.iter().map(line).collect(),
            marked: marked.iter().map(|(e, label)| Tick { at: x(*e as usize - 1), label: label.clone() }).collect(),
            readouts: readouts(&curves, name),
        }
    }
}

/// Where epoch `index` (from 0) of `epochs` is, from left to right.
fn place(index: usize, epochs: usize) -> f64 {
    match epochs {
        1 => (LEFT + RIGHT) / 2.0,
        _ => tenths(LEFT + 10.0 + (RIGHT - LEFT - 20.0) * index as f64 / (epochs - 1) as f64),
    }
}

/// The epochs of `epochs` that have a label: the first, the last, and round ones between them.
fn labelled(epochs: usize) -> impl Iterator<Item = usize> {
    let powers = (0..).map(|power| 10usize.pow(power));
    let step = powers.flat_map(|power| [1, 2, 5].map(|times| times * power)).find(|step| epochs <= 8 * step);
    let step = step.unwrap_or(epochs);
    // So far from both ends that labels do not touch.
    let between = (step..epochs).step_by(step).filter(move |e| 2 * (e - 1) >= step && 2 * (epochs - e) >= step);
    let ends = if epochs > 1 { vec![1, epochs] } else { vec![1] };
    let mut all: Vec<usize> = between.chain(ends).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}

/// A readout for each epoch, or of many for some, with the values of all curves.
fn readouts(curves: &[(&'static str, Vec<f64>)], name: fn(f64) -> String) -> Vec<Readout> {
    let epochs = curves[0].1.len();
    let step = epochs.div_ceil(MOST_READOUTS);
    let readout = |index: usize| {
        let values = curves.iter().filter_map(|(split, values)| {
            let split = if *split == TRAIN { "training" } else { split };
            Some(format!("{split} {}", name(*values.get(index)?)))
        });
        let values = format!("epoch {}: {}", index + 1, values.collect::<Vec<_>>().join(", "));
        let at = place(index, epochs);
        let half = if epochs == 1 { (RIGHT - LEFT) / 2.0 } else { (place(step, epochs) - place(0, epochs)) / 2.0 };
        let (left, right) = ((at - half).max(LEFT), (at + half).min(RIGHT));
        Readout { left: tenths(left), width: tenths(right - left), at, values }
    };
    // From the last one back, so that it is among them.
    (0..epochs).rev().step_by(step).map(readout).collect()
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

fn tenths(value: f64) -> f64 {
    (10.0 * value).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let chart = Chart::new(&epochs, &Axis::LOSS, &[]);
        let points: Vec<usize> = chart.lines.iter().map(|line| line.points.split(' ').count()).collect();
        assert_eq!(points, [3, 2, 1]);
    }

    #[test]
    fn every_point_is_within_the_image() {
        for epochs in [1, 2, 30, 400] {
            let chart = Chart::new(&(1..=epochs).map(record).collect::<Vec<_>>(), &Axis::LOSS, &[(1, "best".into())]);
            assert!(chart.x_ticks.len() <= 10 && chart.y_ticks.len() >= 2);
            assert_eq!(chart.x_ticks.last().unwrap().label, epochs.to_string(), "the last epoch has a label");
            assert!(chart.readouts.len() <= MOST_READOUTS);
            let (last, ends) = (&chart.readouts[0], format!("epoch {epochs}: training "));
            assert!(last.values.starts_with(&ends) && last.values.contains(", test "), "{last:?}");
            for Readout { left, width, at, .. } in &chart.readouts {
                assert!(LEFT <= *left && *left <= *at && *at <= left + width && left + width <= RIGHT + 0.1);
            }
            for place in chart.lines.iter().flat_map(|line| line.points.split(' ')) {
                let (x, y) = place.split_once(',').unwrap();
                assert!((0.0..=WIDTH).contains(&x.parse().unwrap()) && (0.0..=HEIGHT).contains(&y.parse().unwrap()));
            }
        }
    }

    #[test]
    fn labels_of_epochs_keep_their_distance() {
        let all = |epochs| labelled(epochs).collect::<Vec<_>>();
        assert_eq!(all(1), [1]);
        assert_eq!(all(5), [1, 2, 3, 4, 5]);
        assert_eq!(all(30), [1, 5, 10, 15, 20, 25, 30]);
        assert_eq!(all(31), [1, 5, 10, 15, 20, 25, 31]);
        assert_eq!(all(100_000), [1, 20_000, 40_000, 60_000, 80_000, 100_000]);
    }
}
