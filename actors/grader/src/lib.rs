//! gametape-grader
