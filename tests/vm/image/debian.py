# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk with a small Debian on it, as somebody's own VM would have one: partition table, GRUB in the gap
behind it, ext4, systemd, Debian's kernel with its headers, dkms. It is not told of svio at all.

Made by root, yet without loop devices and without mounting a file system: debootstrap fills a folder, mke2fs
copies it into the image.
"""
import os
import re
import shutil
import struct
import sys
import uuid
from pathlib import Path

from svio_tool import apt, build, host, package, setup, steps
from svio_tool.packages import PackagesStep
from svio_tool.paths import BUILD, JUNK
from svio_tool.steps import Step
from svio_tool.ui import SvioError

DISK = BUILD / "own-vm" / "debian.raw"
SECTOR, GAP = 512, 2048
SIZE_MIB = 3072
ROOT = uuid.UUID("73766910-0001-4000-8000-6f776e766d00")

# build-essential's parts come with dkms. The guest agent lets the test run commands.
PROGRAMS = """linux-image-amd64 linux-headers-amd64 dkms initramfs-tools systemd-sysv udev dbus kmod iproute2
    iputils-ping ethtool curl qemu-guest-agent""".split()
HOST_PACKAGES = "debootstrap grub-pc-bin grub-common e2fsprogs util-linux".split()
GRUB = Path("/usr/lib/grub/i386-pc")
GRUB_MODULES = "biosdisk part_msdos ext2 normal linux configfile".split()


class OwnImageStep(Step):
    name = "own-vm-image"
    title = "disk with a Debian of its own (some minutes)"
    needs = ("packages", "packages-image")

    def inputs(self):
        return [host.codename(), Path(__file__)]

    def outputs(self):
        return [DISK]

    def run(self, log):
        if os.geteuid():
            raise SvioError("A disk with a Debian on it can only be made by root (debootstrap).")
        work = JUNK / "own-vm"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        root = work / "root"
        mirror = re.search(r"^deb (?:\[.*?\] )?(\S+)", apt.sources_text([host.codename()], False), re.M)[1]
        # What it mounts meanwhile is gone with its name space, also when it fails.
        log.run(["unshare", "--mount", "--propagation", "private", package.build_tool("debootstrap"),
                 "--variant=minbase", "--include=" + ",".join(PROGRAMS), host.codename(), root, mirror],
                "debootstrap could not make a small Debian", env=apt.environment())
        configure(root)
        disk = work / "disk.raw"
        write_disk(disk, root, log)
        DISK.parent.mkdir(exist_ok=True)
        disk.replace(DISK)
        shutil.rmtree(work)


def configure(root):
    """What an installer would have asked for."""
    for deb in (root / "var/cache/apt/archives").glob("*.deb"):
        deb.unlink()
    (root / "etc/hostname").write_text("own-vm\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost own-vm\n")
    (root / "etc/fstab").write_text(f"UUID={ROOT} / ext4 errors=remount-ro 0 1\n")
    shadow = root / "etc/shadow"
    shadow.write_text(re.sub(r"^root:[^:]*:", "root::", shadow.read_text(), flags=re.M))
    kernel, = (root / "boot").glob("vmlinuz-*")
    version = kernel.name.partition("-")[2]
    (root / "boot/grub").mkdir(exist_ok=True)
    (root / "boot/grub/grub.cfg").write_text(
        f"linux /boot/{kernel.name} root=UUID={ROOT} ro console=ttyS0\n"
        f"initrd /boot/initrd.img-{version}\nboot\n")


def write_disk(disk, root, log):
    """Sector 0: GRUB's boot.img and the partition table; then GRUB's core; from 1 MiB on the file system."""
    with open(disk, "wb") as handle:
        handle.truncate(SIZE_MIB << 20)
    # Features that GRUB's reader of Debian 12 does not know are left out.
    features = "^orphan_file,^metadata_csum_seed"
    log.run([package.build_tool("mke2fs"), "-q", "-F", "-t", "ext4", "-O", features, "-U", ROOT,
             "-d", root, "-E", f"offset={GAP * SECTOR}", disk, f"{SIZE_MIB - 1}M"],
            "Could not make the file system of the disk", env=build.environment())
    core = disk.with_suffix(".core")
    log.run(["grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o", core, *GRUB_MODULES],
            "Could not make the boot loader", env=build.environment())
    loader = core.read_bytes()
    if len(loader) > (GAP - 1) * SECTOR:
        raise SvioError("GRUB's core does not fit before the first partition.")
    # boot.img as it comes loads sector 1, where the core begins, and the core knows its own length.
    entry = struct.pack("<B3xB3xII", 0x80, 0x83, GAP, (SIZE_MIB << 20) // SECTOR - GAP)
    boot = (GRUB / "boot.img").read_bytes()[:440]
    with open(disk, "r+b") as handle:
        handle.write(boot + bytes(6) + entry.ljust(64, b"\0") + b"\x55\xaa" + loader)


def ensure():
    """The disk; it is made once."""
    registry = {**setup.REGISTRY, "own-vm-image": OwnImageStep(),
                "packages-image": PackagesStep("packages-image", "packages for an image", HOST_PACKAGES)}
    steps.ensure(["own-vm-image"], registry)
    return DISK


if __name__ == "__main__":
    print(ensure())
    sys.exit(0)
