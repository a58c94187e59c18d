# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that move to another QEMU while numbered messages and a TCP stream go through their cards."""
import random
import subprocess
import threading
import time

from case import Card, VmCase
from pair import PairCase
from svio_tool.vm import Vm
from wires import DEADLINE, HOST_MAC, ByHand, cross, mac_bytes, udp, udp_payload

LETTERS = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=1400))
RARP = b"\x80\x35"


def message(number, most):
    """What both ends write as their message of this number."""
    return f"{number:08d}" + LETTERS[:number * 37 % most]


class MovingWire(ByHand):
    """A thread sends messages with numbers and keeps what comes. QEMU binds a netdev's socket when it starts,
    so with each move the card gets another path; a native port takes its path over."""

    MOST = 40                   # of a message to the guest: it keeps them all, in memory

    def __init__(self, folder, name, index, native):
        super().__init__(folder, name, native)
        self.folder, self.name, self.native = folder, name, native
        self.subnet, self.port = (10, 88, index), 5000 + index
        self.first_netdev = self.netdev
        self.mac = None
        self.moves = 0
        self.next = 0                           # number of the next message to the guest
        self.got, self.others = [], 0           # what the guest has sent: its messages; frames besides
        self.paused = threading.Event()
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def host(self, last):
        return (*self.subnet, last)

    def prepare_move(self):
        """For the next machine's command line."""
        self.moves += 1
        if not self.native:
            self.netdev = self.first_netdev.replace(f"{self.name}.vm", f"{self.name}.vm{self.moves}")

    def moved(self):
        if not self.native:
            self.remote = f"{self.folder}/{self.name}.vm{self.moves}"

    def start(self, mac):
        """From the first number on, also after an earlier end."""
        self.mac = mac_bytes(mac)
        self.next, self.got, self.others = 0, [], 0
        self.paused.clear()
        if not self.thread.is_alive():
            self.thread.start()

    def _run(self):
        due = time.monotonic()
        while not self.stopping:
            data = self.receive(0.002)
            while data is not None:
                self._keep(data)
                data = self.receive(0)
            if time.monotonic() > due and not self.paused.is_set() and self._send():
                due = time.monotonic() + 0.01

    def _send(self):
        text = message(self.next, self.MOST) + "\n"
        data = udp(self.mac, text.encode(), self.port, self.host(1), self.host(2))
        try:
            self.next += self.try_send(data)
        except (FileNotFoundError, ConnectionRefusedError):
            return False        # between two machines
        return True

    def _keep(self, data):
        payload = udp_payload(data, self.port)
        if payload is not None:
            self.got.append(payload.decode())
        elif data[12:14] != RARP:               # the card's own word of where it is
            self.others += 1

    def close(self):
        self.stopping = True
        if self.thread.is_alive():
            self.thread.join(DEADLINE)
        super().close()


