//! Grading stored logs, without running anything: in parity with the official SWE-bench
//! harness, and by stricter rules beside it.
//!
//! Layout, in reading order:
//! - [`statuses`], [`lines`], [`markers`]: a log → the tests' output, line by line → status
//!   by test, and what surrounds it
//! - [`parsers`]: one for each test runner; [`specs`] says which reads what
//! - [`demands`], [`rules`]: statuses → both verdicts, and why they differ; pure
//! - [`signs`]: that a suite ran; that an environment broke
//! - [`grade`]: one log of one task
//! - [`input`], [`logs`], [`names`]: files and directories, and whose log is whose
//! - [`report`]: verdicts → SWE-bench's run report
//! - here: all logs, on several threads
//!
//! **Invariant of absence:** nothing here starts a process, and nothing here knows a
//! sandbox.

pub mod demands;
pub mod grade;
pub mod input;
pub mod lines;
pub mod logs;
pub mod markers;
pub mod names;
pub mod parsers;
pub mod report;
pub mod rules;
pub mod signs;
pub mod specs;
pub mod statuses;

pub use grade::Graded;
pub use input::Problem;
pub use report::Scored;
pub use rules::{Rules, Unscored, Why};

use gametape_schemas::formats::{Place, Prediction, RowProblem, TaskRow};
use gametape_schemas::{Failure, FailureKind};
use logs::{LogDirectory, LogLines, MAX_ROW, Source, log_row};
use names::Names;
use specs::Spec;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What is graded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScoreOptions {
    /// Files of tasks. A task of several files is taken from the first.
    pub tasks: Vec<PathBuf>,
    /// The file of predictions; `None` for the tasks' own gold patches.
    pub predictions: Option<PathBuf>,
    /// A directory of logs, or a file of them as JSON lines.
    pub logs: PathBuf,
    /// Whose rules decide what is resolved.
    pub rules: Rules,
    /// Threads; `None` for one a processor.
    pub threads: Option<NonZeroUsize>,
}

/// What came of the log of a task.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// It was graded.
    Graded(Box<Graded>),
    /// It could not be: in words, why.
    Error(String),
}

/// Grades every prediction of which a log is there.
///
/// # Errors
/// `GT-SCORE-FILE` if a file cannot be read, `GT-SCORE-EMPTY` if it holds no usable row,
/// `GT-SCORE-LOGS` if there are no logs. Rows that cannot be used are no error: they are
/// in [`Scored::problems`].
pub fn score(options: &ScoreOptions) -> Result<Scored, Failure> {
    let mut problems = Vec::new();
    let tasks = read_tasks(options, &mut problems)?;
    let predictions = read_predictions(options.predictions.as_deref(), &tasks, &mut problems)?;
    let mut scored = score_rows(tasks, predictions, options)?;
    scored.problems.append(&mut problems);
    scored
        .problems
        .sort_by(|a, b| (&a.file, a.row.place).cmp(&(&b.file, b.row.place)));
    Ok(scored)
}

/// The same for rows that are at hand already. Of the options only those of logs, rules and
/// threads count.
///
/// # Errors
/// `GT-SCORE-FILE` and `GT-SCORE-LOGS`, as of [`score`].
pub fn score_rows(
    tasks: Vec<TaskRow>,
    mut predictions: Vec<Prediction>,
    options: &ScoreOptions,
) -> Result<Scored, Failure> {
    let names: Names = tasks.iter().map(TaskRow::instance_id).collect();
    for prediction in &mut predictions {
        if let Some(task) = names.find(&prediction.instance_id)
            && task != prediction.instance_id
        {
            prediction.instance_id = task.to_owned();
        }
    }
    let work = Work::new(&tasks, &predictions);
    if options.logs.is_dir() {
        work.directory(&options.logs, options.threads)?;
    } else {
        work.file(&options.logs, options.threads)?;
    }
    let done = work
        .done
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(Scored {
        rules: options.rules,
        tasks,
        predictions,
        outcomes: done.outcomes,
        unknown_logs: done.unknown,
        problems: done.problems,
    })
}

