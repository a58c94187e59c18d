# SPDX-License-Identifier: GPL-2.0-or-later
"""What a lab's QEMU has so that the anatomy of a message can be counted in it."""
from svio_tool.paths import COPIES, INSTRUCTIONS
from svio_tool.vm import acceleration

TRIPS_MAX = 50_000          # round trips a second that sockperf has room for


class Counting:
    """Of a lab with `folder`, `accel` and `counting`: nothing counts before it is asked, but for QEMU's
    copies; QEMU's traces are off but for short windows."""

    def trace_path(self):
        return self.folder / "trace"

    def instructions_path(self):
        return self.folder / "instructions"

    def copies_path(self):
        return self.folder / "copies"

    def under_kvm(self):
        return acceleration(self.accel)[1].startswith("kvm")

    def counts_instructions(self):
        """Only where QEMU executes them itself."""
        return self.counting and not self.under_kvm()

    def counting_arguments(self):
        """QEMU's words."""
        words = ["-D", self.trace_path()]
        if self.counts_instructions():
            words += ["-plugin", f"{INSTRUCTIONS},socket={self.instructions_path()},asleep=on"]
        return words

    def counting_before(self):
        """Words before QEMU's."""
        return ["env", f"LD_PRELOAD={COPIES}", f"SVIO_COPIES={self.copies_path()}"] if self.counting else []

    def trips_limit(self):
        """A word for sockperf: room for many more messages than an emulated guest exchanges. Without a limit
        it takes twenty megabytes, and each start of it there twice the time."""
        return "" if self.under_kvm() else f"--mps={TRIPS_MAX}"
