//! The GPUs of this machine: lists them, chooses one, opens it. They are found by Vulkan, Metal and DX12.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use cubecl::wgpu::wgpu::{self, Backend, DeviceType, Instance, InstanceDescriptor};
use cubecl::wgpu::{AutoGraphicsApi, RuntimeOptions, WgpuBackend, WgpuDevice, WgpuDeviceKind, try_init_setup};

use super::device::AdapterChoice;
use crate::error::{Error, Result};

/// A GPU, or a program that does a GPU's work on the processor, with the graphics API by which it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// The name that its driver gives it.
    pub name: String,
    /// Hardware or software, and which kind of hardware.
    pub kind: AdapterKind,
    /// The driver, with its version.
    pub driver: String,
    /// The graphics API.
    pub backend: Backend,
    /// Its number among the adapters that are hardware; software has none.
    pub number: Option<usize>,
    device: WgpuDevice,
}

/// The kinds of adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterKind {
    /// A card with memory of its own.
    Discrete,
    /// A part of the processor's chip.
    Integrated,
    /// A GPU that a hypervisor gives to a virtual machine.
    Virtual,
    /// A GPU whose driver does not say which kind it is.
    Other,
    /// A program that does a GPU's work on the processor.
    Software,
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete GPU",
            Self::Integrated => "integrated GPU",
            Self::Virtual => "virtual GPU",
            Self::Other => "GPU",
            Self::Software => "software, no GPU",
        })
    }
}

impl fmt::Display for Adapter {
    /// Name, kind, API and driver, for logs and metrics.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} ({}, {}, {})", self.name, self.kind, self.backend, self.driver)
    }
}

/// The graphics APIs, the best first, and the runtime's names for them.
const BACKENDS: [(Backend, WgpuBackend); 3] =
    [(Backend::Vulkan, WgpuBackend::Vulkan), (Backend::Metal, WgpuBackend::Metal), (Backend::Dx12, WgpuBackend::Dx12)];

/// The runtime gathers so many kernels before it hands them to the driver.
const LAUNCHES_PER_SUBMISSION: usize = 128;

/// All adapters: hardware first, in the order of the numbers in `device: gpu:NUMBER`.
pub fn list() -> Vec<Adapter> {
    let mut adapters: Vec<Adapter> = BACKENDS.iter().flat_map(|&(backend, name)| on(backend, name)).collect();
    adapters.sort_by_key(|adapter| adapter.kind == AdapterKind::Software);
    let hardware = adapters.iter_mut().take_while(|adapter| adapter.kind != AdapterKind::Software);
    hardware.enumerate().for_each(|(number, adapter)| adapter.number = Some(number));
    adapters
}

/// The adapters of one API. The runtime names an adapter by its kind and its number among those of that kind.
fn on(backend: Backend, name: WgpuBackend) -> Vec<Adapter> {
    let descriptor =
        InstanceDescriptor { backends: backend.into(), ..InstanceDescriptor::new_without_display_handle() };
    let found = cubecl::future::block_on(Instance::new(descriptor).enumerate_adapters(backend.into()));
    let mut seen = [0; 4];
    let mut next = |of_kind: usize| {
        seen[of_kind] += 1;
        seen[of_kind] - 1
    };
    let adapter = |info: wgpu::AdapterInfo| {
        let (kind, device) = match info.device_type {
            DeviceType::DiscreteGpu => (AdapterKind::Discrete, WgpuDeviceKind::DiscreteGpu(next(0))),
            DeviceType::IntegratedGpu => (AdapterKind::Integrated, WgpuDeviceKind::IntegratedGpu(next(1))),
            DeviceType::VirtualGpu => (AdapterKind::Virtual, WgpuDeviceKind::VirtualGpu(next(2))),
            DeviceType::Other => (AdapterKind::Other, WgpuDeviceKind::Other(next(3))),
            DeviceType::Cpu => (AdapterKind::Software, WgpuDeviceKind::Cpu),
        };
        Adapter {
            name: info.name,
            kind,
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            backend,
            number: None,
            device: WgpuDevice::new(device).on(name),
        }
    };
    found.iter().map(wgpu::Adapter::get_info).map(adapter).collect()
}

/// The adapter of this machine that `choice` means.
///
/// # Errors
/// There is none; the message lists the adapters that were found.
pub fn choose(choice: &AdapterChoice) -> Result<Adapter> {
    let adapters = list();
    pick(&adapters, choice).cloned().ok_or_else(|| Error::NoAdapter {
        asked: match choice {
            AdapterChoice::First => "a GPU".into(),
            AdapterChoice::Number(number) => format!("a GPU with the number {number}"),
            AdapterChoice::Named(name) => format!("a GPU whose name contains {name}"),
        },
        found: adapters.iter().map(ToString::to_string).collect(),
    })
}

fn pick<'a>(adapters: &'a [Adapter], choice: &AdapterChoice) -> Option<&'a Adapter> {
    adapters.iter().find(|adapter| match choice {
        AdapterChoice::First => adapter.number.is_some(),
        AdapterChoice::Number(number) => adapter.number == Some(*number),
        AdapterChoice::Named(name) => adapter.name.to_lowercase().contains(&name.to_lowercase()),
    })
}

impl Adapter {
    /// Prepares the adapter for kernels and returns the runtime's name for it. Only the first call takes time.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn open(&self) -> Result<WgpuDevice> {
        static OPENED: Mutex<Option<HashSet<WgpuDevice>>> = Mutex::new(None);
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = opened.get_or_insert_default();
        if !opened.contains(&self.device) {
            let failed = |problem: String| Error::Device { problem: format!("{self}: {problem}") };
            let options =
                RuntimeOptions::with_tasks_max(Some(LAUNCHES_PER_SUBMISSION)).map_err(|e| failed(e.to_string()))?;
            try_init_setup::<AutoGraphicsApi>(&self.device, options).map_err(|e| failed(e.to_string()))?;
            opened.insert(self.device.clone());
        }
        Ok(self.device.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, number: Option<usize>) -> Adapter {
        let kind = if number.is_some() { AdapterKind::Discrete } else { AdapterKind::Software };
        let device = WgpuDevice::new(WgpuDeviceKind::Cpu);
        Adapter { name: name.into(), kind, driver: "1.0".into(), backend: Backend::Vulkan, number, device }
    }

    #[test]
    fn software_is_only_taken_by_its_name() {
        let adapters = [adapter("Radeon RX", Some(0)), adapter("GeForce RTX", Some(1)), adapter("llvmpipe", None)];
        let name = |adapters: &[Adapter], choice| pick(adapters, &choice).map(|adapter| adapter.name.clone());
        assert_eq!(name(&adapters, AdapterChoice::First).as_deref(), Some("Radeon RX"));
        assert_eq!(name(&adapters, AdapterChoice::Number(1)).as_deref(), Some("GeForce RTX"));
        assert_eq!(name(&adapters, AdapterChoice::Number(2)), None);
        assert_eq!(name(&adapters, AdapterChoice::Named("rtx".into())).as_deref(), Some("GeForce RTX"));
        assert_eq!(name(&adapters, AdapterChoice::Named("LLVM".into())).as_deref(), Some("llvmpipe"));
        assert_eq!(name(&adapters[2..], AdapterChoice::First), None);
        assert_eq!(name(&adapters[2..], AdapterChoice::Number(0)), None);
    }
}
