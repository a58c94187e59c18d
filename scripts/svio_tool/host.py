# SPDX-License-Identifier: GPL-2.0-or-later
"""Facts about the machine that this runs on."""
import functools
import os
import re
import shutil

from svio_tool import ui
from svio_tool.paths import QEMU


@functools.lru_cache(None)
def os_release():
    facts = {}
    try:
        with open("/etc/os-release") as handle:
            for line in handle:
                key, _, value = line.strip().partition("=")
                facts[key] = value.strip('"')
    except OSError:
        pass
    return facts


def codename():
    return os_release().get("VERSION_CODENAME", "")


def supported():
    return os_release().get("ID") == "debian" and codename() in ("bookworm", "trixie")


def cores():
    return len(os.sched_getaffinity(0))


def memory_mib():
    with open("/proc/meminfo") as handle:
        match = re.search(r"MemAvailable:\s+(\d+)", handle.read())
    return int(match[1]) // 1024 if match else 0


def free_mib(path):
    return shutil.disk_usage(path).free >> 20


def qemu_version():
    """(10, 0, 2), or None without QEMU."""
    text = ui.output([QEMU, "--version"]) or ""
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else None


def package_version(name):
    """Version of an installed Debian package, or None."""
    text = ui.output(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name]) or ""
    status, _, version = text.partition(" ")
    return version if status == "installed" else None


def device_missing(path, module):
    """Why this user cannot use a device file that belongs to this module of the kernel; None when it can."""
    if not os.path.exists(path):
        return f"this host has no {path} (modprobe {module}, where its kernel has it)"
    return None if os.access(path, os.R_OK | os.W_OK) else f"this user may not open {path}"


def accel():
    """"kvm" where a guest really runs under it, else "tcg". The answer is kept in build/."""
    from svio_tool import kvm
    return "kvm" if kvm.works()[0] else "tcg"
