//! `gametape train` from the outside, with a tiny random model: a dataset becomes weights; killed
//! in the middle the same command comes to the same weights; where they come from; what is
//! refused. Tapes are made up here: no sandbox and no network are needed.

#![allow(clippy::unwrap_used)]

use gametape_model::{ChatTokenizer, tiny};
use gametape_schemas::event::{
    AttemptScheduled, Graded, PatchSubmitted, StepTaken, TaskRegistered, TaskValidated,
};
use gametape_schemas::{
    AttemptEnd, AttemptKey, CheckpointId, Completion, Digest, EndReason, EnvironmentId, Event,
    NewEvent, PolicyRef, Sampling, Split, Step, StreamId, Task, TaskId, ToolCall, Verdict,
    VerdictOutcome,
};
use gametape_tape::SledTape;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

/// Tasks that are learned from; each is solved by the oracle and by a model.
const TASKS: u64 = 6;

/// A run whose tape was made up, and the program on it.
struct Run {
    home: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let run = Self {
            home: tempfile::tempdir().unwrap(),
        };
        let mut events = Vec::new();
        for n in 0..TASKS {
            events.extend(registered(n, Split::Train));
            events.extend(attempt(n, PolicyRef::Oracle, VerdictOutcome::Resolved));
            let model = PolicyRef::Model {
                checkpoint: CheckpointId::new("0123456789abcdef01234567"),
            };
            let outcome = match n % 2 {
                0 => VerdictOutcome::Resolved,
                _ => VerdictOutcome::Unresolved,
            };
            events.extend(attempt(n, model, outcome));
        }
        run.append(events);
        let wins =
            "version = 1\nkind = \"policy\"\n[[filter]]\nby = \"outcome\"\nis = [\"resolved\"]\n";
        run.build("wins", wins);
        run
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("run")
    }

    fn append(&self, events: Vec<NewEvent>) {
        let tape = SledTape::open(&self.dir().join("tape"), Arc::new(|| 1)).unwrap();
        for chunk in events.chunks(64) {
            tape.append(chunk.to_vec()).unwrap();
        }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn build(&self, name: &str, recipe: &str) {
        let path = self.file(&format!("{name}.toml"), recipe);
        self.says(0, &["dataset", "build", &path, "--name", name]);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gametape"));
        command
            .args(args)
            .arg("--run")
            .arg(self.dir())
            .env("GAMETAPE_PRECISION", "f32")
            .env("GAMETAPE_CACHE", self.home.path().join("cache"))
            .stdin(Stdio::null());
        command
    }

    fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of a call that must end with this code.
    fn says(&self, code: i32, args: &[&str]) -> String {
        let output = self.output(args);
        let error = String::from_utf8_lossy(&output.stderr);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {out}\n{error}");
        out
    }

    fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        serde_json::from_str(&self.says(0, &args)).unwrap()
    }

    /// A call that must be refused with this code, as wrong input; gives what it said.
    fn refused(&self, code: &str, args: &[&str]) -> String {
        let output = self.output(args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(&format!("[{code}]")), "{args:?}: {error}");
        error
    }

    /// Names of all files of the run but the tape's own, which opening touches.
    fn files(&self) -> Vec<PathBuf> {
        let all = walkdir::WalkDir::new(self.dir()).sort_by_file_name();
        let inside = all.into_iter().filter_entry(|e| e.file_name() != "tape");
        inside.map(|entry| entry.unwrap().into_path()).collect()
    }

    fn weights(&self, name: &str) -> PathBuf {
        self.dir()
            .join("checkpoints")
            .join(name)
            .join("final/model.safetensors")
    }

    fn events(&self, kind: &str) -> Vec<Value> {
        let export = self.says(0, &["tape", "export"]);
        let all = export
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap());
        all.filter(|event| event["event"]["type"] == kind).collect()
    }

    /// Starts, and waits until the training has written another checkpoint; the tape tells when to
    /// look. `None` when the process ended before.
    fn until_saved(&self, args: &[&str], name: &str) -> Option<Child> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        inotify
            .add_watch(&self.dir().join("tape"), AddWatchFlags::IN_MODIFY)
            .unwrap();
        let saved = self
            .dir()
            .join("checkpoints")
            .join(name)
            .join("checkpoints");
        let steps = || -> BTreeSet<String> {
            let entries = std::fs::read_dir(&saved).into_iter().flatten().flatten();
            let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
            names.filter(|name| name.starts_with("step-")).collect()
        };
        let before = steps();
        let mut command = self.command(args);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        loop {
            let mut fds = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(200u8)).unwrap();
            let _ = inotify.read_events();
            if !steps().is_subset(&before) {
                return Some(child);
            }
            if child.try_wait().unwrap().is_some() {
                return None;
            }
        }
    }
}

