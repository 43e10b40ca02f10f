//! Every engine against the reference in f64: logits, loss, gradients, ten steps of each optimizer; the reference
//! against numeric gradients and against Keras and PyTorch; and that these checks object to broken engines.

mod bf16;
mod schedules;
#[cfg(feature = "gpu")]
mod several_gpus;
#[cfg(feature = "gpu")]
mod together;

use std::sync::Arc;

use mnist::data::dataset::Images;
#[cfg(feature = "burn")]
use mnist::engine::burn_engine::{BurnDevice, BurnEngine};
use mnist::engine::fused::FusedEngine;
use mnist::engine::reference::Reference;
use mnist::engine::{EngineInfo, EpochTotals, Network, Progress, Recipe, Report, Trainer, TrainingState};
use mnist::error::Result;
use mnist::model::MlpShape;
use mnist::optim::{OptimizerKind, OptimizerOptions, OptimizerSettings, Schedule};
use mnist::rng::{Purpose, Stream};
use mnist::simd::{InstructionSet, Precision};

/// What is compared on: D, H, K and B all differ.
const SHAPES: [(usize, &[usize], usize); 4] = [(20, &[7], 4), (12, &[9, 5], 3), (6, &[], 10), (33, &[1, 64], 2)];

/// How far an engine in f32 may be from the truth in f64: absolute, and relative to the largest value compared.
const TOLERANCE: f64 = 2e-5;

type Build = Box<dyn Fn(Recipe, Arc<Images>) -> Box<dyn Trainer>>;

/// The engines that users get, the fused one with every instruction set that this processor has, and the reference in f32.
fn engines() -> Vec<(String, Build)> {
    let mut engines: Vec<(String, Build)> = vec![
        ("reference f32".into(), Box::new(|recipe, train| Box::new(Reference::<f32>::new(recipe, train)))),
        #[cfg(feature = "burn")]
        ("burn flex".into(), Box::new(|recipe, train| burn(recipe, train, BurnDevice::Flex))),
        #[cfg(feature = "ndarray")]
        ("burn ndarray".into(), Box::new(|recipe, train| burn(recipe, train, BurnDevice::Ndarray))),
    ];
    for set in InstructionSet::available() {
        let build: Build = Box::new(move |recipe, train| Box::new(FusedEngine::new(recipe, train, set).unwrap()));
        engines.push((format!("fused {}", set.name()), build));
    }
    #[cfg(feature = "gpu")]
    if let Some(adapter) = crate::common::any_adapter() {
        use mnist::engine::fused_gpu::FusedGpuEngine;
        let gpu = BurnDevice::Gpu(adapter.clone());
        engines.push(("burn wgpu".into(), Box::new(move |recipe, train| burn(recipe, train, gpu.clone()))));
        let build = move |recipe, train| FusedGpuEngine::new(recipe, train, vec![adapter.clone()]).unwrap();
        engines.push(("fused gpu".into(), Box::new(move |recipe, train| Box::new(build(recipe, train)))));
    }
    engines
}

#[cfg(feature = "burn")]
fn burn(recipe: Recipe, train: Arc<Images>, device: BurnDevice) -> Box<dyn Trainer> {
    Box::new(BurnEngine::new(recipe, train, device).unwrap())
}

fn truth(recipe: &Recipe, train: &Arc<Images>) -> Reference<f64> {
    Reference::new(recipe.clone(), train.clone())
}

