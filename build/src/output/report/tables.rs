//! The tables at the end of the page: everything that is needed to repeat the run.

use serde::Serialize;

use super::repeat;
use crate::engine::EngineInfo;
use crate::output::finished::Finished;
use crate::output::machine;
use crate::text::{self, grouped};
use crate::threads;

/// A table of names and values.
#[derive(Serialize)]
pub struct Table {
    title: &'static str,
    rows: Vec<Row>,
}

/// A name and its value.
#[derive(Serialize)]
pub struct Row {
    name: String,
    value: String,
}

fn row(name: &str, value: impl Into<String>) -> Row {
    Row { name: name.into(), value: value.into() }
}

/// Program and machine, data.
pub fn all(finished: &Finished) -> Vec<Table> {
    let data = &finished.dataset.provenance;
    let mut files = vec![row("source", data.source.description())];
    let splits = finished.dataset.splits();
    files.extend(splits.map(|(split, images)| row(&format!("{split} images"), grouped(images.len()))));
    files.extend(data.files.iter().map(|file| row(&file.name, file.sha256.clone())));
    vec![
        Table { title: "Program and machine", rows: program_and_machine(finished) },
        Table { title: "Data, and the SHA-256 of its files", rows: files },
    ]
}

/// Every parameter.
pub fn parameters(finished: &Finished) -> Vec<Row> {
    repeat::values(finished.parameters).into_iter().map(|(name, value)| row(&name, value)).collect()
}

fn program_and_machine(finished: &Finished) -> Vec<Row> {
    let earlier = match finished.before {
        0 => String::new(),
        before => format!(", without the {} of earlier runs", text::counted(before, "epoch")),
    };
    let EngineInfo { engine, device, gpus, backend, instruction_set, threads } = finished.engine;
    let device = if *gpus > 1 { format!("{gpus} x {device}") } else { device.to_string() };
    vec![
        row("program", format!("mnist {}", env!("CARGO_PKG_VERSION"))),
        row("engine", format!("{engine}, {backend}")),
        row("device", device),
        row("instruction set", instruction_set),
        row("threads", threads.to_string()),
        row("processor", machine::processor()),
        row("logical processors", threads::processors().to_string()),
        row("system", format!("{}, {}", std::env::consts::OS, std::env::consts::ARCH)),
        row("time until this report", format!("{:.2} s{earlier}", finished.seconds)),
        row("finished", text::utc(finished.ended())),
    ]
}
