//! Tapes that were made up: attempts at a few tasks as streams of events, written to
//! directories in any order, at any time and by any number of threads.

#![allow(dead_code, clippy::unwrap_used)] // Not every test binary uses all of it.

use gametape_schemas::attempt::{AttemptEnd, AttemptKey, EndReason, NativeCall, Sampling};
use gametape_schemas::event::*;
use gametape_schemas::finding::{Finding, FindingKind, Severity};
use gametape_schemas::{
    AttemptId, CheckpointId, Completion, Digest, Diverged, Divergence, EnvironmentId, Failure,
    FailureKind, PolicyRef, RunId, Split, Step, StreamId, Task, TaskId, ToolCall, Verdict,
    VerdictOutcome,
};
use gametape_tape::SledTape;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is appended to one stream, in its order.
pub type Stream = Vec<NewEvent>;

/// Tasks of [`world`]; the last one is held out.
pub const TASKS: usize = 9;
/// Attempts at each.
pub const TRIES: usize = 8;

/// Task number `n`, of three repositories.
pub fn task(n: usize) -> Task {
    Task {
        id: TaskId::new(format!("owner__repo{}-{n}", n % 3)),
        repo: format!("owner/repo{}", n % 3),
        base_commit: format!("{n:040x}"),
        environment: EnvironmentId::new("env"),
        bug_patch: String::new(),
        gold_patch: format!("--- a/f{n}.py\n+++ b/f{n}.py\n@@ -1 +1 @@\n-a{n}\n+b{n}\n"),
        problem_statement: format!(
            "Function {n} gives the wrong answer: \u{1b}[31mécrit\u{7f} \"{n}\"."
        ),
        fail_to_pass: vec!["t.py::a".into()],
        pass_to_pass: vec![],
        test_files: vec!["t.py".into()],
        hidden_paths: vec![],
        file: format!("f{n}.py"),
        entity: "f".into(),
        origin: "imported".into(),
        split: match n == TASKS - 1 {
            true => Split::HeldOut,
            false => Split::Explore,
        },
        execution: None,
    }
}

/// A verdict.
pub fn verdict(outcome: VerdictOutcome) -> Verdict {
    Verdict {
        outcome,
        reason: String::new(),
        patch_applied: true,
        fail_to_pass_ok: vec![],
        fail_to_pass_bad: vec![],
        pass_to_pass_ok: 1,
        pass_to_pass_bad: vec![],
        exit_code: Some(0),
        wall_ms: 1,
    }
}

/// A task that was validated.
pub fn task_stream(task: Task) -> Stream {
    let (id, stream) = (task.id.clone(), StreamId::task(&task.id));
    let validated = TaskValidated {
        task: id,
        repeats: 2,
        gold: verdict(VerdictOutcome::Resolved),
        empty: verdict(VerdictOutcome::Unresolved),
    };
    vec![
        NewEvent::named(
            stream.clone(),
            "registered",
            Event::TaskRegistered(TaskRegistered::forged(task)),
        ),
        NewEvent::named(stream, "validated", Event::TaskValidated(validated)),
    ]
}

/// An attempt as it shall be.
#[derive(Clone)]
pub struct Try {
    pub key: AttemptKey,
    pub purpose: String,
    pub steps: Vec<Step>,
    /// `None`: a failure of ours before the end.
    pub outcome: Option<VerdictOutcome>,
    pub patch: String,
    pub findings: Vec<Finding>,
    pub scores: Vec<(String, f64)>,
    pub abandoned: bool,
}

impl Try {
    /// An attempt of some weights.
    pub fn of(task: &TaskId, weights: &str, seed: u64, index: u32, won: bool) -> Self {
        Self {
            key: AttemptKey {
                task: task.clone(),
                policy: PolicyRef::Model {
                    checkpoint: CheckpointId::new(weights),
                },
                scaffold: "codeact/1".into(),
                sampling: Sampling {
                    temperature: 0.5,
                    ..Sampling::default()
                },
                seed,
                index,
                generation: 0,
            },
            purpose: "explore".into(),
            steps: vec![said(
                0,
                &format!("I look at {task} for the {index}th time."),
                "ls",
                "f.py",
                0,
            )],
            outcome: Some(match won {
                true => VerdictOutcome::Resolved,
                false => VerdictOutcome::Unresolved,
            }),
            patch: format!("--- a/f.py\n+++ b/f.py\n@@ -1 +1 @@\n-a\n+{index}{seed}\n"),
            findings: vec![],
            scores: vec![],
            abandoned: false,
        }
    }

    pub fn id(&self) -> AttemptId {
        self.key.id()
    }

