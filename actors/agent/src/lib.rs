//! gametape-agent
