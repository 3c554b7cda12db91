//! What every back end of sandboxes promises, on each that this machine has, and what
//! the Docker back end alone must stand: attacks from inside, owners that are killed.

#![allow(clippy::unwrap_used, missing_docs)]

mod attacks;
mod checks;
mod engines;
mod leaks;
mod local_leaks;
mod rooms;
mod shells;
mod table;
mod table_list;
mod table_scripts;
#[path = "../common/tries.rs"]
mod tries;

#[test]
fn the_local_back_end_keeps_the_contract() {
    rooms::local("the_local_back_end_keeps_the_contract", checks::contract);
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
