//! Curves over the epochs, as places in an SVG image.

use serde::Serialize;

/// A chart of two curves.
#[derive(Debug, Serialize)]
pub struct Chart {
    title: &'static str,
    /// What the curves do, for those who do not see them.
    summary: String,
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    x_ticks: Vec<Tick>,
    y_ticks: Vec<Tick>,
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Tick {
    at: f64,
    label: String,
}

#[derive(Debug, Serialize)]
struct Line {
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

impl Chart {
    /// A chart of `train` and `test`, which have a value for each epoch, at least one; `name` tells a value.
    pub fn new(title: &'static str, train: &[f64], test: &[f64], name: impl Fn(f64) -> String) -> Self {
        let all = || train.iter().chain(test).copied().filter(|value| value.is_finite());
        let (low, high) = (all().fold(f64::MAX, f64::min), all().fold(f64::MIN, f64::max));
        let (low, high, step) = round_range(low, high);
        let epochs = train.len();
        let x = |epoch: usize| match epochs {
            1 => (LEFT + RIGHT) / 2.0,
            _ => LEFT + 10.0 + (RIGHT - LEFT - 20.0) * epoch as f64 / (epochs - 1) as f64,
        };
        let y = |value: f64| tenths(BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low));
        let line = |class, values: &[f64]| {
            let marks: Vec<Mark> = values
                .iter()
                .enumerate()
                .map(|(epoch, &value)| Mark {
                    x: tenths(x(epoch)),
                    y: y(value),
                    label: format!("epoch {}: {}", epoch + 1, name(value)),
                })
                .collect();
            let points: Vec<String> = marks.iter().map(|mark| format!("{},{}", mark.x, mark.y)).collect();
            Line { class, points: points.join(" "), marks: if epochs > MOST_MARKS { vec![] } else { marks } }
        };
        let ends = |values: &[f64]| format!("from {} to {}", name(values[0]), name(values[epochs - 1]));
        let every = epochs.div_ceil(10);
        let y_ticks = (0..).map(|tick| low + step * f64::from(tick)).take_while(|value| *value <= high + step / 2.0);
        Self {
            title,
            summary: format!("{title} over {epochs} epochs: training {}, test set {}", ends(train), ends(test)),
            width: WIDTH,
            height: HEIGHT,
            left: LEFT,
            right: RIGHT,
            x_ticks: (0..epochs)
                .step_by(every)
                .map(|epoch| Tick { at: tenths(x(epoch)), label: (epoch + 1).to_string() })
                .collect(),
            y_ticks: y_ticks.map(|value| Tick { at: y(value), label: name(value) }).collect(),
            lines: vec![line("train", train), line("test", test)],
        }
    }
}

/// A range from `low` to `high` or a little more, and a step of 1, 2 or 5 times a power of ten that divides it into about
/// four.
fn round_range(low: f64, high: f64) -> (f64, f64, f64) {
    let width = (high - low).max(1e-4);
    let power = 10f64.powf((width / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| width / step <= 4.0);
    let step = step.unwrap_or(10.0 * power);
    let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
    (low, if high > low { high } else { low + step }, step)
}

fn tenths(value: f64) -> f64 {
    (10.0 * value).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_round_and_hold_what_they_are_of() {
        for (low, high) in [(0.07, 0.31), (91.2, 97.8), (0.0, 2.3), (5.0, 5.0), (1e-7, 3e-6), (12.0, 9e5)] {
            let (from, to, step) = round_range(low, high);
            assert!(from <= low && high <= to && from < to, "{low} {high}: {from} {to}");
            assert!((0.99..=6.0).contains(&((to - from) / step)), "{low} {high}: {step}");
        }
    }

    #[test]
    fn every_place_is_within_the_image() {
        for epochs in [1, 2, 30, 400] {
            let train: Vec<f64> = (1..=epochs).map(|epoch| 1.0 / f64::from(epoch)).collect();
            let chart = Chart::new("Loss", &train, &train, |value| format!("{value:.2}"));
            assert!(chart.x_ticks.len() <= 10 && chart.y_ticks.len() >= 2);
            for place in chart.lines[0].points.split(' ') {
                let (x, y) = place.split_once(',').unwrap();
                assert!((0.0..=WIDTH).contains(&x.parse().unwrap()) && (0.0..=HEIGHT).contains(&y.parse().unwrap()));
            }
        }
    }
}
