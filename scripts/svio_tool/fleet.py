# SPDX-License-Identifier: GPL-2.0-or-later
"""Several small test VMs on one svio-board: no bridge, no tap, no privilege.

    fleet = Fleet.start(4, cores=2)
    fleet.await_pings()
    fleet.vms[0].run("ping -c 1 10.9.0.2")
    fleet.leave_running()       # Fleet.attach() finds it again; or fleet.stop()
"""
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from svio_tool import host, ui
from svio_tool.adopted import Adopted
from svio_tool.board_process import BoardProcess
from svio_tool.paths import RUN, shown
from svio_tool.ui import SvioError
from svio_tool.vm import Vm

MOST = 16
MEMORY = 256                # MiB; the guest's image fills its memory otherwise
NAME = "vms"
BITS = 24
BOOT = 900                  # seconds; only ends what hangs: sixteen guests boot at once on two CPUs
GRACE = 20


def address(number):
    return f"10.9.0.{number}"


def mac(number):
    return f"52:54:00:76:6d:{number:02x}"


def vif_device(name, board, address_of_card, queues=1):
    """QEMU's words for a VIF of the board at this socket."""
    place = str(board).replace(",", ",,")       # QEMU's way to write a comma in a value
    return f"svio-vif,id={name},board={place},mac={address_of_card},queues={queues}"


class FleetVm(Vm):
    """VM number N of a fleet; its card is a VIF of the board."""

    CONSOLE_SOCKET = True

    def __init__(self, number, board, fleet=NAME, memory=MEMORY, queues=1, nics=(), append="", **options):
        self.number, self.pid_at_start = number, None
        super().__init__(f"{fleet}-{number}", plugin=True, memory=memory,
                         nics=[vif_device("svio0", board, mac(number), queues), *nics],
                         append=f"svio.console {append}".strip(), boot_timeout=BOOT, shared_memory=True,
                         **options)

    @property
    def address(self):
        return address(self.number)

    def meet(self, timeout):
        super().meet(timeout)
        # Other NICs beside it may be eth0.
        self.run(f"hostname vm{self.number}; dev=$(grep -l {mac(self.number)} /sys/class/net/*/address | "
                 f"cut -d/ -f5); ip address replace {self.address}/{BITS} dev $dev && ip link set $dev up")

    def lives(self):
        return self.process is not None and self.process.poll() is None


