//! The machine's highest rates, to compare the fused engine's step with: as one JSON object.
//!
//! `cargo bench --features bench --bench limits -- DATA_DIR` also counts the work in a step on MNIST, and trains epochs of the
//! default network in turns with measuring the rates. Rates are the highest of several runs, since other programs on the same
//! processor can only lower them. Those of a turn are of the same moment as its epoch, so that both are lowered alike. The
//! fastest steps of many epochs are the counterpart of the highest rates.

#![expect(unsafe_code, reason = "gemm takes pointers")]
#![expect(clippy::print_stdout, reason = "the figures are the output")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mnist::data::augment::{Augmentation, Elastic, Warper};
use mnist::data::dataset::{Dataset, Images, epoch_order};
use mnist::engine::fused::FusedEngine;
use mnist::engine::{Network, Recipe, Trainer};
use mnist::optim::vectors::{BlockUpdate, StepRule};
use mnist::optim::{OptimizerKind, OptimizerOptions, Schedule};
use mnist::parameters::Parameters;
use mnist::simd::{Block, InstructionSet, Job, LANES, Simd};
use serde_json::{Value, json};

/// A rate is the highest of so many runs.
const RUNS: usize = 15;

/// The same for a rate within a turn.
const RUNS_IN_A_TURN: usize = 3;

/// Turns of rates and an epoch.
const TURNS: usize = 25;

/// Steps in a row that are timed together, with the start of their threads: so few that others often leave the processor
/// alone. After as many, all weights are brought up to date in any training.
const IN_A_ROW: usize = 128;

/// Epochs that are timed so.
const EPOCHS_OF_ROWS: usize = 40;

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let set = InstructionSet::choose().expect("an instruction set");
    // One, the two of the records, and all.
    let teams: BTreeSet<usize> = [1, 2, threads].into_iter().filter(|&team| team <= threads).collect();
    let all_rates = teams.iter().map(|&threads| {
        let mut rates = rates(threads, set, RUNS);
        rates["gemm_fma_per_s"] = matrix_product(threads).into();
        rates
    });
    let all_rates: Vec<_> = all_rates.collect();
    let augmentation: Vec<_> = teams.iter().map(|&threads| augmentation(threads, set)).collect();
    let mut figures = json!({ "instruction_set": set.name(), "rates": all_rates, "augmentation": augmentation });
    if let Some(data_dir) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) {
        let train = Arc::new(Dataset::load(Path::new(&data_dir)).expect("the data set").train);
        figures["step"] = step_of_mnist(&train, 32, 128);
        figures["turns"] = turns(&train, &teams, set).into();
        figures["undisturbed"] = undisturbed(&train, &teams, set);
    }
    println!("{figures}");
}

/// The rates of `threads` threads.
fn rates(threads: usize, set: InstructionSet, runs: usize) -> Value {
    json!({
        "threads": threads,
        "fma_per_s": together(threads, runs, || set.run(MultiplyAdds)),
        "cached_fma_per_s": together(threads, runs, || set.run(CachedMultiplyAdds)),
        "adam_per_s": together(threads, runs, || set.run(AdamUpdates)),
        "l2_bytes_per_s": together(threads, runs, || set.run(ReadWrite)),
    })
}

/// The default network for teams of so many threads.
fn engines(train: &Arc<Images>, teams: &BTreeSet<usize>, set: InstructionSet) -> Vec<(usize, FusedEngine)> {
    let engine = |&threads: &usize| {
        let recipe = Recipe { threads, fewer_threads: false, ..Parameters::default().recipe(train) };
        let engine = FusedEngine::new(recipe, train.clone(), set).expect("a network");
        (engine.info().threads, engine)
    };
    teams.iter().map(engine).collect()
}

/// The rates, and the seconds of an epoch of the default network right after: with each of `teams`, in turns.
fn turns(train: &Arc<Images>, teams: &BTreeSet<usize>, set: InstructionSet) -> Vec<Value> {
    let mut engines = engines(train, teams, set);
    let mut turns = vec![];
    for turn in 0..=TURNS {
        let order = epoch_order(42, turn as u64, train.len());
        for (threads, engine) in &mut engines {
            let mut figures = rates(*threads, set, RUNS_IN_A_TURN);
            let begin = Instant::now();
            engine.train_epoch(&order, &mut |_| Ok(())).expect("an epoch");
            figures["epoch_seconds"] = begin.elapsed().as_secs_f64().into();
            // The first one finds out how long a round of steps is.
            if turn > 0 {
                turns.push(figures);
            }
        }
    }
    turns
}

