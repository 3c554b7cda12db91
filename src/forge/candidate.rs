//! From source files to an ordered list of bugs that could be planted. Pure: the
//! same files, recipe and package give the same list.

use super::edit::{Edit, LineChange, line_change, unified_diff};
use super::modifiers;
use super::recipe::ForgeRecipe;
use super::syntax::{Source, entities};
use gametape_schemas::{Digest, PinnedPackage, Split, TaskId};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeSet;

/// One file of the package's own code.
pub struct CodeFile {
    /// Path relative to the repository.
    pub path: String,
    /// The parsed text.
    pub source: Source,
}

/// How tasks of a package are divided.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Division {
    /// Every task is held out.
    HeldOut,
    /// Functions go to `Explore` with this probability, else to `Train`.
    Explore(f64),
}

/// A bug that could be planted, not yet written out.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidate {
    /// SWE-smith's modifier id.
    pub modifier: &'static str,
    /// Position in the list of files.
    pub file: usize,
    /// Qualified name of the function.
    pub entity: String,
    /// First and last line of the function in the clean file.
    pub lines: (usize, usize),
    /// The change.
    pub edit: Edit,
    /// The changed lines.
    pub change: LineChange,
    /// Which side the function is on.
    pub split: Split,
}

/// A candidate written out.
#[derive(Clone, PartialEq, Debug)]
pub struct Mutant {
    /// Name of the task that it may become.
    pub id: TaskId,
    /// The file with the bug.
    pub text: String,
    /// Diff from the clean file to the bug.
    pub bug_patch: String,
    /// Diff from the bug to the clean file.
    pub gold_patch: String,
}

/// All candidates of a package within the recipe's limits, in the order in which they
/// are tried.
pub fn candidates(
    files: &[CodeFile],
    package: &PinnedPackage,
    recipe: &ForgeRecipe,
    division: Division,
) -> Vec<Candidate> {
    let mut rng = seeded(recipe.seed, package, "order");
    let mut keyed = Vec::new();
    for (index, file) in files.iter().enumerate() {
        for entity in entities(&file.source) {
            if entity.lines() > recipe.max_entity_lines
                || entity.range.len() > recipe.max_entity_chars
            {
                continue;
            }
            let split = side(recipe.seed, package, &file.path, &entity.name, division);
            let mut seen = BTreeSet::new();
            for modifier in modifiers::ALL {
                let weight = recipe.modifiers.get(modifier.id).copied().unwrap_or(0.0);
                if weight <= 0.0 {
                    continue;
                }
                for edit in modifier.edits(&file.source, &entity) {
                    if !seen.insert(edit.clone()) {
                        continue;
                    }
                    let Some(change) = local_change(&file.source, &edit) else {
                        continue;
                    };
                    if change.size() == 0 || change.size() > recipe.max_changed_lines {
                        continue;
                    }
                    // A weighted shuffle (Efraimidis and Spirakis, 2006): sorting by
                    // -ln(u)/weight draws without replacement in proportion to weight.
                    let u: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
                    keyed.push((
                        -u.ln() / weight,
                        Candidate {
                            modifier: modifier.id,
                            file: index,
                            entity: entity.name.clone(),
                            lines: (entity.first_line, entity.last_line),
                            edit,
                            change,
                            split,
                        },
                    ));
                }
            }
        }
    }
    // Stable: equal keys keep the order of the source.
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
    keyed.into_iter().map(|(_, candidate)| candidate).collect()
}

/// Writes a candidate out. `None` when the result does not parse: the edit was wrong
/// for its surroundings.
pub fn write_out(
    candidate: &Candidate,
    file: &CodeFile,
    package: &PinnedPackage,
) -> Option<Mutant> {
    let clean = file.source.text();
    let text = candidate.edit.apply(clean)?;
    Source::parse(text.as_str())?;
    let bug_patch = unified_diff(&file.path, clean, &text);
    let gold_patch = unified_diff(&file.path, &text, clean);
    let digest = Digest::of_bytes(bug_patch.as_bytes());
    let hash = digest.0.get(..8).unwrap_or(&digest.0);
    Some(Mutant {
        id: TaskId::new(format!(
            "{}.{}.{}__{hash}",
            package.name, package.version, candidate.modifier
        )),
        text,
        bug_patch,
        gold_patch,
    })
}

/// Random numbers that depend on the seed, the package and what they are for.
pub fn seeded(seed: u64, package: &PinnedPackage, purpose: &str) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(hash(&[
        &seed.to_string(),
        &package.name,
        &package.version,
        purpose,
    ]))
}

