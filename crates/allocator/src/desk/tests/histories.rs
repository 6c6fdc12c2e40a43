//! Random histories. `PROPTEST_CASES` says how many.

use proptest::prelude::*;

use super::{
    spec::{GROUPS, NAMES, any_spec},
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
        2 => name().prop_map(Step::Delete),
        1 => name().prop_map(Step::Touch),
        8 => (1_usize..6).prop_map(Step::Watch),
        1 => Just(Step::List),
        12 => Just(Step::Decide),
        10 => (name(), fate).prop_map(|(name, fate)| Step::Send(name, fate)),
        10 => name().prop_map(Step::Answer),
        1 => Just(Step::Late),
        2 => Just(Step::Pauses),
        1 => Just(Step::Restart),
        1 => (0..GROUPS).prop_map(Step::Groups),
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_address_has_one_owner_and_nobody_waits_in_vain_whatever_happens(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        run(&steps).map_err(TestCaseError::fail)?;
    }
}