/// The seconds of a step, by the fastest [`IN_A_ROW`] of many, and the highest rates, with each of `teams`.
fn undisturbed(train: &Arc<Images>, teams: &BTreeSet<usize>, set: InstructionSet) -> Value {
    let mut engines = engines(train, teams, set);
    let mut fastest = vec![f64::INFINITY; engines.len()];
    for epoch in 0..EPOCHS_OF_ROWS as u64 {
        let order = epoch_order(42, epoch, train.len());
        for ((_, engine), fastest) in engines.iter_mut().zip(&mut fastest) {
            for images in order.chunks_exact(32 * IN_A_ROW) {
                let begin = Instant::now();
                engine.train_epoch(images, &mut |_| Ok(())).expect("some steps");
                *fastest = begin.elapsed().as_secs_f64().min(*fastest);
            }
        }
    }
    let teams = engines.iter().zip(fastest).map(|((threads, _), seconds)| {
        let mut figures = rates(*threads, set, RUNS);
        figures["seconds"] = (seconds / IN_A_ROW as f64).into();
        figures
    });
    json!({ "steps": IN_A_ROW, "epochs": EPOCHS_OF_ROWS, "teams": teams.collect::<Vec<_>>() })
}

/// Runs `work`, which returns a rate, on `threads` threads at once. Returns the sum of their rates: the highest of `runs`.
fn together(threads: usize, runs: usize, work: impl Fn() -> f64 + Sync) -> f64 {
    let run = || {
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
            others.into_iter().map(|other| other.join().expect("no panic")).sum()
        })
    };
    highest((0..runs).map(|_| run()))
}

fn highest(rates: impl Iterator<Item = f64>) -> f64 {
    rates.fold(0.0, f64::max)
}

/// Images a second that are distorted by the default parameters of each kind.
fn augmentation(threads: usize, set: InstructionSet) -> Value {
    const IMAGES: u64 = 10_000;
    let all = Augmentation::DEFAULT;
    let (affine, elastic) = (
        Augmentation { elastic: Elastic { alpha: 0.0, ..all.elastic }, ..all },
        Augmentation { rotation: 0.0, scale: 0.0, shear: 0.0, shift: 0.0, ..all },
    );
    let rate = |augmentation: Augmentation| {
        let warper = Warper::new(augmentation, 28, 42, set);
        together(threads, RUNS, || {
            let (mut scratch, original, mut to) = (warper.scratch(), [100; 784], [0; 784]);
            let begin = Instant::now();
            for index in 0..IMAGES {
                warper.warp(black_box(&original), 1, index, &mut scratch, &mut to);
                black_box(&to);
            }
            IMAGES as f64 / begin.elapsed().as_secs_f64()
        })
    };
    json!({ "threads": threads, "affine": rate(affine), "elastic": rate(elastic), "both": rate(all) })
}

/// Multiply-adds in registers: their rate, in single numbers per second.
struct MultiplyAdds;

impl Job for MultiplyAdds {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        // Enough sums to hide the latency of a multiply-add, 4 cycles at two a cycle, and few enough for the registers.
        if S::REGISTERS >= 32 { multiply_adds::<S, 12>(s) } else { multiply_adds::<S, 6>(s) }
    }
}

#[inline(always)]
fn multiply_adds<S: Simd, const SUMS: usize>(s: S) -> f64 {
    const STEPS: usize = 200_000;
    let (factor, term) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
    let mut sums = [s.splat(black_box(1.0)); SUMS];
    let begin = Instant::now();
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = s.mul_add(*sum, factor, term);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    sums.into_iter().for_each(|sum| {
        black_box(s.sum(sum));
    });
    (STEPS * SUMS * LANES) as f64 / seconds
}

/// Multiply-adds as the first layer needs them: a number times a row of 64 columns, all in the first-level cache. Their rate, in
/// single numbers per second.
struct CachedMultiplyAdds;

impl Job for CachedMultiplyAdds {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        const WIDTH: usize = 4;
        const ROWS: usize = 64;
        const STEPS: usize = 20_000;
        let rows = vec![[Block([0.5; LANES]); WIDTH]; ROWS];
        let factors = [0.001; ROWS];
        let mut sums = [[s.splat(0.0); WIDTH]; 2];
        let begin = Instant::now();
        for _ in 0..STEPS {
            for (rows, factors) in
                black_box(&rows).as_chunks::<2>().0.iter().zip(black_box(&factors).as_chunks::<2>().0)
            {
                for n in 0..2 {
                    let factor = s.splat(factors[n]);
                    for j in 0..WIDTH {
                        sums[n][j] = s.mul_add(factor, s.load(&rows[n][j]), sums[n][j]);
                    }
                }
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        sums.into_iter().flatten().for_each(|sum| {
            black_box(s.sum(sum));
        });
        (STEPS * ROWS * WIDTH * LANES) as f64 / seconds
    }
}

/// Adam on weights, moments and gradients in the first-level cache: the rate in parameters per second.
struct AdamUpdates;

impl Job for AdamUpdates {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        const BLOCKS: usize = 64;
        const STEPS: usize = 10_000;
        let kind = OptimizerKind::Adam;
        let settings = kind.settings(Schedule::constant(kind.default_learning_rate()), &OptimizerOptions::default());
        let rule = StepRule::new(&settings, 1000);
        let rule = rule.adam().expect("Adam's rule");
        let mut memory = [[Block([0.01; LANES]); BLOCKS]; 3];
        let gradient = [Block([0.001; LANES]); BLOCKS];
        let begin = Instant::now();
        for _ in 0..STEPS {
            let [weights, first, second] = black_box(&mut memory);
            rule.apply(s, weights, [first, second], black_box(&gradient));
        }
        (STEPS * BLOCKS * LANES) as f64 / begin.elapsed().as_secs_f64()
    }
}