fn read_tasks(
    options: &ScoreOptions,
    problems: &mut Vec<Problem>,
) -> Result<Vec<TaskRow>, Failure> {
    let mut tasks: Vec<TaskRow> = Vec::new();
    let mut known = BTreeSet::new();
    let files = &options.tasks;
    for file in files {
        let read = input::tasks(file, count(options.threads))?;
        problems.extend(read.problems.into_iter().map(|row| problem(file, row)));
        let fresh = read
            .rows
            .into_iter()
            .filter(|task| known.insert(task.instance_id().to_owned()));
        tasks.extend(fresh);
    }
    if tasks.is_empty() {
        return Err(empty(
            "task",
            files.first().map_or(Path::new(""), |f| f),
            problems,
        ));
    }
    Ok(tasks)
}

fn read_predictions(
    file: Option<&Path>,
    tasks: &[TaskRow],
    problems: &mut Vec<Problem>,
) -> Result<Vec<Prediction>, Failure> {
    let Some(file) = file else {
        let gold = tasks.iter().map(|task| Prediction {
            instance_id: task.instance_id().to_owned(),
            model_name_or_path: "gold".to_owned(),
            model_patch: task.patch().map(str::to_owned),
            rest: serde_json::Map::new(),
        });
        return Ok(gold.collect());
    };
    let read = input::predictions(file)?;
    problems.extend(read.problems.into_iter().map(|row| problem(file, row)));
    if read.rows.is_empty() {
        return Err(empty("prediction", file, problems));
    }
    Ok(read.rows)
}

fn problem(file: &Path, row: RowProblem) -> Problem {
    let file = file.to_owned();
    Problem { file, row }
}

/// A file cannot be read.
fn failed(path: &Path, why: &dyn Display) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-SCORE-FILE",
        format!("{}: {why}", path.display()),
    )
    .with_help(
        "give a file of JSON lines, JSON or Parquet (the first two may be compressed with gzip)",
    )
}

fn empty(what: &str, file: &Path, problems: &[Problem]) -> Failure {
    let mut message = format!("{}: no usable {what}", file.display());
    if let Some(first) = problems.iter().find(|p| p.file == file) {
        message.push_str(&format!("; {}", first.row));
    }
    Failure::new(FailureKind::Input, "GT-SCORE-EMPTY", message)
        .with_help("see which fields the rows of this file must have")
}

