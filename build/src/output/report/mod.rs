//! `report.html`: the results of a training run for people, in one file that needs nothing else. It shows curves,
//! confusion, mistakes, weights and distorted images, and a canvas: you draw a digit and see the network's answer.
//!
//! `page.html` is the page, filled from the struct `Page`; `page.js` is the network and the canvas.

mod charts;
mod images;
mod tables;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use self::charts::{Axis, Chart};
use self::images::{Augmented, Mistake, Sample};
use self::tables::Table;
use crate::data::sets::Frame;
use crate::model::file::{self as weights, Model, Unfinished};
use crate::output::artifact::Artifact;
use crate::output::event::EpochRecord;
use crate::output::finished::{Calibration, Finished, Trained, training_seconds};
use crate::score::Score;
use crate::text::{grouped, percent, utc};

/// The file.
pub const ARTIFACT: Artifact = Artifact {
    name: "report",
    file_name: "report.html",
    essential: false,
    encode: |finished| Some(render(finished).into_bytes()),
};

/// The most parameters that the page holds: 11 MB of text.
const MOST_PARAMETERS: usize = 2_000_000;
/// The most units of the first layer whose weights are shown, as in `page.js`.
const MOST_UNITS: usize = 256;

/// The page's text.
fn render(finished: &Finished) -> String {
    let mut pages = Environment::empty();
    pages.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
    pages.add_filter("safe", minijinja::filters::safe);
    pages.add_filter("length", minijinja::filters::length);
    (pages.add_template("page.html", include_str!("page.html")))
        .and_then(|()| pages.get_template("page.html")?.render(Serde(Page::new(finished))))
        .unwrap_or_else(|e| unreachable!("the page's own template, which the tests fill: {e:#}"))
}

/// The values in the page.
#[derive(Serialize)]
struct Page {
    style: &'static str,
    script: &'static str,
    version: &'static str,
    model_sha256: String,
    finished: String,
    synthetic: bool,
    data: String,
    /// Width and height of an image in pixels.
    side: usize,
    /// Longer side of the box that a digit fills, in pixels.
    box_side: usize,
    inputs: usize,
    classes: &'static [&'static str],
    /// How far training came and what ended it, if that was before its end.
    unfinished: Option<String>,
    /// The epoch whose model is kept and the number of epochs, where that is worth saying.
    kept: Option<String>,
    calibration: Option<String>,
    layers: String,
    parameter_count: String,
    train_images: String,
    /// Empty where there is no validation split.
    validation_images: String,
    /// The split that the scores, the mistakes and the images to try are of: the test set, unless training is unfinished.
    scored: &'static str,
    scored_images: String,
    train_seconds: String,
    accuracy: String,
    loss: String,
    dropout: bool,
    /// The names of the splits that are evaluated after every epoch.
    splits: Vec<&'static str>,
    charts: [Chart; 2],
    epochs: Vec<EpochRow>,
    confusion: Vec<ConfusionRow>,
    precisions: Vec<String>,
    wrong: usize,
    mistakes: Vec<Mistake>,
    /// None where it is too large.
    network: Option<PageNetwork>,
    /// One image of each digit.
    samples: Vec<Sample>,
    units: String,
    /// None where training saw the images as they are.
    augmented: Option<Augmented>,
    tables: Vec<Table>,
}

#[derive(Serialize)]
struct EpochRow {
    epoch: u32,
    /// Whether the model is that of this epoch.
    kept: bool,
    loss: String,
    accuracy: String,
    /// The evaluated splits.
    splits: Vec<SplitCells>,
    seconds: String,
    speed: String,
}

