//! One sample of every event type, for the frozen bytes.
#![allow(clippy::unwrap_used)]

use gametape_schemas::event::*;
use gametape_schemas::verdict::TestReport;
use gametape_schemas::*;
use std::collections::BTreeMap;

pub fn digest(n: u8) -> Digest {
    Digest(format!("{n:02x}").repeat(32))
}

pub fn attempt() -> AttemptId {
    AttemptId::new("0123456789abcdef01234567")
}

pub fn task_id() -> TaskId {
    TaskId::new("toolz.1.0.0.func_pm_remove_cond__0a1b2c3d")
}

pub fn verdict(outcome: VerdictOutcome) -> Verdict {
    Verdict {
        outcome,
        reason: "every expected test passed".into(),
        patch_applied: true,
        fail_to_pass_ok: vec!["tests/test_a.py::test_é[1-x]".into()],
        fail_to_pass_bad: vec![],
        pass_to_pass_ok: 41,
        pass_to_pass_bad: vec!["tests/test_a.py::test_b".into()],
        exit_code: Some(0),
        wall_ms: 1_234,
    }
}

pub fn task() -> Task {
    Task {
        id: task_id(),
        repo: "toolz".into(),
        base_commit: "1.0.0".into(),
        environment: EnvironmentId::new("e".repeat(64)),
        bug_patch: "diff --git a/x b/x\n".into(),
        gold_patch: "diff --git a/x b/x\n".into(),
        problem_statement: "`groupby` fails.".into(),
        fail_to_pass: vec!["tests/test_a.py::test_a".into()],
        pass_to_pass: vec!["tests/test_a.py::test_b".into()],
        test_files: vec!["tests/test_a.py".into()],
        hidden_paths: vec!["tests/test_a.py".into()],
        file: "toolz/itertoolz.py".into(),
        entity: "groupby".into(),
        origin: "func_pm_remove_cond".into(),
        split: Split::HeldOut,
        execution: None,
    }
}

pub fn step() -> Step {
    Step {
        index: 2,
        completion: Completion {
            text: "view toolz/itertoolz.py groupby".into(),
            tokens: vec![1, 300, 70_000],
            logprobs: vec![-0.1, -2.5, -1e-7],
            prompt_tokens: 155,
            finished: true,
            ..Completion::default()
        },
        call: Some(ToolCall {
            tool: "view".into(),
            arguments: BTreeMap::from([("file".into(), "toolz/itertoolz.py".into())]),
        }),
        observation: "   1 def groupby(key, seq):\n".into(),
        exit_code: None,
        tool_ms: 3,
        last: false,
        ..Step::default()
    }
}

/// A turn of a model behind an endpoint, with all that a step can hold.
pub fn served_step() -> Step {
    let call = |tool: &str| ToolCall {
        tool: tool.into(),
        arguments: BTreeMap::from([("command".into(), "pytest -x".into())]),
    };
    Step {
        completion: Completion {
            calls: vec![NativeCall {
                id: "call_1".into(),
                name: "execute_bash".into(),
                arguments: "{\"command\":\"pytest -x\"}".into(),
            }],
            reasoning: "The test fails.".into(),
            served: Some(Served {
                request: "req_1".into(),
                model: "m-2026".into(),
                endpoint: "far".into(),
                tries: 2,
                wall_ms: 1_500,
                completion_tokens: 90,
                cached_tokens: 4_096,
                cost_usd: 0.25,
                finish_reason: "tool_calls".into(),
            }),
            ..step().completion
        },
        exit_code: Some(1),
        policy_ms: 1_600,
        further: vec![Acted {
            call: Some(call("execute_bash")),
            observation: "ok".into(),
            exit_code: Some(0),
            tool_ms: 4,
        }],
        hidden: vec![0, 1],
        ..step()
    }
}

