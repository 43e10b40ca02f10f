//! One snapshot: the whole state of a training after an epoch, and its file.
//!
//! Tensors `parameters`, `slots.0`, ..., `average` and `kept`, each (P) in float32, described by `Description`; see
//! `model/tensors.rs` for the format. The random streams need no place: each begins anew from the seed and the number of the
//! epoch or step.

use std::io::{self, Cursor, Read, Seek, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::course::Kept;
use crate::data::dataset::{FileHash, TEST, VALIDATION};
use crate::engine::TrainingState;
use crate::files::lock;
use crate::model::tensors::{self, Fault, Header, read_values};
use crate::optim::MAX_SLOTS;
use crate::output::event::EpochRecord;
use crate::output::finished::InitialModel;

/// The kind and the version of the file's contents that this program writes and reads.
const KIND: &str = "snapshot";
const FORMAT_VERSION: u32 = 1;
/// The longest header that is read, in bytes. That of the longest training, 100,000 epochs with two splits, has 42 million.
const LONGEST_HEADER: u64 = 1 << 26;

/// A training, from its first epoch on; one that is resumed stays the same. A later one is greater.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunId {
    /// When it began, in nanoseconds since 1970.
    pub begin: u64,
    /// The machine.
    pub host: String,
    /// The process there.
    pub process: u32,
}

impl RunId {
    /// The training that this process begins now.
    pub fn now() -> Self {
        let begin = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        Self { begin, host: lock::host(), process: std::process::id() }
    }
}

/// The state of a training after a whole epoch: all that the next one depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The training.
    pub run: RunId,
    /// Each parameter by its name, with no `auto`: [`crate::parameters::Parameters::to_json`].
    pub parameters: Value,
    /// The files of the data set.
    pub data: Vec<FileHash>,
    /// The names of the optimizer's slots.
    pub slots: Vec<String>,
    /// What steps change.
    pub state: TrainingState,
    /// The average of the parameters (P), if there is one.
    pub average: Option<Vec<f32>>,
    /// The best model so far, if one is looked for.
    pub kept: Option<Kept>,
    /// Every epoch so far, at least one.
    pub epochs: Vec<EpochRecord>,
    /// The model that gave the first weights, with `--init`.
    pub init: Option<InitialModel>,
    /// That of the engine, see [`EngineInfo`](crate::engine::EngineInfo); none in a file of an older program.
    pub instruction_set: Option<String>,
}

/// The file's description of itself.
#[derive(Serialize, Deserialize)]
struct Description<Data, Slots, Epochs> {
    kind: String,
    format_version: u32,
    program_version: String,
    run: RunId,
    /// The number of `epochs`.
    epoch: u32,
    step: u64,
    parameters: Value,
    data: Data,
    slots: Slots,
    average: bool,
    kept_epoch: Option<u32>,
    epochs: Epochs,
    init: Option<InitialModel>,
    instruction_set: Option<String>,
}

/// A description that was read.
type Described = Description<Vec<FileHash>, Vec<String>, Vec<EpochRecord>>;

/// The file's bytes for `snapshot`.
pub fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = vec![];
    write(snapshot, &mut bytes).unwrap_or_else(|e| unreachable!("memory takes all bytes: {e}"));
    bytes
}

/// Writes the file's bytes for `snapshot`, without a copy of its tensors.
pub(super) fn write(snapshot: &Snapshot, to: &mut impl Write) -> io::Result<()> {
    let Snapshot { run, parameters, data, slots, state, average, kept, epochs, init, instruction_set } = snapshot;
    let description = Description {
        kind: KIND.into(),
        format_version: FORMAT_VERSION,
        program_version: env!("CARGO_PKG_VERSION").into(),
        run: run.clone(),
        epoch: snapshot.epoch(),
        step: state.step,
        parameters: parameters.clone(),
        data,
        slots,
        average: average.is_some(),
        kept_epoch: kept.as_ref().map(|kept| kept.epoch),
        epochs,
        init: init.clone(),
        instruction_set: instruction_set.clone(),
    };
    let description =
        serde_json::to_string(&description).unwrap_or_else(|e| unreachable!("plain fields become JSON: {e}"));
    let mut all = vec![("parameters".to_string(), &*state.parameters)];
    all.extend(state.slots.iter().enumerate().map(|(s, slot)| (slot_name(s), &**slot)));
    all.extend(average.iter().map(|average| ("average".into(), &**average)));
    all.extend(kept.iter().map(|kept| ("kept".into(), &*kept.parameters)));
    tensors::write(to, &description, &all)
}

