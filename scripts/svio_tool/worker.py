# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs one folder of Python tests in a process of its own and reports each result as a line of JSON.

python3 -m svio_tool.worker FOLDER FD TURNS [PATTERN]: the lines go to the file descriptor FD, so that what
the tests print cannot be mistaken for results. Several processes may share a folder's classes: the
descriptor TURNS gives each its next one, as two bytes. Tests marked with @long run when SVIO_LONG is set,
or a pattern names them.
"""
import faulthandler
import fnmatch
import itertools
import json
import os
import signal
import struct
import sys
import time
import traceback
import unittest

from svio_tool.following import PATIENCE
from svio_tool.paths import GUEST_SLOWNESS
from svio_tool.ui import SvioError


def matches(name, pattern):
    """As unittest's -k: a part of the name, or with * a whole pattern; upper and lower case alike."""
    name, pattern = name.lower(), pattern.lower()
    return fnmatch.fnmatchcase(name, pattern) if "*" in pattern else pattern in name


def long(test):
    """Marks a test (a method or a class) that takes minutes: only `scripts/svio test all` runs it."""
    test.svio_long = True
    return test


def _is_long(test):
    method = getattr(test, getattr(test, "_testMethodName", ""), None)
    return getattr(test, "svio_long", False) or getattr(method, "svio_long", False)


class Reporter(unittest.TestResult):
    def __init__(self, descriptor):
        super().__init__()
        self.out = os.fdopen(descriptor, "w", buffering=1)
        self.begun = time.monotonic()

    def event(self, **facts):
        self.out.write(json.dumps(facts) + "\n")

    def startTest(self, test):
        super().startTest(test)
        self.begun = time.monotonic()
        # A class whose tests may be silent for longer than the parent waits otherwise says so.
        patience = getattr(test, "svio_patience", PATIENCE) * GUEST_SLOWNESS
        self.event(kind="start", name=test.id(), patience=patience)

    def _end(self, test, ok, detail="", reason=None):
        self.event(kind="end", name=test.id(), ok=ok, seconds=time.monotonic() - self.begun, detail=detail,
                   reason=reason)

    def addSuccess(self, test):
        self._end(test, True)

    def addFailure(self, test, err):
        self._end(test, False, _detail(err))

    addError = addFailure

    def addSkip(self, test, reason):
        self._end(test, None, reason=reason)

    def addExpectedFailure(self, test, err):
        self._end(test, True)

    def addUnexpectedSuccess(self, test):
        self._end(test, False, "was expected to fail and passed")

    def addSubTest(self, test, subtest, err):
        # A passed part is no test of its own; a failed one fails its test, which gets no other report.
        if err is not None:
            self._end(subtest, False, _detail(err))


def _detail(err):
    kind, value, trace = err
    if issubclass(kind, SvioError):
        # The sentence says it; the way through our own classes does not help.
        where = [frame for frame in traceback.extract_tb(trace) if "/tests/" in frame.filename]
        place = "".join(traceback.format_list(where[-1:]))
        return f"{place}{kind.__name__}: {value}"
    return "".join(traceback.format_exception(kind, value, trace))


def _tests(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from _tests(item)
        else:
            yield item


def _by_class(tests):
    """[tests of one class], the longest first, as the last to end should be a short one: those that say what
    minutes they take (svio_minutes), then those with the most tests."""
    groups = [list(group) for _, group in itertools.groupby(tests, type)]
    return sorted(groups, key=lambda group: (getattr(group[0], "svio_minutes", 0), len(group)), reverse=True)


def _next_turn(descriptor):
    data = os.read(descriptor, 2)
    return struct.unpack("H", data)[0] if data else None


def main():
    folder, descriptor = sys.argv[1], int(sys.argv[2])
    turns = int(sys.argv[3])
    pattern = sys.argv[4] if len(sys.argv) > 4 else None
    faulthandler.enable()
    # The parent asks with it where a test hangs.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    loader = unittest.TestLoader()
    found = list(_tests(loader.discover(folder, pattern="test*.py", top_level_dir=folder)))
    if pattern:
        # A file that cannot be imported must not vanish behind a pattern.
        found = [test for test in found if matches(test.id(), pattern) or "_FailedTest" in test.id()]
    wanted = [test for test in found if pattern or "SVIO_LONG" in os.environ or not _is_long(test)]
    reporter = Reporter(descriptor)
    reporter.event(kind="found", count=len(found), long=len(found) - len(wanted))
    classes = _by_class(wanted)
    try:
        while (turn := _next_turn(turns)) is not None and turn < len(classes):
            unittest.TestSuite(classes[turn]).run(reporter)
    except KeyboardInterrupt:
        return 130
    reporter.event(kind="done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
