//! Tapes made by hand for tests: attempts with known verdicts, patches, scores and steps.

use gametape_schemas::attempt::{AttemptEnd, Completion, Served, Step, ToolCall};
use gametape_schemas::event::*;
use gametape_schemas::{
    AttemptId, AttemptKey, CheckpointId, Digest, EndReason, EnvironmentId, Failure, FailureKind,
    PolicyRef, RunId, Sampling, Split, Task, TaskId, Verdict, VerdictOutcome,
};
use std::collections::BTreeMap;

/// One attempt as it shall be.
#[derive(Clone)]
pub struct Try {
    /// The task.
    pub task: &'static str,
    /// Weights that act.
    pub weights: &'static str,
    /// Phase.
    pub purpose: &'static str,
    /// Scaffold.
    pub scaffold: &'static str,
    /// Seed.
    pub seed: u64,
    /// Which of the k.
    pub index: u32,
    /// What the tests say; `None` for a failure of ours before the end.
    pub outcome: Option<VerdictOutcome>,
    /// Patch.
    pub patch: String,
    /// The action of each turn.
    pub actions: Vec<&'static str>,
    /// Log-probability of each of the tokens, one a turn; 0 tokens when `None`.
    pub logprob: Option<f32>,
    /// Verifier and its score.
    pub score: Option<(&'static str, f64)>,
}

impl Try {
    /// An attempt of the tuned weights with a patch of its own.
    pub fn of(task: &'static str, index: u32, won: bool) -> Self {
        Self {
            task,
            weights: "tuned",
            purpose: "evaluate-tuned",
            scaffold: "codeact/1",
            seed: 7,
            index,
            outcome: Some(match won {
                true => VerdictOutcome::Resolved,
                false => VerdictOutcome::Unresolved,
            }),
            patch: match won {
                true => "right".to_owned(),
                false => format!("wrong {index}"),
            },
            actions: vec!["look", "edit", "submit"],
            logprob: Some(-0.5),
            score: None,
        }
    }

    /// The same of the base weights.
    pub fn base(task: &'static str, index: u32, won: bool) -> Self {
        Self {
            weights: "base",
            purpose: "evaluate-base",
            ..Self::of(task, index, won)
        }
    }

    /// With a score of a verifier.
    pub fn scored(self, score: f64) -> Self {
        Self {
            score: Some(("judge", score)),
            ..self
        }
    }

