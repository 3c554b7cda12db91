//! What the command line asks for, as what attempts mean and what makes them.

use super::spec::PolicySpec;
use crate::config::{Config, Paths};
use crate::system::{look_at_base, model_source};
use clap::ValueEnum;
use gametape_agent::codeact::CodeAct;
use gametape_agent::endpoint::EndpointOptions;
use gametape_agent::scaffold::{Form, Scaffold};
use gametape_agent::single::Single;
use gametape_agent::workflow::Workflow;
use gametape_schemas::message::{History, ModelSource};
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{Failure, FailureKind, PolicyRef, Sampling, Trajectory};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Scaffolds by name.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScaffoldArg {
    /// A shell, an editor, `finish`: the policy finds its own way.
    Codeact,
    /// Search, identify, plan, edit: a fixed way, without running tests.
    Workflow,
    /// One answer with search/replace blocks.
    Single,
}

/// How calls of tools are written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum FormArg {
    /// In the endpoint's own form.
    Native,
    /// In the text.
    Text,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Want {
    /// Who acts.
    pub policy: PolicySpec,
    /// Tools and prompts.
    pub scaffold: ScaffoldArg,
    /// How calls are written, where somebody says.
    pub form: Option<FormArg>,
    /// Prompts that replace the built-in ones.
    pub prompts: Option<PathBuf>,
    /// Turns at most.
    pub turns: u32,
    /// How tokens are drawn.
    pub sampling: Sampling,
}

/// What answers.
#[derive(Clone)]
pub enum Kind {
    /// Endpoints that serve the same model.
    Endpoint(Vec<EndpointOptions>),
    /// A model in this process.
    Model(ModelSource),
    /// The teacher that walks to the gold patch.
    Oracle(Form),
    /// The teacher that tries edits, in so many turns at most.
    Search {
        /// How calls are written.
        form: Form,
        /// Turns of an attempt.
        turns: u32,
    },
    /// Recorded attempts.
    Tape(Arc<Vec<Trajectory>>),
    /// A person.
    Human,
}

/// A policy and a scaffold, ready to be wired.
#[derive(Clone)]
pub struct Chosen {
    /// What attempts are named after.
    pub policy: PolicyRef,
    /// Tools and prompts.
    pub scaffold: Arc<dyn Scaffold>,
    /// Name of the scaffold with its number of turns: `codeact/1@100`.
    pub scaffold_name: String,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// What answers.
    pub kind: Kind,
    /// What git finds in the repository.
    pub history: History,
}

impl Chosen {
    /// Attempts of another tape that are to be made again.
    pub fn recorded(&self) -> Option<&[Trajectory]> {
        match &self.kind {
            Kind::Tape(recorded) => Some(recorded),
            _ => None,
        }
    }

    /// Attempts that the policy can serve at once; `None` where it does not matter.
    pub fn capacity(&self) -> Option<usize> {
        match &self.kind {
            Kind::Endpoint(all) => Some(
                all.iter()
                    .map(|e| e.max_concurrency as usize)
                    .sum::<usize>()
                    // While one attempt's tool runs, another one's answer comes.
                    .saturating_mul(2),
            ),
            Kind::Model(_) => Some(16),
            Kind::Oracle(_) | Kind::Search { .. } | Kind::Tape(_) => None,
            Kind::Human => Some(1),
        }
    }
}

/// Chooses.
///
/// # Errors
/// When there is no such endpoint, model or run, or prompts cannot be read.
pub fn choose(want: &Want, config: &Config, paths: &Paths) -> Result<Chosen, Failure> {
    let kind = kind(want, config, paths)?;
    if let Kind::Tape(recorded) = &kind {
        return repeat(want, recorded.clone());
    }
    let is_teacher = matches!(kind, Kind::Oracle(_) | Kind::Search { .. });
    if is_teacher && want.scaffold != ScaffoldArg::Codeact {
        return Err(Failure::new(
            FailureKind::Input,
            "GT-CONFIG-VALUE",
            format!("`{}` works with the tools of codeact alone", want.policy),
        )
        .with_help("leave --scaffold out, or choose another policy"));
    }
    let form = match (&kind, want.form) {
        (_, Some(FormArg::Native)) => Form::Native,
        (_, Some(FormArg::Text)) => Form::Text,
        (Kind::Endpoint(all), None) if all.iter().all(|e| e.native_tools) => Form::Native,
        _ => Form::Text,
    };
    let policy = match &kind {
        Kind::Endpoint(all) => PolicyRef::Endpoint {
            model: all.first().map(|e| e.model.clone()).unwrap_or_default(),
        },
        Kind::Model(source) => PolicyRef::Model {
            checkpoint: source.checkpoint.clone(),
        },
        Kind::Oracle(_) | Kind::Tape(_) => PolicyRef::Oracle,
        Kind::Search { .. } => PolicyRef::Search,
        Kind::Human => PolicyRef::Human,
    };
    let scaffold = scaffold(want.scaffold, form, want.prompts.as_deref())?;
    let kind = match kind {
        Kind::Oracle(_) => Kind::Oracle(form),
        Kind::Search { turns, .. } => Kind::Search { form, turns },
        kind => kind,
    };
    // A teacher draws nothing: however tokens would be drawn, it is the same attempt.
    let sampling = match policy.is_teacher() {
        true => Sampling::default(),
        false => want.sampling.clone(),
    };
    Ok(Chosen {
        policy,
        scaffold_name: format!("{}@{}", scaffold.id(), want.turns),
        scaffold,
        sampling,
        kind,
        history: History::Root,
    })
}

