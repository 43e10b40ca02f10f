//! `report.html`: what was learned, for people, in one file that needs nothing else: curves, confusion, mistakes, weights,
//! and a canvas on which one draws a digit and sees the network's answer.
//!
//! `page.html` is the page, filled from the struct `Page`; `page.js` is the network and the canvas.

mod charts;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;
use serde_json::Value;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use self::charts::{Axis, Chart};
use crate::data::dataset::{Images, Provenance};
use crate::data::sets::DataSource;
use crate::engine::EngineInfo;
use crate::error::Result;
use crate::files;
use crate::model::file::{self as weights, Model};
use crate::model::{CLASSES, PIXELS};
use crate::output::event::EpochRecord;
use crate::parameters::Parameters;
use crate::score::{argmax, softmax};
use crate::training::Trained;

/// The name of the file in MODEL_DIR.
pub const FILE_NAME: &str = "report.html";

/// The most parameters that the page holds: 11 MB of text.
const MOST_PARAMETERS: usize = 2_000_000;
/// How many mistakes are shown.
const MISTAKES: usize = 24;

/// What the report is about.
#[expect(missing_docs, reason = "the types say what the fields are")]
pub struct Subject<'a> {
    pub parameters: &'a Parameters,
    pub data: &'a Provenance,
    /// The test set.
    pub test: &'a Images,
    pub engine: &'a EngineInfo,
    pub model: &'a Model,
    pub trained: &'a Trained,
    /// From the start of the task to here.
    pub seconds: f64,
}

/// Writes the report on `subject` into `model_dir`.
///
/// # Errors
/// The file cannot be written.
pub fn save(model_dir: &Path, subject: &Subject) -> Result<PathBuf> {
    let path = model_dir.join(FILE_NAME);
    files::write(&path, render(subject).as_bytes())?;
    Ok(path)
}

/// The page's text.
fn render(subject: &Subject) -> String {
    let mut pages = Environment::empty();
    pages.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
    pages.add_filter("safe", minijinja::filters::safe);
    pages.add_filter("length", minijinja::filters::length);
    pages.add_function("range", minijinja::functions::range);
    (pages.add_template("page.html", include_str!("page.html")))
        .and_then(|()| pages.get_template("page.html")?.render(Serde(Page::new(subject))))
        .unwrap_or_else(|e| unreachable!("the page's own template, which the tests fill: {e:#}"))
}

/// What the page is filled with.
#[derive(Serialize)]
struct Page {
    style: &'static str,
    script: &'static str,
    version: &'static str,
    finished: String,
    synthetic: bool,
    data: &'static str,
    cut_short: Option<String>,
    layers: String,
    parameter_count: String,
    train_images: String,
    test_images: String,
    train_seconds: String,
    accuracy: String,
    test_loss: String,
    dropout: bool,
    charts: [Chart; 2],
    epochs: Vec<EpochRow>,
    confusion: Vec<ConfusionRow>,
    precisions: Vec<String>,
    wrong: usize,
    mistakes: Vec<Mistake>,
    /// None where it is too large.
    network: Option<Network>,
    /// One test image of each digit.
    samples: Vec<Sample>,
    units: String,
    tables: Vec<Table>,
}

#[derive(Serialize)]
struct EpochRow {
    epoch: u32,
    loss: String,
    accuracy: String,
    test_loss: String,
    test_accuracy: String,
    seconds: String,
    speed: String,
}

#[derive(Serialize)]
struct ConfusionRow {
    cells: Vec<Cell>,
    recall: String,
}

#[derive(Serialize)]
struct Cell {
    count: u32,
    right: bool,
    /// 0 to 1.
    shade: f64,
}

#[derive(Serialize)]
struct Mistake {
    index: usize,
    image: String,
    said: usize,
    confidence: String,
    label: u8,
    right_share: String,
}

#[derive(Serialize)]
struct Network {
    widths: String,
    /// (P) float32, little-endian, in base64.
    parameters: String,
}

#[derive(Serialize)]
struct Sample {
    index: usize,
    label: u8,
    /// (D), in base64.
    pixels: String,
    image: String,
}

#[derive(Serialize)]
struct Table {
    title: &'static str,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    value: String,
}