    /// The attempt's key.
    pub fn key(&self) -> AttemptKey {
        AttemptKey {
            task: TaskId::new(self.task),
            policy: PolicyRef::Model {
                checkpoint: CheckpointId::new(self.weights),
            },
            scaffold: self.scaffold.to_owned(),
            sampling: Sampling {
                temperature: 0.5,
                ..Sampling::default()
            },
            seed: self.seed,
            index: self.index,
            generation: 0,
        }
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

/// A task; names that begin with `real` are imported.
pub fn task(name: &str) -> Event {
    let task = Task {
        id: TaskId::new(name),
        repo: "some/repo".into(),
        base_commit: "1.0".into(),
        environment: EnvironmentId::new("env"),
        bug_patch: "bug".into(),
        gold_patch: "gold".into(),
        problem_statement: format!("<script>alert('{name}')</script>"),
        fail_to_pass: vec!["t::a".into()],
        pass_to_pass: vec![],
        test_files: vec!["t.py".into()],
        hidden_paths: vec![],
        file: "x.py".into(),
        entity: "f".into(),
        origin: "forged".into(),
        split: Split::HeldOut,
        execution: None,
    };
    let mut body = TaskRegistered::forged(task);
    body.imported = name.starts_with("real").then(|| Imported {
        format: "swe-bench".into(),
        row_json: "{}".into(),
        recipe: None,
    });
    Event::TaskRegistered(body)
}

/// The events of an attempt, in order.
pub fn attempt(one: &Try) -> Vec<Event> {
    let key = one.key();
    let id: AttemptId = key.id();
    let mut events = vec![
        Event::AttemptScheduled(AttemptScheduled {
            attempt: id.clone(),
            key,
            purpose: one.purpose.into(),
        }),
        Event::SandboxOpened(SandboxOpened {
            attempt: id.clone(),
            backend: "local".into(),
            environment: EnvironmentId::new("env"),
        }),
    ];
    for (action, index) in one.actions.iter().zip(0_u32..) {
        events.push(Event::StepTaken(StepTaken {
            attempt: id.clone(),
            step: Step {
                index,
                completion: Completion {
                    text: (*action).to_owned(),
                    tokens: one.logprob.map_or_else(Vec::new, |_| vec![1]),
                    logprobs: one.logprob.map_or_else(Vec::new, |l| vec![l]),
                    prompt_tokens: 10,
                    served: Some(Served {
                        cost_usd: 0.25,
                        ..Served::default()
                    }),
                    ..Completion::default()
                },
                call: Some(ToolCall {
                    tool: "bash".into(),
                    arguments: BTreeMap::from([("command".into(), (*action).to_owned())]),
                }),
                observation: "seen".into(),
                ..Step::default()
            },
        }));
    }
    let Some(outcome) = one.outcome else {
        events.push(Event::AttemptFailed(AttemptFailed {
            attempt: id,
            failure: Failure::new(FailureKind::Sandbox, "GT-SANDBOX-OPEN", "broke"),
            will_retry: false,
        }));
        return events;
    };
    events.push(Event::PatchSubmitted(PatchSubmitted {
        end: AttemptEnd {
            attempt: id.clone(),
            reason: EndReason::Submitted,
            patch: one.patch.clone(),
        },
    }));
    events.push(Event::Graded(Graded {
        attempt: id.clone(),
        cache_key: Digest::of_bytes(b"key"),
        cached: false,
        rules: "strict/3".into(),
        verdict: verdict(outcome),
    }));
    if let Some((verifier, score)) = one.score {
        events.push(Event::VerifierScored(VerifierScored {
            attempt: id,
            verifier: CheckpointId::new(verifier),
            logprob_yes: score.ln(),
            logprob_no: (1.0 - score).ln(),
            score,
        }));
    }
    events
}

/// A dataset and the training on it.
pub fn training(name: &str, base: &str, made: &str, rows: u64, hyper: &str) -> Vec<Event> {
    let digest = Digest::of_bytes(format!("{name}{rows}").as_bytes());
    vec![
        Event::DatasetBuilt(DatasetBuilt {
            name: name.into(),
            recipe_json: "{}".into(),
            prefix_end: 0,
            digest: digest.clone(),
            rows,
            dropped: BTreeMap::new(),
            labels: BTreeMap::new(),
        }),
        Event::TrainingStarted(TrainingStarted {
            name: name.into(),
            base: CheckpointId::new(base),
            dataset: digest,
            hyper_json: hyper.into(),
            steps: 1,
            tokens: 1,
            loss_tokens: 1,
            origin: None,
        }),
        Event::TrainingFinished(TrainingFinished {
            name: name.into(),
            checkpoint: CheckpointId::new(made),
            path: "p".into(),
            steps: 1,
            final_loss: 0.1,
            tokens: 1,
            wall_seconds: 1.0,
            weights: None,
        }),
    ]
}

/// A tape with these tasks, trainings and attempts.
pub fn tape(name: &str, more: Vec<Event>, tries: &[Try]) -> super::Tape {
    let mut all = super::Gather::named(name);
    all.apply(&Event::RunStarted(RunStarted {
        run: RunId::new(name),
        code_version: "0.1.0".into(),
    }));
    let mut tasks: Vec<&str> = tries.iter().map(|t| t.task).collect();
    tasks.sort_unstable();
    tasks.dedup();
    for one in tasks {
        all.apply(&task(one));
    }
    let attempts = tries.iter().flat_map(attempt);
    for event in more.into_iter().chain(attempts) {
        all.apply(&event);
    }
    all.finish()
}

/// Policy and verifier of a usual loop.
pub fn trained() -> Vec<Event> {
    let mut events = training("policy", "base", "tuned", 40, "{\"lr\":1}");
    events.extend(training("verifier", "base", "judge", 80, "{}"));
    events
}

/// What is wanted, with few resamples.
pub fn options(ks: &[usize]) -> super::Options {
    super::Options {
        ks: ks.to_vec(),
        seed: 3,
        resamples: 200,
        purposes: Vec::new(),
        policies: Vec::new(),
        by_policy: false,
        verifier: None,
    }
}
