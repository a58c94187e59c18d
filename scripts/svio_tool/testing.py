# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "test": every suite, each test on a line as it ends, one closing line for all."""
import contextlib
import fnmatch
import json
import os
import re
import struct
import sys
import time

from svio_tool import checks, fuzzing, host, setup, stats, ui
from svio_tool.build import BUILD_DIRS
from svio_tool.following import Followed, follow
from svio_tool.paths import BUILD, DEBUG_KERNEL, KERNELS, LOG, PYTHON, QEMU, UNIT_TESTS, shown
from svio_tool.ui import SvioError
from svio_tool.worker import matches

SUITES = ("unit", "fuzz", "device", "device-asan", "vm", "xen")
# These run when they are named, and with "all".
LONG_SUITES = ("device-asan", "xen")
# The vm suite once more, in a guest whose kernel looks for bugs.
DEBUG = "debug-kernel"
# Long simulations in one thread, which the thread sanitizer has nothing to say of.
NO_THREADS = ("Shares.*",)
# Their classes run beside each other; a machine with Xen in it wants all of the host. More turns than any has
# classes, and few enough for a pipe.
PARALLEL = ("unit", "device", "device-asan", "vm", DEBUG)
TURNS = 4096
# (prefix of the names, set-up step, binary)
UNIT_BUILDS = (("unit", "compile-tests", UNIT_TESTS),
               ("unit-tsan", "compile-tsan", BUILD / "tsan/tests/unit/svio-unit-tests"),
               ("unit-asan", "compile-asan", BUILD / "asan/tests/unit/svio-unit-tests"))


def add_arguments(parser):
    parser.add_argument("suites", nargs="*", metavar="unit|fuzz|device|device-asan|vm|xen|all|debug-kernel",
                        help="default: unit, fuzz, device and vm but for the tests that take minutes; all: "
                        "those as well, device-asan (the device tests with the plugin under the address "
                        "sanitizer) and xen (the Xen machine); debug-kernel: vm with KASAN, lockdep, DMA-API "
                        "debug and kmemleak in the guest")
    parser.add_argument("-k", dest="pattern", metavar="PATTERN", help="only tests whose name has this part; "
                        "with * a whole pattern")
    parser.add_argument("--inputs", type=int, metavar="N", help="suite fuzz: so many new inputs over all "
                        "targets; what they find of interest is kept and built upon the next time")
    parser.add_argument("--seed", type=int, metavar="S", help="suite fuzz: the seed of a run to repeat")
    parser.add_argument("--jobs", type=int, metavar="J", help="suite fuzz: so many processes at a time")
    parser.add_argument("--json", metavar="FILE", help="write every result to FILE, - for standard output")


class Tally:
    """What passed, failed and was not run, said as it happens."""

    def __init__(self, pattern=None, with_long=False):
        self.pattern, self.with_long = pattern, with_long
        self.tests = []
        self.left_out = 0

    def wanted(self, name):
        return not self.pattern or matches(name, self.pattern)

    def add(self, name, ok, seconds=0.0, detail="", reason=None):
        self.tests.append({"name": name, "ok": ok, "seconds": round(seconds, 3), "detail": detail,
                           "reason": reason})
        word = "ok  " if ok else "not run" if ok is None else "FAIL"
        ui.say(f"{word} {name}" + (f": {reason}" if ok is None else f"  {seconds:.2f} s"))
        if ok is False and detail:
            ui.say("\n".join("       " + line for line in detail.rstrip().splitlines()[-60:]))

    def count(self, ok):
        return sum(test["ok"] is ok for test in self.tests)

    def close(self):
        """The closing lines; True when all is well."""
        for test in self.tests:
            if test["ok"] is None:
                ui.say(f"not run: {test['name']}: {test['reason']}")
        if self.left_out:
            ui.say(f"left out: {self.left_out} long tests, which scripts/svio test all runs")
        failed = [test["name"] for test in self.tests if test["ok"] is False]
        if failed:
            ui.say("failed: " + ", ".join(failed[:20]) + (" ..." if len(failed) > 20 else ""))
        ui.say(f"{self.count(True)} passed, {self.count(False)} failed")
        return not failed

    def facts(self):
        return {"passed": self.count(True), "failed": self.count(False), "not_run": self.count(None),
                "left_out": self.left_out,
                "tests": self.tests}


