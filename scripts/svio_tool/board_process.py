# SPDX-License-Identifier: GPL-2.0-or-later
"""svio-board: the board as a process that several VMs attach to, for as long as the caller wants it.

    board = BoardProcess(folder, "--cores", "2")
    ... -device svio-vif,board={board.socket} ...
    board.end()
"""
import json
import signal
import subprocess
import time
from pathlib import Path

from svio_tool import ui
from svio_tool.paths import BUILD
from svio_tool.ui import SvioError
from svio_tool.vm import end_with_us

PROGRAM = Path("qemu-device/process/svio-board")
SVIOCTL = BUILD / "hv-interface" / "svioctl"
PATIENCE = 60       # only ends what hangs


class BoardProcess:
    """Its sockets and its log lie in the folder; no wire unless the arguments name one. Raises SvioError when
    it does not start. Detached, it may go on when we end, and attach() finds it again.
    """

    def __init__(self, folder, *arguments, build=BUILD, env=None, detached=False):
        self._places(folder)
        port = () if "--port" in arguments else ("--port", "none")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [build / PROGRAM, "--socket", self.socket, "--mgmt", self.mgmt, *port, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=detached,
                preexec_fn=None if detached else end_with_us())
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            raise

    @classmethod
    def attach(cls, folder, process):
        """The one that runs there, started by somebody else; process: as subprocess.Popen."""
        board = cls.__new__(cls)
        board._places(folder)
        board.process = process
        return board

    def _places(self, folder):
        self.folder = Path(folder)
        self.socket, self.mgmt, self.log = (self.folder / name for name in ("board", "mgmt", "log"))

    def _await_ready(self):
        deadline = time.monotonic() + PATIENCE
        while "ready:" not in self.said():
            self.alive()
            if time.monotonic() > deadline:
                raise SvioError(f"svio-board is not ready after {PATIENCE} s", self.said())
            time.sleep(0.002)

    def alive(self):
        """Raises SvioError when it is gone."""
        if self.process.poll() is not None:
            raise SvioError(f"svio-board ended with status {self.process.returncode}", self.said())

    def said(self):
        return self.log.read_text(errors="replace")

    def kill(self):
        """As a crash ends it."""
        self.process.kill()
        self.process.wait()

    def end(self):
        """As systemd ends it; its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def ctl(self, *words):
        """What svioctl answers."""
        text = ui.output([SVIOCTL, "--socket", self.mgmt, "--json", *map(str, words)],
                         f"svioctl {' '.join(map(str, words))} failed", timeout=PATIENCE)
        return json.loads(text)

    def vifs(self):
        """{slot: VIF} of the machines."""
        return {vif["slot"]: vif for vif in self.ctl("vif", "list")["vifs"] if vif.get("slot")}

    def counters(self, slot):
        return self.ctl("vif", "stats", slot)["counters"]

    def queue(self, slot, direction, pair=0):
        """Counters of a queue."""
        return self.ctl("vif", "stats", slot)["queues"][pair][direction]
