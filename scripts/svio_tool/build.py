# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiles: the plugin and the board through meson, the driver through Kbuild."""
import os
import shutil

from svio_tool import host, kernels, ui
from svio_tool.paths import ABI_HEADER, BUILD, GUEST_DRIVER, HOSTILE_DRIVER, QEMU_HEADERS, REPO, driver_dir, \
    driver_module, hostile_module
from svio_tool.steps import Step
from svio_tool.ui import SvioError


def jobs():
    return str(host.cores())


def meson_setup(folder, options, log, compilers=None):
    """Configure a build folder, or configure it again with these options."""
    command = ["meson", "setup", folder, REPO, *options]
    if (folder / "meson-private/coredata.dat").exists():
        command.append("--reconfigure")
    elif (folder / "meson-private").exists():
        # An interrupted set-up; --wipe would take everything else below build/ along.
        for name in ("meson-private", "meson-info", "meson-logs"):
            shutil.rmtree(folder / name, ignore_errors=True)
    log.run(command, "meson could not set the build up", env={**environment(), **(compilers or {})})


def environment():
    # A python3 or a compiler wrapper of the user's own must not slip into the build.
    return {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def werror():
    """Warnings are errors wherever a machine decides; a developer's newer compiler may warn."""
    return "true" if os.environ.get("CI") else "false"


class MesonStep(Step):
    """Configuration of one build folder; "sanitizer" is none, thread, address or fuzzer."""

    needs = ("packages", "qemu-headers")

    def __init__(self, name, folder, sanitizer="none", plugin=False):
        self.name, self.plugin = name, plugin or sanitizer == "none"
        self.folder = folder
        self.sanitizer = sanitizer
        self.title = "build configuration" + ("" if sanitizer == "none" else f", {sanitizer} sanitizer")

    def options(self):
        # Half of a sanitizer's build is the optimizer's, and saves its tests less; fuzzing it does help.
        level = 1 if self.sanitizer in ("address", "thread") else 2
        options = [f"-Dwerror={werror()}", f"-Dsanitize_board={self.sanitizer}", f"-Doptimization={level}"]
        # The board alone needs nothing of QEMU's.
        return options + ([f"-Dqemu_headers={QEMU_HEADERS}"] if self.plugin else [])

    def inputs(self):
        return [" ".join(self.options()), QEMU_HEADERS / "package-version",
                str(host.package_version("meson"))]

    def outputs(self):
        return [self.folder / "build.ninja"]

    def run(self, log):
        if not (REPO / "meson.build").exists():
            raise SvioError("There is no meson.build in this checkout: the clone is not whole.")
        # The fuzzer is clang's, and stays with the folder's configuration.
        clang = {"CC": "clang", "CXX": "clang++"} if self.sanitizer == "fuzzer" else None
        meson_setup(self.folder, self.options(), log, clang)


class NinjaStep(Step):
    """Ninja itself finds out, and fast, whether there is work; a stamp would only lie."""

    stamped = False

    def __init__(self, name, title, folder, targets=(), needs=()):
        self.name, self.title, self.folder, self.targets, self.needs = name, title, folder, targets, needs

    def fresh(self):
        if not (self.folder / "build.ninja").exists():
            return False
        said = ui.output(["ninja", "-C", self.folder, "-n", *self.targets], env=environment())
        return said is not None and "no work to do" in said

    def run(self, log):
        log.run(["ninja", "-C", self.folder, "-j", jobs(), *self.targets], f"{self.title} does not compile",
                env=environment())


class ModuleStep(Step):
    """A module for one kernel. Kbuild writes beside its sources, so it gets a copy of them."""

    kind = what = ""

    def __init__(self, kernel):
        self.kernel = kernel
        self.name = f"{self.kind}-{kernel}"
        self.title = f"{self.what} for {kernel}"
        self.needs = ("packages", f"kernel-{kernel}")

    def sources(self):
        raise NotImplementedError

    def module(self):
        raise NotImplementedError

    def inputs(self):
        return [*self.sources(), ABI_HEADER, kernels.kernel_dir(self.kernel) / "info.json"]

    def outputs(self):
        return [self.module()]

    def run(self, log):
        folder = self.module().parent
        copy_driver(self.sources(), folder)
        log.run(driver_command(self.kernel, f"M={folder}"),
                f"The {self.what} does not compile for kernel {self.kernel}", env=environment())


class DriverStep(ModuleStep):
    """svio.ko."""

    kind, what = "driver", "guest driver"

    def sources(self):
        if not GUEST_DRIVER.is_dir():
            return []
        return sorted(path for path in GUEST_DRIVER.iterdir()
                      if path.suffix in (".c", ".h") or path.name in ("Kbuild", "Makefile"))

    def module(self):
        return driver_module(self.kernel)


class HostileStep(ModuleStep):
    """The tests' own driver, which attacks the card."""

    kind, what = "hostile", "hostile driver"

    def sources(self):
        return sorted(HOSTILE_DRIVER.iterdir())

    def module(self):
        return hostile_module(self.kernel)


def driver_command(kernel, *extra):
    facts = kernels.info(kernel)
    compiler = facts["cc"] if shutil.which(facts["cc"], path="/usr/bin") else "gcc"
    return ["make", "-C", facts["headers"], f"M={driver_dir(kernel)}", "W=1", f"CC={compiler}",
            f"HOSTCC={compiler}", "-j", jobs(), *extra, "modules"]


def copy_driver(sources, folder):
    """Copies what changed and removes what is gone, so that make sees neither more nor less."""
    if not sources or not ABI_HEADER.exists():
        raise SvioError("The guest driver's sources are not in this checkout: the clone is not whole.")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in [*sources, ABI_HEADER]}
    for path in folder.iterdir():
        if path.name not in wanted and path.suffix in (".c", ".h") and not path.name.endswith(".mod.c"):
            path.unlink()
    for name, path in wanted.items():
        target = folder / name
        if not target.exists() or target.read_bytes() != path.read_bytes():
            shutil.copyfile(path, target)


BUILD_DIRS = {"none": BUILD, "thread": BUILD / "tsan", "address": BUILD / "asan",
              "fuzzer": BUILD / "fuzz", "plugin-address": BUILD / "plugin-asan"}
