# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "doctor": what this host can do, and what mends each gap."""
import os
import shutil

from svio_tool import apt, host, kvm, lab_host, packages, ui
from svio_tool.paths import BUILD, PLUGIN, QEMU, QEMU_HEADERS, REPO, shown
from svio_tool.ui import SvioError

GOOD, NOTE, BAD = "ok  ", "note", "GAP "


def _release():
    pretty = host.os_release().get("PRETTY_NAME", "unknown system")
    if host.supported():
        return GOOD, pretty, ""
    return BAD, f"{pretty}: only Debian 12 and 13 are tested", \
        "run in a Debian 12 or 13 machine or container"


def _machine():
    kind = os.uname().machine
    return (GOOD if kind == "x86_64" else BAD), f"processor {kind}, kernel {os.uname().release}", \
        "" if kind == "x86_64" else "an x86_64 host is needed"


def _size():
    cores, memory = host.cores(), host.memory_mib()
    text = f"{cores} cores, {memory} MiB of memory free"
    if memory < 1024:
        return BAD, text, "free some memory: a test VM takes 512 MiB, compiling as much again"
    if cores < 2:
        return NOTE, text + "; on-board cores and the guest share it, latency means little", "use two or more"
    return GOOD, text, ""


def _disk():
    free = host.free_mib(BUILD if BUILD.exists() else REPO)
    return (GOOD if free > 2500 or (BUILD / "guest").exists() and free > 300 else BAD), \
        f"{free} MiB of disk free below {shown(BUILD)}/", \
        "" if free > 2500 else "set-up takes about 2.5 GiB at its peak"


def _root():
    if os.geteuid() == 0:
        return GOOD, "running as root", ""
    if shutil.which("sudo"):
        return GOOD, "a user with sudo (needed for packages only)", ""
    return (BAD if packages.missing() else NOTE), "neither root nor sudo", \
        "as root: apt-get install sudo && adduser " + os.environ.get("USER", "USER") + " sudo"


def _apt():
    try:
        text = apt.sources_text(apt.own_apt().suites, True)
    except (SvioError, OSError) as error:
        return BAD, str(error), "add Debian's mirror to /etc/apt/sources.list"
    uris = sorted({line.split("]")[-1].split()[0 if "]" in line else 1] for line in text.splitlines()})
    return GOOD, "apt fetches from " + ", ".join(uris), ""


def _packages():
    gone = packages.missing()
    if not gone:
        return GOOD, "all packages are installed", ""
    return BAD, f"{len(gone)} packages missing: " + " ".join(name for name, _ in gone), "scripts/svio setup"


def _qemu():
    version = host.qemu_version()
    if not version:
        return BAD, f"{QEMU} is not installed", "scripts/svio setup"
    text = f"QEMU {'.'.join(map(str, version))} (package {host.package_version('qemu-system-x86') or 'none'})"
    if version[:2] != (10, 0):
        return BAD, text + ": the plugin is for QEMU 10.0", "scripts/svio setup installs Debian's 10.0"
    return GOOD, text, ""


def _plugin():
    try:
        built = (QEMU_HEADERS / "package-version").read_text().strip()
    except OSError:
        built = None
    if not PLUGIN.exists() or not built:
        return BAD, "the plugin is not built", "scripts/svio setup"
    now = host.package_version("qemu-system-x86")
    if built != now:
        return BAD, f"the plugin is built for QEMU {built}, installed is {now}", "scripts/svio setup"
    return GOOD, f"the plugin is built for QEMU {built}", ""


def _kvm():
    works, why = kvm.works()
    if works:
        return GOOD, f"KVM works: {why}", ""
    mend = "scripts/svio setup" if why.startswith("not probed") else \
        "a host (or a virtual machine with nested virtualization) whose KVM boots Linux"
    if "may not open" in why:
        mend = f"sudo adduser {os.environ.get('USER', 'USER')} kvm, then log in again"
    return NOTE, f"KVM does not work ({why}); guests are emulated (TCG), which is slower", mend


def _tun():
    if not os.path.exists("/dev/net/tun"):
        return NOTE, "no /dev/net/tun: no tap ports", "sudo modprobe tun"
    if lab_host.tun_missing():
        return NOTE, "/dev/net/tun is not open to this user: no tap ports", \
            "run as root, or sudo chmod 666 /dev/net/tun"
    return GOOD, "/dev/net/tun is there (tap ports)", ""


def _vhost():
    why = lab_host.vhost_missing()
    if not why:
        return GOOD, "/dev/vhost-net is there (bench puts vhost beside the others)", ""
    mend = "run as root, or as a member of the group that has /dev/vhost-net" if "may not" in why else \
        "sudo modprobe vhost_net"
    return NOTE, f"no vhost in bench: {why.split(' (')[0]}", mend


def _emulated_xen():
    works, why = kvm.emulates_xen()
    if works:
        return GOOD, "QEMU can emulate Xen under KVM (bench puts xen-net-device beside the others)", ""
    if not kvm.works()[0]:
        why = "KVM does not work"
    return NOTE, f"no xen-net-device in bench: {why}", "KVM that works, in a kernel with CONFIG_KVM_XEN"


CHECKS = (_release, _machine, _size, _disk, _root, _apt, _packages, _qemu, _plugin, _kvm, _tun, _vhost,
          _emulated_xen)


def main(args):
    gaps = 0
    for check in CHECKS:
        mark, text, mend = check()
        gaps += mark == BAD
        ui.say(f"{mark}  {text}")
        if mend and mark != GOOD:
            ui.say(f"      mend: {mend}")
    if gaps:
        ui.say(f"{gaps} gaps; scripts/svio setup mends those that name it.")
        return 1
    ui.say("Nothing essential is missing.")
    return 0
