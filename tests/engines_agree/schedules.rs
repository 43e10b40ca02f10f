//! Learning rate schedules and label smoothing: every engine against the reference, and both against Keras and PyTorch.

use std::collections::BTreeMap;

use super::*;
use mnist::optim::ScheduleKind;

/// Images of `shape` for ten steps of eight, nine in ten pixels black: in each batch many weights have no gradient.
fn sparse_images(shape: &MlpShape, n: usize) -> Arc<Images> {
    let mut stream = Stream::new(13, Purpose::Order, n as u64);
    let mut pixel = || if stream.below(10) < 9 { 0 } else { stream.below(256) as u8 };
    let pixels = (0..n * shape.inputs()).map(|_| pixel()).collect();
    let labels = (0..n).map(|_| stream.below(shape.classes() as u32) as u8).collect();
    Arc::new(Images { pixels, labels, ..Images::default() })
}

/// `settings` under the schedule `kind`, planned for `steps` steps.
fn under(settings: OptimizerSettings, kind: ScheduleKind, warmup_steps: u64, steps: u64) -> OptimizerSettings {
    let learning_rate = settings.schedule.learning_rate;
    let final_learning_rate = kind.default_final(learning_rate);
    let schedule = Schedule { kind, learning_rate, final_learning_rate, warmup_steps, steps };
    OptimizerSettings { schedule, ..settings }
}

