//! The network in Burn, on any Burn device: gradients by autodiff, updates by the formulas of [`crate::optim`].
//!
//! Burn's own optimizers are not used, since its Adam adds another epsilon than Keras' Adam, and at another place.

mod source;

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use rayon::{ThreadPool, ThreadPoolBuilder};

#[cfg(feature = "gpu")]
use self::source::TensorImages;
use self::source::{ImageSource, StepsOrder, TensorBatch, scaled};
#[cfg(feature = "gpu")]
use super::adapter::Adapter;
#[cfg(feature = "gpu")]
use super::device_error::guarded;
use super::device_error::one_line;
use super::{EngineInfo, EpochTotals, Network, Progress, Recipe, Report, Trainer, TrainingState};
use crate::data::dataset::Images;
use crate::engine::dropout::{self, DropoutMask};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::optim::OptimizerSettings;
use crate::threads;

/// The losses are read once in so many steps. Each time, the host waits for the device.
const STEPS_PER_READ: usize = 50;
/// Images per forward pass in evaluation, which limits the memory that it takes.
const EVALUATION_BATCH: usize = 2_000;

/// Which of Burn's devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BurnDevice {
    /// The processor, by burn-flex.
    Flex,
    /// The processor, by burn-ndarray.
    #[cfg(feature = "ndarray")]
    Ndarray,
    /// A GPU, by burn-wgpu.
    #[cfg(feature = "gpu")]
    Gpu(Adapter),
}

impl BurnDevice {
    fn open(&self) -> Result<Device> {
        Ok(match self {
            Self::Flex => Device::flex(),
            #[cfg(feature = "ndarray")]
            #[expect(deprecated, reason = "a second CPU device, to check the others against")]
            Self::Ndarray => Device::ndarray(),
            #[cfg(feature = "gpu")]
            Self::Gpu(adapter) => Device::new(adapter.open()?),
        })
    }

    /// The images `train`, of `inputs` (D) pixels, where this device wants them.
    fn source(&self, train: Arc<Images>, inputs: usize, device: &Device) -> ImageSource {
        match self {
            #[cfg(feature = "gpu")]
            Self::Gpu(_) => ImageSource::Device(Box::new(TensorImages::new(&train, inputs, device))),
            _ => {
                let _ = (inputs, device);
                ImageSource::Host(train)
            }
        }
    }
}

/// The burn engine.
pub struct BurnEngine {
    core: Core,
    host: HostThreads,
    backend: BurnDevice,
}

/// The threads that do the host's part of the work.
enum HostThreads {
    /// The engine's own threads.
    Pool(Arc<ThreadPool>),
    /// The calling thread, since a GPU keeps only the work of one thread in order.
    #[cfg(feature = "gpu")]
    Caller,
}

impl HostThreads {
    /// Does `work`. A panic of a GPU's runtime becomes an error.
    fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self {
            Self::Pool(pool) => pool.install(work),
            #[cfg(feature = "gpu")]
            Self::Caller => guarded(work),
        }
    }
}

thread_local! {
    /// A pool whose only member is the thread itself. A thread can be in one such pool.
    static ALONE: Option<Arc<ThreadPool>> =
        ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().map(Arc::new).ok();
}

/// A pool of as many threads as the system starts, at most `threads`, and at least the calling one.
fn pool(threads: usize) -> Result<Arc<ThreadPool>> {
    let mut asked = threads;
    while asked > 1 {
        match ThreadPoolBuilder::new().num_threads(asked).build() {
            Ok(pool) => return Ok(Arc::new(pool)),
            Err(refused) => threads::refused(&refused.to_string()),
        }
        asked /= 2;
    }
    ALONE.with(Clone::clone).ok_or(Error::Threads { threads, problem: "the calling thread is busy".into() })
}

/// A step's data: everything but the threads that do the step.
struct Core {
    recipe: Recipe,
    source: ImageSource,
    device: Device,
    /// Weights and biases alternating, from the first layer on.
    variables: Vec<Variable>,
    step: u64,
    /// Sums of loss and of right answers since they were last read, on the device.
    pending: Option<[Tensor<1>; 2]>,
}

/// The weights or biases of a layer, flat.
struct Variable {
    value: Tensor<1>,
    slots: Vec<Tensor<1>>,
}

impl BurnEngine {
    /// About how many bytes of this machine's memory training `recipe` on `train` takes at most, without the images themselves;
    /// with `on_gpu`, a batch's are the GPU's.
    pub fn memory(recipe: &Recipe, train: &Images, on_gpu: bool) -> u64 {
        // Values, slots and gradients, what an update makes anew, and the parameters of the last two epochs.
        let parameters = recipe.shape.parameter_count() * (2 * (1 + recipe.optimizer.slots().len()) + 3);
        // Each unit before and after ReLU and dropout, with the mask and the gradients.
        let batch = if on_gpu { 0 } else { recipe.batch_size.min(train.len()) };
        let units = batch * recipe.shape.widths().iter().sum::<usize>() * 6;
        (size_of::<f32>() * (parameters + units)) as u64
    }

