# SPDX-License-Identifier: GPL-2.0-or-later
"""svio-vif: functions of several QEMUs whose VIFs live on one svio-board (SPEC.md chapter 15)."""
import fcntl
import mmap
import os
import socket
import threading
import unittest

import abi
from case import DeviceCase
from driver import Driver
from machine import RAM, Function, run_to_end, wait_for
from svio_tool.board_process import PATIENCE, BoardProcess
from svio_tool.qmp import QmpError
from wires import frame

SHARED = ("-object", f"memory-backend-memfd,id=ram,size={RAM >> 20}M,share=on", "-machine",
          "memory-backend=ram")
MACS = [bytes.fromhex(f"52540051010{n}") for n in range(1, 5)]
IDENTITY = (abi.SVIO_REG_VIF_ID_LO, abi.SVIO_REG_QUEUE_PAIRS, abi.SVIO_REG_MAC_LO, abi.SVIO_REG_MAC_HI)
PAGE = mmap.PAGESIZE
PCIHP, SELECT, EJECT = 0x0cc0, 0x10, 0x08  # ACPI PCI hot-plug registers of q35


class VifCase(DeviceCase):
    def setUp(self):
        super().setUp()
        self.start_board()

    def start_board(self, *arguments):
        self.board = BoardProcess(self.folder, *arguments)
        self.addCleanup(self.board.kill)

    def device(self, number, options=""):
        mac = ":".join(f"{byte:02x}" for byte in MACS[number])
        return f"svio-vif,id=svio0,board={self.board.socket},mac={mac}{options}"

    def attach(self, number, options="", extra=()):
        """A machine with a function on the board, and its driver."""
        machine = self.start(*SHARED, *extra, "-device", self.device(number, options))
        function = machine.function(abi.SVIO_PCI_DEVICE_VF)
        function.assign()
        return Driver(function)

    def running(self, number, options=""):
        driver = self.attach(number, options)
        driver.bring_up()
        driver.number = number
        return driver

    def check_way(self, source, target, sizes=(60, 1514, 9018)):
        for seed, size in enumerate(sizes):
            data = frame(size, seed, to=MACS[target.number], source=MACS[source.number])
            source.transmit(data, pieces=1 + seed)
            self.assert_frame(target.expect(), data)


