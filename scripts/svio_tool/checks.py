# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of the sources themselves; each counts as a test. A missing tool is a failure, not a pass."""
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from svio_tool import apt, build, host, ui
from svio_tool.paths import ABI_HEADER, BUILD, DEFAULT_KERNEL, GUEST_DRIVER, HOSTILE_DRIVER, JUNK, \
    KERNELS, REPO, TESTS
from svio_tool.steps import Step
from svio_tool.ui import SvioError

# Formatting differs from one clang-format to the next; this is the one of Debian 12.
CLANG_FORMAT = 14
CPP_FOLDERS = ("qemu-device/board", "qemu-device/plugin", "qemu-device/process", "hv-interface", "tests/unit",
               "tests/fuzz", "scripts/wire-peer")

UNITS = REPO / "qemu-device" / "process"

CHECKPATCH = BUILD / "checkpatch"
CHECKPATCH_FILES = ("checkpatch.pl", "spelling.txt", "const_structs.checkpatch")
# The files are no patch and have no tree around them. One source serves two kernels, so it asks for the
# kernel's version, and that name in capitals is taken for a constant on the wrong side.
CHECKPATCH_WORDS = ("--no-tree", "--file", "--terse", "--no-summary", "--show-types",
                    "--max-line-length=100", "--ignore",
                    "FILE_PATH_CHANGES,SPDX_LICENSE_TAG,LINUX_VERSION_CODE,CONSTANT_COMPARISON")


class NotRun(Exception):
    """A check that does not apply here; its reason is listed."""


class CheckpatchStep(Step):
    """The kernel's style checker comes in no small package: it is taken out of the source package."""

    name = "checkpatch"
    title = "the kernel's style checker"
    needs = ("packages",)

    def inputs(self):
        return ["layout 1", host.codename()]

    def outputs(self):
        return [CHECKPATCH / name for name in CHECKPATCH_FILES]

    def run(self, log):
        source = apt.own_apt()
        source.update(log)
        names = [name for name in ("linux-source-6.12", "linux-source-6.1") if source.newest(name)]
        if not names:
            raise SvioError("The Debian mirror has no linux-source package, which brings checkpatch.pl.")
        package = names[0]
        folder = JUNK / "checkpatch"
        deb, = source.download([package], folder, log)
        log.run(["dpkg", "-x", deb, folder / "root"], "Could not unpack the kernel's source package")
        tarball, = (folder / "root/usr/src").glob("linux-source-*.tar.*")
        CHECKPATCH.mkdir(parents=True, exist_ok=True)
        members = [f"{package}/scripts/{name}" for name in CHECKPATCH_FILES]
        log.run(["tar", "-x", "-C", CHECKPATCH, "--strip-components=2", "-f", tarball, *members],
                "Could not unpack the kernel's style checker")
        shutil.rmtree(folder)


def run_tool(command, **options):
    """(exit status, output) of a checker; a missing one is a failure with its name."""
    ui.note(" ".join(str(word) for word in command))
    try:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", check=False, **options)
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    return done.returncode, done.stdout


def _passes(command, **options):
    status, text = run_tool(command, **options)
    return status == 0, text


def flake8():
    return _passes(["/usr/bin/flake8", "--max-line-length", "110", "scripts", "tests"], cwd=REPO)


def clang_format():
    status, text = run_tool(["clang-format", "--version"])
    version = re.search(r"version (\d+)", text)
    if status or not version:
        return False, "clang-format is not installed"
    if int(version[1]) != CLANG_FORMAT:
        raise NotRun(f"clang-format {version[1]} formats differently from {CLANG_FORMAT}, the reference")
    files = [path for folder in CPP_FOLDERS for path in sorted((REPO / folder).rglob("*"))
             if path.suffix in (".cpp", ".hpp", ".cc", ".c", ".h") and path != ABI_HEADER]
    if not files:
        return False, "no C++ source found"
    return _passes(["clang-format", "--dry-run", "-Werror", *files], cwd=REPO)


def checkpatch():
    files = sorted(path for folder in (GUEST_DRIVER, HOSTILE_DRIVER) for path in folder.glob("*")
                   if path.suffix in (".c", ".h"))
    if not files:
        return False, "no source in guest-driver/"
    status, text = run_tool(["perl", CHECKPATCH / "checkpatch.pl", *CHECKPATCH_WORDS, *files], cwd=REPO)
    found = [line for line in text.splitlines() if re.search(r"(ERROR|WARNING|CHECK):", line)]
    if status and not found:
        return False, text
    return not found, "\n".join(found)


WARNING = re.compile(r"warning:|WARNING|error:", re.I)
# Of the surroundings, not of the driver.
NO_WARNING = re.compile(r"the compiler differs from the one used|Skipping BTF generation|"
                        r"You are using:|The kernel was built by:")


