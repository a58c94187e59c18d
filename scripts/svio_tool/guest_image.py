# SPDX-License-Identifier: GPL-2.0-or-later
"""The test VM's file system: an initramfs made of Debian's binaries.

Three archives are put one after the other, as Linux allows: programs (the same for all kernels), the
kernel's modules, and svio.ko. A changed driver therefore costs a fraction of a second.
"""
import contextlib
import functools
import lzma
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

from svio_tool import apt, host, kernels
from svio_tool.cpio import Archive
from svio_tool.paths import GUEST_IMAGE, JUNK, driver_module
from svio_tool.steps import Step
from svio_tool.ui import SvioError

PACKAGES = """
    busybox bash iproute2 ethtool iputils-ping iputils-arping iperf3 sockperf tcpdump socat curl
    qemu-guest-agent kmod kexec-tools pciutils
""".split()

PROGRAMS = """
    busybox bash ip ss bridge tc ethtool ping arping iperf3 sockperf tcpdump socat curl qemu-ga
    kmod nstat devlink kexec lspci
""".split()

# What a guest of the Xen machine has: its archive is carried inside of dom0's.
XEN_GUEST_PROGRAMS = """
    busybox bash ip ethtool ping iperf3 sockperf socat curl qemu-ga kmod nstat tcpdump
""".split()

KMOD_LINKS = ("modprobe", "insmod", "rmmod", "lsmod", "modinfo", "depmod")

# Dependencies of packages, yet of no program in the image.
UNUSED = re.compile(r"perl|debconf|adduser|passwd|usrmerge|base-files|mawk|init-system|^dpkg|^tar=|libpam|"
                    r"gcc-1\d-base|libsemanage|libsepol|debianutils|libaudit-common|libgdbm|libdb5")

HERE = Path(__file__).parent / "guest"
BASE = GUEST_IMAGE / "base.cpio"
XEN_GUEST_BASE = GUEST_IMAGE / "xen-guest-base.cpio"


def modules_archive(kernel):
    return GUEST_IMAGE / f"modules-{kernel}.cpio"


def driver_archive(kernel):
    return GUEST_IMAGE / f"driver-{kernel}.cpio"


# --- what a program needs -------------------------------------------------------------------------

def elf_needs(path):
    """(interpreter or None, [library names]) of an ELF file; ([], None) for anything else."""
    with open(path, "rb") as handle:
        data = handle.read()
    if data[:5] != b"\x7fELF\x02":
        return None, []
    offset, = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    heads = [struct.unpack_from("<IIQQQQQQ", data, offset + size * i) for i in range(count)]
    interpreter, dynamic = None, None
    for kind, _, start, _, _, length, _, _ in heads:
        if kind == 3:
            interpreter = data[start:start + length].rstrip(b"\0").decode()
        elif kind == 2:
            dynamic = data[start:start + length]
    if dynamic is None:
        return interpreter, []
    names, table = [], 0
    for tag, value in struct.iter_unpack("<QQ", dynamic):
        if tag == 1:
            names.append(value)
        elif tag == 5:
            table = next(start + value - address for kind, _, start, address, _, length, _, _ in heads
                         if kind == 1 and address <= value < address + length)
    return interpreter, [data[table + n:data.index(b"\0", table + n)].decode() for n in names]


class Tree:
    """Unpacked packages, seen as one merged /usr."""

    def __init__(self, root, more=()):
        self.root = root
        self.files = {}
        for folder in (*more, "usr/bin", "usr/sbin", "bin", "sbin", "usr/lib/x86_64-linux-gnu",
                       "lib/x86_64-linux-gnu", "usr/lib64", "lib64"):
            for path in sorted((root / folder).glob("*")):
                if path.is_file() or path.is_symlink():
                    self.files.setdefault(path.name, path)

    def find(self, name):
        path = self.files.get(name)
        for _ in range(8):
            if path is None or not path.is_symlink():
                break
            # Links may be absolute, and must not leave the tree: only the last name counts.
            path = self.files.get(os.path.basename(os.readlink(path)))
        return path

    def closure(self, programs):
        """{name in the image: path here} of programs and the libraries they load."""
        found, todo = {}, []
        for program in programs:
            path = self.find(program)
            if path is None:
                raise SvioError(f"The guest's program {program} is in none of the Debian packages for it.")
            found["usr/bin/" + program] = path
            todo.append(path)
        while todo:
            interpreter, libraries = elf_needs(todo.pop())
            for name in libraries + ([os.path.basename(interpreter)] if interpreter else []):
                folder = "usr/lib64" if name.startswith("ld-linux") else "usr/lib/x86_64-linux-gnu"
                place = f"{folder}/{name}"
                path = self.find(name)
                if path is None:
                    raise SvioError(f"The guest's library {name} is in none of the Debian packages for it.")
                if place not in found:
                    found[place] = path
                    todo.append(path)
        return found


