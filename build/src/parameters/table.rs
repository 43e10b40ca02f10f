//! The table of parameters. The file's reader, the flags, their help, docs/parameters.md, the JSON schema and the
//! MLPerf log are made from it or checked against it. A new parameter is a field and its default in `values.rs`, and a
//! row here.

use std::ops::Bound::{Excluded, Included};

use super::key::{Key, ValueKind, fraction, named, names};
use super::values::Keep;
use crate::data::augment::AugmentKind;
use crate::engine::choice::{DeviceChoice, EngineChoice};
use crate::model::{MOST_MEMBERS, MOST_UNITS};
use crate::optim::{OptimizerKind, ScheduleKind};
use crate::simd::Precision;

/// The largest batch.
const MOST_BATCH: u64 = 1_000_000;

// Dropout numbers the units of a layer, for all images of a batch, by 32 bits.
const _: () = assert!(MOST_BATCH * MOST_UNITS as u64 <= 1 << 32);

/// All parameters, in the order in which they are explained and written.
pub static KEYS: [Key; 36] = [
    Key::new(
        "optimizer",
        "adam, adamw, sgd, rmsprop or adagrad",
        ValueKind::Text {
            choices: || names(&OptimizerKind::ALL),
            set: |p, text| named(&OptimizerKind::ALL, text).map(|value| p.optimizer = value),
        },
    )
    .logged_as("opt_name"),
    Key::new(
        "train_epochs",
        "How often each training image is seen",
        ValueKind::Whole { least: 1, most: 100_000, set: |p, value| p.train_epochs = value as u32 },
    )
    .or("epochs")
    .logged_as("max_epochs"),
    Key::new(
        "batch_size",
        "Images per step, over all threads together",
        ValueKind::Whole { least: 1, most: MOST_BATCH, set: |p, value| p.batch_size = value as usize },
    )
    .logged_as("global_batch_size"),
    Key::new(
        "learning_rate",
        "The step size",
        ValueKind::Number {
            expected: "a number above 0 and at most 1000",
            range: (Excluded(0.0), Included(1000.0)),
            set: |p, value| p.learning_rate = value,
        },
    )
    .default_in_words("0.01 for sgd, else 0.001")
    .logged_as("opt_base_learning_rate"),
    Key::new(
        "momentum",
        "The fraction of the last update that is kept, for sgd and rmsprop",
        fraction(|p, value| p.momentum = value),
    ),
    Key::new(
        "nesterov",
        "Nesterov's variant of momentum, for sgd: true or false",
        ValueKind::Truth { set: |p, value| p.nesterov = value },
    ),
    Key::new(
        "weight_decay",
        "Decoupled decay of weights and biases, per step and times the learning rate",
        ValueKind::Number {
            expected: "a number from 0 to 1",
            range: (Included(0.0), Included(1.0)),
            set: |p, value| p.weight_decay = value,
        },
    )
    .logged_as("opt_weight_decay"),
    Key::new(
        "hidden_layers",
        "The width of each hidden layer, such as 256,128; [] for none",
        ValueKind::Widths { set: |p, value| p.hidden_layers = value },
    )
    .logged_as("hidden_layers"),
    Key::new(
        "dropout",
        "The fraction of activations dropped after each hidden layer",
        fraction(|p, value| p.dropout = value),
    )
    .logged_as("dropout"),
    Key::new(
        "label_smoothing",
        "s: training targets are (1 - s) onehot + s / K, for K classes",
        fraction(|p, value| p.label_smoothing = value),
    )
    .logged_as("label_smoothing"),
    Key::new(
        "skip_confident",
        "Training images whose label has at least this probability, such as 0.99, have no backward pass; 0: all have",
        fraction(|p, value| p.skip_confident = value),
    ),
    Key::new(
        "schedule",
        "How the learning rate changes: constant, linear, cosine, one_cycle, step or exponential",
        ValueKind::Text {
            choices: || names(&ScheduleKind::ALL),
            set: |p, text| named(&ScheduleKind::ALL, text).map(|value| p.schedule = value),
        },
    )
    .logged_as("opt_learning_rate_decay_schedule"),
    Key::new(
        "warmup",
        "The steps in which the rate rises: a share of all or, if 1 or more, this many epochs",
        ValueKind::Number {
            expected: "a share from 0 to below 1, or a number of epochs up to 100000",
            range: (Included(0.0), Included(100_000.0)),
            set: |p, value| p.warmup = value,
        },
    )
    .default_in_words("0.3 for one_cycle, else 0"),
    Key::new(
        "final_learning_rate",
        "The rate at the end of a schedule that is not constant",
        ValueKind::Number {
            expected: "a number from 0 to 1000",
            range: (Included(0.0), Included(1000.0)),
            set: |p, value| p.final_learning_rate = Some(value),
        },
    )
    .default_in_words("by schedule")
    .logged_as("opt_end_learning_rate"),
    Key::new(
        "ema",
        "Decay per step of the averaged weights, such as 0.999, which are evaluated and saved; 0: none",
        fraction(|p, value| p.ema = value),
    )
    .logged_as("model_eval_ema_factor"),
    Key::new(
        "augment",
        "How training images are distorted, anew in every epoch: none, affine, elastic or both",
        ValueKind::Text {
            choices: || names(AugmentKind::ALL),
            set: |p, text| named(AugmentKind::ALL, text).map(|value| p.augment = value),
        },
    ),
    Key::new(
        "rotation",
        "The largest rotation by augment affine or both, in degrees",
        ValueKind::Number {
            expected: "degrees from 0 to 180",
            range: (Included(0.0), Included(180.0)),
            set: |p, value| p.rotation = Some(value),
        },
    )
    .default_in_words("7 for affine and both"),
    Key::new(
        "scale",
        "The largest change of width and height by augment affine or both, as a share",
        ValueKind::Number {
            expected: "a share from 0 to 0.9",
            range: (Included(0.0), Included(0.9)),
            set: |p, value| p.scale = Some(value),
        },
    )
    .default_in_words("0.08 for affine and both"),
    Key::new(
        "shear",
        "The largest shear by augment affine or both: pixels per row",
        ValueKind::Number {
            expected: "a number from 0 to 1",
            range: (Included(0.0), Included(1.0)),
            set: |p, value| p.shear = Some(value),
        },
    )
    .default_in_words("0.05 for affine and both"),
    Key::new(
        "shift",
        "The largest shift by augment affine or both, in pixels",
        ValueKind::Number {
            expected: "pixels from 0 to 14",
            range: (Included(0.0), Included(14.0)),
            set: |p, value| p.shift = Some(value),
        },
    )
    .default_in_words("0.3 for affine and both"),
    Key::new(
        "elastic_sigma",
        "Simard's sigma, the smoothness of elastic distortion in pixels",
        ValueKind::Number {
            expected: "pixels from 1 to 28",
            range: (Included(1.0), Included(28.0)),
            set: |p, value| p.elastic_sigma = Some(value),
        },
    )
    .default_in_words("7 for elastic and both"),
    Key::new(
        "elastic_alpha",
        "Simard's alpha, its strength: displacements have an RMS of 0.163 alpha / sigma pixels",
        ValueKind::Number {
            expected: "a number from 0 to 1000",
            range: (Included(0.0), Included(1000.0)),
            set: |p, value| p.elastic_alpha = Some(value),
        },
    )
    .default_in_words("56 for elastic and both"),
    Key::new(
        "validation",
        "Images from the end of the training set to validate with: below 1 a share, else a number",
        ValueKind::Part { most: 4_000_000_000, set: |p, value| p.validation = value },
    ),
    Key::new(
        "keep",
        "The model that is kept: last, or best by validation loss; one that reaches target_accuracy in any case",
        ValueKind::Text {
            choices: || names(Keep::ALL),
            set: |p, text| named(Keep::ALL, text).map(|value| p.keep = value),
        },
    ),
    Key::new(
        "early_stopping",
        "End after this many epochs without a lower validation loss; 0: never",
        ValueKind::Whole { least: 0, most: 100_000, set: |p, value| p.early_stopping = value as u32 },
    ),
    Key::new(
        "min_delta",
        "How much lower the loss must be to count for early_stopping",
        ValueKind::Number {
            expected: "a number from 0 to 1000",
            range: (Included(0.0), Included(1000.0)),
            set: |p, value| p.min_delta = value,
        },
    ),
    Key::new(
        "target_accuracy",
        "End at this validation or test accuracy and keep its model; fail if it is not reached; 0: none",
        ValueKind::Number {
            expected: "a share from 0 to 1, such as 0.98",
            range: (Included(0.0), Included(1.0)),
            set: |p, value| p.target_accuracy = value,
        },
    )
    .logged_as("target_accuracy"),
    Key::new(
        "max_seconds",
        "End after this many seconds with the model so far, as keep chooses it; 0: no limit",
        ValueKind::Number {
            expected: "a number from 0 to 1e9",
            range: (Included(0.0), Included(1e9)),
            set: |p, value| p.max_seconds = value,
        },
    ),
    Key::new(
        "snapshots",
        "Write the state for --resume every this many epochs; 0: never",
        ValueKind::Whole { least: 0, most: 100_000, set: |p, value| p.snapshots = value as u32 },
    ),
    Key::new(
        "ensemble",
        "How many networks are trained, with other initial weights and dropout; their probabilities are averaged",
        ValueKind::Whole { least: 1, most: MOST_MEMBERS as u64, set: |p, value| p.ensemble = value as usize },
    ),
    Key::new(
        "seed",
        "The seed of initial weights, order, dropout and augmentation",
        ValueKind::Whole { least: 0, most: u64::MAX, set: |p, value| p.seed = value },
    )
    .logged_as("seed"),
    Key::new(
        "device",
        "auto, cpu, gpu, or one of those that `mnist devices` lists: gpu:NUMBER, gpu:NAME",
        ValueKind::Text {
            choices: || DeviceChoice::CHOICES.into(),
            set: |p, text| DeviceChoice::parse(text).map(|value| p.device = value),
        },
    ),
    Key::new(
        "gpus",
        "How many GPUs of one kind share out each batch: auto (one, or all if that is faster), all, or a number",
        ValueKind::Gpus { set: |p, value| p.gpus = value },
    ),
    Key::new(
        "engine",
        "auto, fused or burn; auto is fused",
        ValueKind::Text {
            choices: || names(EngineChoice::ALL),
            set: |p, text| named(EngineChoice::ALL, text).map(|value| p.engine = value),
        },
    ),
    Key::new(
        "precision",
        "What the products of hidden layers are made of: float32, or bf16 (rounded more; faster with AMX)",
        ValueKind::Text {
            choices: || names(Precision::ALL),
            set: |p, text| named(Precision::ALL, text).map(|value| p.precision = value),
        },
    ),
    Key::new(
        "threads",
        "The number of threads; 0: one for each processor, or fewer where these are faster",
        ValueKind::Whole { least: 0, most: 1024, set: |p, value| p.threads = value as usize },
    ),
];

/// The row of that name or synonym.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name || key.synonym == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;

    #[test]
    fn every_field_has_one_row_in_its_order() {
        let some = Some(0.1);
        let (rotation, scale, shear, shift) = (some, some, some, some);
        let (elastic_sigma, elastic_alpha, final_learning_rate) = (some, some, some);
        let defaults = Parameters::default();
        let all =
            Parameters { rotation, scale, shear, shift, elastic_sigma, elastic_alpha, final_learning_rate, ..defaults };
        let fields = serde_json::to_value(all).unwrap();
        let fields: Vec<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, KEYS.each_ref().map(|key| key.name));
    }

    #[test]
    fn defaults_are_shown_as_they_are_typed() {
        let shown = |name| find(name).unwrap().default();
        assert_eq!(shown("optimizer"), "adam");
        assert_eq!(shown("momentum"), "0");
        assert_eq!(shown("dropout"), "0.2");
        assert_eq!(shown("hidden_layers"), "128");
        for key in KEYS.iter().filter(|key| key.default.is_none()) {
            let mut parameters = Parameters::default();
            key.set(&mut parameters, &key.given_by_flag(&key.default())).unwrap();
            assert_eq!(parameters, Parameters::default(), "{}", key.name);
        }
    }
}
