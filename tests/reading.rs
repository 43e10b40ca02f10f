//! What the program reads: pipes in the place of files, small files that promise much, layouts of data, paths of any bytes.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Crc;
use mnist::data::idx;
use mnist::model::file::{self as weights, Model};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{Ended, Sandbox, TRAIN, end, fifo, gzip};

const EVALUATE: &str = "evaluate --data_dir=data --log_dir=logs --model_dir=model";

/// Runs `command`, which must end within ten seconds.
#[track_caller]
fn end_soon(command: &mut Command) -> Ended {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(10) {
            child.kill().unwrap();
            panic!("it waits");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ended { code: output.status.code(), stdout, stderr }
}

/// Runs the program with `arguments`, split at spaces. It must end within ten seconds.
#[track_caller]
fn run_soon(sandbox: &Sandbox, arguments: &str) -> Ended {
    end_soon(sandbox.program().args(arguments.split(' ')))
}

/// Runs the program as [`run_soon`], with at most 600 MB of memory.
#[track_caller]
fn run_small(sandbox: &Sandbox, arguments: &str) -> Ended {
    let program = sandbox.program();
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -d 600000 && exec \"$0\" \"$@\""]).arg(program.get_program());
    command.args(arguments.split(' ')).current_dir(sandbox.path("")).stdin(Stdio::null());
    end_soon(&mut command)
}

// ---- pipes and devices

#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_at_once() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    let refused = |file: &str, task: &str| {
        let aside = sandbox.path("aside");
        fs::rename(sandbox.path(file), &aside).unwrap();
        fifo(&sandbox.path(file));
        let ended = run_soon(&sandbox, task);
        let error = format!("error: {file}: cannot read: expected a file, found a pipe\n");
        assert!(ended.stderr.contains(&error) && ended.code == Some(1), "{ended:#?}");
        fs::rename(aside, sandbox.path(file)).unwrap();
    };
    refused("data/t10k-labels-idx1-ubyte", TRAIN);
    refused("data/t10k-labels-idx1-ubyte", "download --synthetic --data_dir=data --log_dir=logs");
    refused("model/model.safetensors", EVALUATE);
    refused("model/model.safetensors", "predict --model_dir=model -");

    let labels = "data/t10k-labels-idx1-ubyte";
    sandbox.write("data/t10k-labels-idx1-ubyte.gz", gzip(&fs::read(sandbox.path(labels)).unwrap()));
    fs::remove_file(sandbox.path(labels)).unwrap();
    refused("data/t10k-labels-idx1-ubyte.gz", TRAIN);

    fs::remove_file(sandbox.path("data/t10k-labels-idx1-ubyte.gz")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", sandbox.path(labels)).unwrap();
    let ended = run_soon(&sandbox, TRAIN);
    assert!(ended.stderr.contains(&format!("{labels}: cannot read: expected a file, found a device")), "{ended:#?}");
}

#[test]
fn parameters_and_images_may_come_from_pipes() {
    let sandbox = Sandbox::with_data();
    let line = |script: &str| {
        let program = sandbox.program();
        let mut command = Command::new("bash");
        command.args(["-c", script]).arg(program.get_program()).current_dir(sandbox.path(""));
        end_soon(&mut command).done()
    };
    line("exec \"$0\" train --data_dir=data --log_dir=logs --model_dir=model --parameters_file=<(cat parameters.yaml)");
    let digit = &mnist::data::synthetic::draw(mnist::data::synthetic::Split::Test, 1).pixels;
    sandbox.write("digit.pgm", [b"P5 28 28 255\n".as_slice(), digit].concat());
    assert!(line("exec \"$0\" predict --model_dir=model <(cat digit.pgm)").stdout.contains("/dev/fd/"));
}

#[test]
fn a_signal_ends_the_wait_for_a_pipe_at_once() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    fifo(&sandbox.path("pipe"));
    for task in [TRAIN.replace("parameters.yaml", "pipe"), "predict --model_dir=model pipe".into()] {
        for writer in [false, true] {
            let mut child: Child = sandbox.program().args(task.split(' ')).stderr(Stdio::null()).spawn().unwrap();
            // With a writer that writes nothing, the pipe opens and its bytes are waited for.
            let _writer = writer.then(|| File::options().read(true).write(true).open(sandbox.path("pipe")).unwrap());
            std::thread::sleep(Duration::from_millis(500));
            assert_eq!(child.try_wait().unwrap(), None);
            let begin = Instant::now();
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            while child.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_secs(1) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let status = child.try_wait().unwrap();
            child.kill().unwrap();
            assert_eq!(status.map(|status| status.code()), Some(Some(143)), "{task}");
        }
    }
}