    /// Its stream.
    pub fn stream(&self) -> Stream {
        let id = self.id();
        let stream = StreamId::attempt(&id);
        let mut out = Vec::new();
        let mut put = |name: &str, event: Event| {
            out.push(NewEvent::named(stream.clone(), name, event));
        };
        let scheduled = AttemptScheduled {
            attempt: id.clone(),
            key: self.key.clone(),
            purpose: self.purpose.clone(),
        };
        put("scheduled", Event::AttemptScheduled(scheduled));
        for step in &self.steps {
            let taken = StepTaken {
                attempt: id.clone(),
                step: step.clone(),
            };
            put(&format!("step-{}", step.index), Event::StepTaken(taken));
        }
        let Some(outcome) = self.outcome else {
            let failed = AttemptFailed {
                attempt: id,
                failure: Failure::new(FailureKind::Sandbox, "GT-SANDBOX-OPEN", "broke"),
                will_retry: false,
            };
            put("failed", Event::AttemptFailed(failed));
            return out;
        };
        let end = AttemptEnd {
            attempt: id.clone(),
            reason: EndReason::Submitted,
            patch: self.patch.clone(),
        };
        put("ended", Event::PatchSubmitted(PatchSubmitted { end }));
        if self.abandoned {
            let abandoned = AttemptAbandoned {
                attempt: id.clone(),
                step: 0,
                divergence: Divergence {
                    field: Diverged::ExitCode,
                    line: None,
                    recorded: String::new(),
                    replayed: String::new(),
                },
                rules: vec![],
                rules_version: "none".into(),
            };
            put("abandoned", Event::AttemptAbandoned(abandoned));
        }
        let graded = Graded {
            attempt: id.clone(),
            cache_key: Digest::of_bytes(b"k"),
            cached: false,
            rules: "strict/3".into(),
            verdict: verdict(outcome),
        };
        put("graded", Event::Graded(graded));
        if !self.findings.is_empty() {
            let examined = ConductExamined {
                attempt: id.clone(),
                detectors: "conduct/1".into(),
                findings: self.findings.clone(),
            };
            put("examined", Event::ConductExamined(examined));
        }
        for (verifier, score) in &self.scores {
            let scored = VerifierScored {
                attempt: id.clone(),
                verifier: CheckpointId::new(verifier.clone()),
                logprob_yes: score.ln(),
                logprob_no: (1.0 - score).ln(),
                score: *score,
            };
            put(&format!("scored-{verifier}"), Event::VerifierScored(scored));
        }
        out
    }
}

/// A turn with a call in its text.
pub fn said(index: u32, thought: &str, command: &str, seen: &str, exit: i32) -> Step {
    Step {
        index,
        completion: Completion {
            text: format!(
                "{thought}\n<function=execute_bash>\n<parameter=command>{command}</parameter>\n</function"
            ),
            tokens: vec![index, 7, 9],
            logprobs: vec![-0.5, -0.25, -0.125],
            finished: true,
            ..Completion::default()
        },
        call: Some(ToolCall {
            tool: "execute_bash".into(),
            arguments: [("command".to_owned(), command.to_owned())].into(),
        }),
        observation: seen.to_owned(),
        exit_code: Some(exit),
        tool_ms: 3,
        ..Step::default()
    }
}

/// From a failing test run to a passing one, with a long output on the way.
fn course(n: usize, index: usize, is_native: bool) -> Vec<Step> {
    let long = match index {
        // Over 32 KiB: its event lies outside its frame.
        2 => "a long line of output\n".repeat(2_000),
        _ => "a line\n".to_owned(),
    };
    let mut steps = vec![
        said(
            0,
            &format!("I run the tests of {n}, for the {index}th time."),
            "pytest tests",
            "== 1 failed, 3 passed in 0.1s ==",
            1,
        ),
        said(1, "I look.", &format!("cat f{n}.py"), &long, 0),
        said(
            2,
            "I mend it: é, \"quoted\", \u{7}.",
            &format!("sed -i s/a/b/ f{n}.py"),
            "",
            0,
        ),
        said(3, "And again.", "pytest tests", "== 4 passed in 0.1s ==", 0),
    ];
    steps.truncate(if index == 7 { 2 } else { 4 });
    if index == 3 {
        // The oldest observations were hidden from the third turn on.
        for step in steps.iter_mut().skip(2) {
            step.hidden = vec![0];
        }
    }
    if is_native {
        for step in &mut steps {
            let call = step.call.as_ref().unwrap();
            let arguments = serde_json::to_string(&call.arguments).unwrap();
            step.completion.text = format!("Turn {} of {n}, {index}.", step.index);
            step.completion.calls = vec![NativeCall {
                id: format!("call_{}", step.index),
                name: call.tool.clone(),
                arguments,
            }];
        }
    }
    steps
}

