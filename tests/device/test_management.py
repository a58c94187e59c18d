# SPDX-License-Identifier: GPL-2.0-or-later
"""Management of a card in QEMU: the socket, QOM, and the PF's admin queue (SPEC.md 8)."""
import os
import stat
import tempfile
import unittest
from pathlib import Path

import abi
from driver import Driver
from machine import Machine, run_to_end
from sriov import SriovCase
from svio_tool.management import ManagementSocket

PORT = ("-device", "pcie-root-port,id=rp0,chassis=1")
RING, SIZE, VECTOR = 12 << 20, 16, 5
DATA = RING + 0x4000


class AdminQueue:
    """The PF driver's half."""

    def __init__(self, driver):
        self.driver, self.next = driver, 0
        driver.qtest.fill(RING, SIZE * abi.svio_command.size, 0)
        driver.vectors()
        for register, value in ((abi.SVIO_REG_ADMIN_BASE_LO, RING), (abi.SVIO_REG_ADMIN_BASE_HI, 0),
                                (abi.SVIO_REG_ADMIN_SIZE, SIZE), (abi.SVIO_REG_ADMIN_VECTOR, VECTOR),
                                (abi.SVIO_REG_ADMIN_CONTROL, 1)):
            driver.write(register, value)

    def run(self, opcode, data=b"", room=0, slot=abi.SVIO_SLOT_SELF, payload=b""):
        """(status, data, payload) of a command."""
        position, self.next = self.next, self.next + 1
        at = RING + position % SIZE * abi.svio_command.size
        lap = position // SIZE % 2 == 0
        self.driver.qtest.fill(DATA, max(room, 8), 0xee)
        if data:
            self.driver.qtest.write(DATA, data)
        # Not posted before the flags say so: the board may look here right after the command before this
        # one. In every other lap "not posted" is what the last lap left.
        command = abi.svio_command.pack(opcode=opcode, tag=position, slot=slot, data_addr=DATA,
                                        data_len=len(data) or room, u=payload.ljust(40, b"\0"), flags=0 if lap
                                        else abi.SVIO_COMMAND_POSTED | abi.SVIO_COMMAND_DONE)
        self.driver.qtest.write(at, command)
        self.driver.qtest.store(2, at + 2, abi.SVIO_COMMAND_POSTED if lap else abi.SVIO_COMMAND_DONE)
        self.driver.write(abi.SVIO_REG_ADMIN_BELL, 1)
        done = abi.SVIO_COMMAND_POSTED | abi.SVIO_COMMAND_DONE if lap else 0
        self.driver.wait(lambda: self.driver.qtest.load(2, at + 2) == done, f"the answer to {opcode:#x}")
        self.driver.wait_signal(VECTOR)
        answer = abi.svio_command.unpack(self.driver.qtest.read(at, abi.svio_command.size))
        assert answer["tag"] == position
        return answer["status"], self.driver.qtest.read(DATA, answer["data_len"] or 1), answer["u"]


