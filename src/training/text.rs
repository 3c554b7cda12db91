//! Trainings and the ancestry of weights, for people.

use super::chronicle::{Chronicle, Training};
use super::lineage::{Authors, Learnt, Made, Weights, Whence};
use super::order::Order;
use crate::evaluate::gather::short;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use gametape_schemas::message::{Hyperparameters, SaveForm};
use gametape_trainer::presets::Preset;
use std::fmt::Write as _;

/// A line and what hangs below it.
struct Branch {
    line: String,
    below: Vec<Branch>,
}

impl Branch {
    fn leaf(line: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            below: Vec::new(),
        }
    }

    fn draw(&self, first: &str, rest: &str, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{first}{}", self.line);
        for (at, branch) in self.below.iter().enumerate() {
            let (fork, line) = match at + 1 == self.below.len() {
                true => ("└─ ", "   "),
                false => ("├─ ", "│  "),
            };
            branch.draw(&format!("{rest}{fork}"), &format!("{rest}{line}"), out);
        }
    }
}

/// The tree above weights.
pub fn tree(weights: &Weights) -> String {
    let mut out = String::new();
    of_weights(weights, "").draw("", "", &mut out);
    out
}

fn of_weights(weights: &Weights, role: &str) -> Branch {
    let called = weights.called.as_deref().unwrap_or("weights");
    let id = short(&weights.checkpoint);
    match &weights.from {
        Whence::Training(made) => {
            let lies = match &made.path {
                Some(path) => format!(", in {path}"),
                None => ", not finished".to_owned(),
            };
            Branch {
                line: format!("{role}{called} {id}{lies}"),
                below: of_made(made),
            }
        }
        Whence::Elsewhere => Branch::leaf(format!("{role}{called} {id}, not made on this tape")),
        Whence::ToldAbove => Branch::leaf(format!("{role}{called} {id}, told above")),
    }
}

fn of_made(made: &Made) -> Vec<Branch> {
    let loss = match (made.first_loss, made.last_loss) {
        (Some(first), Some(last)) => format!(", loss {first:.3} → {last:.3}"),
        (None, Some(last)) => format!(", loss {last:.3}"),
        _ => String::new(),
    };
    let mut line = format!("training: {} of {} steps{loss}", made.steps, made.planned);
    if let Some(best) = made.eval_loss {
        let _ = write!(line, ", held-out rows {best:.3} at best");
    }
    if let (Some(tokens), Some(seconds)) = (made.tokens, made.wall_seconds) {
        let _ = write!(line, ", {tokens} tokens, {seconds:.0} s");
    }
    let mut below = Vec::new();
    let mut knobs = match serde_json::from_value::<Hyperparameters>(made.hyper.clone()) {
        Ok(hyper) => hyper_line(&hyper),
        Err(_) => made.hyper.to_string(),
    };
    if let Some(preset) = &made.preset {
        let _ = write!(knobs, "; began as {preset}");
    }
    below.push(Branch::leaf(knobs));
    if let Some(setting) = &made.setting {
        below.push(Branch::leaf(format!(
            "{} rows trained, {} measured, {} too long, {} without loss; {} products, {} tokens a \
             micro-batch, {} threads; tokenizer {}",
            setting.rows,
            setting.measured,
            setting.too_long,
            setting.without_loss,
            setting.precision,
            setting.micro_tokens,
            setting.threads,
            setting.tokenizer.short(),
        )));
    }
    if !made.allowed_overlap.is_empty() {
        below.push(Branch::leaf(format!(
            "overlap with the evaluation let pass: {}",
            made.allowed_overlap.join(", ")
        )));
    }
    let code = match made.code_versions.is_empty() {
        true => "by a version that is not recorded".to_owned(),
        false => format!("by {}", made.code_versions.join(", then ")),
    };
    let weights = made.weights.as_deref().map_or(String::new(), |digest| {
        format!("; file of weights {}", short(digest))
    });
    below.push(Branch::leaf(format!("{code}{weights}")));
    vec![
        Branch { line, below },
        of_weights(&made.base, "base: "),
        of_dataset(&made.dataset),
    ]
}

fn of_dataset(learnt: &Learnt) -> Branch {
    let name = learnt.name.as_deref().unwrap_or("rows");
    let mut line = format!("dataset: {name} {}", short(&learnt.digest));
    if let Some(rows) = learnt.rows {
        let labels = learnt.labels.iter().filter(|(_, count)| **count > 0);
        let labels: Vec<String> = labels
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        let _ = write!(line, ": {rows} rows ({})", labels.join(", "));
    }
    if let (Some(events), Some(recipe)) = (learnt.events, &learnt.recipe) {
        let kind = learnt
            .kind
            .as_deref()
            .map_or(String::new(), |k| format!("{k} "));
        let _ = write!(
            line,
            ", {kind}recipe {} over {events} events",
            short(recipe)
        );
    }
    let mut below: Vec<Branch> = learnt.authors.iter().map(of_authors).collect();
    if let Some(why) = &learnt.untold {
        below.push(Branch::leaf(format!("whose attempts: not known: {why}")));
    }
    Branch { line, below }
}

fn of_authors(authors: &Authors) -> Branch {
    let purposes = authors.purposes.iter();
    let purposes: Vec<String> = purposes
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let line = format!(
        "{} rows of {} attempts by {} ({}), {} resolved",
        authors.rows,
        authors.attempts,
        authors.policy,
        purposes.join(", "),
        authors.resolved
    );
    Branch {
        line,
        below: authors.weights.iter().map(|w| of_weights(w, "")).collect(),
    }
}