/// A task that was imported: it says how its tests run.
pub fn imported() -> Task {
    Task {
        execution: Some(Box::new(Execution {
            test_patch: "--- a/t.py\n+++ b/t.py\n".into(),
            runner: Runner::Script {
                script: "pytest t.py\n".into(),
                log_parser: "parse_log_pytest".into(),
            },
            expectation: Expectation::Statuses {
                statuses: BTreeMap::from([("t.py::test_a".into(), TestStatus::Xfail)]),
            },
            timeout_s: Some(1800),
        })),
        ..task()
    }
}

/// A checkpoint as version 1 knew it.
pub fn checkpoint() -> CheckpointWritten {
    CheckpointWritten {
        name: "policy".into(),
        step: 100,
        path: "checkpoints/policy-100".into(),
        digest: digest(5),
        eval_loss: None,
        best: false,
    }
}

/// One sample of every event type, in the order of [`Event::KINDS`].
pub fn samples() -> Vec<Event> {
    vec![
        Event::RunStarted(RunStarted {
            run: RunId::new("r1"),
            code_version: "gametape 0.1.0".into(),
        }),
        Event::ConfigResolved(ConfigResolved {
            config_json: "{\"seed\":1}".into(),
            inputs: BTreeMap::from([("model".into(), digest(1))]),
        }),
        Event::RunResumed(RunResumed {
            events: 12_345_678_901,
            code_version: "gametape 0.1.0".into(),
        }),
        Event::RunPaused(RunPaused {
            reason: "interrupted".into(),
        }),
        Event::RunFinished(RunFinished {
            wall_seconds: 1800.25,
            phases: BTreeMap::from([("forge".into(), 60.5), ("teacher".into(), 1.0)]),
            peak_memory_bytes: 6_000_000_000,
        }),
        Event::ActorDied(ActorDied {
            actor: "grader".into(),
            cause: DeathCause::Hang,
            deaths: 2,
        }),
        Event::ActorRestarted(ActorRestarted {
            actor: "grader".into(),
            backoff_ms: 250,
        }),
        Event::EnvironmentProvisioned(EnvironmentProvisioned {
            environment: EnvironmentId::new("e".repeat(64)),
            package: "toolz 1.0.0".into(),
            tree: digest(2),
            python: "3.11.7".into(),
        }),
        Event::TaskRegistered(TaskRegistered {
            task: imported(),
            imported: Some(Imported {
                format: "swe-bench".into(),
                row_json: "{\"instance_id\":\"t\"}".into(),
                recipe: Some(EnvironmentRecipe::of_image(
                    "a/b",
                    "1.0",
                    "image@sha256:0",
                    "/testbed",
                )),
            }),
        }),
        Event::TaskValidated(TaskValidated {
            task: task_id(),
            repeats: 2,
            gold: verdict(VerdictOutcome::Resolved),
            empty: verdict(VerdictOutcome::Unresolved),
        }),
        Event::TaskQuarantined(TaskQuarantined {
            task: task_id(),
            reason: "flaky".into(),
            detail: "run 2 differs".into(),
        }),
        Event::TaskChecked(TaskChecked {
            task: task_id(),
            rules: "strict/3".into(),
            runs: vec![
                CheckRun {
                    gold: true,
                    verdict: Ok(verdict(VerdictOutcome::Resolved)),
                },
                CheckRun {
                    gold: false,
                    verdict: Err(Failure::new(
                        FailureKind::Sandbox,
                        "GT-SANDBOX-DIED",
                        "gone",
                    )),
                },
            ],
            flaky: vec!["t.py::test_a".into()],
            network: vec![],
            dropped: vec!["t.py::test_a".into()],
        }),
        Event::ForgeFinished(ForgeFinished {
            package: "toolz".into(),
            candidates: 90,
            validated: 40,
            dropped: BTreeMap::from([("timeout".into(), 3)]),
            modifiers: BTreeMap::from([("func_pm_remove_cond".into(), (9, 4))]),
        }),
        Event::AttemptScheduled(AttemptScheduled {
            attempt: attempt(),
            key: AttemptKey {
                task: task_id(),
                policy: PolicyRef::Model {
                    checkpoint: CheckpointId::new("c".repeat(64)),
                },
                scaffold: "compact/1".into(),
                sampling: Sampling {
                    temperature: 0.8,
                    top_p: 0.95,
                    max_tokens: 160,
                    ..Sampling::default()
                },
                seed: 7,
                index: 3,
                generation: 0,
            },
            purpose: "explore".into(),
        }),
        Event::SandboxOpened(SandboxOpened {
            attempt: attempt(),
            backend: "local".into(),
            environment: EnvironmentId::new("e".repeat(64)),
        }),
        Event::SandboxClosed(SandboxClosed {
            attempt: attempt(),
            usage: SandboxUsage {
                wall_ms: 1_234,
                commands: 7,
                cpu_us: 56_789,
                peak_memory_bytes: Some(1 << 20),
                written_bytes: Some(4_096),
                processes_peak: None,
                limits: vec![ResourceLimit::Memory, ResourceLimit::WallTime],
                scratch: Vec::new(),
            },
        }),
        Event::StepTaken(StepTaken {
            attempt: attempt(),
            step: served_step(),
        }),
        Event::PatchSubmitted(PatchSubmitted {
            end: AttemptEnd {
                attempt: attempt(),
                reason: EndReason::Submitted,
                patch: String::new(),
            },
        }),
        Event::TestsRan(TestsRan {
            task: task_id(),
            attempt: attempt(),
            cache_key: digest(3),
            report: TestReport {
                statuses: BTreeMap::from([("t.py::test_a".into(), TestStatus::Passed)]),
                exit_code: Some(0),
                timed_out: false,
                complete: true,
                failures: BTreeMap::new(),
                wall_ms: 250,
                durations_ms: BTreeMap::from([("t.py::test_a".into(), 1.5)]),
                tail: "1 passed in 0.01s".into(),
            },
            log: "PASSED t.py::test_a\n1 passed in 0.01s\n".into(),
        }),
        Event::Graded(Graded {
            attempt: attempt(),
            cache_key: digest(3),
            cached: false,
            rules: "strict/3".into(),
            verdict: verdict(VerdictOutcome::Infrastructure),
        }),
        Event::Regraded(Regraded {
            attempt: attempt(),
            cache_key: digest(3),
            rules: "swebench/1".into(),
            verdict: verdict(VerdictOutcome::Resolved),
            before: VerdictOutcome::Unresolved,
        }),
        Event::ConductExamined(ConductExamined {
            attempt: attempt(),
            detectors: "conduct/1".into(),
            findings: vec![Finding {
                kind: FindingKind::NetworkTried,
                severity: Severity::Soft,
                step: Some(2),
                path: None,
                evidence: "curl example.org".into(),
            }],
        }),
        Event::VerifierScored(VerifierScored {
            attempt: attempt(),
            verifier: CheckpointId::new("v"),
            logprob_yes: -0.25,
            logprob_no: -1.5,
            score: 0.777_299_861_174_690_6,
        }),
        Event::AttemptReplayed(AttemptReplayed {
            attempt: attempt(),
            steps: 4,
            rules: vec!["clock".into(), "duration".into()],
            rules_version: "normalise/1".into(),
        }),
        Event::AttemptAbandoned(AttemptAbandoned {
            attempt: attempt(),
            step: 4,
            divergence: Divergence {
                field: Diverged::Observation,
                line: Some(2),
                recorded: "ran:\nassert 3 == 4".into(),
                replayed: "ran:\nassert 3 == 5".into(),
            },
            rules: vec!["clock".into()],
            rules_version: "normalise/1".into(),
        }),
        Event::AttemptFailed(AttemptFailed {
            attempt: attempt(),
            failure: Failure::new(FailureKind::Sandbox, "GT-SANDBOX-OPEN", "no namespaces")
                .with_help("run `gametape doctor`"),
            will_retry: true,
        }),
        Event::TrajectoryImported(TrajectoryImported {
            attempt: attempt(),
            format: "openhands".into(),
            source: "output.jsonl: line 3".into(),
            cost_usd: Some(0.25),
            wall_ms: None,
            record: "{\"instance_id\": \"a__b-1\", \"n\": 1.0}".into(),
        }),
        Event::DatasetBuilt(DatasetBuilt {
            name: "policy".into(),
            recipe_json: "{}".into(),
            prefix_end: 100,
            digest: digest(4),
            rows: 12,
            dropped: BTreeMap::from([("too_long".into(), 1)]),
            labels: BTreeMap::from([("resolved".into(), 12)]),
        }),
        Event::TrainingStarted(TrainingStarted {
            name: "policy".into(),
            base: CheckpointId::new("b"),
            dataset: digest(4),
            hyper_json: "{}".into(),
            steps: 300,
            tokens: 200_000,
            loss_tokens: 40_000,
            origin: Some(TrainingOrigin {
                code_version: "gametape 0.1.0".into(),
                base_name: "smollm2".into(),
                dataset_name: "wins".into(),
                preset: Some("swegym-policy".into()),
                allowed_overlap: vec!["owner/repo".into()],
                setting: TrainingSetting {
                    tokenizer: digest(6),
                    rows: 10,
                    measured: 1,
                    too_long: 2,
                    without_loss: 3,
                    precision: "full".into(),
                    micro_tokens: 1024,
                    threads: 2,
                },
            }),
        }),
        Event::TrainingProgressed(TrainingProgressed {
            name: "policy".into(),
            step: 1,
            loss: 2.5,
            grad_norm: 1.25,
            lr: 1e-4,
            tokens_per_s: 512.0,
            eval_loss: Some(1.5),
            memory_bytes: Some(3 << 30),
            micro_tokens: Some(512),
            checkpoint_layers: Some(true),
        }),
        Event::CheckpointWritten(CheckpointWritten {
            eval_loss: Some(1.5),
            best: true,
            ..checkpoint()
        }),
        Event::TrainingFinished(TrainingFinished {
            name: "policy".into(),
            checkpoint: CheckpointId::new("c"),
            path: "checkpoints/policy".into(),
            steps: 300,
            final_loss: 0.125,
            tokens: 400_000,
            wall_seconds: 600.5,
            weights: Some(digest(7)),
        }),
        Event::EvaluationStarted(EvaluationStarted {
            name: "held-out".into(),
            tasks: vec![task_id()],
            k: 8,
        }),
        Event::SelectionMade(SelectionMade {
            evaluation: "held-out".into(),
            task: task_id(),
            rule: "verifier".into(),
            attempt: attempt(),
            score: 0.75,
        }),
        Event::EvaluationFinished(EvaluationFinished {
            name: "held-out".into(),
            tasks: 40,
            k: 8,
            estimates: BTreeMap::from([(
                "gain.pass@1".into(),
                Estimate {
                    mean: 0.15,
                    low: 0.05,
                    high: 0.25,
                },
            )]),
            counts: BTreeMap::from([("empty_patches".into(), 3.0)]),
        }),
        Event::RoundDecided(RoundDecided {
            round: 2,
            incumbent: CheckpointId::new("c"),
            candidate: Some(CheckpointId::new("d")),
            decision: Decision::Refused,
            tasks: 20,
            incumbent_pass: Some(Estimate {
                mean: 0.5,
                low: 0.25,
                high: 0.75,
            }),
            candidate_pass: Some(Estimate {
                mean: 0.25,
                low: 0.125,
                high: 0.375,
            }),
            gain: None,
            tolerance: 0.125,
            reason: "it resolves less".into(),
        }),
    ]
}
