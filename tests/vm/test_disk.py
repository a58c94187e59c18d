# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/svio vm --disk: tiny disks whose boot sector says on the serial console what it found."""
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from svio_tool import disk_vm, package, setup
from svio_tool.disk_vm import DiskVm, examine
from svio_tool.paths import DRIVER_DISK, REPO
from svio_tool.ui import SvioError

DEADLINE = 180
BOOT_SECTOR = Path(__file__).parent / "image/boot.S"
SIZE = 2 << 20


def run(*words, **options):
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          timeout=DEADLINE, check=False, **options)
    return done.returncode, done.stdout


class DiskCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if cls is DiskCase:
            raise unittest.SkipTest("no tests of its own")
        setup.ensure(["packages-disk"])
        cls.folder = Path(tempfile.mkdtemp(prefix="svio-disk-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        # Another text each time: what appears on the console can only come from this disk.
        cls.text = f"disk {os.urandom(8).hex()}"
        cls.raw = cls.folder / "tiny.raw"
        cls.raw.write_bytes(cls.boot_sector() + f"{cls.text}\r\n".encode().ljust(512, b"\0")
                            + bytes(SIZE - 1024))
        cls.qcow2 = cls.folder / "tiny, with a comma.qcow2"
        cls.must("qemu-img", "convert", "-f", "raw", "-O", "qcow2", cls.raw, cls.qcow2)

    @classmethod
    def must(cls, *words):
        status, said = run(*words)
        assert status == 0, said
        return said

    @classmethod
    def boot_sector(cls):
        made = cls.folder / "boot"
        cls.must("gcc", "-m32", "-c", "-o", f"{made}.o", BOOT_SECTOR)
        cls.must("ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", made, f"{made}.o")
        return made.read_bytes()

    def copy(self, path, name):
        target = self.folder / name
        shutil.copyfile(path, target)
        self.addCleanup(target.unlink, missing_ok=True)
        return target

    def svio(self, *words):
        """(exit status, all that appeared on the terminal) of scripts/svio."""
        return run(REPO / "scripts/svio", *words)

    def boots(self, image, *words):
        """It runs to its end through the command that people type: -no-reboot makes its reset the end."""
        status, said = self.svio("vm", "--name", "test-disk", "--disk", image, *words, "--", "-no-reboot")
        self.assertEqual(status, 0, said)
        for line in (self.text, "svio card", "end"):
            self.assertIn(line + "\n", said.replace("\r", ""))
        self.assertNotIn("disk error", said)
        return said


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class TestTinyDisk(DiskCase):
    def test_raw_stays_as_it_is(self):
        before = digest(self.raw)
        said = self.boots(self.raw)
        self.assertIn("stays as it is", said)
        self.assertEqual(digest(self.raw), before)

    def test_qcow2_on_sata_stays_as_it_is(self):
        before = digest(self.qcow2)
        self.boots(self.qcow2, "--disk-bus", "sata")
        self.assertEqual(digest(self.qcow2), before)

    def test_read_only_file_boots(self):
        image = self.copy(self.raw, "locked.raw")
        image.chmod(0o444)
        self.boots(image, "--machine", "pc")

    def test_write_keeps_what_the_guest_wrote(self):
        image = self.copy(self.raw, "written.raw")
        self.boots(image, "--write", "--disk-bus", "nvme")
        data, old = image.read_bytes(), self.raw.read_bytes()
        self.assertEqual(data[1024:1536], old[512:1024])
        self.assertEqual(data[:1024] + data[1536:], old[:1024] + old[1536:])

    def test_uefi_looks_at_the_disk(self):
        """The disk has no loader for UEFI; the firmware, on the serial console, says which disk it tried."""
        vm = DiskVm("test-uefi", examine(self.raw), firmware="uefi", wait=False)
        with vm:
            deadline = time.monotonic() + DEADLINE
            while "BdsDxe: " not in vm.log():
                vm.check_alive()
                self.assertLess(time.monotonic(), deadline, vm.log())
                time.sleep(0.1)

    def test_print_qemu_names_disk_and_format(self):
        status, said = self.svio("vm", "--disk", self.qcow2, "--print-qemu")
        self.assertEqual(status, 0, said)
        line = said.splitlines()[-1]
        self.assertIn(f"format=qcow2,file={str(self.qcow2).replace(',', ',,')},snapshot=on", line)
        self.assertIn("-device svio-nic,", line)


class TestDiskRefusals(DiskCase):
    def refused(self, words, path, *arguments, **options):
        with self.assertRaises(SvioError) as caught:
            examine(path, *arguments, **options)
        self.assertRegex(caught.exception.sentence, words)

    def test_no_such_file(self):
        status, said = self.svio("vm", "--disk", self.folder / "absent.qcow2")
        self.assertEqual(status, 1)
        self.assertRegex(said, r"^svio: There is no file .*absent\.qcow2\.\n$")

    def test_folder(self):
        self.refused("is a folder", self.folder)

    def test_no_image(self):
        self.refused("no disk image that could be booted", BOOT_SECTOR)

    def test_empty_file(self):
        self.refused("no disk image that could be booted", self.copy("/dev/null", "empty"))

    def test_no_image_of_the_format_that_was_asked_for(self):
        self.refused("no qcow2 image that QEMU can read", self.raw, "qcow2")

    def test_truncated_raw(self):
        image = self.copy(self.raw, "odd.raw")
        os.truncate(image, SIZE - 100)
        self.refused("truncated", image)

    def test_truncated_raw_with_partitions(self):
        image = self.copy(self.raw, "parts.raw")
        data = bytearray(image.read_bytes())
        data[446:462] = bytes([0x80, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") \
            + (2048).to_bytes(4, "little")
        image.write_bytes(data)
        self.assertEqual(examine(image).format, "raw")
        os.truncate(image, SIZE - 4096)
        self.refused(r"truncated: its partition 1 ends at 2 MiB", image)

    def test_truncated_qcow2(self):
        image = self.copy(self.qcow2, "cut.qcow2")
        for size in (300000, 200000, 0x30000, 70000, 1000):
            os.truncate(image, size)
            self.refused("truncated|can read", image)

    def test_qcow2_that_names_another_file(self):
        """A guest could have written such a header onto its raw disk; only somebody who asks gets it."""
        image = self.folder / "backed.qcow2"
        self.must("qemu-img", "create", "-q", "-f", "qcow2", "-b", self.raw, "-F", "raw", image)
        self.refused("refers to another file", image)
        self.assertEqual(examine(image, "qcow2").format, "qcow2")
        image.unlink()
        self.must("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={self.folder}/data", image,
                  "1M")
        self.refused("refers to another file", image)

    def test_other_formats_are_asked_for(self):
        image = self.folder / "other.vmdk"
        self.must("qemu-img", "convert", "-f", "raw", "-O", "vmdk", self.raw, image)
        self.refused("looks like a vmdk image", image)
        self.assertEqual(examine(image, "vmdk").format, "vmdk")

    def test_image_that_a_vm_writes_to(self):
        image = self.copy(self.raw, "busy.raw")
        with DiskVm("test-busy", examine(image), write=True, wait=False):
            self.refused("locked", image)
        with DiskVm("test-busy", examine(image), wait=False):
            self.assertEqual(examine(image).format, "raw")
            self.refused("locked", image, write=True)
        self.assertEqual(examine(image).format, "raw")

    def test_words_without_a_disk(self):
        status, said = self.svio("vm", "--write")
        self.assertEqual((status, said), (1, "svio: --write is for --disk IMAGE only.\n"))


class TestDriverDisk(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        setup.ensure(["driver-disk"])

    def debugfs(self, request):
        status, said = run(package.build_tool("debugfs"), "-R", request, DRIVER_DISK)
        self.assertEqual(status, 0, said)
        return said

    def test_content(self):
        deb, = [path for path in package.packages() if path.name.startswith("svio-dkms_")]
        with tempfile.TemporaryDirectory() as folder:
            self.debugfs(f"rdump / {folder}")
            root = Path(folder)
            self.assertEqual((root / deb.name).read_bytes(), deb.read_bytes())
            source = root / f"svio-{package.version()}"
            for path in (REPO / "guest-driver").glob("*.[ch]"):
                self.assertEqual((source / path.name).read_bytes(), path.read_bytes())
            self.assertIn(f"/mnt/{deb.name}", (root / "README.txt").read_text())

    def test_label_and_owner(self):
        said = self.debugfs("show_super_stats -h")
        self.assertRegex(said, rf"Filesystem volume name:\s+{package.LABEL}\n")
        self.assertNotIn("has_journal", said)
        self.assertRegex(self.debugfs("stat /"), r"User:\s+0\s+Group:\s+0")

    def test_attached_read_only(self):
        vm = DiskVm("test-share", disk_vm.Image(Path("/x"), "raw"), share=DRIVER_DISK)
        self.assertIn(f"if=none,id=share0,format=raw,readonly=on,file={DRIVER_DISK}", vm.system())
