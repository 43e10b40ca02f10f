//! GPUs as users meet them: `mnist devices`, the parameters `device` and `gpus` with their `auto`, and the errors. Any adapter
//! will do: CI has one in software, which stands in for several too.

use crate::common::Sandbox;

#[test]
fn devices_lists_the_processor_first_and_prints_only_devices_on_stdout() {
    let ended = Sandbox::new().run("devices").done();
    assert!(ended.stdout.starts_with("cpu            the processor: "), "{ended:#?}");
    assert!(ended.stdout.lines().skip(1).all(|line| line.starts_with("gpu:")), "{ended:#?}");
}

#[test]
fn an_unknown_device_is_refused_with_a_list_of_the_known_ones() {
    let sandbox = Sandbox::with_data();
    for device in ["tpu", "gpu:", "cpu:1", "1"] {
        let ended = sandbox.train(&format!("--device={device}"));
        let message = "expected auto, cpu, gpu, gpu:NUMBER or gpu:NAME, found ";
        assert!(ended.stderr.contains(message) && ended.code == Some(2), "{ended:#?}");
    }
    sandbox.write("parameters.yaml", "optimizer: adam\ndevice: fpga\n");
    let ended = sandbox.train("");
    assert!(ended.stderr.contains("parameters.yaml:2: device: expected auto, cpu, gpu"), "{ended:#?}");
}

#[test]
fn a_number_of_gpus_is_checked_and_what_has_only_one_device_takes_no_more() {
    let sandbox = Sandbox::with_data();
    for gpus in ["0", "65", "two", "1.5", "-1"] {
        let ended = sandbox.train(&format!("--gpus={gpus}"));
        let message = "expected auto, all or a whole number from 1 to 64, found ";
        assert!(ended.stderr.contains(message) && ended.code == Some(2), "{ended:#?}");
    }
    sandbox.write("parameters.yaml", "device: cpu\ngpus: 2\n");
    let ended = sandbox.train("");
    let message = "parameters.yaml: gpus: expected device gpu or auto with several, found cpu";
    assert!(ended.stderr.contains(message) && ended.code == Some(1), "{ended:#?}");
    sandbox.write("parameters.yaml", "device: gpu\n");
    let ended = sandbox.train("--gpus=all --engine=burn");
    assert!(ended.stderr.contains("gpus: expected engine fused or auto with several, found burn"), "{ended:#?}");
    // The processor may be what `auto` takes, and one GPU is no more than that.
    sandbox.write("parameters.yaml", "device: cpu\ngpus: 1\ntrain_epochs: 1\n");
    sandbox.train("").done();
    assert_eq!(sandbox.metrics("model")["gpus"], 0);
    sandbox.train("--device=auto --gpus=8").done();
    let metrics = sandbox.metrics("model");
    assert_eq!((&metrics["device"], &metrics["gpus"]), (&"cpu".into(), &0.into()));
}

#[test]
#[cfg(not(feature = "gpu"))]
fn a_build_without_gpus_says_how_to_get_them() {
    let sandbox = Sandbox::with_data();
    let ended = sandbox.train("--engine=burn --device=gpu");
    assert!(ended.stderr.contains("a program built with the feature gpu"), "{ended:#?}"); // which contains burn
    sandbox.write("parameters.yaml", "device: gpu\n");
    sandbox.train("").failed_with(
        "device gpu: expected a program built with the feature gpu, found one without\n\
         hint: build it with `cargo build --release --features gpu`, use the container image, or set device to cpu",
    );
    assert_eq!(sandbox.files("model"), [""; 0]);
    let ended = sandbox.run("devices").done();
    assert!(ended.stderr.contains("one with `--features gpu`") && ended.stdout.lines().count() == 1, "{ended:#?}");
}

#[cfg(feature = "gpu")]
mod with_gpus {
    use mnist::data::dataset::Images;
    use mnist::engine::fused_gpu::FusedGpuEngine;
    use mnist::parameters::Parameters;

    use super::*;
    use crate::common::{self, any_adapter, real_mnist};

    /// The value of `device` for an adapter of this machine, and whether that is software.
    fn by_name() -> Option<(String, bool)> {
        let adapter = any_adapter()?;
        let first_word = adapter.name.split_whitespace().next().unwrap().to_string();
        Some((format!("gpu:{first_word}"), adapter.number.is_none()))
    }

    #[test]
    fn the_fused_engine_refuses_more_than_16_classes() {
        let supports = |classes| {
            let images = Images { side: 28, classes: &[""; 17][..classes], ..Images::default() };
            FusedGpuEngine::supports(&Parameters::default().recipe(&images))
        };
        assert!(supports(16).is_ok());
        let message = supports(17).unwrap_err().to_string();
        assert_eq!(message, "engine fused: expected at most 16 classes, found 17");
    }