fn hash(parts: &[&str]) -> [u8; 32] {
    // The digest's text is hexadecimal: two characters a byte.
    let digest = Digest::of_bytes(parts.join("\n").as_bytes());
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digest.0.as_bytes().chunks(2)) {
        *byte = std::str::from_utf8(pair)
            .ok()
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .unwrap_or(0);
    }
    bytes
}

/// The side of a function: a function is wholly on one side.
fn side(seed: u64, package: &PinnedPackage, path: &str, entity: &str, division: Division) -> Split {
    match division {
        Division::HeldOut => Split::HeldOut,
        Division::Explore(share) => {
            let purpose = format!("split {path} {entity}");
            if seeded(seed, package, &purpose).random_bool(share.clamp(0.0, 1.0)) {
                Split::Explore
            } else {
                Split::Train
            }
        }
    }
}

/// The changed lines, from the lines that the edit touches.
fn local_change(source: &Source, edit: &Edit) -> Option<LineChange> {
    let start = source.line_start(edit.start);
    // An edit that ends with a newline touches no line after it.
    let end = if edit.end > edit.start && source.slice(edit.end - 1..edit.end) == "\n" {
        edit.end
    } else {
        source.line_end(edit.end)
    };
    let old = source.slice(start..end);
    let local = Edit {
        start: edit.start - start,
        end: edit.end - start,
        replacement: edit.replacement.clone(),
    };
    Some(line_change(old, &local.apply(old)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
def low(a, b):
    if a < b:
        return a
    return b

def mean(items):
    total = 0
    for item in items:
        total += item
    return total / len(items) if items else 0

class Box:
    def size(self):
        return self.end - self.start + 1
";

    fn package() -> PinnedPackage {
        PinnedPackage {
            name: "box".to_owned(),
            version: "1.0".to_owned(),
            sha256: String::new(),
        }
    }

    fn files() -> Vec<CodeFile> {
        vec![CodeFile {
            path: "box.py".to_owned(),
            source: Source::parse(TEXT).unwrap(),
        }]
    }

    #[test]
    fn the_order_depends_on_seed_and_package_only() {
        let (files, recipe) = (files(), ForgeRecipe::default());
        let first = candidates(&files, &package(), &recipe, Division::HeldOut);
        assert!(first.len() > 15, "{}", first.len());
        assert_eq!(
            first,
            candidates(&files, &package(), &recipe, Division::HeldOut)
        );
        let other = ForgeRecipe { seed: 25, ..recipe };
        assert_ne!(
            first,
            candidates(&files, &package(), &other, Division::HeldOut)
        );
    }

    #[test]
    fn limits_hold_and_patches_reverse_each_other() {
        let (files, mut recipe) = (files(), ForgeRecipe::default());
        recipe.max_changed_lines = 1;
        let found = candidates(&files, &package(), &recipe, Division::Explore(0.5));
        let mut ids = BTreeSet::new();
        for candidate in &found {
            assert_eq!(candidate.change.size(), 1);
            let mutant = write_out(candidate, &files[0], &package()).unwrap();
            assert_eq!(
                candidate.change,
                line_change(TEXT, &mutant.text),
                "local and whole change agree"
            );
            assert!(ids.insert(mutant.id.clone()), "ids are unique");
            assert!(mutant.id.as_str().starts_with("box.1.0.func_pm_"));
            assert_eq!(
                mutant.bug_patch.matches("\n+").count(),
                mutant.gold_patch.matches("\n-").count()
            );
        }
        recipe.max_entity_lines = 3;
        let short = candidates(&files, &package(), &recipe, Division::HeldOut);
        assert!(short.iter().all(|c| c.entity == "Box.size"));
    }

    #[test]
    fn a_function_is_wholly_on_one_side() {
        let (files, recipe) = (files(), ForgeRecipe::default());
        for seed in 0..20 {
            let recipe = ForgeRecipe {
                seed,
                ..recipe.clone()
            };
            let found = candidates(&files, &package(), &recipe, Division::Explore(0.5));
            for name in ["low", "mean", "Box.size"] {
                let sides: BTreeSet<_> = found
                    .iter()
                    .filter(|c| c.entity == name)
                    .map(|c| c.split)
                    .collect();
                assert_eq!(sides.len(), 1);
            }
        }
    }

    #[test]
    fn weights_pull_candidates_forward() {
        let files = files();
        let mut recipe = ForgeRecipe::default();
        for (id, weight) in &mut recipe.modifiers {
            *weight = if id == "func_pm_op_change" { 1e6 } else { 1e-6 };
        }
        let found = candidates(&files, &package(), &recipe, Division::HeldOut);
        let wanted = found
            .iter()
            .filter(|c| c.modifier == "func_pm_op_change")
            .count();
        assert!(wanted > 2);
        assert!(
            found[..wanted]
                .iter()
                .all(|c| c.modifier == "func_pm_op_change")
        );
    }
}