impl Page {
    fn new(subject: &Subject) -> Self {
        let Subject { data, model, trained, .. } = *subject;
        let score = &trained.test;
        let epochs = &trained.epochs;
        let values = |of: fn(&EpochRecord) -> f64| epochs.iter().map(of).collect::<Vec<f64>>();
        let rate = |share: Option<f64>| share.map_or("–".into(), |share| format!("{:.1} %", 100.0 * share));
        let widths: Vec<String> = model.shape.widths().iter().map(usize::to_string).collect();
        let units = model.shape.widths()[1];
        let fits = model.parameters.len() <= MOST_PARAMETERS;
        let mistaken = mistaken(&trained.test_logits, &subject.test.labels);
        let finished = now();
        Self {
            style: include_str!("page.css"),
            script: include_str!("page.js"),
            version: env!("CARGO_PKG_VERSION"),
            tables: tables(subject, &finished),
            finished,
            synthetic: data.source == DataSource::Synthetic,
            data: data.source.description(),
            cut_short: trained.cut_short.as_ref().map(ToString::to_string),
            layers: widths.join("–"),
            parameter_count: grouped(model.parameters.len()),
            train_images: grouped(data.train_images),
            test_images: grouped(data.test_images),
            train_seconds: format!("{:.1} s", trained.seconds()),
            accuracy: percent(score.accuracy),
            test_loss: format!("{:.4}", score.loss),
            dropout: subject.parameters.dropout > 0.0 && model.shape.widths().len() > 2,
            charts: [
                Chart::new("Loss", &values(|e| e.loss), &values(|e| e.test_loss), Axis::LOSS),
                Chart::new("Accuracy", &values(|e| e.accuracy), &values(|e| e.test_accuracy), Axis::SHARE),
            ],
            epochs: epochs
                .iter()
                .map(|epoch| EpochRow {
                    epoch: epoch.epoch,
                    loss: format!("{:.4}", epoch.loss),
                    accuracy: percent(epoch.accuracy),
                    test_loss: format!("{:.4}", epoch.test_loss),
                    test_accuracy: percent(epoch.test_accuracy),
                    seconds: format!("{:.3}", epoch.seconds),
                    speed: grouped(epoch.images_per_second as usize),
                })
                .collect(),
            confusion: score
                .confusion
                .iter()
                .enumerate()
                .map(|(digit, counts)| ConfusionRow { cells: cells(digit, counts), recall: rate(score.recall(digit)) })
                .collect(),
            precisions: (0..CLASSES).map(|digit| rate(score.precision(digit))).collect(),
            wrong: mistaken.len(),
            mistakes: mistaken.iter().take(MISTAKES).map(|mistaken| Mistake::new(mistaken, subject.test)).collect(),
            network: fits.then(|| Network {
                widths: format!("[{}]", widths.join(", ")),
                parameters: BASE64.encode(weights::bytes(model.parameters.iter().copied())),
            }),
            samples: samples(subject.test),
            units: match units {
                0..=256 => format!("The {units} units"),
                _ => format!("The first 256 of the {units} units"),
            },
        }
    }
}

fn cells(digit: usize, counts: &[u32; CLASSES]) -> Vec<Cell> {
    let images: u32 = counts.iter().sum();
    // The square root, since a mistake in a hundred should be seen too.
    let shade = |count: u32| (100.0 * (f64::from(count) / f64::from(images.max(1))).sqrt()).round() / 100.0;
    let cell = |(said, &count): (usize, &u32)| Cell { count, right: said == digit, shade: shade(count) };
    counts.iter().enumerate().map(cell).collect()
}

/// A test image that was taken for another digit.
struct Mistaken {
    index: usize,
    said: usize,
    /// (K) probabilities.
    shares: Vec<f64>,
}

/// All of them, by `logits` (N,K) against `labels` (N), those with the most confidence first.
fn mistaken(logits: &[f32], labels: &[u8]) -> Vec<Mistaken> {
    let mut all: Vec<Mistaken> = (logits.chunks_exact(CLASSES).zip(labels).enumerate())
        .map(|(index, (row, &label))| (index, row, argmax(row), label))
        .filter(|&(_, _, said, label)| said != usize::from(label))
        .map(|(index, row, said, _)| Mistaken { index, said, shares: softmax(row) })
        .collect();
    all.sort_by(|a, b| b.shares[b.said].total_cmp(&a.shares[a.said]));
    all
}

impl Mistake {
    fn new(mistaken: &Mistaken, test: &Images) -> Self {
        let Mistaken { index, said, ref shares } = *mistaken;
        let label = test.labels[index];
        Self {
            index,
            image: png(image_of(test, index)),
            said,
            confidence: percent(shares[said]),
            label,
            right_share: percent(shares[usize::from(label)]),
        }
    }
}

/// The first test image of each digit.
fn samples(test: &Images) -> Vec<Sample> {
    let first = |label: u8| test.labels.iter().position(|&other| other == label);
    (0..CLASSES as u8)
        .filter_map(|label| {
            let index = first(label)?;
            let pixels = image_of(test, index);
            Some(Sample { index, label, pixels: BASE64.encode(pixels), image: png(pixels) })
        })
        .collect()
}

fn image_of(images: &Images, index: usize) -> &[u8] {
    &images.pixels[index * PIXELS..(index + 1) * PIXELS]
}

/// A `data:` URL of an image (D).
fn png(pixels: &[u8]) -> String {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(pixels, 28, 28, ExtendedColorType::L8)
        .unwrap_or_else(|e| unreachable!("28 x 28 bytes become a PNG in memory: {e}"));
    format!("data:image/png;base64,{}", BASE64.encode(bytes))
}

