//! `mnist predict` where there is more or less than one digit: boxes, lines, letters, noise, small and dark pictures.

use crate::common::{Sandbox, real_mnist};
use crate::predict::{answers, encoded, enlarged, ten_digits, trained};
use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, LumaA, imageops};
use mnist::data::dataset::Dataset;
use mnist::data::picture::{self, prepare};
use mnist::data::sets::MNIST;
use mnist::data::synthetic::{self, Split};

const PAPER: u8 = 230;
const INK: u8 = 30;

/// A sheet of 240 x 240 with the ink that `is_ink` says.
fn drawn(is_ink: impl Fn(f32, f32) -> bool) -> GrayImage {
    GrayImage::from_fn(240, 240, |x, y| Luma([if is_ink(x as f32, y as f32) { INK } else { PAPER }]))
}

/// Whether (`x`, `y`) is on the line of this width through `points`.
fn on_line(points: &[(f32, f32)], width: f32, x: f32, y: f32) -> bool {
    points.windows(2).any(|ends| {
        let [(ax, ay), (bx, by)] = [ends[0], ends[1]];
        let (dx, dy) = (bx - ax, by - ay);
        let along = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
        (x - ax - along * dx).hypot(y - ay - along * dy) <= width / 2.0
    })
}

/// `digit` in dark ink on a sheet of `width` x 240, at (`left`, 40), 160 pixels large.
fn written(digit: &GrayImage, width: u32, left: u32) -> GrayImage {
    let large = enlarged(digit, 160);
    GrayImage::from_fn(width, 240, |x, y| {
        let inside = x >= left && x < left + 160 && (40..200).contains(&y);
        let ink = if inside { f32::from(large.get_pixel(x - left, y - 40).0[0]) / 255.0 } else { 0.0 };
        Luma([(f32::from(PAPER) * (1.0 - ink) + f32::from(INK) * ink) as u8])
    })
}

/// The darker of two sheets.
fn over(mut sheet: GrayImage, lines: &GrayImage) -> GrayImage {
    sheet.pixels_mut().zip(lines.pixels()).for_each(|(to, line)| to.0[0] = to.0[0].min(line.0[0]));
    sheet
}

/// The sheet in light from one side, with grain.
fn lit(sheet: &GrayImage, seed: u32) -> GrayImage {
    let mut grain = seed;
    GrayImage::from_fn(sheet.width(), sheet.height(), |x, y| {
        grain = grain.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let light = 0.6 + 0.3 * x as f32 / sheet.width() as f32 - 0.1 * y as f32 / sheet.height() as f32;
        Luma([(f32::from(sheet.get_pixel(x, y).0[0]) * light) as u8 + (grain >> 28) as u8])
    })
}

fn noise(side: u32) -> GrayImage {
    let mut state = 1u32;
    GrayImage::from_fn(side, side, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Luma([(state >> 24) as u8])
    })
}

/// What the program says about each of `images`: digit and doubt.
fn asked(sandbox: &Sandbox, images: &[(&str, GrayImage)]) -> Vec<(u64, Option<String>)> {
    let mut names = Vec::new();
    for (name, image) in images {
        sandbox.write(&format!("{name}.png"), encoded(&DynamicImage::ImageLuma8(image.clone()), ImageFormat::Png));
        names.push(format!("{name}.png"));
    }
    let ended = sandbox.run(&format!("predict --model_dir=model --json {}", names.join(" "))).done();
    let said = answers(&ended);
    said.iter().map(|line| (line["digit"].as_u64().unwrap(), line["doubt"].as_str().map(String::from))).collect()
}

/// A sandbox with a model that knows little.
fn with_model() -> Sandbox {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    sandbox
}