fn kind(want: &Want, config: &Config, paths: &Paths) -> Result<Kind, Failure> {
    Ok(match &want.policy {
        PolicySpec::Endpoint(name) => {
            let found = config.endpoints.get(name).filter(|all| !all.is_empty());
            let all = found.ok_or_else(|| unknown_endpoint(name, config))?;
            let models: BTreeSet<&str> = all.iter().map(|e| e.model.as_str()).collect();
            if models.len() > 1 {
                return Err(bad(format!(
                    "endpoints.{name} serves {}: attempts of one policy need one model",
                    models.into_iter().collect::<Vec<_>>().join(" and ")
                )));
            }
            Kind::Endpoint(all.clone())
        }
        PolicySpec::Model(name) => Kind::Model(match name.as_str() {
            "smollm2" | "tiny-random" => look_at_base(name, config.seed, paths)?.source,
            path => model_source(Path::new(path))?,
        }),
        PolicySpec::Oracle => Kind::Oracle(Form::Text),
        PolicySpec::Search => Kind::Search {
            form: Form::Text,
            turns: want.turns,
        },
        PolicySpec::Human => Kind::Human,
        PolicySpec::Tape(run) => {
            let from = Paths::new(run.clone())?;
            let records = gametape_tape::read_all(&crate::commands::existing(&from)?)?;
            let mut recorded = Ledger::fold(&records).attempts;
            recorded.retain(|t| t.end.is_some() && !t.abandoned && !t.steps.is_empty());
            if recorded.is_empty() {
                return Err(bad(format!(
                    "{} has no attempt that came to its end",
                    run.display()
                )));
            }
            Kind::Tape(Arc::new(recorded))
        }
    })
}

/// The scaffold of recorded attempts: all must have the same.
fn repeat(want: &Want, recorded: Arc<Vec<Trajectory>>) -> Result<Chosen, Failure> {
    let names: BTreeSet<&str> = recorded.iter().map(|t| t.key.scaffold.as_str()).collect();
    let [name] = Vec::from_iter(names.iter().copied())[..] else {
        return Err(bad(format!(
            "the tape has attempts of several scaffolds ({}): they cannot be repeated in one call",
            Vec::from_iter(names).join(", ")
        )));
    };
    if let Some(scaffold) = scaffold_named(name, want.prompts.as_deref())? {
        return Ok(Chosen {
            // Every attempt keeps its own key.
            policy: PolicyRef::Outside {
                name: "tape".to_owned(),
            },
            scaffold_name: name.to_owned(),
            scaffold,
            sampling: want.sampling.clone(),
            kind: Kind::Tape(recorded),
            history: History::Root,
        });
    }
    Err(bad(format!(
        "the attempts of that tape were made with {name}, which this version cannot make; \
         with prompts of its own, give them with --prompts"
    )))
}

/// The scaffold that attempt keys call so (the number of turns may follow its name); `None`
/// where this version, with these prompts, has none of that name.
///
/// # Errors
/// When the prompts cannot be read.
pub fn scaffold_named(
    name: &str,
    prompts: Option<&Path>,
) -> Result<Option<Arc<dyn Scaffold>>, Failure> {
    let id = name.split('@').next().unwrap_or(name);
    for kind in ScaffoldArg::value_variants().iter().copied() {
        for form in [Form::Text, Form::Native] {
            let made = scaffold(kind, form, prompts)?;
            if made.id() == id {
                return Ok(Some(made));
            }
        }
    }
    Ok(None)
}

fn scaffold(
    kind: ScaffoldArg,
    form: Form,
    prompts: Option<&Path>,
) -> Result<Arc<dyn Scaffold>, Failure> {
    Ok(match kind {
        ScaffoldArg::Codeact => Arc::new(CodeAct::new(form, prompts)?),
        ScaffoldArg::Workflow => Arc::new(Workflow::new(form, prompts)?),
        ScaffoldArg::Single => Arc::new(Single::new(prompts)?),
    })
}

fn unknown_endpoint(name: &str, config: &Config) -> Failure {
    let names: Vec<&str> = config.endpoints.keys().map(String::as_str).collect();
    let known = match names.is_empty() {
        true => "the configuration has none".to_owned(),
        false => format!("there are {}", names.join(", ")),
    };
    bad(format!("there is no endpoint `{name}`: {known}"))
}

fn bad(message: String) -> Failure {
    Failure::new(FailureKind::Input, "GT-CONFIG-VALUE", message).with_help(
        "endpoints stand in the TOML file given with --config, as [[endpoints.NAME]] with base_url and model (docs/endpoints.md)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_choice_of_the_tiny_model_writes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let paths = Paths {
            run: home.path().join("run"),
            cache: home.path().join("cache"),
        };
        let want = Want {
            policy: PolicySpec::Model("tiny-random".to_owned()),
            scaffold: ScaffoldArg::Codeact,
            form: None,
            prompts: None,
            turns: 3,
            sampling: Sampling::default(),
        };
        let config = config::load("smoke", None).unwrap();
        let Kind::Model(source) = choose(&want, &config, &paths).unwrap().kind else {
            panic!("it is a model");
        };
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
        // What makes attempts then finds it where it was said to be.
        crate::system::put_in_place(&source, config.seed, &paths).unwrap();
        assert_eq!(model_source(&source.path).unwrap(), source);
    }
}