fn task(n: u64, split: Split) -> Task {
    Task {
        id: TaskId::new(format!("task-{n}")),
        repo: format!("owner/repo{n}"),
        base_commit: format!("commit-{n}"),
        environment: EnvironmentId::new("e"),
        bug_patch: String::new(),
        gold_patch: format!("--- a/f{n}.py\n+++ b/f{n}.py\n@@ -1 +1 @@\n-a{n}\n+b{n}\n"),
        problem_statement: format!("`thing{n}` gives {n} and should give one more."),
        fail_to_pass: vec!["t".to_owned()],
        pass_to_pass: vec![],
        test_files: vec![],
        hidden_paths: vec![],
        file: format!("f{n}.py"),
        entity: format!("thing{n}"),
        origin: "imported".to_owned(),
        split,
        execution: None,
    }
}

fn verdict(outcome: VerdictOutcome) -> Verdict {
    Verdict {
        outcome,
        reason: String::new(),
        patch_applied: true,
        fail_to_pass_ok: vec![],
        fail_to_pass_bad: vec![],
        pass_to_pass_ok: 0,
        pass_to_pass_bad: vec![],
        exit_code: Some(0),
        wall_ms: 1,
    }
}

fn registered(n: u64, split: Split) -> Vec<NewEvent> {
    let task = task(n, split);
    let (id, stream) = (task.id.clone(), StreamId::task(&task.id));
    let validated = TaskValidated {
        task: id,
        repeats: 1,
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

/// An attempt of two turns; a model's have the tiny tokenizer's tokens.
fn attempt(n: u64, policy: PolicyRef, outcome: VerdictOutcome) -> Vec<NewEvent> {
    let tokenizer = ChatTokenizer::new(tiny::tokenizer_parts(), &[2]).unwrap();
    let is_model = matches!(policy, PolicyRef::Model { .. });
    let key = AttemptKey {
        task: TaskId::new(format!("task-{n}")),
        policy,
        scaffold: gametape_agent::compact::SCAFFOLD.to_owned(),
        sampling: Sampling::default(),
        seed: 1,
        index: 0,
        generation: 0,
    };
    let attempt = key.id();
    let mut events = vec![Event::AttemptScheduled(AttemptScheduled {
        attempt: attempt.clone(),
        key,
        purpose: if is_model { "explore" } else { "teacher" }.to_owned(),
    })];
    let turns = [
        ("view", format!("view f{n}.py thing{n}")),
        (
            "submit",
            format!("submit{}", "!".repeat(usize::from(is_model))),
        ),
    ];
    for ((tool, text), index) in turns.into_iter().zip(0..) {
        let mut tokens = tokenizer.encode(&text).unwrap();
        tokens.push(2);
        let step = Step {
            index,
            completion: Completion {
                tokens: if is_model { tokens } else { Vec::new() },
                text,
                finished: true,
                ..Completion::default()
            },
            call: Some(ToolCall {
                tool: tool.to_owned(),
                arguments: [("file".to_owned(), format!("f{n}.py"))].into(),
            }),
            observation: format!("def thing{n}():\n    return {n}\n"),
            ..Step::default()
        };
        events.push(Event::StepTaken(StepTaken {
            attempt: attempt.clone(),
            step,
        }));
    }
    events.push(Event::PatchSubmitted(PatchSubmitted {
        end: AttemptEnd {
            attempt: attempt.clone(),
            reason: EndReason::Submitted,
            patch: task(n, Split::Train).gold_patch,
        },
    }));
    events.push(Event::Graded(Graded {
        attempt: attempt.clone(),
        cache_key: Digest::of_bytes(attempt.as_str().as_bytes()),
        cached: false,
        rules: "strict/3".to_owned(),
        verdict: verdict(outcome),
    }));
    let stream = StreamId::attempt(&attempt);
    let named = events.into_iter().enumerate();
    named
        .map(|(at, event)| NewEvent::named(stream.clone(), &at.to_string(), event))
        .collect()
}

const TRAIN: [&str; 15] = [
    "train",
    "--dataset",
    "wins",
    "--base",
    "tiny-random",
    "--name",
    "first",
    "--threads",
    "1",
    "--set",
    "epochs=30",
    "--set",
    "batch_size=3",
    "--set",
    "checkpoint_every=3",
];

#[test]
fn killed_in_the_middle_it_comes_to_the_same_weights_and_their_ancestry_is_told() {
    let (calm, stormy) = (Run::new(), Run::new());
    let before = calm.files();
    let outlook = calm.json(&[&TRAIN[..], &["--dry-run"]].concat());
    assert_eq!(calm.files(), before);
    // Nine rows: six of the oracle, three of the model.
    assert_eq!(outlook["outlook"]["rows"], 9, "{outlook}");
    assert_eq!(outlook["outlook"]["steps"], 90);
    assert!(calm.events("TrainingStarted").is_empty());
    let ended = calm.json(&TRAIN);
    assert_eq!(
        (&ended["trained"], &ended["steps"]),
        (&true.into(), &90.into())
    );
    assert_eq!(ended["checkpoint"], outlook["checkpoint"]);

    // Kill -9 behind a checkpoint; then Ctrl-C; then to the end.
    let mut child = stormy
        .until_saved(&TRAIN, "first")
        .expect("it was still at work");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!stormy.weights("first").exists());
    let mut child = stormy
        .until_saved(&TRAIN, "first")
        .expect("it was still at work");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let code = child.wait().unwrap().code();
    // It may have been done before it heard of the request.
    assert!(matches!(code, Some(130 | 0)), "{code:?}");
    let list = stormy.says(0, &["train", "show"]);
    assert!(
        list.contains("goes on at step") || code == Some(0),
        "{list}"
    );
    stormy.says(0, &TRAIN);
    let read = |run: &Run, name: &str| std::fs::read(run.weights(name)).unwrap();
    assert!(
        read(&calm, "first") == read(&stormy, "first"),
        "a resumed training gave other weights"
    );
    assert_eq!(stormy.events("TrainingFinished").len(), 1);
    let finished = &stormy.events("TrainingFinished")[0]["event"]["body"];
    let digest = Digest::of_bytes(&read(&stormy, "first"));
    assert_eq!(finished["weights"], digest.0, "{finished}");
    assert_eq!(finished["path"], "checkpoints/first/final");

    // Once it has ended, the same command does nothing.
    let before = stormy.says(0, &["tape", "export"]);
    let again = stormy.says(0, &TRAIN);
    assert!(again.contains("nothing was done"), "{again}");
    assert_eq!(stormy.json(&TRAIN)["trained"], false);
    assert_eq!(before, stormy.says(0, &["tape", "export"]));

    // The weights are gone: made again, they are what the tape says, and nothing new is said
    // of their end.
    std::fs::remove_dir_all(stormy.dir().join("checkpoints/first")).unwrap();
    stormy.says(0, &TRAIN);
    assert!(read(&calm, "first") == read(&stormy, "first"));
    assert_eq!(stormy.events("TrainingFinished").len(), 1);

    // A second training starts from the first, by its checkpoint; and from a copy of it.
    let id = ended["checkpoint"].as_str().unwrap();
    let second = [
        "train",
        "--dataset",
        "wins",
        "--base",
        &id[..8],
        "--name",
        "second",
        "--threads",
        "1",
        "--set",
        "lora_rank=4",
    ];
    assert_eq!(stormy.json(&second)["base"]["checkpoint"], id);
    let copy = stormy.home.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(stormy.dir().join("checkpoints/first/final")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let copied = [
        "train",
        "--dataset",
        "wins",
        "--base",
        copy.to_str().unwrap(),
        "--dry-run",
    ];
    assert_eq!(stormy.json(&copied)["base"]["checkpoint"], id);

    let tree = stormy.json(&["train", "show", "second"]);
    let made = &tree["from"]["training"];
    assert_eq!(made["setting"]["rows"], 9);
    assert_eq!(made["hyper"]["lora_rank"], 4);
    assert_eq!(made["base"]["checkpoint"], id);
    let first = &made["base"]["from"]["training"];
    assert_eq!(
        (&first["steps"], &first["base"]["called"]),
        (&90.into(), &"tiny-random".into())
    );
    assert_eq!(first["base"]["from"], "elsewhere");
    let authors = first["dataset"]["authors"].as_array().unwrap();
    let told: Vec<_> = authors
        .iter()
        .map(|a| (a["policy"].as_str().unwrap(), a["rows"].as_u64()))
        .collect();
    assert_eq!(told, [("oracle", Some(6)), ("model 0123456789ab", Some(3))]);
    assert_eq!(authors[1]["weights"]["from"], "elsewhere");
    let text = stormy.says(0, &["train", "show", id]);
    for words in [
        "base: tiny-random",
        "6 rows of 6 attempts by oracle (teacher 6), 6 resolved",
        "0123456789ab, not made on this tape",
    ] {
        assert!(text.contains(words), "`{words}` is missing in\n{text}");
    }
    stormy.says(0, &["tape", "verify"]);
}

/// The tiny model with another number for every byte.
fn shifted(place: &Path) {
    tiny::write(place, 42).unwrap();
    let path = place.join("tokenizer.json");
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (_, id) in json["model"]["vocab"].as_object_mut().unwrap() {
        let n = id.as_u64().unwrap();
        if n > 2 {
            *id = (3 + (n - 3 + 1) % 256).into();
        }
    }
    std::fs::write(&path, json.to_string()).unwrap();
}

#[test]
fn what_cannot_be_trained_is_refused_by_code_before_anything_begins() {
    let run = Run::new();
    let with = |more: &[&'static str]| {
        [
            &["train", "--dataset", "wins", "--base", "tiny-random"],
            more,
        ]
        .concat()
    };
    run.refused(
        "GT-DATASET-NONE",
        &["train", "--dataset", "losses", "--base", "tiny-random"],
    );
    run.refused(
        "GT-TRAIN-UNKNOWN",
        &["train", "--dataset", "wins", "--base", "nowhere"],
    );
    run.refused("GT-TRAIN-OPTIONS", &with(&["--preset", "swegym"]));
    run.refused("GT-TRAIN-OPTIONS", &with(&["--set", "rank=3"]));
    run.refused("GT-TRAIN-OPTIONS", &with(&["--set", "epochs=0"]));
    run.refused("GT-TRAIN-NAME", &with(&["--name", "policy-2"]));
    run.refused("GT-TRAIN-NAME", &with(&["--name", "a/b"]));
    let said = run.refused("GT-TRAIN-EMPTY", &with(&["--set", "max_tokens=50"]));
    assert!(
        said.contains("of 9 rows, 9 are longer than max_tokens = 50 (from "),
        "{said}"
    );
    assert!(said.contains("set max_tokens to at least"), "{said}");
    assert_eq!(
        run.json(&with(&["--preset", "swegym-policy", "--dry-run"]))["hyper"]["epochs"],
        5
    );

    // Pairs.
    run.build("pairs", "version = 1\nkind = \"preference\"\n[[filter]]\nby = \"outcome\"\nis = [\"resolved\", \"unresolved\"]\n");
    run.refused(
        "GT-TRAIN-KIND",
        &["train", "--dataset", "pairs", "--base", "tiny-random"],
    );

    // Another tokenizer than that of the model whose attempts these are.
    let other = run.home.path().join("other");
    shifted(&other);
    let other = other.to_str().unwrap();
    let on_other = ["train", "--dataset", "wins", "--base", other, "--dry-run"];
    let said = run.refused("GT-TRAIN-TOKENIZER", &on_other);
    assert!(said.contains("6 of 6 recorded turns"), "{said}");
    assert!(said.contains("0123456789abcdef01234567"), "{said}");
    run.says(0, &[&on_other[..], &["--other-tokenizer"]].concat());
    // The oracle's attempts alone have no tokens: any tokenizer reads their words.
    run.build("taught", "version = 1\nkind = \"policy\"\n[[filter]]\nby = \"outcome\"\nis = [\"resolved\"]\n[[filter]]\nby = \"policy\"\nkinds = [\"oracle\"]\n");
    run.says(
        0,
        &["train", "--dataset", "taught", "--base", other, "--dry-run"],
    );

    // Lengths that another tokenizer measured.
    let attempts: Vec<String> = run
        .events("AttemptScheduled")
        .iter()
        .map(|e| {
            format!(
                "\"{}\": 100",
                e["event"]["body"]["attempt"].as_str().unwrap()
            )
        })
        .collect();
    run.file("lengths.json", &format!("{{{}}}", attempts.join(", ")));
    run.build("measured", "version = 1\nkind = \"policy\"\nlengths = \"lengths.json\"\n[[filter]]\nby = \"outcome\"\nis = [\"resolved\"]\n[[filter]]\nby = \"length\"\nmax = 200\n");
    let said = run.refused(
        "GT-TRAIN-TOKENIZER",
        &["train", "--dataset", "measured", "--base", "tiny-random"],
    );
    assert!(said.contains("9 of 9 differ"), "{said}");

    // Nothing of all this is on the tape.
    assert!(run.events("TrainingStarted").is_empty());
    run.refused("GT-TRAIN-UNKNOWN", &["train", "show"]);

    // A name is one training's; its weights and its tokenizer are those of the tape.
    let short = [
        "--name",
        "short",
        "--threads",
        "1",
        "--set",
        "max_tokens=8000",
    ];
    run.says(0, &with(&short));
    let said = run.refused("GT-TRAIN-NAME", &with(&["--name", "short"]));
    assert!(said.contains("hyperparameters"), "{said}");
    run.refused("GT-TRAIN-UNKNOWN", &["train", "show", "long"]);
    let from_short = ["train", "--dataset", "wins", "--base", "short", "--dry-run"];
    run.says(0, &from_short);
    let place = run.dir().join("checkpoints/short/final");
    let kept = std::fs::read(place.join("tokenizer.json")).unwrap();
    std::fs::copy(
        Path::new(other).join("tokenizer.json"),
        place.join("tokenizer.json"),
    )
    .unwrap();
    let said = run.refused("GT-TRAIN-TOKENIZER", &from_short);
    assert!(said.contains("tokenizer beside them"), "{said}");
    std::fs::write(place.join("tokenizer.json"), kept).unwrap();
    let mut bytes = std::fs::read(run.weights("short")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(run.weights("short"), bytes).unwrap();
    let said = run.refused("GT-TRAIN-BASE", &from_short);
    assert!(
        said.contains("are not those that the training `short` made"),
        "{said}"
    );

    // A task like one that is learned is held out since.
    run.append(
        registered(90, Split::HeldOut)
            .into_iter()
            .map(|mut event| {
                if let Event::TaskRegistered(body) = &mut event.event {
                    body.task.gold_patch = task(2, Split::Train).gold_patch;
                    body.task.repo = task(2, Split::Train).repo;
                    body.task.base_commit = task(2, Split::Train).base_commit;
                }
                event
            })
            .collect(),
    );
    let said = run.refused("GT-DATASET-OVERLAP", &with(&["--dry-run"]));
    assert!(said.contains("task-2 and task-90"), "{said}");
    run.says(0, &with(&["--dry-run", "--allow-overlap", "task-90"]));
}
