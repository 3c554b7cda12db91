//! Rows of the attempts that are left: of each one its own, or of a win and a loss together.

use super::build::{Options, over_threads};
use super::built::{Built, BuiltRow, PreferenceRow, RecoveryRow, Row, Stage, retain};
use super::facts::{AttemptFacts, Content, Source};
use super::recovery;
use super::select::{self, Candidate, RowFacts};
use super::spec::{Filter, Given, Kind, Order};
use super::talk::{Talk, Voice, talks};
use crate::attempt::Step;
use crate::dataset::{ChatMessage, DatasetRow};
use crate::failure::{Failure, FailureKind};
use crate::ids::{AttemptId, TaskId};
use crate::overlap::words;
use crate::task::Task;
use crate::trajectory::Trajectory;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// Attempts that rows are made of before they are handed on.
const TOGETHER: usize = 32;

/// A conversation in two parts, as values.
type Halves = (Vec<Value>, Vec<Value>);

/// The rows of an attempt, and what filters ask of them.
struct Rendered {
    rows: Vec<BuiltRow>,
    facts: RowFacts,
}

/// What came of an attempt: its rows, or why there are none.
type Outcome = Result<Rendered, &'static str>;

/// An attempt of which what was said is still to be read.
struct Waiting<'a> {
    facts: &'a AttemptFacts,
    task: &'a Task,
    content: Content,
}

impl<'a> Waiting<'a> {
    fn new(candidate: &Candidate<'a>, content: Content) -> Self {
        Self {
            facts: candidate.facts,
            task: candidate.task,
            content,
        }
    }
}

/// Rows that were made on the way and still fit.
#[derive(Default)]
pub(super) struct Kept(HashMap<AttemptId, Vec<BuiltRow>>);

/// What rows are made with.
pub(super) struct Making<'a> {
    given: &'a Given,
    source: &'a dyn Source,
    voice: &'a dyn Voice,
    options: Options,
    ngram: Option<usize>,
}

impl<'a> Making<'a> {
    pub(super) fn new(
        given: &'a Given,
        source: &'a dyn Source,
        voice: &'a dyn Voice,
        options: Options,
    ) -> Self {
        let ngram = given.recipe.filters.iter().find_map(|filter| match filter {
            Filter::NearDedup { ngram, .. } => Some(*ngram),
            _ => None,
        });
        Self {
            given,
            source,
            voice,
            options,
            ngram,
        }
    }

    /// Makes rows of all candidates, for what filters ask of them, and keeps what fits;
    /// drops candidates of which none can be made.
    pub(super) fn prepare(
        &self,
        mut contents: HashMap<AttemptId, Content>,
        pool: &mut Vec<Candidate>,
        built: &mut Built,
    ) -> Result<Kept, Failure> {
        let mut facts: HashMap<AttemptId, Result<RowFacts, &'static str>> =
            HashMap::with_capacity(pool.len());
        let (mut kept, mut bytes) = (Kept::default(), 0);
        let mut take = |id: &AttemptId, outcome: Outcome| {
            let told = outcome.map(|rendered| {
                if bytes + rendered.facts.bytes <= self.options.rows_bytes {
                    bytes += rendered.facts.bytes;
                    kept.0.insert(id.clone(), rendered.rows);
                }
                rendered.facts
            });
            facts.insert(id.clone(), told);
        };
        let mut missing = Vec::new();
        let mut there = Vec::new();
        for c in pool.iter() {
            match contents.remove(&c.facts.attempt) {
                Some(content) => there.push(Waiting::new(c, content)),
                None => missing.push(c),
            }
        }
        drop(contents);
        self.of_all(there, &mut take)?;
        if !missing.is_empty() {
            built.passes += 1;
            self.again(&missing, &mut take)?;
        }
        let mut stage = Stage::new("rows");
        let mut passing = Vec::with_capacity(pool.len());
        let mut reasons: HashMap<AttemptId, &'static str> = HashMap::new();
        for c in pool.iter_mut() {
            let id = &c.facts.attempt;
            match facts.remove(id).unwrap_or(Err("untellable")) {
                Ok(facts) => c.rows = Some(facts),
                Err(reason) => drop(reasons.insert(id.clone(), reason)),
            }
            passing.push(c.rows.is_some());
        }
        retain(pool, passing, |c| {
            let reason = reasons.get(&c.facts.attempt).copied();
            stage.drop(&mut built.fates, c.facts, reason.unwrap_or("untellable"));
        });
        stage.left = pool.len() as u64;
        built.funnel.push(stage);
        Ok(kept)
    }