class Messages(VifCase):
    def test_between_machines(self):
        one, two = self.running(0), self.running(1)
        self.check_way(one, two)
        self.check_way(two, one)
        self.assertEqual(sorted(self.board.vifs()), [1, 2])
        for slot in (1, 2):
            counters = self.board.counters(slot)
            self.assertEqual((counters["tx_frames"], counters["rx_frames"]), (3, 3))

    def signalled_pair(self):
        """Two drivers; the receive queue of the second raises vector 4."""
        one, two = self.running(0), self.attach(1)
        two.number = 1
        two.reset()
        self.assertTrue(two.negotiate())
        two.queues()
        two.receive.vector = 4
        two.vectors()
        two.enable()
        two.run()
        return one, two

    def send_armed(self, one, two, seed):
        two.receive.arm(two.receive.next)
        data = frame(100, seed, to=MACS[1], source=MACS[0])
        one.transmit(data)
        self.assert_frame(two.expect(), data)

    def test_interrupts(self):
        one, two = self.signalled_pair()
        for seed in range(5):
            self.send_armed(one, two, seed)
            two.wait_signal(4)

    def test_masked_vectors(self):
        """What is raised meanwhile is pending, and comes where the guest has the vector then."""
        one, two = self.signalled_pair()
        other = two.allocate(64)
        for seed in range(4):
            two.mask(4, True)
            self.send_armed(one, two, seed)
            two.wait(lambda: two.pending(4), "the pending bit")
            self.assertFalse(two.signalled(4))
            if seed == 3:
                two.point_vector(4, other, 0x77, masked=True)
            two.mask(4, False)
            if seed < 3:
                two.wait_signal(4)
        two.wait(lambda: two.qtest.load(4, other) == 0x77, "the moved signal")
        self.assertFalse(two.signalled(4))

    def test_msix_off_and_on(self):
        """Again and again: what a vector was bound to is given back each time."""
        one, two = self.signalled_pair()
        for seed in range(12):
            two.function.enable_msix(False)
            self.send_armed(one, two, seed)
            two.function.enable_msix()
            two.signalled(4)
            self.send_armed(one, two, seed + 20)
            two.wait_signal(4)

    def test_wakes_a_sleeping_core(self):
        """By the doorbell, which the board's core sleeps on itself."""
        self.board.kill()
        self.start_board("--poll-us", "0")
        one, two = self.running(0), self.running(1)
        for seed in range(20):
            at = one.send.posted
            one.wait(lambda at=at: abi.crossed(one.send.event_word("bell_at"), at, at + 1),
                     "the core has armed its doorbell")
            before = self.board.queue(1, "send")["bells"]
            self.check_way(one, two, sizes=(60 + seed,))
            self.assertEqual(self.board.queue(1, "send")["bells"], before + 1)

    def test_registers(self):
        driver = self.attach(0, ",queues=2,queue-size=64")
        self.assertEqual(driver.read(abi.SVIO_REG_MAGIC), abi.SVIO_MAGIC)
        self.assertEqual(driver.read(abi.SVIO_REG_FUNCTION), 1)
        self.assertEqual(driver.read(abi.SVIO_REG_QUEUE_PAIRS), 2)
        self.assertEqual(driver.read(abi.SVIO_REG_QUEUE_SIZE_HINT), 64)
        mac = driver.read(abi.SVIO_REG_MAC_LO) | driver.read(abi.SVIO_REG_MAC_HI) << 32
        self.assertEqual(mac.to_bytes(6, "little"), MACS[0])
        self.assertEqual(driver.qtest.load(8, driver.regs), abi.SVIO_MAGIC | 0x10000 << 32)
        before = self.board.counters(1)["bad_register"]
        for size, offset in ((1, 0), (2, 0), (4, 2), (8, 4), (4, 0x30000 >> 4)):
            self.assertEqual(driver.qtest.load(size, driver.regs + offset), 0)
        self.assertEqual(self.board.counters(1)["bad_register"], before + 5)
        answer = driver.command(abi.SVIO_OP_IDENTIFY, data_addr=driver.allocate(4096), data_len=4096)
        self.assertEqual(answer["status"], abi.SVIO_ST_OK)

    def test_named(self):
        """What management has said before the machine came holds."""
        self.board.ctl("vif", "create", "--name", "web", "--vlan", "7", "--mac", "02:00:00:00:00:77")
        self.attach(0, ",vif=web")
        vif, = self.board.vifs().values()
        self.assertEqual((vif["name"], vif["vlan"], vif["mac"]), ("web", 7, "02:00:00:00:00:77"))


