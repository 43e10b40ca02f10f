//! `model.safetensors`: the trained parameters, laid out for PyTorch's `nn.Linear`.
//!
//! Tensors `layers.0.weight` (O,I), `layers.0.bias` (O), `layers.1.weight`, ... in float32, described by [`Metadata`]; in
//! an ensemble `members.0.layers.0.weight` and so on. See `tensors.rs` for the format.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::Path;
use std::slice::ChunksExact;

use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::tensors::{self, ENTRY, Fault, Header, read_values};
use crate::error::{Error, Result};
use crate::files::set;
use crate::model::{MOST_CLASSES, MOST_HIDDEN_LAYERS, MOST_INPUTS, MOST_MEMBERS, MOST_UNITS, MlpShape};
use crate::open;

/// The name of the file in MODEL_DIR.
pub const FILE_NAME: &str = "model.safetensors";

/// The directory in MODEL_DIR for the model of an unfinished training where that of a finished one stands.
pub const UNFINISHED: &str = "unfinished";

/// The version of the file's contents that this program writes and reads.
const FORMAT_VERSION: u32 = 1;
/// The longest header that is read, in bytes. Those of the largest networks have 10,000.
const LONGEST_HEADER: u64 = 1 << 20;

/// The file's description of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// The version of the file's contents.
    pub format_version: u32,
    /// The widths of the network, from inputs to classes.
    pub layers: Vec<usize>,
    /// How many networks answer together, if they are several.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub ensemble: usize,
    /// The function after each hidden layer.
    pub activation: String,
    /// The value of the first layer's inputs for a pixel from 0 to 255.
    pub input_scaling: String,
    /// The id of the data set that it was trained on.
    pub data: String,
    /// How far training came, if it was ended before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Unfinished>,
}

/// How far a training came that was ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// The whole epochs.
    pub epochs: u32,
    /// Those that were asked for.
    pub of: u32,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "unfinished, after {} of {} epochs", self.epochs, self.of)?;
        if self.epochs == self.of { f.write_str(", before it was calibrated and scored at last") } else { Ok(()) }
    }
}

/// A trained network: the contents of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The network.
    pub shape: MlpShape,
    /// (P), see [`MlpShape::layers`].
    pub parameters: Vec<f32>,
    /// The id of the data set that it was trained on, such as `mnist`. The sets themselves are in the data layer, which
    /// checks it.
    pub data: String,
    /// Whether training was ended before its end.
    pub unfinished: Option<Unfinished>,
}

impl Model {
    /// The parameters (P) of each network; of several in an ensemble.
    pub fn members(&self) -> ChunksExact<'_, f32> {
        self.parameters.chunks_exact(self.shape.parameter_count())
    }
}

fn one() -> usize {
    1
}

fn is_one(number: &usize) -> bool {
    *number == 1
}

/// What the names of the tensors of number `member` begin with.
pub fn prefix(member: usize, ensemble: usize) -> String {
    if ensemble == 1 { String::new() } else { format!("members.{member}.") }
}

/// The file's bytes for `model`.
pub fn encode(model: &Model) -> Vec<u8> {
    let metadata = Metadata {
        format_version: FORMAT_VERSION,
        layers: model.shape.widths().to_vec(),
        ensemble: model.members().len(),
        activation: "relu".into(),
        input_scaling: "pixel / 255".into(),
        data: model.data.clone(),
        unfinished: model.unfinished,
    };
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (member, parameters) in model.members().enumerate() {
        let prefix = prefix(member, metadata.ensemble);
        for (l, layer) in model.shape.layers().into_iter().enumerate() {
            let (inputs, outputs) = (layer.inputs, layer.outputs);
            let weights = &parameters[layer.weights];
            let mut transposed = Vec::with_capacity(weights.len());
            (0..outputs).for_each(|output| transposed.extend(weights[output..].iter().step_by(outputs)));
            tensors.push((format!("{prefix}layers.{l}.weight"), vec![outputs, inputs], bytes(&transposed)));
            tensors.push((format!("{prefix}layers.{l}.bias"), vec![outputs], bytes(&parameters[layer.biases])));
        }
    }
    let metadata = serde_json::to_string(&metadata).unwrap_or_else(|e| unreachable!("plain fields become JSON: {e}"));
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)
            .unwrap_or_else(|e| unreachable!("{name} has as many bytes as its shape says: {e}"));
        (name.as_str(), view)
    });
    safetensors::serialize(views, Some(HashMap::from([(ENTRY.to_string(), metadata)])))
        .unwrap_or_else(|e| unreachable!("a small header of distinct names: {e}"))
}

/// Reads the model in `model_dir`.
///
/// # Errors
/// There is no file, or it is not one that [`encode`] made: the message names the file and the problem.
pub fn load(model_dir: &Path) -> Result<Model> {
    open_and_read(model_dir).map(|(model, _)| model)
}

