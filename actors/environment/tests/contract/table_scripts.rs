//! What runs inside, in Python: each prints ALLOWED where it gets through, and `tried`
//! at its end, so that a script that breaks down is not taken for one that was stopped.
//! Those that hit a limit fail then: Docker's counters are asked after failures only.

pub const HISTORY: &str = r#"
import os
for place, directories, files in os.walk('/'):
    if place in ('/proc', '/sys', '/dev'):
        directories.clear()
        continue
    names = {*directories, *files}
    if names & {'.git', '.hg', '.svn', 'alternates'} or {'HEAD', 'objects', 'refs'} <= names:
        print('ALLOWED', place)
try:
    open('tests/test_a.py'); print('ALLOWED hidden test')
except OSError:
    print('tried')
"#;

pub const NETWORK: &str = r#"
import os, socket
tcp, udp, unix = (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)
for kind, address in [
    (tcp, ('192.0.2.1', 80)), (udp, ('192.0.2.1', 53)), (udp, ('169.254.169.254', 80)),
    (tcp, ('127.0.0.1', int(os.environ['PORT']))), (unix, '\0' + os.environ['WORD']),
    (unix, '/var/run/docker.sock'), (unix, '/run/containerd/containerd.sock'),
]:
    s = socket.socket(*kind); s.settimeout(5)
    try:
        s.connect(address); print('ALLOWED', address)
    except OSError:
        pass
try:
    socket.getaddrinfo('example.org', 80); print('ALLOWED names')
except OSError:
    pass
try:
    if len(socket.if_nameindex()) > 1: print('ALLOWED interfaces', socket.if_nameindex())
except OSError:
    pass
print('tried')
"#;

pub const PROC: &str = r#"
import os
pids = [p for p in os.listdir('/proc') if p.isdigit()]
if len(pids) > 12 or os.environ['HOST_PROCESS'] in pids: print('ALLOWED', pids)
for pid in pids:
    try:
        line = open(f'/proc/{pid}/cmdline').read()
        uid = [l.split()[1] for l in open(f'/proc/{pid}/status') if l.startswith('Uid')][0]
    except OSError:
        continue
    if 'contract' in line and 'python' not in line and 'gametape' not in line: print('ALLOWED', line)
    if int(uid) == os.getuid(): continue
    for name in ('environ', 'mem', 'maps', 'fd', 'root/etc', 'cwd/.'):
        try:
            path = f'/proc/{pid}/{name}'
            print('ALLOWED', path, os.listdir(path) if '/' in name or name == 'fd' else open(path).read(1))
        except OSError:
            pass
for path in ('/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/proc/kcore', '/sys/fs/cgroup/x'):
    try:
        open(path, 'r+' if 'kcore' not in path else 'rb'); print('ALLOWED', path)
    except OSError:
        pass
print('tried')
"#;

/// The interpreter may lie below the host's /root: the way there is all that shows.
pub const SECRETS: &str = r#"
import os, sys
for path in ('/etc/shadow', '/proc/1/cwd/etc/shadow', os.path.join('/proc/1/root', 'etc/shadow'), os.environ['CANARY']):
    try:
        open(path).read(); print('ALLOWED', path)
    except OSError:
        pass
for path in ('/usr/evil', '/etc/evil', '/venv/evil', '/evil', '/run/evil', os.environ['CANARY']):
    try:
        open(path, 'w'); print('ALLOWED', path)
    except OSError:
        pass
for path in ('/home', '/root', '/var/log', '/mnt'):
    try:
        on_the_way = [sys.base_prefix.split('/')[2]] if sys.base_prefix.startswith(path + '/') else []
        if os.listdir(path) != on_the_way: print('ALLOWED', path, os.listdir(path))
    except OSError:
        pass
print('tried')
"#;

pub const FORKS: &str = r#"
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
"#;

/// Four that together have more than the limit, and each less. One of them is killed:
/// that is waited for.
pub const MEMORY: &str = r#"
import os, signal, sys
children = []
for n in range(4):
    pid = os.fork()
    if pid == 0:
        had = b'x' * (150 << 20)
        while True: signal.pause()
    children.append(pid)
first, status = os.wait()
if os.WTERMSIG(status) != 9: print('ALLOWED', status)
for pid in children: os.kill(pid, 9) if pid != first else None
print('tried')
sys.exit(1)
"#;

macro_rules! fill {
    ($place:literal) => {
        concat!(
            "place = '",
            $place,
            r#"'
import os
room, files = 0, 0
block = b'x' * (1 << 20)
while files < 100:
    try:
        out = os.open(f'{place}/fill{files}', os.O_CREAT | os.O_WRONLY)
        files += 1
        for n in range(16): room += os.write(out, block)
        os.close(out)
    except OSError as error:
        full = error.errno == 28
        break
else:
    print('ALLOWED', room)
print(room, files, 'tried' if full else 'not full')
raise SystemExit(1)
"#
        )
    };
}
pub const FILL_TESTBED: &str = fill!("/testbed");
pub const FILL_TMP: &str = fill!("/tmp");