/// Hyperparameters in a line.
pub fn hyper_line(h: &Hyperparameters) -> String {
    let what = match h.lora_rank {
        0 => "full fine-tuning".to_owned(),
        rank => format!("LoRA r{rank} (alpha {})", h.lora_alpha),
    };
    let warmup = match h.warmup_steps {
        Some(steps) => format!("{steps} warm-up steps"),
        None => format!("warm-up {}", h.warmup_ratio),
    };
    let clip = match h.max_grad_norm > 0.0 {
        true => format!("clipped at {}", h.max_grad_norm),
        false => "not clipped".to_owned(),
    };
    let mut line = format!(
        "{what}, {} epochs, {} rows a step, rate {:e}, {}, {warmup}, decay {}, {clip}, at most {} \
         tokens, seed {}",
        h.epochs,
        h.batch_size,
        h.learning_rate,
        value(&h.schedule),
        h.weight_decay,
        h.max_tokens,
        h.seed,
    );
    if h.frozen_layers > 0 {
        let _ = write!(line, ", lowest {} layers frozen", h.frozen_layers);
    }
    if h.eval_share > 0.0 {
        let _ = write!(line, ", {} held out by {}", h.eval_share, value(&h.eval_by));
    }
    if h.lora_rank > 0 && h.save != SaveForm::default() {
        let _ = write!(line, ", saved as {}", value(&h.save));
    }
    if h.checkpoint_layers {
        line.push_str(", layers computed again");
    }
    line
}

/// A value as files have it.
fn value(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => "?".to_owned(),
    }
}

/// A line a training.
pub fn list(chronicle: &Chronicle) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "training", "weights", "base", "dataset", "rows", "steps", "loss", "state",
    ]);
    for column in table.column_iter_mut().skip(4).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for training in &chronicle.trainings {
        let (started, origin) = (&training.started, training.origin());
        let maker = chronicle.maker(&started.base).map(|t| t.name.clone());
        let base = maker
            .or_else(|| origin.map(|o| o.base_name.clone()))
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| short(started.base.as_str()).to_owned());
        let dataset = chronicle.dataset(&started.dataset, origin.map(|o| o.dataset_name.as_str()));
        table.add_row([
            training.name.clone(),
            training
                .checkpoint()
                .map_or_else(String::new, |id| short(id.as_str()).to_owned()),
            base,
            dataset.map_or_else(|| started.dataset.short().to_owned(), |d| d.name.clone()),
            dataset.map_or_else(String::new, |d| d.rows.to_string()),
            steps(training),
            training
                .last
                .map_or_else(String::new, |(_, loss)| format!("{loss:.3}")),
            match (&training.finished, &training.saved) {
                (Some(_), _) => "finished".to_owned(),
                (None, Some(saved)) => format!("goes on at step {}", saved.step),
                (None, None) => "begins anew".to_owned(),
            },
        ]);
    }
    format!("{table}\n")
}

fn steps(training: &Training) -> String {
    match &training.finished {
        Some(body) => body.steps.to_string(),
        None => {
            let made = training.last.map_or(0, |(step, _)| step);
            format!("{made}/{}", training.started.steps)
        }
    }
}

/// What is asked for, and what it would do and need.
pub fn dry(order: &Order) -> String {
    let id = order.identity.checkpoint_id();
    let mut out = format!(
        "{} {}: {}, on {} of {} ({} rows)\n{}\n",
        order.name,
        short(id.as_str()),
        order.base.name,
        order.kind.as_str(),
        order.dataset.name,
        order.dataset.rows,
        hyper_line(&order.identity.hyper)
    );
    let Some(look) = &order.outlook else {
        out.push_str("it has ended: the same command would do nothing\n");
        return out;
    };
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    let _ = writeln!(
        out,
        "rows     {} trained, {} measured, {}, {} without a token to learn",
        look.rows,
        look.measured,
        too_long(look),
        look.without_loss
    );
    let _ = writeln!(
        out,
        "tokens   {} an epoch, {} with loss; longest row {}",
        look.tokens, look.loss_tokens, look.longest
    );
    let saved = order.known.as_ref().and_then(|known| known.saved.as_ref());
    let from = saved.map_or(String::new(), |s| format!(", goes on at step {}", s.step));
    let _ = writeln!(out, "steps    {}{from}", look.steps);
    let free = match look.free_bytes {
        Some(bytes) if bytes < look.memory_bytes => format!("; only {} are free now", gib(bytes)),
        Some(bytes) => format!("; {} are free now", gib(bytes)),
        None => String::new(),
    };
    let _ = writeln!(out, "memory   about {}{free}", gib(look.memory_bytes));
    let _ = writeln!(
        out,
        "disk     about {} in {}",
        gib(look.disk_bytes),
        order.directory.display()
    );
    out
}

/// How many rows are left out for their length, and what it is.
pub fn too_long(look: &super::outlook::Outlook) -> String {
    let lengths = match look.too_long_tokens {
        Some((low, high)) if low < high => format!(" ({low} to {high})"),
        Some((low, _)) => format!(" ({low})"),
        None => String::new(),
    };
    format!(
        "{} longer than {} tokens{lengths}",
        look.too_long, look.most_tokens
    )
}

/// The presets, each with its values and what is to know of its source.
pub fn presets(all: &[Preset]) -> String {
    let mut out = String::new();
    for preset in all {
        let about = preset
            .about
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let _ = writeln!(
            out,
            "{}\n  {}\n  {about}\n",
            preset.name,
            hyper_line(&preset.hyper)
        );
    }
    out
}
