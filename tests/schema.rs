//! `mnist schema`: the schemas against the files that the program writes and reads.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Sandbox, end, python_with};
use mnist::parameters::Parameters;
use serde_json::Value;

/// The schema of a kind of file.
fn schema(file: &str) -> Value {
    let printed = Sandbox::new().run(&format!("schema {file}")).done().stdout;
    serde_json::from_str(&printed).unwrap()
}

/// Holds `value` against `schema`, a part of `whole`: kinds of values, known and required properties.
#[track_caller]
fn hold(whole: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        return hold(whole, whole.pointer(name.trim_start_matches('#')).unwrap(), value, place);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_known = |known: &Value| known == kind || known == "number" && kind == "integer";
    let kinds = &schema["type"];
    assert!(
        kinds.is_null() || is_known(kinds) || kinds.as_array().is_some_and(|kinds| kinds.iter().any(is_known)),
        "{place}: {kind}"
    );
    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
        hold(whole, &schema["items"], item, &format!("{place}[{at}]"));
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let property = schema["properties"].get(name).unwrap_or_else(|| panic!("{place}: no {name} in the schema"));
        hold(whole, property, value, &format!("{place}.{name}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter(|_| value.is_object()) {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{place}: {name} is required, but not there");
    }
}

/// Trains and evaluates in all ways that give other metrics; returns the files.
fn metrics(sandbox: &Sandbox) -> Vec<PathBuf> {
    let runs = [
        "--train_epochs=2",
        "--train_epochs=3 --validation=0.1 --init=model0 --keep=best --schedule=cosine --early_stopping=2 --min_delta=0.01",
        "--train_epochs=100000 --max_seconds=0.3 --validation=30",
    ];
    let mut files = vec![];
    for (at, flags) in runs.iter().enumerate() {
        let (model, logs) = (format!("model{at}"), format!("logs{at}"));
        let flags = format!("--data_dir=data --log_dir={logs} --parameters_file=parameters.yaml {flags}");
        sandbox.run(&format!("train --model_dir={model} {flags}")).done();
        sandbox.run(&format!("evaluate --data_dir=data --log_dir={logs} --model_dir={model}")).done();
        files.extend([model, logs].map(|directory| sandbox.path(directory).join("metrics.json")));
    }
    files
}

/// The parameters files of this repository.
fn parameters_files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("workspace/parameters");
    let files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    files
}

#[test]
fn the_schema_of_metrics_knows_every_field_of_real_ones() {
    let sandbox = Sandbox::with_data();
    let schema = schema("metrics");
    let mut seen = std::collections::BTreeSet::new();
    for file in metrics(&sandbox) {
        let metrics: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        hold(&schema, &schema, &metrics, &file.display().to_string());
        seen.extend(metrics.as_object().unwrap().keys().cloned());
        if metrics["task"] == "train" {
            let required = schema["then"]["required"].as_array().unwrap();
            assert!(required.iter().all(|name| metrics.get(name.as_str().unwrap()).is_some()), "{metrics}");
        }
    }
    // And the other way round: no field of it is made up.
    let known: std::collections::BTreeSet<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(seen, known);
}

