# Runs pytest in the process where the graded code runs, and tells the judge of every test.
#
# It is read from a private pipe and lies in no file. What it needs (pytest, pluggy,
# unittest) is imported before anything of the graded tree, and from elsewhere; a picture
# of it is taken then, and compared later. What happens here can be seen and changed by
# code that knows how: it makes deceit hard and visible, not impossible. Python 3.6 and
# later; pytest 3.10 and later.


def start(stream, channel):
    import os
    import sys

    at_start = set(sys.modules)
    # The first of all: nothing of the tree may come in before the runner is whole.
    if sys.path and sys.path[0] == "":
        del sys.path[0]
    import json

    order = json.loads(stream.read().decode("utf-8"))
    stream.close()
    os.set_inheritable(channel, False)
    here = os.getcwd()
    python_path = order["python_path"]
    roots = [here]
    if python_path is not None:
        os.environ["PYTHONPATH"] = python_path
        roots += [os.path.abspath(part) for part in python_path.split(os.pathsep) if part]
    elsewhere = list(sys.path)
    if order["own"]:
        # The tree is the runner's: there is no other to take.
        sys.path[:] = roots + elsewhere
    import pluggy
    import pytest
    import unittest
    import _pytest.main
    import _pytest.python
    import _pytest.runner
    import _pytest.terminal
    import _pytest.unittest
    from importlib.util import find_spec

    def is_there(name):
        return find_spec(name) is not None

    send = sender(os, json, channel, order.pop("token"))
    watched = Picture(sys, roots, order)
    run = Run(send, watched, order, os, sys, pytest, unittest)
    sys.path[:] = roots + elsewhere
    if not order["own"]:
        forget_what_the_tree_has(sys, os, at_start, roots)
    place = os.path.dirname(pytest.__file__)
    sys.argv[:] = [os.path.join(place, "__main__.py")] + order["arguments"]
    arguments = list(order["arguments"])
    if "PYTEST_DISABLE_PLUGIN_AUTOLOAD" not in os.environ and is_there("xdist"):
        # Tests in other processes would be out of sight.
        arguments.append("-n0")
    main = sys.modules["__main__"].__dict__
    for name in ("io", "b", "f", "g"):
        main.pop(name, None)
    send("started", pytest.__version__, sys.version.split()[0])
    del stream, order, json, main
    code = pytest.main(arguments, plugins=[plugin_of(pytest, run)])
    run.end(int(code))
    try:
        sys.stdout.flush()
    except Exception:
        pass
    sys.exit(int(code))


def sender(os, json, channel, token):
    """What writes a record: numbered, so that none can be left out, doubled or moved."""
    turn = [0]
    owner = os.getpid()
    write, dumps, getpid, close = os.write, json.dumps, os.getpid, os.close

    def send(*record):
        if getpid() != owner:
            return
        data = (dumps([token, turn[0]] + list(record)) + "\n").encode("ascii")
        turn[0] += 1
        try:
            while data:
                data = data[write(channel, data) :]
            if record[0] == "end":
                close(channel)
        except OSError:
            # A run without its last records is not believed.
            pass

    return send


def forget_what_the_tree_has(sys, os, at_start, roots):
    """Modules that were imported for the runner and that the tree has, too (a repository
    of `packaging`, say): tests get the tree's, the runner keeps its own."""
    kept = ("pytest", "_pytest", "pluggy", "unittest")

    def offered(name):
        for root in roots:
            place = os.path.join(root, name)
            if os.path.isfile(place + ".py") or os.path.isfile(
                os.path.join(place, "__init__.py")
            ):
                return True
        return False

    known = {}
    for name in list(sys.modules):
        top = name.split(".")[0]
        if name in at_start or top in kept:
            continue
        if top not in known:
            known[top] = offered(top)
        if known[top]:
            del sys.modules[name]


