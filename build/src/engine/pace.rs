//! How many steps an engine does between two reports of its progress.

use std::time::Duration;

/// How many steps to do until the next report, if there is to be one about every `period` and the last `steps` steps took
/// `took`. At most four times as many as the last time, and at least a quarter of them, since one measurement can be wrong.
pub fn steps_for(period: Duration, steps: usize, took: Duration) -> usize {
    let per_period = period.as_secs_f64() / took.as_secs_f64().max(1e-6);
    ((steps as f64 * per_period.clamp(0.25, 4.0)) as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_report_is_a_period_away_but_the_number_of_steps_changes_slowly() {
        let next = |steps, took| steps_for(Duration::from_millis(100), steps, Duration::from_millis(took));
        assert_eq!([next(10, 100), next(10, 50), next(10, 200)], [10, 20, 5]);
        assert_eq!([next(10, 0), next(10, 10_000), next(1, 10_000)], [40, 2, 1]);
    }
}
