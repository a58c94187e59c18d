# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that an earlier run of this program has started."""
import os
import select
import signal
import subprocess
from pathlib import Path


class Adopted:
    """A process that another one of us has started, with what subprocess.Popen has of our needs."""

    def __init__(self, pid, marker):
        self.pid, self.returncode = pid, None
        self._handle = os.pidfd_open(pid)
        # The number may be somebody else's by now.
        if marker not in Path(f"/proc/{pid}/cmdline").read_text():
            os.close(self._handle)
            raise ValueError(f"process {pid} is not {marker}")

    def poll(self):
        if self.returncode is None and select.select([self._handle], [], [], 0)[0]:
            self.returncode = 0         # which one only its parent gets to know
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None and not select.select([self._handle], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("qemu", timeout)
        return self.poll()

    def send_signal(self, number):
        try:
            signal.pidfd_send_signal(self._handle, number)
        except ProcessLookupError:
            pass

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)