/// Everything that the run can be repeated by.
fn tables(subject: &Subject, finished: &str) -> Vec<Table> {
    let row = |name: &str, value: String| Row { name: name.into(), value };
    let EngineInfo { engine, device, backend, instruction_set, threads } = subject.engine;
    let parameters = match serde_json::to_value(subject.parameters) {
        Ok(Value::Object(parameters)) => parameters,
        other => unreachable!("the parameters are fields: {other:?}"),
    };
    let text = |value: Value| match value {
        Value::String(text) => text,
        value => value.to_string(),
    };
    let machine = vec![
        row("program", format!("mnist {}", env!("CARGO_PKG_VERSION"))),
        row("engine", format!("{engine}, {backend}")),
        row("device", device.to_string()),
        row("instruction set", instruction_set.clone()),
        row("threads", threads.to_string()),
        row("processor", processor()),
        row("system", format!("{}, {}", std::env::consts::OS, std::env::consts::ARCH)),
        row("time until this report", format!("{:.2} s", subject.seconds)),
        row("finished", finished.into()),
    ];
    let mut files = vec![row("source", subject.data.source.description().into())];
    files.extend(subject.data.files.iter().map(|file| row(&file.name, format!("SHA-256 {}", file.sha256))));
    vec![
        Table {
            title: "Parameters",
            rows: parameters.into_iter().map(|(name, value)| row(&name, text(value))).collect(),
        },
        Table { title: "Program and machine", rows: machine },
        Table { title: "Data", rows: files },
    ]
}

/// The processor's name, where the system tells it.
fn processor() -> String {
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = told.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}

/// Date and time in UTC, to the second.
fn now() -> String {
    let mut text = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut text)); // writing to a String cannot fail
    let to_seconds = text.split('.').next().unwrap_or_default();
    format!("{} UTC", to_seconds.replace('T', " "))
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).unwrap_or("")).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::TrainingState;
    use crate::engine::choice::DeviceChoice;
    use crate::model::MlpShape;
    use crate::score::Score;

    /// The page of a network with `hidden` layers that gave `logits` to images of the digits `labels`.
    fn page(hidden: &[usize], device: &str, labels: &[u8], logits: Vec<f32>) -> String {
        let device = DeviceChoice::parse(device).unwrap();
        let parameters = Parameters { hidden_layers: hidden.to_vec(), device, ..Parameters::default() };
        let shape = MlpShape::mnist(hidden);
        let test = Images { pixels: vec![7; labels.len() * PIXELS], labels: labels.to_vec() };
        let data =
            Provenance { source: DataSource::Synthetic, train_images: 1, test_images: labels.len(), files: vec![] };
        let engine = EngineInfo {
            engine: "fused",
            device: "gpu",
            backend: "a <b>backend</b>".into(),
            instruction_set: "none".into(),
            threads: 1,
        };
        let state = TrainingState::new(&parameters.optimizer_settings(), shape.initial_parameters(1));
        let model = Model { shape, parameters: state.parameters.clone(), data: data.source };
        let record = EpochRecord {
            epoch: 1,
            loss: 2.0,
            accuracy: 0.5,
            seconds: 0.1,
            images_per_second: 10.0,
            test_loss: 1.0,
            test_accuracy: 0.25,
        };
        let score = Score::new(&logits, labels);
        let trained = Trained { state, epochs: vec![record], test: score, test_logits: logits, cut_short: None };
        let subject = Subject {
            parameters: &parameters,
            data: &data,
            test: &test,
            engine: &engine,
            model: &model,
            trained: &trained,
            seconds: 1.0,
        };
        render(&subject)
    }

    #[test]
    fn what_others_named_is_text_and_no_markup() {
        let page = page(&[2], "gpu:<script>alert(1)</script>", &[1], vec![0.0; CLASSES]);
        assert!(page.contains("gpu:&lt;script&gt;alert(1)") && page.contains("a &lt;b&gt;backend"));
        assert!(!page.contains("<script>alert") && !page.contains("<b>"));
        assert!(page.contains("<strong>SYNTHETIC</strong>"));
    }

    #[test]
    fn the_worst_mistake_comes_first_and_right_answers_are_none() {
        let mut logits = vec![0.0; 4 * CLASSES];
        for (image, said, logit) in [(0, 3, 5.0), (1, 3, 2.0), (2, 4, 9.0), (3, 5, 30.0)] {
            logits[image * CLASSES + said] = logit;
        }
        let page = page(&[], "cpu", &[1, 1, 1, 5], logits);
        let places = ["no. 2<", "no. 0<", "no. 1<"].map(|mistake| page.find(mistake).unwrap());
        assert!(places.is_sorted() && !page.contains("no. 3<"), "{places:?}");
        assert!(page.contains("3 of 4 test images were read wrong"));
    }
}