class Life(VifCase):
    def test_bus_master(self):
        one, two = self.running(0), self.running(1)
        two.function.command(master=False)
        before = two.snapshot()
        one.transmit(frame(64, to=MACS[1], source=MACS[0]))
        self.assertEqual(two.snapshot(), before)
        two.function.command()
        self.check_way(one, two)

    def test_stop_and_continue(self):
        one, two = self.running(0), self.running(1)
        two.machine.stop()
        one.transmit(frame(64, to=MACS[1], source=MACS[0]))
        two.machine.cont()
        self.check_way(two, one)

    def test_resets(self):
        one, two = self.running(0), self.running(1)
        two.machine.qmp.command("system_reset")
        two.function.assign()
        two.wait(lambda: two.status & abi.SVIO_STATUS_READY, "READY")
        self.assertEqual(two.status & ~abi.SVIO_STATUS_LINK_UP, abi.SVIO_STATUS_READY)
        two.bring_up()
        self.check_way(one, two)
        self.assertEqual(sorted(self.board.vifs()), [1, 2])

    def test_orderly_end(self):
        one, two = self.running(0), self.running(1)
        self.check_way(one, two)
        two.machine.quit()
        wait_for(lambda: sorted(self.board.vifs()) == [1], "the slot to be given back")
        self.check_way(self.running(1), one)

    def test_unplug_and_plug(self):
        """As an ACPI guest does when it is asked: it ejects the slot that says so."""
        one = self.running(0)
        port = "pcie-root-port,id=rp0,bus=pcie.0,addr=0x4,chassis=1,slot=1"
        machine = self.start(*SHARED, "-device", port, "-device", self.device(1, ",bus=rp0"))
        machine.open_bridge(Function(machine, 0, 4), 1)
        for _ in range(3):
            function = machine.function(abi.SVIO_PCI_DEVICE_VF, bus=1)
            function.assign()
            two = Driver(function).bring_up()
            two.number = 1
            self.check_way(one, two)
            machine.qmp.command("device_del", {"id": "svio0"})
            for bus in range(4):
                machine.qtest.out(4, PCIHP + SELECT, bus)
                down = machine.qtest.in_(4, PCIHP + 4)
                if down:
                    machine.qtest.out(4, PCIHP + EJECT, down)
            while machine.qmp.wait_event("DEVICE_DELETED")["data"].get("device") != "svio0":
                pass
            wait_for(lambda: sorted(self.board.vifs()) == [1], "the slot to be given back")
            before = two.snapshot()
            one.transmit(frame(64, to=MACS[1], source=MACS[0]))
            self.assertEqual(two.snapshot(), before)
            machine.qmp.command("device_add", {
                "driver": "svio-vif", "id": "svio0", "bus": "rp0", "board": str(self.board.socket),
                "mac": ":".join(f"{byte:02x}" for byte in MACS[1])})

    def test_memory_hotplug(self):
        """Memory that comes is the board's as well; shared memory alone is."""
        one = self.running(0)
        machine = self.start(*SHARED[:-1], "memory-backend=ram", "-m", f"{RAM >> 20}M,slots=2,maxmem=1G",
                             "-device", self.device(1))
        function = machine.function(abi.SVIO_PCI_DEVICE_VF)
        function.assign()
        two = Driver(function).bring_up()
        two.number = 1
        machine.qmp.command("object-add", {"qom-type": "memory-backend-memfd", "id": "more",
                                           "size": 128 << 20, "share": True})
        machine.qmp.command("device_add", {"driver": "pc-dimm", "id": "dimm", "memdev": "more"})
        where = machine.qmp.command("query-memory-devices")[0]["data"]["addr"]
        data = frame(500, 9, to=MACS[0], source=MACS[1])
        machine.qtest.write(where, data)
        two.send.post([(where, len(data))])
        two.send.wait_done()
        self.assert_frame(one.expect(), data)
        self.check_way(one, two)

    def test_killed_machine(self):
        one, two, three = (self.running(n) for n in range(3))
        two.machine.kill()
        wait_for(lambda: sorted(self.board.vifs()) == [1, 3], "the slot to be given back")
        self.check_way(one, three)
        self.check_way(self.running(1), one)

    def test_killed_board(self):
        """The function stays, its link is down; the next board gets it back by itself."""
        one, two = self.running(0), self.running(1)
        for driver in (one, two):
            driver.vectors()
            driver.write(abi.SVIO_REG_EVENT_VECTOR, 0)
        identity = [one.read(offset) for offset in IDENTITY]
        former = max(vif["id"] for vif in self.board.vifs().values())
        self.board.kill()
        for driver in (one, two):
            driver.wait_signal(0)
            self.assertEqual(driver.read(abi.SVIO_REG_MAGIC), abi.SVIO_MAGIC)
            self.assertEqual(driver.status, abi.SVIO_STATUS_READY)
            self.assertEqual(driver.read(abi.SVIO_REG_EVENT), abi.SVIO_EVENT_LINK)
            driver.write(abi.SVIO_BELL(0, abi.SVIO_SEND), 1)
        self.assertEqual([one.read(offset) for offset in IDENTITY], identity)
        self.start_board()
        for driver in (one, two):
            driver.wait_signal(0)
            self.assertTrue(driver.read(abi.SVIO_REG_EVENT) & abi.SVIO_EVENT_CONFIG)
            self.assertTrue(driver.status & abi.SVIO_STATUS_LINK_UP)
            # Told apart from the VIF that it was, whichever machine came first.
            number = driver.read(abi.SVIO_REG_VIF_ID_LO) | driver.read(abi.SVIO_REG_VIF_ID_HI) << 32
            self.assertGreater(number, former)
            driver.bring_up()
        self.check_way(one, two)
        self.check_way(two, one)

    def test_board_that_turns_us_away(self):
        """Whoever listens there and takes nobody is tried again and again, and spoken of once."""
        one = self.running(0)
        self.board.kill()
        os.unlink(self.board.socket)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(self.board.socket))
            listener.listen()
            listener.settimeout(PATIENCE)
            for _ in range(4):
                listener.accept()[0].close()
        self.assertEqual(one.read(abi.SVIO_REG_MAGIC), abi.SVIO_MAGIC)
        self.assertEqual(one.machine.said().count("is away"), 1)
        os.unlink(self.board.socket)
        self.start_board()
        one.wait(lambda: one.status & abi.SVIO_STATUS_LINK_UP, "the link")
        one.bring_up()
        self.check_way(one, self.running(1))

    def test_migration_is_blocked(self):
        driver = self.attach(0)
        with self.assertRaisesRegex(QmpError, "does not move along"):
            driver.machine.qmp.command("migrate", {"uri": f"file:{self.folder}/state"})


