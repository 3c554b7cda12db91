//! Which tasks of one set are in another, so that nothing is trained on what it is
//! measured with.
//!
//! Two tasks overlap if they have the same name, base commit, pull request, gold patch or
//! place of a planted bug, or if their statements share a run of words. Runs of 13 words
//! are common practice since GPT-3's check of its training data (arXiv 2005.14165,
//! appendix C). A single run is what tracebacks and forms share too, so a share of the
//! shorter statement's runs is asked for. Text that many tasks of a set share (templates of issues, of forges) says
//! nothing about a single one, and is left out by how many tasks have it.
//!
//! Tasks with **planted** bugs (forged here, SWE-smith) share their repository and commit
//! by design, and their statements come from templates. Between two of them neither
//! counts: the place of the bug and the patch do.
//!
//! - [`entry`]: what of a task is compared
//! - [`words`]: runs of words as numbers
//! - [`refuse`](fn@refuse): for who trains

pub mod entry;
mod refuse;
pub mod words;

pub use entry::Entry;
pub use refuse::refuse;

use serde::Serialize;
use std::collections::HashMap;
use std::fmt;

/// What counts.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Options {
    /// Words in a run. Default: 13.
    pub ngram: usize,
    /// A run that more than this share of a set's tasks have is a template's. Default: 0.01.
    pub common_share: f64,
    /// In a small set: a run that more than this many tasks have. Default: 3.
    pub common_least: usize,
    /// Share of the shorter statement's runs that both must have. Default: 0.3. With a
    /// single run that counts (0), tracebacks and forms to be filled in make pairs of
    /// strangers: 30 between SWE-bench Verified and SWE-bench dev.
    pub least_share: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ngram: 13,
            common_share: 0.01,
            common_least: 3,
            least_share: 0.3,
        }
    }
}

impl Options {
    /// In more tasks than this, of a set of `size`, a run is a template's.
    fn common(&self, size: usize) -> usize {
        let share = (self.common_share.max(0.0) * size as f64) as usize;
        share.max(self.common_least)
    }
}

/// Why two tasks are held to be the same, or nearly.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Evidence {
    /// They have the same name.
    Id,
    /// They begin at the same commit.
    Commit {
        /// It, with the repository where it is shortened.
        commit: String,
    },
    /// They come from the same pull request.
    PullRequest {
        /// `owner/name#number`.
        pull: String,
    },
    /// Their gold patches change the same lines of the same files.
    Patch,
    /// Their bugs were planted in the same function.
    Place {
        /// Repository, file and entity.
        place: String,
    },
    /// Their statements share runs of words.
    Statement {
        /// How many.
        shared: usize,
        /// Of how many, in the shorter statement. Runs of templates count here.
        of: usize,
        /// One of them.
        example: String,
    },
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("same id"),
            Self::Commit { commit } => write!(f, "same base commit {commit}"),
            Self::PullRequest { pull } => write!(f, "same pull request {pull}"),
            Self::Patch => f.write_str("same gold patch"),
            Self::Place { place } => write!(f, "bug in the same place {place}"),
            Self::Statement {
                shared,
                of,
                example,
            } => write!(f, "{shared} of {of} runs of words shared: \"{example}\""),
        }
    }
}

/// Two tasks that overlap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Pair {
    /// Index in the first set.
    pub a: usize,
    /// Index in the second.
    pub b: usize,
    /// Why, the strongest first.
    pub evidence: Vec<Evidence>,
}

/// Every pair of a task of `a` and one of `b` that overlap, in the order of `a`, then
/// of `b`. The time it takes grows with the length of both sets and with what they share,
/// not with their product. Entries of both must have been made with `options.ngram`.
pub fn overlap(a: &[Entry], b: &[Entry], options: &Options) -> Vec<Pair> {
    // The index is over the smaller set.
    let swapped = a.len() < b.len();
    let (large, small) = if swapped { (b, a) } else { (a, b) };
    let mut found: Vec<Pair> = Vec::new();
    let keys = by_key(small);
    let grams = Grams::shared(large, small, options);
    for (at, entry) in large.iter().enumerate() {
        let mut here: HashMap<usize, Vec<Evidence>> = HashMap::new();
        for (key, evidence) in entry.keys() {
            for other in keys.get(&key).into_iter().flatten() {
                let counts = small.get(*other).is_some_and(|o| key.counts(entry, o));
                if counts {
                    here.entry(*other).or_default().push(evidence.clone());
                }
            }
        }
        for (other, shared) in grams.of(entry) {
            let Some(o) = small.get(other) else {
                continue;
            };
            let of = entry.grams.len().min(o.grams.len());
            let enough = shared.len() as f64 >= options.least_share * of as f64;
            if enough && !(entry.planted && o.planted) {
                let evidence = Evidence::Statement {
                    shared: shared.len(),
                    of,
                    example: shared
                        .first()
                        .map(|gram| words::text_of(&entry.words, options.ngram, *gram))
                        .unwrap_or_default(),
                };
                here.entry(other).or_default().push(evidence);
            }
        }
        found.extend(here.into_iter().map(|(other, evidence)| Pair {
            a: if swapped { other } else { at },
            b: if swapped { at } else { other },
            evidence,
        }));
    }
    found.sort_by_key(|pair| (pair.a, pair.b));
    found
}

fn by_key(set: &[Entry]) -> HashMap<entry::Key, Vec<usize>> {
    let mut out: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, entry) in set.iter().enumerate() {
        for (key, _) in entry.keys() {
            out.entry(key).or_default().push(at);
        }
    }
    out
}

/// Runs of words that tasks of both sets have, with those of the smaller one.
struct Grams(HashMap<u64, Vec<usize>>);

impl Grams {
    fn shared(large: &[Entry], small: &[Entry], options: &Options) -> Self {
        let mut index: HashMap<u64, Vec<usize>> = HashMap::new();
        for (at, entry) in small.iter().enumerate() {
            for gram in &entry.grams {
                index.entry(*gram).or_default().push(at);
            }
        }
        let mut counts: HashMap<u64, usize> = HashMap::new();
        for gram in large.iter().flat_map(|entry| &entry.grams) {
            if index.contains_key(gram) {
                *counts.entry(*gram).or_default() += 1;
            }
        }
        let (many, few) = (options.common(large.len()), options.common(small.len()));
        index.retain(|gram, tasks| {
            let count = counts.get(gram).copied().unwrap_or_default();
            (1..=many).contains(&count) && tasks.len() <= few
        });
        Self(index)
    }

    /// Tasks of the smaller set that share runs with this one, and which.
    fn of(&self, entry: &Entry) -> HashMap<usize, Vec<u64>> {
        let mut out: HashMap<usize, Vec<u64>> = HashMap::new();
        for gram in &entry.grams {
            for other in self.0.get(gram).into_iter().flatten() {
                out.entry(*other).or_default().push(*gram);
            }
        }
        out
    }
}

#[cfg(test)]
#[path = "overlap_tests.rs"]
mod tests;
