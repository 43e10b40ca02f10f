//! Mutated input of every kind that is read: nothing panics, nothing takes long, and little memory is taken.
//!
//! Each format gets MNIST_TEST_FUZZ_SECONDS (default 2). For figures, run one format at a time with a long time:
//! `MNIST_TEST_FUZZ_SECONDS=3600 cargo test --release --test main fuzz::images -- --nocapture`. A case that is named in a
//! failure is the first with `MNIST_TEST_FUZZ_FIRST=CASE`.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use image::{ImageFormat, Luma, Rgba};
use mnist::cube::check;
use mnist::cube::configuration::{Changes, Section, printed};
use mnist::cube::directory::CubeDir;
use mnist::data::dataset::Dataset;
use mnist::data::picture::{self, prepare};
use mnist::data::sets::Frame;
use mnist::engine::TrainingState;
use mnist::files::set::{self, JOURNAL};
use mnist::model::MlpShape;
use mnist::model::file::{self as model_file, Model};
use mnist::output::event::{EpochRecord, SplitScore};
use mnist::parameters::{Keep, Parameters};
use mnist::rng::{Purpose, Stream};
use mnist::task::cube::PROGRAM;
use mnist::training::course::Kept;
use mnist::training::snapshot::{self, RunId, Snapshot};
use mnist::training::snapshots;

use crate::common::{self, Sandbox};

/// No case takes longer, on a busy machine either.
const LONGEST: Duration = Duration::from_secs(10);
/// No format takes more memory than this above what there was, in bytes. Other tests run in the same process.
const MOST_MEMORY: u64 = 1 << 30;

/// Values that programs get wrong.
const EDGES: [u32; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];
/// Pieces of text that readers of YAML, JSON and XML get wrong.
const TEXTS: [&str; 15] =
    ["{a: ", "[", "- ", "&a ", "*a", "!!binary ", "!x ", "? ", ": ", "\u{feff}", "\0", "\u{1b}[2J", "'", "~", "9e999"];

/// `bytes` with one to four changes.
fn mutated(bytes: &[u8], stream: &mut Stream) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=stream.below(4) {
        let at = stream.below(bytes.len() as u32 + 1) as usize;
        let length = stream.below(64) as usize;
        let end = bytes.len().min(at + length);
        match stream.below(9) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy.repeat(1 + stream.below(50) as usize));
            }
            3 => drop(bytes.splice(at..at, TEXTS[stream.below(14) as usize].bytes())),
            4 => drop(bytes.splice(at..at, TEXTS[stream.below(14) as usize].repeat(1000).bytes())),
            5 | 6 => {
                let value = EDGES[stream.below(8) as usize];
                let value = if stream.below(2) == 0 { value.to_be_bytes() } else { value.to_le_bytes() };
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << stream.below(8),
            _ => bytes.push(stream.next_u32() as u8),
        }
    }
    bytes
}

/// The value of a line such as `VmHWM` in the description of this process, in bytes.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// Calls `read` with mutations of `seeds` until the time is over, and prints figures.
#[track_caller]
fn fuzz(format: &str, seeds: &[Vec<u8>], mut read: impl FnMut(&[u8])) {
    let given = |name: &str| std::env::var(name).ok();
    let seconds = given("MNIST_TEST_FUZZ_SECONDS").and_then(|seconds| seconds.parse().ok()).unwrap_or(2.0);
    let first = given("MNIST_TEST_FUZZ_FIRST").and_then(|first| first.parse().ok()).unwrap_or(0);
    let begin = Instant::now();
    let _ = fs::write("/proc/self/clear_refs", "5"); // begins a new peak
    let before = memory("VmRSS");
    let (mut cases, mut longest) = (0, Duration::ZERO);
    for case in first.. {
        if begin.elapsed().as_secs_f64() > seconds {
            break;
        }
        let mut stream = Stream::new(case, Purpose::Order, 0);
        let bytes = mutated(&seeds[stream.below(seeds.len() as u32) as usize], &mut stream);
        let start = Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&bytes)));
        assert!(result.is_ok(), "{format}: case {case} panics");
        longest = longest.max(start.elapsed());
        assert!(start.elapsed() < LONGEST, "{format}: case {case} takes {:?}", start.elapsed());
        cases += 1;
    }
    let grown = memory("VmHWM").saturating_sub(before);
    println!("{format}: {cases} cases, longest {longest:?}, peak memory {} MB above the start", grown >> 20);
    assert!(grown < MOST_MEMORY, "{format}: {grown} bytes");
}