/// Reads and writes 256 KB, too much for the first-level cache: the rate in bytes per second, read and written.
struct ReadWrite;

impl Job for ReadWrite {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        const BLOCKS: usize = 256 * 1024 / size_of::<Block>();
        const STEPS: usize = 2_000;
        let mut blocks = vec![Block([1.0; LANES]); BLOCKS];
        let factor = s.splat(black_box(0.999));
        let begin = Instant::now();
        for _ in 0..STEPS {
            for block in black_box(&mut blocks[..]) {
                s.store(s.mul(s.load(block), factor), block);
            }
        }
        (2 * STEPS * BLOCKS * size_of::<Block>()) as f64 / begin.elapsed().as_secs_f64()
    }
}

/// The rate of `gemm` on (512,1024) x (1024,1024), in multiply-adds per second.
fn matrix_product(threads: usize) -> f64 {
    const M: usize = 512;
    const N: usize = 1024;
    let (a, b) = (vec![0.5f32; M * N], vec![0.25f32; N * N]);
    let mut c = vec![0.0f32; M * N];
    let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    let mut run = || {
        let begin = Instant::now();
        // SAFETY: the pointers are to column-major matrices of exactly these sizes, and c overlaps neither a nor b.
        unsafe {
            let (m, n) = (M as isize, N as isize);
            let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
            gemm::gemm(M, N, N, c, m, 1, true, a, m, 1, b, n, 1, 0.0, 1.0, false, false, false, parallelism);
        }
        (M * N * N) as f64 / begin.elapsed().as_secs_f64()
    };
    run();
    highest((0..3 * RUNS).map(|_| run()))
}

/// The work in a step, on average over the batches of the first epoch.
///
/// The keys keep the names that they have in the records of earlier runs: `lit` is nonzero, `woken` is caught up.
fn step_of_mnist(train: &Images, batch: usize, hidden: usize) -> Value {
    let d = train.inputs();
    let order = epoch_order(42, 0, train.len());
    let batches: Vec<&[u32]> = order.chunks_exact(batch).collect();
    let (mut nonzero, mut nonzero_in_any, mut caught_up) = (0, 0, 0);
    let mut before = vec![true; d];
    for batch in &batches {
        let mut now = vec![false; d];
        for &image in *batch {
            let pixels = train.image(image as usize);
            nonzero += pixels.iter().filter(|&&pixel| pixel > 0).count();
            now.iter_mut().zip(pixels).for_each(|(now, &pixel)| *now |= pixel > 0);
        }
        nonzero_in_any += now.iter().filter(|&&now| now).count();
        caught_up += now.iter().zip(&before).filter(|&(&now, &before)| now && !before).count();
        before = now;
    }
    let per_step = |count: usize| count as f64 / batches.len() as f64;
    let (h, k) = (hidden as f64, train.classes.len() as f64);
    // Operations on single numbers, a multiply-add counted as one. Adam: 12 for a parameter, 16 for one that catches
    // up.
    let products = 2.0 * per_step(nonzero) * h + 3.0 * batch as f64 * h * k;
    let (updated, caught_up_weights) = (per_step(nonzero_in_any) * h + h + h * k + k, per_step(caught_up) * h);
    let updates = 12.0 * updated + 16.0 * caught_up_weights;
    // Weight and moments are read and written, and the weight is read once more in the forward pass.
    let bytes = 4.0 * h * (7.0 * per_step(nonzero_in_any) + 6.0 * per_step(caught_up));
    json!({
        "batch": batch,
        "hidden": hidden,
        "steps_per_epoch": train.len().div_ceil(batch),
        "lit_pixels_per_image": per_step(nonzero) / batch as f64,
        "pixels_lit_in_any": per_step(nonzero_in_any),
        "pixels_woken": per_step(caught_up),
        "operations": products + updates,
        "products": products,
        // As many as take Adam as long.
        "updates": updates / 12.0,
        "l2_bytes": bytes,
    })
}