# --- the archives ---------------------------------------------------------------------------------

class BaseStep(Step):
    name = "guest-base"
    title = "guest programs"
    needs = ("packages",)

    def inputs(self):
        return ["layout 1", host.codename(), " ".join(PACKAGES + PROGRAMS), Path(__file__),
                *sorted(HERE.iterdir())]

    def outputs(self):
        return [BASE, XEN_GUEST_BASE]

    def run(self, log):
        with unpacked_packages("guest", PACKAGES, UNUSED, log) as root:
            GUEST_IMAGE.mkdir(parents=True, exist_ok=True)
            tree = Tree(root)
            for path, programs in ((BASE, PROGRAMS), (XEN_GUEST_BASE, XEN_GUEST_PROGRAMS)):
                write(path, functools.partial(_base_content, tree, programs, log))


@contextlib.contextmanager
def unpacked_packages(name, packages, unused, log, whole=False, source=None):
    """A folder with Debian packages and what they depend on, but for the unused; gone with the block.
    Unless the whole is asked for, programs and libraries only."""
    source = source or apt.own_apt()
    root = JUNK / f"{name}-root"
    wanted = [item for item in source.closure(packages, log) if not unused.search(item)]
    debs = source.download(wanted, JUNK / f"{name}-debs", log)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for deb in debs:
        _unpack(deb, root, log, () if whole else ("*/share/*", "*/gconv/*", "./etc/*", "./var/*"))
    yield root
    shutil.rmtree(root)
    shutil.rmtree(JUNK / f"{name}-debs")


