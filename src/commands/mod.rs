//! The verbs of the command line.

pub mod dataset;
pub mod evaluate;
pub mod grade;
pub mod model;
pub mod rollout;
mod score;
pub mod show;
mod tasks;
pub mod train;
mod trajectories;
mod verifier;

use crate::cli::{Cli, ConfigArgs, ExportFormat, RunDir, TapeAction, Verb, exit_code};
use crate::config::{self, Paths};
use crate::run::Ended;
use crate::system;
use crate::trajectories::paint::harmless;
use gametape_grader::score::ScoreOptions;
use gametape_schemas::{Failure, FailureKind, Record};
use gametape_tape::Format;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Does what the command line says; every failure is printed with what to do.
pub fn run(cli: Cli) -> ExitCode {
    match dispatch(&cli) {
        Ok(code) => code,
        Err(failure) => {
            if cli.json {
                // That it cannot be printed either is not the failure to report.
                let _ = put(&format!("{}\n", serde_json::json!({ "error": failure })));
            }
            // A message may hold names that others gave.
            let text = failure.to_string();
            let lines: Vec<String> = text.lines().map(harmless).collect();
            eprintln!("error: {}", lines.join("\n"));
            ExitCode::from(exit_code(&failure))
        }
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode, Failure> {
    system::check_environment()?;
    if let Some(bytes) = system::tape_cache()? {
        gametape_tape::set_cache_bytes(bytes);
    }
    match &cli.verb {
        Verb::Loop {
            run,
            config,
            print_config,
            dry_run,
        } => {
            let (config, paths) = resolve(run, config)?;
            if *print_config {
                put(&toml::to_string_pretty(&config).map_err(output)?)?;
                return Ok(ExitCode::SUCCESS);
            }
            if *dry_run {
                put(&system::describe(&config, &paths)?)?;
                return Ok(ExitCode::SUCCESS);
            }
            start_log(&paths, cli.verbose)?;
            let (ended, records) = system::run_loop(config, paths.clone())?;
            if ended == Ended::AlreadyFinished {
                eprintln!("this run is finished; nothing was run again");
            }
            let report = crate::report::Report::from_records(&records);
            write_report(&report, &paths.run.join("report"))?;
            if cli.json {
                print_json(&report)?;
            } else {
                put(&report.to_text())?;
                put(&what_next(&paths))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Forge { run, config } => {
            let (config, paths) = resolve(run, config)?;
            start_log(&paths, cli.verbose)?;
            let records = system::run_forge(config, paths)?;
            let report = crate::report::Report::from_records(&records);
            put(&report.to_text())?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Report { run, out } => {
            let paths = Paths::new(run.run.clone())?;
            let report = crate::report::Report::from_records(&read_tape(&paths)?);
            if let Some(out) = out {
                write_report(&report, out)?;
            }
            if cli.json {
                print_json(&report)?;
            } else {
                put(&report.to_text())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Doctor { run } => {
            let paths = Paths::new(run.run.clone())?;
            let checks = system::checks(&paths);
            if cli.json {
                print_json(&checks)?;
            } else {
                put(&crate::doctor::render(&checks))?;
            }
            Ok(ExitCode::from(crate::doctor::exit_code(&checks)))
        }
        Verb::Attempt(args) => rollout::attempt(args, cli.json, cli.verbose),
        Verb::Rollout(args) => rollout::rollout(args, cli.json, cli.verbose),
        Verb::Grade(args) => grade::grade(args, cli.json, cli.verbose),
        Verb::Evaluate(args) => evaluate::run(args, cli.json),
        Verb::Explain(args) => evaluate::explain(args, cli.json),
        Verb::Tasks { action } => tasks::run(action, cli.json, cli.verbose),
        Verb::Trajectories { action } => trajectories::run(action, cli.json),
        Verb::Tape { action } => tape(action, cli.json),
        Verb::Dataset { action } => dataset::run(action, cli.json),
        Verb::Train(args) => train::run(args, cli.json, cli.verbose),
        Verb::Score {
            run: Some(run),
            rules,
            dry_run,
            ..
        } => grade::regrade(run, *rules, *dry_run, cli.json),
        Verb::Score {
            tasks,
            predictions: Some(predictions),
            logs: Some(logs),
            out: Some(out),
            rules,
            threads,
            ..
        } => {
            let is_gold = predictions.as_os_str() == "gold";
            let options = ScoreOptions {
                tasks: tasks.clone(),
                predictions: (!is_gold).then(|| predictions.clone()),
                logs: logs.clone(),
                rules: *rules,
                threads: *threads,
            };
            score::run(&options, out, cli.json)
        }
        // The command line's own checks let nothing else through.
        Verb::Score { .. } => Err(output(
            "`score` needs --run, or tasks, predictions, logs and out",
        )),
        Verb::Model { action } => model::run(action, cli.json),
        Verb::Verifier { action } => verifier::run(action, cli.json),
    }
}

fn tape(action: &TapeAction, json: bool) -> Result<ExitCode, Failure> {
    match action {
        TapeAction::Verify { run } => {
            let paths = Paths::new(run.run.clone())?;
            let report = gametape_tape::verify(&existing(&paths)?)?;
            if json {
                print_json(&report)?;
            } else {
                put(&report.to_string())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        TapeAction::Stats { run } => {
            let paths = Paths::new(run.run.clone())?;
            let stats = gametape_tape::stats(&existing(&paths)?)?;
            if json {
                print_json(&stats)?;
            } else {
                put(&stats.to_string())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        TapeAction::Show {
            attempt: Some(name),
            full,
            step,
            run,
        } => {
            let tape = trajectories::open(run)?;
            put(&show::attempt(
                &tape,
                name,
                &trajectories::look(*full, *step),
                json,
            )?)?;
            Ok(ExitCode::SUCCESS)
        }
        TapeAction::Show {
            attempt: None, run, ..
        } => {
            let records = read_tape(&Paths::new(run.run.clone())?)?;
            put(&show::list(&records))?;
            Ok(ExitCode::SUCCESS)
        }
        TapeAction::Tail { count, run } => {
            let records = read_tape(&Paths::new(run.run.clone())?)?;
            put(&show::tail(&records, *count))?;
            Ok(ExitCode::SUCCESS)
        }
        TapeAction::Export { out, format, run } => {
            let tape = existing(&Paths::new(run.run.clone())?)?;
            let format = match format {
                Some(ExportFormat::Jsonl) => Format::JsonLines,
                Some(ExportFormat::Parquet) => Format::Parquet,
                None => Format::of(out),
            };
            if out != Path::new("-") {
                gametape_tape::export_file(&tape, out, format)?;
                return Ok(ExitCode::SUCCESS);
            }
            if format == Format::Parquet {
                return Err(Failure::new(
                    FailureKind::Input,
                    "GT-TAPE-EXPORT",
                    "a Parquet table needs a file, and standard output is none",
                )
                .with_help("name a file with --out, or use --format jsonl"));
            }
            let mut pipe = std::io::BufWriter::new(Pipe);
            gametape_tape::export(&tape, &mut pipe)?;
            pipe.flush().map_err(output)?;
            Ok(ExitCode::SUCCESS)
        }
        TapeAction::Import { file, run } => {
            let paths = Paths::new(run.run.clone())?;
            let imported = gametape_tape::import_file(&paths.tape(), file)?;
            put(&format!("{imported}\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        TapeAction::Compact { run, dry_run } => {
            let paths = Paths::new(run.run.clone())?;
            let done = gametape_tape::compact(&existing(&paths)?, *dry_run)?;
            if json {
                print_json(&done)?;
            } else {
                put(&done.to_string())?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn resolve(run: &RunDir, args: &ConfigArgs) -> Result<(config::Config, Paths), Failure> {
    let config = config::load(&args.profile, args.config.as_deref())?;
    Ok((config, Paths::new(run.run.clone())?))
}

/// The tape's directory, which must exist: reading never creates one.
pub(crate) fn existing(paths: &Paths) -> Result<std::path::PathBuf, Failure> {
    let tape = paths.tape();
    if tape.is_dir() {
        return Ok(tape);
    }
    Err(Failure::new(
        FailureKind::Input,
        "GT-TAPE-NONE",
        format!("there is no tape in {}", paths.run.display()),
    )
    .with_help("name the directory of a run with --run DIR; `gametape loop` makes one"))
}

fn read_tape(paths: &Paths) -> Result<Vec<Record>, Failure> {
    gametape_tape::read_all(&existing(paths)?)
}

fn write_report(report: &crate::report::Report, directory: &Path) -> Result<(), Failure> {
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(directory.join(name), bytes).map_err(|e| unwritable(directory, &e))
    };
    std::fs::create_dir_all(directory).map_err(|e| unwritable(directory, &e))?;
    write("report.txt", report.to_text().as_bytes())?;
    write("report.svg", report.to_svg()?.as_bytes())?;
    write(
        "report.json",
        &serde_json::to_vec_pretty(report).map_err(output)?,
    )
}

fn write_out(out: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if out == Path::new("-") {
        Pipe.write_all(bytes).map_err(output)?;
        Pipe.flush().map_err(output)
    } else {
        std::fs::write(out, bytes).map_err(|e| unwritable(out, &e))
    }
}

/// Standard output. Whoever reads it may have enough (`| head`): that is no failure, and
/// there is nothing left to do.
struct Pipe;

impl Pipe {
    fn unless_closed<T>(result: std::io::Result<T>) -> std::io::Result<T> {
        match result {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            other => other,
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Self::unless_closed(std::io::stdout().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Self::unless_closed(std::io::stdout().flush())
    }
}

fn put(text: &str) -> Result<(), Failure> {
    write_out(Path::new("-"), text.as_bytes())
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(output)?;
    put(&format!("{text}\n"))
}

fn what_next(paths: &Paths) -> String {
    let run = paths.run.display();
    format!(
        "\nThe tape is in {tape}; the picture is {run}/report/report.svg\n\
         What next:\n  \
         gametape tape show --run {run}            every attempt; add an id for its steps\n  \
         gametape dataset verify --run {run}       rebuild the datasets from the tape, compare digests\n  \
         gametape report --run {run}               print all of this again, from the tape alone\n  \
         gametape loop --config mine.toml --run … the same loop on your own packages (docs/guide.md)\n",
        tape = paths.tape().display(),
    )
}

/// The log of a run goes to a file; warnings also to the terminal.
fn start_log(paths: &Paths, verbose: bool) -> Result<(), Failure> {
    use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};
    std::fs::create_dir_all(&paths.run).map_err(|e| unwritable(&paths.run, &e))?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(paths.run.join("gametape.log"))
        .map_err(|e| unwritable(&paths.run, &e))?;
    let level = if verbose { "debug" } else { "info" };
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},sled=warn")));
    let to_file = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(std::sync::Mutex::new(file))
        .with_filter(filter);
    let to_terminal = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_filter(EnvFilter::new("warn"));
    // A second initialisation (tests in one process) keeps the first.
    let _ = tracing_subscriber::registry()
        .with(to_file)
        .with(to_terminal)
        .try_init();
    Ok(())
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let full = error.raw_os_error() == Some(libc::ENOSPC);
    Failure::new(
        if full {
            FailureKind::Disk
        } else {
            FailureKind::Input
        },
        "GT-RUN-UNWRITABLE",
        format!("{} cannot be written: {error}", path.display()),
    )
    .with_help(if full {
        "free some space, then type the same command again"
    } else {
        "check the directory and its permissions, or name another one"
    })
}

fn output(error: impl std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Internal,
        "GT-RUN-INTERNAL",
        format!("the output cannot be written: {error}"),
    )
}
