# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages on the host: the only step that needs root, and only for what is missing."""
import os
import re
import shlex
import shutil

from svio_tool import apt, host, ui
from svio_tool.steps import Step
from svio_tool.ui import SvioError

# What builds the plugin, the board and the driver, and runs the test VMs.
NEEDED = """
    qemu-system-x86 qemu-system-data seabios ipxe-qemu meson ninja-build
    g++ gcc libc6-dev make pkg-config libglib2.0-dev libgtest-dev libgmock-dev nlohmann-json3-dev libcli11-dev
    libslirp-dev libsystemd-dev
    python3 python3-venv flex bison bc libelf-dev libssl-dev
    dpkg-dev xz-utils bzip2 perl kmod procps iproute2 binutils ca-certificates
""".split()

# What the checks of scripts/svio test want beyond that.
FOR_TESTS = """
    clang-format sparse flake8 qemu-utils pciutils systemd man-db libvirt-clients libvirt0 libxml2-utils
""".split()

# What scripts/svio package wants beyond NEEDED, and what scripts/svio vm --disk does.
FOR_PACKAGE = "build-essential debhelper dh-dkms".split()
FOR_DISK = "qemu-utils e2fsprogs ovmf".split()

# What counts QEMU's system calls in scripts/svio bench, and the server of its TCP streams.
FOR_BENCH = ["strace", "iperf3"]

# What draws the plots of scripts/svio report, and what the tests open its page in.
FOR_REPORT = ["python3-matplotlib"]
FOR_BROWSER = ["chromium"]

# libFuzzer is clang's.
FOR_FUZZING = "clang libclang-rt-dev".split()

WANTED_VERSION = {"qemu-system-x86": (10, 0), "meson": (1, 5)}


def missing(names=None):
    """[(package, why)] that set-up would install."""
    gone = []
    states = _states()
    for package in (NEEDED if names is None else names):
        have = states.get(package)
        wanted = WANTED_VERSION.get(package)
        if have is None:
            gone.append((package, "is not installed"))
        elif wanted and _numbers(have)[:2] < wanted:
            gone.append((package, f"is {have}, and {'.'.join(map(str, wanted))} is needed"))
    return gone


def _numbers(version):
    upstream = version.split(":", 1)[-1]
    return tuple(int(part) for part in re.split(r"[.+-]", upstream) if part.isdigit())


def _states():
    text = ui.output(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n"],
                     "dpkg-query does not answer: this is not a Debian system")
    states = {}
    for line in text.splitlines():
        status, package, version = (line.split(" ") + ["", ""])[:3]
        if status == "installed":
            states[package] = version
    return states


def as_root(wanted):
    """The words before a command that needs root to install these packages."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        return ["sudo"]
    raise SvioError("Packages are missing and neither root nor sudo is at hand: run as root once: "
                    "apt-get install " + " ".join(wanted))


def install_command(source, names):
    """Backports only for what needs them, as in apt's own advice (package/suite would miss dependencies)."""
    words = ["apt-get", *source.options(as_root=True), "-q", "-y", "--no-install-recommends",
             "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold",
             "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300"]
    if host.codename() == "bookworm" and any(name in WANTED_VERSION for name in names):
        words += ["-t", "bookworm-backports"]
    # Already installed QEMU parts must move together with the binary.
    return words + ["install", *names]


def _groups(names):
    new = [name for name in names if name in WANTED_VERSION or name in ("qemu-system-data",)]
    rest = [name for name in names if name not in new]
    return [group for group in (rest, new) if group]


class PackagesStep(Step):
    def __init__(self, name="packages", title="Debian packages", wanted=None):
        self.name, self.title = name, title
        self.wanted = NEEDED if wanted is None else wanted

    def inputs(self):
        # What is installed can change behind our back; the status file tells.
        try:
            state = os.stat("/var/lib/dpkg/status")
            seen = f"{state.st_mtime_ns} {state.st_size}"
        except OSError:
            seen = "none"
        return [" ".join(self.wanted), host.codename(), seen]

    def run(self, log):
        gone = missing(self.wanted)
        if not gone:
            return
        if not host.supported():
            raise SvioError("This is neither Debian 12 nor Debian 13, so packages are not installed for you; "
                            "needed: " + " ".join(name for name, _ in gone) + ".")
        for name, why in gone:
            log.write(f"{name} {why}")
            if why != "is not installed":
                ui.say(f"  {name} {why}: it is upgraded from {host.codename()}-backports")
        source = apt.own_apt()
        source.update(log)
        root = as_root([name for name, _ in gone])
        ui.say(f"  installing with apt{' (through sudo)' if root else ''}: "
               + " ".join(name for name, _ in gone))
        if root and ui.output(["sudo", "-n", "true"]) is None:
            # Ask for the password now, with the terminal at hand, not below a progress line.
            if os.system("sudo -v"):
                raise SvioError("sudo refused: packages can only be installed as root.")
        for group in _groups([name for name, _ in gone]):
            command = root + ["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"] \
                + install_command(source, group)
            log.run(command, "Could not install Debian packages; try by hand: "
                    + shlex.join(root + ["apt-get", "install", *group]))
        # Root's files, in the user's folder; several hundred MB that are not wanted again.
        for path in (source.dir / "root-cache/archives").glob("*.deb"):
            path.unlink()
        still = missing(self.wanted)
        if still:
            raise SvioError(f"After the installation {still[0][0]} still {still[0][1]}: "
                            "the mirror in /etc/apt does not carry it.")