/// What the threads share.
struct Work<'a> {
    names: Names<'a>,
    tasks: BTreeMap<&'a str, &'a TaskRow>,
    /// Predictions with a patch, by task: the model's name.
    models: BTreeMap<&'a str, &'a str>,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    outcomes: BTreeMap<String, Outcome>,
    /// Of a file of rows: the line of each task's log.
    rows: BTreeMap<String, usize>,
    unknown: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Work<'a> {
    fn new(tasks: &'a [TaskRow], predictions: &'a [Prediction]) -> Self {
        let tasks: BTreeMap<&str, &TaskRow> = tasks.iter().map(|t| (t.instance_id(), t)).collect();
        let models = predictions
            .iter()
            .filter(|p| !p.is_empty() && tasks.contains_key(p.instance_id.as_str()))
            .map(|p| (p.instance_id.as_str(), p.model_name_or_path.as_str()))
            .collect();
        Self {
            names: tasks.keys().copied().collect(),
            tasks,
            models,
            done: Mutex::default(),
        }
    }

    fn directory(&self, root: &Path, threads: Option<NonZeroUsize>) -> Result<(), Failure> {
        let mut found = LogDirectory::find(root)?;
        for (path, why) in std::mem::take(&mut found.unreadable) {
            self.problem(&path, Place::File, why);
        }
        if found.is_empty() {
            return Err(no_logs(root));
        }
        let assigned = found.assign(&self.models);
        self.note(|done| done.unknown.extend(assigned.unknown));
        for (task, why) in assigned.undecided {
            self.told(&task, root, Place::File, &Outcome::Error(why.clone()));
            self.note(|done| {
                done.outcomes.insert(task, Outcome::Error(why));
            });
        }
        let queue = Mutex::new(assigned.logs.into_iter());
        on_threads(threads, || {
            while let Some((task, log)) = lock(&queue).next() {
                let outcome = self.grade(&task, &log);
                let path = match &log {
                    Source::File { path, .. } => path,
                    Source::Text(_) => root,
                };
                self.told(&task, path, Place::File, &outcome);
                self.note(|done| {
                    done.outcomes.insert(task, outcome);
                });
            }
        });
        Ok(())
    }

    fn file(&self, path: &Path, threads: Option<NonZeroUsize>) -> Result<(), Failure> {
        let queue = Mutex::new(Some(LogLines::open(path)?));
        let rows = Mutex::new(0usize);
        on_threads(threads, || {
            while let Some((number, line)) = self.next_row(&queue, path) {
                *lock(&rows) += 1;
                match log_row(&line) {
                    Ok((task, log)) => {
                        drop(line);
                        self.row(path, number, task, &log);
                    }
                    Err(message) => self.problem(path, Place::Line(number), message),
                }
            }
        });
        let none = rows.into_inner().unwrap_or_else(PoisonError::into_inner) == 0;
        if none && lock(&self.done).problems.is_empty() {
            return Err(no_logs(path));
        }
        Ok(())
    }

    /// The next row of a file. A file that cannot be read on ends, and that is a problem.
    fn next_row(&self, queue: &Mutex<Option<LogLines>>, path: &Path) -> Option<(usize, Vec<u8>)> {
        let mut queue = lock(queue);
        let lines = queue.as_mut()?;
        let next = lines.next_line();
        for number in lines.too_long() {
            let most = MAX_ROW >> 20;
            let why = format!(
                "the row is longer than {most} MiB; give this log as a file in a directory"
            );
            self.problem(path, Place::Line(number), why);
        }
        match next {
            Ok(next) => next,
            Err(e) => {
                let number = lines.line() + 1;
                *queue = None;
                let why = format!("the file cannot be read on: {e}");
                self.problem(path, Place::Line(number), why);
                None
            }
        }
    }

    fn row(&self, path: &Path, number: usize, task: String, log: &Source) {
        let known = self.names.find(&task);
        let Some(task) = known.filter(|task| self.models.contains_key(task)) else {
            self.note(|done| {
                done.unknown.insert(task);
            });
            return;
        };
        let task = task.to_owned();
        let outcome = self.grade(&task, log);
        self.told(&task, path, Place::Line(number), &outcome);
        let mut left = None;
        self.note(|done| {
            // Of several rows the last counts, whichever thread was faster.
            left = done.rows.get(&task).copied();
            if left.is_some_and(|kept| kept > number) {
                left = Some(number);
                return;
            }
            done.rows.insert(task.clone(), number);
            done.outcomes.insert(task.clone(), outcome);
        });
        if let Some(line) = left {
            let why = format!("`{task}` has another log later; this one is left out");
            self.problem(path, Place::Line(line), why);
        }
    }

    fn grade(&self, task: &str, log: &Source) -> Outcome {
        let Some(row) = self.tasks.get(task) else {
            return Outcome::Error("no such task".to_owned());
        };
        match Spec::of(row) {
            Err(why) => Outcome::Error(why),
            Ok(spec) => match grade::grade(row, &spec, log) {
                Ok(graded) => Outcome::Graded(Box::new(graded)),
                Err(e) => Outcome::Error(format!("the log cannot be read: {e}")),
            },
        }
    }

    /// A log that could not be graded is told, too.
    fn told(&self, task: &str, path: &Path, place: Place, outcome: &Outcome) {
        if let Outcome::Error(why) = outcome {
            self.problem(path, place, format!("`{task}` has no verdict: {why}"));
        }
    }

    fn problem(&self, path: &Path, place: Place, message: String) {
        let row = RowProblem { place, message };
        self.note(|done| done.problems.push(problem(path, row)));
    }

    fn note(&self, write: impl FnOnce(&mut Done)) {
        write(&mut lock(&self.done));
    }
}

fn no_logs(path: &Path) -> Failure {
    Failure::new(FailureKind::Input, "GT-SCORE-LOGS", format!("{}: no logs", path.display())).with_help(
        "give a directory with INSTANCE/test_output.txt or INSTANCE.log in it, or JSON lines with `instance_id` and `log`",
    )
}

/// A thread that panicked leaves whole values behind: they are only ever replaced.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(threads: Option<NonZeroUsize>) -> usize {
    threads
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get)
}

/// Runs `work` on several threads until each of them returns.
fn on_threads(threads: Option<NonZeroUsize>, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..count(threads) {
            scope.spawn(&work);
        }
    });
}