/// The files of a small data set, and a directory to put mutations of them.
fn data_set() -> (Sandbox, Vec<(String, Vec<u8>)>) {
    let sandbox = Sandbox::with_data();
    mnist::data::synthetic::write(&sandbox.path("data"), 30, 10).unwrap();
    let names = sandbox.files("data");
    let files = names.into_iter().map(|name| (name.clone(), fs::read(sandbox.path("data").join(&name)).unwrap()));
    let files = files.collect();
    (sandbox, files)
}

#[test]
fn idx() {
    let (sandbox, files) = data_set();
    for (name, bytes) in &files {
        fuzz(&format!("IDX, {name}"), std::slice::from_ref(bytes), |bytes| {
            sandbox.write(&format!("data/{name}"), bytes);
            let _ = Dataset::load(&sandbox.path("data"));
        });
        sandbox.write(&format!("data/{name}"), bytes);
    }
}

#[test]
fn gzip() {
    let (sandbox, files) = data_set();
    for (name, bytes) in &files {
        fs::remove_file(sandbox.path("data").join(name)).unwrap();
        let seeds = [common::gzip(bytes), common::gzip(&[bytes.clone(), vec![0; 3_000_000]].concat())];
        fuzz(&format!("gzip, {name}.gz"), &seeds, |bytes| {
            sandbox.write(&format!("data/{name}.gz"), bytes);
            let _ = Dataset::load(&sandbox.path("data"));
        });
        fs::remove_file(sandbox.path("data").join(format!("{name}.gz"))).unwrap();
        sandbox.write(&format!("data/{name}"), bytes);
    }
}

#[test]
fn parameters() {
    let sandbox = Sandbox::new();
    let seeds =
        [common::PARAMETERS.into(), Parameters::default().to_yaml().into_bytes(), b"epochs: 3 # some\n".to_vec()];
    fuzz("parameters file", &seeds, |bytes| {
        sandbox.write("parameters.yaml", bytes);
        let _ = Parameters::read(&sandbox.path("parameters.yaml"), &[]);
    });
}

#[test]
fn cube() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sandbox = Sandbox::new();
    let mut files = vec![];
    for folder in ["", "tasks", "run", "platforms", "workspace/parameters"] {
        fs::create_dir_all(sandbox.path(folder)).unwrap();
        for entry in fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_some_and(|extension| extension == "yaml") {
                let name = format!("{folder}/{}", entry.file_name().unwrap().to_str().unwrap());
                files.push((name.trim_start_matches('/').to_string(), fs::read(&entry).unwrap()));
            }
        }
    }
    for (name, bytes) in &files {
        sandbox.write(name, bytes);
    }
    let names: Vec<Vec<u8>> = (0..files.len() as u32).map(|nth| nth.to_le_bytes().to_vec()).collect();
    let mut stream = Stream::new(1, Purpose::Order, 1);
    fuzz("cube files", &names, |_| {
        let (name, bytes) = &files[stream.below(files.len() as u32) as usize];
        sandbox.write(name, mutated(bytes, &mut stream));
        let report = check::check(&CubeDir::new(&sandbox.path(""), None).unwrap(), &PROGRAM);
        report.faults.iter().for_each(|fault| assert!(!fault.to_string().is_empty()));
        sandbox.write(name, bytes);
    });
}

#[test]
fn configuration_2() {
    let sandbox = Sandbox::new();
    let ours = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("mlcube-2.0.yaml")).unwrap();
    let named = "name: a\nb: {c: '${name}', d: '${.c}${oc.env:HOME}'}\ndocker: {image: '${b.${e}}', cpu_args: \"-e 'A b'\"}\n\
                 e: c\nf: [1, '${f[0]}']\ntasks: {t: {entrypoint: a b, parameters: {inputs: {x: '${workspace}/x/', y: ~/y}}}}\n";
    fuzz("configuration 2.0", &[ours, named.into()], |bytes| {
        sandbox.write("mlcube.yaml", bytes);
        let cube = CubeDir::new(&sandbox.path(""), None).unwrap();
        for section in [Section::Docker, Section::Singularity] {
            if let Ok(read) = check::configuration(&cube, Some(section), &Changes::default(), &PROGRAM) {
                read.tasks.iter().for_each(|task| drop(read.invocation(task.name.as_ref())));
                assert!(!printed(read.effective.resolved).is_empty());
            }
        }
    });
}

