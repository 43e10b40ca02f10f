//! Input that is missing, damaged, or does not fit.

use std::fs;

use mnist::data::dataset::Dataset;
use mnist::data::idx::{encode_images, encode_labels};
use serde_json::{Value, json};

use super::{HASH, IMAGES, LABELS, Trial, contents, give_away};
use crate::common::gzip;

#[test]
fn raw_data_must_be_whole_and_apart_from_outputs() {
    let trial = Trial::new();
    let refuses = |changed: &[_], message: &str| trial.refuses("prepare", changed, message);
    fs::create_dir(trial.sandbox.path("empty")).unwrap();
    refuses(
        &[("data_path", "empty"), ("labels_path", "empty")],
        "@/empty: expected t10k-images-idx3-ubyte, plain or gzipped, or labels.csv beside the labels in @/empty, found \
         neither",
    );
    refuses(&[("labels_path", "empty")], "@/empty: expected t10k-labels-idx1-ubyte, plain or gzipped, found none");
    let same = "a directory outside of those of the raw data, found one of them";
    refuses(&[("output_path", "raw")], &format!("--output_path=@/raw: expected {same}"));
    refuses(&[("output_labels_path", "raw")], &format!("--output_labels_path=@/raw: expected {same}"));
    let below = "a directory outside of those of the raw data, found one in them";
    refuses(&[("output_path", "raw/new")], &format!("--output_path=@/raw/new: expected {below}"));
    let same = "another directory than --output_path, found the same";
    refuses(&[("output_labels_path", "data")], &format!("--output_labels_path=@/data: expected {same}"));

    let nested = "another directory than --output_path, found one in the other";
    refuses(&[("output_labels_path", "data/new")], &format!("--output_labels_path=@/data/new: expected {nested}"));
    refuses(&[("output_path", "labels/new")], &format!("--output_labels_path=@/labels: expected {nested}"));
    let raw = "a directory without raw data, which a model sees there, found raw data below it";
    fs::create_dir(trial.sandbox.path("above")).unwrap();
    give_away(&trial.sandbox.path("above"));
    fs::rename(trial.sandbox.path("raw"), trial.sandbox.path("above/raw")).unwrap();
    let above = [("data_path", "above/raw"), ("labels_path", "above/raw"), ("output_path", "above")];
    refuses(&above, &format!("--output_path=@/above: expected {raw}"));
    assert_eq!(trial.sandbox.files("above"), ["raw"]);
    fs::rename(trial.sandbox.path("above/raw"), trial.sandbox.path("raw")).unwrap();

    let labels = |labels: &[u8]| trial.sandbox.write(&format!("raw/{LABELS}.gz"), gzip(&encode_labels(labels)));
    labels(&[1; 99]);
    refuses(
        &[],
        "@/raw/t10k-images-idx3-ubyte: has 100 images, but @/raw/t10k-labels-idx1-ubyte.gz has 99 labels: expected equal numbers",
    );
    labels(&[[1; 99].as_slice(), &[10]].concat());
    refuses(&[], "@/raw/t10k-labels-idx1-ubyte.gz: expected labels from 0 to 9, found 10 at label 99");
    trial.sandbox.write(&format!("raw/{LABELS}.gz"), &gzip(&encode_labels(&[1; 100]))[..20]);
    assert!(trial.call("prepare", &[]).stderr.contains("t10k-labels-idx1-ubyte.gz: cannot decompress: "));
    labels(&[1; 100]);
    trial.sandbox.write(&format!("raw/{IMAGES}"), encode_images(&[0; 100 * 20 * 20], 20, 20));
    refuses(&[], "@/raw/t10k-images-idx3-ubyte: expected images of 28 x 28 pixels, found 20 x 20");
    assert!(trial.sandbox.files("data").is_empty() && trial.sandbox.files("labels").is_empty());
}