#[test]
fn the_schema_of_parameters_knows_every_key_of_real_files() {
    let sandbox = Sandbox::with_data();
    let schema = schema("parameters");
    sandbox.train("--schedule=linear --augment=both").done();
    let mut files = parameters_files();
    files.push(sandbox.path("model/parameters.yaml"));
    for file in files {
        let value: Value = serde_yaml::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        hold(&schema, &schema, &value, &file.display().to_string());
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn a_schema_of_something_else_is_refused() {
    let ended = Sandbox::new().run("schema model");
    assert!(ended.stderr.contains("[possible values: parameters, metrics]"), "{ended:#?}");
    assert_eq!(ended.code, Some(2));
}

/// Parameters files, each wrong or right in one place.
const PARAMETERS: [&str; 78] = [
    "optimizer: adam",
    "optimizer: SGD",
    "optimizer: lion",
    "train_epochs: 0",
    "epochs: 2",
    "epochs: 2\ntrain_epochs: 2",
    "batch_size: 32.5",
    "batch_size: \"32\"",
    "batchsize: 32",
    "learning_rate: 0",
    "learning_rate: 1000",
    "learning_rate: 1001",
    "dropout: 0",
    "dropout: 1",
    "optimizer: sgd\nmomentum: 0.9\nnesterov: true",
    "nesterov: 1",
    "hidden_layers: []",
    "hidden_layers: [256, 128]",
    "hidden_layers: [0]",
    "hidden_layers: 128",
    "schedule: cosine\nfinal_learning_rate: 0",
    "schedule: polynomial",
    "validation: 0.1",
    "validation: 5000",
    "validation: 1.5",
    "validation: -0.1",
    "seed: 18446744073709551615",
    "seed: -1",
    "device: GPU:1",
    "device: gpu:NVIDIA",
    "device: \"gpu:\"",
    "device: tpu",
    "gpus: AUTO",
    "gpus: 0",
    "gpus: 64",
    "gpus: 65",
    "gpus: \"2\"",
    // Parameters that do not go together, each beside one of those that do.
    "keep: best",
    "keep: Best\nvalidation: 0",
    "keep: best\nvalidation: 100",
    "keep: last",
    "early_stopping: 2",
    "early_stopping: 2\nvalidation: 0.1",
    "early_stopping: 0",
    "early_stopping: 2\nvalidation: 0.1\nmin_delta: 0.1",
    "min_delta: 0.1",
    "min_delta: 0",
    "momentum: 0.9",
    "momentum: 0",
    "optimizer: adam\nmomentum: 0.9",
    "optimizer: Sgd\nmomentum: 0.9",
    "optimizer: rmsprop\nmomentum: 0.9",
    "optimizer: rmsprop\nmomentum: 0.9\nnesterov: true",
    "optimizer: sgd\nnesterov: true",
    "optimizer: sgd\nmomentum: 0\nnesterov: true",
    "nesterov: false",
    "final_learning_rate: 0.1",
    "schedule: Constant\nfinal_learning_rate: 0.1",
    "schedule: STEP\nfinal_learning_rate: 0.1",
    "schedule: exponential\nfinal_learning_rate: 0",
    "schedule: exponential\nfinal_learning_rate: 0.1",
    "schedule: exponential",
    "warmup: 2\ntrain_epochs: 3",
    "optimizer: adagrad\nnesterov: true",
    "augment: both\nrotation: 3\nscale: 0.1\nshear: 0.1\nshift: 1\nelastic_sigma: 4\nelastic_alpha: 34",
    "augment: Affine\nrotation: 0",
    "augment: affine\nelastic_alpha: 34",
    "augment: elastic\nelastic_alpha: 34",
    "augment: elastic\nshift: 0",
    "augment: none\nscale: 0.1",
    "elastic_sigma: 4",
    "augment: both\nelastic_sigma: 0.5",
    "device: CPU\ngpus: 2",
    "device: cpu\ngpus: 1",
    "device: gpu:1\ngpus: 2",
    "engine: burn\ngpus: All",
    "engine: burn\ngpus: auto",
    "engine: fused\ngpus: all",
];

/// The only thing that the schema takes and the program refuses; the schema says so.
const BEYOND_SCHEMA: &str = "warmup: 3\ntrain_epochs: 3";

#[test]
fn pythons_jsonschema_says_of_every_file_what_the_program_says() {
    let Some(mut python) = python_with(&["jsonschema", "yaml"]) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/validate_schema.py");
    let mut verdicts = |schema: &str, files: &[PathBuf]| -> Vec<String> {
        let sandbox = Sandbox::new();
        sandbox.write("schema.json", sandbox.run(&format!("schema {schema}")).done().stdout);
        let ended = end(python.arg(&script).arg(sandbox.path("schema.json")).args(files)).done();
        python = python_with(&["jsonschema", "yaml"]).unwrap();
        serde_json::from_str(&ended.stdout).unwrap()
    };
    let sandbox = Sandbox::with_data();
    assert_eq!(verdicts("metrics", &metrics(&sandbox)), [""; 6]);

    let mut files = parameters_files();
    files.extend((0..3).map(|at| sandbox.path(format!("model{at}/parameters.yaml"))));
    for (at, text) in PARAMETERS.iter().enumerate() {
        let name = format!("{at}.yaml");
        sandbox.write(&name, text);
        files.push(sandbox.path(name));
    }
    sandbox.write("beyond.yaml", BEYOND_SCHEMA);
    assert_eq!(verdicts("parameters", &[sandbox.path("beyond.yaml")]), [""]);
    assert!(Parameters::read(&sandbox.path("beyond.yaml"), &[]).is_err());
    assert!(schema("parameters")["description"].as_str().unwrap().contains("warmup"));
    for (file, fault) in files.iter().zip(verdicts("parameters", &files)) {
        let read = Parameters::read(file, &[]);
        let text = fs::read_to_string(file).unwrap();
        assert_eq!(fault.is_empty(), read.is_ok(), "{text}\njsonschema: {fault}\nmnist: {read:?}");
    }
}
