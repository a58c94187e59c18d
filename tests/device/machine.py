# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU process without a guest, and PCI as a host bridge driver sees it."""
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import abi
from qtest import DEADLINE, Qtest
from svio_tool import paths
from svio_tool.qmp import QmpClient

PLUGIN = Path(os.environ.get("SVIO_PLUGIN", paths.PLUGIN))
OTHER_VERSION = PLUGIN.with_name("svio-other-version.so")
RAM = 64 << 20

COMMAND, COMMAND_MEMORY, COMMAND_MASTER = 0x04, 0x2, 0x4
CAP_EXPRESS, CAP_MSIX = 0x10, 0x11

# What a healthy QEMU never says.
ODD = re.compile(r"^.*(?:assert|sanitizer:|runtime error|abort|terminate|corrupt).*$", re.I | re.M)


class QemuDied(Exception):
    """QEMU ended by itself."""


def wait_for(condition, what, deadline=DEADLINE, alive=None):
    """The first true value of condition(); fails with `what` when none comes."""
    end = time.monotonic() + deadline
    pause = 0.0005
    while True:
        value = condition()
        if value:
            return value
        if alive:
            alive()
        if time.monotonic() > end:
            raise AssertionError(f"waited {deadline} s in vain for: {what}")
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def halt_rom():
    """64 KiB below 4 GiB: at the reset vector `cli; hlt; jmp` back to the hlt."""
    rom = bytearray(b"\xcc" * 65536)
    rom[0xfff0:0xfff4] = b"\xfa\xf4\xeb\xfd"
    return bytes(rom)


ROM_ADDRESS = 0xffff0000


def base_command(folder, machine="q35", plugin=PLUGIN):
    rom = Path(folder) / "halt.bin"
    rom.write_bytes(halt_rom())
    return [paths.QEMU, "-plugin", str(plugin), "-nodefaults", "-no-user-config", "-display", "none",
            "-machine", machine, "-accel", "tcg", "-m", f"{RAM >> 20}M", "-bios", str(rom)]


def run_to_end(*arguments, machine="q35", plugin=PLUGIN, timeout=DEADLINE):
    """(status, standard error) of a QEMU that is expected to refuse."""
    with tempfile.TemporaryDirectory(prefix="svio-device-") as folder:
        command = base_command(folder, machine, plugin)
        done = subprocess.run([*command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, timeout=timeout, check=False)
        return done.returncode, done.stderr


class Machine:
    """Starts QEMU; as a context manager it also sees to it that QEMU ends well."""

    def __init__(self, *arguments, machine="q35", folder=None, plugin=PLUGIN):
        self.folder = Path(folder or tempfile.mkdtemp(prefix="svio-device-"))
        self.closed = False
        listener = socket.socket(socket.AF_UNIX)
        self.process = None
        try:
            listener.bind(str(self.folder / "qtest"))
            listener.listen(1)
            self.log = open(self.folder / "log", "w+b")
            command = base_command(self.folder, machine, plugin) + [
                "-qtest", f"unix:{self.folder}/qtest", "-qtest-log", "none",
                "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off", *arguments]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log,
                                            stderr=self.log)
            listener.settimeout(0.2)
            self.qtest = Qtest(self._accept(listener), self.alive)
            self.qmp = QmpClient(self.folder / "qmp", DEADLINE, self.alive)
        except BaseException:
            self.kill()
            raise
        finally:
            listener.close()

    def _accept(self, listener):
        end = time.monotonic() + DEADLINE
        while True:
            try:
                return listener.accept()[0]
            except socket.timeout:
                self.alive()
                if time.monotonic() > end:
                    raise QemuDied("QEMU did not connect its qtest socket: " + self.said()) from None

    def alive(self):
        if self.process.poll() is not None:
            raise QemuDied(f"QEMU ended with status {self.process.returncode}: {self.said()}")

    def said(self):
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def threads(self, name="svio-core"):
        found = []
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                comm = (task / "comm").read_text().strip()
            except OSError:
                continue  # it has just ended
            if comm.startswith(name):
                found.append(comm)
        return found

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._remove()

    def _remove(self):
        self.closed = True
        for name in ("qtest", "qmp", "log"):
            if hasattr(self, name):
                getattr(self, name).close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def quit(self):
        """Ends QEMU as a person does; it must end well and say nothing odd. Returns the seconds it took."""
        if self.closed:
            return 0
        begin = time.monotonic()
        try:
            self.alive()
            self.qmp.command("quit")
            status = self.process.wait(DEADLINE)
            said = self.said()
        except subprocess.TimeoutExpired:
            raise AssertionError(f"QEMU does not end {DEADLINE} s after quit") from None
        finally:
            spent = time.monotonic() - begin
            self.kill()
        assert status == 0, f"QEMU ended with status {status}: {said}"
        odd = ODD.findall(said)
        assert not odd, f"QEMU said: {odd}"
        return spent

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.quit()
        else:
            self.kill()

    # ---- the monitor ----

    def hmp(self, line):
        return self.qmp.command("human-monitor-command", {"command-line": line})

    def stats(self, device="svio0"):
        return self.qmp.command("qom-get", {"path": f"/machine/peripheral/{device}", "property": "stats"})

    def vif(self, device="svio0", slot=0):
        """Counters of the VIF in a slot; those of its first queue pair as `send` and `receive`."""
        vif = self.stats(device)["vifs"][str(slot)]
        return {**vif, **vif["queues"]["0"]}

    def cores(self, device="svio0"):
        """Counters of all on-board cores, summed up."""
        total = {}
        for core in self.stats(device)["cores"].values():
            for name, value in core.items():
                total[name] = total.get(name, 0) + value
        return total

    def stop(self):
        self.qmp.command("stop")

    def cont(self):
        self.qmp.command("cont")

    # ---- PCI ----

    def function(self, device_id=None, bus=0, nth=0):
        """The nth function of this bus with this ID, by default ours."""
        wanted = abi.SVIO_PCI_VENDOR | (device_id or abi.SVIO_PCI_DEVICE_PF) << 16
        found = [slot for slot in range(32) if Function(self, bus, slot).config(4, 0) == wanted]
        if nth >= len(found):
            raise AssertionError(f"no device {wanted:#x} number {nth} on bus {bus}")
        return Function(self, bus, found[nth])

    def open_bridge(self, bridge, bus, base=0xe0000000, size=0x4000000):
        """Gives a bridge a bus number and a window of memory."""
        bridge.config_write(4, 0x18, bus << 16 | bus << 8)
        bridge.config_write(4, 0x20, (base + size - 1) & 0xfff00000 | base >> 16)
        bridge.config_write(2, COMMAND, COMMAND_MEMORY | COMMAND_MASTER)


