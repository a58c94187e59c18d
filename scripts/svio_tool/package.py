# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb "package": Debian packages in build/package/, and the disk that carries them into a guest.

dpkg-buildpackage works on a copy of the sources, so that the checkout stays as it is.
"""
import re
import shutil
import time

from svio_tool import build, host, ui
from svio_tool.packages import FOR_PACKAGE
from svio_tool.paths import DRIVER_DISK, JUNK, PACKAGE, QEMU_HEADERS, REPO, shown
from svio_tool.steps import Step
from svio_tool.ui import SvioError

# By name, as all sorts of things may lie in a checkout. The tool itself, which needs one, is not packaged.
PARTS = ("meson.build", "meson_options.txt", "README.md", "LICENSE", "LICENSES", "debian", "hv-interface",
         "qemu-device", "guest-driver", "scripts/wire-peer")

LABEL = "SVIO"


def sources():
    """The files that the packages are made of."""
    found = []
    for part in PARTS:
        path = REPO / part
        if not path.exists():
            raise SvioError(f"There is no {part} in this checkout: the clone is not whole.")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [item for item in inside if item.is_file() and item.suffix != ".pyc"]
    return found


def version():
    """The version of all packages, as debian/changelog begins."""
    found = re.match(r"svio \(([^)]+)\)", (REPO / "debian/changelog").read_text())
    if not found:
        raise SvioError("debian/changelog does not begin with a version: the clone is not whole.")
    return found[1]


def packages():
    """The packages that people install; those with debugging symbols lie beside them."""
    return [PACKAGE / f"{name}_{version()}_{architecture}.deb" for name, architecture in
            (("svio-qemu", "amd64"), ("svio-dkms", "all"), ("svio-tools", "amd64"), ("svio-dev", "amd64"))]


class PackageStep(Step):
    name = "package"
    title = "packages of svio"
    needs = ("packages", "packages-package", "qemu-headers")

    def inputs(self):
        # The tools are part of the result: dh_dkms of another release writes other scripts.
        tools = [f"{name} {host.package_version(name)}" for name in FOR_PACKAGE]
        return ["layout 1", *tools, QEMU_HEADERS / "package-version", *sources()]

    def outputs(self):
        return packages()

    def run(self, log):
        work = JUNK / "package"
        shutil.rmtree(work, ignore_errors=True)
        for path in sources():
            target = work / "svio" / path.relative_to(REPO)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        environment = {**build.environment(), "LC_ALL": "C", "SVIO_QEMU_HEADERS": str(QEMU_HEADERS)}
        for name in ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "DESTDIR", "MAKEFLAGS"):
            environment.pop(name, None)
        log.run(["dpkg-buildpackage", "-b", "-us", "-uc", f"-j{build.jobs()}"],
                "The Debian packages could not be built", cwd=work / "svio", env=environment)
        shutil.rmtree(PACKAGE, ignore_errors=True)
        PACKAGE.mkdir(parents=True)
        for path in sorted(work.glob("svio*_*")):
            path.rename(PACKAGE / path.name)
        gone = [path.name for path in packages() if not path.exists()]
        if gone:
            raise SvioError(f"dpkg-buildpackage made no {gone[0]}: does debian/control still name it?")
        shutil.rmtree(work)


README = """\
The driver of the card svio-nic, for the Linux in this virtual machine.

Debian and its relatives, as root (dkms and the headers of your kernel come with apt from your mirror):

    apt install linux-headers-$(uname -r) {mount}/{deb}

Any other Linux, with a compiler and the headers of the running kernel:

    cp -r {mount}/{source} /usr/src/ && dkms install svio/{version}

or, without DKMS, in a copy of that folder:

    make -C /lib/modules/$(uname -r)/build M=$PWD modules && insmod svio.ko
"""


class DriverDiskStep(Step):
    """A small read-only file system with the driver's package and its sources, for any Linux guest."""

    name = "driver-disk"
    title = "disk with the driver"
    needs = ("packages-disk", "package")

    def inputs(self):
        return ["layout 1", *packages()]

    def outputs(self):
        return [DRIVER_DISK]

    def run(self, log):
        work = JUNK / "driver-disk"
        shutil.rmtree(work, ignore_errors=True)
        (work / "deb").mkdir(parents=True)
        deb, = [path for path in packages() if path.name.startswith("svio-dkms_")]
        log.run(["dpkg", "-x", deb, work / "deb"], f"Could not unpack {deb.name}")
        source, = (work / "deb/usr/src").iterdir()
        root = work / "root"
        root.mkdir()
        shutil.copytree(source, root / source.name)
        shutil.copyfile(deb, root / deb.name)
        (root / "README.txt").write_text(README.format(mount="/mnt", deb=deb.name, source=source.name,
                                                       version=source.name.partition("-")[2]))
        new = work / "disk.img"
        # Without a journal it can be mounted from a disk that cannot be written. All is root's.
        log.run([build_tool("mke2fs"), "-q", "-t", "ext2", "-L", LABEL, "-E", "root_owner=0:0", "-d", root,
                 new, "8M"], "Could not make the disk with the driver", env=build.environment())
        new.replace(DRIVER_DISK)
        shutil.rmtree(work)


def build_tool(name):
    """A program of the administrator's, which is not on a user's PATH."""
    return shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin") or name


def main(args):
    """The verb."""
    from svio_tool import setup
    begin = time.monotonic()
    setup.ensure(["package"])
    for path in packages():
        ui.say(f"  {shown(path)}  {path.stat().st_size // 1024} KiB")
    ui.say(f"Ready ({time.monotonic() - begin:.1f} s). On this host: apt install ./{shown(packages()[0])}; "
           "the driver goes into the guest: scripts/svio vm --disk IMAGE --share-driver")
    return 0