/// Every optimizer with every option it has.
fn optimizers() -> Vec<(&'static str, OptimizerSettings)> {
    let none = OptimizerOptions::default();
    let momentum = OptimizerOptions { momentum: 0.9, ..none };
    let nesterov = OptimizerOptions { nesterov: true, ..momentum };
    let weight_decay = OptimizerOptions { weight_decay: 0.01, ..none };
    let all = [
        ("adam", OptimizerKind::Adam, none),
        ("adam_weight_decay", OptimizerKind::Adam, weight_decay),
        ("adamw", OptimizerKind::AdamW, weight_decay),
        ("sgd", OptimizerKind::Sgd, none),
        ("sgd_momentum", OptimizerKind::Sgd, momentum),
        ("sgd_nesterov", OptimizerKind::Sgd, nesterov),
        ("sgd_weight_decay", OptimizerKind::Sgd, weight_decay),
        ("rmsprop", OptimizerKind::RmsProp, none),
        ("rmsprop_momentum", OptimizerKind::RmsProp, momentum),
        ("rmsprop_weight_decay", OptimizerKind::RmsProp, weight_decay),
        ("adagrad", OptimizerKind::Adagrad, none),
        ("adagrad_weight_decay", OptimizerKind::Adagrad, weight_decay),
    ];
    for (name, kind) in OptimizerKind::ALL {
        assert!(all.iter().any(|(_, compared, _)| *compared == kind), "optimizer {name} is not compared");
    }
    let settings = |(name, kind, options): (_, OptimizerKind, _)| {
        (name, kind.settings(Schedule::constant(kind.default_learning_rate()), &options))
    };
    all.into_iter().map(settings).collect()
}

fn recipe(shape: MlpShape, optimizer: OptimizerSettings, batch_size: usize, dropout: f64) -> Recipe {
    Recipe {
        shape,
        optimizer,
        batch_size,
        dropout,
        label_smoothing: 0.0,
        skip_confident: 0.0,
        precision: Precision::Float32,
        fewer_threads: false,
        ensemble: 1,
        seed: 7,
        threads: 2,
    }
}

/// `n` random images of `shape`, six in ten pixels black, with labels.
fn images(shape: &MlpShape, n: usize) -> Arc<Images> {
    let mut stream = Stream::new(11, Purpose::Order, n as u64);
    let mut pixel = || if stream.below(10) < 6 { 0 } else { stream.below(256) as u8 };
    let pixels = (0..n * shape.inputs()).map(|_| pixel()).collect();
    let labels = (0..n).map(|_| stream.below(shape.classes() as u32) as u8).collect();
    Arc::new(Images { pixels, labels, ..Images::default() })
}

fn agree(what: &str, found: &[f32], expected: &[f64]) -> std::result::Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{what}: {} values, expected {}", found.len(), expected.len()));
    }
    let largest = expected.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let distance = (f64::from(found) - expected).abs();
        if distance.is_nan() || distance > TOLERANCE * largest.max(1e-3) {
            return Err(format!("{what}[{at}]: {found}, expected {expected}"));
        }
    }
    Ok(())
}

fn as_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

fn quiet(_: Progress) -> Result<()> {
    Ok(())
}

/// A step of plain SGD on one batch of `n` images, which shows the gradient; its size is a power of two, which costs no
/// precision.
fn compare_a_step(
    build: &impl Fn(Recipe, Arc<Images>) -> Box<dyn Trainer>,
    shape: &MlpShape,
    n: usize,
    [dropout, label_smoothing, skip_confident]: [f64; 3],
) -> std::result::Result<(), String> {
    let options = format!("dropout {dropout}, label smoothing {label_smoothing}, skip_confident {skip_confident}");
    let case = |what: &str| format!("{what} of {:?} over {n} images, {options}", shape.widths());
    let data = images(shape, n);
    let order: Vec<u32> = (0..n as u32).rev().collect();
    let recipe_ = recipe(shape.clone(), OptimizerSettings::sgd(64.0), n, dropout);
    let recipe_ = Recipe { label_smoothing, skip_confident, ..recipe_ };
    let (mut engine, truth_) = (build(recipe_.clone(), data.clone()), truth(&recipe_, &data));
    let before = engine.state().unwrap().parameters;
    let expected = truth_.loss_and_gradient(&order);
    let totals = engine.train_epoch(&order, &mut quiet).unwrap();
    agree(&case("loss"), &[(totals.loss_sum / n as f64) as f32], &[expected.loss])?;
    if (totals.images, totals.correct) != (n, expected.correct) {
        return Err(format!("{}: {totals:?}, expected {}", case("correct"), expected.correct));
    }
    let after = engine.state().unwrap().parameters;
    let gradient: Vec<f32> = before.iter().zip(&after).map(|(w, v)| (w - v) / 64.0).collect();
    agree(&case("gradient"), &gradient, &expected.gradient)
}