def _set_up(tally, name, steps):
    """True when the steps worked; else their failure is a failed test of this name."""
    begin = time.monotonic()
    try:
        setup.ensure(steps)
        return True
    except SvioError as error:
        tally.add(name, False, time.monotonic() - begin, str(error))
        return False


# --- unit -------------------------------------------------------------------------------------------

def _unit(tally):
    for name, check, steps in checks.all_checks():
        if tally.wanted(name) and _set_up(tally, name, steps):
            begin = time.monotonic()
            try:
                ok, detail = check()
                tally.add(name, ok, time.monotonic() - begin, "" if ok else detail)
            except checks.NotRun as reason:
                tally.add(name, None, 0, "", str(reason))
            except (SvioError, OSError) as error:
                tally.add(name, False, time.monotonic() - begin, str(error))
    started = []
    for prefix, step, binary in UNIT_BUILDS:
        # The sanitizers' builds take minutes, and have the same tests.
        if tally.pattern and binary != UNIT_TESTS and UNIT_TESTS.exists() and \
                not _google_names(UNIT_TESTS, prefix, tally):
            continue
        if _set_up(tally, f"{prefix}/compiles", [step]):
            started.append((prefix, binary))
    # Side by side: one has few threads.
    running = [one for one in (_google_tests(tally, *names) for names in started) if one]
    follow(*(process for process, _, _ in running))
    for process, reader, count in running:
        reader.finish(process.status, count)
    _python_tests(tally, "unit")


LISTED = re.compile(r"^\[ RUN      \] (\S+)")
ENDED = re.compile(r"^\[(       OK |  FAILED  |  SKIPPED )\] (\S+?)(?:,.*)? \((\d+) ms\)")


def _google_tests(tally, prefix, binary):
    """Starts a GoogleTest binary; its lines are turned into ours, a crash into one more failure.
    (process, reader, number of tests), or None."""
    if not binary.exists():
        tally.add(f"{prefix}/present", False, 0, f"{shown(binary)} is not there")
        return None
    names = _google_names(binary, prefix, tally)
    without = NO_THREADS if prefix == "unit-tsan" else ()
    names = [name for name in names if not any(fnmatch.fnmatchcase(name, one) for one in without)]
    chosen = [name for name in names if tally.with_long or tally.pattern or not name.startswith("Long")]
    tally.left_out += len(names) - len(chosen)
    names = chosen
    if not names:
        if not tally.pattern:
            tally.add(f"{prefix}/present", False, 0, f"{shown(binary)} has no test")
        return None
    command = [str(binary), "--gtest_color=no", f"--gtest_output=json:{LOG / (prefix + '.json')}"]
    without += () if tally.with_long else ("Long*",)
    if tally.pattern:
        command.append("--gtest_filter=" + ":".join(names))
    elif without:
        command.append("--gtest_filter=-" + ":".join(without))
    LOG.mkdir(parents=True, exist_ok=True)
    reader = _GoogleReader(tally, prefix)
    return Followed(command, reader.line, LOG / f"{prefix}.log", sanitizer_environment()), reader, len(names)


def _google_names(binary, prefix, tally):
    text = ui.output([binary, "--gtest_list_tests"]) or ""
    names, suite = [], ""
    for line in text.splitlines():
        line = line.split("#")[0].rstrip()
        if line.startswith("  "):
            names.append(suite + line.strip())
        elif line.endswith("."):
            suite = line
    return [name for name in names if tally.wanted(f"{prefix}/{name}") and ".DISABLED_" not in name]