#[test]
fn safetensors() {
    let sandbox = Sandbox::new();
    let seeds = [&[][..], &[5], &[4, 3]].map(|hidden| {
        let shape = MlpShape::new(784, hidden, 10);
        let parameters = shape.initial_parameters(1);
        model_file::encode(&Model { shape, parameters, data: "mnist".into(), unfinished: None })
    });
    // The header is where the mistakes are.
    let heads = seeds.clone().map(|bytes| bytes[..600].to_vec());
    fuzz("safetensors", &[&seeds[..], &heads[..]].concat(), |bytes| {
        sandbox.write("model.safetensors", bytes);
        let _ = model_file::load(&sandbox.path(""));
    });
}

#[test]
fn snapshots() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("snapshots")).unwrap();
    let seeds = [0, 1, 2].map(|slots| {
        let splits = vec![SplitScore { split: "test", loss: 0.1, accuracy: 0.95 }];
        let (seconds, finished) = (1.0, SystemTime::UNIX_EPOCH);
        let record = |epoch| EpochRecord {
            epoch,
            loss: 0.1,
            accuracy: 0.9,
            seconds,
            images_per_second: 1.0,
            learning_rate: 0.001,
            splits: splits.clone(),
            finished,
        };
        let snapshot = Snapshot {
            run: RunId { begin: 1, host: "here".into(), process: 1 },
            parameters: Parameters {
                ema: if slots == 1 { 0.5 } else { 0.0 },
                keep: if slots == 2 { Keep::Best } else { Keep::Last },
                ..Parameters::default()
            }
            .to_json(),
            data: vec![],
            slots: vec!["velocity".into(); slots],
            state: TrainingState { parameters: vec![1.0; 50], slots: vec![vec![0.5; 50]; slots], step: 8 },
            average: (slots == 1).then(|| vec![2.0; 50]),
            kept: (slots == 2).then(|| Kept { epoch: 1, parameters: vec![3.0; 50], evaluation: None }),
            epochs: (1..=2).map(record).collect(),
            init: None,
            instruction_set: None,
        };
        snapshot::encode(&snapshot)
    });
    fuzz("snapshots", &seeds, |bytes| {
        sandbox.write("snapshots/epoch-001.safetensors", bytes);
        let _ = snapshots::newest(&sandbox.path(""));
    });
}

#[test]
fn images() {
    let digit = image::RgbaImage::from_fn(90, 70, |x, y| {
        let ink = (30..36).contains(&x) && (10..60).contains(&y);
        if ink { Rgba([20, 30, 40, 255]) } else { Rgba([230, 225, 220, if x == 0 { 0 } else { 255 }]) }
    });
    let grey = image::GrayImage::from_fn(28, 28, |x, _| if (12..15).contains(&x) { Luma([250]) } else { Luma([0]) });
    let encoded = |format| {
        let mut bytes = Cursor::new(vec![]);
        let picture = image::DynamicImage::from(digit.clone());
        let picture = if format == ImageFormat::Png { picture } else { picture.into_rgb8().into() };
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    let mut seeds: Vec<_> = [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Jpeg].map(encoded).into();
    seeds.push([b"P5 28 28 255 ".to_vec(), grey.into_raw()].concat());
    fuzz("images", &seeds, |bytes| {
        if let Ok(picture) = picture::decode(bytes) {
            let _ = prepare::prepare(&picture, Frame::like_mnist(28));
        }
    });
}

#[test]
fn journal() {
    let sandbox = Sandbox::new();
    let seed = br#"{"rename":[[".a.aaaaaa.mnist-part","a"],[".b.bbbbbb.mnist-part","b"]],"remove":["c"]}"#;
    sandbox.write("kept", "mine");
    fuzz("journal", &[seed.to_vec()], |bytes| {
        fs::create_dir_all(sandbox.path("model")).unwrap();
        sandbox.write(&format!("model/{JOURNAL}"), bytes);
        let _ = set::finish(&sandbox.path("model"), &["a", "b", "c"]);
        assert_eq!(sandbox.read("kept"), "mine");
        let _ = fs::remove_file(sandbox.path("model").join(JOURNAL));
    });
}
