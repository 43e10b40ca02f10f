//! `mnist predict`: every format, both polarities, photographs, files that are not images, damaged models.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{self, Ended, Sandbox, end, real_mnist};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayAlphaImage, GrayImage, ImageFormat, Luma, LumaA, imageops};
use mnist::data::dataset::Dataset;
use mnist::data::synthetic::{self, Split};
use mnist::model::file::{self as weights, Model};
use mnist::score::{argmax, softmax};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A sandbox with a model that knows the synthetic digits.
pub fn trained() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("data")).unwrap();
    synthetic::write(&sandbox.path("data"), 20_000, 100).unwrap();
    sandbox.write("parameters.yaml", "train_epochs: 6\n");
    sandbox.train("").done();
    sandbox
}

/// A synthetic test digit of each kind, 0 to 9, that the network in `sandbox` is sure of.
pub fn ten_digits(sandbox: &Sandbox) -> Vec<GrayImage> {
    let drawn = synthetic::draw(Split::Test, 1000);
    let logits = common::logits(&weights::load(&sandbox.path("model")).unwrap(), &drawn.pixels);
    let sure = |at: usize, digit: usize| softmax(&logits[at * 10..][..10])[digit] > 0.99;
    (0..10)
        .map(|digit| {
            let at = (0..1000).find(|&at| usize::from(drawn.labels[at]) == digit && sure(at, digit)).unwrap();
            GrayImage::from_raw(28, 28, drawn.pixels[at * 784..(at + 1) * 784].to_vec()).unwrap()
        })
        .collect()
}

pub fn enlarged(digit: &GrayImage, side: u32) -> GrayImage {
    imageops::resize(digit, side, side, imageops::FilterType::Triangle)
}

pub fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A photograph of `digit`: dark ink somewhere on grey paper, with light from one side and grain.
fn photograph(digit: &GrayImage, seed: u32) -> DynamicImage {
    let (width, height, side) = (900, 700, 300 + 12 * seed);
    let large = enlarged(digit, side);
    let (left, top) = (40 + 29 * seed % 500, 20 + 53 * seed % 300);
    let mut grain = seed;
    DynamicImage::ImageLuma8(GrayImage::from_fn(width, height, |x, y| {
        grain = grain.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = (grain >> 24) as f32 / 255.0 * 0.06 - 0.03;
        let paper = 0.5 + 0.25 * x as f32 / width as f32 - 0.1 * y as f32 / height as f32;
        let inside = x >= left && y >= top && x < left + side && y < top + side;
        let ink = if inside { f32::from(large.get_pixel(x - left, y - top).0[0]) / 255.0 } else { 0.0 };
        let value = paper * (1.0 - 0.75 * ink) + noise;
        Luma([(255.0 * value).clamp(0.0, 255.0) as u8])
    }))
}

