//! What a person decides about forging: weights, limits, numbers, seed.

use super::modifiers;
use gametape_schemas::{Failure, FailureKind, Split};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Knobs of the forge. Equal recipes on equal packages make equal tasks, whatever
/// the machine's speed or number of cores.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ForgeRecipe {
    /// Seed of the order of candidates, of the split and of the wording.
    pub seed: u64,
    /// Weight by modifier id: a candidate of weight 2 comes before one of weight 1 in
    /// two of three cases. Modifiers that are absent or have weight 0 are not used.
    pub modifiers: BTreeMap<String, f64>,
    /// At most this many tasks from one function (held-out: at most 2, whatever this
    /// says, so that no function carries the estimate).
    pub per_entity: u32,
    /// Give up on a package after this many candidates.
    pub max_candidates: u32,
    /// At most this many lines changed (removed or added, whichever is more).
    pub max_changed_lines: usize,
    /// Only functions of at most this many lines, decorators and docstring included.
    pub max_entity_lines: usize,
    /// Only functions of at most this many bytes.
    pub max_entity_chars: usize,
    /// At most this many test files run for a task: those that call the function most.
    pub max_test_files: usize,
    /// A run's time limit is this many times the clean run's …
    pub timeout_factor: f64,
    /// … plus this many milliseconds.
    pub timeout_extra_ms: u64,
    /// The same for a run in the screening driver, where no sandbox is opened.
    pub screen_extra_ms: u64,
    /// Candidates screened together. Part of the recipe, not of the machine: it
    /// decides which candidates are looked at.
    pub chunk: usize,
}

impl Default for ForgeRecipe {
    fn default() -> Self {
        let weights = [
            ("func_pm_flip_operators", 1.0),
            ("func_pm_op_change", 1.0),
            ("func_pm_op_change_const", 1.0),
            ("func_pm_op_swap", 1.0),
            ("func_pm_op_break_chains", 1.0),
            ("func_pm_ctrl_invert_if", 1.0),
            ("func_pm_ctrl_shuffle", 0.1),
            ("func_pm_remove_cond", 0.2),
            ("func_pm_remove_loop", 0.1),
            ("func_pm_remove_assign", 0.2),
            ("func_pm_remove_wrapper", 0.1),
        ];
        Self {
            seed: 24,
            modifiers: weights
                .iter()
                .map(|(id, weight)| ((*id).to_owned(), *weight))
                .collect(),
            per_entity: 4,
            max_candidates: 2_000,
            max_changed_lines: 4,
            max_entity_lines: 30,
            max_entity_chars: 1_200,
            max_test_files: 2,
            timeout_factor: 3.0,
            timeout_extra_ms: 5_000,
            screen_extra_ms: 2_000,
            chunk: 32,
        }
    }
}

impl ForgeRecipe {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// `GT-FORGE-RECIPE` names the first value that cannot be used.
    pub fn check(&self) -> Result<(), Failure> {
        let wrong = |what: String| {
            Err(
                Failure::new(FailureKind::Input, "GT-FORGE-RECIPE", what).with_help(format!(
                    "known modifiers: {}; weights are numbers from 0; limits are at least 1",
                    modifiers::ALL
                        .iter()
                        .map(|modifier| modifier.id)
                        .collect::<Vec<_>>()
                        .join(", ")
                )),
            )
        };
        for (id, weight) in &self.modifiers {
            if modifiers::by_id(id).is_none() {
                return wrong(format!("the forge recipe names an unknown modifier `{id}`"));
            }
            if !weight.is_finite() || *weight < 0.0 {
                return wrong(format!(
                    "the weight of `{id}` in the forge recipe is {weight}"
                ));
            }
        }
        if !self.modifiers.values().any(|weight| *weight > 0.0) {
            return wrong("no modifier of the forge recipe has a weight above 0".to_owned());
        }
        for (name, value) in [
            ("max_changed_lines", self.max_changed_lines),
            ("max_entity_lines", self.max_entity_lines),
            ("max_entity_chars", self.max_entity_chars),
            ("max_test_files", self.max_test_files),
            ("chunk", self.chunk),
            ("per_entity", self.per_entity as usize),
            ("max_candidates", self.max_candidates as usize),
        ] {
            if value == 0 {
                return wrong(format!("`{name}` of the forge recipe is 0"));
            }
        }
        if !self.timeout_factor.is_finite() || self.timeout_factor < 1.0 {
            return wrong(format!(
                "`timeout_factor` of the forge recipe is {}, below 1",
                self.timeout_factor
            ));
        }
        Ok(())
    }

    /// Time limit in milliseconds for a run whose clean one took `reference_ms`.
    pub fn timeout_ms(&self, reference_ms: u64) -> u64 {
        (reference_ms as f64 * self.timeout_factor) as u64 + self.timeout_extra_ms
    }

    /// The same for a run in the screening driver.
    pub fn screen_timeout_ms(&self, reference_ms: u64) -> u64 {
        (reference_ms as f64 * self.timeout_factor) as u64 + self.screen_extra_ms
    }

    /// How many tasks of one function a split may have.
    pub fn entity_cap(&self, split: Split) -> u32 {
        match split {
            Split::HeldOut => self.per_entity.min(2),
            Split::Train | Split::Explore => self.per_entity,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_sound_and_names_every_modifier() {
        let recipe = ForgeRecipe::default();
        recipe.check().unwrap();
        assert_eq!(recipe.modifiers.len(), modifiers::ALL.len());
        assert_eq!(recipe.timeout_ms(1_000), 8_000);
        assert_eq!(recipe.entity_cap(Split::HeldOut), 2);
    }

    #[test]
    fn wrong_values_are_named() {
        for (change, word) in [
            ("modifiers = { func_pm_typo = 1.0 }", "func_pm_typo"),
            ("modifiers = { func_pm_op_swap = -1.0 }", "func_pm_op_swap"),
            ("modifiers = {}", "no modifier"),
            ("chunk = 0", "chunk"),
            ("timeout_factor = 0.5", "timeout_factor"),
        ] {
            let recipe: ForgeRecipe = toml::from_str(change).unwrap();
            let failure = recipe.check().unwrap_err();
            assert!(failure.message.contains(word), "{failure}");
            assert_eq!(failure.code, "GT-FORGE-RECIPE");
        }
        assert!(
            toml::from_str::<ForgeRecipe>("sed = 1").is_err(),
            "unknown key"
        );
    }
}