class FakeBoard:
    """As much of a board as QEMU asks for when it attaches; `pages` is what PAGES brings."""

    def __init__(self, path, features, pages):
        self.pages, self.features = pages, features
        self.asked = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen()
        self.listener.settimeout(PATIENCE)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        peer = self.listener.accept()[0]
        with peer:
            while True:
                try:
                    packet, fds, _, _ = socket.recv_fds(peer, 65536, 64)
                except ConnectionResetError:
                    return
                for fd in fds:
                    os.close(fd)
                if not packet:
                    return
                size = abi.svio_attach_header.size
                asked = abi.svio_attach_header.unpack(packet[:size])
                self.asked.append(asked["request"])
                payload, send = self.answer(asked["request"], packet[size:])
                socket.send_fds(peer, [abi.svio_attach_header.pack(
                    request=asked["request"] | abi.SVIO_ATTACH_ANSWER, tag=asked["tag"],
                    status=abi.SVIO_ST_OK, length=len(payload)) + payload], send)

    def answer(self, request, payload):
        if request == abi.SVIO_ATTACH_HELLO:
            return abi.svio_attach_hello.pack(version=1, vectors=abi.SVIO_VECTORS,
                                              features=self.features), []
        if request == abi.SVIO_ATTACH_ATTACH:
            return abi.svio_attach_place.pack(slot=1, id=1), []
        if request == abi.SVIO_ATTACH_READ:
            return payload, []
        return b"", self.pages if request == abi.SVIO_ATTACH_PAGES else []

    def end(self):
        self.thread.join(PATIENCE)
        self.listener.close()


