//! The forge itself: screens candidates chunk by chunk, validates survivors one by
//! one in fresh sandboxes, and writes every decision on the tape as it falls.
//!
//! Which tasks come out depends on the plan alone: chunks have a fixed size, results
//! are looked at in the order of the candidates, and exactly as many survivors are
//! validated as are still wanted. How fast the machine is and how many jobs run
//! beside one another only changes how long it takes.

use super::ask::{ForgeDeps, bounded};
use super::candidate::{Candidate, Mutant, candidates, seeded, write_out};
use super::decide::{self, Caught};
use super::driver::{Answer, Request, ScreenJob};
use super::plan::{ForgePlan, ForgeReport};
use super::progress::{News, Phase, Progress};
use super::statement::{Facts, statement};
use super::survey::{Survey, drive, survey};
use super::validate::{Gate, quarantine};
use gametape_schemas::event::ForgeFinished;
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{Event, Failure, NewEvent, Split, Task, TaskId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Forges tasks from one package. What `ledger` and `quarantined` already know is not
/// run again: a killed forge goes on where it was.
///
/// # Errors
/// Failures of the rooms, and `GT-FORGE-…` codes. A package that gives fewer tasks
/// than wanted is not an error: see [`ForgeReport::missing`].
pub async fn forge_package(
    plan: &ForgePlan,
    deps: &ForgeDeps,
    ledger: &Ledger,
    quarantined: &BTreeMap<TaskId, String>,
    progress: &impl Progress,
) -> Result<ForgeReport, Failure> {
    plan.recipe.check()?;
    let survey = survey(&plan.environment, plan.jobs, deps, progress).await?;
    let mut forge = Forge {
        plan,
        deps,
        ledger,
        quarantined,
        survey: &survey,
        needs: plan.wanted.by_split(),
        per_entity: BTreeMap::new(),
        chosen: BTreeMap::new(),
        dropped: BTreeMap::new(),
        modifiers: BTreeMap::new(),
        tried: 0,
    };
    let mut queue = forge.queue();
    let pool = queue.len() as u32;
    loop {
        forge.tell(progress);
        let chunk = forge.next_chunk(&mut queue);
        if chunk.is_empty() {
            break;
        }
        let survivors = forge.screen(chunk).await?;
        forge.validate(survivors, progress).await?;
    }
    forge.tell(progress);
    let finished = ForgeFinished {
        package: plan.environment.package.name.clone(),
        candidates: forge.tried,
        validated: forge.chosen.len() as u32,
        dropped: forge.dropped,
        modifiers: forge.modifiers,
    };
    let name = format!("forge-finished/{}", finished.package);
    let event = Event::ForgeFinished(finished.clone());
    deps.record(vec![NewEvent::named(plan.stream.clone(), &name, event)])
        .await?;
    let tasks = forge.chosen.into_values().collect();
    let missing = forge.needs.into_iter().filter(|(_, n)| *n > 0).collect();
    Ok(ForgeReport {
        tasks,
        pool,
        finished,
        missing,
        provisioned: survey.provisioned,
    })
}

/// A candidate with the tests that will judge it.
#[derive(Clone)]
struct Queued {
    index: usize,
    candidate: Candidate,
    tests: Vec<String>,
}

/// A candidate that screening (or the tape) found fit.
struct Survivor {
    queued: Queued,
    task: Task,
    /// On the tape as validated: nothing is left to run.
    known: bool,
}

struct Forge<'a> {
    plan: &'a ForgePlan,
    deps: &'a ForgeDeps,
    ledger: &'a Ledger,
    quarantined: &'a BTreeMap<TaskId, String>,
    survey: &'a Survey,
    /// Tasks still wanted.
    needs: BTreeMap<Split, u32>,
    /// Tasks chosen, by file and function.
    per_entity: BTreeMap<(usize, String), u32>,
    /// By candidate index.
    chosen: BTreeMap<usize, Task>,
    dropped: BTreeMap<String, u32>,
    modifiers: BTreeMap<String, (u32, u32)>,
    tried: u32,
}

