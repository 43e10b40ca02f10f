//! Data sets as values: a set with another number of classes needs a row, and nothing else.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use mnist::data::dataset::{Dataset, Images, TEST};
use mnist::data::file_digest::sha256_of_known;
use mnist::data::idx;
use mnist::data::sets::{DataSource, Frame, MNIST, SetKind, SourceFile};
use mnist::data::synthetic::{self, Split};
use mnist::engine::choice;
use mnist::model::file::{self as model_file, Model};
use mnist::output::event::Listeners;
use mnist::output::metrics::ClassScore;
use mnist::output::onnx;
use mnist::parameters::Parameters;
use mnist::training::course::Course;
use mnist::training::{Training, evaluation};

use crate::common::real_mnist;

const fn file(name: &'static str) -> SourceFile {
    SourceFile { name, bytes: 0, sha256: "", blake3: "" }
}

/// Sixteen classes of 28 x 28 pixels.
static LETTERS: SetKind = SetKind {
    id: "letters",
    title: "the letters",
    description: "letters A to P",
    credit: None,
    frame: Frame { side: 28, box_side: 20 },
    classes: &["A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M", "N", "O", "P"],
    files: [
        file("letters-train-images-idx3-ubyte"),
        file("letters-train-labels-idx1-ubyte"),
        file("letters-test-images-idx3-ubyte"),
        file("letters-test-labels-idx1-ubyte"),
    ],
    mirrors: &[],
    stands_in_for: None,
};

/// The set's files: the ten digits, and as classes 10 to 15 the digits 0 to 5 with a mark in two corners.
fn write_letters(directory: &Path, train: usize, test: usize) {
    for (split, count, files) in [(Split::Train, train, &LETTERS.files[..2]), (Split::Test, test, &LETTERS.files[2..])]
    {
        let Images { mut pixels, mut labels, .. } = synthetic::draw(split, count);
        for (index, (image, label)) in pixels.chunks_mut(784).zip(&mut labels).enumerate() {
            if index % 2 == 0 && *label < 6 {
                image[..3].fill(255);
                image[781..].fill(255);
                *label += 10;
            }
        }
        fs::write(directory.join(files[0].name), idx::encode_images(&pixels, 28, 28)).unwrap();
        fs::write(directory.join(files[1].name), idx::encode_labels(&labels)).unwrap();
    }
}

#[test]
fn sixteen_classes_need_a_row_and_no_code() {
    let dir = tempfile::tempdir().unwrap();
    write_letters(dir.path(), 12_000, 1000);
    let dataset = Dataset::load_one_of(&[&LETTERS], dir.path()).unwrap();
    assert_eq!((dataset.train.side, dataset.train.classes), (28, LETTERS.classes));
    assert_eq!(dataset.provenance.source, DataSource(None), "the hashes are of no known set");
    let refused = Dataset::load(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("train-images-idx3-ubyte is missing"), "{refused}");

    let parameters = Parameters { train_epochs: 1, hidden_layers: vec![64], ..Parameters::default() };
    let recipe = parameters.recipe(&dataset.train);
    let choice::Chosen { choice, .. } = choice::choose(&recipe, &parameters.choice(), 1, &dataset.train).unwrap();
    assert_eq!(choice.engine, choice::EngineChoice::Fused);
    let mut trainer = choice::build(&recipe, &choice, dataset.train.clone()).unwrap();
    let mut nobody = Listeners(vec![]);
    let training = Training {
        parameters: &parameters,
        dataset: &dataset,
        trainer: trainer.as_mut(),
        augmenter: None,
        listener: &mut nobody,
        course: Course::default(),
        deadline: None,
        recorder: None,
    };
    let trained = training.run().result.unwrap();
    let score = &trained.final_evaluation().score;
    assert!(score.accuracy > 0.6, "{}", score.accuracy);
    assert_eq!(score.confusion.iter().map(Vec::len).collect::<Vec<_>>(), [16; 16]);
    assert_eq!(ClassScore::all(score).len(), 16);
    assert!((10..16).all(|class| score.recall(class) > Some(0.3)), "{:?}", score.confusion);

    let read = model_file::decode(&model_file::encode(&trained.model)).unwrap();
    assert_eq!(read, trained.model);
    dataset.test_set().check_fit(dir.path(), &read).unwrap();
    let mut network = choice::network(&read.shape, &read.parameters).unwrap();
    let again = evaluation::evaluate(network.as_mut(), TEST, &dataset.test, None, None, &mut nobody).unwrap();
    assert_eq!(again.score, *score);
    assert!(onnx::encode(&read, "").unwrap().windows(4).any(|bytes| bytes == b"Gemm"));
}

#[test]
fn labels_beyond_the_classes_of_the_set_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_letters(dir.path(), 100, 100);
    let labels = dir.path().join(LETTERS.files[3].name);
    fs::write(&labels, idx::encode_labels(&[16; 100])).unwrap();
    let refused = Dataset::load_one_of(&[&LETTERS], dir.path()).unwrap_err().to_string();
    assert_eq!(refused, format!("{}: expected labels from 0 to 15, found 16 at label 0", labels.display()));
}

#[test]
fn a_model_of_other_classes_is_refused_where_it_meets_the_images() {
    let dir = tempfile::tempdir().unwrap();
    synthetic::write(dir.path(), 10, 10).unwrap();
    let dataset = Dataset::load(dir.path()).unwrap();
    let shape = mnist::model::MlpShape::new(784, &[3], 16);
    let model = Model { parameters: shape.initial_parameters(1), shape, data: "unknown".into(), unfinished: None };
    let refused = dataset.test_set().check_fit(Path::new("model"), &model).unwrap_err().to_string();
    assert_eq!(refused, "model/model.safetensors: expected layers from 784 to 10, found [784, 3, 16]");
}

/// Those of the synthetic digits are compared where they are drawn.
#[test]
fn the_files_of_mnist_have_both_hashes() {
    let Some(mirror) = real_mnist() else { return };
    for file in &MNIST.files {
        let mut bytes = vec![];
        let zipped = File::open(mirror.join(format!("{}.gz", file.name))).unwrap();
        GzDecoder::new(zipped).read_to_end(&mut bytes).unwrap();
        assert_eq!(sha256_of_known(&bytes), Some(file.sha256), "{}", file.name);
        bytes[99] ^= 1;
        assert_eq!(sha256_of_known(&bytes), None, "{}", file.name);
    }
}