class HaltPolling(VifCase):
    """A board's word on whether its cores poll costs time at most, whatever it is."""

    def file(self, content, seals=fcntl.F_SEAL_SHRINK):
        fd = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.addCleanup(os.close, fd)
        os.write(fd, content)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        return fd

    def fake(self, features, pages):
        path = os.path.join(self.folder, f"fake{len(os.listdir(self.folder))}")
        board = FakeBoard(path, features, pages)
        return board, ("-device", f"svio-vif,id=svio0,board={path}")

    def boot(self, pages, options=""):
        """(machine, what was asked for) with a board that brings these pages."""
        board, (option, device) = self.fake(0 if "off" in options else abi.SVIO_ATTACH_F_PAGES, pages)
        machine = self.start(*SHARED, option, device + options)
        machine.qmp.command("query-status")
        return machine, board

    def test_a_board_that_says_anything(self):
        page = self.file(b"\xff" * PAGE)
        raised = self.file(b"\xff" * PAGE)
        machine, board = self.boot([page, raised])
        # The guest's CPU waits, looks, takes what it finds and looks no more; all else works meanwhile.
        wait_for(lambda: os.pread(raised, 4, 0) == bytes(4), "the vCPU to take what was raised",
                 alive=machine.alive)
        for _ in range(20):
            os.pwrite(raised, b"\xff" * 4, 0)
            machine.qmp.command("query-status")
            function = machine.function(abi.SVIO_PCI_DEVICE_VF)
            function.assign()
        machine.quit()
        board.end()
        self.assertIn(abi.SVIO_ATTACH_PAGES, board.asked)

    def test_pages_that_are_none(self):
        good = self.file(bytes(PAGE))
        loose, short = self.file(bytes(PAGE), seals=0), self.file(bytes(PAGE - 1))
        reader, writer = os.pipe()
        for fd in (reader, writer):
            self.addCleanup(os.close, fd)
        for pages in ([good, loose], [loose, good], [good, short], [writer, good]):
            machine, board = self.boot(pages)
            self.assertIn("are not what they should be", machine.said())
            machine.quit()
            board.end()

    def test_other_numbers_of_descriptors(self):
        good = self.file(bytes(PAGE))
        for pages in ([], [good]):
            board, arguments = self.fake(abi.SVIO_ATTACH_F_PAGES, pages)
            self.refused("no sensible answer", *SHARED, *arguments)
            board.end()
        board, arguments = self.fake(abi.SVIO_ATTACH_F_PAGES | 2, [good, good])
        self.refused("version of the protocol", *SHARED, *arguments)
        board.end()

    def refused(self, sentence, *arguments):
        status, said = run_to_end(*arguments)
        self.assertEqual(status, 1, said)
        self.assertRegex(said, sentence)

    def test_off(self):
        machine, board = self.boot([], ",halt-poll=off")
        machine.quit()
        board.end()
        self.assertNotIn(abi.SVIO_ATTACH_PAGES, board.asked)


class Refusals(VifCase):
    def refused(self, sentence, *arguments):
        status, said = run_to_end(*arguments)
        self.assertEqual(status, 1, said)
        self.assertRegex(said, sentence)
        self.assertEqual(self.board.vifs(), {})

    def test_properties(self):
        for options, sentence in ((",queues=0", r"queues=0 is not between 1 and 8"),
                                  (",queues=9", r"queues=9 is not between 1 and 8"),
                                  (",queue-size=100", r"queue-size=100 is not a power of two"),
                                  (",vif=" + "x" * 33, r"longer than 32 bytes")):
            with self.subTest(options):
                self.refused(sentence, *SHARED, "-device", self.device(0, options))

    def test_board(self):
        self.refused(r"board=PATH is missing", *SHARED, "-device", "svio-vif")
        nobody = os.path.join(self.folder, "nobody")
        self.refused(f"no board at {nobody} .svio-board --socket", *SHARED,
                     "-device", f"svio-vif,board={nobody}")
        # A socket of another kind, and a path that no socket can have.
        self.refused(r"no board at", *SHARED, "-device", f"svio-vif,board={self.board.mgmt}")
        self.refused(r"too long for a socket's path", *SHARED, "-device", "svio-vif,board=" + "x" * 200)

    def test_memory(self):
        sentence = r"cannot be shared with the board: add -object memory-backend-memfd"
        self.refused(sentence, "-device", self.device(0))
        private = [word.replace("share=on", "share=off") for word in SHARED]
        self.refused(sentence, *private, "-device", self.device(0))
        loose = [word.replace("share=on", "share=on,seal=off") for word in SHARED]
        self.refused(r"does not take the machine's memory: INVALID", *loose, "-device", self.device(0))

    def test_iommu(self):
        self.refused(r"does not see through the machine's IOMMU", *SHARED, "-device", "intel-iommu",
                     "-device", self.device(0))

    def test_same_mac(self):
        self.attach(0)
        status, said = run_to_end(*SHARED, "-device", self.device(0))
        self.assertEqual(status, 1)
        self.assertRegex(said, r"does not take a VIF of this name and MAC address: EXISTS")
        self.assertEqual(sorted(self.board.vifs()), [1])


if __name__ == "__main__":
    unittest.main()
