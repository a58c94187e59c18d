# SPDX-License-Identifier: GPL-2.0-or-later
"""Set-up steps: each knows what it depends on and is skipped while nothing of that has changed."""
import fcntl
import hashlib
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from svio_tool import ui
from svio_tool.paths import BUILD, REPO, STAMP
from svio_tool.ui import SvioError


class Step:
    """One step. Subclasses set name, title, needs and outputs, and write inputs() and run()."""

    name = ""
    title = ""
    needs = ()
    stamped = True          # False: the tool behind it knows itself whether there is work

    def inputs(self):
        """Texts and files (Path) on which the result depends."""
        return []

    def outputs(self):
        return []

    def run(self, log):
        raise NotImplementedError

    def digest(self):
        total = hashlib.sha256(str(REPO).encode())
        for item in self.inputs():
            if isinstance(item, Path):
                total.update(str(item).encode())
                total.update(item.read_bytes() if item.is_file() else b"absent")
            else:
                total.update(str(item).encode())
            total.update(b"\0")
        return total.hexdigest()

    def stamp(self):
        return STAMP / self.name

    def fresh(self):
        if not all(Path(path).exists() for path in self.outputs()):
            return False
        try:
            return self.stamp().read_text() == self.digest()
        except OSError:
            return False

    def mark(self):
        """Last of all, so that an interrupted step runs again."""
        STAMP.mkdir(parents=True, exist_ok=True)
        temporary = self.stamp().with_suffix(".new")
        temporary.write_text(self.digest())
        temporary.replace(self.stamp())


@contextmanager
def _one_at_a_time():
    """Two svio commands in one checkout must not build the same things at the same time."""
    BUILD.mkdir(parents=True, exist_ok=True)
    if not (BUILD / ".gitignore").exists():
        (BUILD / ".gitignore").write_text("# Derived files only; none belongs in the repository.\n*\n")
    with open(BUILD / ".setup-lock", "a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            ui.say("  waiting: another svio command is setting up in this checkout")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _check_build_folder():
    if BUILD.exists() and not os.access(BUILD, os.W_OK):
        raise SvioError(f"{BUILD} belongs to another user: run as that user, or remove it first "
                        f"(sudo rm -rf {BUILD}).")


def ensure(names, registry):
    """Run the named steps and what they need, where their inputs changed. Number of steps that ran."""
    _check_build_folder()
    order = []

    def visit(name):
        for need in registry[name].needs:
            visit(need)
        if name not in order:
            order.append(name)

    for name in names:
        visit(name)
    if all(registry[name].fresh() for name in order):
        return 0
    ran = 0
    with _one_at_a_time():
        for name in order:
            ran += _run(registry[name])
    return ran


def _run(step):
    if step.fresh():
        ui.note(f"{step.title}: nothing to do")
        return 0
    # A new checkout pays for downloads first of all in space; better said than found half-way.
    if shutil.disk_usage(BUILD).free < 200 << 20:
        raise SvioError(f"Less than 200 MiB are free below {BUILD}: make room and run the command again.")
    try:
        with ui.Progress(step.title), ui.Log(step.name) as log:
            step.run(log)
    except OSError as error:
        raise SvioError(f"{step.title}: {error.strerror or error}"
                        + (f" ({error.filename})" if error.filename else "") + ".") from error
    if step.stamped:
        step.mark()
    return 1
