# SPDX-License-Identifier: GPL-2.0-or-later
"""Does KVM work here? Told by a kernel that boots under it, as /dev/kvm alone promises too much."""
import functools
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from svio_tool import kernels, ui
from svio_tool.paths import BUILD, DEFAULT_KERNEL, QEMU
from svio_tool.ui import SvioError

CACHE = BUILD / "kvm-probe.json"
PATIENCE = 25
# For a guest that takes KVM and QEMU for Xen 4.17 (QEMU's docs/system/i386/xen.rst).
XEN_ON_KVM = "kvm,xen-version=0x40011,kernel-irqchip=split"


def _key():
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return [boot, os.uname().release, os.geteuid(), os.access("/dev/kvm", os.R_OK | os.W_OK)]


@functools.lru_cache(None)
def works():
    """(True or False, why)."""
    if os.uname().machine != "x86_64":
        return False, "the host is not x86_64"
    if not os.path.exists("/dev/kvm"):
        return False, "there is no /dev/kvm"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False, "this user may not open /dev/kvm"
    try:
        cached = json.loads(CACHE.read_text())
        if cached["key"] == _key():
            return cached["works"], cached["why"]
    except (OSError, ValueError, KeyError):
        pass
    try:
        image = kernels.info(DEFAULT_KERNEL)["image"]
    except SvioError:
        return False, "not probed yet, there is no kernel to boot"
    works_here, why = _probe(image)
    # Two test runners may probe at the same time.
    ui.replace_file(CACHE, json.dumps({"key": _key(), "works": works_here, "why": why}) + "\n")
    return works_here, why


@functools.lru_cache(None)
def emulates_xen():
    """Whether QEMU can make a guest believe that it is one of Xen's: (True or False, why). Such a guest is
    not booted for it."""
    works_here, why = works()
    if not works_here:
        # It can be a dump of registers, whole in what the doctor says.
        why = why.removeprefix(f"{QEMU}: ")[:60]
        return False, f"KVM does not work here ({why}; see scripts/svio doctor)"
    words = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel",
             XEN_ON_KVM, "-S", "-monitor", "stdio"]
    try:
        done = subprocess.run(words, input="quit\n", capture_output=True, text=True, timeout=PATIENCE,
                              check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        return False, f"QEMU cannot emulate Xen here: {said[0].rsplit(': ', 1)[-1]}"
    return True, "QEMU starts with it"


def _probe(image):
    """Boot without a file system: the kernel's complaint about that proves that it got there."""
    words = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "kvm", "-cpu", "host",
             "-m", "256", "-no-reboot", "-kernel", str(image), "-append", "console=ttyS0 panic=-1",
             "-serial", "stdio"]
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                                       start_new_session=True)
        except FileNotFoundError:
            return False, f"{QEMU} is not installed"
        end = time.monotonic() + PATIENCE
        try:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        said.seek(0)
        text = said.read().decode(errors="replace")
    if "Kernel panic" in text or "Run /init" in text:
        return True, "the test kernel boots under it"
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return False, lines[-1].strip()[:160] if lines else f"the test kernel said nothing for {PATIENCE} s"