def _fresh_build(kernel, suffix, *extra):
    """Output of a build from nothing, so that no warning hides in an object that is there already."""
    folder = BUILD / f"driver-{kernel}-{suffix}"
    shutil.rmtree(folder, ignore_errors=True)
    step = build.DriverStep(kernel)
    build.copy_driver(step.sources(), folder)
    return run_tool(build.driver_command(kernel, f"M={folder}", *extra), env=build.environment())


def driver_builds(kernel):
    status, text = _fresh_build(kernel, "w1")
    found = [line for line in text.splitlines() if WARNING.search(line) and not NO_WARNING.search(line)]
    if status:
        return False, text[-4000:]
    return not found, "\n".join(found)


def sparse():
    if not shutil.which("sparse", path="/usr/bin"):
        return False, "sparse is not installed"
    status, text = _fresh_build("6.12", "sparse", "C=2", "CHECK=/usr/bin/sparse", "CF=-D__CHECK_ENDIAN__")
    if status:
        return False, text[-4000:]
    ours = f"driver-{DEFAULT_KERNEL}-sparse/"
    found = [line for line in text.splitlines() if ours in line and WARNING.search(line)]
    return not found, "\n".join(found)


def licences():
    """Every source file says its licence in its first lines."""
    listed = ui.output(["git", "-C", REPO, "ls-files", "-co", "--exclude-standard"])
    if listed is None:
        raise NotRun("this is not a git checkout, or git is not installed")
    missing = []
    for name in listed.splitlines():
        if re.search(r"\.(c|h|cpp|hpp|py|sh|build)$", name) and (REPO / name).is_file():
            with open(REPO / name, errors="replace") as handle:
                if "SPDX-License-Identifier:" not in handle.read(400):
                    missing.append(name + ": no SPDX line")
    return not missing, "\n".join(missing)


def manuals():
    """No page makes the formatter complain, as lintian looks at it."""
    found = []
    for page in sorted(path for folder in CPP_FOLDERS for path in (REPO / folder).rglob("*.1")):
        status, text = run_tool(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page], env={
            **os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80", "MANPAGER": "cat"})
        # The rest is the formatted page.
        found += [line for line in text.splitlines()
                  if re.match(r"(man|troff|groff|<standard input>).*:", line)]
        if status:
            found.append(f"{page.name}: status {status}: {text[-500:]}")
    return not found, "\n".join(found)


def units():
    """systemd knows each word of the units."""
    found = []
    for template in sorted(UNITS.glob("*@.*.in")):
        manager = template.suffixes[-2][1:]
        with tempfile.TemporaryDirectory() as folder:
            unit = Path(folder) / "svio-board@.service"
            unit.write_text(template.read_text().replace("@BINDIR@/svio-board", "/bin/true"))
            # The user's manager wants a folder for what it runs, where nobody has logged in too.
            status, text = run_tool(["systemd-analyze", "verify", "--man=no", f"--{manager}", unit],
                                    env={**os.environ, "XDG_RUNTIME_DIR": folder})
        ours = [line for line in text.splitlines() if "svio-board@" in line]
        if status or ours:
            found += [f"{template.name}: {line}" for line in ours or [f"status {status}: {text[-500:]}"]]
    return not found, "\n".join(found)


def libvirt_example():
    """The domain of the documentation is one that libvirt would take, and QEMU would start."""
    path = REPO / "docs" / "libvirt-svio-vif.xml"
    if ElementTree.parse(path).find("features/acpi") is None:
        return False, "without <acpi/> libvirt 9.0 says -no-acpi, which QEMU 10 refuses"
    return _passes(["virt-xml-validate", path, "domain"])


def all_checks():
    """[(name, function, set-up steps that it wants)]"""
    found = [("style/python-flake8", flake8, ["packages-test"]),
             ("style/cpp-clang-format", clang_format, ["packages-test"]),
             ("style/licence-lines", licences, []),
             ("style/manual-pages", manuals, ["packages-test"]),
             ("style/systemd-units", units, ["packages-test"]),
             ("style/libvirt-example", libvirt_example, ["packages-test"]),
             ("driver/checkpatch", checkpatch, ["checkpatch"]),
             ("driver/sparse", sparse, ["packages-test", "kernel-6.12"])]
    for kernel in KERNELS:
        found.append((f"driver/no-warning-{kernel}", lambda kernel=kernel: driver_builds(kernel),
                      [f"kernel-{kernel}"]))
    return found


TEST_FOLDERS = {"unit": TESTS / "unit", "device": TESTS / "device", "device-asan": TESTS / "device",
                "vm": TESTS / "vm", "xen": TESTS / "xen"}