    /// Makes rows of these, on as many threads as there are processors, and hands them on
    /// in order.
    fn of_all(
        &self,
        waiting: Vec<Waiting<'_>>,
        each: &mut dyn FnMut(&AttemptId, Outcome),
    ) -> Result<(), Failure> {
        let mut waiting = waiting.into_iter();
        loop {
            // Few at a time: what they make is held until it is handed on.
            let now = waiting.by_ref().take(TOGETHER).map(Some).map(Mutex::new);
            let now: Vec<Mutex<Option<Waiting>>> = now.collect();
            if now.is_empty() {
                return Ok(());
            }
            let made = over_threads(&now, |one| {
                let mut one = one.lock().unwrap_or_else(PoisonError::into_inner);
                one.take().map(|one| (&one.facts.attempt, self.rows(one)))
            });
            for (id, outcome) in made.into_iter().flatten() {
                each(id, outcome?);
            }
        }
    }

    /// Reads the tape once more, and makes rows of each of these as soon as its last step
    /// has gone by.
    fn again(
        &self,
        candidates: &[&Candidate<'_>],
        each: &mut dyn FnMut(&AttemptId, Outcome),
    ) -> Result<(), Failure> {
        let mut missing: HashMap<&str, Waiting> = HashMap::with_capacity(candidates.len());
        for c in candidates {
            let waiting = Waiting::new(c, Content::default());
            missing.insert(c.facts.attempt.as_str(), waiting);
        }
        let mut failed = None;
        self.source.scan(&mut |record| {
            let id = record.attempt();
            let Some(one) = id.and_then(|id| missing.get_mut(id.as_str())) else {
                return;
            };
            let facts = one.facts;
            let is_last = record.seq == facts.last_content;
            one.content.take(record);
            if is_last && let Some(one) = missing.remove(facts.attempt.as_str()) {
                match self.rows(one) {
                    Ok(outcome) => each(&facts.attempt, outcome),
                    Err(failure) => failed = failed.take().or(Some(failure)),
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Hands on the rows of these attempts, group by group: of one attempt its rows, of two
    /// a pair. What was not kept is read again, so many groups at a time as fit.
    pub(super) fn emit<E: From<Failure>>(
        &self,
        groups: &[Vec<&Candidate>],
        kept: &mut Kept,
        passes: &mut u32,
        sink: &mut dyn FnMut(BuiltRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let selected: HashSet<&AttemptId> =
            groups.iter().flatten().map(|c| &c.facts.attempt).collect();
        kept.0.retain(|id, _| selected.contains(id));
        let mut rest = groups;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |group: &&Vec<&Candidate>| {
                let missing = group
                    .iter()
                    .filter(|c| !kept.0.contains_key(&c.facts.attempt));
                let own: usize = missing
                    .filter_map(|c| c.rows.as_ref().map(|rows| rows.bytes))
                    .sum();
                let fits = bytes == 0 || bytes + own <= self.options.rows_bytes;
                bytes += own;
                fits
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (now, later) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            rest = later;
            let missing: Vec<&Candidate> = now
                .iter()
                .flatten()
                .filter(|c| !kept.0.contains_key(&c.facts.attempt))
                .copied()
                .collect();
            if !missing.is_empty() {
                *passes += 1;
                self.again(&missing, &mut |id, outcome| {
                    if let Ok(rendered) = outcome {
                        kept.0.insert(id.clone(), rendered.rows);
                    }
                })?;
            }
            for group in now {
                self.hand_on(group, kept, sink)?;
            }
        }
        Ok(())
    }

    fn hand_on<E: From<Failure>>(
        &self,
        group: &[&Candidate],
        kept: &mut Kept,
        sink: &mut dyn FnMut(BuiltRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rows = |c: &Candidate| {
            kept.0.remove(&c.facts.attempt).ok_or_else(|| {
                let id = &c.facts.attempt;
                Failure::new(
                    FailureKind::Internal,
                    "GT-RUN-INTERNAL",
                    format!("attempt {id} had rows when the tape was read first, and has none now"),
                )
            })
        };
        match group {
            [win, loss] => {
                let (win_row, loss_row) = (rows(win)?, rows(loss)?);
                for (chosen, rejected) in win_row.into_iter().zip(loss_row) {
                    if let Some(row) = paired(win.task, chosen, rejected) {
                        sink(row)?;
                    }
                }
            }
            all => {
                for c in all {
                    rows(c)?.into_iter().try_for_each(&mut *sink)?;
                }
            }
        }
        Ok(())
    }

    /// The rows of one attempt.
    fn rows(&self, waiting: Waiting<'_>) -> Result<Outcome, Failure> {
        let Waiting {
            facts,
            task,
            mut content,
        } = waiting;
        let steps = content.steps().map_err(|e| {
            let id = &facts.attempt;
            Failure::new(
                FailureKind::Tape,
                "GT-TAPE-CORRUPT",
                format!("a step of attempt {id} cannot be read: {e}"),
            )
            .with_help("`gametape tape verify` says what else is damaged")
        })?;
        Ok(self.told(task, facts, content, steps))
    }

    fn told(
        &self,
        task: &Task,
        facts: &AttemptFacts,
        content: Content,
        steps: Vec<Step>,
    ) -> Outcome {
        let (recipe, voice, options, ngram) =
            (&self.given.recipe, self.voice, self.options, self.ngram);
        let resolved = facts.is_resolved();
        let mut events = content.events;
        events.extend(facts.events.iter().cloned());
        events.sort();
        let attempt = Trajectory {
            attempt: facts.attempt.clone(),
            key: facts.key.clone(),
            purpose: facts.purpose.clone(),
            steps,
            end: content.end,
            graded: None,
            verdict: None,
            findings: facts.findings.clone(),
            scores: BTreeMap::new(),
            replays: 0,
            abandoned: false,
            failures: Vec::new(),
            events: events.into_iter().map(|(_, id)| id).collect(),
        };
        let row = |messages: Vec<ChatMessage>| DatasetRow {
            attempt: attempt.attempt.clone(),
            task: task.id.clone(),
            repo: task.repo.clone(),
            resolved,
            off_policy: recipe.is_off_policy(&facts.key.policy),
            events: attempt.events.clone(),
            messages,
        };
        let native = |talk: &Talk| match options.native {
            true => vec![(talk.native(&attempt.steps), talk.tools.clone())],
            false => Vec::new(),
        };
        let mut out: Vec<(Row, Vec<Halves>)> = Vec::new();
        let views = || talks(recipe, voice, task, &attempt, content.imported.as_ref());
        match recipe.kind {
            Kind::Verifier => out.push((
                Row::Chat(row(voice.judged(task, &attempt, resolved))),
                Vec::new(),
            )),
            Kind::Policy => {
                for talk in views()?.into_iter().filter(Talk::is_trained) {
                    let native = native(&talk);
                    out.push((Row::Chat(row(talk.into_messages())), native));
                }
            }
            Kind::Preference => {
                // The last view is the one that led to the patch that was graded.
                if let Some(talk) = views()?.into_iter().rev().find(Talk::is_trained) {
                    let native = native(&talk);
                    out.push((Row::Chat(row(talk.into_messages())), native));
                }
            }
            Kind::Recovery => {
                let talks = views()?;
                let segments = recovery::segments(&attempt.steps);
                if segments.is_empty() {
                    return Err("no_recovery");
                }
                for segment in segments {
                    let turns = segment.fail + 1..segment.pass + 1;
                    // The failing run must be in sight: the view holds the turns of the stretch.
                    let view = talks.iter().find(|talk| {
                        talk.steps.start <= turns.start && turns.end <= talk.steps.end
                    });
                    let Some(mut talk) = view.cloned() else {
                        continue;
                    };
                    talk.mark(recipe, &attempt.steps, turns);
                    if talk.is_trained() {
                        let native = native(&talk);
                        let part = RecoveryRow {
                            fail: segment.fail,
                            pass: segment.pass,
                            row: row(talk.into_messages()),
                        };
                        out.push((Row::Recovery(part), native));
                    }
                }
            }
        }
        if out.is_empty() {
            return Err("nothing_to_learn");
        }
        // Hashed in one piece: many small pieces take four times as long.
        let mut says = Vec::new();
        let mut trained = String::new();
        let mut found = RowFacts::default();
        let mut rows = Vec::with_capacity(out.len());
        for (row, native) in out {
            let mut characters = 0_u64;
            for message in row.parts().iter().flat_map(|part| &part.messages) {
                says.extend_from_slice(message.role.as_str().as_bytes());
                says.push(u8::from(message.train));
                // The length makes the concatenation unambiguous.
                says.extend_from_slice(&(message.content.len() as u64).to_le_bytes());
                says.extend_from_slice(message.content.as_bytes());
                characters += message.content.chars().count() as u64;
                if ngram.is_some() && (message.train || recipe.kind == Kind::Verifier) {
                    trained.push_str(&message.content);
                    trained.push('\n');
                }
            }
            // A length that was given is of the attempt: the only row of it, or each as long.
            let tokens = self
                .given
                .lengths
                .get(&facts.attempt)
                .copied()
                .unwrap_or(characters.div_ceil(4));
            let said: usize = row
                .parts()
                .iter()
                .flat_map(|part| &part.messages)
                .map(|m| m.content.len() + 64)
                .sum();
            // Native calls say it once more, as values.
            found.bytes +=
                said * if options.native { 3 } else { 1 } + 64 * attempt.events.len() + 256;
            found.tokens += tokens;
            found.longest = found.longest.max(tokens);
            rows.push(BuiltRow {
                row,
                tokens,
                native,
            });
        }
        found.says = *blake3::hash(&says).as_bytes();
        if let Some(ngram) = ngram {
            found.grams = words::grams(&words::words(&trained), ngram);
        }
        Ok(Rendered { rows, facts: found })
    }
}

/// Pairs wins with losses at the same task and in the same scaffold (others were asked in
/// other words), those with the fewest turns first, so that no attempt is in two pairs.
pub(super) fn pairs<'p, 'a>(
    pool: &'p [Candidate<'a>],
    built: &mut Built,
) -> Vec<Vec<&'p Candidate<'a>>> {
    let order = select::ranked(Order::FewestTurns, pool);
    // Wins and losses.
    type Sides<'c, 'a> = (Vec<&'c Candidate<'a>>, Vec<&'c Candidate<'a>>);
    let mut alike: BTreeMap<(&TaskId, &str), Sides<'_, '_>> = BTreeMap::new();
    for candidate in order.into_iter().filter_map(|at| pool.get(at)) {
        let key = (&candidate.task.id, candidate.facts.key.scaffold.as_str());
        let (wins, losses) = alike.entry(key).or_default();
        if candidate.facts.is_resolved() {
            wins.push(candidate)
        } else {
            losses.push(candidate)
        }
    }
    let zipped = alike.into_values();
    let found: Vec<Vec<&Candidate>> = zipped
        .flat_map(|(wins, losses)| wins.into_iter().zip(losses))
        .map(|(win, loss)| vec![win, loss])
        .collect();
    let taken: HashSet<&AttemptId> = found.iter().flatten().map(|c| &c.facts.attempt).collect();
    let mut stage = Stage::new("pairs");
    for candidate in pool.iter().filter(|c| !taken.contains(&c.facts.attempt)) {
        stage.drop(&mut built.fates, candidate.facts, "unpaired");
    }
    stage.left = taken.len() as u64;
    built.funnel.push(stage);
    found
}

/// The row of a pair.
fn paired(task: &Task, chosen: BuiltRow, rejected: BuiltRow) -> Option<BuiltRow> {
    let (Row::Chat(win), Row::Chat(loss)) = (chosen.row, rejected.row) else {
        return None;
    };
    Some(BuiltRow {
        tokens: chosen.tokens + rejected.tokens,
        native: chosen.native.into_iter().chain(rejected.native).collect(),
        row: Row::Preference(PreferenceRow {
            task: task.id.clone(),
            repo: task.repo.clone(),
            chosen: win,
            rejected: loss,
        }),
    })
}
