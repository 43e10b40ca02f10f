//! Whether a training goes on from a snapshot as if it had never stopped.

use std::path::Path;

use serde_json::Value;

use super::snapshot::Snapshot;
use crate::data::dataset::Provenance;
use crate::engine::Recipe;
use crate::engine::choice::{Choice, DeviceChoice, EngineChoice, GpuCount};
use crate::error::{Error, Result};
use crate::output::finished::InitialModel;
use crate::parameters::Parameters;
use crate::parameters::table::KEYS;
use crate::text;

/// The parameters that may differ when a training goes on, since none of them changes a step, but for its rounding: how long it
/// goes on, and how fast. A smaller `train_epochs` than the epochs that are done is refused.
const MAY_CHANGE: [&str; 6] = ["train_epochs", "target_accuracy", "max_seconds", "snapshots", "gpus", "threads"];

impl Snapshot {
    /// The engine and the devices of the training, where `asked` leaves them open: others would give other bytes.
    pub fn choice(&self, asked: Choice) -> Choice {
        let text = |key: &str| self.parameters[key].as_str().unwrap_or_default();
        let engine = match asked.engine {
            EngineChoice::Auto => {
                EngineChoice::ALL.iter().find(|(name, _)| *name == text("engine")).map(|(_, engine)| *engine)
            }
            engine => Some(engine),
        };
        let device = match asked.device {
            DeviceChoice::Auto => DeviceChoice::parse(text("device")),
            device => Some(device),
        };
        let gpus = if asked.gpus == GpuCount::Auto { GpuCount::Number(self.gpus()) } else { asked.gpus };
        Choice { engine: engine.unwrap_or(EngineChoice::Auto), device: device.unwrap_or(DeviceChoice::Auto), gpus }
    }

    /// How many GPUs shared out each batch, or 1.
    pub fn gpus(&self) -> usize {
        // A program that does not say it used one.
        self.parameters["gpus"].as_u64().map_or(1, |gpus| gpus as usize)
    }

    /// Checks that a training with `parameters`, in which no `auto` is left, on `data` and by `recipe` goes on from here as
    /// if it had never stopped. `path` is for messages.
    ///
    /// # Errors
    /// The data set is another one, a parameter differs that changes steps, or the network has another shape.
    pub fn check(&self, path: &Path, parameters: &Parameters, data: &Provenance, recipe: &Recipe) -> Result<()> {
        let fault = |problem: String, next: String| Error::Snapshot { path: path.into(), problem, next };
        let anew = "train without --resume";
        for file in &data.files {
            let before = self.data.iter().find(|before| before.name == file.name);
            if before.is_none_or(|before| before.sha256 != file.sha256) {
                let differs = match before {
                    Some(before) => text::different_hashes(&before.sha256, &file.sha256),
                    None => "expected none, found one".into(),
                };
                let problem = format!("is of a training on other data: {}: {differs}", file.name);
                return Err(fault(problem, format!("give the data set of that training as --data_dir, or {anew}")));
            }
        }
        self.check_parameters(&parameters.to_json()).map_err(|(problem, next)| {
            fault(format!("is of a training with other parameters: {problem}"), format!("{next}, or {anew}"))
        })?;
        let (expected, found) = (recipe.parameter_count(), self.state.parameters.len());
        if expected != found {
            let problem = format!("is of another network: expected {expected} parameters, found {found}");
            return Err(fault(problem, anew.into()));
        }
        let slots: Vec<_> = recipe.optimizer.slots().iter().map(|slot| slot.name).collect();
        if slots != self.slots {
            let problem = format!("is of another optimizer: expected its slots {slots:?}, found {:?}", self.slots);
            return Err(fault(problem, anew.into()));
        }
        let (epoch, per_epoch) = (self.epoch(), data.train_images.div_ceil(parameters.batch_size));
        if self.state.step != u64::from(epoch) * per_epoch as u64 {
            let (steps, found) = (text::counted(per_epoch, "step"), self.state.step);
            let problem = format!("expected {steps} in each of {epoch} epochs, found {found} in all");
            return Err(fault(problem, anew.into()));
        }
        Ok(())
    }

