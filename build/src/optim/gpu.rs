//! A parameter and a step's numbers, as the optimizers' kernels take them.

use cubecl::prelude::*;

/// A parameter with its slots, in the registers of a GPU. Slots that the optimizer does not have are zero.
#[derive(CubeType)]
pub struct GpuParameter {
    pub w: f32,
    pub slot_0: f32,
    pub slot_1: f32,
}

/// The numbers of a step that kernels compute with.
#[derive(CubeType)]
pub struct GpuRates {
    /// The factor of every parameter before the update.
    pub decay: f32,
    /// The learning rate, or Adam's step size.
    pub rate: f32,
    pub momentum: f32,
}