    #[test]
    fn both_engines_learn_and_repeat_themselves_byte_for_byte() {
        let Some((device, software)) = by_name() else { return };
        let sandbox = Sandbox::with_data();
        for engine in ["fused", "burn"] {
            let train = || {
                // 300 images, with a short batch at the end.
                sandbox.train(&format!("--engine={engine} --device={device} --train_epochs=12 --batch_size=64")).done();
                let metrics = sandbox.metrics("model");
                (metrics, std::fs::read(sandbox.path("model/model.safetensors")).unwrap())
            };
            let (metrics, first) = train();
            assert_eq!((&metrics["engine"], &metrics["device"]), (&engine.into(), &"gpu".into()));
            assert_eq!(metrics["backend"].as_str().unwrap().contains("software, no GPU"), software, "{metrics}");
            let on_gpu = metrics["test"]["accuracy"].as_f64().unwrap();
            assert!(train().1 == first, "{engine}");

            sandbox.train(&format!("--engine={engine} --device=cpu --train_epochs=12 --batch_size=64")).done();
            let metrics = sandbox.metrics("model");
            let on_cpu = metrics["test"]["accuracy"].as_f64().unwrap();
            assert!((on_gpu - on_cpu).abs() <= 0.02 && on_cpu > 0.4, "{engine}: {on_gpu}, {on_cpu}");
        }
        let parameters = sandbox.read("model/parameters.yaml");
        assert!(parameters.contains("device: cpu"), "{parameters}");
    }