/// Reads a snapshot from the bytes of a file, which may be damaged or hostile.
///
/// # Errors
/// The first problem, as the end of a sentence that begins with the file's name.
pub fn decode(bytes: &[u8]) -> Result<Snapshot, String> {
    let mut from = Cursor::new(bytes);
    let read = SnapshotHead::read(&mut from, bytes.len() as u64).and_then(|head| head.tensors(&mut from));
    read.map_err(|fault| match fault {
        Fault::Unreadable(error) => error.to_string(),
        Fault::Wrong(problem) | Fault::Newer(problem) => problem,
    })
}

/// A snapshot without its tensors.
pub(super) struct SnapshotHead {
    header: Header,
    description: Described,
    /// P.
    length: usize,
    /// Where each tensor begins: parameters, slots, average, kept.
    places: Vec<u64>,
}

impl SnapshotHead {
    /// Reads and checks all but the tensors of a file of `length` bytes.
    pub(super) fn read(from: &mut impl Read, length: u64) -> Result<Self, Fault> {
        let header = Header::read(from, length, LONGEST_HEADER)?;
        let description: Described = header.describe(KIND, FORMAT_VERSION, "a snapshot of a training")?;
        description.check()?;
        let mut names = vec!["parameters".to_string()];
        names.extend((0..description.slots.len()).map(slot_name));
        names.extend(description.average.then(|| "average".to_string()));
        names.extend(description.kept_epoch.map(|_| "kept".to_string()));
        if header.count() != names.len() {
            return Err(format!("expected the tensors {}, found {} tensors", names.join(", "), header.count()).into());
        }
        let missing = || "expected a tensor parameters of one dimension, found none".to_string();
        let length = header.length(&names[0]).ok_or_else(missing)?;
        let places = names.iter().map(|name| header.place(name, &[length])).collect::<Result<_, _>>()?;
        Ok(Self { header, description, length, places })
    }

    /// The training.
    pub(super) fn run(&self) -> &RunId {
        &self.description.run
    }

    /// The epochs that are done.
    pub(super) fn epoch(&self) -> u32 {
        self.description.epoch
    }

    /// The memory that the tensors take.
    pub(super) fn bytes(&self) -> u64 {
        self.places.len() as u64 * size_of::<f32>() as u64 * self.length as u64
    }

    /// Checks the whole file against its hash, and reads the tensors.
    pub(super) fn tensors(self, from: &mut (impl Read + Seek)) -> Result<Snapshot, Fault> {
        let Self { header, description, length, places } = self;
        header.check_hash(from)?;
        let mut places = places.into_iter();
        let mut next = || -> Result<Vec<f32>, Fault> {
            let place = places.next().unwrap_or_else(|| unreachable!("each tensor has a place"));
            let mut values = Vec::with_capacity(length);
            read_values(from, place, length, |_, value| values.push(value))?;
            match values.iter().all(|value| value.is_finite()) {
                true => Ok(values),
                false => Err("expected finite values, found infinite ones or NaN".to_string().into()),
            }
        };
        let Described {
            run, step, parameters, data, slots, average, kept_epoch, epochs, init, instruction_set, ..
        } = description;
        let state =
            TrainingState { parameters: next()?, slots: slots.iter().map(|_| next()).collect::<Result<_, _>>()?, step };
        let average = if average { Some(next()?) } else { None };
        let kept = match kept_epoch {
            Some(epoch) => Some(Kept { epoch, parameters: next()?, evaluation: None }),
            None => None,
        };
        Ok(Snapshot { run, parameters, data, slots, state, average, kept, epochs, init, instruction_set })
    }
}

