//! The tables at the end of the page: everything that is needed to repeat the run.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use crate::engine::EngineInfo;
use crate::output::finished::Finished;

/// A table of names and values.
#[derive(Serialize)]
pub struct Table {
    title: &'static str,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    value: String,
}

fn row(name: &str, value: impl Into<String>) -> Row {
    Row { name: name.into(), value: value.into() }
}

/// Parameters, program and machine, data. `now` is the time of the report.
pub fn all(finished: &Finished, now: &str) -> Vec<Table> {
    let data = &finished.dataset.provenance;
    let mut files = vec![row("source", data.source.description())];
    files.extend(data.files.iter().map(|file| row(&file.name, format!("SHA-256 {}", file.sha256))));
    vec![
        Table { title: "Parameters", rows: parameters(finished) },
        Table { title: "Program and machine", rows: machine(finished, now) },
        Table { title: "Data", rows: files },
    ]
}

fn parameters(finished: &Finished) -> Vec<Row> {
    let parameters = match serde_json::to_value(finished.parameters) {
        Ok(Value::Object(parameters)) => parameters,
        other => unreachable!("the parameters are fields: {other:?}"),
    };
    let text = |value: Value| match value {
        Value::String(text) => text,
        value => value.to_string(),
    };
    parameters.into_iter().map(|(name, value)| row(&name, text(value))).collect()
}

fn machine(finished: &Finished, now: &str) -> Vec<Row> {
    let EngineInfo { engine, device, backend, instruction_set, threads } = finished.engine;
    vec![
        row("program", format!("mnist {}", env!("CARGO_PKG_VERSION"))),
        row("engine", format!("{engine}, {backend}")),
        row("device", *device),
        row("instruction set", instruction_set),
        row("threads", threads.to_string()),
        row("processor", processor()),
        row("system", format!("{}, {}", std::env::consts::OS, std::env::consts::ARCH)),
        row("time until this report", format!("{:.2} s", finished.seconds)),
        row("finished", now),
    ]
}

/// The processor's name where the system has it, else its architecture.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}

/// Date and time in UTC, to the second.
pub fn now() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Date and time in UTC of `seconds` since 1970.
///
/// The date is Howard Hinnant's `civil_from_days`: <https://howardhinnant.github.io/date_algorithms.html>. Years begin in
/// March there, so that a leap day is the last day of its year.
fn utc(seconds: u64) -> String {
    let days = seconds / 86400 + 719_468; // since 1 March of the year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // By GNU date: date -u -d @SECONDS.
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (1_767_225_599, "2025-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds), expected);
        }
    }
}