impl Forge<'_> {
    fn tell(&self, progress: &impl Progress) {
        let wanted: u32 = self.plan.wanted.by_split().values().sum();
        progress.report(News {
            package: self.plan.environment.package.name.clone(),
            phase: Phase::Forge,
            done: self.chosen.len() as u64,
            wanted: u64::from(wanted),
            note: format!("{} candidates tried", self.tried),
        });
    }

    /// Candidates that tests reach, in order.
    fn queue(&self) -> VecDeque<Queued> {
        let recipe = &self.plan.recipe;
        candidates(
            &self.survey.files,
            &self.plan.environment.package,
            recipe,
            self.plan.wanted.division(),
        )
        .into_iter()
        .enumerate()
        .filter_map(|(index, candidate)| {
            let path = &self.survey.files.get(candidate.file)?.path;
            let tests = self
                .survey
                .reach
                .tests_of(path, candidate.lines, recipe.max_test_files);
            (!tests.is_empty()).then_some(Queued {
                index,
                candidate,
                tests,
            })
        })
        .collect()
    }

    /// The next candidates of splits that still want tasks, of functions that are not
    /// full. Those of a function that could only be full within this chunk wait.
    fn next_chunk(&self, queue: &mut VecDeque<Queued>) -> Vec<Queued> {
        let recipe = &self.plan.recipe;
        let room = recipe.max_candidates.saturating_sub(self.tried) as usize;
        let mut chunk = Vec::new();
        let mut in_chunk: BTreeMap<(usize, String), u32> = BTreeMap::new();
        let mut waiting = VecDeque::new();
        while chunk.len() < recipe.chunk.min(room)
            && let Some(queued) = queue.pop_front()
        {
            let candidate = &queued.candidate;
            if self.needs.get(&candidate.split).copied().unwrap_or(0) == 0 {
                continue;
            }
            let key = (candidate.file, candidate.entity.clone());
            let cap = recipe.entity_cap(candidate.split);
            let taken = self.per_entity.get(&key).copied().unwrap_or(0);
            if taken >= cap {
                continue;
            }
            let here = in_chunk.entry(key).or_default();
            if taken + *here >= cap {
                waiting.push_back(queued);
                continue;
            }
            *here += 1;
            chunk.push(queued);
        }
        while let Some(queued) = waiting.pop_back() {
            queue.push_front(queued);
        }
        chunk
    }

    fn count_drop(&mut self, reason: &str) {
        *self.dropped.entry(reason.to_owned()).or_default() += 1;
    }

    /// Runs a chunk through the driver; what falls through goes on the tape.
    async fn screen(&mut self, chunk: Vec<Queued>) -> Result<Vec<Survivor>, Failure> {
        let mut survivors = Vec::new();
        let mut fresh: Vec<(Queued, Mutant)> = Vec::new();
        for queued in chunk {
            let Some(file) = self.survey.files.get(queued.candidate.file) else {
                continue;
            };
            let Some(mutant) = write_out(&queued.candidate, file, &self.plan.environment.package)
            else {
                self.count_drop("does_not_parse");
                continue;
            };
            self.tried += 1;
            let modifier = queued.candidate.modifier.to_owned();
            self.modifiers.entry(modifier).or_default().0 += 1;
            if let Some(task) = self.ledger.tasks.get(&mutant.id) {
                survivors.push(Survivor {
                    queued,
                    task: task.clone(),
                    known: true,
                });
            } else if let Some(task) = self.ledger.unvalidated.get(&mutant.id) {
                survivors.push(Survivor {
                    queued,
                    task: task.clone(),
                    known: false,
                });
            } else if let Some(reason) = self.quarantined.get(&mutant.id) {
                self.count_drop(reason);
            } else {
                fresh.push((queued, mutant));
            }
        }
        let answers = self.run_screen(&fresh).await?;
        let mut events = Vec::new();
        for (queued, mutant) in fresh {
            let expected = self.survey.expected(&queued.tests);
            match decide::screened(&expected, answers.get(mutant.id.as_str())) {
                Ok(caught) => {
                    let task = self.task(&queued, &mutant, caught);
                    survivors.push(Survivor {
                        queued,
                        task,
                        known: false,
                    });
                }
                Err(drop) => {
                    self.count_drop(drop.reason);
                    events.push(quarantine(&mutant.id, drop));
                }
            }
        }
        self.deps.record(events).await?;
        survivors.sort_by_key(|survivor| survivor.queued.index);
        Ok(survivors)
    }

    async fn run_screen(
        &self,
        fresh: &[(Queued, Mutant)],
    ) -> Result<BTreeMap<String, Answer>, Failure> {
        let jobs: Vec<_> = fresh
            .iter()
            .filter_map(|(queued, mutant)| {
                let file = self.survey.files.get(queued.candidate.file)?;
                let clean_ms = self.survey.clean_ms(&queued.tests);
                let job = ScreenJob {
                    id: mutant.id.0.clone(),
                    path: file.path.clone(),
                    source: mutant.text.clone(),
                    tests: queued.tests.clone(),
                    expected: self.survey.expected(&queued.tests),
                    timeout: self.plan.recipe.screen_timeout_ms(clean_ms) as f64 / 1000.0,
                };
                Some((job.id.clone(), job))
            })
            .collect();
        let longest = jobs
            .iter()
            .map(|(_, job)| (job.timeout * 1000.0) as u64)
            .max()
            .unwrap_or(0);
        let lanes = self.plan.jobs.max(1);
        let shards = (0..lanes).map(|lane| {
            drive(
                &self.survey.provisioned.environment,
                &self.plan.environment.package.name,
                "screen",
                jobs.iter().skip(lane).step_by(lanes).cloned().collect(),
                longest,
                |jobs| Request::Screen { jobs },
                self.deps,
            )
        });
        let mut all = BTreeMap::new();
        for answers in bounded(lanes, shards).await {
            all.extend(answers?);
        }
        Ok(all)
    }

    /// The task that a caught bug makes.
    fn task(&self, queued: &Queued, mutant: &Mutant, caught: Caught) -> Task {
        let candidate = &queued.candidate;
        let package = &self.plan.environment.package;
        let file = self
            .survey
            .files
            .get(candidate.file)
            .map_or("", |file| file.path.as_str());
        let mut rng = seeded(self.plan.recipe.seed, package, mutant.id.as_str());
        let problem_statement = statement(
            &Facts {
                file,
                entity: &candidate.entity,
                fail_to_pass: &caught.fail_to_pass,
                failures: &caught.failures,
                fix: &candidate.change.removed,
            },
            &mut rng,
        );
        let hidden_paths: BTreeSet<_> = caught
            .fail_to_pass
            .iter()
            .filter_map(|test| test.split("::").next())
            .map(str::to_owned)
            .collect();
        Task {
            id: mutant.id.clone(),
            repo: package.name.clone(),
            base_commit: package.version.clone(),
            environment: self.survey.provisioned.environment.clone(),
            bug_patch: mutant.bug_patch.clone(),
            gold_patch: mutant.gold_patch.clone(),
            problem_statement,
            fail_to_pass: caught.fail_to_pass,
            pass_to_pass: caught.pass_to_pass,
            test_files: queued.tests.clone(),
            hidden_paths: hidden_paths.into_iter().collect(),
            file: file.to_owned(),
            entity: candidate.entity.clone(),
            origin: candidate.modifier.to_owned(),
            split: candidate.split,
            execution: None,
        }
    }

    /// Validates survivors in order until nothing more is wanted of their split.
    async fn validate(
        &mut self,
        survivors: Vec<Survivor>,
        progress: &impl Progress,
    ) -> Result<(), Failure> {
        let mut waiting: VecDeque<_> = survivors.into();
        loop {
            // As many as are wanted: if all are fit, none was validated in vain.
            let mut left = self.needs.clone();
            let mut batch = Vec::new();
            let mut later = VecDeque::new();
            while let Some(survivor) = waiting.pop_front() {
                match left.get_mut(&survivor.queued.candidate.split) {
                    Some(need) if *need > 0 => {
                        *need -= 1;
                        batch.push(survivor);
                    }
                    _ => later.push_back(survivor),
                }
            }
            waiting = later;
            if batch.is_empty() {
                return Ok(());
            }
            let lanes = self.plan.jobs.max(1);
            let results = {
                let gate = Gate {
                    recipe: &self.plan.recipe,
                    deps: self.deps,
                    survey: self.survey,
                };
                let gate = &gate;
                let judged = batch.iter().map(|survivor| async move {
                    if survivor.known {
                        Ok(Ok(()))
                    } else {
                        gate.judge(&survivor.task).await
                    }
                });
                bounded(lanes, judged).await
            };
            for (survivor, result) in batch.into_iter().zip(results) {
                match result? {
                    Ok(()) => self.choose(survivor),
                    Err(drop) => self.count_drop(drop.reason),
                }
            }
            self.tell(progress);
        }
    }

    fn choose(&mut self, survivor: Survivor) {
        let candidate = survivor.queued.candidate;
        if let Some(need) = self.needs.get_mut(&candidate.split) {
            *need = need.saturating_sub(1);
        }
        self.modifiers
            .entry(candidate.modifier.to_owned())
            .or_default()
            .1 += 1;
        let key = (candidate.file, candidate.entity);
        *self.per_entity.entry(key).or_default() += 1;
        self.chosen.insert(survivor.queued.index, survivor.task);
    }
}