impl Described {
    /// Checks that the numbers are possible and go together.
    fn check(&self) -> Result<(), String> {
        let Self { epoch, step, slots, average, kept_epoch, epochs, .. } = self;
        if *epoch == 0 || !epochs.iter().map(|record| record.epoch).eq(1..=*epoch) {
            return Err(format!("expected the records of epochs 1 to {epoch}, found {} others", epochs.len()));
        }
        if *step == 0 || !step.is_multiple_of((*epoch).into()) {
            return Err(format!("expected as many steps in each of {epoch} epochs, found {step} in all"));
        }
        if slots.len() > MAX_SLOTS {
            return Err(format!("expected at most {MAX_SLOTS} slots, found {}", slots.len()));
        }
        let best = self.parameters["keep"] == "best";
        for (name, expected, found) in
            [("average", self.number("ema") > 0.0, *average), ("kept_epoch", best, kept_epoch.is_some())]
        {
            let text = |there: bool| if there { "one" } else { "none" };
            if expected != found {
                let (expected, found) = (text(expected), text(found));
                return Err(format!("{name}: expected {expected}, as the parameters say, found {found}"));
            }
        }
        if let Some(kept) = kept_epoch.filter(|kept| !(1..=*epoch).contains(kept)) {
            return Err(format!("expected a kept model of one of the epochs 1 to {epoch}, found one of epoch {kept}"));
        }
        let watched = if self.number("validation") > 0.0 { VALIDATION } else { TEST };
        epochs.iter().try_for_each(|record| {
            record.check(watched).map_err(|problem| format!("the record of epoch {}: {problem}", record.epoch))
        })
    }

    /// The number that a parameter had; 0 if it was not there yet.
    fn number(&self, parameter: &str) -> f64 {
        self.parameters[parameter].as_f64().unwrap_or_default()
    }
}

impl Snapshot {
    /// The epochs that are done.
    pub fn epoch(&self) -> u32 {
        self.epochs.len() as u32
    }
}