    #[test]
    fn a_real_training_run_reaches_its_accuracy() {
        let Some((device, _)) = by_name() else { return };
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.path("data")).unwrap();
        mnist::data::synthetic::write(&sandbox.path("data"), 6_000, 1_000).unwrap();
        sandbox.write("parameters.yaml", "train_epochs: 5\nlearning_rate: 0.003\nhidden_layers: [64]\n");
        let accuracy = |device: &str| {
            sandbox.train(&format!("--device={device}")).done();
            let metrics = sandbox.metrics("model");
            metrics["test"]["accuracy"].as_f64().unwrap()
        };
        let (on_gpu, on_cpu) = (accuracy(&device), accuracy("cpu"));
        assert!((on_gpu - on_cpu).abs() <= 0.01 && on_gpu > 0.9, "{on_gpu}, {on_cpu}");
    }

    #[test]
    fn a_missing_gpu_is_an_error_that_lists_the_adapters_found() {
        let Some((_, software)) = by_name() else { return };
        let sandbox = Sandbox::with_data();
        let name = any_adapter().unwrap().name;
        for device in ["gpu:99", "gpu:nonesuch"].iter().chain(software.then_some(&"gpu")) {
            let ended = sandbox.train(&format!("--device={device}"));
            assert!(ended.stderr.contains("error: device gpu: expected a GPU"), "{ended:#?}");
            assert!(ended.stderr.contains(&name) && ended.stderr.contains("hint: see `mnist devices`"), "{ended:#?}");
            assert_eq!(ended.code, Some(1));
            assert_eq!(sandbox.files("model"), [""; 0]);
        }
        let mut nothing = sandbox.program();
        // The Vulkan loader finds no adapter without a driver.
        nothing.env("VK_ICD_FILENAMES", "/dev/null").env("VK_DRIVER_FILES", "/dev/null");
        nothing.args(common::TRAIN.split(' '));
        let ended = common::end(nothing.arg("--device=gpu"));
        assert!(ended.stderr.contains("expected a GPU, found no adapter at all"), "{ended:#?}");
    }

    #[test]
    fn too_little_device_memory_is_an_error_before_training() {
        let Some((device, true)) = by_name() else { return };
        let sandbox = Sandbox::with_data();
        let widths = ["4096"; 12].join(",");
        let ended = sandbox.train(&format!("--device={device} --hidden_layers={widths}"));
        assert!(
            ended.stderr.contains("the device failed: ") && ended.stderr.contains(" MiB of one buffer"),
            "{ended:#?}"
        );
        assert!(ended.stderr.contains("hint: try a smaller batch_size"), "{ended:#?}");
        assert_eq!((ended.code, sandbox.files("model")), (Some(1), vec![]));
    }

    #[test]
    fn auto_takes_the_processor_where_it_is_faster_and_says_why() {
        let sandbox = Sandbox::with_data();
        let ended = sandbox.train("--device=auto").done();
        assert!(ended.stderr.contains("device auto: cpu, which trains this in about 0.0 s"), "{ended:#?}");
        // What was chosen stands in the metrics; the parameters leave it open for the next machine.
        assert!(sandbox.read("model/metrics.json").contains("\"device\": \"cpu\""));
        assert!(sandbox.read("model/parameters.yaml").contains("device: auto"));
    }

    #[test]
    fn auto_looks_for_a_gpu_where_the_processor_is_slow() {
        let Some(data) = real_mnist() else { return };
        let Some((_, true)) = by_name() else { return };
        let sandbox = Sandbox::new();
        sandbox.write("parameters.yaml", "train_epochs: 60\nbatch_size: 8192\nhidden_layers: [16]\nthreads: 1\n");
        let ended = common::end(sandbox.program().args([
            "train",
            &format!("--data_dir={}", data.display()),
            "--log_dir=logs",
            "--model_dir=model",
            "--parameters_file=parameters.yaml",
            "--device=auto",
        ]));
        // A software adapter is no GPU.
        assert!(ended.stderr.contains("device auto: cpu, since no GPU was found"), "{ended:#?}");
    }

    // ---- several GPUs

    /// A sandbox for trainings of three epochs with a short last batch, on software, which stands in for several GPUs.
    fn several() -> Option<Sandbox> {
        let software = common::several_adapters(1)?.remove(0);
        let first_word = software.name.split_whitespace().next().unwrap();
        let sandbox = Sandbox::with_data();
        let network = "hidden_layers: [32]\nbatch_size: 64\nlearning_rate: 0.01\n";
        sandbox.write("parameters.yaml", format!("train_epochs: 3\ndevice: gpu:{first_word}\n{network}"));
        Some(sandbox)
    }

    #[test]
    fn two_and_eight_gpus_train_what_one_trains_and_the_same_bytes_again() {
        let Some(sandbox) = several() else { return };
        let train = |gpus: &str| {
            let ended = sandbox.train(&format!("--gpus={gpus}")).done();
            (ended, sandbox.metrics("model"), sandbox.model())
        };
        // Software is not taken several times unasked.
        let (ended, one, model) = train("auto");
        assert!(one["gpus"] == 1 && !ended.stderr.contains("opened several times"), "{ended:#?}");
        assert!(train("all").2 == model);
        let losses = |metrics: &serde_json::Value| -> Vec<f64> {
            let epochs = metrics["epochs"].as_array().unwrap().iter();
            epochs.map(|epoch| epoch["loss"].as_f64().unwrap()).collect()
        };
        for (gpus, number) in [("2", 2), ("8", 8)] {
            let (ended, metrics, first) = train(gpus);
            assert!(ended.stderr.contains("it is opened several times, as if it were several GPUs"), "{ended:#?}");
            assert!(ended.stderr.contains(&format!("engine: fused on gpu (own kernels on {gpus} x ")), "{ended:#?}");
            assert_eq!((&metrics["device"], &metrics["gpus"]), (&"gpu".into(), &number.into()));
            assert_eq!(metrics["parameters"]["gpus"], number);
            let report = sandbox.read("model/report.html");
            assert!(report.contains(&format!("{gpus} x gpu")) && report.contains(&format!("--gpus={gpus}")));
            for (found, expected) in losses(&metrics).iter().zip(losses(&one)) {
                assert!((found - expected).abs() < 1e-4 * expected, "{gpus}: {found}, {expected}");
            }
            let accuracy = |metrics: &serde_json::Value| metrics["test"]["accuracy"].as_f64().unwrap();
            assert!((accuracy(&metrics) - accuracy(&one)).abs() <= 0.01, "{metrics}");
            assert!(first != model && train(gpus).2 == first, "{gpus}");
        }
    }

    #[test]
    fn a_training_goes_on_with_its_number_of_gpus_or_says_that_it_is_another() {
        let Some(sandbox) = several() else { return };
        let train = |flags: &str| sandbox.train(flags).done();
        let gpus = || sandbox.metrics("model")["gpus"].clone();
        train("--gpus=2");
        let undisturbed = sandbox.model();
        train("--gpus=2 --train_epochs=2 --snapshots=1");
        let ended = train("--resume --snapshots=1");
        assert!(sandbox.model() == undisturbed && gpus() == 2, "{ended:#?}");
        assert!(!ended.stderr.contains("rounds otherwise"), "{ended:#?}");

        std::fs::remove_dir_all(sandbox.path("model")).unwrap();
        train("--gpus=1 --train_epochs=2 --snapshots=1");
        let ended = train("--resume --gpus=2");
        let warning = "warning: gpus: 2 instead of 1 rounds otherwise: the model will differ a little from that of an";
        assert!(ended.stderr.contains(warning) && gpus() == 2, "{ended:#?}");
        let epochs = sandbox.metrics("model")["epochs"].as_array().unwrap().len();
        assert!(sandbox.model() != undisturbed && epochs == 3, "{ended:#?}");
    }

    #[test]
    fn several_gpus_train_ensembles_on_distorted_images() {
        let Some(sandbox) = several() else { return };
        let more = "--augment=affine --ensemble=2 --validation=0.2 --schedule=cosine --ema=0.9";
        let train = |gpus: usize| {
            sandbox.train(&format!("{more} --gpus={gpus}")).done();
            let metrics = sandbox.metrics("model");
            (metrics["epochs"][2]["loss"].as_f64().unwrap(), metrics["gpus"].clone())
        };
        let ((one, _), (two, gpus)) = (train(1), train(2));
        assert!((one - two).abs() < 1e-3 * one && gpus == 2, "{one}, {two}, {gpus}");
    }
}