/// Ten steps of each optimizer under each schedule, through the engine that `build` makes and through the truth.
fn compare_schedules(build: impl Fn(Recipe, Arc<Images>) -> Box<dyn Trainer>) -> std::result::Result<(), String> {
    let shape = MlpShape::new(40, &[7], 4);
    let data = sparse_images(&shape, 80);
    let order: Vec<u32> = (0..80).collect();
    for (name, settings) in optimizers() {
        for (schedule, kind) in ScheduleKind::ALL {
            for warmup_steps in [0, 4] {
                let case =
                    |what: &str| format!("{what} after ten steps of {name}, {schedule}, {warmup_steps} of warmup");
                let recipe = recipe(shape.clone(), under(settings, kind, warmup_steps, 9), 8, 0.2);
                let (mut engine, mut truth) = (build(recipe.clone(), data.clone()), truth(&recipe, &data));
                let totals = engine.train_epoch(&order, &mut quiet).unwrap();
                let expected = truth.train_epoch(&order, &mut quiet).unwrap();
                agree(&case("loss"), &[totals.loss_sum as f32], &[expected.loss_sum])?;
                let (state, expected) = (engine.state().unwrap(), truth.state().unwrap());
                agree(&case("parameters"), &state.parameters, &as_f64(&expected.parameters))?;
                for (slot, expected) in state.slots.iter().zip(&expected.slots) {
                    agree(&case("optimizer state"), slot, &as_f64(expected))?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_engine_agrees_under_every_schedule() {
    for (name, build) in engines() {
        compare_schedules(build).unwrap_or_else(|problem| panic!("{name}: {problem}"));
    }
}

#[test]
fn an_engine_with_another_schedule_is_objected_to() {
    let with = |change: fn(&mut Schedule)| {
        compare_schedules(move |mut recipe, train| {
            change(&mut recipe.optimizer.schedule);
            Box::new(Reference::<f32>::new(recipe, train))
        })
    };
    assert_eq!(with(|_| ()), Ok(()));
    type Change = fn(&mut Schedule);
    let changes: [(&str, Change); 4] = [
        ("no schedule", |schedule| *schedule = Schedule::constant(schedule.learning_rate)),
        ("a step more", |schedule| schedule.steps += 1),
        ("a step of warmup more", |schedule| schedule.warmup_steps += 1),
        ("another end", |schedule| schedule.final_learning_rate += 0.1 * schedule.learning_rate),
    ];
    for (name, change) in changes {
        assert!(with(change).is_err(), "{name} passes");
    }
}

/// An epoch is longer than a period of the lazy update, but on GPUs, which have none and may be slow here. Calling `state`
/// must not disturb the engine either.
#[test]
fn a_fresh_engine_goes_on_from_the_state_after_an_epoch_bit_by_bit() {
    let shape = MlpShape::new(30, &[17], 3);
    let data = sparse_images(&shape, 281);
    for (name, build) in engines() {
        let images = if name.ends_with("gpu") { 41 } else { 281 };
        let orders: [Vec<u32>; 2] = [(0..images).collect(), (0..images).rev().collect()];
        for (at, (optimizer, settings)) in optimizers().into_iter().enumerate() {
            let changing = ScheduleKind::ALL[1 + at % 5].1;
            for (kind, warmup_steps) in [(ScheduleKind::Constant, 0), (changing, 20)] {
                let settings = under(settings, kind, warmup_steps, u64::from(images) - 11);
                let recipe = Recipe { label_smoothing: 0.1, ..recipe(shape.clone(), settings, 2, 0.3) };
                let [mut whole, mut first, mut second] = [(); 3].map(|()| build(recipe.clone(), data.clone()));
                whole.train_epoch(&orders[0], &mut quiet).unwrap();
                let expected = whole.train_epoch(&orders[1], &mut quiet).unwrap();
                first.train_epoch(&orders[0], &mut quiet).unwrap();
                second.load_state(&first.state().unwrap()).unwrap();
                let case = format!("{name}, {optimizer}, {}", kind.name());
                assert_eq!(second.train_epoch(&orders[1], &mut quiet).unwrap(), expected, "{case}");
                let expected = whole.state().unwrap();
                assert!(second.state().unwrap() == expected, "{case}: another state");
                first.train_epoch(&orders[1], &mut quiet).unwrap();
                assert!(first.state().unwrap() == expected, "{case}: another state after a copy of it");
            }
        }
    }
}

#[test]
fn the_last_progress_of_an_epoch_is_its_totals() {
    let shape = MlpShape::new(6, &[5], 3);
    let data = images(&shape, 20);
    let order: Vec<u32> = (0..20).collect();
    for (name, build) in engines() {
        let mut engine = build(recipe(shape.clone(), OptimizerSettings::sgd(0.1), 4, 0.0), data.clone());
        let mut last = None;
        let mut keep = |progress: Progress| {
            last = Some(progress);
            Ok(())
        };
        let totals = engine.train_epoch(&order, &mut keep).unwrap();
        let (loss, accuracy) = (Some(totals.loss_sum / 20.0), Some(totals.correct as f64 / 20.0));
        assert_eq!(last, Some(Progress { images: 20, loss, accuracy }), "{name}");
    }
}

// ---- against other programs

/// What `fixtures/*.json` hold of schedules and label smoothing; see `fixtures/README.md`.
#[derive(serde::Deserialize)]
struct Fixtures {
    networks: Vec<Network>,
    schedules: Vec<Rates>,
    label_smoothing: f64,
    schedule_of_ten_steps: Option<Planned>,
}

#[derive(serde::Deserialize)]
struct Planned {
    schedule: String,
    learning_rate: f64,
    final_learning_rate: f64,
    warmup_steps: u64,
    steps: u64,
}

#[derive(serde::Deserialize)]
struct Rates {
    #[serde(flatten)]
    planned: Planned,
    rates: Vec<f64>,
}

#[derive(serde::Deserialize)]
struct Network {
    #[serde(flatten)]
    network: Fixture,
    smoothed_loss: f64,
    smoothed_gradient: Vec<f64>,
    #[serde(default)]
    after_ten_scheduled_steps: BTreeMap<String, Vec<f64>>,
}

fn fixtures() -> [(&'static str, Fixtures); 2] {
    let [keras, pytorch] = [include_str!("../fixtures/keras.json"), include_str!("../fixtures/pytorch.json")];
    [("Keras", keras), ("PyTorch", pytorch)].map(|(name, text)| (name, serde_json::from_str(text).unwrap()))
}

impl Planned {
    fn schedule(&self) -> Schedule {
        let Self { learning_rate, final_learning_rate, warmup_steps, steps, .. } = *self;
        let (_, kind) = ScheduleKind::ALL.into_iter().find(|(name, _)| *name == self.schedule).unwrap();
        Schedule { kind, learning_rate, final_learning_rate, warmup_steps, steps }
    }
}

fn near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{what}[{at}]: {found}, expected {expected}");
    }
}

#[test]
fn the_rates_of_200_steps_are_those_of_keras_and_pytorch() {
    let mut compared = vec![];
    for (program, fixtures) in fixtures() {
        for Rates { planned, rates } in &fixtures.schedules {
            let schedule = planned.schedule();
            let found: Vec<f64> = (1..=200).map(|step| schedule.rate(step)).collect();
            near(&format!("{program}: {schedule:?}"), &found, rates, 1e-10 * planned.learning_rate);
            compared.push(schedule.kind);
        }
    }
    for (name, kind) in ScheduleKind::ALL {
        assert!(kind == ScheduleKind::Constant || compared.contains(&kind), "{name} is not compared");
    }
}

/// The network of `fixture` under `settings`, in f64.
fn reference(fixture: &Fixture, settings: OptimizerSettings, label_smoothing: f64) -> Reference<f64> {
    let shape = MlpShape::new(fixture.inputs, &fixture.hidden, fixture.classes);
    let data = Arc::new(Images { pixels: fixture.pixels.clone(), labels: fixture.labels.clone(), ..Images::default() });
    let recipe = Recipe { label_smoothing, ..recipe(shape, settings, fixture.batch_size, 0.0) };
    let mut reference = truth(&recipe, &data);
    reference.load_state(&TrainingState::new(&settings, fixture.parameters.clone())).unwrap();
    reference
}

#[test]
fn smoothed_labels_are_those_of_keras_and_pytorch() {
    for (program, fixtures) in fixtures() {
        for Network { network, smoothed_loss, smoothed_gradient, .. } in &fixtures.networks {
            let reference = reference(network, OptimizerSettings::sgd(0.1), fixtures.label_smoothing);
            let batch: Vec<u32> = (0..network.batch_size as u32).collect();
            let found = reference.loss_and_gradient(&batch);
            near(&format!("{program}: loss"), &[found.loss], &[*smoothed_loss], 1e-10);
            near(&format!("{program}: gradient"), &found.gradient, smoothed_gradient, 1e-10);
        }
    }
}

#[test]
fn ten_steps_under_a_schedule_are_those_of_keras() {
    let [(_, keras), _] = fixtures();
    let schedule = keras.schedule_of_ten_steps.unwrap().schedule();
    let options = OptimizerOptions { weight_decay: 0.01, ..OptimizerOptions::default() };
    for Network { network, after_ten_scheduled_steps, .. } in &keras.networks {
        let order: Vec<u32> = (0..network.labels.len() as u32).collect();
        for (name, expected) in after_ten_scheduled_steps {
            let (_, kind) = OptimizerKind::ALL.into_iter().find(|(optimizer, _)| optimizer == name).unwrap();
            let mut reference = reference(network, kind.settings(schedule, &options), 0.0);
            for part in [&order[..], &order, &order, &order[..network.batch_size]] {
                reference.train_epoch(part, &mut quiet).unwrap();
            }
            // Keras rounds an optimizer's settings to float32, whatever the network's type.
            near(name, reference.parameters_mut(), expected, 1e-6);
        }
        assert_eq!(after_ten_scheduled_steps.len(), 2);
    }
}
