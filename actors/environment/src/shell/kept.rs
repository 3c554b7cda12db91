//! What is kept of a text that may be endless: its first and its last part. Pure.

use std::collections::VecDeque;

/// The first and the last characters of a text.
#[derive(Debug)]
pub struct Kept {
    limit: usize,
    head: String,
    head_count: usize,
    tail: VecDeque<char>,
    dropped_characters: u64,
    dropped_bytes: u64,
}

impl Kept {
    /// Keeps so many characters.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            head: String::new(),
            head_count: 0,
            tail: VecDeque::new(),
            dropped_characters: 0,
            dropped_bytes: 0,
        }
    }

    /// Takes the next character.
    pub fn push(&mut self, character: char) {
        let half = self.limit / 2;
        if self.head_count < self.limit - half {
            self.head.push(character);
            self.head_count += 1;
            return;
        }
        self.tail.push_back(character);
        if self.tail.len() > half
            && let Some(lost) = self.tail.pop_front()
        {
            self.dropped_characters += 1;
            self.dropped_bytes += lost.len_utf8() as u64;
        }
    }

    /// The text, with a note where characters are missing, and how many bytes those were.
    /// Begins anew.
    pub fn take(&mut self) -> (String, u64) {
        let kept = std::mem::replace(self, Self::new(self.limit));
        let mut text = kept.head;
        if kept.dropped_characters > 0 {
            let note = format!(
                "\n[... {} characters left out here; print less, or into a file ...]\n",
                kept.dropped_characters
            );
            text.push_str(&note);
        }
        text.extend(kept.tail);
        (text, kept.dropped_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_short_text_is_kept_whole() {
        let mut kept = Kept::new(5);
        "größe".chars().for_each(|c| kept.push(c));
        assert_eq!(kept.take(), ("größe".to_owned(), 0));
        assert_eq!(kept.take(), (String::new(), 0));
    }

    proptest! {
        #[test]
        fn both_ends_are_kept_and_the_rest_is_counted(
            text in "[aä\n]{0,80}",
            limit in 0usize..60,
        ) {
            let mut kept = Kept::new(limit);
            text.chars().for_each(|c| kept.push(c));
            let (out, dropped) = kept.take();
            let all: Vec<char> = text.chars().collect();
            if all.len() <= limit {
                prop_assert_eq!(out, text);
                prop_assert_eq!(dropped, 0);
            } else {
                let head: String = all[..limit - limit / 2].iter().collect();
                let tail: String = all[all.len() - limit / 2..].iter().collect();
                let lost: String = all[limit - limit / 2..all.len() - limit / 2].iter().collect();
                prop_assert!(out.starts_with(&head));
                prop_assert!(out.ends_with(&tail));
                prop_assert_eq!(dropped, lost.len() as u64);
                prop_assert!(out.contains("characters left out"));
            }
        }
    }
}