class Picture(object):
    """What the runner consists of, function by function: same object, same code."""

    def __init__(self, sys, roots, order):
        import builtins

        self.sys = sys
        self.roots = tuple(root.rstrip("/") + "/" for root in roots)
        self.own_files = order["files"]
        self.off = order["own"]
        self.entries = []
        self.vital = []
        self.function = type(self.__init__.__func__)
        self.code_of = type(self.function.__code__)
        if self.off:
            return
        modules = ["unittest.case", "unittest.suite", "unittest.result", "unittest.runner"]
        for name in sorted(sys.modules):
            if name.split(".")[0] in ("_pytest", "pluggy"):
                modules.append(name)
        vital = (
            "_pytest.runner",
            "_pytest.reports",
            "_pytest.unittest",
            "unittest.case",
            "pluggy.callers",
            "pluggy._callers",
            "pluggy.hooks",
            "pluggy._hooks",
        )
        for name in modules:
            module = sys.modules.get(name)
            if module is None:
                continue
            first = len(self.entries)
            for key, value in list(vars(module).items()):
                if isinstance(value, self.function):
                    self.note(module, key, value, name)
                elif isinstance(value, type) and value.__module__ == name:
                    self.note(module, key, value, name)
                    for inner, what in list(vars(value).items()):
                        self.note(value, inner, what, name + "." + key)
            if name in vital:
                self.vital += self.entries[first:]
        pinned = ("open", "print", "input", "__import__", "__build_class__")
        first = len(self.entries)
        for key, value in list(vars(builtins).items()):
            if callable(value) and key not in pinned and not key.startswith("_"):
                if isinstance(value, type) or type(value).__name__.startswith("builtin"):
                    self.note(builtins, key, value, "builtins")
        self.vital += self.entries[first:]

    def note(self, holder, key, value, where):
        inner = value
        if isinstance(value, (classmethod, staticmethod)):
            inner = value.__func__
        elif isinstance(value, property):
            inner = value.fget
        code = getattr(inner, "__code__", None)
        if code is None and not isinstance(value, type) and where != "builtins":
            return
        self.entries.append((vars(holder), key, value, inner, code, where))

    def changed(self, only_vital):
        """The first thing that is another now, and where it comes from."""
        for holder, key, value, inner, code, where in self.vital if only_vital else self.entries:
            now = holder.get(key)
            if now is value and getattr(inner, "__code__", None) is code:
                continue
            now = inner if now is value else now
            if only_vital and not hasattr(getattr(now, "__func__", now), "__code__"):
                # In the middle of a test it may have put anything there, to be undone.
                continue
            origin = self.origin(now)
            if origin is not None:
                return where + "." + key, origin
        return None

    def origin(self, value):
        """Where a changed thing was made; None where tests and tools may do so."""
        value = getattr(value, "__func__", value)
        while hasattr(value, "__wrapped__") or hasattr(value, "func"):
            value = getattr(value, "__wrapped__", None) or value.func
        code = getattr(value, "__code__", None)
        if code is None:
            kind = type(value)
            if kind.__module__.split(".")[0] == "unittest":
                return None
            return "%s.%s" % (kind.__module__, kind.__name__)
        name = code.co_filename
        if name.rsplit("/", 1)[-1] == "conftest.py":
            return None
        for root in self.roots:
            inside = name[len(root) :] if name.startswith(root) else None
            for own in self.own_files if inside else ():
                if inside == own or own.endswith("/") and inside.startswith(own):
                    return None
        if name.startswith(("/", "<frozen")) and not name.startswith(self.roots):
            return None
        return name


