//! Raw data as pictures with a `labels.csv`.

use std::fs;
use std::io::Cursor;

use image::{GrayImage, ImageFormat};
use mnist::data::dataset::Dataset;
use mnist::data::idx::{encode_images, encode_labels};
use mnist::data::picture::{self, prepare};
use mnist::data::sets::MNIST;

use super::{IMAGES, LABELS, Trial};
use crate::common::fifo;

/// The raw data of `trial` as pictures in `pictures`, with their labels in `pictures/labels.csv`.
fn draw(trial: &Trial) {
    let test = Dataset::load(&trial.sandbox.path("known")).unwrap().test;
    fs::create_dir_all(trial.sandbox.path("pictures/ward, 3")).unwrap();
    let mut list = String::from("file,label\n");
    for index in 0..test.len() {
        let name = format!("ward, 3/{index}.png");
        let mut bytes = Cursor::new(vec![]);
        GrayImage::from_raw(28, 28, test.image(index).to_vec())
            .unwrap()
            .write_to(&mut bytes, ImageFormat::Png)
            .unwrap();
        trial.sandbox.write(&format!("pictures/{name}"), bytes.into_inner());
        list += &format!("\"{name}\",{}\n", test.labels[index]);
    }
    trial.sandbox.write("pictures/labels.csv", list);
    trial.sandbox.write("pictures/README.txt", "no picture");
}

const PICTURES: [(&str, &str); 2] = [("data_path", "pictures"), ("labels_path", "pictures")];

#[test]
fn pictures_become_the_images_that_predict_sees() {
    let trial = Trial::new();
    draw(&trial);
    trial.call("prepare", &PICTURES).done();
    let test = Dataset::load(&trial.sandbox.path("known")).unwrap().test;
    let seen = |index: usize| {
        let bytes = fs::read(trial.sandbox.path(format!("pictures/ward, 3/{index}.png"))).unwrap();
        prepare::prepare(&picture::decode(&bytes).unwrap(), MNIST.frame).unwrap().image
    };
    let expected: Vec<u8> = (0..test.len()).flat_map(seen).collect();
    let read = |name: &str| fs::read(trial.sandbox.path(name)).unwrap();
    assert!(read(&format!("data/{IMAGES}")) == encode_images(&expected, 28, 28));
    assert!(read(&format!("labels/{LABELS}")) == encode_labels(&test.labels));
    // Some of them are prepared like MNIST's already: these are not changed.
    let same = expected.chunks(784).zip(test.pixels.chunks(784)).filter(|(one, other)| one == other).count();
    assert!((10..100).contains(&same), "{same}");
    trial.call("sanity_check", &[]).done();
}

#[test]
fn pictures_and_their_list_must_fit() {
    let trial = Trial::new();
    draw(&trial);
    let list = trial.sandbox.read("pictures/labels.csv");
    let with = |more: &str| trial.sandbox.write("pictures/labels.csv", format!("{list}{more}"));
    let refuses = |message: &str| trial.refuses("prepare", &PICTURES, message);
    with("a.png,ten\n");
    refuses("@/pictures/labels.csv:102: expected the label 0, 1, 2, 3, 4, 5, 6, 7, 8 or 9, found ten");
    with("../raw/a.png,1\n");
    refuses("@/pictures/labels.csv:102: expected a path below the directory of the pictures, found ../raw/a.png");
    with("");
    trial.sandbox.write("pictures/ward, 3/extra.JPG", "");
    refuses("@/pictures/labels.csv: expected a line for every picture, found none for @/pictures/ward, 3/extra.JPG");
    // Every picture that cannot be read is named.
    with("\"ward, 3/extra.JPG\",4\ngone.png,4\n");
    let ended = trial.call("prepare", &PICTURES);
    for problem in
        ["ward, 3/extra.JPG: ", "gone.png: cannot read: No such file", "error: 2 of 102 images could not be read"]
    {
        assert!(ended.stderr.contains(problem), "{problem} in {ended:#?}");
    }
    assert_eq!(ended.code, Some(1));
    // One picture by two names.
    with("\"./ward, 3//0.png\",4\n");
    refuses("@/pictures/labels.csv:102: ward, 3/0.png is in line 2 already");
    with(&format!("{},4\n", "x".repeat(100_000)));
    refuses("@/pictures/labels.csv:102: expected a path of at most 1024 bytes, found 100000");
    // A pipe would block for ever.
    fifo(&trial.sandbox.path("pictures/pipe.png"));
    with("\"ward, 3/extra.JPG\",4\npipe.png,4\n");
    let ended = trial.call("prepare", &PICTURES);
    let problem = "pipe.png: cannot read: expected a file, found a pipe";
    assert!(ended.code == Some(1) && ended.stderr.contains(problem), "{ended:#?}");
    fs::remove_file(trial.sandbox.path("pictures/pipe.png")).unwrap();
    // Not a line for each of a million.
    let gone: String = (0..60).map(|index| format!("gone{index}.png,4\n")).collect();
    with(&format!("\"ward, 3/extra.JPG\",4\n{gone}"));
    let ended = trial.call("prepare", &PICTURES);
    assert_eq!(ended.stderr.matches("cannot read: No such file").count(), 49, "{ended:#?}");
    assert!(ended.stderr.contains("and 11 more pictures"), "{ended:#?}");
    assert!(trial.sandbox.files("data").is_empty() && trial.sandbox.files("labels").is_empty());
}
