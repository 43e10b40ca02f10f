//! Where the training images stay, and where batches of them are put together.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::data::dataset::Images;
#[cfg(feature = "gpu")]
use crate::engine::pixel_words::pixel_words;

/// The training images.
pub enum ImageSource {
    /// In the host's memory; the host hands over each batch.
    Host(Arc<Images>),
    /// In the device's memory; the device needs only the order.
    #[cfg(feature = "gpu")]
    Device(Box<TensorImages>),
}

/// Which images make up some steps.
pub enum StepsOrder<'a> {
    /// In the host's memory.
    Host(&'a [u32]),
    /// In the device's memory.
    #[cfg(feature = "gpu")]
    Device(Box<Tensor<1, Int>>),
}

/// Pixels (B,D), from 0 to 1, and labels (B,1).
pub struct TensorBatch {
    pub pixels: Tensor<2>,
    pub labels: Tensor<2, Int>,
}

impl ImageSource {
    /// The `order` of some steps, where the images are.
    pub fn order<'a>(&self, order: &'a [u32], device: &Device) -> StepsOrder<'a> {
        match self {
            Self::Host(_) => {
                let _ = device;
                StepsOrder::Host(order)
            }
            #[cfg(feature = "gpu")]
            Self::Device(_) => {
                let images: Vec<i32> = order.iter().map(|&image| image as i32).collect();
                StepsOrder::Device(Box::new(Tensor::from_data(TensorData::new(images, [order.len()]), device)))
            }
        }
    }

    /// The batch of the images at `range` of `order`, with `inputs` (D) pixels each.
    pub fn batch(&self, order: &StepsOrder, range: Range<usize>, inputs: usize, device: &Device) -> TensorBatch {
        match (self, order) {
            (Self::Host(images), StepsOrder::Host(order)) => {
                let order = &order[range];
                let pixels = order.iter().flat_map(|&image| &images.pixels[image as usize * inputs..][..inputs]);
                let labels: Vec<i32> = order.iter().map(|&image| images.labels[image as usize].into()).collect();
                TensorBatch {
                    pixels: scaled(pixels, order.len(), inputs, device),
                    labels: Tensor::from_data(TensorData::new(labels, [order.len(), 1]), device),
                }
            }
            #[cfg(feature = "gpu")]
            (Self::Device(images), StepsOrder::Device(order)) => images.batch(order.as_ref().clone().slice([range])),
            #[cfg(feature = "gpu")]
            _ => unreachable!("an order comes from its own source"),
        }
    }
}

/// `pixels` of `images` images as a tensor (N,D), from 0 to 1.
pub fn scaled<'a>(pixels: impl Iterator<Item = &'a u8>, images: usize, inputs: usize, device: &Device) -> Tensor<2> {
    let scaled: Vec<f32> = pixels.map(|&pixel| f32::from(pixel) / 255.0).collect();
    Tensor::from_data(TensorData::new(scaled, [images, inputs]), device)
}

/// Images in the device's memory.
#[cfg(feature = "gpu")]
pub struct TensorImages {
    /// [`pixel_words`], (N,D/4), rounded up.
    words: Tensor<2, Int>,
    /// (N,1).
    labels: Tensor<2, Int>,
    /// How many bits to shift a word right, for each of its four pixels: (1,1,4).
    shifts: Tensor<3, Int>,
    /// D.
    inputs: usize,
}

#[cfg(feature = "gpu")]
impl TensorImages {
    /// Copies `images` of `inputs` (D) pixels each to `device`.
    pub fn new(images: &Images, inputs: usize, device: &Device) -> Self {
        let words: Vec<i32> = pixel_words(&images.pixels, inputs).map(|word| word as i32).collect();
        let labels: Vec<i32> = images.labels.iter().map(|&label| label.into()).collect();
        let n = images.len();
        Self {
            words: Tensor::from_data(TensorData::new(words, [n, inputs.div_ceil(4)]), device),
            labels: Tensor::from_data(TensorData::new(labels, [n, 1]), device),
            shifts: Tensor::from_data(TensorData::new(vec![0, 8, 16, 24], [1, 1, 4]), device),
            inputs,
        }
    }

    /// The batch of the images with these numbers (B).
    fn batch(&self, images: Tensor<1, Int>) -> TensorBatch {
        let words = self.words.clone().select(0, images.clone());
        let [b, per_image] = words.dims();
        let shape = [b, per_image, 4];
        let shifts = self.shifts.clone().expand(shape);
        let bytes = words.reshape([b, per_image, 1]).expand(shape).bitwise_right_shift(shifts).bitwise_and_scalar(255);
        let pixels = bytes.reshape([b, 4 * per_image]).slice([0..b, 0..self.inputs]);
        TensorBatch { pixels: pixels.float() / 255.0, labels: self.labels.clone().select(0, images) }
    }
}