class Run(object):
    """What is known of the session so far."""

    def __init__(self, send, watched, order, os, sys, pytest, unittest):
        self.send = send
        self.watched = watched
        self.own = order["own"]
        self.disguise = order["disguise"]
        self.urandom = os.urandom
        self.environ = os.environ
        self.pytest = pytest
        self.unittest = unittest
        import builtins

        self.builtins = builtins
        self.numbers = {}
        self.canaries = {}
        self.current = None
        self.phases = []
        self.odd = 0
        self.ran = 0
        self.failed = 0
        self.collected = 0
        self.alarmed = False
        self.made = {}

    def alarm(self, what, origin):
        if not self.alarmed:
            self.alarmed = True
            self.send("tampered", what[:200], str(origin)[:200])

    def look(self, only_vital=False):
        if not self.alarmed:
            found = self.watched.changed(only_vital)
            if found:
                self.alarm(*found)

    def below(self, count):
        number = 0
        for byte in bytearray(self.urandom(4)):
            number = number * 256 + byte
        return number % count

    def word(self):
        first = "handles keeps accepts rejects returns merges copies sorts reads".split()
        then = "empty nested default single repeated mixed large simple plain".split()
        last = "input values items keys text names options lines paths case".split()
        pick = [words[self.below(len(words))] for words in (first, then, last)]
        return "test_" + "_".join(pick)

    def text(self, report):
        if report.outcome != "failed":
            return ""
        try:
            whole = report.longreprtext
        except Exception:
            whole = str(report.longrepr)
        lines = [l[1:].strip() for l in whole.splitlines() if l.startswith("E ")]
        if not lines and whole.strip():
            lines = whole.strip().splitlines()[-1:]
        return "\n".join(lines)[:600]

    # ---- planted tests

    def plant(self, session):
        """Tests of which the end is known, beside the real ones."""
        items = session.items
        module = getattr(self.pytest, "Module")
        spots = []
        for at in range(len(items) + 1):
            before = items[at - 1] if at else None
            after = items[at] if at < len(items) else None
            for near, other in ((before, after), (after, before)):
                parent = getattr(near, "parent", None)
                while parent is not None and type(parent) is not module:
                    parent = parent.parent
                if parent is None:
                    continue
                # Never between two tests of one class: its fixtures stand.
                inner = getattr(near, "cls", None)
                if inner is not None and getattr(other, "cls", None) is inner:
                    continue
                spots.append((at, parent))
        kinds = ["assert", "equal", "true", "raises", "raise"]
        chosen = [kinds.pop(self.below(len(kinds))) for _ in range(3)]
        chosen += ["error", "pass"]
        planted = []
        for kind in chosen if spots else []:
            at, parent = spots[self.below(len(spots))]
            planted.append((at, self.canary(parent, kind), kind))
        for at, item, kind in sorted(planted, key=lambda one: -one[0]):
            self.canaries[id(item)] = kind
            items.insert(at, item)
        self.send("planted", len(planted), "")

    def canary(self, parent, kind):
        name = self.word()
        number = self.below(9000)
        bodies = {
            "assert": "    value = %d\n    assert value == value + 1" % number,
            "equal": "    _case().assertEqual(%d, %d)" % (number, number + 1),
            "true": "    _case().assertTrue([] != [])",
            "raises": "    with _raises(KeyError):\n        {%d: 1}[%d]" % (number, number),
            "raise": "    raise ValueError(%d)" % number,
            "error": "    pass",
            "pass": "    _case().assertEqual(%d, %d)" % (number, number),
        }
        extra = "missing_%d, " % number if kind == "error" else ""
        text = "def %s(%s_case=None, _raises=None):\n%s\n" % (name, extra, bodies[kind])
        path = getattr(parent, "fspath", None) or getattr(parent, "path", "<string>")
        # With everybody's built-ins, as the real tests have them.
        space = {
            "__name__": getattr(parent.obj, "__name__", "tests"),
            "__builtins__": self.builtins,
        }
        exec(compile(text, str(path), "exec"), space)
        made = space[name]
        made.__defaults__ = (self.unittest.TestCase, self.pytest.raises)
        function = self.pytest.Function
        if hasattr(function, "from_parent"):
            return function.from_parent(parent, name=name, callobj=made)
        return function(name, parent, callobj=made)

    def run_canary(self, item, nextitem):
        from _pytest.runner import runtestprotocol

        kind = self.canaries[id(item)]
        outcome = {}
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            outcome[report.when] = report.outcome
        call, setup = outcome.get("call"), outcome.get("setup")
        self.send("canary", kind, str(setup), str(call), item.name)

    # ---- real tests

    def begin(self, item):
        self.current = item
        self.phases = []
        self.made = {}

    def heard(self, report):
        """A report on a test, as the session sees it."""
        item = self.current
        if item is None or getattr(report, "nodeid", None) != item.nodeid:
            self.odd += 1
            if self.odd == 1:
                self.send("odd", str(getattr(report, "nodeid", None))[:300])
            return
        when, outcome = report.when, report.outcome
        part = hasattr(report, "context")
        if not part and outcome == "passed" and self.made.get(when) == "failed":
            self.alarm("the report on %s" % item.nodeid, "it had failed")
        if hasattr(report, "wasxfail") and outcome != "failed":
            outcome = "xfailed" if outcome == "skipped" else "xpassed"
        seconds = getattr(report, "duration", 0.0) or 0.0
        self.phases.append([when, outcome, round(seconds, 6), self.text(report), part])
        self.failed += report.outcome == "failed"
        if when == "teardown":
            self.send("test", self.numbers.get(id(item), -1), self.phases)
            self.ran += 1
            self.phases = []
            self.made = {}

    def seen(self, when, outcome, raised, forgiven):
        """A report as it was made, beside what the call itself did."""
        self.made[when] = outcome
        if raised and outcome == "passed" and not forgiven:
            self.alarm("the report on a test", "the test raised")

    def end(self, code):
        self.look()
        self.send("end", code, self.collected, self.ran, self.failed)


