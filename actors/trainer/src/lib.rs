//! gametape-trainer
