//! A tape made by hand for tests: what a run would leave, with known numbers.

use super::{evaluate, selections};
use gametape_schemas::attempt::{AttemptEnd, Completion, Step, ToolCall};
use gametape_schemas::event::*;
use gametape_schemas::{
    AttemptKey, CheckpointId, Digest, EndReason, EnvironmentId, PolicyRef, RunId, Sampling, Split,
    StreamId, Task, TaskId, Verdict, VerdictOutcome,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeMap;

/// How a tape turns out.
pub struct Plan {
    /// Attempts per held-out task.
    pub k: u32,
    /// Wins of (base, tuned) on each held-out task.
    pub wins: Vec<(u32, u32)>,
    /// Half the width of the noise on the verifier's scores; 0 = it is always right.
    pub noise: f64,
}

impl Plan {
    /// Four held-out tasks, four attempts, a perfect verifier.
    pub fn small() -> Self {
        Self {
            k: 4,
            wins: vec![(0, 0), (0, 1), (0, 2), (1, 4)],
            noise: 0.0,
        }
    }

    /// Like a run that went well: 48 held-out tasks, eight attempts.
    pub fn shown() -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let wins = (0..48)
            .map(|_| {
                let ease: f64 = rng.random();
                let draw = |p: f64, rng: &mut ChaCha8Rng| {
                    (0..8).filter(|_| rng.random::<f64>() < p).count() as u32
                };
                (
                    draw(0.06 * ease, &mut rng),
                    draw(0.9 * ease * ease, &mut rng),
                )
            })
            .collect();
        Self {
            k: 8,
            wins,
            noise: 0.8,
        }
    }
}

struct Writer {
    records: Vec<Record>,
    rng: ChaCha8Rng,
}

impl Writer {
    fn add(&mut self, stream: StreamId, event: Event) {
        let seq = self.records.len() as u64;
        self.records.push(Record {
            seq,
            event_id: format!("{stream}#{seq}"),
            stream,
            version: 0,
            causation: None,
            correlation: None,
            at_micros: 1_700_000_000_000_000 + seq * 250_000,
            event,
        });
    }

    fn task(&mut self, repo: &str, name: &str, split: Split) -> TaskId {
        let origins = [
            "func_pm_op_change",
            "func_pm_op_swap",
            "func_pm_remove_cond",
            "func_pm_ctrl_invert_if",
            "func_pm_remove_assign",
            "func_pm_op_change_const",
        ];
        let origin = origins[self.records.len() / 2 % origins.len()];
        let id = TaskId::new(format!("{repo}.1.0.{name}"));
        let task = Task {
            id: id.clone(),
            repo: repo.into(),
            base_commit: "1.0".into(),
            environment: EnvironmentId::new("env"),
            bug_patch: "bug".into(),
            gold_patch: "gold".into(),
            problem_statement: "it is wrong".into(),
            fail_to_pass: vec!["t::a".into()],
            pass_to_pass: vec!["t::b".into()],
            test_files: vec!["t.py".into()],
            hidden_paths: vec![],
            file: "x.py".into(),
            entity: "f".into(),
            origin: origin.into(),
            split,
            execution: None,
        };
        let stream = StreamId::task(&id);
        self.add(
            stream.clone(),
            Event::TaskRegistered(TaskRegistered::forged(task)),
        );
        self.add(
            stream,
            Event::TaskValidated(TaskValidated {
                task: id.clone(),
                repeats: 2,
                gold: verdict(true),
                empty: verdict(false),
            }),
        );
        id
    }

