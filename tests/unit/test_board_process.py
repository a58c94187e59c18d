# SPDX-License-Identifier: GPL-2.0-or-later
"""svio-board as a process: machines (attach_client.py) attach, send, misbehave and die."""
import fcntl
import mmap
import os
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import unittest
from pathlib import Path

import attach_client
from attach_client import OK, PAGE, PATIENCE, RAM, CutOff, Memory, abi, request
from board_case import MACS, ProcessTest, mac_bytes, sanitized
from machine import wait_for
from svio_tool import paths, ui
from svio_tool.board_process import PROGRAM, SVIOCTL
from wires import PEER, DgramWire, arp_request, frame

KILLS = 50


def head(name, length, status=0):
    """Of a packet, by the request's name or number."""
    return attach_client.header(request(name) if isinstance(name, str) else name, length, status=status)


class TestMessages(ProcessTest):
    def test_between_machines(self):
        self.start("--cores", "2")
        machines = [self.running(n) for n in range(3)]
        for source in machines:
            for target in machines:
                if source is not target:
                    self.check_way(source, target)
        for machine in machines:
            counters = self.board.counters(machine.slot)
            self.assertEqual((counters["tx_frames"], counters["rx_frames"]), (8, 8))

    def test_wire(self):
        wire = DgramWire(self.folder)
        self.addCleanup(wire.close)
        self.start("--port", f"dgram:{wire.local},{wire.remote}")
        machine = self.running()
        for seed, size in enumerate((60, 64, 1514, 9018)):
            data = frame(size, seed, to=PEER, source=mac_bytes(MACS[0]))
            machine.driver.transmit(data)
            self.assertEqual(wire.receive(), data)
            data = frame(size, seed, to=mac_bytes(MACS[0]))
            wire.send(data)
            self.assertEqual(machine.driver.expect(), data)

    def test_echo(self):
        """The peer inside of the process, as port=echo of svio-nic."""
        self.start("--port", "echo")
        machine = self.running()
        own, mac = (10, 0, 2, 15), mac_bytes(MACS[0])
        request = arp_request(mac, own, (10, 0, 2, 2))
        machine.driver.transmit(request)
        answer = machine.driver.expect()
        self.assertEqual(answer[:6], mac)
        self.assertEqual(answer[12:20], request[12:20])
        self.assertEqual(answer[20:], b"\0\x02" + answer[6:12] + bytes((10, 0, 2, 2)) + mac + bytes(own)
                         + request[42:])

    def test_no_wire(self):
        self.start()
        machine = self.running()
        machine.driver.transmit(frame(64, to=PEER, source=mac_bytes(MACS[0])))
        wait_for(lambda: self.board.counters(machine.slot)["drop_tx_port_error"] == 1, "the counted drop")

    def test_signals_and_bells(self):
        """By eventfd both ways, as under KVM; the board's core sleeps before each message."""
        self.start("--poll-us", "0")
        one, two = self.machine(0), self.machine(1)
        for machine in (one, two):
            driver = machine.driver
            driver.reset()
            self.assertTrue(driver.negotiate())
            driver.queues()
            driver.receive.vector = 3
            driver.send.bell = lambda machine=machine: machine.bell(abi.SVIO_SEND)
            driver.receive.bell = lambda machine=machine: machine.bell(abi.SVIO_RECEIVE)
            driver.enable()
            driver.run()
        for seed in range(20):
            data = frame(200, seed, to=mac_bytes(MACS[1]), source=mac_bytes(MACS[0]))
            two.driver.receive.arm(two.driver.receive.next)
            one.driver.transmit(data)
            two.signalled(3)
            self.assertEqual(two.driver.expect(), data)
        self.assertGreater(self.board.counters(one.slot)["rx_frames"] +
                           self.board.counters(two.slot)["rx_frames"], 19)

    def test_dma_off(self):
        """Nothing is touched from the answer on; then it goes on where it was."""
        self.start()
        one, two = self.running(0), self.running(1)
        self.assertEqual(two.count("DMA", 0), OK)
        before = two.driver.snapshot()
        one.driver.transmit(frame(64, to=mac_bytes(MACS[1]), source=mac_bytes(MACS[0])))
        self.assertEqual(two.driver.snapshot(), before)
        self.assertEqual(two.count("DMA", 1), OK)
        self.check_way(one, two)