#[test]
fn prepared_data_must_be_whole_and_of_one_piece() {
    let trial = Trial::new();
    trial.call("prepare", &[]).done();
    let check = |message: &str| {
        for task in ["sanity_check", "statistics"] {
            trial.refuses(task, &[], message);
        }
    };
    let [images, labels, hash] = [format!("data/{IMAGES}"), format!("labels/{LABELS}"), format!("labels/{HASH}")];
    let [good, good_labels, good_hash] =
        [&images, &labels, &hash].map(|name| fs::read(trial.sandbox.path(name)).unwrap());

    let mut other = good.clone();
    other[1000] ^= 1;
    trial.sandbox.write(&images, &other);
    let ended = trial.call("sanity_check", &[]);
    let problem =
        format!("{IMAGES}: is not of the labels in {}: expected the SHA-256 ", trial.sandbox.path("labels").display());
    assert!(ended.code == Some(1) && ended.stderr.contains(&problem), "{ended:#?}");
    trial.sandbox.write(&images, &good[..good.len() - 784]);
    check("@/data/t10k-images-idx3-ubyte: is truncated: expected 78416 bytes for 100 images, found 77632");
    trial.sandbox.write(&images, encode_images(&good[16..16 + 784], 28, 28));
    check(
        "@/data/t10k-images-idx3-ubyte: has 1 images, but @/labels/t10k-labels-idx1-ubyte has 100 labels: expected equal numbers",
    );
    fs::remove_file(trial.sandbox.path(&images)).unwrap();
    check("@/data/t10k-images-idx3-ubyte: cannot read: No such file or directory (os error 2)");
    trial.sandbox.write(&images, &good);

    trial.sandbox.write(&labels, encode_labels(&[1; 101]));
    check(
        "@/data/t10k-images-idx3-ubyte: has 100 images, but @/labels/t10k-labels-idx1-ubyte has 101 labels: expected equal numbers",
    );
    trial.sandbox.write(&labels, good_labels);
    for text in ["", "no hash at all\n", &"0123456789abcdef".repeat(100)] {
        trial.sandbox.write(&hash, text);
        check(
            "@/labels/t10k-images-idx3-ubyte.sha256: expected a SHA-256 and the name t10k-images-idx3-ubyte, as sha256sum writes them",
        );
    }
    let two = [b"0".repeat(64).as_slice(), b"  t10k-images-idx3-ubyte\n", &good_hash].concat();
    trial.sandbox.write(&hash, two);
    check(
        "@/labels/t10k-images-idx3-ubyte.sha256: has the hashes of several preparations: the last one was interrupted",
    );
    trial.call("prepare", &[]).done();
    assert!(fs::read(trial.sandbox.path(&hash)).unwrap() == good_hash);
    trial.call("sanity_check", &[]).done();
}

#[test]
fn the_sanity_check_refuses_labels_beside_images_and_blank_images() {
    let trial = Trial::new();
    trial.call("prepare", &[]).done();
    trial.sandbox.write(&format!("data/{LABELS}"), "");
    let message =
        "@/data/t10k-labels-idx1-ubyte: expected no labels in the directory of the images, where a model sees them";
    trial.refuses("sanity_check", &[], message);
    fs::remove_file(trial.sandbox.path(format!("data/{LABELS}"))).unwrap();
    fs::create_dir_all(trial.sandbox.path("data/deep/labels")).unwrap();
    for name in [LABELS, HASH] {
        let below = trial.sandbox.path(format!("data/deep/labels/{name}"));
        fs::copy(trial.sandbox.path(format!("labels/{name}")), below).unwrap();
    }
    let message = "@/data/deep/labels/t10k-labels-idx1-ubyte: expected no labels in the directory of the images, where a \
                   model sees them";
    trial.refuses("sanity_check", &[("labels_path", "data/deep/labels")], message);
    fs::remove_dir_all(trial.sandbox.path("data/deep")).unwrap();
    let mut blank = fs::read(trial.sandbox.path(format!("data/{IMAGES}"))).unwrap();
    blank[16 + 784 * 7..16 + 784 * 9].fill(255);
    trial.sandbox.write(&format!("raw/{IMAGES}"), blank);
    trial.call("prepare", &[]).done();
    let message = "@/data/t10k-images-idx3-ubyte: expected images that show something, found 2 images of one shade, the first at 7";
    trial.refuses("sanity_check", &[], message);
}

#[test]
fn a_model_is_needed_that_knows_these_digits() {
    let trial = Trial::new();
    trial.call("prepare", &[]).done();
    fs::remove_file(trial.sandbox.path("files/model.safetensors")).unwrap();
    trial.refuses("infer", &[], "@/files: has no model: expected a file model.safetensors");
    trial.sandbox.write("files/model.safetensors", "no model");
    assert!(trial.call("infer", &[]).stderr.contains("files/model.safetensors: is not a safetensors file"));
    assert!(trial.sandbox.files("predictions").is_empty());
}

#[test]
fn predictions_are_given_by_their_directory() {
    let trial = Trial::inferred();
    let path = "predictions/predictions.json";
    let ended = trial.call("evaluate", &[("predictions", path)]);
    let said = format!(
        "/{path}: expected the directory with predictions.json, found a file\nhint: give the directory of predictions, such as {}\n",
        trial.sandbox.path("predictions").display()
    );
    assert!(ended.stderr.ends_with(&said) && ended.code == Some(2), "{ended:#?}");
}