// ---- small files, large memory

#[test]
fn a_sparse_model_of_3_gb_takes_no_memory() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    let good = fs::read(sandbox.path("model/model.safetensors")).unwrap();
    let tensor = br#"{"layers.0.weight":{"dtype":"F32","shape":[750000000],"data_offsets":[0,3000000000]}}"#;
    let bare = [&(tensor.len() as u64).to_le_bytes(), tensor.as_slice()].concat();
    for (start, length, problem) in [
        (vec![], 3_000_000_000, "is not a safetensors file: invalid JSON in header: EOF while parsing a value"),
        (good, 3_000_000_000, "is not a safetensors file: incomplete metadata, file not fully covered"),
        (vec![0xff; 8], 3_000_000_000, "is not a safetensors file: header too large"),
        (bare.clone(), 3_000_000_000 + bare.len() as u64, "expected the metadata entry `mnist`"),
    ] {
        let mut file = File::create(sandbox.path("model/model.safetensors")).unwrap();
        file.write_all(&start).unwrap();
        file.set_len(length).unwrap();
        let ended = run_small(&sandbox, EVALUATE);
        let error = format!("error: model/model.safetensors: {problem}");
        assert!(ended.stderr.contains(&error) && ended.code == Some(1), "{problem}: {ended:#?}");
    }
}

#[test]
fn headers_are_judged_together_before_values_are_read() {
    let sandbox = Sandbox::with_data();
    let zipped = "data/train-images-idx3-ubyte.gz";
    fs::remove_file(sandbox.path("data/train-images-idx3-ubyte")).unwrap();
    let header = |images: u32| [0x803, images, 28, 28].map(u32::to_be_bytes).concat();
    // A gzip file of several members, 196 of them of ten million zeros.
    let promise = [gzip(&header(2_500_000)), gzip(&vec![0; 10_000_000]).repeat(196)].concat();
    assert!(promise.len() < 10_000_000);
    sandbox.write(zipped, promise);
    let ended = run_small(&sandbox, TRAIN);
    let error = format!(
        "error: {zipped}: has 2500000 images, but data/train-labels-idx1-ubyte has 300 labels: expected equal numbers\n"
    );
    assert!(ended.stderr.contains(&error), "{ended:#?}");

    sandbox.write(zipped, gzip(&header(6_000_000)));
    sandbox.write("data/train-labels-idx1-ubyte", idx::encode_labels(&vec![1; 6_000_000]));
    let size = fs::metadata(sandbox.path(zipped)).unwrap().len();
    let error = format!(
        "error: {zipped}: cannot decompress: expected at least 4558140 bytes for 6000000 images, found {size}\n"
    );
    let ended = run_small(&sandbox, TRAIN);
    assert!(ended.stderr.contains(&error), "{ended:#?}");
}

#[test]
fn an_image_that_decodes_to_more_than_the_limit_is_refused_by_its_header() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    let chunk = |name: &[u8; 4], data: &[u8]| {
        let mut crc = Crc::new();
        crc.update(name);
        crc.update(data);
        [&(data.len() as u32).to_be_bytes(), name.as_slice(), data, &crc.sum().to_be_bytes()].concat()
    };
    let side = 10_000u32.to_be_bytes();
    let header = [side.as_slice(), &side, &[16, 6, 0, 0, 0]].concat();
    let data = chunk(b"IDAT", &[0x78, 0x01, 0x63]);
    let png = [b"\x89PNG\r\n\x1a\n".to_vec(), chunk(b"IHDR", &header), data, chunk(b"IEND", &[])].concat();
    sandbox.write("large.png", png);
    let ended = run_small(&sandbox, "predict --model_dir=model large.png");
    let error = "error: large.png: expected an image that takes at most 200 MiB of memory, found one of 10000 x 10000 \
                 that takes 859 MiB\n";
    assert!(ended.stderr.contains(error) && ended.code == Some(1), "{ended:#?}");
}