pub const MANY_FILES: &str = r#"
files = 0
try:
    while files < 100_000:
        open(f'n{files}', 'w').close()
        files += 1
    print('ALLOWED')
except OSError as error:
    print(0, files, 'tried' if error.errno == 28 else error)
    raise SystemExit(1)
"#;

pub const DAEMONS: &str = r#"
import os, subprocess, sys
script = 'import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: signal.pause()'
words = [sys.executable, '-c', script, os.environ['WORD']]
subprocess.Popen(words, start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: os.execv(words[0], words)
    os._exit(0)
os.wait()
print('tried')
"#;

pub const LINKS: &str = r#"
import os
os.symlink('/etc/passwd', 'secret'); os.symlink('/', 'root'); os.symlink('..', 'up')
os.symlink(os.environ['CANARY'], 'canary')
os.remove('a.py'); os.symlink('/etc/passwd', 'a.py')
print('tried')
"#;

pub const HARD_LINKS: &str = r#"
import os
for n, path in enumerate(('/etc/passwd', '/usr/bin/env', '/venv/pyvenv.cfg', '/proc/self/exe', os.environ['CANARY'])):
    try:
        os.link(path, f'hard{n}'); print('ALLOWED', path)
    except OSError:
        pass
os.link('a.py', 'second')
print('tried')
"#;

pub const TRACE: &str = r#"
denied('attach', 101, 16, 1, 0, 0)
denied('seize', 101, 0x4206, 1, 0, 0)
for name in ('mem', 'syscall', 'stack', 'environ'):
    try:
        open(f'/proc/1/{name}', 'rb').read(1); print('ALLOWED', name)
    except OSError:
        pass
print('tried')
"#;

pub const MOUNTS: &str = r#"
import subprocess
denied('mount', 165, b'x', b'/tmp', b'tmpfs', 0, 0)
denied('bind', 165, b'/', b'/tmp', 0, 4096, 0)
denied('umount', 166, b'/tmp', 2)
denied('pivot_root', 155, b'/tmp', b'/tmp')
denied('fsopen', 430, b'tmpfs', 0)
denied('open_tree', 428, -100, b'/', 1)
denied('chroot', 161, b'/tmp')
for words in (['mount', '-t', 'tmpfs', 'x', '/tmp'], ['umount', '-l', '/testbed']):
    if subprocess.run(words, capture_output=True).returncode == 0: print('ALLOWED', words)
print('tried')
"#;

pub const NAMESPACES: &str = r#"
import subprocess
for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x02000000):
    denied(hex(flag), 272, 0x10000000 | flag)
    denied(hex(flag), 56, 0x10000000 | flag | 17, 0, 0, 0, 0)
if subprocess.run(['unshare', '-Urm', 'true'], capture_output=True).returncode == 0: print('ALLOWED unshare')
print('tried')
"#;

/// That it reaches process 1 shows afterwards: nothing runs any more then.
pub const SIGNALS: &str = r#"
import os
def send(pid):
    try:
        os.kill(pid, 9)
        return True
    except OSError:
        return False
send(1)
if send(int(os.environ['HOST_PROCESS'])): print('ALLOWED')
print('tried', flush=True)
send(os.getppid())
"#;

pub const NEIGHBOUR: &str = r#"
import os
roots = ['/'] + [f'/proc/{p}/root' for p in os.listdir('/proc') if p.isdigit()]
for root in roots:
    for place, directories, files in os.walk(root):
        if place.rstrip('/').endswith(('/proc', '/sys')): directories.clear()
        if 'neighbour-file' in files or 'neighbours' in directories: print('ALLOWED', place)
        if root != '/' and os.path.samefile(root, '/'): directories.clear()
print('tried')
"#;

pub const BYTES: &str = r#"
import sys
sys.stdout.buffer.write(bytes(range(256)) * 4 + b'\xf0\x9f\n')
sys.stderr.buffer.write(b'\xff\xfe\n')
print('tried')
"#;

/// A name that would be a header in a diff, were it written as it is.
pub const NAMES: &str = r#"
import os
os.mkdir('x\n+++ b'); open('x\n+++ b/forged', 'w').write('evil = 1\n')
open('line\nbreak', 'w').write('1\n'); open(b'bad\xff\nname', 'wb').close()
open('tab\there', 'w').write('1\n'); open('"quoted"', 'w').write('1\n')
open('good.py', 'w').write('1\n')
print('tried')
"#;
