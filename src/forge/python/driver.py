"""Runs inside a sandbox: many short test runs for the price of one interpreter start.

Reads one JSON request from standard input and writes one JSON line per job to
standard output, then a line {"end": true}. pytest is imported once; every job runs in
a forked child with its own process group, address-space limit and deadline, so that a
job which hangs, exits or eats memory ends alone. Two modes:

  trace   {"mode": "trace", "files": [...], "timeout": s, "code": [...]}
          runs each test file with a profile function and reports which functions
          (path, first line, calls) it reached;
  screen  {"mode": "screen", "jobs": [{"id", "path", "source", "tests", "expected",
          "timeout"}]} writes `source` to `path`, runs the test files, puts the old
          content back, and reports expected tests that did not pass.

The mutants are gametape's own, so this run is a sieve and not a judge: what survives
is graded again in fresh sandboxes.
"""

import importlib.util
import json
import os
import re
import resource
import select
import signal
import sys
import time

import pytest

ROOT = os.getcwd()
# Compiled test files are kept from one job to the next; `forget_bytecode` sees to it
# that mutants are not.
sys.dont_write_bytecode = False
MEMORY_BYTES = 1 << 30
TEXT_CAP = 600


class Collector:
    """A pytest plugin that keeps the worst status of every test and why it failed."""

    def __init__(self):
        self.statuses = {}
        self.failures = {}

    def pytest_runtest_logreport(self, report):
        if report.failed:
            status = "FAILED" if report.when == "call" else "ERROR"
        elif report.skipped:
            status = "XFAIL" if hasattr(report, "wasxfail") else "SKIPPED"
        elif report.when == "call":
            status = "XPASS" if hasattr(report, "wasxfail") else "PASSED"
        else:
            return
        old = self.statuses.get(report.nodeid)
        if old in ("FAILED", "ERROR") or (old == status):
            return
        self.statuses[report.nodeid] = status
        if status in ("FAILED", "ERROR"):
            self.failures[report.nodeid] = failure_text(report)

    def pytest_collectreport(self, report):
        if report.failed:
            self.failures.setdefault("", failure_text(report))


def failure_text(report):
    """The lines that say what was expected, without places and addresses."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)[-TEXT_CAP:]
    text = text.replace(ROOT + "/", "")
    text = re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", text)
    return text[:TEXT_CAP]


def calls_profile(calls):
    def profile(frame, event, _arg):
        if event == "call":
            code = frame.f_code
            calls[code] = calls.get(code, 0) + 1

    return profile


def run_tests(files, calls=None):
    """Runs test files in this process and returns what the collector saw."""
    collector = Collector()
    # As the grader runs them: the package's own options may need plugins or turn
    # warnings into failures.
    options = ["-q", "-p", "no:cacheprovider", "-o", "addopts=", "-W", "ignore"]
    arguments = [*options, "--rootdir=.", *files]
    if calls is not None:
        import threading

        profile = calls_profile(calls)
        threading.setprofile(profile)
        sys.setprofile(profile)
    code = pytest.main(arguments, plugins=[collector])
    if calls is not None:
        sys.setprofile(None)
    return int(code), collector


def limit_memory():
    """Lowers the address-space limit; the sandbox may have set a lower one already."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > MEMORY_BYTES:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def in_child(work, timeout):
    """Runs `work` in a forked child; its JSON answer, or None after the deadline."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            os.close(read_end)
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            limit_memory()
            answer = json.dumps(work()).encode()
            while answer:
                answer = answer[os.write(write_end, answer) :]
        except BaseException as error:
            os.write(write_end, json.dumps({"crash": repr(error)[:TEXT_CAP]}).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    deadline = time.monotonic() + timeout
    chunks = []
    timed_out = False
    while True:
        left = deadline - time.monotonic()
        ready = left > 0 and select.select([read_end], [], [], left)[0]
        if not ready:
            timed_out = True
            break
        chunk = os.read(read_end, 1 << 16)
        if not chunk:
            break
        chunks.append(chunk)
    os.close(read_end)
    for target in (-pid, pid):
        try:
            os.kill(target, signal.SIGKILL)
        except ProcessLookupError:
            pass
    os.waitpid(pid, 0)
    if timed_out:
        return {"timed_out": True}
    try:
        return json.loads(b"".join(chunks))
    except ValueError:
        return {"crash": "the test process died"}


def trace_file(name, code_paths):
    calls = {}
    code, collector = run_tests([name], calls)
    reached = {}
    for item, count in calls.items():
        if item.co_name == "<module>":
            continue
        path = os.path.relpath(item.co_filename, ROOT)
        if any(path == own or path.startswith(own + "/") for own in code_paths):
            place = (path, item.co_firstlineno)
            reached[place] = reached.get(place, 0) + count
    return {
        "code": code,
        "statuses": collector.statuses,
        "calls": [[path, line, n] for (path, line), n in sorted(reached.items())],
    }


def screen_job(job):
    code, collector = run_tests(job["tests"])
    seen = collector.statuses
    missing = [test for test in job["expected"] if test not in seen]
    bad = {t: seen[t] for t in job["expected"] if t in seen and seen[t] != "PASSED"}
    failures = {t: text for t, text in collector.failures.items() if t in bad or t == ""}
    return {"code": code, "missing": missing, "bad": bad, "failures": failures}


def forget_bytecode(path):
    try:
        os.unlink(importlib.util.cache_from_source(path))
    except OSError:
        pass


def screen(job):
    path = os.path.join(ROOT, job["path"])
    with open(path, "rb") as file:
        old = file.read()
    try:
        with open(path, "wb") as file:
            file.write(job["source"].encode())
        # Byte code is trusted by size and second: a mutant's must never be taken for
        # another's.
        forget_bytecode(path)
        return in_child(lambda: screen_job(job), job["timeout"])
    finally:
        with open(path, "wb") as file:
            file.write(old)
        forget_bytecode(path)


def answer(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main():
    request = json.load(sys.stdin)
    if request["mode"] == "trace":
        for name in request["files"]:
            started = time.monotonic()
            work = lambda: trace_file(name, request["code"])
            result = in_child(work, request["timeout"])
            result.update(id=name, seconds=time.monotonic() - started)
            answer(result)
    else:
        for job in request["jobs"]:
            started = time.monotonic()
            result = screen(job)
            result.update(id=job["id"], seconds=time.monotonic() - started)
            answer(result)
    answer({"end": True})


main()
