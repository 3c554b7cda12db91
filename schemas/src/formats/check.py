"""Runs the tests of a task, and writes 1 or 0 as its reward.

Read by Harbor from /tests, beside expected.json. A test has passed if its setup, its call
and its teardown did, or if it was marked to fail and did. A test that did not run has not
passed. Ids are pytest's; one that was cut at its first blank stands for all tests that
begin with it.
"""

import json
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parent
REWARD = pathlib.Path("/logs/verifier/reward.txt")


class Outcomes:
    """What came of each test."""

    def __init__(self):
        self.passed = {}

    def pytest_runtest_logreport(self, report):
        good = report.passed or (report.skipped and hasattr(report, "wasxfail"))
        before = self.passed.get(report.nodeid, True)
        self.passed[report.nodeid] = before and good


def main():
    expected = json.loads((HERE / "expected.json").read_text())
    outcomes = Outcomes()
    arguments = ["-p", "no:cacheprovider", *expected["arguments"], *expected["files"]]
    pytest.main(arguments, plugins=[outcomes])
    by_first_word = {}
    for test, passed in outcomes.passed.items():
        word = test.split(" ")[0]
        by_first_word[word] = by_first_word.get(word, True) and passed
    wanted = expected["fail_to_pass"] + expected["pass_to_pass"]
    missed = [t for t in wanted if not outcomes.passed.get(t, by_first_word.get(t, False))]
    for test in missed:
        print("not passed:", test)
    REWARD.parent.mkdir(parents=True, exist_ok=True)
    REWARD.write_text("1" if expected["fail_to_pass"] and not missed else "0")
    return 0


if __name__ == "__main__":
    sys.exit(main())
