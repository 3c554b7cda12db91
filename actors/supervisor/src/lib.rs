//! gametape-supervisor