#[test]
fn what_is_not_one_digit_is_answered_and_doubted() {
    let letter_a = [(60.0, 200.0), (120.0, 40.0), (180.0, 200.0)];
    let zigzag: Vec<(f32, f32)> =
        (0..10).map(|at| (30.0 + 20.0 * at as f32, if at % 2 == 0 { 60.0 } else { 180.0 })).collect();
    let scribble: Vec<(f32, f32)> = (0..400)
        .map(|at| at as f32 / 30.0)
        .map(|t| (120.0 + 80.0 * (1.7 * t).sin(), 120.0 + 80.0 * (2.3 * t + 0.5).cos()))
        .collect();
    let digits = synthetic::draw(Split::Test, 2).pixels;
    let digits: Vec<GrayImage> =
        digits.chunks(784).map(|pixels| GrayImage::from_raw(28, 28, pixels.to_vec()).unwrap()).collect();
    let two = over(written(&digits[0], 360, 10), &written(&digits[1], 360, 190));
    let unlike = [
        ("A", drawn(|x, y| on_line(&letter_a, 14.0, x, y) || on_line(&[(85.0, 140.0), (155.0, 140.0)], 14.0, x, y))),
        ("zigzag", drawn(|x, y| on_line(&zigzag, 6.0, x, y))),
        ("scribble", drawn(|x, y| on_line(&scribble, 5.0, x, y))),
        ("square", drawn(|x, y| (60.0..180.0).contains(&x) && (60.0..180.0).contains(&y))),
        ("dash", drawn(|x, y| on_line(&[(40.0, 120.0), (200.0, 120.0)], 10.0, x, y))),
        ("dot", drawn(|x, y| (x - 120.0).hypot(y - 120.0) < 4.0)),
        ("grid", drawn(|x, y| x % 40.0 < 4.0 || y % 40.0 < 4.0)),
        ("shadow", drawn(|x, y| x + 0.3 * y > 180.0)),
        (
            "empty-box",
            drawn(|x, y| {
                !(44.0..196.0).contains(&x.max(y)) ^ (x.min(y) < 44.0) && x.max(y) < 200.0 && x.min(y) >= 40.0
            }),
        ),
        ("noise", noise(200)),
    ];
    let sandbox = with_model();
    for ((name, _), (_, doubt)) in unlike.iter().zip(asked(&sandbox, &unlike)) {
        assert_eq!(doubt.as_deref(), Some("unlike a digit"), "{name}");
    }
    assert_eq!(asked(&sandbox, &[("two", two)])[0].1.as_deref(), Some("several shapes"));
}

#[test]
fn what_is_printed_around_a_digit_is_taken_away() {
    let sandbox = trained();
    let digits = ten_digits(&sandbox);
    let ring = |inset: f32, width: f32| {
        drawn(move |x, y| {
            let depth = (x.min(y) - inset).min(239.0 - inset - x.max(y));
            (0.0..width).contains(&depth)
        })
    };
    // Turned by five degrees.
    let corners = [(28.0, 10.0), (230.0, 28.0), (212.0, 230.0), (10.0, 212.0), (28.0, 10.0)];
    let surroundings = [
        ("thin", ring(0.0, 1.0)),
        ("thick", ring(0.0, 7.0)),
        ("box", ring(16.0, 3.0)),
        ("turned", drawn(|x, y| on_line(&corners, 3.0, x, y))),
        ("circle", drawn(|x, y| ((x - 120.0).hypot(y - 120.0) - 115.0).abs() < 2.0)),
        ("lines", drawn(|x, y| (x - 12.0).abs() < 2.0 || (y - 225.0).abs() < 2.0)),
        ("table", drawn(|x, y| x.min(y) < 20.0 || x.max(y) > 220.0)),
    ];
    for (name, lines) in &surroundings {
        let images: Vec<(String, GrayImage)> = digits
            .iter()
            .enumerate()
            .map(|(at, digit)| (format!("{name}{at}"), over(written(digit, 240, 40), lines)))
            .collect();
        let images: Vec<(&str, GrayImage)> = images.iter().map(|(name, image)| (&**name, image.clone())).collect();
        let said = asked(&sandbox, &images);
        assert!(said.iter().all(|(_, doubt)| doubt.as_deref() == Some("framed")), "{name}: {said:?}");
        let read: Vec<u64> = said.iter().map(|(digit, _)| *digit).collect();
        assert_eq!(read, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], "{name}");
    }
}