class Management(SriovCase):
    def boot_managed(self, vifs=4, options=""):
        self.socket = str(Path(self.folder) / "m")
        self.boot_sriov(vifs, f"mgmt={self.socket}" + ("," + options if options else ""))
        self.client = ManagementSocket(self.socket)
        self.addCleanup(self.client.close)

    def known(self):
        return self.machine.qmp.command("qom-get", {"path": "/machine/peripheral/svio0",
                                                    "property": "management"})

    def test_vifs_by_the_socket_and_by_qom(self):
        self.boot_managed(options="auto-vif=off")
        self.assertEqual(stat.S_IMODE(os.stat(self.socket).st_mode), 0o600)
        vif = self.client.ask("vif-create", slot=2, set={"mac": "02:00:00:00:00:02", "name": "guest"})["vif"]
        self.assertEqual((vif["id"], vif["slot"], vif["mac"]), (2, 2, "02:00:00:00:00:02"))
        self.pf.enable(4)
        driver = self.virtual(2, up=False)
        self.assertEqual(driver.mac, bytes.fromhex("020000000002"))
        self.assertEqual(driver.read(abi.SVIO_REG_VIF_ID_LO), 2)
        empty = self.virtual(3, up=False)
        self.assertEqual(empty.read(abi.SVIO_REG_VIF_KIND), abi.SVIO_KIND_NONE)
        known = self.known()
        self.assertEqual(known["vifs"], self.client.ask("vif-list")["vifs"])
        self.assertEqual([vif["slot"] for vif in known["vifs"]], [0, 2])
        self.assertEqual(known["info"]["slots"], 4)
        self.assertEqual(known["info"]["auto_vif"], False)
        # One that management made stays over NumVFs, and works again.
        self.pf.disable()
        self.pf.enable(4)
        self.assertEqual(self.client.ask("vif-show", name="guest")["vif"]["id"], 2)
        driver = self.virtual(2)
        self.check_vf_out(driver)
        self.assertEqual(self.client.ask("vif-stats", slot=2)["counters"]["tx_frames"], 1)
        # A stopped machine is managed all the same.
        self.machine.stop()
        self.client.ask("vif-destroy", slot=2)
        self.machine.cont()
        self.assertEqual(driver.read(abi.SVIO_REG_VIF_KIND), abi.SVIO_KIND_NONE)
        # QEMU ends without a word to its devices, so the socket's file stays; the next one takes its place.
        self.machine.quit()
        self.boot_managed()
        self.assertEqual(len(self.client.ask("vif-list")["vifs"]), 1)

    def test_admin_queue(self):
        self.boot_managed()
        self.pf.enable(4)
        pf = Driver(self.pf)
        queue = AdminQueue(pf)
        status, data, _ = queue.run(abi.SVIO_OP_DESCRIBE_OPTIONS, room=4096)
        self.assertEqual(status, abi.SVIO_ST_OK)
        self.assertEqual(data[:2], abi.SVIO_OPTION_MANAGEMENT.to_bytes(2, "little"))
        self.assertEqual(queue.run(abi.SVIO_OP_VIF_LIST, room=4096)[0], abi.SVIO_ST_UNSUPPORTED)
        option = abi.svio_option.pack(id=abi.SVIO_OPTION_MANAGEMENT)
        self.assertEqual(queue.run(abi.SVIO_OP_ACCEPT_OPTIONS, data=option)[0], abi.SVIO_ST_OK)
        status, data, _ = queue.run(abi.SVIO_OP_VIF_LIST, room=4096)
        self.assertEqual((status, len(data)), (abi.SVIO_ST_OK, 5 * abi.svio_vif_info.size))
        config = abi.svio_vif_config.pack(mask=abi.SVIO_CFG_VLAN | abi.SVIO_CFG_TRUST, vlan=7 | 2 << 13,
                                          trust=1)
        for _ in range(SIZE + 2):  # once around the ring
            self.assertEqual(queue.run(abi.SVIO_OP_VIF_RECONFIGURE, data=config, slot=3)[0], abi.SVIO_ST_OK)
        vif = self.client.ask("vif-show", slot=3)["vif"]
        self.assertEqual((vif["vlan"], vif["priority"], vif["trust"]), (7, 2, True))
        self.client.ask("vif-set", slot=3, set={"link": "down"})
        status, data, _ = queue.run(abi.SVIO_OP_VIF_QUERY, room=128, slot=3)
        shown = abi.svio_vif_config.unpack(data)
        self.assertEqual((status, shown["link"], shown["slot"]), (abi.SVIO_ST_OK, abi.SVIO_LINK_DOWN, 3))
        self.assertEqual(queue.run(abi.SVIO_OP_VIF_DESTROY, slot=3)[0], abi.SVIO_ST_OK)
        self.assertEqual([vif["slot"] for vif in self.known()["vifs"]], [0, 1, 2, 4])
        # A reset of the PF ends it, and the machine goes on.
        pf.reset()
        self.assertEqual(pf.read(abi.SVIO_REG_ADMIN_STATE), abi.SVIO_QUEUE_DISABLED)


class Files(unittest.TestCase):
    def test_nothing_stays_behind(self):
        """QEMU takes no device apart when it ends; the sockets' paths go nevertheless, but not another's."""
        with tempfile.TemporaryDirectory() as folder:
            paths = [f"{folder}/{name}" for name in ("m0", "m1", "w0", "w1")]
            cards = [word for n in range(2) for word in
                     ("-device", f"svio-nic,port=dgram:{folder}/w{n},,{folder}/peer,mgmt={folder}/m{n}")]
            for end in (Machine.quit, lambda machine: machine.process.terminate() or
                        machine.process.wait(60)):
                machine = Machine(*cards)
                self.addCleanup(machine.kill)
                self.assertEqual([path for path in paths if not os.path.exists(path)], [])
                os.unlink(paths[0])
                Path(paths[0]).touch()
                end(machine)
                self.assertEqual(os.listdir(folder), ["m0"])
                os.unlink(paths[0])


class Refusals(unittest.TestCase):
    def test_where_no_socket_can_be(self):
        for path, why in (("/nonexistent/m", "No such file"), ("/dev/null", "there is something else"),
                          ("/tmp/" + "x" * 120, "1 to 107 bytes")):
            status, said = run_to_end(*PORT, "-netdev", "hubport,hubid=0,id=n0", "-device",
                                      f"svio-nic,bus=rp0,netdev=n0,mgmt={path}")
            self.assertEqual(status, 1, said)
            self.assertIn("svio-nic: cannot listen on the management socket", said)
            self.assertIn(why, said)
            self.assertEqual(said.strip().count("\n"), 0, said)
