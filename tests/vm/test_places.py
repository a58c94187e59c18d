# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU that changes places with a core (svio_places.c): threads are moved and are as free as before in the
end, and QEMU's sandbox is no obstacle.
"""
import os
import tempfile
import unittest
from pathlib import Path

from svio_tool.latency import Row, WirePeer
from svio_tool.vm import Vm


class TestPlaces(unittest.TestCase):
    def talk(self, name, *extra):
        """The peer may only run where the vCPU is: what has a vCPU go elsewhere."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        row = Row("svio-nic", "native", "places", 1, Path(folder.name), True)
        with WirePeer([row]) as peer, Vm(name, nics=[row.device()], memory=512, extra=extra) as vm:
            threads = {int(task.name): (task / "comm").read_text()
                       for task in Path(f"/proc/{vm.pid}/task").iterdir()}
            vcpu = next(thread for thread, comm in threads.items() if comm.startswith("CPU "))
            vm.run(f"ip address add {row.guest_ip}/24 dev eth0 && ip link set eth0 up")
            for _ in range(3):
                cpu = Path(f"/proc/{vcpu}/stat").read_text().rpartition(")")[2].split()[36]
                os.sched_setaffinity(peer.process.pid, {int(cpu)})
                said = vm.run(f"ping -f -q -c 2000 -W 5 {row.peer_ip}", timeout=300).out
                self.assertIn("2000 packets transmitted, 2000 received", said)
            for thread in threads:
                self.assertEqual(os.sched_getaffinity(thread), os.sched_getaffinity(0))
            self.assertEqual(vm.kernel_problems(), [])

    def test_threads_stay_free(self):
        self.talk("places")

    def test_sandbox(self):
        """As libvirt starts QEMU."""
        self.talk("places-sandbox", "-sandbox",
                  "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")


if __name__ == "__main__":
    unittest.main()
