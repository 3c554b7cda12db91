//! gametape-environment
