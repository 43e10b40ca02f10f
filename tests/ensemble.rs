//! Ensembles: several networks that train side by side and answer as one. And calibration, which every model with a
//! validation split has.

use mnist::data::dataset::Dataset;
use mnist::model::file::{self as weights, Model};
use mnist::score::{Score, mean_of_answers};

use crate::common::{self, Sandbox};

fn model(sandbox: &Sandbox) -> Model {
    weights::load(&sandbox.path("model")).unwrap()
}

#[test]
fn any_number_of_threads_gives_the_same_bytes_and_the_first_member_is_the_network_alone() {
    let sandbox = Sandbox::with_data();
    let flags = "--train_epochs=2 --augment=both --ema=0.9 --batch_size=8 --ensemble";
    sandbox.train(&format!("{flags}=1")).done();
    let alone = model(&sandbox).parameters;
    let mut models = vec![];
    for threads in [1, 2, 3, 8] {
        sandbox.train(&format!("{flags}=3 --threads={threads}")).done();
        models.push(sandbox.model());
    }
    assert!(models.iter().all(|bytes| *bytes == models[0]));
    let members = model(&sandbox);
    assert_eq!(members.members().len(), 3);
    let members: Vec<_> = members.members().collect();
    assert!(members[0] == alone);
    assert!(members[1] != members[0] && members[2] != members[1]);
}

#[test]
fn answers_have_the_mean_of_the_probabilities_everywhere() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--train_epochs=4 --ensemble=2 --validation=0.2").done();
    let ensemble = model(&sandbox);
    let test = Dataset::load(&sandbox.path("data")).unwrap().test;
    let answer = common::logits(&ensemble, &test.pixels);
    let members = ensemble.members().map(|parameters| {
        let model = Model { parameters: parameters.to_vec(), ..ensemble.clone() };
        common::logits(&model, &test.pixels)
    });
    let members: Vec<_> = members.collect();
    assert_ne!(members[0], members[1]);
    assert_eq!(answer, mean_of_answers(&members, 10));

    let score = Score::new(&answer, &test.labels, 10);
    let metrics = sandbox.metrics("model");
    assert_eq!(metrics["test"]["accuracy"], score.accuracy);
    assert_eq!(metrics["test"]["calibration_error"], score.calibration_error);
    assert_eq!(metrics["parameter_count"], 2 * ensemble.shape.parameter_count());
    sandbox.run("evaluate --data_dir=data --log_dir=evaluated --model_dir=model").done();
    assert_eq!(sandbox.metrics("evaluated")["test"], metrics["test"]);
    assert!(sandbox.read("model/report.html").contains("2 networks of 784–16–10"));
}

#[test]
fn an_ensemble_begins_with_one_of_as_many_networks() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--ensemble=2").done();
    std::fs::rename(sandbox.path("model"), sandbox.path("first")).unwrap();
    let first = sandbox.path("first/model.safetensors").canonicalize().unwrap();
    sandbox.train("--ensemble=2 --init=first --learning_rate=1e-30").done();
    let before = weights::load(&sandbox.path("first")).unwrap();
    assert!(model(&sandbox).parameters == before.parameters);
    sandbox.train(&format!("--init={}", first.parent().unwrap().display())).failed_with(&format!(
        "{}: expected a model with layers [784, 16, 10], as the parameters say, found 2 networks of layers [784, 16, 10]\n\
         hint: set hidden_layers and ensemble to those of the model",
        first.display()
    ));
}

#[test]
fn a_damaged_ensemble_is_refused() {
    let sandbox = Sandbox::with_data();
    sandbox.train("--ensemble=2").done();
    let bytes = sandbox.model();
    let replaced = |from: &str, to: &str| {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        weights::decode(&[&bytes[..at], to.as_bytes(), &bytes[at + to.len()..]].concat()).unwrap_err()
    };
    assert_eq!(replaced("ensemble\\\":2", "ensemble\\\":3"), "expected 12 tensors for layers [784, 16, 10], found 8");
    assert_eq!(replaced("ensemble\\\":2", "ensemble\\\":0"), "expected an ensemble of 1 to 100 networks, found 0");
    assert_eq!(
        replaced("members.1.layers.0.bias", "members.2.layers.0.bias"),
        "expected a tensor members.1.layers.0.bias, found none"
    );
}

#[test]
fn calibration_changes_no_answer_and_lowers_the_validation_loss() {
    let sandbox = Sandbox::with_data();
    // Without dropout and with few images, a network becomes sure of all it has learnt by heart.
    let flags = "--train_epochs=60 --dropout=0 --learning_rate=0.01 --batch_size=8";
    sandbox.train(&format!("{flags} --validation=100")).done();
    let metrics = sandbox.metrics("model");
    let temperature = metrics["calibration"]["temperature"].as_f64().unwrap();
    assert!(temperature > 1.2, "{temperature}");
    let last = &metrics["epochs"][59];
    assert!(metrics["validation"]["loss"].as_f64() < last["validation_loss"].as_f64());
    assert_eq!(metrics["validation"]["accuracy"], last["validation_accuracy"]);
    let (before, after) = (&metrics["calibration"]["error_before"], &metrics["test"]["calibration_error"]);
    assert!(after.as_f64() < before.as_f64(), "{metrics}");
    let percent = |share: &serde_json::Value| format!("{:.2}\u{a0}%</dd>", 100.0 * share.as_f64().unwrap());
    let expected = [(before, "before calibration"), (after, "Expected calibration error")]
        .map(|(share, name)| (name, percent(share)));
    let report = sandbox.read("model/report.html");
    for (name, error) in expected {
        assert!(report.contains(&format!("<dt>{name}</dt><dd>{error}")), "{name} {error}");
    }
    assert!(report.contains(&format!("<dt>temperature</dt><dd>{temperature:.2}</dd>")));

    sandbox.train("").done();
    assert!(sandbox.metrics("model")["calibration"].is_null());
    assert!(sandbox.read("model/report.html").contains("This model is not calibrated"));
}
