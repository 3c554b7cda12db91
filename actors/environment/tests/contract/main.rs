//! What every back end of sandboxes promises, on each that this machine has, and what
//! the Docker back end alone must stand: attacks from inside, owners that are killed.

#![allow(clippy::unwrap_used, missing_docs)]

mod attacks;
mod checks;
mod engines;
mod histories;
mod images;
mod intents;
mod leaks;
mod local_leaks;
mod rooms;
mod shells;
mod table;
mod table_list;
mod table_scripts;
#[path = "../common/tries.rs"]
mod tries;

use gametape_environment::ground::Layers;
use gametape_schemas::message::History;

#[test]
fn the_local_back_end_keeps_the_contract() {
    rooms::local("the_local_back_end_keeps_the_contract", checks::contract);
}

/// As on machines where nothing can be mounted over a tree.
#[test]
fn the_local_back_end_keeps_the_contract_without_an_overlay() {
    let test = "the_local_back_end_keeps_the_contract_without_an_overlay";
    let none = History::None;
    rooms::local_as(test, none, Layers::Limited, |open| {
        checks::contract(open);
        checks::closed_is_gone(open);
    });
    // Nor over anything.
    rooms::local_as(test, none, Layers::Plain, checks::contract);
    let mut diffs = Vec::new();
    for most in [Layers::Overlay, Layers::Limited, Layers::Plain] {
        rooms::local_as(test, none, most, |open| {
            diffs.push(checks::diff_of_a_mess(open))
        });
    }
    assert!(
        diffs.windows(2).all(|pair| pair[0] == pair[1]),
        "{diffs:#?}"
    );
}

#[test]
fn the_docker_back_end_keeps_the_contract() {
    rooms::docker("the_docker_back_end_keeps_the_contract", |open| {
        checks::contract(open);
        checks::closed_is_gone(open);
    });
}

#[test]
fn a_shell_lives_on_in_local_sandboxes() {
    rooms::local("a_shell_lives_on_in_local_sandboxes", shells::contract);
}

#[test]
fn a_shell_lives_on_in_containers() {
    rooms::docker("a_shell_lives_on_in_containers", shells::contract);
}

#[test]
fn nothing_hides_behind_the_shell_of_a_container() {
    let test = "nothing_hides_behind_the_shell_of_a_container";
    rooms::docker(test, |open| {
        shells::nothing_hides_behind_a_shell(open);
        shells::keys_that_are_not_read(open);
    });
}

#[test]
fn both_back_ends_give_the_same_diff() {
    let test = "both_back_ends_give_the_same_diff";
    rooms::local(test, |local| {
        rooms::docker(test, |docker| {
            let diff = checks::diff_of_a_mess(docker);
            assert!(
                diff.contains("new file") && diff.contains("closed/inside"),
                "{diff}"
            );
            assert_eq!(diff, checks::diff_of_a_mess(local));
        });
    });
}