    /// Checks that the training began with the model `given`. `path` is for messages.
    ///
    /// # Errors
    /// It began with another one, or with none.
    pub fn check_init(&self, path: &Path, given: &InitialModel) -> Result<()> {
        let shown =
            |model: &InitialModel| format!("{} with the SHA-256 {}", model.path, text::shortened(&model.sha256));
        let (expected, next) = match &self.init {
            Some(init) if init.sha256 == given.sha256 => return Ok(()),
            Some(init) => (shown(init), format!("give --init={}, or leave it out", text::quoted(init.path.as_ref()))),
            None => ("none".into(), "leave out --init".into()),
        };
        let problem = format!("is of a training with another --init: expected {expected}, found {}", shown(given));
        Err(Error::Snapshot { path: path.into(), problem, next: format!("{next}, or train without --resume") })
    }

    /// Compares with the parameters `given`. The error names all that differ and may not, and the next step.
    fn check_parameters(&self, given: &Value) -> std::result::Result<(), (String, String)> {
        let defaults = Parameters::default().to_json();
        let compared = KEYS.iter().map(|key| key.name).filter(|key| !MAY_CHANGE.contains(key));
        let (mut problems, mut next) = (vec![], vec![]);
        for key in compared {
            // The program that wrote a snapshot before there was this key did what the default does.
            let before = self.parameters.get(key).unwrap_or(&defaults[key]);
            if *before != given[key] {
                problems.push(format!("{key}: expected {}, found {}", typed(before), typed(&given[key])));
                next.push(match before {
                    Value::Null => format!("leave out {key}"),
                    _ => format!("set {key} to {}", typed(before)),
                });
            }
        }
        let (done, epochs) = (u64::from(self.epoch()), given["train_epochs"].as_u64().unwrap_or_default());
        if epochs < done {
            problems.push(format!("train_epochs: expected at least {done}, found {epochs}"));
            next.push(format!("set train_epochs to at least {done}"));
        }
        if !problems.is_empty() {
            return Err((problems.join("; "), next.join(", ")));
        }
        let known = |name: &str| MAY_CHANGE.contains(&name) || KEYS.iter().any(|key| key.name == name);
        match self.parameters.as_object().into_iter().flatten().find(|(name, _)| !known(name)) {
            None => Ok(()),
            Some((name, value)) => {
                let problem = format!("{name}: expected {}, found a program without it", typed(value));
                Err((problem, "use the version of the program that wrote the snapshot".into()))
            }
        }
    }
}

