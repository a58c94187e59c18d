# SPDX-License-Identifier: GPL-2.0-or-later
"""What the person at the terminal sees: errors in one sentence, progress lines, logged commands."""
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from svio_tool.paths import LOG, shown

VERBOSE = False


class SvioError(Exception):
    """Something that the person can understand and mend; printed as one sentence, no traceback."""

    def __init__(self, sentence, detail=""):
        super().__init__(sentence)
        self.sentence = sentence
        self.detail = detail

    def __str__(self):
        return f"{self.sentence}\n{self.detail}" if self.detail else self.sentence


def say(text=""):
    print(text, flush=True)


def note(text):
    """Only with --verbose."""
    if VERBOSE:
        print(f"  . {text}", file=sys.stderr, flush=True)


def tail(path, lines=15):
    try:
        with open(path, errors="replace") as handle:
            return "".join(handle.readlines()[-lines:]).rstrip()
    except OSError:
        return ""


class Progress:
    """One line per long step; on a terminal the elapsed time ticks, elsewhere two plain lines."""

    def __init__(self, title):
        self.title = title
        self.live = sys.stderr.isatty() and not VERBOSE
        self._stop = threading.Event()
        self._thread = None

    def __enter__(self):
        self.begin = time.monotonic()
        if self.live:
            self._thread = threading.Thread(target=self._tick, daemon=True)
            self._thread.start()
        else:
            print(f"  {self.title} ...", file=sys.stderr, flush=True)
        return self

    def _tick(self):
        while True:
            spent = time.monotonic() - self.begin
            sys.stderr.write(f"\r  {self.title} ... {spent:.0f} s\033[K")
            sys.stderr.flush()
            if self._stop.wait(0.5):
                return

    def __exit__(self, kind, value, trace):
        spent = time.monotonic() - self.begin
        if self._thread:
            self._stop.set()
            self._thread.join()
        word = "ok" if kind is None else "FAILED"
        start = "\r" if self.live else ""
        end = "\033[K" if self.live else ""
        print(f"{start}  {self.title}: {word}, {spent:.1f} s{end}", file=sys.stderr, flush=True)


class Log:
    """The log file of one step and the commands that write to it."""

    def __init__(self, name):
        LOG.mkdir(parents=True, exist_ok=True)
        self.path = LOG / f"{name}.log"
        self.handle = open(self.path, "w", buffering=1)

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.handle.close()

    def write(self, text):
        self.handle.write(text.rstrip("\n") + "\n")

    def run(self, command, failed, **options):
        """Run a command with its output in the log; "failed" is the sentence for when it fails."""
        command = [str(word) for word in command]
        self.write("$ " + shlex.join(command))
        note(shlex.join(command))
        begin = self.handle.tell()
        try:
            status = run_quietly(command, self.handle, **options)
        except FileNotFoundError:
            raise SvioError(f"{failed}: the program {command[0]} is not installed, run scripts/svio setup") \
                from None
        if status:
            detail = tail(self.path)
            if "No space left on device" in self._since(begin):
                raise SvioError(f"{failed}: the disk is full, make room and run the command again", detail)
            raise SvioError(f"{failed} (whole output in {shown(self.path)})", detail)

    def _since(self, position):
        with open(self.path, errors="replace") as handle:
            handle.seek(position)
            return handle.read()


def run_quietly(command, handle, **options):
    """Exit status of a command; a Ctrl-C ends its whole process group, so nothing stays behind."""
    process = subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT,
                               stdin=options.pop("stdin", subprocess.DEVNULL),
                               start_new_session=True, **options)
    try:
        return process.wait()
    except BaseException:
        end_group(process)
        raise


def end_group(process, grace=5):
    """End a process that was started with start_new_session, and its children."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass
        try:
            process.wait(grace)
            return
        except subprocess.TimeoutExpired:
            continue


def replace_file(path, text):
    """The file is whole at any moment, also when several processes write it. Raises OSError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def output(command, failed=None, **options):
    """Standard output of a short command as text; None when it fails and no sentence was given."""
    note(shlex.join(str(word) for word in command))
    try:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                              **options)
    except FileNotFoundError:
        done = None
    if done is None or done.returncode:
        if failed is None:
            return None
        raise SvioError(failed, done.stderr.strip() if done else f"{command[0]} is not installed")
    return done.stdout
