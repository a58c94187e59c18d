# SPDX-License-Identifier: GPL-2.0-or-later
"""The suite "fuzz": libFuzzer targets for all that a guest writes (tests/fuzz).

Each target replays its stored corpus, then plays new inputs from a seed that is printed. A finding stays in
build/fuzz/findings, with the command that repeats it.
"""
import concurrent.futures
import random
import re
import shutil
import subprocess
import time

from svio_tool import host, ui
from svio_tool.build import BUILD_DIRS
from svio_tool.paths import LOG, TESTS, shown
from svio_tool.ui import SvioError

# New inputs of each target in a run of all tests: a million together. What costs more gets fewer.
TARGETS = {"send": 180_000, "receive": 150_000, "registers": 190_000, "mailbox": 210_000, "events": 100_000,
           "life": 90_000, "state": 15_000, "offload": 40_000, "management": 25_000,
           "attach": 25_000}
FIXED_SEED = 1
QUICK = 200_000     # in the default run, over all targets
FOLDER = BUILD_DIRS["fuzzer"]
FINDINGS = FOLDER / "findings"
CORPUS = TESTS / "fuzz" / "corpus"
EXECUTED = re.compile(r"^stat::number_of_executed_units:\s+(\d+)", re.M)
PIECES = re.compile(r"^stat::pieces_of_guests:\s+(\d+)", re.M)
# Longest input in bytes, also of a run by hand, and seconds for one before it counts as hung.
LONGEST, LONGEST_BY_HAND, PATIENCE = 160, 4096, 60


def binary(target):
    return FOLDER / "tests" / "fuzz" / f"fuzz-{target}"


def shares(inputs):
    """{target: how many of so many inputs}, in the proportions of TARGETS."""
    if inputs is None:
        return dict(TARGETS)
    whole = sum(TARGETS.values())
    return {name: max(1, inputs * part // whole) for name, part in TARGETS.items()}


def _run(target, what, words):
    """(exit status, output) of one target."""
    LOG.mkdir(parents=True, exist_ok=True)
    FINDINGS.mkdir(parents=True, exist_ok=True)
    log = LOG / f"fuzz-{target}-{what}.log"
    # Leaks are looked for once, at the end: libFuzzer's own check takes what the machine keeps for one.
    command = [binary(target), "-print_final_stats=1", "-detect_leaks=0", f"-timeout={PATIENCE}",
               f"-artifact_prefix={FINDINGS}/{target}-", *words]
    ui.note(" ".join(str(word) for word in command))
    environment = {"ASAN_OPTIONS": "detect_leaks=1 detect_stack_use_after_return=1",
                   "UBSAN_OPTIONS": "print_stacktrace=1", "PATH": "/usr/bin:/bin"}
    with open(log, "wb") as handle:
        status = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=handle,
                                stderr=subprocess.STDOUT, env=environment, check=False).returncode
    return status, log.read_text(errors="replace")


def _verdict(target, status, text, wanted):
    """(ok, detail) from what libFuzzer says it executed."""
    executed = EXECUTED.search(text)
    if status == 0 and executed and int(executed[1]) >= wanted:
        return True, ""
    lines = [line for line in text.splitlines() if not line.startswith(("#", "\""))][-40:]
    found = re.search(r"Test unit written to (\S+)", text)
    if found:
        lines.append(f"repeat it with: {shown(binary(target))} {shown(found[1])}")
    elif status == 0:
        lines.append(f"libFuzzer executed {executed[1] if executed else 'no'} inputs, {wanted} were wanted")
    return False, f"exit status {status}\n" + "\n".join(lines)


def _corpus(target):
    """(ok, detail, pieces): the stored inputs, of which pieces are not counted."""
    files = sorted((CORPUS / target).iterdir()) if (CORPUS / target).is_dir() else []
    if not files:
        return False, f"{shown(CORPUS / target)} is empty", 0
    # With files for arguments each runs once, and no other.
    return *_verdict_of_files(target, files, *_run(target, "corpus", files)), 0


def _verdict_of_files(target, files, status, text):
    executed = len(re.findall(r"^Executed .* in \d+ ms$", text, re.M))
    if status == 0 and executed == len(files):
        return True, ""
    _, detail = _verdict(target, status, text, len(files))
    return False, f"{executed} of {len(files)} stored inputs ended well\n{detail}"


def _fresh(target, inputs, seed, keep):
    """New inputs: (ok, detail, pieces of guests in them). What is worth keeping of them lies in
    build/fuzz/found; by hand it is built upon."""
    found = FOLDER / "found" / target
    if not keep:
        shutil.rmtree(found, ignore_errors=True)
    found.mkdir(parents=True, exist_ok=True)
    # libFuzzer counts the stored inputs, and the empty one, among its runs.
    old = sum(1 for folder in (found, CORPUS / target) for _ in folder.iterdir())
    status, text = _run(target, "inputs", [f"-runs={inputs + old + 1}", f"-seed={seed}",
                                           f"-max_len={LONGEST_BY_HAND if keep else LONGEST}",
                                           "-len_control=0", found, CORPUS / target])
    pieces = PIECES.search(text)
    return *_verdict(target, status, text, inputs + old), int(pieces[1]) if pieces else 0


def wanted(tally):
    """Whether any of it is to run, so that nothing is built for a pattern that names other tests."""
    return any(tally.wanted(f"fuzz/{target}/{what}")
               for target in TARGETS for what in ("corpus", "new-inputs"))


def run(tally, inputs=None, seed=None, jobs=None, by_name=True):
    """All targets, as many at a time as there are CPUs. Without a number: that of `test all`, or QUICK."""
    keep = inputs is not None
    inputs = inputs or (None if tally.with_long else QUICK)
    # Beside other suites the same inputs each time: what turns red there is the change that is tested.
    if seed is None:
        seed = random.randrange(1, 1 << 31) if by_name else FIXED_SEED
    parts = shares(inputs)
    work = []
    for target, part in parts.items():
        if tally.wanted(f"fuzz/{target}/corpus"):
            work.append((f"fuzz/{target}/corpus", _corpus, (target,)))
        if tally.wanted(f"fuzz/{target}/new-inputs"):
            work.append((f"fuzz/{target}/new-inputs", _fresh, (target, part, seed, keep)))
    if not work:
        return
    again = f"scripts/svio test fuzz --seed {seed}" + (f" --inputs {inputs}" if inputs else "")
    ui.say(f"{sum(parts.values()):,} new inputs; the same ones again: {again}")

    def timed(function, arguments):
        begin = time.monotonic()
        try:
            ok, detail, pieces = function(*arguments)
        except (OSError, SvioError) as error:
            ok, detail, pieces = False, str(error), 0
        return (ok, time.monotonic() - begin, detail), pieces

    with concurrent.futures.ThreadPoolExecutor(jobs or host.cores()) as pool:
        running = {pool.submit(timed, function, arguments): name for name, function, arguments in work}
        try:
            total = 0
            for done in concurrent.futures.as_completed(running):
                verdict, pieces = done.result()
                tally.add(running[done], *verdict)
                total += pieces
            ui.say(f"in the new inputs guests wrote {total:,} entries, words, registers, commands and "
                   "requests")
        except BaseException:
            # Ctrl-C ends the targets that run; the others must not begin.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