    fn attempt(&mut self, task: &TaskId, purpose: &str, index: u32, won: bool, score: Option<f64>) {
        let policy = match purpose {
            "teacher" => PolicyRef::Oracle,
            "evaluate-base" => PolicyRef::Model {
                checkpoint: CheckpointId::new("base"),
            },
            _ => PolicyRef::Model {
                checkpoint: CheckpointId::new("tuned"),
            },
        };
        let key = AttemptKey {
            task: task.clone(),
            policy,
            scaffold: "compact/1".into(),
            sampling: Sampling {
                temperature: 0.8,
                top_p: 1.0,
                max_tokens: 96,
                ..Sampling::default()
            },
            seed: 7,
            index,
            generation: 0,
        };
        let attempt = key.id();
        let stream = StreamId::attempt(&attempt);
        let garbled = purpose == "evaluate-base" && index % 2 == 1;
        self.add(
            stream.clone(),
            Event::AttemptScheduled(AttemptScheduled {
                attempt: attempt.clone(),
                key,
                purpose: purpose.into(),
            }),
        );
        for (at, tool) in ["view", "edit", "submit"].iter().enumerate() {
            let tokens = self.rng.random_range(8..40);
            let certain = if won { -0.1 } else { -0.4 };
            let step = Step {
                index: at as u32,
                completion: Completion {
                    text: (*tool).into(),
                    tokens: vec![1; tokens],
                    logprobs: vec![certain * self.rng.random::<f32>(); tokens],
                    prompt_tokens: 150,
                    finished: true,
                    ..Completion::default()
                },
                call: (!garbled || at != 1).then(|| ToolCall {
                    tool: (*tool).into(),
                    arguments: BTreeMap::new(),
                }),
                observation: String::new(),
                exit_code: None,
                tool_ms: 1,
                last: at == 2,
                ..Step::default()
            };
            self.add(
                stream.clone(),
                Event::StepTaken(StepTaken {
                    attempt: attempt.clone(),
                    step,
                }),
            );
        }
        let patch = match (won, garbled) {
            (true, _) => "the right patch".to_owned(),
            (false, true) => String::new(),
            (false, false) => format!("wrong patch {index}"),
        };
        self.add(
            stream.clone(),
            Event::PatchSubmitted(PatchSubmitted {
                end: AttemptEnd {
                    attempt: attempt.clone(),
                    reason: EndReason::Submitted,
                    patch,
                },
            }),
        );
        self.add(
            stream.clone(),
            Event::Graded(Graded {
                attempt: attempt.clone(),
                cache_key: Digest::of_bytes(b"key"),
                cached: false,
                rules: "strict/2".to_owned(),
                verdict: verdict(won),
            }),
        );
        if let Some(score) = score {
            self.add(
                stream,
                Event::VerifierScored(VerifierScored {
                    attempt,
                    verifier: CheckpointId::new("judge"),
                    logprob_yes: score.ln(),
                    logprob_no: (1.0 - score).ln(),
                    score,
                }),
            );
        }
    }

    fn training(&mut self, name: &str, checkpoint: &str, rows: u64) {
        let digest = Digest::of_bytes(name.as_bytes());
        self.add(
            StreamId::dataset(name),
            Event::DatasetBuilt(DatasetBuilt {
                name: name.into(),
                recipe_json: "{}".into(),
                prefix_end: self.records.len() as u64,
                digest: digest.clone(),
                rows,
                dropped: BTreeMap::from([("duplicate_patch".into(), 4)]),
                labels: BTreeMap::from([("resolved".into(), rows)]),
            }),
        );
        let stream = StreamId::training(name);
        self.add(
            stream.clone(),
            Event::TrainingStarted(TrainingStarted {
                name: name.into(),
                base: CheckpointId::new("base"),
                dataset: digest,
                hyper_json: "{}".into(),
                steps: 40,
                tokens: 52_000,
                loss_tokens: 9_000,
                origin: None,
            }),
        );
        for step in 1..=40 {
            self.add(
                stream.clone(),
                Event::TrainingProgressed(TrainingProgressed {
                    name: name.into(),
                    step,
                    loss: 2.0 / step as f64,
                    grad_norm: 1.0,
                    lr: 1e-4,
                    tokens_per_s: 400.0,
                    ..TrainingProgressed::default()
                }),
            );
        }
        self.add(
            stream,
            Event::TrainingFinished(TrainingFinished {
                name: name.into(),
                checkpoint: CheckpointId::new(checkpoint),
                path: format!("checkpoints/{name}"),
                steps: 40,
                final_loss: 0.05,
                tokens: 156_000,
                wall_seconds: 390.0,
                weights: None,
            }),
        );
    }
}