    /// The network of `recipe` at its beginning, to be trained on `train`.
    ///
    /// # Errors
    /// The threads cannot be started, or the device refuses.
    pub fn new(recipe: Recipe, train: Arc<Images>, backend: BurnDevice) -> Result<Self> {
        let host = match backend {
            #[cfg(feature = "gpu")]
            BurnDevice::Gpu(_) => HostThreads::Caller,
            _ => HostThreads::Pool(pool(recipe.threads)?),
        };
        let initial = TrainingState::new(&recipe.optimizer, recipe.shape.initial_parameters(recipe.seed));
        let device = backend.open()?;
        let source = host.run(|| Ok(backend.source(train, recipe.shape.inputs(), &device)))?;
        let core = Core { recipe, source, device, variables: vec![], step: 0, pending: None };
        let mut engine = Self { core, host, backend };
        engine.load_state(&initial)?;
        Ok(engine)
    }
}

impl Network for BurnEngine {
    fn info(&self) -> EngineInfo {
        let (device, backend, instruction_set) = match &self.backend {
            BurnDevice::Flex => ("cpu", "burn-flex".into(), instruction_set()),
            #[cfg(feature = "ndarray")]
            BurnDevice::Ndarray => ("ndarray", "burn-ndarray".into(), instruction_set()),
            #[cfg(feature = "gpu")]
            BurnDevice::Gpu(adapter) => ("gpu", format!("burn-wgpu on {adapter}"), "wgsl"),
        };
        EngineInfo {
            engine: "burn",
            device,
            gpus: usize::from(device == "gpu"),
            backend,
            instruction_set: instruction_set.into(),
            threads: match &self.host {
                HostThreads::Pool(pool) => pool.current_num_threads(),
                #[cfg(feature = "gpu")]
                HostThreads::Caller => 1,
            },
        }
    }

    fn logits(&mut self, pixels: &[u8]) -> Result<Vec<f32>> {
        let d = self.core.recipe.shape.inputs();
        let mut logits = Vec::with_capacity(pixels.len() / d * self.core.recipe.shape.classes());
        for part in pixels.chunks(EVALUATION_BATCH * d) {
            interrupt::check()?;
            let forward = || {
                let values = self.core.variables.iter().map(|variable| variable.value.clone()).collect::<Vec<_>>();
                let pixels = scaled(part.iter(), part.len() / d, d, &self.core.device);
                numbers(self.core.forward(&values, pixels, None))
            };
            logits.extend(self.host.run(forward)?);
        }
        Ok(logits)
    }
}

impl Trainer for BurnEngine {
    fn train_epoch(&mut self, order: &[u32], progress: &mut Report) -> Result<EpochTotals> {
        let mut totals = EpochTotals::default();
        for steps in order.chunks(self.core.recipe.batch_size.saturating_mul(STEPS_PER_READ)) {
            let order = self.host.run(|| Ok(self.core.source.order(steps, &self.core.device)))?;
            for begin in (0..steps.len()).step_by(self.core.recipe.batch_size) {
                let batch = begin..steps.len().min(begin + self.core.recipe.batch_size);
                totals.images += batch.len();
                self.host.run(|| {
                    self.core.train_step(&order, batch);
                    Ok(())
                })?;
                progress(Progress { images: totals.images, loss: None, accuracy: None })?;
            }
            let [loss, correct] = self.host.run(|| self.core.read_losses())?;
            totals.loss_sum += loss;
            totals.correct += correct as usize;
            progress(totals.progress())?;
        }
        Ok(totals)
    }

    fn set_images(&mut self, train: Arc<Images>) -> Result<()> {
        let (core, backend) = (&mut self.core, &self.backend);
        let inputs = core.recipe.shape.inputs();
        core.source = self.host.run(|| Ok(backend.source(train, inputs, &core.device)))?;
        Ok(())
    }

    fn state(&mut self) -> Result<TrainingState> {
        self.host.run(|| {
            let mut state = TrainingState::new(&self.core.recipe.optimizer, vec![]);
            for variable in &self.core.variables {
                state.parameters.extend(numbers(variable.value.clone())?);
                for (slot, tensor) in state.slots.iter_mut().zip(&variable.slots) {
                    slot.extend(numbers(tensor.clone())?);
                }
            }
            state.step = self.core.step;
            Ok(state)
        })
    }

    fn load_state(&mut self, state: &TrainingState) -> Result<()> {
        let device = &self.core.device;
        let part = |all: &[f32], range: Range<usize>| {
            Tensor::<1>::from_data(TensorData::new(all[range.clone()].to_vec(), [range.len()]), device)
        };
        let variable = |range: Range<usize>| Variable {
            value: part(&state.parameters, range.clone()),
            slots: state.slots.iter().map(|slot| part(slot, range.clone())).collect(),
        };
        let layers = self.core.recipe.shape.layers().into_iter();
        let ranges = layers.flat_map(|layer| [layer.weights, layer.biases]);
        self.core.variables = self.host.run(|| Ok(ranges.map(variable).collect()))?;
        self.core.step = state.step;
        Ok(())
    }
}