/// Reads the model in `model_dir`. Returns the SHA-256 of its file too, in hexadecimal; both are of the same file, even if
/// a training ends meanwhile.
///
/// # Errors
/// See [`load`]; or a signal arrived.
pub fn load_hashed(model_dir: &Path) -> Result<(Model, String)> {
    let (model, mut file) = open_and_read(model_dir)?;
    let path = model_dir.join(FILE_NAME);
    file.rewind().map_err(Error::io("read", &path))?;
    let (_, sha256) = open::hashed(&mut file, &path)?;
    Ok((model, sha256))
}

fn open_and_read(model_dir: &Path) -> Result<(Model, File)> {
    let mut file = match set::open(model_dir, FILE_NAME) {
        Err(Error::Io { source, .. }) if open::is_absent(&source) => {
            let unfinished = Some(model_dir.join(UNFINISHED)).filter(|directory| directory.join(FILE_NAME).exists());
            return Err(Error::NoModel { model_dir: model_dir.to_path_buf(), unfinished });
        }
        opened => opened?,
    };
    let path = model_dir.join(FILE_NAME);
    let read = file.metadata().map_err(Fault::from).and_then(|metadata| read(&mut file, metadata.len()));
    match read {
        Ok(model) => Ok((model, file)),
        Err(Fault::Unreadable(error)) => Err(Error::io("read", path)(error)),
        Err(Fault::Wrong(problem) | Fault::Newer(problem)) => Err(Error::Model { path, problem }),
    }
}

/// The directory of the model at `path`: a directory itself, or its file [`FILE_NAME`].
pub fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if path.ends_with(FILE_NAME) && path.is_file() => {
            if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            }
        }
        _ => path,
    }
}

/// Whether the model in `model_dir` says that it is unfinished. A file that cannot be read does not.
pub fn is_unfinished(model_dir: &Path) -> bool {
    let described = |header: Header| header.describe::<Metadata>("model", FORMAT_VERSION, "a model").ok();
    header(model_dir).and_then(described).is_some_and(|metadata| metadata.unfinished.is_some())
}

/// Whether `file` is a model of this program. A damaged one still begins with its description.
pub fn is_ours(file: File) -> bool {
    let mut begin = vec![];
    file.take(LONGEST_HEADER).read_to_end(&mut begin).is_ok() && tensors::begin_described(&begin)
}

/// The header of the model in `model_dir`, if there is one that can be read.
fn header(model_dir: &Path) -> Option<Header> {
    let mut file = set::open(model_dir, FILE_NAME).ok()?;
    let length = file.metadata().ok()?.len();
    Header::read(&mut file, length, LONGEST_HEADER).ok()
}

/// Reads a model from the bytes of a file, which may be damaged or hostile.
///
/// # Errors
/// The first problem, as the end of a sentence that begins with the file's name.
pub fn decode(bytes: &[u8]) -> std::result::Result<Model, String> {
    read(&mut Cursor::new(bytes), bytes.len() as u64).map_err(|fault| match fault {
        Fault::Unreadable(error) => error.to_string(),
        Fault::Wrong(problem) | Fault::Newer(problem) => problem,
    })
}

/// Reads a file of `length` bytes.
fn read(from: &mut (impl Read + Seek), length: u64) -> std::result::Result<Model, Fault> {
    let header = Header::read(from, length, LONGEST_HEADER)?;
    let metadata: Metadata = header.describe("model", FORMAT_VERSION, "a model trained by this program")?;
    let shape = shape_of(&metadata.layers)?;
    let (layers, ensemble) = (shape.layers(), metadata.ensemble);
    if !(1..=MOST_MEMBERS).contains(&ensemble) {
        return Err(format!("expected an ensemble of 1 to {MOST_MEMBERS} networks, found {ensemble}").into());
    }
    let (expected, found) = (2 * ensemble * layers.len(), header.count());
    if found != expected {
        return Err(format!("expected {expected} tensors for layers {:?}, found {found}", shape.widths()).into());
    }
    let mut places = Vec::with_capacity(ensemble * layers.len());
    for member in 0..ensemble {
        let prefix = prefix(member, ensemble);
        for (l, layer) in layers.iter().enumerate() {
            let weights = header.place(&format!("{prefix}layers.{l}.weight"), &[layer.outputs, layer.inputs])?;
            places.push((weights, header.place(&format!("{prefix}layers.{l}.bias"), &[layer.outputs])?));
        }
    }

    let mut parameters = vec![0.0; ensemble * shape.parameter_count()];
    let members = parameters.chunks_exact_mut(shape.parameter_count()).zip(places.chunks_exact(layers.len()));
    for (parameters, places) in members {
        for (layer, &(weights, biases)) in layers.iter().zip(places) {
            let (inputs, outputs) = (layer.inputs, layer.outputs);
            let to = &mut parameters[layer.weights.clone()];
            read_values(from, weights, to.len(), |at, weight| to[at % inputs * outputs + at / inputs] = weight)?;
            let to = &mut parameters[layer.biases.clone()];
            read_values(from, biases, to.len(), |at, bias| to[at] = bias)?;
        }
    }
    if parameters.iter().any(|parameter| !parameter.is_finite()) {
        return Err("expected finite weights, found infinite ones or NaN".to_string().into());
    }
    Ok(Model { shape, parameters, data: metadata.data, unfinished: metadata.unfinished })
}