def plugin_of(pytest, run):
    hook = pytest.hookimpl

    class Plugin(object):
        @hook(hookwrapper=True, tryfirst=True)
        def pytest_collectreport(self, report):
            yield
            if report.outcome == "failed":
                name = run.config.cwd_relative_nodeid(report.nodeid)
                run.send("uncollected", name, run.text(report))
                run.failed += 1

        def pytest_configure(self, config):
            run.config = config

        @hook(hookwrapper=True, tryfirst=True)
        def pytest_runtestloop(self, session):
            relative = session.config.cwd_relative_nodeid
            names = [relative(item.nodeid) for item in session.items]
            for number, item in enumerate(session.items):
                run.numbers[id(item)] = number
            run.collected = len(names)
            for at in range(0, len(names), 500):
                run.send("collected", names[at : at + 500])
            run.look()
            if not run.own:
                try:
                    run.plant(session)
                except Exception as error:
                    run.send("planted", 0, "%s: %s" % (type(error).__name__, error))
            yield

        @hook(tryfirst=True)
        def pytest_runtest_protocol(self, item, nextitem):
            if id(item) not in run.canaries:
                run.begin(item)
                return None
            run.current = None
            try:
                run.run_canary(item, nextitem)
            finally:
                run.current = None
            return True

        @hook(hookwrapper=True, tryfirst=True)
        def pytest_runtest_call(self, item):
            name = getattr(item, "originalname", None) or item.name
            alias = run.word()
            inner, code = None, None
            if not run.own:
                if run.disguise:
                    inner = getattr(item, "obj", None)
                    inner = getattr(inner, "__func__", inner)
                    for _ in range(20):
                        inner = getattr(inner, "__wrapped__", inner)
                    code = getattr(inner, "__code__", None)
                real = item.runtest

                def runtest():
                    said = run.environ.get("PYTEST_CURRENT_TEST")
                    if said is not None:
                        run.environ["PYTEST_CURRENT_TEST"] = said.replace(name, alias)
                    return real()

                item.runtest = runtest
            try:
                if code is not None and hasattr(code, "replace") and code.co_name == name:
                    inner.__code__ = code.replace(co_name=alias)
                else:
                    code = None
            except Exception:
                code = None
            outcome = yield
            if not run.own:
                item.__dict__.pop("runtest", None)
                run.look(only_vital=True)
            if code is not None:
                inner.__code__ = code
            run.raised = outcome.excinfo is not None

        @hook(hookwrapper=True, tryfirst=True)
        def pytest_runtest_makereport(self, item, call):
            outcome = yield
            if outcome.excinfo is None:
                report = outcome.get_result()
                raised = call.when == "call" and getattr(run, "raised", False)
                run.raised = False
                forgiven = hasattr(report, "wasxfail") or hasattr(report, "context")
                run.seen(call.when, report.outcome, raised, forgiven)

        @hook(hookwrapper=True, trylast=True)
        def pytest_runtest_logreport(self, report):
            yield
            run.heard(report)

    return Plugin()


