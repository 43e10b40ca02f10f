//! `mnist augment`, and trainings with augmentation: the sheet, the report, the parameters that go together.

use image::{GenericImageView, ImageReader};
use mnist::data::augment::Warper;
use mnist::data::dataset::Dataset;
use mnist::parameters::Parameters;
use mnist::simd::InstructionSet;

use crate::common::{Sandbox, tmpfs};

/// The image in a place of `sheet.png`.
fn image_at(sandbox: &Sandbox, row: u32, column: u32) -> Vec<u8> {
    let sheet = ImageReader::open(sandbox.path("sheet.png")).unwrap().decode().unwrap();
    let left = 2 + column * 30 + if column > 0 { 4 } else { 0 };
    let image = sheet.view(left, 2 + row * 30, 28, 28);
    image.pixels().map(|(_, _, colour)| colour.0[0]).collect()
}

#[test]
fn a_sheet_shows_images_as_training_sees_them() {
    let sandbox = Sandbox::with_data();
    sandbox.write("parameters.yaml", "augment: both\nelastic_alpha: 50\nvalidation: 100\nseed: 1\n");
    let flags = "--parameters_file=parameters.yaml --seed=9";
    let ended = sandbox.run(&format!("augment --data_dir=data --out=sheet.png {flags} --count=95")).done();
    let words = "rotated by up to 7 degrees, width and height changed by up to 8 %, sheared by up to 0.05 pixels a row, \
                 shifted by up to 0.3 pixels, bent smoothly, by 1.16 pixels (RMS) along each axis";
    let expected = format!(
        "sheet          sheet.png\nimages         95, in rows of 10\nfirst column   10 of the 200 training images\n\
         the others     their copies in epochs 1 to 9: {words}\n"
    );
    assert_eq!((&*ended.stdout, &*ended.stderr), (&*expected, ""));
    assert_eq!(sandbox.files("."), ["data", "parameters.yaml", "sheet.png"]);

    let train = Dataset::load(&sandbox.path("data")).unwrap().train;
    let parameters = Parameters::read(&sandbox.path("parameters.yaml"), &[]).unwrap();
    let set = InstructionSet::available()[0];
    let warper = Warper::new(parameters.augmentation().unwrap(), 28, 9, set);
    for digit in 0..10 {
        let index = train.labels.iter().position(|&label| label == digit).unwrap();
        assert!(image_at(&sandbox, digit.into(), 0) == train.image(index), "{digit}");
        let mut copy = vec![0; 784];
        warper.warp(train.image(index), 3, index as u64, &mut warper.scratch(), &mut copy);
        assert!(image_at(&sandbox, digit.into(), 4) == copy, "{digit}");
    }
}