class Fleet:
    """The board and its VMs."""

    def __init__(self, name, board, options, more=None):
        self.name, self.board, self.vms, self.options = name, board, [], options
        self.more = more or (lambda number, board: {})

    # --- start ------------------------------------------------------------------------------------

    @classmethod
    def start(cls, count, cores=2, port="none", detached=True, name=NAME, more=None, **options):
        """Board and VMs, booted. Whatever goes wrong, nothing of it stays. `options` are of each VM,
        `more(number, board's socket)` gives those of one."""
        if not 1 <= count <= MOST:
            raise SvioError(f"The number of VMs is from 1 to {MOST}, not {count}.")
        if cls._runs(name):
            raise SvioError("VMs of a board run already: see scripts/svio vms list, or end them with "
                            "scripts/svio vms stop.")
        fleet = cls(name, None, options, more)
        try:
            # A socket's path has at most 107 bytes, and a checkout may lie deep.
            folder = Path(tempfile.mkdtemp(prefix="svio-board-"))
            try:
                with ui.Progress("svio-board starts"):
                    fleet.board = BoardProcess(folder, "--cores", str(cores), "--port", port,
                                               detached=detached)
            except BaseException:
                shutil.rmtree(folder)
                raise
            fleet._boot(count, detached)
        except BaseException:
            fleet.stop()
            raise
        return fleet

    @staticmethod
    def _runs(name):
        try:
            pid = json.loads((RUN / name / "fleet.json").read_text())["board"]["pid"]
        except (OSError, ValueError, KeyError):
            return False
        return adopted(pid, "svio-board") is not None

    def _boot(self, count, detached):
        """As many at a time as there is CPU for."""
        window = max(2, host.cores())
        with ui.Progress(f"{count} VMs boot") as progress:
            for number in range(1, count + 1):
                self.launch(number, detached)
                if len(self.vms) >= window:
                    self.vms[len(self.vms) - window].meet(BOOT)
                progress.title = f"{count} VMs boot: {number}"
            for vm in self.vms:
                if not vm.agent:
                    vm.meet(BOOT)
            progress.title = f"{count} VMs boot"

    def launch(self, number, detached=False):
        """Start a VM; meet() waits for it."""
        vm = FleetVm(number, self.board.socket, self.name, detached=detached, wait=False, **self.options,
                     **self.more(number, self.board.socket))
        vm.start()
        self.vms.append(vm)
        return vm

    # --- a fleet that goes on without us ------------------------------------------------------------

    def leave_running(self):
        state = {"board": {"pid": self.board.process.pid, "folder": str(self.board.folder)},
                 "options": self.options,
                 "vms": [{"number": vm.number, "pid": vm.pid, "sockets": str(vm.sockets)} for vm in self.vms]}
        (RUN / self.name).mkdir(parents=True, exist_ok=True)
        ui.replace_file(RUN / self.name / "fleet.json", json.dumps(state, indent=1) + "\n")
        self.release()

    def release(self):
        for vm in self.vms:
            vm.release()

    @classmethod
    def attach(cls, speak_to=None, name=NAME):
        """The fleet that runs; `speak_to`: the number of the one VM that is to be asked something. What has
        ended meanwhile is there, and says so."""
        try:
            state = json.loads((RUN / name / "fleet.json").read_text())
        except (OSError, ValueError):
            raise SvioError("No VMs of a board are running: start some with scripts/svio vms N.") from None
        board = BoardProcess.attach(state["board"]["folder"], adopted(state["board"]["pid"], "svio-board"))
        fleet = cls(name, board, state["options"])
        for one in state["vms"]:
            vm = FleetVm(one["number"], board.socket, name, **state["options"])
            vm.process, vm.sockets = adopted(one["pid"], vm.name), Path(one["sockets"])
            vm.pid_at_start = one["pid"]
            fleet.vms.append(vm)
            if vm.lives() and vm.number == speak_to:
                vm.adopt(vm.process, vm.sockets)
        return fleet

    def vm(self, number):
        for vm in self.vms:
            if vm.number == number:
                if not vm.lives():
                    raise SvioError(f"VM {number} has ended; what it said is in {shown(vm.log_path)}.")
                return vm
        raise SvioError(f"There is no VM {number}; there are 1 to {len(self.vms)}.")

    # --- what it is for -----------------------------------------------------------------------------

    def await_pings(self, patience=120):
        """Until each VM has had an answer of each other one."""
        for vm in self.vms:
            others = " ".join(other.address for other in self.vms if other is not vm)
            if not others:
                return
            deadline = time.monotonic() + patience
            while True:
                done = vm.run(f"for to in {others}; do ping -c 1 -W 5 -q $to >/dev/null || echo $to; done",
                              timeout=patience + 60)
                if not done.out.strip():
                    break
                if time.monotonic() > deadline:
                    raise SvioError(f"VM {vm.number} has no answer from {' '.join(done.out.split())}",
                                    self.board.said())

    def rows(self):
        """What is known of each VM: numbers of its VIF's counters are None when the board has ended."""
        vifs = {}
        if self.board.process and self.board.process.poll() is None:
            vifs = {vif["mac"]: vif for vif in self.board.vifs().values()}
        found = []
        for vm in self.vms:
            vif = vifs.get(mac(vm.number))
            counters = self._counters(vif["slot"]) if vif else {}
            found.append({"vm": vm.number, "pid": vm.pid_at_start if vm.pid is None else vm.pid,
                          "state": "runs" if vm.lives() else "ended", "address": vm.address,
                          "mac": mac(vm.number),
                          "slot": vif["slot"] if vif else None, "vif_id": vif["id"] if vif else None,
                          "sent": counters.get("tx_frames"), "received": counters.get("rx_frames"),
                          "console": str(vm.log_path)})
        return found

    def _counters(self, slot):
        try:
            return self.board.counters(slot)
        except SvioError:
            if slot in self.board.vifs():
                raise
            return {}       # its VM has ended since the VIFs were listed

    # --- end --------------------------------------------------------------------------------------

    def stop(self):
        """All of it, in order; what has ended already is no reason not to end the rest."""
        failures = []
        for vm in self.vms:
            try:
                vm.stop(GRACE)
            except (SvioError, OSError, subprocess.TimeoutExpired) as error:
                failures.append(f"VM {vm.number}: {error}")
        board = self.board
        if board and board.process and board.process.poll() is None:
            try:
                board.end()
            except subprocess.TimeoutExpired:
                board.kill()
                failures.append("svio-board did not end by itself")
        if board:
            for path in (board.socket, board.mgmt, board.log):
                path.unlink(missing_ok=True)
            board.folder.rmdir()
        (RUN / self.name / "fleet.json").unlink(missing_ok=True)
        if failures:
            raise SvioError("Not all ended as they should", "\n".join(failures))


def adopted(pid, marker):
    """The process, or None: it has ended."""
    try:
        return Adopted(pid, marker)
    except (OSError, ValueError):
        return None
