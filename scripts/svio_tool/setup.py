# SPDX-License-Identifier: GPL-2.0-or-later
"""All set-up steps by name, and which of them each verb needs."""
import time

from svio_tool import steps, ui
from svio_tool.checks import CheckpatchStep
from svio_tool.debug_kernel import DebugKernelStep
from svio_tool.build import BUILD_DIRS, DriverStep, HostileStep, MesonStep, NinjaStep
from svio_tool.guest_image import BaseStep, DriverArchiveStep, ModulesStep
from svio_tool.kernels import KernelStep
from svio_tool.package import DriverDiskStep, PackageStep
from svio_tool.packages import FOR_BENCH, FOR_BROWSER, FOR_DISK, FOR_FUZZING, FOR_PACKAGE, FOR_REPORT, \
    FOR_TESTS, PackagesStep
from svio_tool.paths import DEBUG_KERNEL, KERNELS
from svio_tool.qemu_headers import QemuHeadersStep
from svio_tool.selftests import SelftestsStep
from svio_tool.xen_image import XenImageStep, XenToolsStep


def _registry():
    made = [PackagesStep(), PackagesStep("packages-test", "Debian packages for the checks", FOR_TESTS),
            PackagesStep("packages-package", "Debian packages for packaging", FOR_PACKAGE),
            PackagesStep("packages-disk", "Debian packages for disk images", FOR_DISK),
            PackagesStep("packages-bench", "Debian packages for bench", FOR_BENCH),
            PackagesStep("packages-report", "Debian packages for the report", FOR_REPORT),
            PackagesStep("packages-browser", "a browser for the report's tests", FOR_BROWSER),
            PackageStep(), DriverDiskStep(), XenToolsStep(), XenImageStep(),
            QemuHeadersStep(), BaseStep(), CheckpatchStep(), SelftestsStep(),
            MesonStep("configure", BUILD_DIRS["none"]),
            NinjaStep("compile", "board, plugin and tools", BUILD_DIRS["none"], (), ("configure",)),
            NinjaStep("compile-tests", "unit tests", BUILD_DIRS["none"],
                      ("all", "tests/unit/svio-unit-tests", "tests/unit/svio-board-host"), ("configure",))]
    for sanitizer, short in (("thread", "tsan"), ("address", "asan")):
        folder = BUILD_DIRS[sanitizer]
        made.append(MesonStep(f"configure-{short}", folder, sanitizer))
        made.append(NinjaStep(f"compile-{short}", f"unit tests, {sanitizer} sanitizer", folder,
                              ("tests/unit/svio-unit-tests",), (f"configure-{short}",)))
        made.append(NinjaStep(f"compile-process-{short}", f"svio-board, {sanitizer} sanitizer", folder,
                              ("qemu-device/process/svio-board",), (f"configure-{short}",)))
    made += [PackagesStep("packages-fuzz", "Debian packages for fuzzing", FOR_FUZZING),
             MesonStep("configure-plugin-asan", BUILD_DIRS["plugin-address"], "address", plugin=True),
             NinjaStep("compile-plugin-asan", "plugin, address sanitizer", BUILD_DIRS["plugin-address"],
                       [f"qemu-device/{name}.so" for name in ("svio", "svio-adapter", "svio-other-version")],
                       ("configure-plugin-asan",)),
             MesonStep("configure-fuzz", BUILD_DIRS["fuzzer"], "fuzzer"),
             NinjaStep("compile-fuzz", "fuzz targets", BUILD_DIRS["fuzzer"], (),
                       ("packages-fuzz", "configure-fuzz"))]
    for kernel in (*KERNELS, DEBUG_KERNEL):
        made += [DebugKernelStep() if kernel == DEBUG_KERNEL else KernelStep(kernel),
                 ModulesStep(kernel), DriverStep(kernel), HostileStep(kernel),
                 DriverArchiveStep(kernel, True), DriverArchiveStep(kernel, False)]
    return {step.name: step for step in made}


REGISTRY = _registry()


def guest(kernel, driver=True):
    """Steps for a VM with this kernel."""
    return ["guest-base", f"guest-driver-{kernel}" if driver else f"guest-plain-{kernel}"]


def for_vm(kernel, svio=True):
    return (["compile"] if svio else ["packages"]) + guest(kernel, svio)


def everything():
    names = ["packages", "guest-base", "qemu-headers", "compile"]
    for kernel in KERNELS:
        names += guest(kernel)
    return names


def ensure(names):
    """Run those steps whose inputs changed."""
    return steps.ensure(names, REGISTRY)


def main(args):
    """The verb "setup"."""
    begin = time.monotonic()
    ran = ensure(everything())
    from svio_tool import kvm
    works, why = kvm.works()
    ui.note(f"KVM {'works' if works else 'does not work'}: {why}")
    spent = time.monotonic() - begin
    ui.say(f"Ready ({ran} steps had work, {spent:.1f} s). Next: scripts/svio demo, or scripts/svio vm")
    return 0
