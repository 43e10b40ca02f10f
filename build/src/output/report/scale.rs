//! The vertical axes of charts: ticks at round values, and how values become heights.

/// The vertical axis: its ticks from the lowest to the highest, and how values become heights.
#[derive(Debug)]
pub struct Scale {
    /// Value and label.
    ticks: Vec<(f64, String)>,
    /// On a scale of errors, the one at the upper end; none on equal steps.
    least_error: Option<f64>,
}

/// Errors are shown from here on. A set has at most some million images.
const LEAST_ERROR: f64 = 1e-7;

impl Scale {
    /// Equal steps, for losses.
    pub fn even(values: &[f64]) -> Self {
        let low = values.iter().copied().fold(f64::MAX, f64::min);
        let high = values.iter().copied().fold(f64::MIN, f64::max);
        // A narrower range of losses means nothing.
        let range = Range::around(low, high, 0.004);
        let ticks = range.values().map(|value| (value, format!("{value:.3}"))).collect();
        Self { ticks, least_error: None }
    }

    /// The logarithm of the error, for accuracies: from 98 % to 99 % it is as far as from 80 % to 90 %. On equal steps the
    /// first epochs would flatten all others. 100 % has no logarithm; it stands one step above the best below it.
    pub fn by_errors(accuracies: &[f64]) -> Self {
        let errors = || accuracies.iter().map(|accuracy| 1.0 - accuracy).filter(|error| *error >= LEAST_ERROR);
        let (least, most) =
            match errors().fold((1.0f64, 0.0f64), |(low, high), error| (low.min(error), high.max(error))) {
                (_, 0.0) => (0.01, 0.01),
                both => both,
            };
        let perfect = errors().count() < accuracies.len();
        let errors = error_ticks(if perfect { 0.9 * least } else { least }, most);
        let mut ticks: Vec<_> = errors.iter().map(|error| (1.0 - error, short_percent(1.0 - error))).collect();
        if let Some(top) = ticks.last_mut().filter(|_| perfect) {
            *top = (1.0, short_percent(1.0));
        }
        Self { ticks, least_error: errors.last().copied() }
    }

    /// Values with their labels, from the lowest to the highest.
    pub fn ticks(&self) -> &[(f64, String)] {
        &self.ticks
    }

    /// How far up the axis `value` is, from 0 to 1.
    pub fn share(&self, value: f64) -> f64 {
        let stretch = |value: f64| self.least_error.map_or(value, |least| -(1.0 - value).max(least).ln());
        let (low, high) = (stretch(self.ticks[0].0), stretch(self.ticks[self.ticks.len() - 1].0));
        (stretch(value) - low) / (high - low)
    }
}

/// Round errors from `high` or just above it down to `low` or just below it: at least two, at most nine.
fn error_ticks(low: f64, high: f64) -> Vec<f64> {
    let among = |times: &[f64]| -> Vec<f64> {
        let all = (0..9).flat_map(|power| times.iter().rev().map(move |times| times * 10f64.powi(-1 - power)));
        let all: Vec<f64> = [1.0].into_iter().chain(all).collect();
        let first = all.iter().rposition(|error| *error >= high * (1.0 - 1e-9)).unwrap_or(0);
        let last = all.iter().position(|error| *error <= low * (1.0 + 1e-9)).unwrap_or(all.len() - 1);
        all[first..=last.max(first + 1).min(all.len() - 1)].to_vec()
    };
    let fine = [&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0][..], &[1.0, 2.0, 5.0]].map(among);
    fine.into_iter().find(|ticks| ticks.len() <= 7).unwrap_or_else(|| among(&[1.0]))
}

/// A share from 0 to 1 as a percentage with as few decimals as it needs.
fn short_percent(share: f64) -> String {
    let text = format!("{:.5}", 100.0 * share);
    format!("{}\u{a0}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Equal steps of 1, 2 or 5 times a power of ten, from a multiple of the step upwards.
#[derive(Debug)]
struct Range {
    low: f64,
    step: f64,
    steps: u8,
}

impl Range {
    /// The range that holds `low` to `high`, at least `least_width` wide, in two to five steps.
    fn around(low: f64, high: f64, least_width: f64) -> Self {
        // Between large numbers a narrow range has no f64 to step to, so it is widened.
        let width = (high - low).max(least_width).max(1e-6 * high.abs());
        let power = 10f64.powf((width / 4.0).log10().floor());
        let step = [1.0, 2.0, 5.0].map(|times| times * power).into_iter().find(|step| width / step <= 4.0);
        let step = step.unwrap_or(10.0 * power);
        let middle = (low + high - width) / 2.0;
        let first = (low.min(middle.max(0.0)) / step).floor() * step;
        let last = (high.max(first + width) / step - 1e-9).ceil() * step;
        let steps = ((last - first) / step).round().clamp(2.0, 6.0);
        Self { low: first, step, steps: steps as u8 }
    }

    /// From the lowest to the highest.
    fn values(&self) -> impl Iterator<Item = f64> {
        (0..=self.steps).map(|step| self.low + self.step * f64::from(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_steps_hold_the_values_and_are_few() {
        for (low, high) in [(0.07, 0.31), (0.0, 0.0), (0.0, 2.3), (5.0, 5.0), (1e-7, 3e-6), (12.0, 9e5), (1e30, 1e30)] {
            let scale = Scale::even(&[high, low]);
            assert!((3..=7).contains(&scale.ticks().len()), "{scale:?}");
            let [from, to] = [low, high].map(|value| scale.share(value));
            assert!(-1e-9 <= from && from <= to && to <= 1.0 + 1e-9, "{low} {high}: {scale:?}");
        }
    }

    #[test]
    fn accuracies_stand_apart_near_100_percent_too() {
        for values in [&[0.1, 0.2][..], &[0.88, 0.99, 0.997], &[0.0, 1.0], &[1.0], &[0.5], &[0.9, 0.99995, 1.0]] {
            let scale = Scale::by_errors(values);
            assert!((2..=9).contains(&scale.ticks().len()), "{scale:?}");
            let shares: Vec<f64> = values.iter().map(|value| scale.share(*value)).collect();
            assert!(shares.iter().all(|share| (-1e-9..=1.0 + 1e-9).contains(share)), "{shares:?} {scale:?}");
            assert!(shares.windows(2).all(|pair| pair[0] + 0.05 < pair[1]), "{shares:?} {scale:?}");
        }
        let scale = Scale::by_errors(&[0.8, 0.98, 0.99]);
        assert_eq!(scale.ticks().first().unwrap().1, "80\u{a0}%");
        let step = |low, high| scale.share(high) - scale.share(low);
        assert!((step(0.8, 0.9) - step(0.98, 0.99)).abs() < 1e-9, "{scale:?}");
        let labels: Vec<String> = Scale::by_errors(&[0.995, 1.0]).ticks().iter().map(|tick| tick.1.clone()).collect();
        assert_eq!(labels.last().unwrap(), "100\u{a0}%", "{labels:?}");
    }
}