pub fn answers(ended: &Ended) -> Vec<Value> {
    ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

// ---- images

#[test]
fn every_format_and_both_polarities_are_read_and_stdin_too() {
    let sandbox = trained();
    let light = DynamicImage::ImageLuma8(enlarged(&ten_digits(&sandbox)[7], 200));
    let mut dark = light.clone();
    dark.invert();
    let bytes = encoded(&dark, ImageFormat::Png);
    sandbox.write("dark.png", &bytes);
    sandbox.write("light.png", encoded(&light, ImageFormat::Png));
    sandbox.write("dark.jpg", encoded(&dark.to_rgb8().into(), ImageFormat::Jpeg));
    sandbox.write("light.bmp", encoded(&light.to_rgb8().into(), ImageFormat::Bmp));
    sandbox.write("dark.gif", encoded(&dark.to_rgb8().into(), ImageFormat::Gif));
    sandbox.write("dark.pgm", encoded(&dark, ImageFormat::Pnm));
    // Black and white on a transparent ground, as drawing programs save it.
    let ink = dark.to_luma8();
    let clear = image::RgbaImage::from_fn(200, 200, |x, y| image::Rgba([0, 0, 0, 255 - ink.get_pixel(x, y).0[0]]));
    sandbox.write("clear.png", encoded(&clear.into(), ImageFormat::Png));

    let chalk =
        image::RgbaImage::from_fn(200, 200, |x, y| image::Rgba([255, 255, 255, 255 - ink.get_pixel(x, y).0[0]]));
    sandbox.write("chalk.png", encoded(&chalk.into(), ImageFormat::Png));

    let names =
        ["dark.png", "light.png", "dark.jpg", "light.bmp", "dark.gif", "dark.pgm", "clear.png", "chalk.png", "-"];
    let mut child = sandbox
        .program()
        .args(["predict", "--model_dir=model", "--json"])
        .args(names)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), names.len());
    for (line, name) in lines.iter().zip(names) {
        assert_eq!((&line["image"], &line["digit"]), (&name.into(), &7.into()), "{line}");
        assert!(line["confidence"].as_f64().unwrap() > 0.5);
        assert_eq!(line["others"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn people_get_a_table() {
    let sandbox = trained();
    sandbox.write("a digit.png", encoded(&DynamicImage::ImageLuma8(ten_digits(&sandbox)[3].clone()), ImageFormat::Png));
    let ended = end(sandbox.program().args(["predict", "--model_dir=model", "a digit.png"])).done();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines[0], "image        digit  confidence  or else");
    assert!(lines[1].starts_with("a digit.png      3 "), "{}", lines[1]);
    assert_eq!((lines.len(), lines[1].matches('%').count()), (2, 3));
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_photograph_of_each_digit_is_read_right() {
    let sandbox = trained();
    for (digit, image) in ten_digits(&sandbox).iter().enumerate() {
        let mut jpeg = Vec::new();
        photograph(image, digit as u32).write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, 80)).unwrap();
        sandbox.write(&format!("{digit}.jpg"), jpeg);
    }
    let ended =
        sandbox.run("predict --model_dir=model --json 0.jpg 1.jpg 2.jpg 3.jpg 4.jpg 5.jpg 6.jpg 7.jpg 8.jpg 9.jpg");
    let said: Vec<u64> = answers(&ended.done()).iter().map(|line| line["digit"].as_u64().unwrap()).collect();
    assert_eq!(said, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_digit_cut_out_to_its_edges_is_read_right() {
    let sandbox = trained();
    // Not the 1: cut out, it is nothing but ink.
    let digits = [0, 2, 3, 4, 5, 6, 7, 8, 9];
    let mut command = sandbox.program();
    command.args(["predict", "--model_dir=model", "--json"]);
    let ten = ten_digits(&sandbox);
    for digit in digits {
        let large = imageops::resize(&ten[digit], 280, 280, imageops::FilterType::CatmullRom);
        let inked = || large.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] > 127);
        let (left, right) = (inked().map(|p| p.0).min().unwrap(), inked().map(|p| p.0).max().unwrap());
        let (top, bottom) = (inked().map(|p| p.1).min().unwrap(), inked().map(|p| p.1).max().unwrap());
        let cut = imageops::crop_imm(&large, left, top, right - left + 1, bottom - top + 1).to_image();
        let mut cut = DynamicImage::ImageLuma8(cut);
        cut.invert();
        sandbox.write(&format!("{digit}.png"), encoded(&cut, ImageFormat::Png));
        command.arg(format!("{digit}.png"));
    }
    let said: Vec<u64> =
        answers(&end(&mut command).done()).iter().map(|line| line["digit"].as_u64().unwrap()).collect();
    assert_eq!(said, digits.map(|digit| digit as u64));
}

/// `digit` on a sheet of 300 x 300, as grey and alpha.
fn sheet(digit: &GrayImage, ink: u8, paper: u8) -> GrayAlphaImage {
    let large = enlarged(digit, 220);
    GrayAlphaImage::from_fn(300, 300, |x, y| {
        let inside = (40..260).contains(&x) && (40..260).contains(&y);
        let share = if inside { f32::from(large.get_pixel(x - 40, y - 40).0[0]) / 255.0 } else { 0.0 };
        LumaA([(f32::from(ink) * share + f32::from(paper) * (1.0 - share)) as u8, 255])
    })
}

/// The sheet turned by 6 degrees, smoothly, in front of `ground`.
fn turned(sheet: &GrayAlphaImage, ground: LumaA<u8>) -> GrayAlphaImage {
    let (sin, cos) = 6f32.to_radians().sin_cos();
    let at = |x: i64, y: i64| match (0..300).contains(&x) && (0..300).contains(&y) {
        true => sheet.get_pixel(x as u32, y as u32).0,
        false => ground.0,
    };
    GrayAlphaImage::from_fn(320, 320, |x, y| {
        let (dx, dy) = (x as f32 - 160.0, y as f32 - 160.0);
        let (x, y) = (cos * dx + sin * dy + 150.0, cos * dy - sin * dx + 150.0);
        let (left, top) = (x.floor(), y.floor());
        let corners = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(i, j)| {
            let share = (1.0 - (x - left - i as f32).abs()) * (1.0 - (y - top - j as f32).abs());
            (at(left as i64 + i, top as i64 + j), share)
        });
        // The colour of a corner counts as much as it is opaque.
        let alpha: f32 = corners.iter().map(|([_, alpha], share)| f32::from(*alpha) * share).sum();
        let light: f32 = corners.iter().map(|([luma, a], share)| f32::from(*luma) * f32::from(*a) * share).sum();
        LumaA([if alpha > 0.0 { (light / alpha) as u8 } else { 0 }, alpha.round() as u8])
    })
}

