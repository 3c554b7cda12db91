//! Names of tasks as others write them: file systems, images and scripts change the case
//! of letters, and images write `_1776_` for two underscores.

use std::collections::BTreeMap;

/// Tasks by their names.
#[derive(Debug, Default)]
pub struct Names<'a> {
    /// By the folded name; `None` where several tasks fold to it.
    folded: BTreeMap<String, Option<&'a str>>,
    exact: BTreeMap<&'a str, ()>,
}

impl<'a> Names<'a> {
    /// The task of a name: the one that is called so exactly, else the only one that
    /// differs in no more than the way of writing it.
    pub fn find(&self, name: &str) -> Option<&'a str> {
        if let Some((task, ())) = self.exact.get_key_value(name) {
            return Some(task);
        }
        self.folded.get(&fold(name)).copied().flatten()
    }
}

impl<'a> FromIterator<&'a str> for Names<'a> {
    fn from_iter<I: IntoIterator<Item = &'a str>>(tasks: I) -> Self {
        let mut out = Self::default();
        for task in tasks {
            if out.exact.insert(task, ()).is_none() {
                out.folded
                    .entry(fold(task))
                    .and_modify(|known| *known = None)
                    .or_insert(Some(task));
            }
        }
        out
    }
}

fn fold(name: &str) -> String {
    name.to_lowercase().replace("_1776_", "__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_another_writing_is_found_if_only_one_task_can_be_meant() {
        let names: Names = ["A__a-1", "b__B-2", "b__b-2", "c__c-3"]
            .into_iter()
            .collect();
        assert_eq!(names.find("A__a-1"), Some("A__a-1"));
        assert_eq!(names.find("a__A-1"), Some("A__a-1"));
        assert_eq!(names.find("a_1776_a-1"), Some("A__a-1"));
        assert_eq!(names.find("b__b-2"), Some("b__b-2"));
        assert_eq!(names.find("B__B-2"), None);
        assert_eq!(names.find("c__c-33"), None);
    }
}
