//! `model.onnx`: the trained network for other programs. It takes the bytes of images; the scaling is inside.
//!
//! | | name | type | shape |
//! |---|---|---|---|
//! | input | `images` | uint8, 0 black to 255 white | (batch, side, side) |
//! | output | `logits` | float32 | (batch, K) |
//! | output | `probabilities` | float32 | (batch, K) |
//!
//! Format: <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto> and
//! <https://github.com/onnx/onnx/blob/main/docs/Operators.md>. The messages below have only the fields that are written.

use prost::Message;
use tracing::warn;

use crate::data::sets::DataSource;
use crate::model::MlpShape;
use crate::model::file::{self as weights, Model};
use crate::output::artifact::{Artifact, MODEL_SHA256};

/// The file.
pub const ARTIFACT: Artifact = Artifact {
    name: "ONNX",
    file_name: "model.onnx",
    essential: false,
    encode: |finished| encode(&finished.trained.model, finished.model_sha256).map(Into::into),
};

/// The version of the format that belongs to [`OPSET`], of 2021. Readers of newer versions accept it.
const IR_VERSION: i64 = 8;
/// The version of the operators.
const OPSET: i64 = 17;

/// The longest message of the format: <https://protobuf.dev/programming-guides/encoding/#size-limit>.
const MOST_BYTES: usize = i32::MAX as usize;

/// The file's bytes for `model`, whose own file has this hash, if it reads square images and the format can hold it. Equal
/// models give equal bytes.
pub fn encode(model: &Model, model_sha256: &str) -> Option<Vec<u8>> {
    let side = model.shape.image_side()?;
    let (nodes, constants) = operations(model);
    let fixed = |value: usize| Dimension { value: value as i64, ..Dimension::default() };
    let classes = fixed(model.shape.classes());
    let batch = || Dimension { parameter: "batch".into(), ..Dimension::default() };
    let outputs = ["logits", "probabilities"];
    let graph = Graph {
        nodes,
        name: "mnist".into(),
        constants,
        inputs: vec![ValueInfo::new("images", UINT8, vec![batch(), fixed(side), fixed(side)])],
        outputs: outputs.map(|name| ValueInfo::new(name, FLOAT, vec![batch(), classes.clone()])).into(),
    };
    let trained_on = DataSource::named(&model.data).map_or_else(|_| model.data.clone(), DataSource::description);
    let metadata = [
        ("trained_on", trained_on),
        ("input", format!("{side} x {side} bytes, 0 black")),
        (MODEL_SHA256, model_sha256.to_string()),
    ];
    let model = OnnxModel {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opsets: vec![Opset { version: OPSET }],
        metadata: metadata.map(|(key, value)| Entry { key: key.into(), value }).into(),
    };
    if model.encoded_len() > MOST_BYTES {
        warn!("model.onnx: the format holds at most 2 GiB, and this network is larger: it is left out");
        return None;
    }
    Some(model.encode_to_vec())
}

/// The operations from `images` to `logits` and `probabilities`, each after those that it needs, and their constants.
fn operations(model: &Model) -> (Vec<Node>, Vec<Tensor>) {
    let mut nodes = vec![
        Node::new("Cast", &["images"], "pixels", vec![Attribute::int("to", i64::from(FLOAT))]),
        Node::new("Div", &["pixels", "white"], "scaled", vec![]),
        Node::new("Flatten", &["scaled"], "inputs", vec![Attribute::int("axis", 1)]),
    ];
    let mut constants = vec![Tensor::new("white", &[], &[255.0])];
    let ensemble = model.members().len();
    let mut answers = vec![];
    for (member, parameters) in model.members().enumerate() {
        let prefix = weights::prefix(member, ensemble);
        add_network(&mut nodes, &mut constants, &model.shape, parameters, &prefix);
        let [logits, probabilities] = ["logits", "probabilities"].map(|name| format!("{prefix}{name}"));
        nodes.push(Node::new("Softmax", &[&logits], &probabilities, vec![Attribute::int("axis", 1)]));
        answers.push(probabilities);
    }
    if ensemble > 1 {
        let answers: Vec<_> = answers.iter().map(String::as_str).collect();
        nodes.push(Node::new("Mean", &answers, "probabilities", vec![]));
        // Where they are too small for their numbers, the logarithm is finite nevertheless.
        constants.push(Tensor::new("least", &[], &[f32::MIN_POSITIVE]));
        nodes.push(Node::new("Max", &["probabilities", "least"], "positive", vec![]));
        nodes.push(Node::new("Log", &["positive"], "logits", vec![]));
    }
    (nodes, constants)
}