#[test]
fn transparent_edges_of_a_sheet_change_no_answer() {
    const DIGITS: usize = 50;
    let sandbox = trained();
    let drawn = synthetic::draw(Split::Test, DIGITS);
    let digits: Vec<GrayImage> =
        drawn.pixels.chunks(784).map(|pixels| GrayImage::from_raw(28, 28, pixels.to_vec()).unwrap()).collect();
    let right = |kind: &str, image: &dyn Fn(&GrayImage) -> GrayAlphaImage| {
        let mut command = sandbox.program();
        command.args(["predict", "--model_dir=model", "--json"]);
        for (n, digit) in digits.iter().enumerate() {
            sandbox.write(&format!("{kind}{n}.png"), encoded(&image(digit).into(), ImageFormat::Png));
            command.arg(format!("{kind}{n}.png"));
        }
        let said = answers(&end(&mut command).done());
        let right = said.iter().zip(&drawn.labels).filter(|(said, label)| said["digit"] == **label).count();
        println!("{kind}: {right} of {DIGITS} right");
        right
    };
    let (black, white) = (LumaA([10, 255]), LumaA([250, 255]));
    for (kind, ink, paper) in [("dark", black, white), ("light", white, black), ("pencil", LumaA([150, 255]), white)] {
        let sheet = |digit: &GrayImage| sheet(digit, ink.0[0], paper.0[0]);
        let whole = right(kind, &sheet);
        let row = right(&format!("{kind}-row"), &|digit| {
            let mut sheet = sheet(digit);
            (0..300).for_each(|x| sheet.put_pixel(x, 0, LumaA([0, 0])));
            sheet
        });
        let opaque = right(&format!("{kind}-turned"), &|digit| turned(&sheet(digit), paper));
        let clear = right(&format!("{kind}-turned-clear"), &|digit| turned(&sheet(digit), LumaA([0, 0])));
        assert!(whole >= 45 && row >= whole && opaque >= 45 && clear >= opaque, "{whole} {row} {opaque} {clear}");
    }
    // No sheet at all.
    for (kind, ink) in [("ink", 0), ("chalk", 255)] {
        let right = right(kind, &|digit| {
            let mut sheet = sheet(digit, 255, 0);
            sheet.pixels_mut().for_each(|pixel| *pixel = LumaA([ink, pixel.0[0]]));
            sheet
        });
        assert!(right >= 45, "{kind}: {right}");
    }
}