fn verdict(won: bool) -> Verdict {
    Verdict {
        outcome: if won {
            VerdictOutcome::Resolved
        } else {
            VerdictOutcome::Unresolved
        },
        reason: String::new(),
        patch_applied: true,
        fail_to_pass_ok: vec![],
        fail_to_pass_bad: vec![],
        pass_to_pass_ok: 1,
        pass_to_pass_bad: vec![],
        exit_code: Some(0),
        wall_ms: 100,
    }
}

/// The tape of a whole run that follows the plan.
pub fn tape(plan: &Plan) -> Vec<Record> {
    let mut w = Writer {
        records: Vec::new(),
        rng: ChaCha8Rng::seed_from_u64(5),
    };
    let run = RunId::new("run-1");
    let stream = StreamId::run(&run);
    w.add(
        stream.clone(),
        Event::RunStarted(RunStarted {
            run,
            code_version: "0.1.0".into(),
        }),
    );
    w.add(
        stream.clone(),
        Event::ConfigResolved(ConfigResolved {
            config_json: r#"{"seed":7,"model":{"source":"smollm2"},"explore":{"attempts":2},
                "policy_training":{"epochs":3,"learning_rate":0.0001}}"#
                .into(),
            inputs: BTreeMap::from([("model".into(), Digest::of_bytes(b"model"))]),
        }),
    );
    let mut train = Vec::new();
    let mut explore = Vec::new();
    for repo in ["boltons", "toolz"] {
        for i in 0..6 {
            train.push(w.task(repo, &format!("train-{i}"), Split::Train));
            explore.push(w.task(repo, &format!("explore-{i}"), Split::Explore));
        }
    }
    let held: Vec<TaskId> = (0..plan.wins.len())
        .map(|i| w.task("parse", &format!("held-{i}"), Split::HeldOut))
        .collect();
    w.add(
        stream.clone(),
        Event::ForgeFinished(ForgeFinished {
            package: "parse".into(),
            candidates: plan.wins.len() as u32 + 5,
            validated: plan.wins.len() as u32,
            dropped: BTreeMap::from([("no_failing_test".into(), 5)]),
            modifiers: BTreeMap::from([("func_pm_op_change".into(), (9, 3))]),
        }),
    );
    for task in &train {
        w.attempt(task, "teacher", 0, true, None);
    }
    w.training("policy", "tuned", 12);
    for task in &explore {
        w.attempt(task, "explore", 0, true, None);
        w.attempt(task, "explore", 1, false, None);
    }
    w.training("verifier", "judge", 24);
    for (task, (base, tuned)) in held.iter().zip(&plan.wins) {
        for index in 0..plan.k {
            w.attempt(task, "evaluate-base", index, index < *base, None);
        }
        for index in 0..plan.k {
            let won = index < *tuned;
            let noise = plan.noise * (w.rng.random::<f64>() - 0.5);
            let score = if won { 0.7 + noise } else { 0.4 + noise };
            let score = score.clamp(0.01, 0.99);
            w.attempt(task, "evaluate-tuned", index, won, Some(score));
        }
    }
    let evaluation = evaluate(&w.records, 7);
    for selection in selections(&w.records) {
        w.add(
            StreamId::evaluation("held-out"),
            Event::SelectionMade(selection),
        );
    }
    w.add(
        StreamId::evaluation("held-out"),
        Event::EvaluationFinished(evaluation),
    );
    w.add(
        stream,
        Event::RunFinished(RunFinished {
            wall_seconds: 1500.0,
            phases: BTreeMap::from([("forge".into(), 300.0), ("train-policy".into(), 390.0)]),
            peak_memory_bytes: 3 << 30,
        }),
    );
    w.records
}
