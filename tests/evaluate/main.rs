//! `gametape evaluate` and `gametape explain` from the outside, on tapes of attempts whose
//! verdicts, scores and patches the tests know: every figure is compared with one that the
//! test computes itself.

#![allow(clippy::unwrap_used)]

mod between;
mod explain;
mod figures;
#[path = "../made_up/mod.rs"]
mod made_up;
mod measured;
mod pages;
mod refused;