class Function:
    """One PCI function: configuration space by ports 0xcf8 and 0xcfc, capabilities, BARs."""

    def __init__(self, machine, bus, slot, function=0):
        self.machine = machine
        self.address = 0x80000000 | bus << 16 | slot << 11 | function << 8
        self.devfn = slot << 3 | function
        self.bars = {}

    def config(self, size, offset):
        qtest = self.machine.qtest
        qtest.out(4, 0xcf8, self.address | offset & 0xfc)
        return qtest.in_(size, 0xcfc + (offset & 3))

    def config_write(self, size, offset, value):
        qtest = self.machine.qtest
        qtest.out(4, 0xcf8, self.address | offset & 0xfc)
        qtest.out(size, 0xcfc + (offset & 3), value)

    def capabilities(self):
        """{ID: offset}"""
        found = {}
        if not self.config(2, 0x06) & 0x10:
            return found
        at = self.config(1, 0x34) & 0xfc
        while at:
            assert at not in found.values(), "the list of capabilities is a ring"
            found[self.config(1, at)] = at
            at = self.config(1, at + 1) & 0xfc
        return found

    def probe_bar(self, bar):
        """(size, type bits) of a 64-bit BAR, as an operating system finds it out."""
        at = 0x10 + 4 * bar
        self.config_write(4, at, 0xffffffff)
        self.config_write(4, at + 4, 0xffffffff)
        value = self.config(4, at) | self.config(4, at + 4) << 32
        self.config_write(4, at, 0)
        self.config_write(4, at + 4, 0)
        return (-(value & ~0xf)) & (1 << 64) - 1, value & 0xf

    def assign(self, base=0xe0000000):
        """Gives BAR 0 and 2 addresses and enables memory and bus mastering."""
        for bar, address in ((abi.SVIO_BAR_REGS, base), (abi.SVIO_BAR_MSIX, base + 0x100000)):
            self.config_write(4, 0x10 + 4 * bar, address & 0xffffffff)
            self.config_write(4, 0x14 + 4 * bar, address >> 32)
            self.bars[bar] = address
        self.command(memory=True, master=True)

    def command(self, memory=True, master=True):
        self.config_write(2, COMMAND, (COMMAND_MEMORY if memory else 0) | (COMMAND_MASTER if master else 0))

    def function_level_reset(self):
        """Clears configuration space as well: the BARs must be assigned again."""
        at = self.capabilities()[CAP_EXPRESS] + 8
        self.config_write(2, at, self.config(2, at) | 0x8000)

    def enable_msix(self, enabled=True, mask_all=False):
        at = self.capabilities()[CAP_MSIX] + 2
        self.config_write(2, at, (0x8000 if enabled else 0) | (0x4000 if mask_all else 0))