// ---- answers

#[test]
fn finite_weights_with_infinite_answers_are_refused() {
    let sandbox = Sandbox::with_data();
    sandbox.train("").done();
    let file = "model/model.safetensors";
    let mut model: Model = weights::decode(&fs::read(sandbox.path(file)).unwrap()).unwrap();
    model.parameters.fill(3e38);
    sandbox.write(file, weights::encode(&model));
    let digit = &mnist::data::synthetic::draw(mnist::data::synthetic::Split::Test, 1).pixels;
    sandbox.write("digit.pgm", [b"P5 28 28 255\n".as_slice(), digit].concat());
    for task in [EVALUATE, "predict --model_dir=model digit.pgm", "predict --model_dir=model --json digit.pgm"] {
        let ended = sandbox.run(task);
        let error = format!("error: {file}: expected finite answers, found inf: its weights are too large\n");
        assert!(ended.stderr.contains(&error) && ended.code == Some(1) && ended.stdout.is_empty(), "{ended:#?}");
    }
}

// ---- layouts and paths

#[test]
fn data_is_read_in_every_layout_in_which_people_get_it() {
    let names = ["train-images", "train-labels", "t10k-images", "t10k-labels"];
    let usual = |name: &str| format!("{name}-idx{}-ubyte", if name.ends_with("images") { 3 } else { 1 });
    let pointed = |name: &str| usual(name).replace("-idx", ".idx");
    let layouts: [&dyn Fn(&str) -> String; 5] = [
        &pointed,
        &|name| pointed(name) + ".gz",
        &|name| format!("{0}/{0}", usual(name)),
        &|name| format!("MNIST/raw/{}", usual(name)),
        &|name| format!("MNIST/raw/{}.gz", usual(name)),
    ];
    for layout in layouts {
        let sandbox = Sandbox::with_data();
        fs::rename(sandbox.path("data"), sandbox.path("plain")).unwrap();
        for name in names {
            let to = sandbox.path("data").join(layout(name));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let bytes = fs::read(sandbox.path("plain").join(usual(name))).unwrap();
            fs::write(&to, if to.extension().is_some_and(|end| end == "gz") { gzip(&bytes) } else { bytes }).unwrap();
        }
        sandbox.train("").done();
    }
}

#[test]
fn a_mirror_of_the_environment_may_have_a_path_that_is_not_utf_8() {
    let sandbox = Sandbox::new();
    let mirror: OsString = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"spiegel-\xfc").into();
    fs::create_dir(sandbox.path(Path::new(&mirror))).unwrap();
    let mut command = sandbox.program();
    command.args(["download", "--data_dir=data", "--log_dir=logs"]).env("MNIST_MIRROR", &mirror);
    let ended = end(command.env("https_proxy", "http://127.0.0.1:9"));
    let asked = "spiegel-\u{fffd}: the file is not there, neither plain nor gzipped\n";
    assert!(ended.stderr.contains(asked) && ended.code == Some(1), "{ended:#?}");
}

#[test]
fn an_instruction_set_that_is_not_utf_8_is_refused() {
    let sandbox = Sandbox::with_data();
    let name = <OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"avx\xfc");
    let ended = end(sandbox.program().args(TRAIN.split(' ')).env("MNIST_INSTRUCTION_SET", name));
    assert!(ended.stderr.contains("found avx\u{fffd}\n") && ended.code == Some(2), "{ended:#?}");
}

#[test]
fn a_path_that_begins_with_a_tilde_is_in_the_home_directory() {
    let sandbox = Sandbox::with_data();
    fs::create_dir(sandbox.path("here")).unwrap();
    let line = "train --data_dir=~/data --log_dir=~/logs --model_dir=~/model --parameters_file=~/parameters.yaml";
    let mut command = sandbox.program();
    command.args(line.split(' ')).env("HOME", sandbox.path("")).current_dir(sandbox.path("here"));
    end(&mut command).done();
    assert_eq!(sandbox.files("here"), [""; 0]);
    assert!(sandbox.path("model/model.safetensors").is_file());

    let mut command = sandbox.program();
    let ended = end(command.args(line.split(' ')).env_remove("HOME"));
    assert!(ended.code == Some(2) && ended.stderr.contains("environment variable HOME, found none"), "{ended:#?}");
}