impl Core {
    /// One step on the images at `batch` of `order`: forward, backward by autodiff, update.
    fn train_step(&mut self, order: &StepsOrder, batch: Range<usize>) {
        let b = batch.len();
        let TensorBatch { pixels, labels } = self.source.batch(order, batch, self.recipe.shape.inputs(), &self.device);
        let leaves: Vec<Tensor<1>> =
            self.variables.iter().map(|variable| variable.value.clone().autodiff().require_grad()).collect();

        let logits = self.forward(&leaves, pixels.autodiff(), Some(self.step)); // (B,K)
        let right = logits.clone().inner().argmax(1).equal(labels.clone());
        let logarithms = activation::log_softmax(logits, 1);
        let loss_sum = self.loss_sum(logarithms.clone(), labels.clone().autodiff());
        let mut gradients = (self.kept_loss_sum(logarithms, labels, &loss_sum) / b as f32).backward();

        self.step += 1;
        for (variable, leaf) in self.variables.iter_mut().zip(leaves) {
            if let Some(gradient) = leaf.grad_remove(&mut gradients) {
                variable.update(&self.recipe.optimizer, self.step, gradient);
            }
        }
        let sums = [loss_sum.inner(), right.float().sum()];
        self.pending = Some(match self.pending.take() {
            None => sums,
            Some([loss, correct]) => [loss + sums[0].clone(), correct + sums[1].clone()],
        });
    }

    /// Logits (B,K) of `pixels` (B,D). With `dropout_step`, units are dropped as in that step.
    fn forward(&self, variables: &[Tensor<1>], pixels: Tensor<2>, dropout_step: Option<u64>) -> Tensor<2> {
        let layers = self.recipe.shape.layers();
        let last = layers.len() - 1;
        let (b, device) = (pixels.dims()[0], pixels.device());
        let mut a = pixels;
        for (l, (layer, pair)) in layers.iter().zip(variables.chunks_exact(2)).enumerate() {
            let weights: Tensor<2> = pair[0].clone().reshape([layer.inputs, layer.outputs]);
            let biases: Tensor<2> = pair[1].clone().reshape([1, layer.outputs]);
            a = a.matmul(weights) + biases;
            if l == last {
                break;
            }
            a = activation::relu(a);
            if let Some(step) = dropout_step.filter(|_| self.recipe.dropout > 0.0) {
                let mask = DropoutMask::new(self.recipe.seed, step, l, self.recipe.dropout);
                let scale = dropout::scale(self.recipe.dropout) as f32;
                let units = 0..(b * layer.outputs) as u32;
                let scales: Vec<f32> = units.map(|unit| if mask.keeps(unit) { scale } else { 0.0 }).collect();
                a = a * Tensor::from_data(TensorData::new(scales, [b, layer.outputs]), &device);
            }
        }
        a
    }

    /// The sum of the losses, with smoothed labels, of images with these logarithms of probabilities (B,K) and labels (B,1).
    fn loss_sum(&self, logarithms: Tensor<2>, labels: Tensor<2, Int>) -> Tensor<1> {
        let (smoothing, classes) = (self.recipe.label_smoothing, self.recipe.shape.classes());
        let of_labels = logarithms.clone().gather(1, labels).sum();
        if smoothing == 0.0 {
            return -of_labels;
        }
        -(of_labels * (1.0 - smoothing) + logarithms.sum() * (smoothing / classes as f64))
    }

    /// The sum by whose gradient the network learns: `loss_sum` without the images that `skip_confident` leaves out.
    fn kept_loss_sum(&self, logarithms: Tensor<2>, labels: Tensor<2, Int>, loss_sum: &Tensor<1>) -> Tensor<1> {
        if self.recipe.skip_confident == 0.0 {
            return loss_sum.clone();
        }
        let probabilities = logarithms.clone().inner().gather(1, labels.clone()).exp();
        let kept = probabilities.lower_elem(self.recipe.skip_confident).float();
        self.loss_sum(logarithms * kept.autodiff(), labels.autodiff())
    }

    /// The sums of loss and of right answers since this was last called; waits for the device.
    fn read_losses(&mut self) -> Result<[f64; 2]> {
        let Some([loss, correct]) = self.pending.take() else { return Ok([0.0; 2]) };
        Ok([numbers(loss)?[0].into(), numbers(correct)?[0].into()])
    }
}

impl Variable {
    /// One step by its gradient `g`, in place where nobody else holds the tensors.
    fn update(&mut self, settings: &OptimizerSettings, step: u64, g: Tensor<1>) {
        let w = self.value.extract();
        self.value = settings.update_tensor(step, w, &mut self.slots, g);
    }
}

/// A tensor's values, row by row; waits for the device.
fn numbers<const R: usize>(tensor: Tensor<R>) -> Result<Vec<f32>> {
    tensor.try_into_vec_as::<f32>().map_err(|problem| Error::Device { problem: one_line(&problem.to_string()) })
}

/// The instructions that `gemm` picks at run time: it computes flex's matrix products.
fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") { "avx2+fma" } else { "sse2" }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}
