//! The networks of an ensemble that a GPU trains together against each of them alone.

use mnist::engine::ensemble::Ensemble;
use mnist::engine::fused_gpu::FusedGpuEngine;
use mnist::score::mean_of_answers;

use super::*;
use crate::common::any_adapter;

const MEMBERS: usize = 4;

/// Builds the fused engine on a GPU, of as many networks as the recipe has.
fn fused() -> Option<Build> {
    let adapter = any_adapter()?;
    Some(Box::new(move |recipe, train| Box::new(FusedGpuEngine::new(recipe, train, vec![adapter.clone()]).unwrap())))
}

/// Networks of one layer and of several, whose last layer is updated with another or by itself, and batches that several cubes
/// share out.
#[test]
fn networks_together_have_the_bits_of_each_alone() {
    let Some(build) = fused() else { return };
    for (inputs, hidden, batch) in [(33, &[40, 12][..], 21), (20, &[], 8), (50, &[30], 80), (170, &[33, 20], 1800)] {
        let shape = MlpShape::new(inputs, hidden, 10);
        let n = 2 * batch + 5;
        let data = images(&shape, n);
        let order: Vec<u32> = (0..n as u32).rev().collect();
        let recipe = Recipe { label_smoothing: 0.1, ..recipe(shape.clone(), optimizers()[0].1, batch, 0.4) };
        let all = Recipe { ensemble: MEMBERS, ..recipe };
        let train = |mut engine: Box<dyn Trainer>| {
            let first = engine.train_epoch(&order, &mut quiet).unwrap();
            let totals = [first, engine.train_epoch(&order, &mut quiet).unwrap()];
            (totals, engine.state().unwrap(), engine.parameters().unwrap(), engine.logits(&data.pixels).unwrap())
        };
        let together = train(build(all.clone(), data.clone()));
        let alone: Vec<_> = all.groups(1, 1).map(|recipe| train(build(recipe, data.clone()))).collect();
        let (totals, state, parameters, logits) = &together;
        for epoch in 0..2 {
            assert_eq!(
                totals[epoch],
                EpochTotals::mean(&alone.iter().map(|(totals, ..)| totals[epoch]).collect::<Vec<_>>())
            );
        }
        let concat = |part: fn(&TrainingState) -> &[f32]| -> Vec<f32> {
            alone.iter().flat_map(|(_, state, ..)| part(state)).copied().collect()
        };
        assert!(state.parameters == concat(|state| &state.parameters) && state.parameters == *parameters, "{hidden:?}");
        assert!(state.slots[0] == concat(|state| &state.slots[0]), "{hidden:?}");
        assert!(state.slots[1] == concat(|state| &state.slots[1]), "{hidden:?}");
        let answers: Vec<_> = alone.iter().map(|(.., logits)| logits.clone()).collect();
        assert!(*logits == mean_of_answers(&answers, 10) && answers[0] != answers[1], "{hidden:?}");

        // Two groups of two are the same four.
        let groups = all.groups(2, 1).map(|recipe| build(recipe, data.clone())).collect();
        let (_, grouped, ..) = train(Box::new(Ensemble::new(groups, 1, 10)));
        assert!(grouped == *state, "{hidden:?}");
    }
}

#[test]
fn networks_together_go_on_from_their_state() {
    let Some(build) = fused() else { return };
    let shape = MlpShape::new(30, &[17], 3);
    let data = images(&shape, 40);
    let order: Vec<u32> = (0..40).collect();
    let recipe = Recipe { ensemble: 3, ..recipe(shape, optimizers()[0].1, 8, 0.2) };
    let mut engine = build(recipe.clone(), data.clone());
    engine.train_epoch(&order, &mut quiet).unwrap();
    let state = engine.state().unwrap();
    let mut other = build(recipe, data);
    other.load_state(&state).unwrap();
    let next = |engine: &mut dyn Trainer| {
        engine.train_epoch(&order, &mut quiet).unwrap();
        engine.state().unwrap()
    };
    let expected = next(&mut *engine);
    assert!(next(&mut *other) == expected && expected.parameters != state.parameters);
}

/// As many as have place, in groups of one size.
#[test]
fn a_gpu_trains_as_many_networks_together_as_have_place_in_its_buffers() {
    let Some(adapter) = any_adapter() else { return };
    let together = |hidden: &[usize], ensemble: usize, gpus: usize| {
        let recipe = recipe(MlpShape::new(784, hidden, 10), optimizers()[0].1, 32, 0.2);
        let adapters = vec![adapter.clone(); gpus];
        FusedGpuEngine::together(&Recipe { ensemble, ..recipe }, 60_000, &adapters).unwrap()
    };
    assert_eq!([together(&[128], 7, 1), together(&[128], 7, 2)], [7, 1]);
    // Some 400 MB for each.
    let [all_or_one, groups] = [97, 96].map(|ensemble| together(&[8192, 4096], ensemble, 1));
    assert!([1, 97].contains(&all_or_one) && 96 % groups == 0, "{all_or_one}, {groups}");
}
