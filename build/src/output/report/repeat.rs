//! The command that trains the same model again, and where it does.

use std::path::Path;

use serde_json::Value;

use crate::engine::EngineInfo;
use crate::output::finished::Finished;
use crate::parameters::Parameters;
use crate::text::quoted;

/// The flags of `mnist train`, one for every parameter, so that no parameters file is needed and none is heard. Where the
/// run chose engine and devices by itself, they are named.
pub fn command(finished: &Finished) -> Vec<String> {
    let init = finished.init.map(|init| flag("init", &init.path));
    init.into_iter().chain(flags(finished.parameters, finished.engine)).collect()
}

/// Where the command gives the same bytes of the model, as the end of a sentence. None where time or a signal decided, where
/// the model that training began with is gone, and where other runs trained some epochs: they may have run on another machine.
pub fn same_bytes(finished: &Finished) -> Option<String> {
    let EngineInfo { device, backend, instruction_set, .. } = finished.engine;
    let parameters = finished.parameters;
    let by_time = parameters.max_seconds > 0.0 || finished.trained.model.unfinished.is_some();
    let by_others = finished.before > 0 || finished.replaces_init;
    (!by_time && !by_others).then(|| match *device {
        "cpu" => format!("with the instruction set {instruction_set}"),
        _ => format!("with {backend}"),
    })
}

fn flags(parameters: &Parameters, used: &EngineInfo) -> impl Iterator<Item = String> {
    let (engine, device, gpus) = (used.engine, used.device, used.gpus);
    let used = move |name: &str, text: String| match (name, &*text) {
        ("engine", "auto") => engine.to_string(),
        ("device", "auto") => device.to_string(),
        ("gpus", _) => {
            if gpus == 0 {
                "auto".into()
            } else {
                gpus.to_string()
            }
        }
        _ => text,
    };
    values(parameters).into_iter().map(move |(name, text)| flag(&name, &used(&name, text)))
}

fn flag(name: &str, value: &str) -> String {
    format!("--{name}={}", quoted(Path::new(value)))
}

/// The parameters with their values, as flags take them.
pub fn values(parameters: &Parameters) -> Vec<(String, String)> {
    let fields = match parameters.to_json() {
        Value::Object(fields) => fields,
        other => unreachable!("the parameters are fields: {other:?}"),
    };
    let text = |value: Value| match value {
        Value::String(text) => text,
        Value::Array(widths) if !widths.is_empty() => widths.iter().map(Value::to_string).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    };
    fields.into_iter().map(|(name, value)| (name, text(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::choice::{DeviceChoice, EngineChoice, GpuCount};
    use crate::parameters::Setting;
    use crate::parameters::table::find;

    fn used(device: &'static str, gpus: usize) -> EngineInfo {
        let [backend, instruction_set] = ["none", "none"].map(String::from);
        EngineInfo { engine: "fused", device, gpus, backend, instruction_set, threads: 1 }
    }

    #[test]
    fn the_number_of_gpus_that_were_used_is_named() {
        let asked = |gpus| Parameters { gpus, ..Parameters::default() };
        let flag = |gpus, used: EngineInfo| flags(&asked(gpus), &used).find(|flag| flag.starts_with("--gpus")).unwrap();
        assert_eq!(flag(GpuCount::Auto, used("gpu", 1)), "--gpus=1");
        assert_eq!(flag(GpuCount::All, used("gpu", 8)), "--gpus=8");
        // The processor was faster than eight GPUs.
        assert_eq!(flag(GpuCount::Number(8), used("cpu", 0)), "--gpus=auto");
    }

    #[test]
    fn the_flags_give_the_same_parameters() {
        let set = |text: &str| {
            let (name, value) = text.split_once('=').unwrap();
            Setting::from_flag(find(name).unwrap(), value).unwrap()
        };
        for given in [
            &[][..],
            &["hidden_layers=[]", "optimizer=sgd", "nesterov=true", "momentum=0.9", "learning_rate=1e-7"],
            &["hidden_layers=512,64", "augment=both", "rotation=7.5", "schedule=cosine", "warmup=1", "ensemble=3"],
        ] {
            let asked = Parameters::resolve(&given.iter().map(|text| set(text)).collect::<Vec<_>>()).unwrap();
            let flags: Vec<String> = flags(&asked, &used("cpu", 0)).collect();
            let settings: Vec<Setting> = flags.iter().map(|flag| set(&flag[2..].replace('\'', ""))).collect();
            let (engine, device) = (EngineChoice::Fused, DeviceChoice::parse("cpu").unwrap());
            assert_eq!(Parameters::resolve(&settings).unwrap(), Parameters { engine, device, ..asked }, "{flags:?}");
        }
    }
}