#[derive(Serialize)]
struct SplitCells {
    loss: String,
    accuracy: String,
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
struct PageNetwork {
    widths: String,
    /// (P) float32, little-endian, in base64.
    parameters: String,
}

impl Page {
    fn new(finished: &Finished) -> Self {
        let Finished { dataset, epochs, .. } = *finished;
        let trained = finished.trained;
        let model = &trained.model;
        let data = &dataset.provenance;
        let kept = finished.has_choice().then_some(trained.epoch);
        let (evaluation, evaluated) = finished.final_evaluation();
        let score = &evaluation.score;
        let mistaken = images::mistaken(&evaluation.logits, &evaluated.labels, score.classes());
        let frame = data.source.0.map_or_else(|| Frame::like_mnist(evaluated.side), |set| set.frame);
        Self {
            style: include_str!("page.css"),
            script: include_str!("page.js"),
            version: env!("CARGO_PKG_VERSION"),
            model_sha256: finished.model_sha256.into(),
            tables: tables::all(finished),
            finished: utc(finished.ended()),
            synthetic: data.source.stands_in_for().is_some(),
            data: data.source.description(),
            side: frame.side,
            box_side: frame.box_side,
            inputs: model.shape.inputs(),
            classes: evaluated.classes,
            unfinished: unfinished(trained),
            kept: kept.map(|epoch| format!("epoch {epoch} of {}", epochs.len())),
            calibration: calibration(trained),
            layers: layers(model),
            parameter_count: grouped(model.parameters.len()),
            train_images: grouped(data.train_images),
            validation_images: dataset.validation.as_ref().map_or(String::new(), |images| grouped(images.len())),
            scored: evaluation.split,
            scored_images: grouped(evaluated.len()),
            train_seconds: format!("{:.1} s", training_seconds(epochs)),
            accuracy: percent(score.accuracy),
            loss: format!("{:.4}", score.loss),
            dropout: finished.parameters.dropout > 0.0 && model.shape.widths().len() > 2,
            splits: epochs[0].splits.iter().map(|score| score.split).collect(),
            charts: [Axis::LOSS, Axis::ACCURACY].map(|axis| Chart::new(epochs, axis, kept)),
            epochs: epochs.iter().map(|epoch| EpochRow::new(epoch, epoch.epoch == trained.epoch)).collect(),
            confusion: confusion(score),
            precisions: (0..score.classes()).map(|digit| rate(score.precision(digit))).collect(),
            wrong: mistaken.len(),
            mistakes: images::worst(&mistaken, evaluated),
            network: PageNetwork::new(model),
            samples: images::samples(evaluated),
            units: units(model.shape.widths()[1]),
            augmented: Augmented::new(finished),
        }
    }
}

impl EpochRow {
    fn new(epoch: &EpochRecord, kept: bool) -> Self {
        let cells = epoch
            .splits
            .iter()
            .map(|split| SplitCells { loss: format!("{:.4}", split.loss), accuracy: percent(split.accuracy) });
        Self {
            epoch: epoch.epoch,
            kept,
            loss: format!("{:.4}", epoch.loss),
            accuracy: percent(epoch.accuracy),
            splits: cells.collect(),
            seconds: format!("{:.3}", epoch.seconds),
            speed: grouped(epoch.images_per_second as usize),
        }
    }
}

impl PageNetwork {
    fn new(model: &Model) -> Option<Self> {
        (model.parameters.len() <= MOST_PARAMETERS).then(|| Self {
            widths: format!("[{}]", widths(model).join(", ")),
            parameters: BASE64.encode(weights::bytes(model.parameters.iter().copied())),
        })
    }
}

fn confusion(score: &Score) -> Vec<ConfusionRow> {
    let row = |(digit, counts): (usize, &Vec<u32>)| {
        let images: u32 = counts.iter().sum();
        // The square root, since a mistake in a hundred should be visible too.
        let shade = |count: u32| (100.0 * (f64::from(count) / f64::from(images.max(1))).sqrt()).round() / 100.0;
        let cell = |(said, &count): (usize, &u32)| Cell { count, right: said == digit, shade: shade(count) };
        ConfusionRow { cells: counts.iter().enumerate().map(cell).collect(), recall: rate(score.recall(digit)) }
    };
    score.confusion.iter().enumerate().map(row).collect()
}

fn unfinished(trained: &Trained) -> Option<String> {
    let Unfinished { epochs, of } = trained.model.unfinished?;
    let reason = trained.unfinished.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Some(format!("after {epochs} of {of} epochs{reason}"))
}

fn widths(model: &Model) -> Vec<String> {
    model.shape.widths().iter().map(usize::to_string).collect()
}

/// A sentence on the model's calibration.
fn calibration(trained: &Trained) -> Option<String> {
    let Calibration { temperature, error_before } = trained.calibration?;
    let after = percent(trained.final_evaluation().score.calibration_error);
    Some(format!(
        "Its confidence is off by {after} on average; before calibration on the validation set (temperature \
         {temperature:.2}) it was {}.",
        percent(error_before)
    ))
}

/// The network in a few characters.
fn layers(model: &Model) -> String {
    let one = widths(model).join("–");
    match model.members().len() {
        1 => one,
        members => format!("{members} networks of {one}"),
    }
}

/// The units of a first layer of `width` that are shown, as the beginning of a sentence.
fn units(width: usize) -> String {
    if width <= MOST_UNITS {
        format!("The {width} units")
    } else {
        format!("The first {MOST_UNITS} of the {width} units")
    }
}

fn rate(share: Option<f64>) -> String {
    share.map_or("–".into(), |share| format!("{:.1} %", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::data::dataset::{Dataset, Images, Provenance, TEST};
    use crate::data::sets::{DataSource, MNIST, SYNTHETIC};
    use crate::engine::EngineInfo;
    use crate::engine::choice::DeviceChoice;
    use crate::model::MlpShape;
    use crate::output::event::{Evaluation, SplitScore};
    use crate::parameters::Parameters;

    /// The page of a network with `hidden` layers and these `logits` for images of the digits `labels`.
    fn page(hidden: &[usize], device: &str, labels: &[u8], logits: Vec<f32>) -> String {
        let device = DeviceChoice::parse(device).unwrap();
        let parameters = Parameters { hidden_layers: hidden.to_vec(), device, ..Parameters::default() };
        let shape = MlpShape::new(784, hidden, 10);
        let pixels = vec![7; labels.len() * 784];
        let test = Images { side: 28, classes: MNIST.classes, pixels, labels: labels.to_vec() };
        let source = DataSource(Some(&SYNTHETIC));
        let provenance =
            Provenance { source, train_images: 1, validation_images: 0, test_images: labels.len(), files: vec![] };
        let engine = EngineInfo {
            engine: "fused",
            device: "gpu",
            backend: "a <b>backend</b>".into(),
            instruction_set: "none".into(),
            threads: 1,
        };
        let weights = shape.initial_parameters(1);
        let model = Model { shape, parameters: weights, data: source.id().into(), unfinished: None };
        let record = EpochRecord {
            epoch: 1,
            loss: 2.0,
            accuracy: 0.5,
            seconds: 0.1,
            images_per_second: 10.0,
            learning_rate: 0.1,
            splits: vec![SplitScore { split: TEST, loss: 1.0, accuracy: 0.25 }],
            finished: SystemTime::UNIX_EPOCH,
        };
        let evaluation = Evaluation { split: TEST, score: Score::new(&logits, labels, 10), logits };
        let trained = Trained { model, epoch: 1, evaluations: vec![evaluation], calibration: None, unfinished: None };
        let finished = Finished {
            parameters: &parameters,
            dataset: &Dataset { train: Arc::default(), validation: None, test, provenance },
            engine: &engine,
            init: None,
            epochs: &[record],
            before: 0,
            trained: &trained,
            weights: &[],
            model_sha256: "",
            began: SystemTime::UNIX_EPOCH,
            seconds: 1.0,
        };
        render(&finished)
    }

    #[test]
    fn names_from_outside_are_text_and_no_markup() {
        let page = page(&[2], "gpu:<script>alert(1)</script>", &[1], vec![0.0; 10]);
        assert!(page.contains("gpu:&lt;script&gt;alert(1)") && page.contains("a &lt;b&gt;backend"));
        assert!(!page.contains("<script>alert") && !page.contains("<b>"));
        assert!(page.contains("<strong>SYNTHETIC</strong>"));
    }

    #[test]
    fn the_worst_mistake_comes_first_and_right_answers_are_none() {
        let mut logits = vec![0.0; 40];
        for (image, said, logit) in [(0, 3, 5.0), (1, 3, 2.0), (2, 4, 9.0), (3, 5, 30.0)] {
            logits[image * 10 + said] = logit;
        }
        let page = page(&[], "cpu", &[1, 1, 1, 5], logits);
        let places = ["no. 2<", "no. 0<", "no. 1<"].map(|mistake| page.find(mistake).unwrap());
        assert!(places.is_sorted() && !page.contains("no. 3<"), "{places:?}");
        assert!(page.contains("3 of 4 test images were read wrong"));
    }
}
