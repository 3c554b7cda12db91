//! Logs of pytest, made up: as long as real ones, some of them with failures.

use crate::Work;

const LOGS: usize = 300;
const TESTS: usize = 400;

/// Tasks and their logs.
pub fn work() -> Work {
    let (tasks, logs) = (0..LOGS).map(one).unzip();
    Work { tasks, logs }
}

fn name(test: usize) -> String {
    format!(
        "tests/test_part_{}.py::TestPart::test_case_{test}",
        test / 40
    )
}

/// Every third log fails somewhere.
fn fails(number: usize, test: usize) -> bool {
    number.is_multiple_of(3) && test % 97 == number % 97
}

fn one(number: usize) -> (serde_json::Value, (String, String)) {
    let id = format!("made-up__project-{number}");
    let names = |range: std::ops::Range<usize>| range.map(name).collect::<Vec<_>>();
    let task = serde_json::json!({
        "instance_id": id,
        "repo": "pytest-dev/pytest",
        "version": "7.4",
        "base_commit": "0".repeat(40),
        "patch": "p",
        "test_patch": "t",
        "problem_statement": "",
        "FAIL_TO_PASS": names(0..4),
        "PASS_TO_PASS": names(4..TESTS),
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        "eval_script": "",
        "image": "",
    });
    let mut log = String::from(">>>>> Start Test Output\n");
    log.push_str(
        "============================= test session starts ==============================\n",
    );
    for test in 0..TESTS {
        let failed = fails(number, test);
        if failed {
            log.push_str(&format!(
                "____ {test} ____\n\n    def test_case_{test}(self):\n>       assert 1 == 2\nE       assert 1 == 2\n\n"
            ));
        }
        log.push_str("a line that a test printed, of a usual length, with nothing to say\n");
    }
    log.push_str(
        "=========================== short test summary info ============================\n",
    );
    for test in 0..TESTS {
        let failed = fails(number, test);
        let status = if failed { "FAILED" } else { "PASSED" };
        log.push_str(&format!("{status} {}\n", name(test)));
    }
    log.push_str(">>>>> End Test Output\n");
    (task, (id, log))
}
