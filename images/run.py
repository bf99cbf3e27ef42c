# SPDX-License-Identifier: Apache-2.0
"""Running other programs so that a failure says what to do and an interrupt leaves none behind."""

import shutil
import signal
import subprocess
import sys

STOP_SECONDS = 20  # how long an interrupted program may clean up before it is killed
TAIL_LINES = 12    # of a failed program's output, shown to the user

# Which Debian package has a program that may be missing.
PROVIDERS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs",
             "dumpe2fs": "e2fsprogs", "debugfs": "e2fsprogs", "mcopy": "mtools",
             "mformat": "mtools", "syslinux": "syslinux", "qemu-img": "qemu-utils",
             "fakeroot": "fakeroot", "dpkg": "dpkg", "apt-get": "apt", "tar": "tar",
             "openssl": "openssl"}


class Failure(Exception):
    """What went wrong and what the user can do about it."""

    def __init__(self, what, hint=None):
        super().__init__(what)
        self.hint = hint


def say(text):
    print(f"image: {text}", file=sys.stderr, flush=True)


def require_programs(names):
    missing = sorted({PROVIDERS[name] for name in names if not shutil.which(name)})
    if missing:
        raise Failure("programs are missing", "install them: apt-get install " + " ".join(missing))


def run(command, hint=None, input=None, **options):
    """Runs to the end with the input given. Its output is kept and shown only when it fails."""
    options.setdefault("stdin", subprocess.DEVNULL if input is None else subprocess.PIPE)
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.STDOUT)
    with subprocess.Popen(command, **options) as process:
        try:
            out, _ = process.communicate(input)
        except BaseException:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if process.returncode:
        tail = (out or b"").decode(errors="replace").strip().splitlines()[-TAIL_LINES:]
        raise Failure("\n    ".join([f"{command[0]} {how_it_ended(process.returncode)}", *tail]),
                      hint)
    return out


def how_it_ended(status):
    if status == -signal.SIGXFSZ:
        return "met the limit on the size of a file (ulimit -f)"
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"failed with status {status}"


def output_of(command, **options):
    return run(command, stderr=subprocess.DEVNULL, **options).decode()
