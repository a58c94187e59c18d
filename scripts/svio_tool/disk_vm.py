# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that boots somebody's own disk image, with the card in it.

The image is never harmed by accident: without write=True all that the guest writes goes into a temporary
overlay (QEMU's snapshot=on), which is gone with the VM. QEMU is always told the format. It is not left to
guess, since a guest that owned a raw disk could have written a header onto it that names any file of the
host.
"""
import fcntl
import json
import os
import shutil
import stat
import struct
import subprocess
from collections import namedtuple
from pathlib import Path

from svio_tool import apt, ui
from svio_tool.nics import escaped
from svio_tool.paths import DRIVER_DISK, shown
from svio_tool.ui import SvioError
from svio_tool.vm import Vm

Image = namedtuple("Image", "path format")

BUSES = {"virtio": "virtio-blk-pci", "sata": "ide-hd", "nvme": "nvme"}
FIRMWARES = ("bios", "uefi")
FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed")

# First bytes of formats that may name other files, or of which little is known here: only on demand.
ON_DEMAND = ((b"KDMV", "vmdk"), (b"# Disk Desc", "vmdk"), (b"COWD", "vmdk"), (b"vhdxfile", "vhdx"),
             (b"conectix", "vpc"), (b"QED\0", "qed"), (b"<<< ", "vdi"))

OVMF = (("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"), ("OVMF_CODE.fd", "OVMF_VARS.fd"))
OVMF_FOLDER = Path("/usr/share/OVMF")

SECTOR = 512


# --- what the image is ----------------------------------------------------------------------------

def examine(name, asked=None, write=False):
    """The image behind a name that somebody typed, or a sentence on why it cannot be booted."""
    path = check_file(name, write)
    with open(path, "rb") as handle:
        head = handle.read(4096)
        size = handle.seek(0, os.SEEK_END)
        _check_locks(handle, name, write)
    found = asked or _detect(head, name)
    if found == "raw":
        _check_raw(head, size, name, partitions=not asked)
    if found == "qcow2":
        _check_qcow2(head, size, name)
    facts = _ask_qemu(path, found, name)
    if facts.get("encrypted"):
        raise SvioError(f"{name} is encrypted, which is not supported here.")
    if found in ("qcow2", "vdi", "vhdx", "vmdk", "qed"):
        _check_whole(path, found, name)
    return Image(path, found)


def check_file(name, write):
    """What can be said before anything is set up."""
    path = Path(name).absolute()
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        raise SvioError(f"There is no file {name}.") from None
    if not stat.S_ISREG(kind) and not stat.S_ISBLK(kind):
        raise SvioError(f"{name} is a folder, not a disk image." if stat.S_ISDIR(kind)
                        else f"{name} is neither a file nor a disk.")
    if not os.access(path, os.R_OK):
        raise SvioError(f"{name} cannot be read by this user.")
    if write and not os.access(path, os.W_OK):
        raise SvioError(f"{name} cannot be written by this user; without --write it need not be.")
    return path


def _check_locks(handle, name, write):
    """What QEMU would find itself, as a sentence. Its locks are ranges of one byte (file-posix.c): 100 + n
    is held by who uses permission n, 200 + n by who does not share it; writing is number 1."""
    for place in (101, 201) if write else (101,):
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        kind, = struct.unpack_from("h", fcntl.fcntl(handle, fcntl.F_OFD_GETLK, lock))
        if kind != fcntl.F_UNLCK:
            raise SvioError(f"{name} is locked: another program, such as a running VM, "
                            + ("writes to it." if place == 101 else "uses it."))


def _detect(head, name):
    """The format, where it can be told safely by the first bytes alone."""
    if head[:4] == b"QFI\xfb" and len(head) >= 104:
        version, backing = struct.unpack_from(">IQ", head, 4)
        features, = struct.unpack_from(">Q", head, 72) if version >= 3 else (0,)
        if backing or features & 4:
            raise SvioError(f"{name} is a qcow2 image that refers to another file, which QEMU would open "
                            "too: if the image comes from a source that you trust, say --format qcow2.")
        return "qcow2"
    for magic, kind in ON_DEMAND:
        if head.startswith(magic):
            raise SvioError(f"{name} looks like a {kind} image: if you trust its source, say "
                            f"--format {kind}, or convert it with qemu-img convert -O qcow2.")
    if head[510:512] == b"\x55\xaa":
        return "raw"
    raise SvioError(f"{name} is no disk image that could be booted: it has neither the header of a qcow2 "
                    "image nor a boot sector. If it is a raw disk all the same, say --format raw.")


def _check_raw(head, size, name, partitions):
    if not size or size % SECTOR:
        raise SvioError(f"{name} has {size} bytes, which is no whole number of {SECTOR}-byte sectors: it is "
                        "truncated, or no raw disk.")
    if not partitions:
        return
    for number in range(4):
        kind, start, count = struct.unpack_from("<4xB3xII", head, 446 + 16 * number)
        # The entry that stands for a whole GPT disk may claim the largest number.
        if kind and count and count != 0xffffffff and head[446 + 16 * number] in (0, 0x80) \
                and (start + count) * SECTOR > size:
            raise SvioError(f"{name} is truncated: its partition {number + 1} ends at "
                            f"{(start + count) * SECTOR >> 20} MiB, the file at {size >> 20} MiB.")


def _check_qcow2(head, size, name):
    """qemu-img's check takes a table beyond the end of the file for an empty one."""
    if head[:4] == b"QFI\xfb" and len(head) >= 104:
        entries, table = struct.unpack_from(">IQ", head, 36)
        if table + 8 * entries > size:
            raise SvioError(f"{name} is truncated: its first table lies beyond the end of the file.")


def _run(program, *words):
    try:
        return subprocess.run([program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, check=False, env=apt.environment())
    except FileNotFoundError:
        raise SvioError(f"{program} is not installed: apt-get install qemu-utils") from None


def _refuse(kind, name, said):
    if "lock" in said:
        raise SvioError(f"{name} is locked: another program, such as a running VM, writes to it.", said)
    raise SvioError(f"{name} is no {kind} image that QEMU can read.", said)


def _ask_qemu(path, kind, name):
    done = _run("qemu-img", "info", "--output=json", "-f", kind, str(path))
    if done.returncode:
        _refuse(kind, name, done.stderr.strip())
    return json.loads(done.stdout)


def _check_whole(path, kind, name):
    """Truncated files keep a good header; the check counts what it refers to."""
    done = _run("qemu-img", "check", "--output=json", "-f", kind, str(path))
    try:
        facts = json.loads(done.stdout)
    except ValueError:
        facts = {}
    # Status 3 are leaked clusters, which waste space and nothing else; 63: this format has no check.
    if done.returncode not in (0, 3, 63):
        lost = facts.get("corruptions") or facts.get("check-errors") or "some"
        raise SvioError(f"{name} is damaged or truncated ({lost} errors; see qemu-img check {name}).",
                        done.stderr.strip()[-600:])


def ovmf():
    """(code, variables) of the UEFI firmware."""
    for code, variables in OVMF:
        if (OVMF_FOLDER / code).exists() and (OVMF_FOLDER / variables).exists():
            return OVMF_FOLDER / code, OVMF_FOLDER / variables
    raise SvioError("There is no UEFI firmware on this host; install it: apt-get install ovmf")


# --- the machine ----------------------------------------------------------------------------------

class DiskVm(Vm):
    """A Vm that boots an Image. "share" is the path of a second disk, which the guest can only read."""

    def __init__(self, name, image, write=False, bus="virtio", firmware="bios", share=None, machine="q35",
                 memory=1024, **words):
        # Without a display the firmware itself and boot loaders speak on the serial console.
        super().__init__(name, machine=f"{machine},graphics=off", memory=memory, **words)
        self.image, self.write, self.bus, self.firmware, self.share = image, write, bus, firmware, share
        if bus == "sata" and machine != "q35":
            raise SvioError("--disk-bus sata is for --machine q35.")

    def system(self):
        words = []
        if self.firmware == "uefi":
            words += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={ovmf()[0]}",
                      "-drive", f"if=pflash,unit=1,format=raw,file={escaped(self._variables)}"]
        keep = "" if self.write else ",snapshot=on"
        kind, path = self.image.format, escaped(self.image.path)
        words += ["-drive", f"if=none,id=disk0,format={kind},file={path}{keep}",
                  "-device", f"{BUSES[self.bus]},drive=disk0,bootindex=0"
                  + (",serial=svio-disk" if self.bus == "nvme" else "")]
        if self.share:
            words += ["-drive", f"if=none,id=share0,format=raw,readonly=on,file={escaped(self.share)}",
                      "-device", "virtio-blk-pci,drive=share0,serial=svio-driver"]
        return words

    @property
    def _variables(self):
        return self.run_dir / "uefi-variables.fd"

    def make_files(self):
        super().make_files()
        if self.firmware == "uefi":
            shutil.copyfile(ovmf()[1], self._variables)

    def check_image(self):
        pass


# --- the verb -------------------------------------------------------------------------------------

def add_arguments(parser):
    """Those of the verb "vm" that are for one's own disk."""
    group = parser.add_argument_group(
        "your own disk", "With --disk the VM boots IMAGE (qcow2 or raw) in place of the test guest. What it "
        "writes is forgotten at its end unless --write is given. Its console is the serial one: the guest's "
        "kernel wants console=ttyS0.")
    group.add_argument("--disk", metavar="IMAGE", help="boot this disk image")
    group.add_argument("--write", action="store_true", help="the guest's writes go into IMAGE itself")
    group.add_argument("--format", choices=FORMATS,
                       help="of IMAGE; asked for where guessing would not be safe")
    group.add_argument("--disk-bus", choices=tuple(BUSES), default="virtio",
                       help="how the guest sees IMAGE (default: virtio)")
    group.add_argument("--firmware", choices=FIRMWARES, default="bios",
                       help="bios (SeaBIOS, default) or uefi (OVMF, package ovmf)")
    group.add_argument("--share-driver", action="store_true",
                       help="a second, read-only disk with the driver (DKMS package and sources), label SVIO")


def steps(args):
    """What must be set up for it."""
    return (["compile"] if args.nic == "svio" else ["packages"]) + ["packages-disk"] \
        + (["driver-disk"] if args.share_driver else [])


def build(args, **words):
    image = examine(args.disk, args.format, args.write)
    return DiskVm(args.name, image, args.write, args.disk_bus, args.firmware,
                  DRIVER_DISK if args.share_driver else None, **words)


def explain(vm):
    ui.say(f"Booting {shown(vm.image.path)} ({vm.image.format}); " +
           ("the guest writes to it." if vm.write else
            "it stays as it is, what the guest writes is forgotten (--write keeps it)."))
    if vm.share:
        ui.say("The driver is on the disk labelled SVIO. In the guest, as root:\n"
               "    mount -o ro LABEL=SVIO /mnt && cat /mnt/README.txt\n"
               "    apt install linux-headers-$(uname -r) /mnt/svio-dkms_*.deb && modprobe svio")