class TestPages(ProcessTest):
    """What a peer that looks for itself sees, instead of being woken."""

    def watching(self, number):
        """A machine whose receive queue raises vector 3, and its two pages as numbers of 32 bits."""
        machine = self.machine(number, features=abi.SVIO_ATTACH_F_PAGES)
        fds = machine.pages()
        self.assertEqual(len(fds), 2)
        for fd in fds:
            self.addCleanup(os.close, fd)
            self.assertEqual(os.fstat(fd).st_size, PAGE)
            self.assertTrue(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
        with self.assertRaises(PermissionError):
            mmap.mmap(fds[0], PAGE)
        maps = mmap.mmap(fds[0], PAGE, prot=mmap.PROT_READ), mmap.mmap(fds[1], PAGE)
        driver = machine.driver
        driver.reset()
        self.assertTrue(driver.negotiate())
        driver.queues()
        driver.receive.vector = 3
        driver.enable()
        driver.run()
        return machine, *(memoryview(one).cast("I") for one in maps)

    def pending(self, machine):
        return select.select([machine.signals[3]], [], [], 0)[0] != []

    def test_a_watcher_needs_no_eventfd(self):
        self.start()
        one = self.running(0)
        two, _, raised = self.watching(1)
        watchers = abi.svio_attach_raised.offset("watchers") // 4
        for seed in range(12):
            watches = seed % 3 != 2
            raised[watchers] = seed if watches else 0
            raised[0] = 0
            two.driver.receive.arm(two.driver.receive.next)
            data = frame(200, seed, to=mac_bytes(MACS[1]), source=mac_bytes(MACS[0]))
            one.driver.transmit(data)
            if watches and seed:
                wait_for(lambda: raised[0] == 1 << 3, "the note of vector 3", alive=self.board.alive)
                self.assertFalse(self.pending(two))
            else:
                self.assertEqual(two.signalled(3), 1)
                self.assertEqual(raised[0], 1 << 3)
            self.assertEqual(two.driver.expect(), data)

    def test_polling(self):
        """The page says so while a core polls, and no more when it sleeps; the same to all."""
        self.start("--poll-us", "1000000")
        one, polling, _ = self.watching(0)
        two, other, _ = self.watching(1)
        self.check_way(one, two)
        wait_for(lambda: polling[0] == 1, "the polling core", alive=self.board.alive)
        self.assertEqual(other[0], 1)
        wait_for(lambda: polling[0] == 0, "its sleep", alive=self.board.alive)
        self.assertEqual(other[0], 0)

    def test_refused(self):
        self.start()
        connection = self.connect().hello()
        self.assertEqual(connection.attach(mac=MACS[0]), OK)
        self.assertEqual(connection.ask("PAGES"), (abi.SVIO_ST_UNSUPPORTED, b""))
        # Features that nobody knows yet are not in force.
        self.connect().hello(features=2 ** 64 - 1)
        descriptors = len(os.listdir(f"/proc/{self.board.process.pid}/fd"))
        for _ in range(3):
            machine = self.machine(1, features=abi.SVIO_ATTACH_F_PAGES)
            for _ in range(5):
                for fd in machine.pages():
                    os.close(fd)
            machine.close()
            wait_for(lambda: len(self.board.vifs()) == 1, "the slot to be given back")
        # The connection by which svioctl asked may be there for a moment longer.
        wait_for(lambda: len(os.listdir(f"/proc/{self.board.process.pid}/fd")) == descriptors,
                 "all descriptors to be given back")


class TestMemory(ProcessTest):
    def test_refused(self):
        self.start()
        connection = self.connect().hello()
        self.assertEqual(connection.attach(mac=MACS[0]), OK)
        sealed, loose = Memory(4 * PAGE), Memory(4 * PAGE, seals=0)
        reader, writer = os.pipe()
        for fd in (reader, writer):
            self.addCleanup(os.close, fd)
        for memory in (sealed, loose):
            self.addCleanup(memory.close)
        for regions in ([(0, PAGE, 0, loose.fd)], [(0, PAGE, 0, writer)], [(0, 0, 0, sealed.fd)],
                        [(1, PAGE, 0, sealed.fd)], [(0, PAGE + 1, 0, sealed.fd)], [(0, PAGE, 1, sealed.fd)],
                        [(0, 5 * PAGE, 0, sealed.fd)], [(0, PAGE, 4 * PAGE, sealed.fd)],
                        [(2 ** 64 - PAGE, 2 * PAGE, 0, sealed.fd)], [(0, PAGE, 2 ** 64 - PAGE, sealed.fd)],
                        [(0, 2 * PAGE, 0, sealed.fd), (PAGE, PAGE, 0, sealed.fd)]):
            with self.subTest(regions=regions):
                self.assertEqual(connection.share(regions), abi.SVIO_ST_INVALID)
        self.assertEqual(connection.share([(2 ** 64 - PAGE, PAGE, 0, sealed.fd)]), OK)
        self.assertEqual(connection.share([]), OK)
        self.assertIn("seal=on", self.board.said())

    def test_ring_out_of_reach(self):
        self.start()
        machine = self.machine()
        driver = machine.driver
        driver.reset()
        self.assertTrue(driver.negotiate())
        driver.queues()
        state = driver.send.enable(base=RAM)
        self.assertEqual(abi.SVIO_QUEUE_ERROR_OF(state), abi.SVIO_QERR_DMA)
        # Half of it in one region, and half in the next, is not one piece.
        half = driver.send.base + PAGE // 4
        self.assertEqual(half % PAGE, PAGE // 4)
        cut = (driver.send.base & -PAGE) + PAGE
        driver.send.disable()
        self.assertEqual(machine.share([(0, cut, 0, machine.memory.fd),
                                        (cut, RAM - cut, cut, machine.memory.fd)]), OK)
        state = driver.send.enable(base=cut - 64)
        self.assertEqual(abi.SVIO_QUEUE_ERROR_OF(state), abi.SVIO_QERR_DMA)

    def test_replaced_under_queues(self):
        """Memory is added and cut into other regions while queues work."""
        self.start()
        one, two = self.running(0), self.running(1)
        more = Memory(PAGE)
        self.addCleanup(more.close)
        memory = one.memory.fd
        self.check_way(one, two)
        self.assertEqual(one.share([(0, RAM, 0, memory), (2 * RAM, PAGE, 0, more.fd)]), OK)
        self.check_way(one, two)
        cut = (one.driver.send.arena & -PAGE) + PAGE
        self.assertEqual(one.share([(cut, RAM - cut, cut, memory), (0, cut, 0, memory)]), OK)
        self.check_way(one, two)  # buffers lie in both
        self.check_way(two, one)
        # And away from under them: that queue alone fails.
        self.assertEqual(one.share([(2 * RAM, PAGE, 0, more.fd)]), OK)
        one.driver.write(abi.SVIO_BELL(0, abi.SVIO_SEND), 1)
        one.driver.send.wait_error(abi.SVIO_QERR_DMA)
        three = self.running(2)
        self.check_way(two, three)


class TestGarbage(ProcessTest):
    def test_cut_off(self):
        self.start()
        bystanders = [self.running(0), self.running(1)]
        fd = os.eventfd(0)
        self.addCleanup(os.close, fd)
        packets = {
            "no header": (b"\1", ()),
            "half a header": (bytes(15), ()),
            "short": (head("HELLO", 16) + bytes(15), ()),
            "long": (head("HELLO", 16) + bytes(17), ()),
            "other size": (head("HELLO", 8) + bytes(8), ()),
            "an answer": (head(request("HELLO") | abi.SVIO_ATTACH_ANSWER, 16) + bytes(16), ()),
            "a status": (head("HELLO", 16, status=1) + bytes(16), ()),
            "too long": (head("HELLO", 65000) + bytes(65000), ()),
            "a descriptor too many": (head("RESET", 0), (fd,)),
            "none of one": (head("SIGNALS", 8) + struct.pack("<II", 1, 0), ()),
            "no table": (head("MEMORY", 4) + bytes(4), ()),
            "a table of nothing": (head("MEMORY", 8) + struct.pack("<II", 1, 0), (fd,)),
            "a table too long": (head("MEMORY", 8) + struct.pack("<II", 1 << 31, 0), ()),
            "too many descriptors": (head("MEMORY", 8) + struct.pack("<II", 65, 0), (fd,) * 65),
            "payload of none": (head("RESET", 4) + bytes(4), ()),
        }
        for name, (packet, fds) in packets.items():
            for attached in (False, True):
                with self.subTest(name, attached=attached):
                    connection = self.connect()
                    if attached:
                        connection.hello()
                        self.assertEqual(connection.attach(mac=MACS[5]), OK)
                    said = self.board.said().count("is cut off")
                    with self.assertRaises(CutOff):
                        connection.send(packet, fds)
                        connection.receive()
                    self.assertEqual(self.board.said().count("is cut off"), said + 1)
                    connection.close()
        wait_for(lambda: sorted(self.board.vifs()) == [1, 2], "slots to be given back")
        self.check_way(*bystanders)

    def test_refused(self):
        """Well-formed, but not now or not so: a status, and the connection stays."""
        self.start()
        connection = self.connect()
        self.assertEqual(connection.attach(), abi.SVIO_ST_STATE)
        self.assertEqual(connection.ask("HELLO", struct.pack("<IIQ", 0, 0, 0))[0], abi.SVIO_ST_UNSUPPORTED)
        connection.hello()
        self.assertEqual(connection.ask("RESET")[0], abi.SVIO_ST_STATE)
        self.assertEqual(connection.attach(mac="01:00:00:00:00:01"), abi.SVIO_ST_INVALID)
        self.assertEqual(connection.attach(pairs=9), abi.SVIO_ST_INVALID)
        self.assertEqual(connection.attach(size=17), abi.SVIO_ST_INVALID)
        self.assertEqual(connection.attach(mac=MACS[0]), OK)
        self.assertEqual(connection.attach(mac=MACS[1]), abi.SVIO_ST_STATE)
        self.assertEqual(connection.count("DMA", 2), abi.SVIO_ST_INVALID)
        reader, writer = os.pipe()
        for fd in (reader, writer):
            self.addCleanup(os.close, fd)
        for name in ("SIGNALS", "BELLS"):
            self.assertEqual(connection.count(name, 1, [writer]), abi.SVIO_ST_INVALID)
        eventfd = os.eventfd(0)
        self.addCleanup(os.close, eventfd)
        self.assertEqual(connection.count("SIGNALS", 10, [eventfd] * 10), abi.SVIO_ST_INVALID)
        self.assertEqual(connection.count("BELLS", 17, [eventfd] * 17), abi.SVIO_ST_INVALID)
        connection.send(head(99, 3) + b"abc")
        self.assertEqual(struct.unpack("<4I", connection.receive()),
                         (99 | abi.SVIO_ATTACH_ANSWER, 7, abi.SVIO_ST_UNSUPPORTED, 0))
        connection.order("BAD_ACCESS")
        self.assertEqual(self.board.counters(1)["bad_register"], 1)

    def test_queue_size_of_the_boards_choice(self):
        self.start()
        machine = self.machine(0, size=0)
        self.assertEqual(machine.read(abi.SVIO_REG_QUEUE_SIZE_HINT), 256)
        other = self.connect().hello()
        self.assertEqual(other.attach(mac=MACS[1], size=100), abi.SVIO_ST_INVALID)

    def test_answers_not_read(self):
        self.start()
        connection = self.connect().hello()
        connection.sock.settimeout(PATIENCE)
        with self.assertRaises(CutOff):
            for _ in range(1 << 20):
                connection.send(head("HELLO", 16) + struct.pack("<IIQ", 1, 0, 0))
        self.assertIn("does not read its answers", self.board.said())
        self.running()

    def test_connections_without_end(self):
        self.start("--slots", "2")
        first = self.connect().hello()
        taken = [first] + [self.connect().hello() for _ in range(9)]
        for _ in range(3):
            with self.assertRaises(CutOff):
                self.connect().hello()
        self.assertEqual(self.board.said().count("is turned away"), 1)
        self.assertEqual([one.attach() for one in taken[:3]], [OK, OK, abi.SVIO_ST_NO_SPACE])
        taken[0].close()
        wait_for(lambda: sorted(self.board.vifs()) == [2], "the slot to be given back")
        self.assertEqual(taken[2].attach(), OK)

    def test_signal_that_is_full(self):
        """The peer fills the counter of its eventfd: writing it would wait for ever."""
        self.start()
        one, two = self.running(0), self.machine(1)
        driver = two.driver
        driver.reset()
        driver.negotiate()
        driver.queues()
        driver.receive.vector = 2
        driver.enable()
        driver.run()
        os.eventfd_write(two.signals[2], 2 ** 64 - 2)
        flags = fcntl.fcntl(two.signals[2], fcntl.F_GETFL)
        fcntl.fcntl(two.signals[2], fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
        for seed in range(5):
            driver.receive.arm(driver.receive.next)
            data = frame(64, seed, to=mac_bytes(MACS[1]), source=mac_bytes(MACS[0]))
            one.driver.transmit(data)
            self.assertEqual(driver.expect(), data)


class TestManagement(ProcessTest):
    def test_policy_before_the_machine(self):
        self.start()
        self.board.ctl("vif", "create", "--name", "web", "--mac", MACS[4], "--vlan", "7")
        web = self.running(name="web", mac=MACS[0], machine="web server")
        shown = {vif["name"]: vif for vif in self.board.ctl("vif", "list")["vifs"]}["web"]
        self.assertEqual((shown["slot"], shown["permanent_mac"], shown["vlan"]), (web.slot, MACS[4], 7))
        self.assertIn("(web server) has slot 1", self.board.said())
        # Another VLAN's frames do not come, those of its own do.
        other, mate = self.running(1), self.running(2)
        self.board.ctl("vif", "set", mate.slot, "--vlan", "7")
        lost = frame(64, 1, to=mac_bytes(MACS[4]), source=mac_bytes(MACS[1]))
        other.driver.transmit(lost)
        self.check_way(mate, web)
        self.assertEqual(self.board.counters(web.slot)["rx_frames"], 4)
        # The name is taken while its machine is there, and keeps its VIF when that goes.
        late = self.connect().hello()
        self.assertEqual(late.attach(name="web"), abi.SVIO_ST_EXISTS)
        identity = shown["id"]
        web.close()
        wait_for(lambda: sorted(self.board.vifs()) == [other.slot, mate.slot], "the slot to be given back")
        self.assertEqual(late.attach(name="web"), OK)
        self.assertEqual(late.id, identity)

    def test_neighbours_before_the_machines(self):
        """Who may reach whom is said by name, before the machines are there."""
        self.start("--port", "echo")
        for name, group in (("red", "1"), ("red too", "1"), ("blue", "2"), ("alone", "none")):
            self.board.ctl("vif", "create", "--name", name, "--neighbours", group)
        red, mate, blue, alone = (self.running(n, name=name) for n, name in enumerate(
            ("red", "red too", "blue", "alone")))
        macs = [self.board.vifs()[machine.slot]["mac"] for machine in (red, mate, blue, alone)]
        for source, target in ((0, 2), (2, 0), (0, 3), (3, 0), (3, 2)):
            machine = (red, mate, blue, alone)[source]
            dropped = self.board.counters(machine.slot)["drop_tx_neighbour"]
            machine.driver.transmit(frame(64, 9, to=mac_bytes(macs[target]), source=mac_bytes(macs[source])))
            self.assertEqual(self.board.counters(machine.slot)["drop_tx_neighbour"], dropped + 1)
        data = frame(64, 1, to=mac_bytes(macs[1]), source=mac_bytes(macs[0]))
        red.driver.transmit(data)
        self.assertEqual(mate.driver.expect(), data)
        for machine in (blue, alone):
            self.assertEqual(self.board.counters(machine.slot)["rx_frames"], 0)
        # The port is everybody's.
        alone.driver.transmit(arp_request(mac_bytes(macs[3]), bytes([10, 0, 2, 9]), bytes([10, 0, 2, 2])))
        self.assertEqual(alone.driver.expect()[:6], mac_bytes(macs[3]))
        # Live.
        self.board.ctl("vif", "set", "name:blue", "--neighbours", "1")
        data = frame(64, 2, to=mac_bytes(macs[2]), source=mac_bytes(macs[0]))
        red.driver.transmit(data)
        self.assertEqual(blue.driver.expect(), data)

    def test_machine_and_process(self):
        """Who has a VIF: the name that the machine has given, the process that the kernel names."""
        self.start()
        vifs = lambda: {vif["slot"]: vif["vm"] for vif in self.board.ctl("vif", "list")["vifs"]}  # noqa: E731
        web = self.machine(0, machine="web server é")
        self.board.ctl("vif", "create", "--name", "late")
        named = {"name": "web server é", "pid": os.getpid()}
        self.assertEqual(vifs(), {0: None, None: None, web.slot: named})
        self.assertEqual(self.board.ctl("vif", "show", web.slot)["vif"]["vm"], named)
        # What would change a terminal or begin a line of the log is not passed on.
        rogue = self.machine(1, machine="\x1b[2J\n<0>x")
        self.assertEqual(vifs()[rogue.slot]["name"], "?[2J?<0>x")
        self.assertIn("(?[2J?<0>x) has slot", self.board.said())
        text = ui.output([SVIOCTL, "-s", self.board.mgmt, "vif", "list"], "svioctl failed")
        head, *rows = text.splitlines()
        self.assertEqual(head.split()[-2:], ["PID", "VM"])
        self.assertIn(f"{os.getpid()}  web server é", rows[1])
        shown = ui.output([SVIOCTL, "-s", self.board.mgmt, "vif", "show", web.slot], "svioctl failed")
        self.assertRegex(shown, rf"(?m)^vm +web server é$\n^pid +{os.getpid()}$")
        web.close()
        wait_for(lambda: web.slot not in vifs(), "the slot to be given back")
        other = self.machine(2, machine="")
        self.assertEqual(vifs()[other.slot], {"name": "", "pid": os.getpid()})

    def test_watch(self):
        """Rates of all machines' VIFs and the cores' load; plain rows where there is no terminal."""
        self.start("--cores", "2")
        one, two = self.running(0, machine="left"), self.running(1, machine="right")
        watch = subprocess.Popen([SVIOCTL, "-s", self.board.mgmt, "watch", "-i", "0.02"], text=True,
                                 stdout=subprocess.PIPE)
        try:
            seen = {}
            for seed in range(2000):
                self.check_way(one, two, sizes=(60 + seed % 1000,))
                words = watch.stdout.readline().split()
                self.assertNotIn("\x1b", "".join(words))
                if words[-1] in ("left", "right") and max(map(float, words[3:7])) > 0:
                    seen[words[-1]] = float(words[3]) > 0, float(words[5]) > 0
                elif words[0] in ("core0", "core1") and float(words[2]) > 0:
                    seen[words[0]] = True
                if {"left", "right"} <= seen.keys() and len(seen) >= 3:
                    break
            self.assertEqual((seen.get("left"), seen.get("right")), ((True, False), (False, True)))
            self.assertTrue(seen.get("core0") or seen.get("core1"), seen)
        finally:
            watch.send_signal(signal.SIGINT)
            self.assertEqual(watch.wait(PATIENCE), 0)
            watch.stdout.close()

    def test_own_mac_and_chosen_mac(self):
        self.start()
        self.machine(0)
        self.assertEqual(self.connect().hello().attach(mac=MACS[0]), abi.SVIO_ST_EXISTS)
        one, two = self.machine(mac=None), self.machine(mac=None)
        vifs = {vif["slot"]: vif["mac"] for vif in self.board.ctl("vif", "list")["vifs"]}
        self.assertNotEqual(vifs[one.slot], vifs[two.slot])


FLOOD = """
import attach_client, abi, wires
machine = attach_client.Machine({path!r}, mac={mac!r})
driver = machine.driver.bring_up()
number = 0
while True:
    data = wires.frame(200, number % 64, to=bytes.fromhex({to!r}), source=bytes.fromhex({source!r}))
    driver.transmit(data[:16] + number.to_bytes(8, "little") + data[24:])
    number += 1
    if number == 50:
        print("flows", flush=True)
"""


class TestDeaths(ProcessTest):
    def flood(self):
        script = FLOOD.format(path=str(self.board.socket), mac=MACS[1], to=MACS[0].replace(":", ""),
                              source=MACS[1].replace(":", ""))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen([paths.PYTHON, "-c", script], env=environment, stdout=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL)
        self.addCleanup(process.stdout.close)
        return process

    def check_frames(self, driver, process):
        """Takes what comes until the sender is dead and nothing more comes: numbers in order, none twice,
        bytes as they were sent. The number of frames."""
        last, count, idle = -1, 0, 0
        while idle < 50:
            data = driver.receive.take()
            if data is None:
                if process.poll() is None:
                    ready = count > 20
                    if ready:
                        process.kill()
                        process.wait()
                else:
                    idle += 1
                    self.board.alive()
                continue
            number = int.from_bytes(data[16:24], "little")
            self.assertGreater(number, last)
            self.assertEqual(data, self.numbered(number))
            last, count = number, count + 1
        return count

    def test_machines_are_killed(self):
        """kill -9 in the middle of its traffic, again and again; the other machines lose nothing."""
        self.start("--cores", "2")
        receiver, pair = self.running(0), [self.running(2), self.running(3)]

        def descriptors():
            return len(os.listdir(f"/proc/{self.board.process.pid}/fd"))
        before = descriptors()
        for _ in range(KILLS):
            process = self.flood()
            try:
                self.assertGreater(self.check_frames(receiver.driver, process), 20)
            finally:
                process.kill()
                process.wait()
            self.check_way(*pair)
            wait_for(lambda: len(self.board.vifs()) == 3, "the dead machine's slot to be given back")
        # The connection that has asked for the slots is closed when its end is seen.
        wait_for(lambda: descriptors() == before, "the descriptors of dead machines to be closed")

    def test_nothing_is_written_after_the_end(self):
        """Memory that a machine leaves behind (others may map the same file) is left alone."""
        self.start()
        one, two = self.running(0), self.running(1)
        self.check_way(one, two)
        two.sock.close()
        wait_for(lambda: sorted(self.board.vifs()) == [one.slot], "the slot to be given back")
        before = two.driver.snapshot()
        one.driver.transmit(frame(64, to=mac_bytes(MACS[1]), source=mac_bytes(MACS[0])))
        self.assertEqual(two.driver.snapshot(), before)
        with self.assertRaises(CutOff):
            one.sock.shutdown(socket.SHUT_RDWR)
            one.receive()

    def test_board_is_killed(self):
        """Machines see the end of the connection, and the next board takes the same paths."""
        self.start()
        one = self.running(0)
        self.board.kill()
        with self.assertRaises(CutOff):
            one.receive()
        self.start()
        self.check_way(self.running(0), self.running(1))

    def test_board_is_killed_again_and_again(self):
        """kill -9 of the board in the middle of numbered traffic, 50 times: both machines attach anew, with
        queues that begin anew. What is lost are numbers that were posted before a death; none comes twice,
        late, or altered."""
        self.number, self.last, self.came, self.lost = 0, -1, 0, 0
        for death in range(1, KILLS + 1):
            self.start()
            receiver, sender = self.running(0), self.running(1)
            for machine in (receiver, sender):
                self.assertEqual(machine.driver.send.read(abi.SVIO_QUEUE_POSITION), 0)
            while self.came < 20 * death:
                self.send_numbered(sender.driver)
                self.take_numbered(receiver.driver)
                self.board.alive()
            for _ in range(30):
                self.send_numbered(sender.driver)
            self.board.kill()
            # What was delivered before is the receiver's, dead board or not; the rest is lost.
            self.take_numbered(receiver.driver)
            self.lost, self.last = self.lost + self.number - 1 - self.last, self.number - 1
            for machine in (receiver, sender):
                with self.assertRaises(CutOff):
                    machine.receive()
                machine.close()
        self.assertEqual(self.came + self.lost, self.number)

    def numbered(self, number):
        data = frame(200, number % 64, to=mac_bytes(MACS[0]), source=mac_bytes(MACS[1]))
        return data[:16] + number.to_bytes(8, "little") + data[24:]

    def send_numbered(self, driver):
        driver.send.send(self.numbered(self.number))
        self.number += 1

    def take_numbered(self, driver):
        """All frames that are there: as they were sent, and their numbers rise. Counts them, and the gaps."""
        while (data := driver.receive.take()) is not None:
            number = int.from_bytes(data[16:24], "little")
            self.assertGreater(number, self.last)
            self.assertEqual(data, self.numbered(number))
            self.came, self.lost = self.came + 1, self.lost + number - self.last - 1
            self.last = number


class TestStart(ProcessTest):
    def refused(self, *arguments):
        """(status, what it said)."""
        done = subprocess.run([self.build / PROGRAM, *map(str, arguments)], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        self.assertNotEqual(done.returncode, 0)
        return done.stderr

    def test_sockets(self):
        board = self.start()
        for path in (board.socket, board.mgmt):
            self.assertEqual(stat.S_IMODE(os.lstat(path).st_mode), 0o600)
        self.assertIn("another process listens there", self.refused("--socket", board.socket))
        self.assertIn("another process listens there", self.refused("--socket", board.mgmt))
        # Nor does management take the place of a socket of the other kind.
        other = Path(self.folder) / "other"
        self.assertIn("another process listens there",
                      self.refused("--socket", other, "--mgmt", board.socket))
        self.check_way(self.running(0), self.running(1))
        self.assertEqual(board.end(), 0)
        self.assertEqual(sorted(os.listdir(self.folder)), ["log"])

    def test_refusals(self):
        here = Path(self.folder)
        (here / "file").write_text("precious")
        self.assertIn("there is something else", self.refused("--socket", here / "file"))
        self.assertEqual((here / "file").read_text(), "precious")
        self.assertIn("No such file", self.refused("--socket", here / "none" / "s"))
        self.assertIn("must have 1 to 107 bytes", self.refused("--socket", "x" * 108))
        self.assertIn("--socket is required", self.refused())
        for spec in ("udp", "udp:127.0.0.1:1", "udp:127.0.0.1:0,127.0.0.1:1", "udp:a:1,127.0.0.1:2",
                     "udp:127.0.0.1:65536,127.0.0.1:1"):
            self.assertIn("is not udp:", self.refused("--socket", here / "s", "--port", spec))
        for spec in ("slirp:restrict=maybe", "slirp:nonsense", "slirp:hostfwd=", "slirp:hostfwd=tcp:1-2",
                     "slirp:hostfwd=icmp::1-:2",
                     "slirp:hostfwd=tcp:x:1-:2", "slirp:hostfwd=tcp::1-:65536"):
            self.assertIn("port=slirp", self.refused("--socket", here / "s", "--port", spec))
        self.assertIn("port=nowhere", self.refused("--socket", here / "s", "--port", "nowhere"))
        self.assertIn("--cores", self.refused("--socket", here / "s", "--cores", "17"))
        self.assertEqual(os.listdir(here), ["file"])


sanitized(globals(), TestMessages, TestPages, TestMemory, TestGarbage, TestManagement, TestDeaths)


if __name__ == "__main__":
    unittest.main()
