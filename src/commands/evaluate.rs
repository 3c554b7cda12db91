//! `gametape evaluate` and `gametape explain`: what attempts on tapes are worth, and why a
//! number moved. Tapes are read a frame at a time; nothing is run.

use super::{existing, output, print_json, put, unwritable};
use crate::config::Paths;
use crate::evaluate::figure::figures;
use crate::evaluate::measure::Dice;
use crate::evaluate::{Evaluation, Gather, Options, Tape, TaskSet, data, evaluate, text};
use crate::explain::{Name, Side};
use crate::report::html_evaluation::{Texts, page};
use crate::tasks::{Filter, Problems, Source};
use clap::Args;
use gametape_schemas::{Failure, FailureKind};
use gametape_tape::scan::scan_all;
use gametape_tape::{ContentDigest, Purpose, SledStore};
use gametape_verifier::estimate::RESAMPLES;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `gametape evaluate …`
#[derive(Args, Clone, Debug)]
pub struct EvaluateArgs {
    /// Directory of a run. May be given several times: attempts that are alike count
    /// together, and each run is a repetition.
    #[arg(long = "run", value_name = "DIR", default_value = "gametape-run")]
    pub runs: Vec<PathBuf>,
    /// Only attempts of this phase (`rollout`, `evaluate-tuned`, …).
    #[arg(long, value_name = "PHASE")]
    pub purpose: Vec<String>,
    /// Only attempts of policies whose name has this part [default: all but teachers].
    #[arg(long, value_name = "NAME")]
    pub policy: Vec<String>,
    /// Put the attempts of a policy together, whatever phase asked for them.
    #[arg(long)]
    pub by_policy: bool,
    /// The verifier whose scores count, by the beginning of its name [default: the one that
    /// was trained here and scored most].
    #[arg(long, value_name = "CKPT")]
    pub verifier: Option<String>,
    /// Attempts of a task that a rule picks from.
    #[arg(
        short,
        long,
        value_name = "K",
        value_delimiter = ',',
        default_value = "1,2,4,8,16"
    )]
    pub k: Vec<std::num::NonZeroUsize>,
    /// Two sets of tasks, for the gap between them: `forged`, `imported`, `repo:NAME`,
    /// `origin:NAME`, or a file, folder or run of tasks.
    #[arg(long, num_args = 2, value_names = ["SET", "SET"])]
    pub compare_tasks: Vec<String>,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Resamples of each interval.
    #[arg(long, value_name = "N", default_value_t = RESAMPLES, hide = true)]
    pub resamples: usize,
    /// Write evaluation.json, evaluation.txt, report.html and pictures (SVG) into this
    /// directory.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `gametape explain …`
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The first measurement: `PATH[#ARM][,RULE@K]`. PATH is the directory of a run or an
    /// evaluation.json; ARM a part of the name of one of its arms; RULE@K how one attempt
    /// of K is picked [default: single, a comma needs the `#`].
    #[arg(value_name = "A")]
    pub a: Name,
    /// The second.
    #[arg(value_name = "B")]
    pub b: Name,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
}

