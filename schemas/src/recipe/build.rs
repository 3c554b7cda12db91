//! A recipe over a prefix of a tape.
//!
//! The tape is read once for the facts, and what was said is kept on the way as far as it
//! fits. Of attempts that did not fit the tape is read again: once for what filters ask of
//! their rows, and as often as it takes to hand the selected rows on in order, so many at a
//! time as fit. What is in memory is facts of all attempts, the steps of attempts that are
//! under way, and what [`Options`] allow: not the tape, and not the dataset. Cheap filters
//! belong first: they spare the work.

use super::built::{Built, BuiltRow, Stage, Summing, retain};
use super::facts::{AttemptFacts, Facts, Fold, Source};
use super::render::{Kept, Making, pairs};
use super::select::{self, ADMISSION, Candidate, Context};
use super::spec::{Filter, Given, Kind, Recipe};
use super::talk::Voice;
use crate::failure::Failure;
use crate::ids::TaskId;
use crate::overlap::{Entry, Options as OverlapOptions, overlap};
use crate::task::Split;
use std::collections::{BTreeMap, HashMap};

/// How a dataset is built; nothing here decides what is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of what was said that are kept when the tape is read first; 0 keeps nothing.
    pub keep_bytes: usize,
    /// Bytes of rows that are kept, and that are made at a time: at least those of one
    /// attempt, or of a pair.
    pub rows_bytes: usize,
    /// Whether rows are wanted with native calls, too.
    pub native: bool,
}

impl Default for Options {
    /// 128 MiB and 64 MiB, calls in the text.
    fn default() -> Self {
        Self {
            keep_bytes: 128 << 20,
            rows_bytes: 64 << 20,
            native: false,
        }
    }
}

/// Folds a recipe over a prefix, and keeps the rows.
///
/// # Errors
/// As [`each`].
pub fn build(
    given: &Given,
    source: &dyn Source,
    voice: &dyn Voice,
    options: Options,
) -> Result<Built, Failure> {
    let mut rows = Vec::new();
    let built = each(given, source, voice, options, &mut |row, _| {
        rows.push(row);
        Ok::<(), Failure>(())
    })?;
    Ok(Built { rows, ..built })
}

/// Who takes rows one by one, each with its JSON line.
pub type Sink<'a, E> = &'a mut dyn FnMut(BuiltRow, &[u8]) -> Result<(), E>;

/// Folds a recipe over a prefix, and hands its rows on in order, each with its JSON line.
///
/// # Errors
/// The source's, and those of whom the rows are handed to. An empty dataset is none here:
/// [`Built::usable`].
pub fn each<E: From<Failure>>(
    given: &Given,
    source: &dyn Source,
    voice: &dyn Voice,
    options: Options,
    sink: Sink<'_, E>,
) -> Result<Built, E> {
    let recipe = &given.recipe;
    let wanted = |facts: &AttemptFacts| {
        recipe.filters.iter().all(|filter| match filter {
            Filter::Outcome { is } if facts.graded.is_some() => select::passes_outcome(is, facts),
            _ => select::by_key(filter, facts).unwrap_or(true),
        })
    };
    let mut fold = Fold::new(&wanted, options.keep_bytes);
    source.scan(&mut |record| fold.apply(record))?;
    let (facts, contents) = fold.finish();

    let mut built = Built {
        attempts: facts.attempts.len() as u64,
        events: facts.events,
        passes: 1,
        ..Built::default()
    };
    let overlaps = overlaps(given, &facts);
    let context = Context::new(given, &facts);
    let mut pool = admitted(recipe, &facts, &overlaps, &mut built);
    let making = Making::new(given, source, voice, options);
    let mut contents = Some(contents);
    let mut kept: Option<Kept> = None;
    let mut names: HashMap<&str, usize> = HashMap::new();
    for filter in &recipe.filters {
        // Taken only here: what a cheap filter before it would take is lost.
        if filter.needs_rows()
            && let Some(contents) = contents.take()
        {
            kept = Some(making.prepare(contents, &mut pool, &mut built)?);
        }
        let count = names.entry(filter.name()).or_default();
        *count += 1;
        let name = if *count == 1 {
            filter.name().to_owned()
        } else {
            format!("{}#{count}", filter.name())
        };
        let passing = select::keep(filter, &pool, &context);
        let mut stage = Stage::new(&name);
        retain(&mut pool, passing, |c| {
            stage.drop(&mut built.fates, c.facts, &name)
        });
        stage.left = pool.len() as u64;
        built.funnel.push(stage);
    }
    let mut kept = match (kept, contents) {
        (Some(kept), _) => kept,
        (None, contents) => making.prepare(contents.unwrap_or_default(), &mut pool, &mut built)?,
    };
    let groups: Vec<Vec<&Candidate>> = match recipe.kind {
        Kind::Preference => pairs(&pool, &mut built),
        _ => pool.iter().map(|candidate| vec![candidate]).collect(),
    };
    let mut sum = Summing::default();
    let mut lines = Lines {
        sum: &mut sum,
        sink,
        waiting: Vec::with_capacity(WAITING),
    };
    making.emit(&groups, &mut kept, &mut built.passes, &mut |row| {
        lines.push(row)
    })?;
    lines.flush()?;
    built.sum = sum.finish();
    Ok(built)
}

