//! `report.html`: the results of a training run for people, in one file that needs nothing else. It shows curves, errors
//! by digit, confusion, mistakes, calibration, weights and distorted images, and a canvas: you draw a digit and see the
//! network's answer.
//!
//! `page.html` is the page, filled from the struct `Page`; `page.js` serves every page, `draw.js` is the network and the
//! canvas.

mod charts;
mod confidence;
mod digits;
mod images;
pub mod repeat;
mod scale;
mod tables;
mod units;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;

use self::charts::{Axis, Chart};
use self::confidence::Confidence;
use self::digits::Digit;
use self::images::{Augmented, Mistake, Sample};
use self::tables::{Row, Table};
use self::units::Units;
use crate::data::sets::{Frame, MNIST};
use crate::engine::EngineInfo;
use crate::model::file::{self as weights, Model, Unfinished};
use crate::output::artifact::Artifact;
use crate::output::event::{EpochRecord, Evaluation};
use crate::output::finished::{Finished, Trained, training_seconds};
use crate::output::machine;
use crate::score::Score;
use crate::text::{self, grouped, utc};
use crate::threads;

/// The file.
pub const ARTIFACT: Artifact = Artifact {
    name: "report",
    file_name: "report.html",
    essential: false,
    encode: |finished| Some(render(finished).into_bytes().into()),
};

/// The most parameters that the page holds: 11 MB of text.
const MOST_PARAMETERS: usize = 2_000_000;

/// About how many bytes the page of a network with so many parameters takes at most.
pub fn memory(parameters: usize) -> usize {
    PAGE_BYTES + if parameters <= MOST_PARAMETERS { base64_length(parameters) } else { 0 }
}

/// The page with its images, without the parameters, and what it is filled from.
const PAGE_BYTES: usize = 8_000_000;

/// Where the parameters go into the page when it is filled: they are most of it, and would be copied from value to value.
const PARAMETERS: &str = "\u{e000}parameters\u{e000}";

/// The page's text.
fn render(finished: &Finished) -> String {
    let (model, (_, evaluated)) = (&finished.trained.model, finished.final_evaluation());
    let beside = || (template(), Units::new(model, &evaluated.pixels));
    let (page, (template, units)) = threads::both(|| Page::new(finished), beside);
    let has_network = page.network.is_some();
    let filled = (template.and_then(|pages| pages.get_template(TEMPLATE)?.render(Serde(Filled { page, units }))))
        .unwrap_or_else(|e| unreachable!("the page's own template, which the tests fill: {e:#}"));
    if !has_network {
        return filled;
    }
    // The last one: what comes before may be a user's.
    let (before, after) =
        filled.rsplit_once(PARAMETERS).unwrap_or_else(|| unreachable!("{TEMPLATE} has a place for the parameters"));
    with_parameters(before, &model.parameters, after)
}

/// `parameters` in base64, as little-endian float32, between two parts of the page.
fn with_parameters(before: &str, parameters: &[f32], after: &str) -> String {
    let mut page = String::with_capacity(before.len() + base64_length(parameters.len()) + after.len());
    page.push_str(before);
    // Three numbers are sixteen characters, so that parts need no filling in between.
    for part in parameters.chunks(3 * 1024) {
        BASE64.encode_string(weights::bytes(part), &mut page);
    }
    page.push_str(after);
    page
}

/// The characters of so many float32 numbers in base64.
fn base64_length(numbers: usize) -> usize {
    (size_of::<f32>() * numbers).div_ceil(3) * 4
}

const TEMPLATE: &str = "page.html";

/// [`TEMPLATE`], with what it needs.
fn template() -> Result<Environment<'static>, minijinja::Error> {
    let mut pages = Environment::empty();
    pages.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
    pages.add_filter("safe", minijinja::filters::safe);
    pages.add_filter("length", minijinja::filters::length);
    pages.add_template(TEMPLATE, include_str!("page.html")).map(|()| pages)
}

/// All that is filled in.
#[derive(Serialize)]
struct Filled {
    #[serde(flatten)]
    page: Page,
    units: Units,
}

/// The values in the page.
#[derive(Serialize)]
struct Page {
    style: &'static str,
    script: &'static str,
    draw_script: &'static str,
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
    /// What an image shows, in the singular: `digit` where the classes are the ten digits.
    item: &'static str,
    /// What the images are sorted by: `digit` or `class`.
    class: &'static str,
    /// How far training came and what ended it, if that was before its end.
    unfinished: Option<String>,
    /// The epoch whose model is kept and the number of epochs, where that is worth saying.
    kept: Option<String>,
    layers: String,
    parameter_count: String,
    train_images: String,
    /// Empty where there is no validation split.
    validation_images: String,
    /// The split that the scores, the mistakes and the images to try are of: the test set, unless training is unfinished.
    scored: &'static str,
    scored_images: String,
    train_seconds: String,
    machine: String,
    accuracy: String,
    loss: String,
    dropout: bool,
    /// The names of the splits that are evaluated after every epoch.
    splits: Vec<&'static str>,
    charts: [Chart; 2],
    epochs: Vec<EpochRow>,
    confusion: Vec<ConfusionRow>,
    digits: Vec<Digit>,
    wrong: String,
    mistakes: Vec<Mistake>,
    confidence: Confidence,
    /// None where it is too large.
    network: Option<PageNetwork>,
    /// One image of each digit.
    samples: Vec<Sample>,
    /// None where training saw the images as they are.
    augmented: Option<Augmented>,
    /// Those of the command that trains the same model again.
    flags: Vec<String>,
    /// Where that gives the same bytes; none where it need not.
    same_bytes: Option<String>,
    replaces_init: bool,
    tables: Vec<Table>,
    parameters: Vec<Row>,
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
}