#[test]
fn a_photograph_is_turned_upright_as_the_camera_says() {
    let sandbox = trained();
    let upright = DynamicImage::ImageLuma8(enlarged(&ten_digits(&sandbox)[7], 200));
    // Exif's orientation 6: turn the image to the right by a quarter.
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
    let mut segment = vec![0xff, 0xe1];
    segment.extend(((exif.len() + 2) as u16).to_be_bytes());
    segment.append(&mut exif);
    let mut jpeg = encoded(&upright.rotate270(), ImageFormat::Jpeg);
    jpeg.splice(2..2, segment);
    sandbox.write("turned.jpg", jpeg);
    let ended = sandbox.run("predict --model_dir=model --json turned.jpg").done();
    assert_eq!(answers(&ended)[0]["digit"], 7);
}

#[test]
fn files_that_are_not_images_are_named_and_the_others_are_answered() {
    let sandbox = trained();
    let two = &ten_digits(&sandbox)[2];
    let good = encoded(&DynamicImage::ImageLuma8(two.clone()), ImageFormat::Png);
    sandbox.write("good.png", &good);
    sandbox.write("cut.png", &good[..good.len() / 2]);
    let jpeg = encoded(&DynamicImage::ImageLuma8(enlarged(two, 200)), ImageFormat::Jpeg);
    sandbox.write("cut.jpg", &jpeg[..jpeg.len() / 2]);
    sandbox.write("empty.png", "");
    sandbox.write("text.png", "hello");
    sandbox.write("huge.pgm", "P5 100000 100000 255\n");
    sandbox.write("blank.pgm", [b"P5 50 50 255\n".as_slice(), &[200; 2500]].concat());
    fs::create_dir(sandbox.path("directory")).unwrap();
    let bad = [
        ("cut.png", "is no sound PNG file: "),
        ("cut.jpg", "is no sound JPEG file: it ends early"),
        ("empty.png", "is empty: expected an image"),
        ("text.png", "is no image that this program reads: expected PNG, JPEG, GIF, BMP or PGM"),
        ("huge.pgm", "expected an image of 1 to 100000000 pixels, found one of 100000 x 100000"),
        ("blank.pgm", "has no digit in it: expected dark on light or light on dark"),
        ("directory", "cannot read: expected a file or a pipe, found a directory"),
        ("missing.png", "cannot read: No such file or directory"),
    ];
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let ended = sandbox.run(&format!("predict --model_dir=model --json {} good.png", names.join(" ")));
    assert_eq!(ended.code, Some(1));
    let lines = answers(&ended);
    assert_eq!((lines.len(), &lines[8]["digit"]), (9, &2.into()));
    for ((name, problem), line) in bad.iter().zip(&lines) {
        let start = format!("{name}: {problem}");
        assert!(line["error"].as_str().unwrap().starts_with(&start), "{line}");
        assert!(ended.stderr.contains(&format!("error: {start}")), "{}", ended.stderr);
    }
    assert!(ended.stderr.ends_with("error: 8 of 9 images could not be read\n"), "{}", ended.stderr);

    let table = sandbox.run("predict --model_dir=model empty.png good.png");
    assert_eq!((table.code, table.stdout.lines().count()), (Some(1), 2));
    assert_eq!(sandbox.run("predict --model_dir=model").code, Some(2));
}