/// Rows that wait for their lines at most.
const WAITING: usize = 32;

/// Rows on their way to whom they are handed to: their lines are written on several threads,
/// and handed on in order.
struct Lines<'a, 's, E> {
    sum: &'a mut Summing,
    sink: Sink<'s, E>,
    waiting: Vec<BuiltRow>,
}

impl<E: From<Failure>> Lines<'_, '_, E> {
    fn push(&mut self, row: BuiltRow) -> Result<(), E> {
        self.waiting.push(row);
        if self.waiting.len() < WAITING {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), E> {
        let rows = std::mem::replace(&mut self.waiting, Vec::with_capacity(WAITING));
        let written = over_threads(&rows, BuiltRow::line);
        for (row, line) in rows.into_iter().zip(written) {
            let line = line?;
            self.sum.take(&row, &line);
            (self.sink)(row, &line)?;
        }
        Ok(())
    }
}

/// More threads wait for the one that takes what they make.
const MOST_THREADS: usize = 8;

/// What a function makes of each of some things, in order, on as many threads as there are
/// processors.
pub(super) fn over_threads<T: Sync, M: Send>(
    things: &[T],
    make: impl Fn(&T) -> M + Sync,
) -> Vec<M> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let each = things.len().div_ceil(threads.min(MOST_THREADS)).max(1);
    let mut parts = things.chunks(each);
    let mine = parts.next().unwrap_or_default();
    std::thread::scope(|scope| {
        let make = &make;
        let others: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter().map(make).collect::<Vec<M>>()))
            .collect();
        let mut made: Vec<M> = mine.iter().map(make).collect();
        for other in others {
            match other.join() {
                Ok(more) => made.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        made
    })
}

/// Attempts that may be rows, in order of (task, attempt).
fn admitted<'a>(
    recipe: &Recipe,
    facts: &'a Facts,
    overlaps: &BTreeMap<TaskId, String>,
    built: &mut Built,
) -> Vec<Candidate<'a>> {
    let mut pool: Vec<Candidate> = Vec::new();
    let mut admission = Stage::new("admission");
    for attempt in facts.attempts.values() {
        match select::admit(recipe, facts, attempt, overlaps) {
            Ok(task) => pool.push(Candidate {
                facts: attempt,
                task,
                rows: None,
            }),
            Err(reason) => admission.drop(&mut built.fates, attempt, reason),
        }
    }
    debug_assert!(
        admission
            .dropped
            .keys()
            .all(|reason| ADMISSION.contains(&reason.as_str()))
    );
    admission.left = pool.len() as u64;
    built.funnel.push(admission);
    pool.sort_by(|a, b| (&a.task.id, &a.facts.attempt).cmp(&(&b.task.id, &b.facts.attempt)));
    pool
}

/// Tasks that overlap with what is measured with: those of the recipe's files, and those
/// like a held-out task of this tape.
fn overlaps(given: &Given, facts: &Facts) -> BTreeMap<TaskId, String> {
    let options = OverlapOptions::default();
    let side = |held_out: bool| -> Vec<Entry> {
        let unvalidated = facts
            .unvalidated
            .values()
            .filter(|_| given.recipe.unvalidated);
        let tasks = facts
            .tasks
            .values()
            .chain(unvalidated)
            .filter(|task| (task.split == Split::HeldOut) == held_out);
        tasks
            .map(|task| Entry::of_task(task, options.ngram))
            .collect()
    };
    let mut out = given.excluded.clone();
    let (learned, measured) = (side(false), side(true));
    let allowed = |entry: &Entry| {
        let names = &given.recipe.allow_overlap;
        names.contains(&entry.id) || names.contains(&entry.repo)
    };
    if measured.is_empty() {
        return out;
    }
    for pair in overlap(&learned, &measured, &options) {
        if let (Some(a), Some(b), Some(evidence)) = (
            learned.get(pair.a),
            measured.get(pair.b),
            pair.evidence.first(),
        ) && !allowed(a)
            && !allowed(b)
        {
            out.entry(TaskId::new(a.id.clone()))
                .or_insert_with(|| format!("{evidence}, with {}", b.id));
        }
    }
    out
}

/// Pure use of a recipe without files.
impl From<Recipe> for Given {
    fn from(recipe: Recipe) -> Self {
        Self::new(recipe)
    }
}