/// Adds the operations and constants of a network with `parameters` (P), from `inputs` to its logits. All its names begin
/// with `prefix`.
fn add_network(nodes: &mut Vec<Node>, constants: &mut Vec<Tensor>, shape: &MlpShape, parameters: &[f32], prefix: &str) {
    let layers = shape.layers();
    let mut from = "inputs".to_string();
    for (l, layer) in layers.iter().enumerate() {
        let [weight, bias] = ["weight", "bias"].map(|kind| format!("{prefix}layers.{l}.{kind}"));
        // (I,O), the layout of the parameters: Gemm needs no transpose.
        constants.push(Tensor::new(&weight, &[layer.inputs, layer.outputs], &parameters[layer.weights.clone()]));
        constants.push(Tensor::new(&bias, &[layer.outputs], &parameters[layer.biases.clone()]));
        let last = l + 1 == layers.len();
        let to = if last { format!("{prefix}logits") } else { format!("{prefix}sums.{l}") };
        nodes.push(Node::new("Gemm", &[&from, &weight, &bias], &to, vec![]));
        from = to;
        if !last {
            let active = format!("{prefix}hidden.{l}");
            nodes.push(Node::new("Relu", &[&from], &active, vec![]));
            from = active;
        }
    }
}

/// `TensorProto.DataType.FLOAT`.
const FLOAT: i32 = 1;
/// `TensorProto.DataType.UINT8`.
const UINT8: i32 = 2;

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
struct OnnxModel {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opsets: Vec<Opset>,
    #[prost(message, repeated, tag = "14")]
    metadata: Vec<Entry>,
}

/// `OperatorSetIdProto`, for the operators that ONNX itself defines.
#[derive(Clone, PartialEq, Message)]
struct Opset {
    #[prost(int64, tag = "2")]
    version: i64,
}

/// `StringStringEntryProto`.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    constants: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    inputs: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    outputs: Vec<ValueInfo>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    operator: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

impl Node {
    fn new(operator: &str, inputs: &[&str], output: &str, attributes: Vec<Attribute>) -> Self {
        Self {
            inputs: inputs.iter().map(|input| input.to_string()).collect(),
            outputs: vec![output.into()],
            name: output.into(),
            operator: operator.into(),
            attributes,
        }
    }
}

/// `AttributeProto`.
#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    int: i64,
    #[prost(int32, tag = "20")]
    kind: i32,
}

impl Attribute {
    fn int(name: &str, value: i64) -> Self {
        Self { name: name.into(), int: value, kind: 2 } // AttributeType.INT
    }
}

/// `TensorProto` with float32 values.
#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    kind: i32,
    #[prost(string, tag = "8")]
    name: String,
    /// Little-endian.
    #[prost(bytes = "vec", tag = "9")]
    raw: Vec<u8>,
}

impl Tensor {
    fn new(name: &str, shape: &[usize], values: &[f32]) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self {
            dims: shape.iter().map(|&width| width as i64).collect(),
            kind: FLOAT,
            name: name.into(),
            raw: weights::bytes(values),
        }
    }
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<ValueType>,
}

impl ValueInfo {
    fn new(name: &str, element: i32, dimensions: Vec<Dimension>) -> Self {
        let tensor = TensorType { element, shape: Some(TensorShape { dimensions }) };
        Self { name: name.into(), kind: Some(ValueType { tensor: Some(tensor) }) }
    }
}

/// `TypeProto`.
#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShape>,
}

/// `TensorShapeProto`.
#[derive(Clone, PartialEq, Message)]
struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    dimensions: Vec<Dimension>,
}

/// `TensorShapeProto.Dimension`: a number, or the name of a number that the caller chooses.
#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, tag = "1")]
    value: i64,
    #[prost(string, tag = "2")]
    parameter: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MlpShape;

    #[test]
    fn every_input_of_a_node_is_made_before_it_and_the_outputs_are_made() {
        for hidden in [&[][..], &[3], &[5, 4, 3]] {
            let shape = MlpShape::new(784, hidden, 10);
            let parameters = shape.initial_parameters(1);
            let bytes = encode(&Model { shape, parameters, data: "synthetic".into(), unfinished: None }, "").unwrap();
            let graph = OnnxModel::decode(&bytes[..]).unwrap().graph.unwrap();
            let mut known: Vec<&str> = graph.constants.iter().map(|constant| constant.name.as_str()).collect();
            known.extend(graph.inputs.iter().map(|input| input.name.as_str()));
            for node in &graph.nodes {
                for input in &node.inputs {
                    assert!(known.contains(&input.as_str()), "{input} of {node:?}");
                }
                known.extend(node.outputs.iter().map(String::as_str));
            }
            assert!(graph.outputs.iter().all(|output| known.contains(&output.name.as_str())));
        }
    }
}
