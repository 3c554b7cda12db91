"""The official harness on the same files: parse and grade every log, write every report.

Usage: peer.py DIR ROUNDS, with DIR/tasks.jsonl, DIR/predictions.jsonl and
DIR/logs/run_evaluation/r/m/ID/test_output.txt. Prints one JSON object: seconds of each
round, and the ids that are resolved.
"""
import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path

from swebench.harness.grading import get_eval_report
from swebench.harness.reporting import make_run_report
from swebench.harness.utils import make_test_spec

os.chdir(sys.argv[1])
tasks = [json.loads(line) for line in open("tasks.jsonl")]
by_id = {task["instance_id"]: task for task in tasks}
predictions = {row["instance_id"]: row for row in map(json.loads, open("predictions.jsonl"))}
seconds = []
for _ in range(int(sys.argv[2])):
    begin = time.perf_counter()
    for instance, prediction in predictions.items():
        log = Path("logs/run_evaluation/r/m") / instance / "test_output.txt"
        report = get_eval_report(make_test_spec(by_id[instance]), prediction, str(log), True)
        (log.parent / "report.json").write_text(json.dumps(report))
    with contextlib.redirect_stdout(io.StringIO()):
        path = make_run_report(predictions, tasks, "r")
    seconds.append(time.perf_counter() - begin)
print(json.dumps({"seconds": seconds, "resolved": sorted(json.load(open(path))["resolved_ids"])}))
