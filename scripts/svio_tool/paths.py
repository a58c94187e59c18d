# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things live. Everything derived goes below build/, so "rm -rf build" starts afresh."""
import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
BUILD = REPO / "build"
LOG = BUILD / "log"
RUN = BUILD / "run"
STAMP = BUILD / "stamp"
JUNK = BUILD / "tmp"
GUEST_IMAGE = BUILD / "guest"
QEMU_HEADERS = BUILD / "qemu-headers"
PLUGIN = BUILD / "qemu-device" / "svio.so"
INSTRUCTIONS = BUILD / "qemu-device" / "svio-instructions.so"
COPIES = BUILD / "qemu-device" / "svio-copies.so"
WIRE_PEER = BUILD / "scripts" / "wire-peer" / "svio-wire-peer"
UNIT_TESTS = BUILD / "tests" / "unit" / "svio-unit-tests"
GUEST_DRIVER = REPO / "guest-driver"
ABI_HEADER = REPO / "hv-interface" / "svio_abi.h"
ATTACH_HEADER = REPO / "hv-interface" / "svio_attach.h"
PACKAGE = BUILD / "package"
DRIVER_DISK = PACKAGE / "driver-disk.img"
TESTS = REPO / "tests"
HOSTILE_DRIVER = TESTS / "vm" / "hostile"

# The distribution's own binary unless somebody asks for another one.
QEMU = os.environ.get("SVIO_QEMU", "qemu-system-x86_64")
# How many times as long a guest may take to answer: one whose kernel looks for bugs is slow.
GUEST_SLOWNESS = float(os.environ.get("SVIO_GUEST_SLOWNESS", 1))
PYTHON = "/usr/bin/python3"

KERNELS = ("6.12", "6.1")
DEFAULT_KERNEL = "6.12"
DEBUG_KERNEL = "debug"      # see debug_kernel.py


def kernel_dir(kernel: str) -> Path:
    return BUILD / f"kernel-{kernel}"


def driver_dir(kernel: str) -> Path:
    return BUILD / f"driver-{kernel}"


def hostile_dir(kernel: str) -> Path:
    return BUILD / f"hostile-{kernel}"


def hostile_module(kernel: str) -> Path:
    return hostile_dir(kernel) / "svio_hostile.ko"


def driver_module(kernel: str) -> Path:
    return driver_dir(kernel) / "svio.ko"


def shown(path) -> str:
    """A path as people like to read it: relative to the repository where it is inside."""
    try:
        return str(Path(path).resolve().relative_to(REPO))
    except ValueError:
        return str(path)
