//! gametape-tape
