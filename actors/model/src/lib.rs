//! gametape-model