/// Evaluates tapes.
pub fn run(args: &EvaluateArgs, json: bool) -> Result<ExitCode, Failure> {
    let mut ks: Vec<usize> = args.k.iter().map(|k| k.get()).collect();
    ks.sort_unstable();
    ks.dedup();
    let options = Options {
        ks,
        seed: args.seed,
        resamples: args.resamples,
        purposes: args.purpose.clone(),
        policies: args.policy.clone(),
        by_policy: args.by_policy,
        verifier: args.verifier.clone(),
    };
    let tapes = read_all(&args.runs)?;
    let sets = match args.compare_tasks.as_slice() {
        [a, b] => Some([task_set(a, &tapes)?, task_set(b, &tapes)?]),
        _ => None,
    };
    let found = evaluate(&tapes, &options, sets.as_ref())?;
    if let Some(out) = &args.out {
        write(&found, &tapes, out)?;
    }
    if json {
        print_json(&found)?;
    } else {
        put(&text::text(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Explains a difference. Exit code 1 when credit is refused.
pub fn explain(args: &ExplainArgs, json: bool) -> Result<ExitCode, Failure> {
    let dice = Dice {
        seed: args.seed,
        resamples: RESAMPLES,
    };
    let (a, b) = (side(&args.a, args.seed)?, side(&args.b, args.seed)?);
    let found = crate::explain::explain(&a, &b, dice);
    if json {
        print_json(&found)?;
    } else {
        put(&crate::explain::text::text(&found))?;
    }
    Ok(if found.is_refused() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn side(name: &Name, seed: u64) -> Result<Side, Failure> {
    let evaluation = if name.path.is_dir() {
        let mut ks = vec![1, name.pick.k()];
        ks.dedup();
        let options = Options {
            ks,
            seed,
            // Only the tasks are looked at: no interval of an arm is shown.
            resamples: 0,
            purposes: Vec::new(),
            policies: Vec::new(),
            by_policy: false,
            verifier: None,
        };
        evaluate(&read_all(std::slice::from_ref(&name.path))?, &options, None)?
    } else {
        read_evaluation(&name.path)?
    };
    Side::of(&evaluation, name)
}

/// Reads an evaluation that was written before.
fn read_evaluation(path: &Path) -> Result<Evaluation, Failure> {
    let wrong = |what: String| {
        Failure::new(
            FailureKind::Input,
            "GT-EXPLAIN-SIDE",
            format!("{} cannot be read: {what}", path.display()),
        )
        .with_help("give the directory of a run, or an evaluation.json of this version")
    };
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let found: Evaluation = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
    match found.schema_version {
        data::SCHEMA => Ok(found),
        other => Err(wrong(format!(
            "it is of version {other}, not {}",
            data::SCHEMA
        ))),
    }
}

/// Reads tapes a frame at a time. Of two directories with the same name the longer names
/// are kept.
fn read_all(runs: &[PathBuf]) -> Result<Vec<Tape>, Failure> {
    let name = |run: &Path| -> String {
        let last = run
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        last.unwrap_or_else(|| run.display().to_string())
    };
    let mut tapes = Vec::new();
    let mut seen = BTreeSet::new();
    for run in runs {
        let is_alone = runs.iter().filter(|other| name(other) == name(run)).count() == 1;
        let own = if is_alone {
            name(run)
        } else {
            run.display().to_string()
        };
        if !seen.insert(own.clone()) {
            continue;
        }
        let path = existing(&Paths::new(run.clone())?)?;
        let mut gather = Gather::named(own);
        let mut digest = ContentDigest::default();
        let store = SledStore::open(&path, Purpose::Read)?;
        scan_all(&store, |frame| {
            for record in frame.records {
                gather.apply(&record.event);
                digest.add(record)?;
            }
            Ok(())
        })?;
        let mut tape = gather.finish();
        tape.digest = digest.finish();
        tapes.push(tape);
    }
    Ok(tapes)
}

/// The tasks that a name means.
fn task_set(name: &str, tapes: &[Tape]) -> Result<TaskSet, Failure> {
    let all = tapes.iter().flat_map(|tape| &tape.tasks);
    let (kind, value) = name.split_once(':').unwrap_or((name, ""));
    let tasks: BTreeSet<String> = match (kind, value) {
        ("forged", "") => all
            .filter(|(_, t)| !t.imported)
            .map(|(id, _)| id.to_string())
            .collect(),
        ("imported", "") => all
            .filter(|(_, t)| t.imported)
            .map(|(id, _)| id.to_string())
            .collect(),
        ("repo", repo) => {
            let of = all.filter(|(_, t)| t.repo.eq_ignore_ascii_case(repo));
            of.map(|(id, _)| id.to_string()).collect()
        }
        ("origin", origin) => {
            let of = all.filter(|(_, t)| t.origin == origin);
            of.map(|(id, _)| id.to_string()).collect()
        }
        _ => {
            let (mut ids, mut problems) = (BTreeSet::new(), Problems::default());
            let source = Source::of(Path::new(name))?;
            source.each(&Filter::default(), &mut problems, |_, item, _| {
                ids.insert(item.id().to_owned());
                Ok(())
            })?;
            problems.print();
            ids
        }
    };
    if tasks.is_empty() {
        return Err(Failure::new(
            FailureKind::Input,
            "GT-EVALUATE-NONE",
            format!("no task is meant by `{name}`"),
        )
        .with_help(
            "a set of tasks is `forged`, `imported`, `repo:NAME`, `origin:NAME`, or a file, \
             folder or run of tasks",
        ));
    }
    Ok(TaskSet {
        name: name.to_owned(),
        tasks,
    })
}

/// Writes everything into a directory. Each file appears whole or not at all.
fn write(found: &Evaluation, tapes: &[Tape], out: &Path) -> Result<(), Failure> {
    let pictures = figures(found)?;
    let html = page(found, &pictures, &Texts::of(tapes, found));
    let json = serde_json::to_vec_pretty(found).map_err(output)?;
    std::fs::create_dir_all(out).map_err(|e| unwritable(out, &e))?;
    let put = |name: &str, bytes: &[u8]| {
        let parts = out.join(format!(".{name}.part"));
        std::fs::write(&parts, bytes)
            .and_then(|()| std::fs::rename(&parts, out.join(name)))
            .map_err(|e| unwritable(out, &e))
    };
    put("evaluation.json", &json)?;
    put("evaluation.txt", text::text(found).as_bytes())?;
    put("report.html", html.as_bytes())?;
    for picture in &pictures {
        put(&format!("{}.svg", picture.name), picture.svg.as_bytes())?;
    }
    Ok(())
}