/// A value as it is typed in a parameters file.
fn typed(value: &Value) -> String {
    text::shortened(&match value {
        Value::Null => "none".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::AugmentKind;
    use crate::data::dataset::{FileHash, Images};
    use crate::data::sets::DataSource;
    use crate::training::snapshot::tests::{example, parameters};
    use crate::training::snapshot::{decode, encode};

    /// The message of [`Snapshot::check`] and its hint.
    fn refused(snapshot: &Snapshot, given: &Parameters, data: &[FileHash]) -> std::result::Result<(), String> {
        let provenance = Provenance {
            source: DataSource(None),
            train_images: 1,
            validation_images: 0,
            test_images: 1,
            files: data.to_vec(),
        };
        let images = Images { side: 2, classes: &["a", "b"], pixels: vec![0; 4], labels: vec![0] };
        let recipe = given.recipe(&images);
        let checked = snapshot.check(Path::new("s"), given, &provenance, &recipe);
        checked.map_err(|error| format!("{error}; {}", error.hint().unwrap()))
    }

    #[test]
    fn a_training_goes_on_with_the_same_parameters_but_for_those_that_change_no_step() {
        let snapshot = decode(&encode(&example(1, 3))).unwrap();
        let refused = |given: Parameters| refused(&snapshot, &given, &snapshot.data);
        assert_eq!(refused(parameters()), Ok(()));
        assert_eq!(refused(Parameters { threads: 1, train_epochs: 3, ..parameters() }), Ok(()));
        assert_eq!(
            refused(Parameters { train_epochs: 2, ..parameters() }).unwrap_err(),
            "s: is of a training with other parameters: train_epochs: expected at least 3, found 2; set train_epochs to \
             at least 3, or train without --resume"
        );
        assert_eq!(
            refused(Parameters { learning_rate: 0.3, ..parameters() }).unwrap_err(),
            "s: is of a training with other parameters: learning_rate: expected 0.30000000000000004, found 0.3; set \
             learning_rate to 0.30000000000000004, or train without --resume"
        );
        assert_eq!(
            refused(Parameters { train_epochs: 2, seed: 1, dropout: 0.5, ..parameters() }).unwrap_err(),
            "s: is of a training with other parameters: dropout: expected 0.2, found 0.5; seed: expected 42, found 1; \
             train_epochs: expected at least 3, found 2; set dropout to 0.2, set seed to 42, set train_epochs to at least 3, \
             or train without --resume"
        );
        let augment = AugmentKind::Affine;
        assert_eq!(
            refused(Parameters { augment, rotation: Some(5.0), ..parameters() }).unwrap_err(),
            "s: is of a training with other parameters: augment: expected none, found affine; rotation: expected none, \
             found 5.0; set augment to none, leave out rotation, or train without --resume"
        );
        for (given, key) in [
            (Parameters { seed: 1, ..parameters() }, "seed: expected 42, found 1"),
            (Parameters { hidden_layers: vec![3], ..parameters() }, "hidden_layers: expected [], found [3]"),
            (Parameters { engine: EngineChoice::Burn, ..parameters() }, "engine: expected fused, found burn"),
        ] {
            let message = refused(given).unwrap_err();
            assert!(message.contains(key), "{message}");
        }
    }

    #[test]
    fn parameters_of_older_and_newer_programs_are_told_apart() {
        let check = |change: fn(&mut serde_json::Map<String, Value>)| {
            let mut snapshot = example(1, 3);
            change(snapshot.parameters.as_object_mut().unwrap());
            refused(&snapshot, &parameters(), &snapshot.data.clone())
        };
        assert_eq!(check(|all| _ = all.remove("momentum")), Ok(()));
        assert!(check(|all| _ = all.remove("learning_rate")).unwrap_err().contains("expected 0.001, found 0.3"));
        assert_eq!(check(|all| _ = all.insert("snapshots".into(), 1.into())), Ok(()));
        let message = check(|all| _ = all.insert("moon".into(), "full".into())).unwrap_err();
        assert!(message.contains("moon: expected full, found a program without it"), "{message}");
    }

    #[test]
    fn other_data_and_another_network_are_named() {
        let snapshot = example(1, 3);
        let mut data = snapshot.data.clone();
        data[0].sha256.replace_range(..2, "ff");
        assert_eq!(
            refused(&snapshot, &parameters(), &data).unwrap_err(),
            "s: is of a training on other data: train-images: expected the SHA-256 0123456789ab..., found ff23456789ab...\
             ; give the data set of that training as --data_dir, or train without --resume"
        );
        let mut small = snapshot.clone();
        small.state.parameters.pop();
        let message = refused(&small, &parameters(), &small.data).unwrap_err();
        assert!(message.contains("is of another network: expected 10 parameters, found 9"), "{message}");
        let other = Snapshot { slots: vec!["velocity".into()], ..snapshot.clone() };
        assert!(refused(&other, &parameters(), &other.data).unwrap_err().contains("is of another optimizer"));
        let mut more = snapshot;
        more.state.step = 6;
        let message = refused(&more, &parameters(), &more.data).unwrap_err();
        assert!(message.starts_with("s: expected 1 step in each of 3 epochs, found 6 in all; train "), "{message}");
    }
}
