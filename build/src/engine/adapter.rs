//! The GPUs of this machine: lists them, chooses one, opens it. They are found by Vulkan, Metal and DX12.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;

use cubecl::wgpu::wgpu::{self, Backend, DeviceDescriptor, DeviceType, Features, Instance, InstanceDescriptor};
use cubecl::wgpu::{
    AutoGraphicsApi, RuntimeOptions, WgpuBackend, WgpuDevice, WgpuDeviceKind, WgpuSetup, try_init_device,
    try_init_setup,
};
use tracing::info;

use super::device::{AdapterChoice, GpuCount};
use crate::error::{Error, Result};
use crate::threads;

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
    /// Software can be opened several times, to stand in for several GPUs: which time this is, from 0.
    copy: usize,
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
            copy: 0,
        }
    };
    found.iter().map(wgpu::Adapter::get_info).map(adapter).collect()
}

/// The adapters of this machine that `choice` and `gpus` mean: the chosen one, then the next ones of its kind. At least one.
///
/// They are of one kind, since the same kernel gives other bits on another one. `auto` and `all` are all of them.
///
/// # Errors
/// There are none, or too few; the message lists the adapters that were found.
pub fn choose(choice: &AdapterChoice, gpus: GpuCount) -> Result<Vec<Adapter>> {
    several(&list(), choice, gpus)
}

/// [`choose`] among `adapters`.
fn several(adapters: &[Adapter], choice: &AdapterChoice, gpus: GpuCount) -> Result<Vec<Adapter>> {
    let named = || adapters.iter().map(ToString::to_string).collect();
    let place = pick(adapters, choice).ok_or_else(|| Error::NoAdapter {
        asked: match choice {
            AdapterChoice::First => "a GPU".into(),
            AdapterChoice::Number(number) => format!("a GPU with the number {number}"),
            AdapterChoice::Named(name) => format!("a GPU whose name contains {name}"),
        },
        found: named(),
    })?;
    let (first, found) = (&adapters[place], of_its_kind(&adapters[place..], gpus));
    match (gpus, first.number) {
        (GpuCount::Number(asked), Some(number)) if found.len() < asked => {
            let kind = format!("{} from gpu:{number} on", first.name);
            Err(Error::TooFewGpus { asked, kind, there: found.len(), found: named() })
        }
        _ => Ok(found),
    }
}

/// The place of the adapter that `choice` means.
fn pick(adapters: &[Adapter], choice: &AdapterChoice) -> Option<usize> {
    adapters.iter().position(|adapter| match choice {
        AdapterChoice::First => adapter.number.is_some(),
        AdapterChoice::Number(number) => adapter.number == Some(*number),
        AdapterChoice::Named(name) => adapter.name.to_lowercase().contains(&name.to_lowercase()),
    })
}

/// The first of `adapters` and those of its kind: at most as many as `gpus` says. Software stands in for that many.
fn of_its_kind(adapters: &[Adapter], gpus: GpuCount) -> Vec<Adapter> {
    let first = &adapters[0];
    if first.number.is_none() {
        let copies = if let GpuCount::Number(number) = gpus { number } else { 1 };
        return (0..copies).map(|copy| Adapter { copy, ..first.clone() }).collect();
    }
    let most = if let GpuCount::Number(number) = gpus { number } else { usize::MAX };
    let kind = |adapter: &Adapter| [adapter.name.clone(), adapter.driver.clone(), adapter.backend.to_string()];
    adapters.iter().filter(|other| kind(other) == kind(first)).take(most).cloned().collect()
}

/// Open adapters, by device and copy: the runtime's name for each, with what is needed to open it again.
type OpenAdapters = HashMap<(WgpuDevice, usize), (WgpuDevice, WgpuSetup)>;

static OPENED: Mutex<Option<OpenAdapters>> = Mutex::new(None);

impl Adapter {
    /// Prepares the adapter for kernels and returns the runtime's name for it. Only the first call takes time.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn open(&self) -> Result<WgpuDevice> {
        let mut opened = threads::lock(&OPENED);
        let opened = opened.get_or_insert_default();
        let failed = |problem: String| Error::Device { problem: format!("{self}: {problem}") };
        let options =
            || RuntimeOptions::with_tasks_max(Some(LAUNCHES_PER_SUBMISSION)).map_err(|e| failed(e.to_string()));
        let first = match opened.get(&(self.device.clone(), 0)) {
            Some((_, setup)) => setup.clone(),
            None => {
                let setup =
                    try_init_setup::<AutoGraphicsApi>(&self.device, options()?).map_err(|e| failed(e.to_string()))?;
                opened.insert((self.device.clone(), 0), (self.device.clone(), setup.clone()));
                setup
            }
        };
        if let Some((device, _)) = opened.get(&(self.device.clone(), self.copy)) {
            return Ok(device.clone());
        }
        if self.copy == 1 {
            info!("{self}: it is opened several times, as if it were several GPUs: good for tests alone");
        }
        let setup = opened_again(first).map_err(|e| failed(e.to_string()))?;
        let device = try_init_device(setup.clone(), options()?).map_err(|e| failed(e.to_string()))?;
        opened.insert((self.device.clone(), self.copy), (device.clone(), setup));
        Ok(device)
    }
}