/// The one runner: the same cases through the engine that `build` makes and through the truth.
fn compare(build: impl Fn(Recipe, Arc<Images>) -> Box<dyn Trainer>) -> std::result::Result<(), String> {
    for (inputs, hidden, classes) in SHAPES {
        let shape = MlpShape::new(inputs, hidden, classes);
        for n in [1, 31, 32, 33] {
            let case = |what: &str| format!("{what} of {:?} over {n} images", shape.widths());
            let data = images(&shape, n);
            let recipe_ = recipe(shape.clone(), OptimizerSettings::sgd(64.0), n, 0.0);
            let (mut engine, truth_) = (build(recipe_.clone(), data.clone()), truth(&recipe_, &data));
            agree(&case("logits"), &engine.logits(&data.pixels).unwrap(), &truth_.exact_logits(&data.pixels))?;
            let black = vec![0; 3 * inputs];
            agree(&case("logits of black"), &engine.logits(&black).unwrap(), &truth_.exact_logits(&black))?;

            let chance = 1.01 / classes as f64; // about half of the images have more; one without active units has the rest
            for options in [
                [0.0, 0.0, 0.0],
                [0.4, 0.0, 0.0],
                [0.0, 0.1, 0.0],
                [0.4, 0.3, 0.0],
                [0.0, 0.0, chance],
                [0.4, 0.3, chance],
            ] {
                compare_a_step(&build, &shape, n, options)?;
            }
        }

        // Ten steps, every third batch short.
        let data = images(&shape, 20);
        let order: Vec<u32> = (0..80).map(|i| i * 7 % 20).collect();
        for (name, settings) in optimizers() {
            for dropout in [0.0, 0.4] {
                let case = |what: &str| format!("{what} after ten steps of {name} of {:?}", shape.widths());
                let recipe_ = recipe(shape.clone(), settings, 8, dropout);
                let (mut engine, mut truth_) = (build(recipe_.clone(), data.clone()), truth(&recipe_, &data));
                for part in [&order[..20], &order[20..40], &order[40..60], &order[60..68]] {
                    let totals = engine.train_epoch(part, &mut quiet).unwrap();
                    let expected = truth_.train_epoch(part, &mut quiet).unwrap();
                    agree(&case("loss"), &[totals.loss_sum as f32], &[expected.loss_sum])?;
                    if (totals.images, totals.correct) != (expected.images, expected.correct) {
                        return Err(format!("{}: {totals:?}, expected {expected:?}", case("correct")));
                    }
                }
                let (state, expected) = (engine.state().unwrap(), truth_.state().unwrap());
                if state.step != 10 {
                    return Err(format!("{}: expected 10", case("step count")));
                }
                agree(&case("parameters"), &state.parameters, &as_f64(&expected.parameters))?;
                for (slot, expected) in state.slots.iter().zip(&expected.slots) {
                    agree(&case("optimizer state"), slot, &as_f64(expected))?;
                }
                // The state goes out and in: a fresh engine continues where this one stands.
                let mut other = build(recipe_.clone(), data.clone());
                other.load_state(&state).unwrap();
                other.train_epoch(&order[..20], &mut quiet).unwrap();
                engine.train_epoch(&order[..20], &mut quiet).unwrap();
                if other.state().unwrap() != engine.state().unwrap() {
                    return Err(case("another course after loading the state"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_engine_agrees_with_the_truth() {
    for (name, build) in engines() {
        compare(build).unwrap_or_else(|problem| panic!("{name}: {problem}"));
    }
}

/// Wider networks and larger batches than a kernel works on at a time, and sizes that leave a rest everywhere.
#[test]
fn every_engine_agrees_beyond_its_blocks() {
    for (name, build) in engines() {
        for (inputs, hidden, n) in [
            (170, &[300, 33][..], 600),
            (90, &[], 600),
            (170, &[300, 33], 9),
            (40, &[33, 300, 20], 130),
            (400, &[530], 70),
        ] {
            let shape = MlpShape::new(inputs, hidden, 10);
            for options in [[0.2, 0.0, 0.0], [0.2, 0.1, 0.0], [0.2, 0.1, 0.1]] {
                let agree = compare_a_step(&build, &shape, n, options);
                agree.unwrap_or_else(|problem| panic!("{name}: {problem}"));
            }
        }
    }
}

/// Pixels that are seldom nonzero: their weights wait for many steps, past the end of a period, and catch up at odd times.
#[test]
fn weights_without_gradient_are_updated_from_the_slots() {
    let shape = MlpShape::new(30, &[17], 3);
    let mut stream = Stream::new(3, Purpose::Order, 0);
    let n = 700;
    // Pixel p is nonzero in one of p^2 images.
    let mut pixel = |p: u32| if stream.below((p * p).max(1)) == 0 { 100 + stream.below(156) as u8 } else { 0 };
    let pixels: Vec<u8> = (0..n * 30).map(|i| pixel(i % 30)).collect();
    let labels = (0..n).map(|i| (i % 3) as u8).collect();
    let data = Arc::new(Images { pixels, labels, ..Images::default() });
    let order: Vec<u32> = (0..n).collect();
    for (name, build) in engines() {
        let cases =
            optimizers().into_iter().flat_map(|(optimizer, settings)| [0.0, 0.4].map(|p| (optimizer, settings, p)));
        for (optimizer, settings, skip_confident) in cases {
            let recipe = Recipe { skip_confident, ..recipe(shape.clone(), settings, 2, 0.0) };
            let (mut engine, mut truth) = (build(recipe.clone(), data.clone()), truth(&recipe, &data));
            for part in [&order[..300], &order[300..310], &order[310..]] {
                engine.train_epoch(part, &mut quiet).unwrap();
                truth.train_epoch(part, &mut quiet).unwrap();
                let (found, expected) = (engine.state().unwrap(), truth.state().unwrap());
                // Some hundred steps on a course that rounding alone makes drift.
                let near = |what: &str, found: &[f32], expected: &[f32]| {
                    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                        let distance = (found - expected).abs();
                        assert!(
                            distance <= 1e-3 * largest,
                            "{name}, {optimizer}, {skip_confident}: {what}[{i}] {found}, expected {expected}"
                        );
                    }
                };
                near("parameters", &found.parameters, &expected.parameters);
                found.slots.iter().zip(&expected.slots).for_each(|(found, expected)| near("slots", found, expected));
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let order: Vec<u32> = (0..500).collect();
    // 256 units: threads own one, two or four blocks of columns, alone or side by side.
    for hidden in [&[128, 33], &[70, 256]] {
        let shape = MlpShape::new(784, hidden, 10);
        let data = images(&shape, 500);
        for (name, build) in engines() {
            let state = |threads: usize, batch_size: usize, skip_confident: f64| {
                let recipe = recipe(shape.clone(), optimizers()[0].1, batch_size, 0.2);
                let recipe = Recipe { threads, skip_confident, ..recipe };
                let mut engine = build(recipe, data.clone());
                engine.train_epoch(&order, &mut quiet).unwrap();
                engine.state().unwrap()
            };
            for (batch_size, skip_confident) in [(128, 0.0), (128, 0.1), (400, 0.1)] {
                let one = state(1, batch_size, skip_confident);
                for threads in [2, 3, 8] {
                    let state = state(threads, batch_size, skip_confident);
                    assert!(state == one, "{name}, {hidden:?} by {batch_size} with {threads} threads");
                }
            }
        }
    }
}

/// Augmentation gives every epoch images of its own.
#[test]
fn every_engine_trains_on_new_images_as_the_reference_does() {
    for (inputs, hidden, classes) in &SHAPES[..2] {
        let shape = MlpShape::new(*inputs, hidden, *classes);
        let first = images(&shape, 20);
        let reversed = |bytes: &[u8]| bytes.iter().rev().copied().collect();
        let second =
            Arc::new(Images { pixels: reversed(&first.pixels), labels: reversed(&first.labels), ..(*first).clone() });
        let recipe = recipe(shape, OptimizerSettings::sgd(0.5), 8, 0.0);
        let order: Vec<u32> = (0..20).collect();
        let train = |engine: &mut dyn Trainer, next: &Arc<Images>| {
            engine.train_epoch(&order, &mut quiet).unwrap();
            engine.set_images(next.clone()).unwrap();
            let totals = engine.train_epoch(&order, &mut quiet).unwrap();
            (totals, engine.state().unwrap().parameters)
        };
        let (expected_totals, expected) = train(&mut truth(&recipe, &first), &second);
        assert_ne!(train(&mut truth(&recipe, &first), &first).1, expected);
        for (name, build) in engines() {
            let (totals, parameters) = train(&mut *build(recipe.clone(), first.clone()), &second);
            assert_eq!((totals.images, totals.correct), (20, expected_totals.correct), "{name}");
            agree(&format!("{name}: loss"), &[totals.loss_sum as f32], &[expected_totals.loss_sum]).unwrap();
            agree(&format!("{name}: parameters"), &parameters, &as_f64(&expected)).unwrap();
        }
    }
}

#[test]
fn an_epoch_ends_where_progress_fails() {
    let shape = MlpShape::new(6, &[5], 3);
    let data = images(&shape, 20);
    let order: Vec<u32> = (0..20).collect();
    for (name, build) in engines() {
        let mut engine = build(recipe(shape.clone(), OptimizerSettings::sgd(0.1), 4, 0.0), data.clone());
        let mut seen = 0;
        let mut stop = |progress: Progress| {
            seen = progress.images;
            if seen < 8 { Ok(()) } else { Err(mnist::error::Error::Interrupted { signal: 2 }) }
        };
        assert!(engine.train_epoch(&order, &mut stop).is_err(), "{name}");
        assert_eq!(engine.state().unwrap().step, seen as u64 / 4, "{name}");
    }
}

// ---- the truth itself

#[test]
fn the_gradients_of_the_reference_are_those_of_small_differences() {
    for (inputs, hidden, classes) in SHAPES {
        for [dropout, label_smoothing] in [[0.0, 0.0], [0.4, 0.0], [0.4, 0.3]] {
            let shape = MlpShape::new(inputs, hidden, classes);
            let data = images(&shape, 5);
            let recipe = recipe(shape.clone(), OptimizerSettings::sgd(0.1), 5, dropout);
            let mut reference = truth(&Recipe { label_smoothing, ..recipe }, &data);
            // Biases begin at zero, and a unit whose inputs are all cut then stands exactly on ReLU's bend.
            let mut stream = Stream::new(5, Purpose::Weights, 0);
            reference.parameters_mut().iter_mut().for_each(|p| *p += 0.2 * stream.uniform() - 0.1);
            let batch = [0, 1, 2, 3, 4];
            let gradient = reference.loss_and_gradient(&batch).gradient;
            for (p, &gradient) in gradient.iter().enumerate() {
                let step = 1e-6;
                let mut loss_at = |offset: f64| {
                    reference.parameters_mut()[p] += offset;
                    let loss = reference.loss_and_gradient(&batch).loss;
                    reference.parameters_mut()[p] -= offset;
                    loss
                };
                let numeric = (loss_at(step) - loss_at(-step)) / (2.0 * step);
                assert!((numeric - gradient).abs() < 1e-8, "{:?}[{p}]: {gradient}, numeric {numeric}", shape.widths());
            }
        }
    }
}

// ---- the truth against other programs

/// A network of `fixtures/*.json`; see `fixtures/README.md`.
#[derive(serde::Deserialize)]
struct Fixture {
    inputs: usize,
    hidden: Vec<usize>,
    classes: usize,
    batch_size: usize,
    pixels: Vec<u8>,
    labels: Vec<u8>,
    parameters: Vec<f32>,
    logits: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
    after_ten_steps: std::collections::BTreeMap<String, Vec<f64>>,
}

#[derive(serde::Deserialize)]
struct Fixtures {
    networks: Vec<Fixture>,
}

/// The reference in f64 with an engine's interface would lose its precision there; this asks it directly.
fn reference_against(fixture: &Fixture, settings_tolerance: f64) {
    let tolerance = 1e-10;
    let shape = MlpShape::new(fixture.inputs, &fixture.hidden, fixture.classes);
    let data = Arc::new(Images { pixels: fixture.pixels.clone(), labels: fixture.labels.clone(), ..Images::default() });
    let order: Vec<u32> = (0..data.len() as u32).collect();
    let near = |what: &str, found: &[f64], expected: &[f64], tolerance: f64| {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= tolerance, "{what}[{at}]: {found}, expected {expected}");
        }
    };
    let start = |settings: OptimizerSettings| {
        let mut reference = truth(&recipe(shape.clone(), settings, fixture.batch_size, 0.0), &data);
        reference.load_state(&TrainingState::new(&settings, fixture.parameters.clone())).unwrap();
        reference
    };
    let reference = start(OptimizerSettings::sgd(0.1));
    near("logits", &reference.exact_logits(&fixture.pixels), &fixture.logits, tolerance);
    let first = reference.loss_and_gradient(&order[..fixture.batch_size]);
    near("loss", &[first.loss], &[fixture.loss], tolerance);
    near("gradient", &first.gradient, &fixture.gradient, tolerance);

    let mut compared = 0;
    for (name, settings) in optimizers() {
        let Some(expected) = fixture.after_ten_steps.get(name) else { continue };
        let mut reference = start(settings);
        for part in [&order[..], &order, &order, &order[..fixture.batch_size]] {
            reference.train_epoch(part, &mut quiet).unwrap();
        }
        near(name, reference.parameters_mut(), expected, settings_tolerance);
        compared += 1;
    }
    assert_eq!(compared, fixture.after_ten_steps.len(), "an optimizer of the fixtures is not compared");
}

/// And every engine in f32, from the fixture's parameters through its interface.
fn engines_against(fixture: &Fixture) {
    let shape = MlpShape::new(fixture.inputs, &fixture.hidden, fixture.classes);
    let data = Arc::new(Images { pixels: fixture.pixels.clone(), labels: fixture.labels.clone(), ..Images::default() });
    let order: Vec<u32> = (0..data.len() as u32).collect();
    for (engine_name, build) in engines() {
        for (name, settings) in optimizers() {
            let Some(expected) = fixture.after_ten_steps.get(name) else { continue };
            let mut engine = build(recipe(shape.clone(), settings, fixture.batch_size, 0.0), data.clone());
            engine.load_state(&TrainingState::new(&settings, fixture.parameters.clone())).unwrap();
            agree("logits", &engine.logits(&fixture.pixels).unwrap(), &fixture.logits).unwrap();
            for part in [&order[..], &order, &order, &order[..fixture.batch_size]] {
                engine.train_epoch(part, &mut quiet).unwrap();
            }
            agree(&format!("{engine_name}, {name}"), &engine.state().unwrap().parameters, expected).unwrap();
        }
    }
}

#[test]
fn keras_computes_the_same() {
    let fixtures: Fixtures = serde_json::from_str(include_str!("fixtures/keras.json")).unwrap();
    for fixture in &fixtures.networks {
        assert_eq!(fixture.after_ten_steps.len(), optimizers().len());
        // Keras rounds an optimizer's settings to float32, whatever the network's type.
        reference_against(fixture, 1e-7);
        engines_against(fixture);
    }
}

#[test]
fn pytorch_computes_the_same() {
    let fixtures: Fixtures = serde_json::from_str(include_str!("fixtures/pytorch.json")).unwrap();
    for fixture in &fixtures.networks {
        assert_eq!(fixture.after_ten_steps.len(), 4);
        reference_against(fixture, 1e-10);
        engines_against(fixture);
    }
}

// ---- the checks themselves

/// An engine with one thing wrong.
struct Broken {
    inner: Reference<f32>,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    ZeroLogits,
    LastLogitOff,
    LastImageOfTheBatchLeftOut,
    OneParameterOff,
    LearningRateOff,
    StateNotLoaded,
    CountOff,
    NoDropout,
    NoLabelSmoothing,
    NoneSkipped,
}

impl Network for Broken {
    fn info(&self) -> EngineInfo {
        self.inner.info()
    }
    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        let mut logits = self.inner.logits(pixels)?;
        match (self.fault, logits.last_mut()) {
            (Fault::ZeroLogits, _) => logits.fill(0.0),
            (Fault::LastLogitOff, Some(last)) => *last += 1e-3,
            _ => {}
        }
        Ok(logits)
    }
}

impl Trainer for Broken {
    fn train_epoch(&mut self, order: &[u32], progress: &mut Report) -> Result<EpochTotals> {
        let order = match self.fault {
            Fault::LastImageOfTheBatchLeftOut if order.len() > 1 => &order[..order.len() - 1],
            _ => order,
        };
        let mut totals = self.inner.train_epoch(order, progress)?;
        totals.correct += usize::from(self.fault == Fault::CountOff);
        Ok(totals)
    }
    fn state(&mut self) -> Result<TrainingState> {
        let mut state = self.inner.state()?;
        if let (Fault::OneParameterOff, 10, Some(last)) = (self.fault, state.step, state.parameters.last_mut()) {
            *last += 1e-3;
        }
        Ok(state)
    }
    fn load_state(&mut self, state: &TrainingState) -> Result<()> {
        if self.fault == Fault::StateNotLoaded { Ok(()) } else { self.inner.load_state(state) }
    }
    fn set_images(&mut self, train: Arc<Images>) -> Result<()> {
        self.inner.set_images(train)
    }
}

#[test]
fn a_broken_engine_is_objected_to() {
    let with = |fault: Fault| {
        compare(move |mut recipe, train| {
            match fault {
                Fault::LearningRateOff => recipe.optimizer.schedule.learning_rate *= 1.01,
                Fault::NoDropout => recipe.dropout = 0.0,
                Fault::NoLabelSmoothing => recipe.label_smoothing = 0.0,
                Fault::NoneSkipped => recipe.skip_confident = 0.0,
                _ => {}
            }
            Box::new(Broken { inner: Reference::new(recipe, train), fault })
        })
    };
    assert_eq!(with(Fault::None), Ok(()));
    for fault in [
        Fault::ZeroLogits,
        Fault::LastLogitOff,
        Fault::LastImageOfTheBatchLeftOut,
        Fault::OneParameterOff,
        Fault::LearningRateOff,
        Fault::StateNotLoaded,
        Fault::CountOff,
        Fault::NoDropout,
        Fault::NoLabelSmoothing,
        Fault::NoneSkipped,
    ] {
        assert!(with(fault).is_err(), "{fault:?} passes");
    }
}
