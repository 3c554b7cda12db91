# Runs the tests as its child and says what came of them, out of the child's reach.
#
# It comes whole on standard input, so that nothing of it lies in the sandbox: no file, no
# argument, no variable. Before anything else runs it makes itself undumpable: code of the
# same user can then open neither its memory nor its descriptors. Only then is the child
# started. The child has pipes of its own; what it writes to its output is kept (bounded)
# for people, and decides nothing. Python 3.6 and later, standard library only.


def hide():
    """Closes this process to others of the same user; raises where that fails."""
    import ctypes

    set_dumpable, get_dumpable = 4, 3
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    libc.prctl(set_dumpable, zero, zero, zero, zero)
    if libc.prctl(get_dumpable, zero, zero, zero, zero) != 0:
        raise OSError("the process stays dumpable")


class Kept(object):
    """The first and the last half of a stream."""

    def __init__(self, cap):
        self.half = max(cap // 2, 1)
        self.head = bytearray()
        self.tail = bytearray()
        self.dropped = 0

    def push(self, data):
        room = self.half - len(self.head)
        if room > 0:
            self.head += data[:room]
            data = data[room:]
        self.tail += data
        if len(self.tail) > 2 * self.half:
            self.cut()

    def cut(self):
        over = len(self.tail) - self.half
        if over > 0:
            self.dropped += over
            del self.tail[:over]

    def text(self):
        self.cut()
        middle = b""
        if self.dropped:
            middle = ("\n[... %d bytes left out ...]\n" % self.dropped).encode()
        return bytes(self.head + middle + self.tail).decode("utf-8", "replace")


class Records(object):
    """Lines on the record pipe. One without the token, or out of turn, is a stray."""

    longest = 1 << 20
    most = 48 << 20

    def __init__(self, token, take):
        self.token = token
        self.take = take
        self.rest = b""
        self.turn = 0
        self.bytes = 0
        self.strays = 0
        self.sample = None

    def push(self, data):
        self.bytes += len(data)
        if self.bytes > self.most:
            return self.stray(b"more records than any run has")
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        if len(self.rest) > self.longest:
            self.stray(self.rest)
            self.rest = b""
        for line in lines:
            self.line(line)

    def line(self, line):
        import json

        try:
            record = json.loads(line.decode("utf-8"))
            fits = record[0] == self.token and record[1] == self.turn
        except Exception:
            fits = False
        if not fits:
            return self.stray(line)
        self.turn += 1
        self.take(record[2:])

    def stray(self, line):
        self.strays += 1
        if self.sample is None:
            self.sample = line[:200].decode("utf-8", "replace")

    def finish(self):
        if self.rest:
            self.stray(self.rest)


def start_child(request, ends):
    """Forks; in the child, replaces the process by the command."""
    import os
    import signal
    import sys

    nothing, out, err, record, boot = ends
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(nothing, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        environment = dict(os.environ)
        argv = []
        if request["script"] is not None:
            # Read whole before its first line runs, and in no file that could be changed.
            place = 64 + bytearray(os.urandom(1))[0] % 176
            os.dup2(boot, place)
            argv = ["bash", "-c", 's=$(cat <&%d; echo .); exec %d<&-; eval "${s%%.}"' % (place, place)]
        if request["runner"]:
            # Numbers that nothing else has, and nobody expects.
            place = 64 + bytearray(os.urandom(1))[0] % 176
            os.dup2(record, place)
            os.dup2(boot, place + 1)
            # The runner's own modules must not come from the tree that is graded. It
            # puts this back before anything of the tree is imported.
            environment.pop("PYTHONPATH", None)
            # With built-ins of its own: tests may exchange everybody else's.
            first = (
                "import io,builtins as b;f=io.open(%d,'rb');g={'__builtins__':dict(vars(b))};"
                "exec(compile(f.read(int(f.read(8))),'<runner>','exec'),g);g['start'](f,%d)"
            ) % (place + 1, place)
            argv = [sys.executable, "-c", first]
        os.execvpe(argv[0], argv, environment)
    except BaseException as error:
        os.write(2, ("cannot run %s: %s\n" % (argv[:1], error)).encode())
    os._exit(127)


def boot_of(request, token):
    """What the child reads first: the script, or the runner and what it is to do."""
    import json
    import os

    if request["script"] is not None:
        return request["script"].encode("utf-8")
    order = dict(request["runner"])
    source = order.pop("source").encode("utf-8")
    order["token"] = token
    order["python_path"] = os.environ.get("PYTHONPATH")
    return b"%08d" % len(source) + source + json.dumps(order).encode("utf-8")


def watch(request, say):
    """Runs the child to its end or to the limit."""
    import errno
    import os
    import select
    import signal
    import time

    begin = time.time()
    deadline = begin + request["timeout_ms"] / 1000.0
    token = "".join("%02x" % byte for byte in bytearray(os.urandom(16)))
    records = Records(token, lambda record: say({"record": record}))
    out, err = Kept(request["log_cap"]), Kept(request["log_cap"] // 4)
    (out_r, out_w), (rec_r, rec_w), (boot_r, boot_w) = os.pipe(), os.pipe(), os.pipe()
    err_r, err_w = os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR)
    child = start_child(
        request, (nothing, out_w, out_w if request["merge"] else err_w, rec_w, boot_r)
    )
    for number in (out_w, err_w, rec_w, boot_r, nothing):
        os.close(number)
    pending = boot_of(request, token)
    sinks = {out_r: out.push, err_r: err.push, rec_r: records.push}
    poll = select.poll()
    for number in sinks:
        os.set_blocking(number, False)
        poll.register(number, select.POLLIN)
    os.set_blocking(boot_w, False)
    if pending:
        poll.register(boot_w, select.POLLOUT)
    else:
        os.close(boot_w)

    def forget(number):
        poll.unregister(number)
        os.close(number)
        sinks.pop(number, None)

    def drain(number):
        """Reads what is there, in a bounded turn; whether there may be more."""
        for _ in range(16):
            try:
                data = os.read(number, 1 << 16)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    return False
                data = b""
            if not data:
                forget(number)
                return False
            sinks[number](data)
        return True

    status, timed_out = None, False
    while status is None:
        left = deadline - time.time()
        if left <= 0:
            timed_out = True
            break
        # The record pipe closes with the run: what is left is the end of the process.
        wait = 0.25 if rec_r in sinks else 0.004
        for number, event in poll.poll(min(left, wait) * 1000 + 1):
            if number == boot_w:
                try:
                    pending = pending[os.write(boot_w, pending) :]
                except OSError as error:
                    if error.errno != errno.EAGAIN:
                        pending = b""
                if not pending:
                    forget(boot_w)
            elif number in sinks:
                drain(number)
        done, word = os.waitpid(child, os.WNOHANG)
        if done:
            status = word
    try:
        os.killpg(child, signal.SIGKILL)
    except OSError:
        pass
    if status is None:
        status = os.waitpid(child, 0)[1]
    # What was written before the end; who still writes now gets a bounded hearing.
    last = time.time() + 1
    while sinks and time.time() < last:
        if not any([drain(number) for number in list(sinks)]):
            break
    records.finish()
    is_signal = os.WIFSIGNALED(status)
    say(
        {
            "ended": {
                "exit": None if is_signal or timed_out else os.WEXITSTATUS(status),
                "signal": os.WTERMSIG(status) if is_signal and not timed_out else None,
                "timed_out": timed_out,
                "wall_ms": int((time.time() - begin) * 1000),
                "strays": records.strays,
                "stray": records.sample,
                "dropped": out.dropped,
                "log": out.text(),
                "stderr": err.text(),
            }
        }
    )


def judge(order):
    import json
    import os
    import sys

    request = json.loads(bytearray.fromhex(order).decode("utf-8"))
    # This program itself must not stay readable anywhere.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    out = sys.stdout

    def say(value):
        out.write(json.dumps(value) + "\n")

    out.write(request["start"] + "\n")
    out.flush()
    try:
        hide()
    except Exception as error:
        say({"failed": "it cannot hide: %s" % error})
    else:
        watch(request, say)
    out.write(request["end"] + "\n")
    out.flush()