/// The shape with these widths, if they are within the limits: products of widths must not overflow.
fn shape_of(layers: &[usize]) -> std::result::Result<MlpShape, String> {
    let [inputs @ 1..=MOST_INPUTS, hidden @ .., classes @ 1..=MOST_CLASSES] = layers else {
        return Err(format!(
            "expected layers from at most {MOST_INPUTS} inputs to at most {MOST_CLASSES} classes, found {layers:?}"
        ));
    };
    if hidden.len() > MOST_HIDDEN_LAYERS || hidden.iter().any(|width| !(1..=MOST_UNITS).contains(width)) {
        return Err(format!(
            "expected at most {MOST_HIDDEN_LAYERS} hidden layers of 1 to {MOST_UNITS} units, found {hidden:?}"
        ));
    }
    Ok(MlpShape::new(*inputs, hidden, *classes))
}

/// The bytes of `values` in all files of this program: little-endian.
pub fn bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(values)];
    tensors::put_bytes(values, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha256;

    fn model() -> Model {
        let shape = MlpShape::new(784, &[3, 2], 10);
        let parameters = (0..shape.parameter_count()).map(|p| p as f32 * 0.5).collect();
        Model { shape, parameters, data: "synthetic".into(), unfinished: None }
    }

    #[test]
    fn a_model_is_read_back_and_equal_models_give_equal_bytes() {
        let model = model();
        assert_eq!(encode(&model), encode(&model));
        assert_eq!(decode(&encode(&model)), Ok(model));
    }

    #[test]
    fn weights_are_stored_outputs_first() {
        let model = model();
        let bytes = encode(&model);
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let data = tensors.tensor("layers.1.weight").unwrap().data();
        let stored: Vec<f32> = data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let begin = model.shape.layers()[1].weights.start;
        assert_eq!(stored[1], model.parameters[begin + 2]); // output 0, input 1
        assert_eq!(stored[3], model.parameters[begin + 1]); // output 1, input 0
    }

    #[test]
    fn a_damaged_file_is_refused_and_says_why() {
        let good = encode(&model());
        let replaced = |from: &str, to: &str| {
            let at = good.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            let mut bytes = good.clone();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
            decode(&bytes).unwrap_err()
        };
        assert!(decode(&good[..good.len() - 1]).unwrap_err().starts_with("is not a safetensors file: "));
        assert!(decode(b"").unwrap_err().starts_with("is not a safetensors file: "));
        assert_eq!(decode(&[0xff; 100]).unwrap_err(), "is not a safetensors file: header too large");
        assert_eq!(
            replaced("format_version\\\":1", "format_version\\\":7"),
            "expected format_version 1, found 7: was it written by a newer program?"
        );
        assert_eq!(
            replaced("[784,3,2,10]", "[784,2,3,10]"),
            "layers.0.weight: expected F32 [2, 784], found F32 [3, 784]"
        );
        assert_eq!(
            replaced("[784,3,2,10]", "[784,3,2, 0]"),
            "expected layers from at most 65536 inputs to at most 256 classes, found [784, 3, 2, 0]"
        );
        assert_eq!(
            replaced("[784,3,2,10]", "[784,0,2,10]"),
            "expected at most 32 hidden layers of 1 to 4096 units, found [0, 2]"
        );
        let mut broken = model();
        broken.parameters[7] = f32::NAN;
        assert_eq!(decode(&encode(&broken)).unwrap_err(), "expected finite weights, found infinite ones or NaN");
    }

    #[test]
    fn the_hash_is_that_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = encode(&model());
        std::fs::write(dir.path().join(FILE_NAME), &bytes).unwrap();
        assert_eq!(load_hashed(dir.path()).unwrap(), (model(), sha256::of(&bytes)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(at: proptest::sample::Index, value: u8) {
            let mut bytes = encode(&model());
            let at = at.index(bytes.len());
            bytes[at] = value;
            let _ = decode(&bytes);
            let _ = decode(&bytes[..at]);
        }
    }
}
