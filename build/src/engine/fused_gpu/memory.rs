//! The device's memory: buffers, the training images, the order and plan of an epoch.

use std::ops::Range;
use std::pin::Pin;

use cubecl::bytes::Bytes;
use cubecl::client::Client;
use cubecl::prelude::*;
use cubecl::server::{Handle, ServerError};

use crate::data::dataset::Images;
use crate::engine::adapter::Adapter;
use crate::engine::device_error::one_line;
use crate::engine::pixel_words::pixel_words;
use crate::error::{Error, Result};

/// Device memory for `length` numbers of 32 bits.
pub struct DeviceBuffer {
    pub handle: Handle,
    pub length: usize,
}

impl DeviceBuffer {
    /// Its numbers at `range`.
    fn part(&self, range: Range<usize>) -> Handle {
        let handle = self.handle.clone();
        handle.offset_start(4 * range.start as u64).offset_end(4 * (self.length - range.end) as u64)
    }
}

/// Parts of buffers on their way from the device.
pub struct PendingRead<'a, const PARTS: usize> {
    memory: &'a DeviceMemory,
    bytes: Pin<Box<dyn Future<Output = std::result::Result<Vec<Bytes>, ServerError>> + Send + 'a>>,
}

impl<const PARTS: usize> PendingRead<'_, PARTS> {
    /// Waits for the numbers of each part.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait(self) -> Result<[Vec<f32>; PARTS]> {
        let bytes = cubecl::future::block_on(self.bytes).map_err(|e| self.memory.failure(&e.to_string()))?;
        Ok(std::array::from_fn(|part| f32::from_bytes(&bytes[part]).to_vec()))
    }
}

/// The memory of an adapter. It limits the size of a single buffer.
pub struct DeviceMemory {
    pub client: Client,
    pub adapter: Adapter,
}

/// The training images in the device's memory.
pub struct GpuImages {
    /// (N,D/4), rounded up: four pixels to a word.
    pub pixels: DeviceBuffer,
    /// (N).
    pub labels: DeviceBuffer,
    /// N.
    pub count: usize,
}

/// The batches of an epoch, or of an evaluation.
pub struct GpuEpoch {
    /// Says which step is next, see [`super::kernels::StepMemory`].
    pub clock: DeviceBuffer,
    /// Indices of images, batch after batch.
    pub order: DeviceBuffer,
    /// A record for each step, see [`super::plan`].
    pub plan: DeviceBuffer,
    /// Loss and correctness of each image, or in evaluation its logits.
    pub scores: DeviceBuffer,
}

impl DeviceMemory {
    /// The memory of `adapter`.
    ///
    /// # Errors
    /// The device cannot be opened.
    pub fn open(adapter: Adapter) -> Result<Self> {
        let client = cubecl::Device::Wgpu(adapter.open()?).client();
        Ok(Self { client, adapter })
    }

    /// How many numbers of 32 bits a buffer can have.
    pub fn most_numbers(&self) -> usize {
        (self.client.properties().memory.max_page_size / 4) as usize
    }

    /// Memory for `length` numbers of `what`; messages name it.
    ///
    /// # Errors
    /// The device has no buffers of that size.
    pub fn empty(&self, what: &str, length: usize) -> Result<DeviceBuffer> {
        self.fits(what, length)?;
        // A buffer without a byte cannot be bound.
        let length = length.max(1);
        Ok(DeviceBuffer { handle: self.client.empty(4 * length), length })
    }

    /// Copies `words`, which are `what`, to the device.
    ///
    /// # Errors
    /// The device has no buffers of that size.
    pub fn words(&self, what: &str, words: &[u32]) -> Result<DeviceBuffer> {
        if words.is_empty() {
            return self.empty(what, 1);
        }
        self.fits(what, words.len())?;
        Ok(DeviceBuffer { handle: self.client.create_from_slice(u32::as_bytes(words)), length: words.len() })
    }

    /// Copies `train`, images of `inputs` (D) pixels, to the device.
    ///
    /// # Errors
    /// The device has no buffers of that size.
    pub fn images(&self, train: &Images, inputs: usize) -> Result<GpuImages> {
        assert_eq!(train.pixels.len(), train.len() * inputs, "expected images of {inputs} pixels");
        Ok(GpuImages {
            pixels: self.words("the training images", &pixel_words(&train.pixels, inputs).collect::<Vec<_>>())?,
            labels: self.words("their labels", &train.labels.iter().map(|&label| label.into()).collect::<Vec<_>>())?,
            count: train.len(),
        })
    }

    /// The numbers of `buffer` at `range`; waits for the device.
    ///
    /// # Errors
    /// The device failed.
    pub fn read(&self, buffer: &DeviceBuffer, range: Range<usize>) -> Result<Vec<f32>> {
        let bytes = self.client.read_one(buffer.part(range)).map_err(|e| self.failure(&e.to_string()))?;
        Ok(f32::from_bytes(&bytes).to_vec())
    }

    /// Has the device begin with all that is queued, and then with sending `parts` of buffers. Waits for none of it.
    pub fn begin_read<const PARTS: usize>(
        &self,
        parts: [(&DeviceBuffer, Range<usize>); PARTS],
    ) -> PendingRead<'_, PARTS> {
        let parts = parts.map(|(buffer, range)| buffer.part(range));
        PendingRead { memory: self, bytes: Box::pin(self.client.read_async(parts.into())) }
    }

    /// Replaces the numbers of `buffer` from place `begin` on by `numbers`, after all that is queued.
    pub fn write(&self, buffer: &DeviceBuffer, begin: usize, numbers: Vec<f32>) {
        let part = buffer.part(begin..begin + numbers.len());
        self.client.write(&part, Bytes::from_elems(numbers));
    }

    fn fits(&self, what: &str, length: usize) -> Result<()> {
        let (needed, most) = (4 * length as u64, self.client.properties().memory.max_page_size);
        if needed <= most {
            return Ok(());
        }
        let mb = |bytes: u64| bytes.div_ceil(1 << 20);
        Err(self.failure(&format!("{what} take {} MiB, more than the {} MiB of one buffer", mb(needed), mb(most))))
    }

    /// The error of a device that failed.
    pub fn failure(&self, problem: &str) -> Error {
        Error::Device { problem: format!("{}: {}", self.adapter.name, one_line(problem)) }
    }
}
