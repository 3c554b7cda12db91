//! gametape-verifier