#[test]
fn a_signal_ends_it_while_it_waits_for_stdin() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    let mut command = sandbox.program();
    command.args(["predict", "--model_dir=model", "-"]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _open = child.stdin.take();
    // Several times, since the first signal may come before the program handles it and then ends it without a code.
    std::thread::sleep(Duration::from_millis(300));
    let begin = Instant::now();
    let status = loop {
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begin.elapsed() > Duration::from_secs(10) => panic!("it still waits"),
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    assert!([Some(130), None].contains(&status.code()), "{status}");
}

// ---- models

#[test]
fn a_missing_or_damaged_model_is_refused_and_says_why() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    sandbox.write("digit.png", encoded(&DynamicImage::ImageLuma8(GrayImage::new(28, 28)), ImageFormat::Png));
    let good = fs::read(sandbox.path("model/model.safetensors")).unwrap();
    let hint =
        "\nhint: bring the right file back, or move this one away and train with `mnist train --model_dir=model`";
    let file = "model/model.safetensors";
    let refused = |bytes: &[u8], problem: &str| {
        sandbox.write(file, bytes);
        for task in ["predict --model_dir=model digit.png", "evaluate --data_dir=data --log_dir=logs --model_dir=model"]
        {
            sandbox.run(task).failed_with(&format!("{file}: {problem}{hint}"));
        }
    };
    let replaced = |from: &str, to: &str| {
        let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
    };
    refused(b"", "is not a safetensors file: header too small");
    refused(&good[..good.len() / 2], "is not a safetensors file: incomplete metadata, file not fully covered");
    refused(
        &replaced("format_version\\\":1", "format_version\\\":9"),
        "expected format_version 1, found 9: was it written by a newer program?",
    );
    refused(&replaced("784,16,10]", "784,17,10]"), "layers.0.weight: expected F32 [17, 784], found F32 [16, 784]");
    let mut model: Model = weights::decode(&good).unwrap();
    model.parameters[99] = f32::NAN;
    refused(&weights::encode(&model), "expected finite weights, found infinite ones or NaN");

    fs::remove_file(sandbox.path(file)).unwrap();
    sandbox.run("predict --model_dir=model digit.png").failed_with(
        "model: has no model: expected a file model.safetensors\nhint: name the directory of a trained model, or \
         train one with `mnist train`",
    );
}

// ---- the real MNIST

#[test]
fn a_thousand_images_of_mnist_get_the_answers_that_evaluate_scores() {
    let Some(data) = real_mnist() else { return };
    let sandbox = Sandbox::new();
    sandbox.write("parameters.yaml", "train_epochs: 1\n");
    let data_dir = data.display();
    sandbox
        .run(&format!("train --data_dir={data_dir} --log_dir=logs --model_dir=model --parameters_file=parameters.yaml"))
        .done();
    let test = Dataset::load(&data).unwrap().test;
    let mut command = sandbox.program();
    command.args(["predict", "--model_dir=model", "--json"]);
    for index in 0..1000 {
        let pixels = test.pixels[index * 784..(index + 1) * 784].to_vec();
        let image = DynamicImage::ImageLuma8(GrayImage::from_raw(28, 28, pixels).unwrap());
        sandbox.write(&format!("{index}.png"), encoded(&image, ImageFormat::Png));
        command.arg(format!("{index}.png"));
    }
    let said = answers(&end(&mut command).done());

    let model = weights::load(&sandbox.path("model")).unwrap();
    let logits = common::logits(&model, &test.pixels[..1000 * 784]);
    let same = logits.chunks(10).zip(&said).filter(|(row, line)| line["digit"] == argmax(row)).count();
    println!("{same} of 1000 images get the answer that is scored");
    assert!(same >= 995, "{same} of 1000");

    // And in photographs of images that the network reads right.
    for digit in 0..10 {
        let right =
            |index: &usize| test.labels[*index] == digit && argmax(&logits[index * 10..][..10]) == usize::from(digit);
        let index = (0..1000).find(right).unwrap();
        let image = GrayImage::from_raw(28, 28, test.pixels[index * 784..][..784].to_vec()).unwrap();
        sandbox.write("photo.png", encoded(&photograph(&image, digit.into()), ImageFormat::Png));
        let ended = sandbox.run("predict --model_dir=model --json photo.png").done();
        assert_eq!(answers(&ended)[0]["digit"], digit, "{}", ended.stdout);
    }
}
