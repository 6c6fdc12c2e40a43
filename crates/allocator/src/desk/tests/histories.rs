//! Random histories. `PROPTEST_CASES` says how many, `PROPTEST_RNG_SEED` repeats the ones of a run that has printed it.

use proptest::{
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};

use super::{
    spec::{GROUPS, LIVES, NAMES, any_key, any_spec},
    world::{Fate, Step, World},
};

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES;
    let fate = prop_oneof![
        8 => Just(Fate::Answered), 2 => Just(Fate::AnswerLost), 1 => Just(Fate::Lost), 1 => Just(Fate::Delayed),
        1 => Just(Fate::Conflict), 1 => Just(Fate::Refused), 1 => Just(Fate::Broken),
    ];
    prop_oneof![
        8 => (name(), any_spec()).prop_map(|(name, spec)| Step::Apply(name, spec)),
        6 => (name(), any_key(), 1_u8..4).prop_map(|(name, key, ports)| Step::Share(name, key, ports)),
        2 => name().prop_map(Step::Delete),
        1 => name().prop_map(Step::Touch),
        8 => (1_usize..6).prop_map(Step::Watch),
        1 => Just(Step::List),
        12 => Just(Step::Decide),
        4 => Just(Step::Calm),
        10 => (name(), fate).prop_map(|(name, fate)| Step::Send(name, fate)),
        10 => name().prop_map(Step::Answer),
        1 => Just(Step::Late),
        2 => Just(Step::Pauses),
        1 => Just(Step::Restart),
        2 => (0..GROUPS).prop_map(Step::Groups),
        1 => (0..LIVES).prop_map(Step::Live),
        8 => (name(), prop::bool::weighted(0.9)).prop_map(|(name, is_answered)| Step::Provide(name, is_answered)),
        1 => (1_i64..40).prop_map(Step::Later),
    ]
}

/// Runs a history to its end. What is wrong, if anything is.
pub(super) fn run(steps: &[Step]) -> Result<(), String> {
    let mut world = World::new();
    for (number, step) in steps.iter().enumerate() {
        world.run(step);
        world.check().map_err(|wrong| format!("after step {number}, {step:?}: {wrong}"))?;
    }
    world.check_settled()
}

/// So many unless `PROPTEST_CASES` says otherwise: no more than two seconds.
const CASES: u32 = 100;

#[test]
fn an_address_has_one_owner_and_nobody_loses_one_or_waits_in_vain_whatever_happens() {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => rand::random(),
    };
    println!("{} histories of PROPTEST_RNG_SEED={seed}", config.cases);
    let mut runner = TestRunner::new(ProptestConfig { rng_seed: RngSeed::Fixed(seed), ..config });
    let histories = prop::collection::vec(step(), 1..80);
    let outcome = runner.run(&histories, |steps| run(&steps).map_err(TestCaseError::fail));
    outcome.unwrap_or_else(|failure| panic!("PROPTEST_RNG_SEED={seed}: {failure}"));
}