def _unpack(deb, folder, log, without):
    """Several packages in one tree clash on links like /lib64, which dpkg itself would not mend."""
    log.write(f"unpack {deb.name}")
    reader = subprocess.Popen(["dpkg", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    status = subprocess.run(["tar", "-x", "-C", folder, "--keep-directory-symlink", "--no-same-owner",
                             "--wildcards", *(f"--exclude={part}" for part in without), "-f", "-"],
                            stdin=reader.stdout, stdout=log.handle, stderr=log.handle, check=False).returncode
    reader.stdout.close()
    if reader.wait() or status:
        raise SvioError(f"Could not unpack {deb.name}; is the disk full?")


def _base_content(tree, programs, log, archive):
    for folder in ("dev", "proc", "sys", "run", "tmp", "root", "etc", "var", "mnt",
                   "usr/bin", "usr/sbin", "usr/local/bin", "usr/lib/x86_64-linux-gnu", "usr/lib64"):
        archive.folder(folder, 0o1777 if folder == "tmp" else 0o755)
    for link in ("bin", "lib", "lib64"):
        archive.link(link, "usr/" + link)
    archive.link("sbin", "usr/sbin")
    archive.link("var/run", "/run")
    # Opened by the kernel before anything is mounted.
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3, 0o666)
    for name, path in sorted(tree.closure(programs).items()):
        archive.file(name, path, 0o755)
        log.write(f"{name} {path.stat().st_size}")
    for name in KMOD_LINKS:
        archive.link("usr/sbin/" + name, "../bin/kmod")
    archive.link("usr/bin/sh", "busybox")
    archive.file("init", HERE / "init", 0o755)
    archive.file("etc/udhcpc.sh", HERE / "udhcpc.sh", 0o755)
    archive.file("etc/profile", HERE / "profile")
    archive.file("etc/motd", HERE / "motd")
    archive.data("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
                               b"tcpdump:x:100:100::/:/bin/false\n")
    archive.data("etc/group", b"root:x:0:\nnogroup:x:65534:\ntcpdump:x:100:\n")
    archive.data("etc/hosts", b"127.0.0.1 localhost svio-guest\n::1 localhost\n")
    archive.data("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    archive.data("etc/protocols", b"ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n")


def write(path, fill):
    """An archive under its final name only when it is whole."""
    temporary = path.with_suffix(".new")
    with open(temporary, "wb") as handle:
        archive = Archive(handle)
        fill(archive)
        archive.end()
    temporary.replace(path)


class ModulesStep(Step):
    def __init__(self, kernel):
        self.kernel = kernel
        self.name = f"guest-modules-{kernel}"
        self.title = f"guest modules {kernel}"
        self.needs = (f"kernel-{kernel}",)

    def inputs(self):
        return ["layout 1", kernels.kernel_dir(self.kernel) / "info.json", " ".join(kernels.MODULES)]

    def outputs(self):
        return [modules_archive(self.kernel)]

    def run(self, log):
        GUEST_IMAGE.mkdir(parents=True, exist_ok=True)
        facts = kernels.info(self.kernel)
        stage = _stage(self.kernel, facts, log)
        # Its indexes go into the driver's archive, which knows svio.ko.
        write(modules_archive(self.kernel), functools.partial(_modules_content, stage, facts["version"]))


def stage_dir(kernel):
    return GUEST_IMAGE / f"stage-{kernel}"


def _stage(kernel, facts, log):
    """The modules unpacked, so that the guest need not (xz is slow under emulation)."""
    stage = stage_dir(kernel)
    shutil.rmtree(stage, ignore_errors=True)
    target = stage / "lib/modules" / facts["version"]
    target.mkdir(parents=True)
    for path in facts["modules"].rglob("*.ko*"):
        data = path.read_bytes()
        name = str(path.relative_to(facts["modules"]))
        if name.endswith(".xz"):
            data, name = lzma.decompress(data), name[:-3]
        elif not name.endswith(".ko"):
            raise SvioError(f"The guest's module {path.name} is packed in a way that is not known here.")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(data)
    for path in facts["modules"].glob("modules.builtin*"):
        if not path.name.endswith(".bin"):
            shutil.copy2(path, target)
    order = facts["modules"] / "modules.order"
    if order.exists():
        (target / "modules.order").write_text(re.sub(r"\.ko\.xz$", ".ko", order.read_text(), flags=re.M))
    log.write(f"{sum(1 for _ in target.rglob('*.ko'))} modules")
    return stage


def _modules_content(stage, version, archive):
    base = stage / "lib/modules" / version
    for path in sorted(base.rglob("*.ko")):
        archive.file("usr/" + str(path.relative_to(stage)), path, 0o644)


class DriverArchiveStep(Step):
    """svio.ko with the indexes that name it; also made, without it, before the driver exists."""

    def __init__(self, kernel, driver):
        self.kernel = kernel
        self.driver = driver
        self.name = f"guest-driver-{kernel}" if driver else f"guest-plain-{kernel}"
        self.title = f"guest image {kernel}" + ("" if driver else " without driver")
        self.needs = ("guest-base", f"guest-modules-{kernel}") + ((f"driver-{kernel}",) if driver else ())

    def inputs(self):
        return ["layout 3", kernels.kernel_dir(self.kernel) / "info.json", driver_module(self.kernel),
                BaseStep().digest()]

    def outputs(self):
        return [driver_archive(self.kernel), initrd(self.kernel)]

    def run(self, log):
        facts = kernels.info(self.kernel)
        stage = stage_dir(self.kernel)
        base = stage / "lib/modules" / facts["version"]
        module = base / "updates" / "svio.ko"
        module.unlink(missing_ok=True)
        if driver_module(self.kernel).exists():
            module.parent.mkdir(exist_ok=True)
            shutil.copyfile(driver_module(self.kernel), module)
        log.run([kernels.depmod(), "-b", stage, facts["version"]],
                "depmod could not read the guest's modules")
        write(driver_archive(self.kernel), functools.partial(_driver_content, stage, base, module))
        join(initrd(self.kernel), (BASE, modules_archive(self.kernel), driver_archive(self.kernel)))


def _driver_content(stage, base, module, archive):
    if module.exists():
        archive.file("usr/" + str(module.relative_to(stage)), module, 0o644)
    for path in sorted(base.glob("modules.*")):
        archive.file("usr/" + str(path.relative_to(stage)), path, 0o644)


def initrd(kernel):
    """The one file for QEMU's -initrd."""
    return GUEST_IMAGE / f"initrd-{kernel}.cpio"


def join(path, parts):
    """Archives one after the other in one file, which is there only when it is whole."""
    temporary = path.with_suffix(".new")
    with open(temporary, "wb") as out:
        for part in parts:
            with open(part, "rb") as handle:
                shutil.copyfileobj(handle, out, 1 << 20)
    temporary.replace(path)