#[test]
fn a_sheet_without_distortions_and_one_that_is_too_large_are_refused() {
    let sandbox = Sandbox::with_data();
    let refused = |flags: &str, code: i32, message: &str| {
        let ended = sandbox.run(&format!("augment --data_dir=data --out=sheet.png {flags}"));
        assert_eq!(ended.code, Some(code), "{ended:#?}");
        assert!(ended.stderr.starts_with(&format!("error: {message}\n")), "{ended:#?}");
        assert_eq!(sandbox.files("."), ["data", "parameters.yaml"]);
    };
    let none = "augment: expected affine, elastic or both, found none";
    let flags = "with the parameters given as flags: ";
    refused("", 2, &format!("{flags}{none}: add --augment=both, or --parameters_file=PATH"));
    refused("--parameters_file=parameters.yaml", 1, &format!("parameters.yaml: {none}"));
    refused("--parameters_file=parameters.yaml --augment=none", 2, &format!("{flags}{none}"));
    refused("--rotation=3", 2, &format!("{flags}rotation: expected augment affine or both with it, found none"));
    for count in ["0", "10001", "-1", "ten", "99999999999999999999"] {
        let message = "expected a whole number from 1 to 10000, found";
        refused(
            &format!("--augment=both --count={count}"),
            2,
            &format!("invalid value '{count}' for '--count <NUMBER>': {message} {count}"),
        );
    }
    for out in ["-", "sheet.jpg", "/dev/null"] {
        let ended = sandbox.run(&format!("augment --data_dir=data --augment=both --out={out}"));
        let expected = format!("error: --out={out}: expected a file whose name ends in .png, found another name\n");
        assert!(ended.code == Some(2) && ended.stderr.ends_with(&expected), "{ended:#?}");
    }
    std::fs::create_dir(sandbox.path("directory.png")).unwrap();
    std::os::unix::fs::symlink("parameters.yaml", sandbox.path("link.png")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        sandbox.path("pipe.png"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let files = sandbox.files(".");
    for (out, found) in [("directory.png", "a directory"), ("link.png", "a link"), ("pipe.png", "a device or a pipe")] {
        let problem = format!("{out}: expected a new file or an earlier one of this program, found {found}");
        let expected = format!("{problem}\nhint: choose another name or directory");
        sandbox.run(&format!("augment --data_dir=data --augment=both --out={out}")).failed_with(&expected);
        assert_eq!(sandbox.files("."), files);
    }
    let missing = "missing/sheet.png: cannot write: No such file or directory (os error 2)";
    let ended = sandbox.run("augment --data_dir=data --augment=both --out=missing/sheet.png");
    ended.failed_with(missing);
    sandbox
        .run("augment --data_dir=data --augment=both --out=sheet.png --validation=300")
        .failed_with("validation: 300 of the 300 training images leaves none to train on\nhint: set validation to a smaller share, such as 0.1, or a smaller number of images");
}

#[test]
fn a_sheet_is_written_whole_or_not_at_all() {
    let sandbox = Sandbox::with_data();
    let Some(mount) = tmpfs(&sandbox.path("full"), "size=16k") else { return };
    sandbox.write("full/sheet.png", "old");
    sandbox.run("augment --data_dir=data --out=full/sheet.png --augment=affine --count=1000").failed_with(
        "full/sheet.png: cannot write: No space left on device (os error 28)\n\
         hint: free some space on that disk, or choose another directory",
    );
    assert_eq!(sandbox.files("full"), ["sheet.png"]);
    assert_eq!(sandbox.read("full/sheet.png"), "old");
    drop(mount);
}

#[test]
fn the_report_of_a_training_with_augmentation_shows_a_sheet() {
    let sandbox = Sandbox::with_data();
    let report = |flags: &str| {
        sandbox.train(flags).done();
        sandbox.read("model/report.html")
    };
    let plain = report("");
    assert!(!plain.contains("Distorted training images") && !plain.contains("href=\"#augmentation"));
    let three = report("--train_epochs=3 --augment=elastic --elastic_sigma=4 --elastic_alpha=34");
    for expected in [
        "<a href=\"#augmentation\">Augmentation</a>",
        "others in every epoch: bent smoothly, by 1.38 pixels (RMS) along each axis. ",
        "the others their copies in epochs 1 to 3.",
        // Four columns and five rows.
        "width=\"252\" height=\"304\" alt=\"Training images",
    ] {
        assert!(three.contains(expected), "{expected}");
    }
    let one = report("--augment=affine --rotation=20");
    assert!(one.contains("rotated by up to 20 degrees, width") && one.contains("the other their copies in epoch 1."));
}

#[test]
fn distortions_without_their_kind_are_refused_and_defaults_are_filled() {
    let sandbox = Sandbox::with_data();
    let refused = |file: &str, message: &str| {
        sandbox.write("parameters.yaml", file);
        sandbox.train("").failed_with(&format!("parameters.yaml{message}"));
        assert!(sandbox.files("model").is_empty());
    };
    for name in ["rotation", "scale", "shear", "shift"] {
        let expected = "expected augment affine or both with it, found";
        refused(&format!("{name}: 0.5\n"), &format!(": {name}: {expected} none"));
        refused(&format!("{name}: 0.5\naugment: elastic\n"), &format!(": {name}: {expected} elastic"));
    }
    for name in ["elastic_sigma", "elastic_alpha"] {
        let expected = "expected augment elastic or both with it, found affine";
        refused(&format!("augment: affine\n{name}: 4\n"), &format!(": {name}: {expected}"));
    }
    refused("epochs: 1\naugment: all\n", ":2: augment: expected none, affine, elastic or both, found the text \"all\"");
    refused("augment: both\nrotation: 181\n", ":2: rotation: expected degrees from 0 to 180, found 181");
    refused("augment: both\nelastic_sigma: 0\n", ":2: elastic_sigma: expected pixels from 1 to 28, found 0");

    sandbox.write("parameters.yaml", "augment: affine\nseed: 1\n");
    let ended = sandbox.train("--elastic_alpha=3");
    let expected = "with the parameters given as flags and in parameters.yaml: elastic_alpha: expected augment elastic or both with it, found affine\n";
    assert!(ended.code == Some(2) && ended.stderr.ends_with(expected), "{ended:#?}");

    sandbox.train("--train_epochs=1 --shift=2").done();
    let written = sandbox.read("model/parameters.yaml");
    let distortions = "augment: affine\nrotation: 7.0\nscale: 0.08\nshear: 0.05\nshift: 2.0\nvalidation: 0.0\n";
    assert!(written.contains(distortions), "{written}");
    let model = sandbox.model();
    sandbox.write("parameters.yaml", &written);
    sandbox.train("").done();
    assert!(sandbox.read("model/parameters.yaml") == written && sandbox.model() == model);
    sandbox.write("parameters.yaml", "augment: Both\n");
    let both = Parameters::read(&sandbox.path("parameters.yaml"), &[]).unwrap();
    assert_eq!(both.augmentation(), Some(mnist::data::augment::Augmentation::DEFAULT));
    assert_eq!(Parameters::default().augmentation(), None);
}