/// Attempts at all tasks: wins and losses of models, a teacher's, one that a failure of ours
/// hit, one abandoned, one that was caught cheating.
pub fn tries() -> Vec<Try> {
    let mut all = Vec::new();
    for n in 0..TASKS {
        for index in 0..TRIES {
            let won = (n + index) % 3 == 0;
            let mut one = Try::of(&task(n).id, "weights", 1, index as u32, won);
            match index {
                1 => {
                    one.key.policy = PolicyRef::Endpoint {
                        model: "big".into(),
                    };
                    one.key.scaffold = "codeact/1:native".into();
                }
                6 => {
                    one.key.policy = PolicyRef::Oracle;
                    one.purpose = "teacher".into();
                    one.outcome = Some(VerdictOutcome::Resolved);
                }
                _ => {}
            }
            one.steps = course(n, index, index == 1);
            match (n, index) {
                (0, 4) => one.outcome = None,
                (1, 4) => one.abandoned = true,
                (2, 4) => {
                    one.findings = vec![Finding {
                        kind: FindingKind::GoldSeen,
                        severity: Severity::Hard,
                        step: None,
                        path: None,
                        evidence: "e".into(),
                    }];
                }
                _ => {}
            }
            all.push(one);
        }
    }
    all
}

/// The streams of all tasks and attempts.
pub fn world() -> Vec<Stream> {
    let mut out: Vec<Stream> = (0..TASKS).map(|n| task_stream(task(n))).collect();
    out.extend(tries().iter().map(Try::stream));
    out
}

/// The first events of a run, and a training on a dataset.
pub fn begun(run: &str) -> Stream {
    let started = RunStarted {
        run: RunId::new(run),
        code_version: "0.1.0".into(),
    };
    let stream = StreamId::run(&RunId::new(run));
    vec![NewEvent::named(
        stream,
        "started",
        Event::RunStarted(started),
    )]
}

/// How a tape is written.
#[derive(Clone, Copy)]
pub struct How {
    /// The first clock reading.
    pub clock: u64,
    /// Threads that append at once.
    pub threads: usize,
    /// Events of an append.
    pub batch: usize,
    /// Whether each thread takes the last stream first.
    pub backwards: bool,
}

impl Default for How {
    fn default() -> Self {
        Self {
            clock: 1_000_000,
            threads: 1,
            batch: 64,
            backwards: false,
        }
    }
}

/// Writes streams to the tape of a run's directory. Each thread has streams of its own, and
/// goes through them in turns.
pub fn write(run: &Path, streams: &[Stream], how: How) {
    let clock = AtomicU64::new(how.clock);
    let clock = Arc::new(move || clock.fetch_add(17, Ordering::Relaxed));
    let tape = SledTape::open(&run.join("tape"), clock).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..how.threads {
            let tape = tape.clone();
            let mut own: Vec<std::vec::IntoIter<NewEvent>> = streams
                .iter()
                .skip(thread)
                .step_by(how.threads)
                .map(|stream| stream.clone().into_iter())
                .collect();
            if how.backwards {
                own.reverse();
            }
            scope.spawn(move || {
                let mut batch = Vec::new();
                while !own.is_empty() {
                    // Several streams under way at once, and of each one event at a time.
                    let width = own.len().min(if how.backwards { 5 } else { 1 });
                    for at in (0..width).rev() {
                        match own[at].next() {
                            Some(event) => batch.push(event),
                            None => drop(own.remove(at)),
                        }
                    }
                    if batch.len() >= how.batch {
                        tape.append(std::mem::take(&mut batch)).unwrap();
                    }
                }
                if !batch.is_empty() {
                    tape.append(batch).unwrap();
                }
            });
        }
    });
}

/// Starts the binary.
pub fn gametape(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gametape"))
        .args(arguments)
        .env_remove("NO_COLOR")
        .output()
        .unwrap()
}

/// Standard output and error of a call that must end with this code.
pub fn said_by(code: i32, arguments: &[&str]) -> (String, String) {
    let output = gametape(arguments);
    let (out, error) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {out}{error}"
    );
    (out, error)
}

/// The JSON object that a call prints.
pub fn told(arguments: &[&str]) -> serde_json::Value {
    let with = [&["--json"], arguments].concat();
    serde_json::from_str(&said_by(0, &with).0).unwrap()
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