#[test]
fn lines_that_a_digit_touches_are_taken_away() {
    let sandbox = trained();
    let seven = &ten_digits(&sandbox)[7];
    // The box cuts through the upper end and the lower end of the digit.
    let image = written(seven, 240, 40);
    let rows: Vec<u32> = image.enumerate_pixels().filter(|(_, _, p)| p.0[0] < 100).map(|(_, y, _)| y).collect();
    let (top, bottom) = (*rows.iter().min().unwrap() as f32, *rows.iter().max().unwrap() as f32);
    let (left, right) = (40.0, 200.0);
    let corners =
        [(left, top - 1.0), (right, top - 1.0), (right, bottom + 1.0), (left, bottom + 1.0), (left, top - 1.0)];
    let boxed = over(image, &drawn(|x, y| on_line(&corners, 4.0, x, y)));
    assert_eq!(asked(&sandbox, &[("touching", boxed)]), [(7, Some("framed".into()))]);
}

#[test]
fn digits_are_seldom_doubted() {
    let count = |name: &str, pixels: &[u8], stride: usize, picture: &dyn Fn(&GrayImage, u32) -> Vec<u8>| {
        let images = pixels.chunks(784).step_by(stride);
        let all = images.len();
        let doubted = images
            .enumerate()
            .filter(|(at, pixels)| {
                let digit = GrayImage::from_raw(28, 28, pixels.to_vec()).unwrap();
                let picture = picture::decode(&picture(&digit, *at as u32)).unwrap();
                prepare::prepare(&picture, MNIST.frame).unwrap().doubt.is_some()
            })
            .count();
        println!("{name}: {doubted} of {all} doubted");
        assert!(100 * doubted <= all, "{name}: {doubted} of {all}");
    };
    let whole = |digit: &GrayImage, _| encoded(&DynamicImage::ImageLuma8(digit.clone()), ImageFormat::Png);
    let photo = |digit: &GrayImage, at| {
        let sheet = lit(&written(digit, 240, 10 + 3 * (at % 21)), at);
        encoded(&DynamicImage::ImageLuma8(sheet), ImageFormat::Jpeg)
    };
    let drawn = synthetic::draw(Split::Test, 1000).pixels;
    count("synthetic", &drawn, 1, &whole);
    count("photographs of synthetic", &drawn, 2, &photo);
    let Some(data) = real_mnist() else { return };
    let test = Dataset::load(&data).unwrap().test;
    count("MNIST", &test.pixels, 1, &whole);
    count("photographs of MNIST", &test.pixels, 10, &photo);
}

#[test]
fn a_doubt_has_its_column_and_strict_fails_for_it() {
    let sandbox = with_model();
    let digit = GrayImage::from_raw(28, 28, synthetic::draw(Split::Test, 1).pixels).unwrap();
    sandbox.write("digit.png", encoded(&DynamicImage::ImageLuma8(digit), ImageFormat::Png));
    sandbox.write("noise.png", encoded(&DynamicImage::ImageLuma8(noise(200)), ImageFormat::Png));
    let both = sandbox.run("predict --model_dir=model digit.png noise.png").done();
    let lines: Vec<&str> = both.stdout.lines().collect();
    assert!(lines[0].ends_with("  doubt"), "{}", both.stdout);
    assert!(!lines[1].contains("unlike") && lines[2].ends_with("  unlike a digit"), "{}", both.stdout);

    let strict = sandbox.run("predict --model_dir=model --strict digit.png noise.png");
    assert_eq!(strict.stdout, both.stdout);
    strict.failed_with("1 of 2 answers is doubtful");
    let sure = sandbox.run("predict --model_dir=model --strict digit.png").done();
    assert!(!sure.stdout.contains("doubt"), "{}", sure.stdout);
    let json = sandbox.run("predict --model_dir=model --json digit.png").done();
    assert!(json.stdout.ends_with("\"doubt\":null}\n"), "{}", json.stdout);
}

