//! What of a task is compared with others.

use super::{Evidence, words};
use crate::formats::{TaskKind, TaskRow, diff, to_task};
use crate::ids::Digest;
use crate::task::Task;

/// A task, reduced to what is compared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name.
    pub id: String,
    /// Its repository as the task says it.
    pub repo: String,
    /// Whether its bug was planted: then repository and commit say nothing.
    pub planted: bool,
    commit: Option<String>,
    pull: Option<String>,
    patch: Option<Digest>,
    place: Option<String>,
    pub(super) words: Box<str>,
    pub(super) grams: Vec<u64>,
}

/// Something that two tasks can have in common.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Key {
    Id(String),
    Commit(String),
    Pull(String),
    Patch(Digest),
    Place(String),
}

impl Key {
    /// Whether it says anything that these two have it in common.
    pub(super) fn counts(&self, a: &Entry, b: &Entry) -> bool {
        match self {
            Self::Id(_) | Self::Pull(_) | Self::Patch(_) => true,
            Self::Commit(_) => !a.planted && !b.planted,
            Self::Place(_) => a.planted && b.planted,
        }
    }
}

/// The fields of a task or a row that are looked at.
struct Fields<'a> {
    id: &'a str,
    repo: &'a str,
    planted: bool,
    commit: &'a str,
    patch: &'a str,
    statement: &'a str,
    file: &'a str,
    entity: &'a str,
}

impl Entry {
    /// Of a task.
    pub fn of_task(task: &Task, ngram: usize) -> Self {
        Self::of(
            &Fields {
                id: task.id.as_str(),
                repo: &task.repo,
                planted: !task.bug_patch.is_empty(),
                commit: &task.base_commit,
                patch: if task.bug_patch.is_empty() {
                    &task.gold_patch
                } else {
                    &task.bug_patch
                },
                statement: &task.problem_statement,
                file: &task.file,
                entity: &task.entity,
            },
            ngram,
        )
    }

    /// Of a row, whether or not a task can be made of it.
    pub fn of_row(row: &TaskRow, ngram: usize) -> Self {
        if matches!(row.kind(), TaskKind::Gametape | TaskKind::Harbor)
            && let Ok((task, _)) = to_task(row)
        {
            return Self::of_task(&task, ngram);
        }
        let text = |key| row.text(key).unwrap_or_default();
        Self::of(
            &Fields {
                id: row.instance_id(),
                repo: row.repo(),
                planted: row.kind() == TaskKind::SweSmith,
                commit: row
                    .text("base_commit")
                    .unwrap_or_else(|| text("commit_hash")),
                patch: text("patch"),
                statement: text("problem_statement"),
                file: "",
                entity: "",
            },
            ngram,
        )
    }

    fn of(fields: &Fields, ngram: usize) -> Self {
        let repo = repository(fields.repo);
        let commit = fields.commit.to_ascii_lowercase();
        // A whole object name is the same in every fork; a shortened one, or a version,
        // means something within its repository only.
        let commit = match commit.len() {
            0 => None,
            40.. if commit.bytes().all(|b| b.is_ascii_hexdigit()) => Some(commit),
            _ => Some(format!("{repo}@{commit}")),
        };
        let patch = diff::normalised(fields.patch);
        let words = words::words(fields.statement);
        Self {
            id: fields.id.to_owned(),
            repo: fields.repo.to_owned(),
            planted: fields.planted,
            commit,
            pull: pull_request(fields.id),
            patch: (!patch.is_empty()).then(|| Digest::of_bytes(patch.as_bytes())),
            place: (!fields.entity.is_empty())
                .then(|| format!("{repo} {}:{}", fields.file, fields.entity)),
            grams: words::grams(&words, ngram),
            words: words.into_boxed_str(),
        }
    }

    /// What it can have in common with others, and what that would be evidence of.
    pub(super) fn keys(&self) -> Vec<(Key, Evidence)> {
        let mut out = vec![(Key::Id(self.id.clone()), Evidence::Id)];
        if let Some(commit) = self.commit.clone() {
            out.push((Key::Commit(commit.clone()), Evidence::Commit { commit }));
        }
        if let Some(pull) = self.pull.clone() {
            out.push((Key::Pull(pull.clone()), Evidence::PullRequest { pull }));
        }
        if let Some(patch) = self.patch.clone() {
            out.push((Key::Patch(patch), Evidence::Patch));
        }
        if let Some(place) = self.place.clone() {
            out.push((Key::Place(place.clone()), Evidence::Place { place }));
        }
        out
    }
}

/// `owner/name` in lower case. SWE-smith's mirrors, `swesmith/owner__name.commit`, are
/// the repository that they mirror.
fn repository(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let Some(mirror) = lower.strip_prefix("swesmith/") else {
        return lower;
    };
    let bare = mirror.rsplit_once('.').map_or(mirror, |(bare, _)| bare);
    bare.replacen("__", "/", 1)
}

/// The pull request that an id names: `owner__name-12` (SWE-bench and its relatives) or
/// `owner__name.commit.pr_12` (SWE-smith's mirrors of pull requests).
fn pull_request(id: &str) -> Option<String> {
    let id = id.to_ascii_lowercase();
    let (repo, number) = match id.rsplit_once(".pr_") {
        Some((rest, number)) => (rest.rsplit_once('.')?.0, number),
        None => id.rsplit_once('-')?,
    };
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let (owner, name) = repo.split_once("__")?;
    // Names of owners have no dots: what has is a package and its version.
    (is_number && !owner.contains('.')).then(|| format!("{owner}/{name}#{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_requests_are_read_out_of_ids() {
        let pull = |id: &str| pull_request(id);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(pull("django__django-123"), some("django/django#123"));
        assert_eq!(
            pull("Project-MONAI__MONAI-10"),
            some("project-monai/monai#10")
        );
        assert_eq!(pull("o__r.01234567.pr_12"), some("o/r#12"));
        assert_eq!(pull("o__r.01234567.func_pm_x__ab12"), None);
        assert_eq!(pull("toolz.1.0.func_pm_x__ab-12"), None);
        assert_eq!(pull("name-12"), None);
    }

    #[test]
    fn mirrors_are_the_repository_that_they_mirror() {
        assert_eq!(repository("swesmith/Owner__na.me.01234567"), "owner/na.me");
        assert_eq!(repository("Owner/Name"), "owner/name");
    }
}