def sanitizer_environment():
    return {**os.environ, "TSAN_OPTIONS": "halt_on_error=0 second_deadlock_stack=1 exitcode=66",
            "ASAN_OPTIONS": "detect_leaks=1 detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "print_stacktrace=1"}


class _GoogleReader:
    def __init__(self, tally, prefix):
        self.tally, self.prefix = tally, prefix
        self.running, self.said, self.count, self.failed = None, [], 0, 0
        self.begin = time.monotonic()

    def line(self, line):
        started, ended = LISTED.match(line), ENDED.match(line)
        if started:
            self.running, self.said = started[1], []
        elif ended and self.running:
            self.count += 1
            ok = {"       OK ": True, "  FAILED  ": False, "  SKIPPED ": None}[ended[1]]
            # A data race is reported while its test runs, and the test itself may end well.
            detail = "\n".join(self.said)
            if "WARNING: ThreadSanitizer" in detail or "runtime error:" in detail:
                ok = False
            self.failed += ok is False
            self.tally.add(f"{self.prefix}/{self.running}", ok, int(ended[3]) / 1000,
                           detail if ok is False else "", self._reason() if ok is None else None)
            self.running = None
        elif self.running:
            self.said.append(line)

    def _reason(self):
        text = " ".join(line.strip() for line in self.said if "Skipped" not in line)
        return text.strip() or "no reason given"

    def finish(self, status, expected):
        if self.running:
            how = "hangs" if status is None else f"crashed ({status})"
            self.count += 1
            self.tally.add(f"{self.prefix}/{self.running}", False, 0, f"{how}\n" + "\n".join(self.said))
        elif self.count < expected:
            self.tally.add(f"{self.prefix}/complete", False, 0,
                           f"ended after {self.count} of {expected} tests")
        elif status and not self.failed:
            self.tally.add(f"{self.prefix}/ends-well", False, 0,
                           f"exit status {status}\n" + ui.tail(LOG / f"{self.prefix}.log", 40))


# --- unit, device and vm ------------------------------------------------------------------------------------

class _WorkerReader:
    """What one of the processes of a suite reports."""

    def __init__(self, tally, suite, counts):
        self.tally, self.suite, self.counts = tally, suite, counts
        self.running, self.found, self.done = None, None, False

    def line(self, line):
        event = json.loads(line)
        kind = event["kind"]
        if kind == "found":
            self.found = event["count"]
            if self.counts:
                self.tally.left_out += event["long"]
        elif kind == "start":
            self.running = event["name"]
        elif kind == "end":
            self.running = None
            self.tally.add(f"{self.suite}/{event['name']}", event["ok"], event["seconds"], event["detail"],
                           event["reason"])
        elif kind == "done":
            self.done = True
        return event.get("patience")

    def finish(self, status, log):
        if self.done:
            return
        where = f"during {self.running}" if self.running else "outside a test"
        how = "said nothing for too long" if status is None else f"ended with status {status}"
        self.tally.add(f"{self.suite}/{self.running or 'complete'}", False, 0,
                       f"the tests' process {how} {where}\n" + ui.tail(log, 40))


def _sanitized_qemu():
    """The stock QEMU with the plugin under the address sanitizer, whose library must be there first.

    QEMU changes stacks by hand (coroutines), so those of functions that returned are not tracked; what QEMU
    itself does not free is no leak of ours.
    """
    folder = BUILD_DIRS["plugin-address"]
    wrapper = folder / "qemu"
    library = ui.output(["/usr/bin/gcc", "-print-file-name=libasan.so"],
                        "gcc does not know where libasan is").strip()
    wrapper.write_text(f"""#!/bin/sh
export LD_PRELOAD={library}
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
exec {QEMU} "$@"
""")
    wrapper.chmod(0o755)
    return {"SVIO_QEMU": str(wrapper), "SVIO_PLUGIN": str(folder / "qemu-device" / "svio.so")}


def _python_tests(tally, suite):
    folder = checks.TEST_FOLDERS["vm" if suite == DEBUG else suite]
    compiled = {"device-asan": "compile-plugin-asan", "unit": "compile-tests"}.get(suite, "compile")
    steps = ["packages-test", compiled]
    if suite == "unit":
        steps += ["compile-process-tsan", "compile-process-asan"]
    kernels = {"vm": KERNELS, DEBUG: (DEBUG_KERNEL,)}.get(suite, ())
    for kernel in kernels:
        steps += setup.guest(kernel) + [f"hostile-{kernel}"]
    if suite == "xen":
        steps.append("xen-image")
    if not _set_up(tally, f"{suite}/set-up", steps):
        return
    environment = {**os.environ, **({"SVIO_LONG": "1"} if tally.with_long else {}),
                   **({"SVIO_GUEST_KERNEL": DEBUG_KERNEL, "SVIO_GUEST_SLOWNESS": "8"}
                      if suite == DEBUG else {}),
                   **(_sanitized_qemu() if suite == "device-asan" else {})}
    workers = _workers(tally, suite, folder, environment)
    follow(*(process for process, _, _ in workers))
    if workers[0][1].found == 0 and not tally.pattern:
        tally.add(f"{suite}/present", False, 0, f"no test in {shown(folder)}")
    for process, reader, log in workers:
        reader.finish(process.status, log)


def _workers(tally, suite, folder, environment):
    """[(process, reader, log)]: as many as there are CPUs where tests may run beside each other, one more of
    the suite whose tests wait for guests a third of their time. Who is free takes the next class, by its
    number, from a pipe."""
    count = 1
    if suite in PARALLEL and not tally.pattern:
        count = max(1, min(4, host.cores() + (suite == "vm")))
    turns = os.pipe()
    os.write(turns[1], b"".join(struct.pack("H", turn) for turn in range(TURNS)))
    os.close(turns[1])
    workers = []
    for number in range(count):
        pipe = os.pipe()
        log = LOG / (f"test-{suite}.log" if count == 1 else f"test-{suite}-{number}.log")
        command = [PYTHON, "-B", "-m", "svio_tool.worker", str(folder), str(pipe[1]), str(turns[0])]
        if tally.pattern:
            command.append(tally.pattern)
        reader = _WorkerReader(tally, suite, counts=number == 0)
        workers.append((Followed(command, reader.line, log, environment, pipe, (turns[0],)), reader, log))
    os.close(turns[0])
    return workers


def main(args):
    suites = []
    for name in args.suites or ["all"]:
        if name not in SUITES + ("all", DEBUG):
            raise SvioError(f"There is no test suite {name}: {', '.join(SUITES)}, all or {DEBUG}.")
        suites += SUITES if name == "all" else (name,)
    if not args.suites:
        suites = [name for name in suites if name not in LONG_SUITES]
    tally = Tally(args.pattern, "all" in args.suites)
    # With the results themselves on standard output, what people read goes beside it.
    with contextlib.redirect_stdout(sys.stderr if args.json == "-" else sys.stdout):
        for suite in [name for name in (*SUITES, DEBUG) if name in suites]:
            ui.say(f"--- {suite}")
            if suite == "unit":
                _unit(tally)
            elif suite == "fuzz":
                if fuzzing.wanted(tally) and _set_up(tally, "fuzz/compiles", ["compile-fuzz"]):
                    fuzzing.run(tally, args.inputs, args.seed, args.jobs, "fuzz" in args.suites)
            else:
                _python_tests(tally, suite)
        if not tally.tests:
            raise SvioError(f"No test matches {args.pattern}.")
        if args.json and args.json != "-":
            stats.write_json(tally.facts(), args.json)
        well = tally.close()
    if args.json == "-":
        stats.write_json(tally.facts(), "-")
    return 0 if well else 1
