//! Keys and values of sequences: a batch that grows by a column a step, and what is
//! kept of finished sequences for the next turn.
//!
//! Rows of a batch end at the same column (padding is on the left), so that a step
//! writes one column for all rows. A finished sequence is kept as a view into its
//! batch: nothing is copied until another turn continues it.

use crate::config::ModelConfig;
use crate::error::ModelError;
use std::collections::VecDeque;
use std::rc::Rc;
use tch::{Device, Kind, Tensor};

/// Keys and values of one batch: per layer `[rows, kv_heads, columns, head_dim]`.
#[derive(Debug)]
pub(crate) struct Storage {
    /// Keys by layer.
    pub keys: Vec<Tensor>,
    /// Values by layer.
    pub values: Vec<Tensor>,
    /// Bytes of all of it.
    pub bytes: u64,
}

impl Storage {
    /// Zeros (padding is read under a mask, so it must be finite).
    pub fn new(
        config: &ModelConfig,
        rows: i64,
        columns: i64,
        device: Device,
        kind: Kind,
    ) -> Result<Self, ModelError> {
        let shape = [rows, config.kv_heads, columns, config.head_dim];
        let zeros = || Tensor::f_zeros(shape, (kind, device));
        let mut keys = Vec::with_capacity(config.layers);
        let mut values = Vec::with_capacity(config.layers);
        for _ in 0..config.layers {
            keys.push(zeros()?);
            values.push(zeros()?);
        }
        Ok(Self {
            keys,
            values,
            bytes: (rows * columns) as u64
                * config.kv_bytes_per_token(kind.elt_size_in_bytes() as u64),
        })
    }

    /// A new storage with some rows of this one, in the order given.
    pub fn select(&self, rows: &[i64], device: Device) -> Result<Self, ModelError> {
        let index = Tensor::f_from_slice(rows)?.f_to_device(device)?;
        let pick = |tensors: &[Tensor]| -> Result<Vec<Tensor>, tch::TchError> {
            tensors
                .iter()
                .map(|t| t.f_index_select(0, &index))
                .collect()
        };
        let all = self
            .keys
            .first()
            .map_or(1, |t| t.size().first().copied().unwrap_or(1));
        Ok(Self {
            keys: pick(&self.keys)?,
            values: pick(&self.values)?,
            bytes: self.bytes / all.max(1) as u64 * rows.len() as u64,
        })
    }
}

/// A sequence whose keys and values lie in a storage.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Its tokens, exactly those whose keys and values are there.
    pub tokens: Vec<u32>,
    /// How many of them were the prompt.
    pub prompt: usize,
    /// Where.
    pub storage: Rc<Storage>,
    /// Row of the storage.
    pub row: i64,
    /// Column of the first token.
    pub start: i64,
}

/// Sequences of earlier calls, oldest first, bounded in bytes.
#[derive(Debug, Default)]
pub(crate) struct PrefixCache {
    kept: VecDeque<Kept>,
}

impl PrefixCache {
    /// Keeps sequences and forgets the oldest storages until `limit` bytes are met.
    pub fn insert(&mut self, sequences: Vec<Kept>, limit: u64) {
        self.kept.extend(sequences);
        while self.bytes() > limit {
            let Some(first) = self.kept.pop_front() else {
                return;
            };
            // A storage is freed only with all its rows.
            self.kept
                .retain(|k| !Rc::ptr_eq(&k.storage, &first.storage));
        }
    }

    /// Bytes of all storages that are held.
    pub fn bytes(&self) -> u64 {
        let mut seen: Vec<&Rc<Storage>> = Vec::new();
        for k in &self.kept {
            if !seen.iter().any(|s| Rc::ptr_eq(s, &k.storage)) {
                seen.push(&k.storage);
            }
        }
        seen.iter().map(|s| s.bytes).sum()
    }

    /// The kept sequence that shares most tokens with a prompt, and how many (at most
    /// all but the last: its output is needed).
    ///
    /// Only a continuation of the *same conversation* counts: the kept prompt must be
    /// shared whole. Numbers computed within another batch differ in the last bits; a
    /// conversation must not depend on which strangers with the same system turn were
    /// sampled before it.
    pub fn find(&self, prompt: &[u32]) -> Option<(Kept, usize)> {
        let limit = prompt.len().saturating_sub(1);
        let mut best: Option<(&Kept, usize)> = None;
        for kept in &self.kept {
            let shared = kept
                .tokens
                .iter()
                .zip(prompt)
                .take(limit)
                .take_while(|(a, b)| a == b)
                .count();
            if shared >= kept.prompt && shared > 0 && best.is_none_or(|(_, n)| shared > n) {
                best = Some((kept, shared));
            }
        }
        best.map(|(kept, n)| (kept.clone(), n))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(tokens: &[u32], prompt: usize, bytes: u64) -> Kept {
        Kept {
            tokens: tokens.to_vec(),
            prompt,
            storage: Rc::new(Storage {
                keys: vec![],
                values: vec![],
                bytes,
            }),
            row: 0,
            start: 0,
        }
    }

    #[test]
    fn only_the_same_conversation_is_continued() {
        let mut cache = PrefixCache::default();
        cache.insert(vec![kept(&[1, 2, 3, 4], 3, 1), kept(&[1, 2, 9], 3, 1)], 100);
        assert_eq!(cache.find(&[1, 2, 3, 4, 5]).unwrap().1, 4);
        assert_eq!(cache.find(&[1, 2, 3, 7]).unwrap().1, 3);
        assert!(cache.find(&[1, 2, 5, 6]).is_none());
        // The very same prompt again: its last token must be computed anew, and then
        // the kept prompt is not shared whole.
        assert!(cache.find(&[1, 2, 3]).is_none());
    }

    #[test]
    fn oldest_storage_goes_first() {
        let mut cache = PrefixCache::default();
        cache.insert(vec![kept(&[1], 1, 60)], 100);
        cache.insert(vec![kept(&[2], 1, 60)], 100);
        assert!(cache.find(&[1, 5]).is_none());
        assert!(cache.find(&[2, 5]).is_some());
        cache.insert(vec![], 10);
        assert_eq!(cache.bytes(), 0);
    }
}