/// A second device of the same adapter, with a queue of its own.
fn opened_again(setup: WgpuSetup) -> std::result::Result<WgpuSetup, wgpu::RequestDeviceError> {
    let descriptor = DeviceDescriptor {
        // Our kernels need no experimental ones.
        required_features: setup.device.features().difference(Features::all_experimental_mask()),
        required_limits: setup.device.limits(),
        ..DeviceDescriptor::default()
    };
    let (device, queue) = cubecl::future::block_on(setup.adapter.request_device(&descriptor))?;
    Ok(WgpuSetup { device, queue, ..setup })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, number: Option<usize>) -> Adapter {
        let kind = if number.is_some() { AdapterKind::Discrete } else { AdapterKind::Software };
        let device = WgpuDevice::new(WgpuDeviceKind::Cpu);
        Adapter { name: name.into(), kind, driver: "1.0".into(), backend: Backend::Vulkan, number, device, copy: 0 }
    }

    #[test]
    fn software_is_only_taken_by_its_name() {
        let adapters = [adapter("Radeon RX", Some(0)), adapter("GeForce RTX", Some(1)), adapter("llvmpipe", None)];
        let name = |adapters: &[Adapter], choice| pick(adapters, &choice).map(|place| adapters[place].name.clone());
        assert_eq!(name(&adapters, AdapterChoice::First).as_deref(), Some("Radeon RX"));
        assert_eq!(name(&adapters, AdapterChoice::Number(1)).as_deref(), Some("GeForce RTX"));
        assert_eq!(name(&adapters, AdapterChoice::Number(2)), None);
        assert_eq!(name(&adapters, AdapterChoice::Named("rtx".into())).as_deref(), Some("GeForce RTX"));
        assert_eq!(name(&adapters, AdapterChoice::Named("LLVM".into())).as_deref(), Some("llvmpipe"));
        assert_eq!(name(&adapters[2..], AdapterChoice::First), None);
        assert_eq!(name(&adapters[2..], AdapterChoice::Number(0)), None);
    }

    #[test]
    fn several_gpus_are_of_one_kind_and_software_stands_in_for_several() {
        let adapters = [
            adapter("Radeon RX", Some(0)),
            adapter("H100", Some(1)),
            Adapter { driver: "2.0".into(), ..adapter("H100", Some(2)) },
            adapter("H100", Some(3)),
            Adapter { backend: Backend::Dx12, ..adapter("H100", Some(4)) },
            adapter("llvmpipe", None),
        ];
        let found = |first: usize, gpus| {
            let found = of_its_kind(&adapters[first..], gpus);
            found.iter().map(|adapter| (adapter.number, adapter.copy)).collect::<Vec<_>>()
        };
        assert_eq!(found(1, GpuCount::All), [(Some(1), 0), (Some(3), 0)]);
        assert_eq!(found(1, GpuCount::Auto), found(1, GpuCount::All));
        assert_eq!(found(1, GpuCount::Number(1)), [(Some(1), 0)]);
        assert_eq!(found(1, GpuCount::Number(8)), found(1, GpuCount::All));
        assert_eq!(found(3, GpuCount::All), [(Some(3), 0)]);
        assert_eq!(found(5, GpuCount::Number(3)), [(None, 0), (None, 1), (None, 2)]);
        assert_eq!(found(5, GpuCount::All), [(None, 0)]);
    }

    #[test]
    fn too_few_gpus_of_one_kind_are_an_error_that_names_those_there_are() {
        let adapters = [adapter("Radeon RX", Some(0)), adapter("H100", Some(1)), adapter("H100", Some(2))];
        let chosen = |choice, gpus| several(&adapters, &choice, GpuCount::Number(gpus));
        assert_eq!(chosen(AdapterChoice::Number(1), 2).unwrap().len(), 2);
        let error = chosen(AdapterChoice::Named("h100".into()), 8).unwrap_err();
        assert_eq!(
            error.to_string(),
            "gpus: expected 8 of the GPU H100 from gpu:1 on, found 2; the adapters are Radeon RX (discrete GPU, vulkan, 1.0), \
             H100 (discrete GPU, vulkan, 1.0) and H100 (discrete GPU, vulkan, 1.0)"
        );
        assert!(error.hint().unwrap().starts_with("set gpus to 2 or less, or to all"));
        assert!(chosen(AdapterChoice::First, 2).is_err());
    }
}