class MovingCase(PairCase):
    """A pair of cards, and two whose other end is the test: cls.vm is where the guest is now."""

    PAIRS = {"native": (1, "pa", "pb")}
    BY_HAND = ("hand", "net")
    SMP, QUEUES = 2, 2
    generation = 0
    NUMBERS = r"""
        exec 3<>/dev/udp/%s/%d 4<>/tmp/tick
        letters=%s n=0
        while [ ! -e /tmp/end ]; do
            for ((i = 0; i < 8; i++)); do
                printf '%%08d%%s' $n "${letters:0:n*37%%1400}" >&3 || exit 1
                n=$((n + 1))
            done
            read -t 0.02 -u 4
        done
        echo $n"""
    STREAM = r"""
        n=0
        while [ ! -e /tmp/end ]; do
            echo block $n; cat /tmp/block
            n=$((n + 1))
        done | tee >(sha256sum >/tmp/sum.in) | socat -u - TCP4:%s:%d"""

    @classmethod
    def cards(cls):
        disk = f"{cls.folder}/snapshots.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"], check=True)
        cls.EXTRA = ("-drive", f"if=none,id=snapshots,file={disk},format=qcow2")
        one, other = cross(cls.folder, "port", native=True)
        # The peer reads as fast as this machine lets it: no frame may be dropped because it was slow.
        patient = f"queues={cls.QUEUES},port-stall-ms=0"
        return [Card("pa", 1, one, f"queues={cls.QUEUES}"), Card("pb", 2, other, f"queues={cls.QUEUES}"),
                Card("hand", 3, MovingWire(cls.folder, "hand", 3, native=True), patient),
                Card("net", 4, MovingWire(cls.folder, "net", 4, native=False), patient)]

    @classmethod
    def make_vm(cls, *extra, **words):
        cards = cls.card.values()
        name = f"test-{cls.NAME}" + ("-b" if cls.generation % 2 else "")
        return Vm(name, nics=[card.device() for card in cards],
                  netdevs=[card.wire.netdev for card in cards if card.wire.netdev], machine=cls.MACHINE,
                  smp=cls.SMP, memory=384, kernel=cls.KERNEL, extra=(*cls.EXTRA, *extra), **words)

    @classmethod
    def prepare(cls):
        super().prepare()
        cls.run_in("ln -sf /proc/self/fd /dev/fd; mkfifo /tmp/tick; head -c 1048576 /dev/urandom >/tmp/block")
        for name in cls.BY_HAND:
            wire = cls.card[name].wire
            host, guest = (".".join(map(str, wire.host(last))) for last in (1, 2))
            # What a test does not send should not be there.
            cls.run_in(f"""set -e
                sysctl -q net.ipv6.conf.{name}.disable_ipv6=1
                ip link set {name} up; ip address add {guest}/24 dev {name}
                ip neighbour replace {host} lladdr {HOST_MAC.hex(':')} nud permanent dev {name}""")

    @classmethod
    def set_up(cls, name):
        super().set_up(name)
        # A host that speaks IPv6 sends by itself at times (multicast listener reports).
        for ns, dev in zip("AB", cls.PAIRS[name][1:]):
            cls.run_in(f"ip netns exec {ns} sysctl -q net.ipv6.conf.{dev}.disable_ipv6=1")

    def by_hand(self):
        return [self.card[name] for name in self.BY_HAND]

    def namespace(self, card):
        return None if card.name in self.BY_HAND else super().namespace(card)

    def in_ns(self, card, command):
        return super().in_ns(card, command) if self.namespace(card) else self.run_in(command)

    def ethtool(self, card, prefix=""):
        return super().ethtool(card) if self.namespace(card) else VmCase.ethtool(self, card)

    # ---- moves ----

    def next_vm(self, *extra):
        """The machine that waits for the guest."""
        cls = type(self)
        cls.generation += 1
        cls.dead = True         # until the guest has arrived: nobody asks it anything
        for card in self.by_hand():
            card.wire.prepare_move()
        target = cls.make_vm(*extra, wait=False)
        cls.stack.callback(target.stop)
        target.start()
        return target

    def wait_migrated(self, vm):
        def ended():
            vm.check_alive()
            state = vm.qmp("query-migrate").get("status")
            return state if state in ("completed", "failed", "cancelled") else None
        self.assertEqual(self.wait(ended, "the end of the migration"), "completed", vm.qmp("query-migrate"))

    def arrive(self, target):
        """The guest goes on here; its processes and its agent have come along."""
        source, cls = self.vm, type(self)
        self.wait(lambda: target.qmp("query-status")["status"] == "running", "the guest goes on")
        self.assertEqual(source.kernel_problems()[self.old_problems:], [])
        self.old_problems = 0
        for card in self.by_hand():
            card.wire.moved()
        source.stop()
        cls.vm = target
        self.meet_agent()
        cls.dead = False

    def meet_agent(self):
        self.vm.meet(DEADLINE)
        for process in self.processes:
            process.agent = self.vm.agent

    def start_process(self, command):
        process = super().start_process(command)
        self.processes.append(process)
        return process

    def setUp(self):
        self.processes = []
        super().setUp()

    def move(self):
        """To a second QEMU on this host."""
        source, target = self.vm, self.next_vm("-incoming", "defer")
        uri = f"unix:{self.folder}/moving"
        target.qmp("migrate-incoming", uri=uri)
        source.qmp("migrate-set-parameters", downtime_limit=5000, max_bandwidth=8 << 30)
        source.qmp("migrate", uri=uri)
        self.wait_migrated(source)
        self.arrive(target)

    def move_by_file(self):
        """The machine is written to a file, ends, and goes on from it in another QEMU."""
        source, uri = self.vm, f"file:{self.folder}/machine"
        source.qmp("migrate-set-parameters", max_bandwidth=8 << 30)
        source.qmp("migrate", uri=uri)
        self.wait_migrated(source)
        target = self.next_vm("-incoming", uri)
        self.arrive(target)

    def go_back(self, snapshot):
        """To what savevm has kept: cards, programs, the stream."""
        type(self).dead = True
        self.assertEqual(self.vm.hmp(f"loadvm {snapshot}"), "")
        self.meet_agent()
        type(self).dead = False

    # ---- traffic ----

    def start_traffic(self):
        """Messages with numbers both ways on the cards by hand, a TCP stream between the others."""
        self.run_in("rm -f /tmp/end /tmp/sum.* /tmp/*.in")
        ns, _, _, other = self.ends("native")[0]
        receiver = self.start_process("exec ip netns exec B sh -c "
                                      "'socat -u TCP4-LISTEN:5001,reuseaddr - | sha256sum >/tmp/sum.out'")
        self.wait(lambda: ":5001 " in self.run_in("ip netns exec B ss -Hltn"), "the receiver listens")
        self.vm.put("/tmp/stream", (self.STREAM % (other, 5001)).encode())
        self.stream = [self.start_process(f"exec ip netns exec {ns} bash /tmp/stream"), receiver]
        self.senders, self.before = {}, {}
        for card in self.by_hand():
            wire = card.wire
            self.start_process(f"exec socat -u -b 65536 UDP4-RECV:{wire.port},rcvbuf=33554432 "
                               f"CREATE:/tmp/{card.name}.in")
            self.vm.put(f"/tmp/{card.name}.out", (self.NUMBERS % (
                ".".join(map(str, wire.host(1))), wire.port, LETTERS)).encode())
            self.wait(lambda port=wire.port: f":{port} " in self.run_in("ss -Hlun"), "the receiver waits")
            self.before[card.name] = self.vif(card.name)
            self.senders[card.name] = self.start_process(f"exec bash /tmp/{card.name}.out")
            wire.start(card.mac)
        self.flows()

    def flows(self):
        """Until more has come than before, on every way."""
        def seen():
            return [len(card.wire.got) for card in self.by_hand()] + \
                [self.vif(card.name)["rx_frames"] for card in self.card.values()]
        before = seen()
        self.wait(lambda: all(now > old + 20 for now, old in zip(seen(), before)),
                  lambda: f"traffic flows: {before}, now {seen()}")

    def end_traffic(self, returns=0):
        """The stream's bytes and each message: complete, once, in order, and as the cards have counted.
        returns: how often the guest went back to one and the same past."""
        for card in self.by_hand():
            card.wire.paused.set()
        self.run_in("touch /tmp/end")
        for process in self.stream:
            result = process.wait(DEADLINE)
            self.assertEqual((result.rc, result.err), (0, ""))
        sums = [self.run_in(f"cut -d' ' -f1 /tmp/sum.{end}") for end in ("in", "out")]
        self.assertEqual(len(sums[0]), 65)
        self.assertEqual(sums[0], sums[1])
        for card in self.by_hand():
            with self.subTest(card=card.name):
                self.check_sent(card, returns)
                self.check_received(card, returns)

    def moved_frames(self, card, counter):
        return self.vif(card.name)[counter] - self.before[card.name][counter]

    def check_sent(self, card, returns):
        """All that the guest's program has sent came, once in each of its futures."""
        result = self.senders[card.name].wait(DEADLINE)
        self.assertEqual((result.rc, result.err), (0, ""))
        sent, wire = int(result.out), card.wire
        wanted = message(sent - 1, len(LETTERS))
        self.wait(lambda: wire.got[-1] == wanted, lambda: f"{sent} messages of {card.name}, now "
                  f"{wire.got[-1][:8]}; {self.vif(card.name)}")
        expected, returned = 0, []
        for text in wire.got:
            number = int(text[:8])
            self.assertEqual(text, message(number, len(LETTERS)))
            if number != expected:
                self.assertLess(number, expected, "lost")
                returned.append(number)
            expected = number + 1
        self.assertEqual((expected, len(returned), len(set(returned))), (sent, returns, min(returns, 1)),
                         returned)
        self.assertEqual(self.moved_frames(card, "tx_frames"), sent + wire.others)

    def check_received(self, card, returns):
        """All that the card has delivered reached the program, once; the wire may have lost some on the way
        to a machine that had moved."""
        wire, count = card.wire, self.moved_frames(card, "rx_frames")

        def lines():
            return int(self.run_in(f"wc -l </tmp/{card.name}.in"))
        self.wait(lambda: lines() >= count, lambda: f"{count} messages to {card.name}, now {lines()}; "
                  + self.run_in("cat /proc/net/udp; grep Udp: /proc/net/snmp; ps | grep socat; df /tmp"))
        texts = self.vm.get(f"/tmp/{card.name}.in").decode().split("\n")[:-1]
        self.assertEqual(len(texts), count)
        numbers = [int(text[:8]) for text in texts]
        self.assertEqual(numbers, sorted(set(numbers)), "none twice, none out of order")
        for number, text in zip(numbers, texts):
            self.assertEqual(text, message(number, wire.MOST))
        if not returns:
            self.assertLess(wire.next - len(numbers), 50 * (wire.moves + 1), "more lost than a socket holds")