#[test]
fn predictions_of_more_images_are_of_other_ones() {
    let trial = Trial::inferred();
    let path = "predictions/predictions.json";
    let text = trial.sandbox.read(path);
    let good: Value = serde_json::from_str(&text).unwrap();
    let of_others = text.replace(good["images_sha256"].as_str().unwrap(), &"0".repeat(64));
    trial.sandbox.write(path, of_others + &" ".repeat(200_000));
    let ended = trial.call("evaluate", &[]);
    assert!(ended.stderr.contains("images_sha256: are predictions of other images: expected"), "{ended:#?}");
}

#[test]
fn predictions_must_be_those_of_the_labels_images() {
    let trial = Trial::inferred();
    let path = "predictions/predictions.json";
    let good: Value = serde_json::from_str(&trial.sandbox.read(path)).unwrap();
    let refuses = |message: &str| trial.refuses("evaluate", &[], &format!("@/{path}: {message}"));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = good.clone();
        change(&mut changed);
        trial.sandbox.write(path, changed.to_string());
    };
    let zeros = "0".repeat(64);
    with(&|all| all["images_sha256"] = json!(zeros));
    let ended = trial.call("evaluate", &[]);
    assert!(
        ended.stderr.contains("images_sha256: are predictions of other images: expected the SHA-256 "),
        "{ended:#?}"
    );
    with(&|all| all["model_sha256"] = json!("x"));
    refuses("model_sha256: expected a SHA-256 in hexadecimal");
    with(&|all| all["classes"] = json!(["a", "b"]));
    refuses("classes: expected 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, found a, b");
    with(&|all| _ = all["probabilities"].as_array_mut().unwrap().pop());
    refuses("probabilities: expected those of 100 images, found 99");
    with(&|all| _ = all["probabilities"][4].as_array_mut().unwrap().pop());
    refuses("probabilities of image 4: expected 10 numbers, found 9");
    for wrong in [-0.5, 1.5] {
        with(&|all| all["probabilities"][4][0] = json!(wrong));
        refuses(&format!("probabilities of image 4: expected numbers from 0 to 1, found {wrong}"));
    }
    with(&|all| all["probabilities"][4] = json!([0.5, 0.25, 0, 0, 0, 0, 0, 0, 0, 0]));
    refuses("probabilities of image 4: expected a sum of 1, found 0.75");
    with(&|all| all["labels"] = json!([]));
    let ended = trial.call("evaluate", &[]);
    assert!(ended.stderr.contains("predictions.json:1: unknown field `labels`, expected one of "), "{ended:#?}");
    assert!(!ended.stderr.contains(" at line "), "{ended:#?}");
    // No text of the file makes a message long.
    let long = "x".repeat(60_000);
    for (key, value) in [("classes", json!([long])), ("classes", json!(long)), (long.as_str(), json!(1))] {
        with(&|all| all[key] = value.clone());
        let ended = trial.call("evaluate", &[]);
        assert!(ended.code == Some(1) && ended.stderr.len() < 1000, "{ended:#?}");
    }
    let text = good.to_string();
    trial.sandbox.write(path, &text[..text.len() / 2]);
    assert!(trial.call("evaluate", &[]).stderr.contains("predictions.json:1: EOF while parsing"));
    trial.sandbox.write(path, text + &" ".repeat(200_000));
    refuses("expected at most 105536 bytes for 100 images, found more");
    fs::remove_file(trial.sandbox.path(path)).unwrap();
    refuses("cannot read: No such file or directory (os error 2)");
    assert!(!trial.sandbox.path("results").exists());

    // One that is sure of a wrong class costs a finite loss.
    let labels = Dataset::load(&trial.sandbox.path("known")).unwrap().test.labels;
    let wrong = |label: &u8| (0..10).map(|class| f64::from(u8::from(class == (label + 1) % 10))).collect::<Vec<_>>();
    with(&|all| all["probabilities"] = json!(labels.iter().map(wrong).collect::<Vec<_>>()));
    trial.call("evaluate", &[]).done();
    let results: Value = serde_yaml::from_str(&trial.sandbox.read("results/results.yaml")).unwrap();
    let loss = results["loss"].as_f64().unwrap();
    assert!(results["accuracy"] == 0.0 && loss > 700.0 && loss.is_finite(), "{results}");
}

