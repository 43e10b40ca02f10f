//! `mnist devices`: lists the devices for `train`, by the names that its parameter `device` takes.

use crate::error::Result;
use crate::output::console;
use crate::simd::InstructionSet;
use crate::text;
use crate::threads;

/// Prints the devices.
///
/// # Errors
/// The environment names an instruction set that this processor lacks, or stdout is closed.
pub fn run() -> Result<()> {
    let threads = text::counted(threads::processors(), "thread");
    let processor = format!("the processor: {threads}, {}", InstructionSet::choose()?.name());
    let mut devices = vec![("cpu".to_string(), processor)];
    gpus(&mut devices);
    let rows: Vec<_> = devices.iter().map(|(name, description)| (name.as_str(), description.clone())).collect();
    console::print(&text::named_values(&rows))
}

#[cfg(feature = "gpu")]
fn gpus(devices: &mut Vec<(String, String)>) {
    let adapters = crate::engine::adapter::list();
    if adapters.iter().all(|adapter| adapter.number.is_none()) {
        tracing::info!("no GPU with a Vulkan driver was found: `device: auto` trains on the processor");
    }
    devices.extend(adapters.iter().map(|adapter| {
        // A software renderer is used only by its name; the first word of it is enough.
        let first_word = || adapter.name.split_whitespace().next().unwrap_or_default().to_string();
        (format!("gpu:{}", adapter.number.map_or_else(first_word, |number| number.to_string())), adapter.to_string())
    }));
}

#[cfg(not(feature = "gpu"))]
fn gpus(_: &mut Vec<(String, String)>) {
    tracing::info!(
        "this build trains on the processor alone; one with `--features gpu`, such as the container image, has GPUs too"
    );
}
