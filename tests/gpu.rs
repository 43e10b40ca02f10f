//! GPUs as users meet them: `mnist devices`, the parameter `device` with its `auto`, and the errors. Any adapter will do: CI
//! has one in software.

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
}