#[test]
fn an_output_replaces_nothing_but_an_earlier_one() {
    let trial = Trial::inferred();
    trial.sandbox.write("thesis.txt", "years of work");
    let labels = "labels/t10k-labels-idx1-ubyte";
    let inputs = ["labels", "data", "predictions"].map(|name| trial.sandbox.path(name));
    let before = contents(&inputs);
    for (task, paths) in [
        ("statistics", [labels, "labels", "labels/new/a.yaml", "data/a.yaml", "thesis.txt/../data/a.yaml"]),
        ("evaluate", [labels, "labels", "labels/new/a.yaml", "predictions/predictions.json", "predictions/a"]),
    ] {
        for path in paths {
            let problem = "expected a path outside of the directories of the inputs, found one in them";
            trial.refuses(task, &[("output_path", path)], &format!("--output_path=@/{path}: {problem}"));
        }
        let problem = "expected a new file or an earlier one of this program, found";
        trial.refuses(task, &[("output_path", "thesis.txt")], &format!("@/thesis.txt: {problem} another file"));
        trial.refuses(task, &[("output_path", "raw")], &format!("@/raw: {problem} a directory"));
    }
    // Each knows its own only.
    trial.call("evaluate", &[]).done();
    let problem = "expected a new file or an earlier one of this program, found another file";
    let results = "results/results.yaml";
    trial.refuses("statistics", &[("output_path", results)], &format!("@/{results}: {problem}"));
    trial.call("evaluate", &[]).done();
    // A model is not told from predictions by its directory, nor data from prepared data.
    let refused = "expected a path outside of the directories of the inputs, found one in them";
    for path in ["files", "data", "files/new"] {
        trial.refuses("infer", &[("output_path", path)], &format!("--output_path=@/{path}: {refused}"));
    }
    assert!(contents(&inputs) == before);
    for (task, file, changed) in [
        ("infer", "a/predictions.json", [("output_path", "a"), ("", "")]),
        ("prepare", "b/t10k-images-idx3-ubyte", [("output_path", "b"), ("output_labels_path", "empty")]),
        ("prepare", "c/t10k-labels-idx1-ubyte", [("output_labels_path", "c"), ("output_path", "empty")]),
    ] {
        for (_, directory) in changed.iter().filter(|(flag, _)| !flag.is_empty()) {
            fs::create_dir_all(trial.sandbox.path(directory)).unwrap();
            give_away(&trial.sandbox.path(directory));
        }
        trial.sandbox.write(file, "years of work");
        trial.refuses(task, &changed, &format!("@/{file}: {problem}"));
        assert_eq!(trial.sandbox.read(file), "years of work");
    }
    assert_eq!(trial.sandbox.read("thesis.txt"), "years of work");
    // The hash beside prepared labels makes no other images prepared ones.
    trial.call("prepare", &[]).done();
    let other = encode_images(&[7; 784], 28, 28);
    trial.sandbox.write(&format!("b/{IMAGES}"), &other);
    trial.refuses("prepare", &[("output_path", "b")], &format!("@/b/{IMAGES}: {problem}"));
    assert!(fs::read(trial.sandbox.path(format!("b/{IMAGES}"))).unwrap() == other);
    for name in [LABELS, HASH] {
        let before = fs::read(trial.sandbox.path(format!("labels/{name}"))).unwrap();
        trial.sandbox.write(&format!("labels/{name}"), "years of work");
        let found = trial.call("prepare", &[]);
        assert!(found.code == Some(1) && found.stderr.contains("found another file"), "{name}: {found:#?}");
        assert_eq!(trial.sandbox.read(&format!("labels/{name}")), "years of work");
        trial.sandbox.write(&format!("labels/{name}"), before);
    }
    trial.call("prepare", &[]).done();
}

#[test]
fn outside_of_medperfs_containers_each_volume_is_asked_for() {
    let trial = Trial::new();
    for (task, flag, path, flags) in [
        ("prepare", "data_path", "raw_data", "data_path labels_path output_path output_labels_path"),
        ("sanity_check", "data_path", "data", "data_path labels_path"),
        ("statistics", "data_path", "data", "data_path labels_path output_path"),
        ("infer", "data_path", "data", "data_path additional_files output_path"),
        ("evaluate", "predictions", "predictions", "predictions labels output_path"),
    ] {
        let flags: Vec<String> = flags.split(' ').map(|flag| format!("--{flag}=PATH")).collect();
        let ended = trial.native(task, &[]);
        let expected = format!(
            "error: --{flag}=/mlcommons/volumes/{path}: expected a volume that MedPerf mounts there, found none\nhint: outside \
             of its containers, give each: `mnist medperf {task} {}`\n",
            flags.join(" ")
        );
        assert_eq!((ended.stderr, ended.code), (expected, Some(2)));
    }
}