#[derive(Serialize)]
struct Cell {
    count: u32,
    right: bool,
    /// 0 to 1, the most frequent mistake.
    shade: f64,
}

#[derive(Serialize)]
struct PageNetwork {
    widths: String,
    /// Where those go: (P) float32, little-endian, in base64.
    parameters: &'static str,
}

impl Page {
    fn new(finished: &Finished) -> Self {
        let Finished { dataset, epochs, .. } = *finished;
        let trained = finished.trained;
        let model = &trained.model;
        let data = &dataset.provenance;
        let (evaluation, evaluated) = finished.final_evaluation();
        let Evaluation { score, answers, logits, .. } = evaluation;
        let mistaken = images::mistaken(answers, &evaluated.labels);
        let digits = evaluated.classes == MNIST.classes;
        let frame = data.source.0.map_or_else(|| Frame::like_mnist(evaluated.side), |set| set.frame);
        Self {
            style: include_str!("page.css"),
            script: include_str!("page.js"),
            draw_script: include_str!("draw.js"),
            version: env!("CARGO_PKG_VERSION"),
            model_sha256: finished.model_sha256.into(),
            tables: tables::all(finished),
            parameters: tables::parameters(finished),
            finished: utc(finished.ended()),
            synthetic: data.source.stands_in_for().is_some(),
            data: data.source.description(),
            side: frame.side,
            box_side: frame.box_side,
            inputs: model.shape.inputs(),
            classes: evaluated.classes,
            item: if digits { "digit" } else { "image" },
            class: if digits { "digit" } else { "class" },
            unfinished: unfinished(trained),
            kept: finished.has_choice().then(|| format!("epoch {} of {}", trained.epoch, epochs.len())),
            layers: layers(model),
            parameter_count: grouped(model.parameters.len()),
            train_images: grouped(data.train_images),
            validation_images: dataset.validation.as_ref().map_or(String::new(), |images| grouped(images.len())),
            scored: evaluation.split,
            scored_images: grouped(evaluated.len()),
            train_seconds: format!("{:.1}\u{a0}s", training_seconds(epochs)),
            machine: machine(finished.engine),
            accuracy: percent(score.accuracy),
            loss: format!("{:.4}", score.loss),
            dropout: finished.parameters.dropout > 0.0 && model.shape.widths().len() > 2,
            splits: epochs[0].splits.iter().map(|score| score.split).collect(),
            charts: [Axis::LOSS, Axis::ACCURACY].map(|axis| Chart::new(epochs, &axis, &marked(finished))),
            epochs: epochs.iter().map(|epoch| EpochRow::new(epoch, epoch.epoch == trained.epoch)).collect(),
            confusion: confusion(score),
            digits: digits::all(score, answers, &mistaken, evaluated),
            wrong: grouped(mistaken.len()),
            mistakes: images::worst(&mistaken, logits, evaluated),
            confidence: Confidence::new(trained, answers, &evaluated.labels),
            network: PageNetwork::new(model),
            samples: images::samples(evaluated),
            augmented: Augmented::new(finished),
            flags: repeat::command(finished),
            same_bytes: repeat::same_bytes(finished),
            replaces_init: finished.replaces_init && finished.trained.model.unfinished.is_none(),
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
        (model.parameters.len() <= MOST_PARAMETERS)
            .then(|| Self { widths: format!("[{}]", widths(model).join(", ")), parameters: PARAMETERS })
    }
}

fn confusion(score: &Score) -> Vec<ConfusionRow> {
    let mistakes = |(digit, counts): (usize, &Vec<u32>)| {
        counts.iter().enumerate().filter(|(said, _)| *said != digit).map(|(_, count)| *count).max()
    };
    let most = score.confusion.iter().enumerate().filter_map(mistakes).max().unwrap_or(0).max(1);
    let row = |(digit, counts): (usize, &Vec<u32>)| {
        // The square root, since a rare mistake should be visible too.
        let shade = |count: u32| (100.0 * (f64::from(count) / f64::from(most)).sqrt()).round() / 100.0;
        let cell = |(said, &count): (usize, &u32)| Cell {
            count,
            right: said == digit,
            shade: if said == digit { 0.0 } else { shade(count) },
        };
        ConfusionRow { cells: counts.iter().enumerate().map(cell).collect() }
    };
    score.confusion.iter().enumerate().map(row).collect()
}

/// The epochs with a mark in the charts, and why: the best one, and that of the model if it is chosen.
fn marked(finished: &Finished) -> Vec<(u32, String)> {
    let (best, kept) = (finished.best_epoch(), finished.trained.epoch);
    match finished.has_choice() {
        _ if finished.epochs.len() == 1 => vec![],
        true if best == kept => vec![(best, format!("epoch {best}: best, kept"))],
        true => vec![(best, format!("epoch {best}: best")), (kept, format!("epoch {kept}: kept"))],
        false => vec![(best, format!("epoch {best}: best"))],
    }
}

/// What trained, in a few words.
fn machine(engine: &EngineInfo) -> String {
    match engine.device {
        "cpu" => format!("{} ({})", machine::processor(), text::counted(engine.threads, "thread")),
        _ => engine.backend.clone(),
    }
}

fn unfinished(trained: &Trained) -> Option<String> {
    let Unfinished { epochs, of } = trained.model.unfinished?;
    let reason = trained.unfinished.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Some(format!("after {epochs} of {of} epochs{reason}"))
}

fn widths(model: &Model) -> Vec<String> {
    model.shape.widths().iter().map(usize::to_string).collect()
}

/// The network in a few characters.
fn layers(model: &Model) -> String {
    let one = widths(model).join("–");
    match model.members().len() {
        1 => one,
        members => format!("{members} networks of {one}"),
    }
}

/// A share from 0 to 1 as a percentage that no line break divides.
fn percent(share: f64) -> String {
    text::percent(share).replace(' ', "\u{a0}")
}

fn rate(share: Option<f64>) -> String {
    share.map_or("–".into(), |share| format!("{:.1}\u{a0}%", 100.0 * share))
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
    use crate::output::event::SplitScore;
    use crate::parameters::Parameters;

    /// The page of a network with `hidden` layers and these `logits` for images of the digits `labels`.
    fn page(hidden: &[usize], device: &str, labels: &[u8], logits: Vec<f32>) -> String {
        page_of(MNIST.classes, hidden, device, labels, logits)
    }

    /// The same for images of these `classes`, ten.
    fn page_of(
        classes: &'static [&'static str],
        hidden: &[usize],
        device: &str,
        labels: &[u8],
        logits: Vec<f32>,
    ) -> String {
        let device = DeviceChoice::parse(device).unwrap();
        let parameters = Parameters { hidden_layers: hidden.to_vec(), device, ..Parameters::default() };
        let shape = MlpShape::new(784, hidden, 10);
        let pixels = vec![7; labels.len() * 784];
        let test = Images { side: 28, classes, pixels, labels: labels.to_vec() };
        let source = DataSource(Some(&SYNTHETIC));
        let provenance =
            Provenance { source, train_images: 1, validation_images: 0, test_images: labels.len(), files: vec![] };
        let engine = EngineInfo {
            engine: "fused",
            device: "gpu",
            gpus: 2,
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
        let evaluation = Evaluation::new(TEST, logits, labels, 10);
        let (watched, evaluations) = (evaluation.summary(), vec![evaluation]);
        let trained = Trained { model, epoch: 1, watched, evaluations, calibration: None, unfinished: None };
        let finished = Finished {
            parameters: &parameters,
            dataset: &Dataset { train: Arc::default(), validation: None, test, provenance },
            engine: &engine,
            init: None,
            replaces_init: false,
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
    fn the_page_has_all_parameters_where_they_are_not_too_many() {
        // More than one part, and a rest.
        let parameters = MlpShape::new(784, &[11], 10).initial_parameters(1);
        assert!(parameters.len() > 3 * 1024 && !parameters.len().is_multiple_of(3));
        let page_of = |hidden: &[usize]| page(hidden, "cpu", &[1], vec![0.0; 10]);
        let expected = format!("\"parameters\": \"{}\"}}", BASE64.encode(weights::bytes(&parameters)));
        assert!(page_of(&[11]).contains(&expected));
        let too_many = page_of(&[2600]);
        assert!(!too_many.contains("\"parameters\": \"") && !too_many.contains(PARAMETERS));
    }

    #[test]
    fn names_from_outside_are_text_and_no_markup() {
        let page = page(&[2], "gpu:<script>alert(1)</script>", &[1], vec![0.0; 10]);
        assert!(page.contains("gpu:&lt;script&gt;alert(1)") && page.contains("a &lt;b&gt;backend"));
        assert!(!page.contains("<script>alert") && !page.contains("<b>"));
        assert!(page.contains("<strong>SYNTHETIC</strong>"));
    }

    #[test]
    fn classes_that_are_no_digits_have_their_names() {
        let classes =
            &["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "<i>", "Boot"];
        let labels: Vec<u8> = (0..10).collect();
        let logits = (0..100).map(|at| if at % 10 == 8 { 4.0 } else { 0.0 }).collect();
        let page = page_of(classes, &[2], "cpu", &labels, logits);
        for expected in ["of 10 test images read right", "Errors by class", "<h2 id=\"draw-title\">Draw an image</h2>"]
        {
            assert!(page.contains(expected), "{expected}");
        }
        assert!(page.contains("said <strong>&lt;i&gt;</strong>") && !page.contains("<i>"));
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