fn slot_name(slot: usize) -> String {
    format!("slots.{slot}")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::choice::{DeviceChoice, EngineChoice};
    use crate::output::event::SplitScore;
    use crate::parameters::{Keep, Parameters};

    /// Parameters of a small network, with no `auto`.
    pub(in crate::training) fn parameters() -> Parameters {
        Parameters {
            hidden_layers: vec![],
            learning_rate: 0.1 + 0.2, // many digits
            device: DeviceChoice::Cpu,
            engine: EngineChoice::Fused,
            threads: 2,
            train_epochs: 9,
            ema: 0.5,
            keep: Keep::Best,
            validation: 0.5,
            ..Parameters::default()
        }
    }

    fn record(epoch: u32) -> EpochRecord {
        let third = 1.0 / f64::from(3 * epoch);
        EpochRecord {
            epoch,
            loss: third,
            accuracy: 1.0 - third,
            seconds: 0.07 * third,
            images_per_second: 1e6 * third,
            learning_rate: third / 7.0,
            splits: vec![SplitScore { split: VALIDATION, loss: 5e-324, accuracy: third }],
            finished: UNIX_EPOCH + std::time::Duration::new(1_790_000_000, 123_456_789),
        }
    }

    /// A snapshot after `epochs` of the training that began at `begin`, with 4 x 2 weights and 2 biases.
    pub(in crate::training) fn example(begin: u64, epochs: u32) -> Snapshot {
        let values = |first: f32| (0..10).map(|p| first + p as f32 / 3.0).collect::<Vec<_>>();
        Snapshot {
            run: RunId { begin, host: "here".into(), process: 7 },
            parameters: parameters().to_json(),
            data: vec![FileHash { name: "train-images".into(), sha256: "0123456789abcdef".repeat(4) }],
            slots: vec!["first_moment".into(), "second_moment".into()],
            state: TrainingState {
                parameters: values(1.0),
                slots: vec![values(2.0), values(-3.0)],
                step: epochs.into(),
            },
            average: Some(values(4.0)),
            kept: Some(Kept { epoch: 1, parameters: values(5.0), evaluation: None }),
            epochs: (1..=epochs).map(record).collect(),
            init: Some(InitialModel { path: "first/model.safetensors".into(), sha256: "89abcdef".repeat(8) }),
            instruction_set: Some("avx2".into()),
        }
    }

    #[test]
    fn a_snapshot_is_read_back_exactly_and_equal_ones_give_equal_bytes() {
        let whole = example(1, 3);
        assert_eq!(encode(&whole), encode(&whole.clone()));
        assert_eq!(decode(&encode(&whole)), Ok(whole.clone()));
        let parameters = Parameters { ema: 0.0, keep: Keep::Last, ..parameters() }.to_json();
        let mut small = Snapshot {
            average: None,
            kept: None,
            slots: vec![],
            parameters,
            init: None,
            instruction_set: None,
            ..whole
        };
        small.state.slots.clear();
        assert_eq!(decode(&encode(&small)), Ok(small));
    }

    #[test]
    fn every_number_of_a_record_is_read_back_exactly() {
        let mut stream = crate::rng::Stream::new(1, crate::rng::Purpose::Order, 0);
        let mut snapshot = example(1, 2000);
        for record in &mut snapshot.epochs {
            let mut number = || loop {
                let bits = u64::from(stream.next_u32()) << 32 | u64::from(stream.next_u32());
                if f64::from_bits(bits).is_finite() {
                    break f64::from_bits(bits).abs();
                }
            };
            (record.loss, record.accuracy, record.seconds) = (number(), number().min(1.0), number());
        }
        assert_eq!(decode(&encode(&snapshot)), Ok(snapshot));
    }

    #[test]
    fn the_file_is_one_that_others_read() {
        let snapshot = example(1, 3);
        let bytes = encode(&snapshot);
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let slot = read.tensor("slots.1").unwrap();
        let values: Vec<f32> = slot.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        assert_eq!(values, snapshot.state.slots[1]);
    }

    #[test]
    fn a_damaged_file_is_refused_and_says_why() {
        let good = encode(&example(1, 3));
        let replaced = |from: &str, to: &str| {
            let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap_or_else(|| panic!("{from}"));
            let mut bytes = good.clone();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            decode(&bytes).unwrap_err()
        };
        for cut in [0, 7, 100, good.len() - 1] {
            assert!(decode(&good[..cut]).unwrap_err().starts_with("is not a safetensors file: "), "{cut}");
        }
        assert_eq!(
            replaced("format_version\\\":1", "format_version\\\":7"),
            "expected format_version 1, found 7, written by version 0.1.0 of this program"
        );
        assert_eq!(replaced("format_version\\\":1", "format_version\\\":0"), "expected format_version 1, found 0");
        let kind = "expected the metadata entry `mnist` of a snapshot of a training, found that of a snapshoo";
        assert_eq!(replaced("snapshot\\\"", "snapshoo\\\""), kind);
        assert_eq!(replaced("epoch\\\":3", "epoch\\\":4"), "expected the records of epochs 1 to 4, found 3 others");
        assert_eq!(
            replaced("kept_epoch\\\":1", "kept_epoch\\\":4"),
            "expected a kept model of one of the epochs 1 to 3, found one of epoch 4"
        );
        assert_eq!(replaced("\"average\":{", "\"averagx\":{"), "expected a tensor average, found none");
        assert!(replaced("split\\\":\\\"vali", "split\\\":\\\"vale").contains("unknown variant `valedation`"));
    }

    #[test]
    fn a_change_of_any_part_is_found() {
        let good = encode(&example(1, 3));
        let data = good.len() - 5 * 40;
        for at in [data, data + 77, good.len() - 1] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            let message = decode(&bytes).unwrap_err();
            assert!(message.starts_with("is damaged: expected the SHA-256 "), "{at}: {message}");
        }
        let mut zeroed = good.clone();
        zeroed[data..].fill(0);
        assert!(decode(&zeroed).unwrap_err().starts_with("is damaged: "));
        // A digit of a number that may have any value.
        let text = b"nanos_since_epoch\\\":12345678";
        let at = good.windows(text.len()).position(|window| window == text).unwrap();
        let mut bytes = good.clone();
        bytes[at + text.len() - 1] = b'7';
        assert!(decode(&bytes).unwrap_err().starts_with("is damaged: "));
        let text = b"sha256\\\":\\\"";
        let at = good.windows(text.len()).rposition(|window| window == text).unwrap();
        let mut bytes = good.clone();
        bytes[at] = b'S';
        let none = "expected a SHA-256 at the end of the metadata entry `mnist`, found none";
        let message = decode(&bytes).unwrap_err();
        assert!(message == none || message.starts_with("is damaged: "), "{message}");
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let broken = |change: fn(&mut Snapshot)| {
            let mut snapshot = example(1, 3);
            change(&mut snapshot);
            decode(&encode(&snapshot)).unwrap_err()
        };
        let steps = |found: u64| format!("expected as many steps in each of 3 epochs, found {found} in all");
        assert_eq!(broken(|s| s.state.step = 0), steps(0));
        assert_eq!(broken(|s| s.state.step = 7), steps(7));
        assert_eq!(broken(|s| s.average = None), "average: expected one, as the parameters say, found none");
        let problem = "the record of epoch 2: accuracy: expected 0 to 1, found 1.5";
        assert_eq!(broken(|s| s.epochs[1].accuracy = 1.5), problem);
        assert!(broken(|s| s.epochs[1].loss = f64::NAN).starts_with("cannot read the metadata entry `mnist`: "));
        assert_eq!(broken(|s| s.epochs.clear()), "expected the records of epochs 1 to 0, found 0 others");
        assert_eq!(broken(|s| s.epochs[1].epoch = 1), "expected the records of epochs 1 to 3, found 3 others");
        assert_eq!(broken(|s| s.slots = vec!["a".into(); 3]), "expected at most 2 slots, found 3");
        let tensors = "expected the tensors parameters, slots.0, average, kept, found 5 tensors";
        assert_eq!(broken(|s| s.slots.truncate(1)), tensors);
        assert_eq!(broken(|s| s.state.slots[1].truncate(9)), "slots.1: expected F32 [10], found F32 [9]");
        assert_eq!(broken(|s| s.state.parameters.clear()), "slots.0: expected F32 [0], found F32 [10]");
        let infinite = "expected finite values, found infinite ones or NaN";
        assert_eq!(broken(|s| s.state.parameters[3] = f32::NAN), infinite);
        assert_eq!(broken(|s| s.state.slots[1][9] = f32::INFINITY), infinite);
        assert_eq!(
            broken(|s| s.kept = Some(Kept { epoch: 1, parameters: vec![f32::NAN; 10], evaluation: None })),
            infinite
        );
    }

    #[test]
    fn a_model_is_no_snapshot_and_a_snapshot_no_model() {
        use crate::model::file as model_file;
        let shape = crate::model::MlpShape::new(4, &[], 2);
        let model = model_file::Model { shape, parameters: vec![0.5; 10], data: "mnist".into(), unfinished: None };
        let expected = "expected the metadata entry `mnist` of a snapshot of a training, found that of a model";
        assert_eq!(decode(&model_file::encode(&model)).unwrap_err(), expected);
        let expected =
            "expected the metadata entry `mnist` of a model trained by this program, found that of a snapshot";
        assert_eq!(model_file::decode(&encode(&example(1, 1))).unwrap_err(), expected);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(at: proptest::sample::Index, value: u8) {
            let mut bytes = encode(&example(1, 2));
            let at = at.index(bytes.len());
            bytes[at] = value;
            let _ = decode(&bytes);
            let _ = decode(&bytes[..at]);
        }
    }
}
