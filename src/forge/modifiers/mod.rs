//! SWE-smith's procedural modifiers, as pure functions from a function's source to
//! text edits: one edit per site (two where a site has two natural mutants).
//!
//! - [`operators`]: `func_pm_flip_operators`, `func_pm_op_change`, `func_pm_op_swap`,
//!   `func_pm_op_break_chains`
//! - [`constants`]: only `func_pm_op_change_const`
//! - [`control`]: `func_pm_ctrl_invert_if`, `func_pm_ctrl_shuffle`
//! - [`remove`]: `func_pm_remove_cond`, `func_pm_remove_loop`, `func_pm_remove_assign`,
//!   `func_pm_remove_wrapper`
//! - [`lines`]: how whole statements are cut out without touching their neighbours

pub mod constants;
pub mod control;
pub mod lines;
pub mod operators;
pub mod remove;

use super::edit::Edit;
use super::syntax::{Entity, Source};

/// A way to plant bugs.
#[derive(Clone, Copy)]
pub struct Modifier {
    /// SWE-smith's id.
    pub id: &'static str,
    /// Finds the sites; see [`Self::edits`].
    sites: fn(&Source, &Entity) -> Vec<Edit>,
}

impl Modifier {
    /// All edits it can make in an entity, in order of appearance. Those that change
    /// nothing (`a - a` swapped) are left out.
    pub fn edits(&self, source: &Source, entity: &Entity) -> Vec<Edit> {
        let mut edits = (self.sites)(source, entity);
        edits.retain(|edit| source.slice(edit.start..edit.end) != edit.replacement);
        edits
    }
}

/// Every modifier, in a fixed order. An edit that two of them make belongs to the
/// first.
pub const ALL: &[Modifier] = &[
    Modifier {
        id: "func_pm_flip_operators",
        sites: operators::flip,
    },
    Modifier {
        id: "func_pm_op_change",
        sites: operators::change,
    },
    Modifier {
        id: "func_pm_op_change_const",
        sites: constants::change_const,
    },
    Modifier {
        id: "func_pm_op_swap",
        sites: operators::swap,
    },
    Modifier {
        id: "func_pm_op_break_chains",
        sites: operators::break_chains,
    },
    Modifier {
        id: "func_pm_ctrl_invert_if",
        sites: control::invert_if,
    },
    Modifier {
        id: "func_pm_ctrl_shuffle",
        sites: control::shuffle,
    },
    Modifier {
        id: "func_pm_remove_cond",
        sites: remove::cond,
    },
    Modifier {
        id: "func_pm_remove_loop",
        sites: remove::loops,
    },
    Modifier {
        id: "func_pm_remove_assign",
        sites: remove::assign,
    },
    Modifier {
        id: "func_pm_remove_wrapper",
        sites: remove::wrapper,
    },
];

/// The modifier of that id. SWE-smith's ids are not uniform over languages, so
/// `func_pm_op_flip` is taken as `func_pm_flip_operators`.
pub fn by_id(id: &str) -> Option<&'static Modifier> {
    let id = if id == "func_pm_op_flip" {
        "func_pm_flip_operators"
    } else {
        id
    };
    ALL.iter().find(|modifier| modifier.id == id)
}

#[cfg(test)]
pub(crate) mod testing {
    //! Source in, sources out.

    use super::super::syntax::{Source, entities};
    use super::*;

    /// All mutants of the only function of `text` under a modifier.
    pub fn mutants(modifier: &str, text: &str) -> Vec<String> {
        let source = Source::parse(text).unwrap();
        let found = entities(&source);
        let entity = found.first().unwrap();
        by_id(modifier)
            .unwrap()
            .edits(&source, entity)
            .iter()
            .map(|edit| {
                let mutant = edit.apply(text).unwrap();
                assert!(
                    Source::parse(mutant.as_str()).is_some(),
                    "broken:\n{mutant}"
                );
                mutant
            })
            .collect()
    }

    /// Mutants of `def f(...):` with this one-line body, as bodies.
    pub fn body_mutants(modifier: &str, body: &str) -> Vec<String> {
        let head = "def f(a, b, c, d):\n    ";
        mutants(modifier, &format!("{head}{body}\n"))
            .iter()
            .map(|text| text.strip_prefix(head).unwrap().trim_end().to_owned())
            .collect()
    }
}