#[test]
fn show_writes_what_the_network_sees_of_each_image() {
    let sandbox = with_model();
    let drawn = synthetic::draw(Split::Test, 2).pixels;
    let png = |pixels: &[u8]| {
        let image = GrayImage::from_raw(28, 28, pixels.to_vec()).unwrap();
        encoded(&DynamicImage::ImageLuma8(image), ImageFormat::Png)
    };
    for (directory, pixels) in ["a", "b"].iter().zip(drawn.chunks(784)) {
        std::fs::create_dir(sandbox.path(directory)).unwrap();
        sandbox.write(&format!("{directory}/x.png"), png(pixels));
    }
    sandbox.write("empty.png", "");
    let ended = sandbox.run("predict --model_dir=model --show=seen/here a/x.png empty.png b/x.png");
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(1), 3));
    assert_eq!(sandbox.files("seen/here"), ["x.png.2.28x28.png", "x.png.28x28.png"]);
    for (name, pixels) in ["x.png.28x28.png", "x.png.2.28x28.png"].iter().zip(drawn.chunks(784)) {
        let shown = image::open(sandbox.path(format!("seen/here/{name}"))).unwrap().to_luma8();
        let picture = picture::decode(&png(pixels)).unwrap();
        assert_eq!(shown.into_raw(), prepare::prepare(&picture, MNIST.frame).unwrap().image);
    }
    sandbox.write("file", "");
    let refused = sandbox.run("predict --model_dir=model --show=file a/x.png");
    assert!(refused.code == Some(1) && refused.stderr.contains("error: file: "), "{}", refused.stderr);
    assert_eq!(refused.stdout.lines().count(), 2, "the answer is given");

    // None of the images is replaced, nor what is no file; the others are shown.
    std::fs::copy(sandbox.path("b/x.png"), sandbox.path("a/x.png.28x28.png")).unwrap();
    std::os::unix::fs::symlink("x.png", sandbox.path("a/y.png.28x28.png")).unwrap();
    std::fs::copy(sandbox.path("a/x.png"), sandbox.path("a/y.png")).unwrap();
    let before = std::fs::read(sandbox.path("a/x.png.28x28.png")).unwrap();
    let ended = sandbox.run("predict --model_dir=model --show=a a/x.png a/x.png.28x28.png a/y.png b/x.png");
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(1), 5));
    let expected = "expected a new file or an earlier one of this program, found";
    assert!(ended.stderr.contains(&format!("error: a/x.png.28x28.png: {expected} one of the images\n")), "{ended:#?}");
    assert!(std::fs::read(sandbox.path("a/x.png.28x28.png")).unwrap() == before);
    assert!(std::fs::read_link(sandbox.path("a/y.png.28x28.png")).is_ok());
    assert!(sandbox.files("a").contains(&"x.png.2.28x28.png".to_string()), "{:?}", sandbox.files("a"));
    let link = sandbox.run("predict --model_dir=model --show=a a/y.png");
    assert!(link.stderr.contains(&format!("error: a/y.png.28x28.png: {expected} a link\n")), "{link:#?}");
}

#[test]
fn small_pictures_and_those_of_twelve_bits_are_read() {
    let sandbox = trained();
    let digits = ten_digits(&sandbox);
    let small: Vec<(String, GrayImage)> = digits
        .iter()
        .enumerate()
        .map(|(at, digit)| {
            let digit = imageops::crop_imm(digit, 4, 4, 20, 20).to_image();
            (format!("small{at}"), imageops::resize(&digit, 8, 8, imageops::FilterType::Triangle))
        })
        .collect();
    let small: Vec<(&str, GrayImage)> = small.iter().map(|(name, image)| (&**name, image.clone())).collect();
    let said = asked(&sandbox, &small);
    let right = said.iter().enumerate().filter(|(at, (digit, _))| *at as u64 == *digit).count();
    println!("{right} of 10 read at 8 x 8");
    assert!(right >= 9, "{said:?}");

    // As a camera's program stores it: the brightest possible pixel is 4095 of 65535.
    let sheet = written(&digits[3], 240, 40);
    let dark: ImageBuffer<Luma<u16>, Vec<u16>> =
        ImageBuffer::from_fn(240, 240, |x, y| Luma([u16::from(sheet.get_pixel(x, y).0[0]) * 16]));
    let with_alpha = ImageBuffer::from_fn(240, 240, |x, y| LumaA([dark.get_pixel(x, y).0[0], u16::MAX]));
    sandbox.write("alpha.png", encoded(&DynamicImage::ImageLumaA16(with_alpha), ImageFormat::Png));
    sandbox.write("dark.png", encoded(&DynamicImage::ImageLuma16(dark), ImageFormat::Png));
    let ended = sandbox.run("predict --model_dir=model --json --strict dark.png alpha.png").done();
    assert!(answers(&ended).iter().all(|answer| answer["digit"] == 3), "{ended:#?}");
}
