# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs of "bench scaling --vms": each has a VIF of one svio-board, and beside it NICs that are joined by
QEMU's own ways to do so without privilege. Round trips and rates are measured between pairs of VMs, (1, 2),
(3, 4) and so on, all at once; one VM alone sends to a second NIC of its own, in a namespace.
"""
import random
import shutil
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from svio_tool import fleet, latency, ui
from svio_tool.latency import CELLS_SH, SOCKPERF_PORT, TX_SIZE
from svio_tool.several import rates_of, streams_of, trips_of, udp_received
from svio_tool.ui import SvioError
from svio_tool.vm import QEMU, cpu_seconds_of, end_with_us

NAME = "scaling-vms"
MEMORY = 320                # MiB of each VM: the held programs need some
SELF = 201                  # the number of VM 1's second NIC
RTT_SIZE = 64
KINDS = ("trip", "tcp", "rate")     # round trips, a TCP stream, datagrams as fast as the sender can
PATIENCE = 30


@dataclass(frozen=True)
class Way:
    """A way to join VMs; `straight`: only two of them, or VM 1 with itself, and no one else."""
    name: str
    index: int
    title: str
    straight: bool = False

    def ip(self, number):
        return f"10.{90 + self.index}.0.{number}"

    def mac(self, number):
        return f"52:54:00:77:{self.index:02x}:{number:02x}"


SVIO = Way("svio", 0, "svio-vif, one svio-board")
WAYS = (SVIO,
        Way("mcast", 1, "virtio-net, -netdev socket,mcast="),
        Way("stream-hub", 2, "virtio-net, -netdev stream, a hub process"),
        Way("dgram-hub", 3, "virtio-net, -netdev dgram, a hub process"),
        Way("dgram", 4, "virtio-net, -netdev dgram, straight to the other", True))


@dataclass(frozen=True)
class Settings:
    counts: tuple = (1, 2, 4, 8)
    ways: tuple = WAYS
    seconds: int = 3        # of each measurement; of a ping-pong sockperf drops the first 400 ms
    cores: int = 1          # of the board

    @property
    def vms(self):
        return max(self.counts)

    def plan(self):
        """[(way, VMs)]"""
        return [(way, count) for way in self.ways for count in self.counts]


def pairs(count):
    """[(VM that sends, number of the NIC that answers)]"""
    return [(1, SELF)] if count == 1 else [(number, number + 1) for number in range(1, count, 2)]


def free_group():
    """A multicast group of our own: an address by chance, and a port that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"239.255.{random.randrange(1, 255)}.{random.randrange(1, 255)}:{port}"


class Wires:
    """Netdevs of the ways of QEMU's; what joins stream and dgram is a QEMU without a machine, whose net hub
    repeats each frame to all others, as mcast does."""

    def __init__(self, folder, settings):
        self.folder, self.group, self.process = folder, free_group(), None
        self.settings = settings
        self.numbers = [*range(1, settings.vms + 1), SELF]

    def _path(self, way, number, end):
        return f"{self.folder}/{way.name}.{number}.{end}"

    def netdev(self, way, number):
        """Of the NIC with this number."""
        net = f"id={way.name}-{number}"
        near, far = (self._path(way, number, end) for end in ("vm", "hub"))
        if way.straight:
            far = self._path(way, number + 1 if number % 2 else number - 1, "vm")
        if way.name == "mcast":
            return f"socket,{net},mcast={self.group},localaddr=127.0.0.1"
        if way.name == "stream-hub":
            return f"stream,{net},server=off,addr.type=unix,addr.path={far}"
        return f"dgram,{net},local.type=unix,local.path={near},remote.type=unix,remote.path={far}"

    def start_hub(self):
        words = [QEMU, "-name", "svio-hub", "-nodefaults", "-no-user-config", "-display", "none",
                 "-machine", "none"]
        ways = [way for way in self.settings.ways if way.name.endswith("-hub")]
        for way in ways:
            for number in self.numbers:
                net = f"{way.name}-{number}"
                near, far = (self._path(way, number, end) for end in ("hub", "vm"))
                words += ["-netdev", f"stream,id={net},server=on,addr.type=unix,addr.path={near}"
                          if way.name == "stream-hub" else
                          f"dgram,id={net},local.type=unix,local.path={near},"
                          f"remote.type=unix,remote.path={far}",
                          "-netdev", f"hubport,id=hub-{net},hubid={way.index},netdev={net}"]
        log = open(self.folder / "hub.log", "wb")
        with log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True, preexec_fn=end_with_us())
        deadline = time.monotonic() + PATIENCE
        ends = [Path(self._path(way, number, "hub")) for way in ways for number in self.numbers]
        while not all(end.exists() for end in ends):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SvioError("The hub, a QEMU without a machine, did not start",
                                (self.folder / "hub.log").read_text(errors="replace"))
            time.sleep(0.01)
        return words

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


GUEST_SH = r"""
for path in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$path; done
find_dev() {
    dev=$(grep -l "$1" /sys/class/net/*/address | cut -d/ -f5)
    [ -n "$dev" ] || { echo "no interface has $1" >&2; exit 1; }
}
own() { find_dev $1; ip address add $2/24 dev $dev && ip link set $dev up || exit 1; }
second() {      # in a namespace
    find_dev $1
    ip link set $dev netns self || exit 1
    ip netns exec self sh -c "echo 1 >/proc/sys/net/ipv6/conf/$dev/disable_ipv6"
    ip -n self address add $2/24 dev $dev && ip -n self link set $dev up || exit 1
}
serve() {       # prefix of the command, its number
    $1 sockperf server -p PORT >/tmp/server$2.out 2>&1 </dev/null &
    $1 iperf3 -s -D -I /tmp/iperf$2.pid
}
""".replace("PORT", str(SOCKPERF_PORT))


class Lab:
    """The VMs, the board and the hub."""

    def __init__(self, settings=Settings(), name=NAME):
        self.settings, self.name, self.stack = settings, name, ExitStack()
        self.folder = self.fleet = self.wires = None
        self.hub_line = []

    def __enter__(self):
        with ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="svio-wire-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.wires = Wires(self.folder, self.settings)
            stack.callback(self.wires.stop)
            self.hub_line = self.wires.start_hub()
            self.fleet = fleet.Fleet.start(self.settings.vms, cores=self.settings.cores, detached=False,
                                           name=self.name, memory=MEMORY, more=self._more)
            stack.callback(self.fleet.stop)
            # One at a time is what an agent can do; each VM has one.
            self.pool = stack.enter_context(ThreadPoolExecutor(self.settings.vms))
            with ui.Progress("NICs in the guests come up"):
                self._each(self.fleet.vms, self._prepare)
                self._check()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *what):
        return self.stack.__exit__(*what)

    def numbers_of(self, way, number):
        """Of the NICs that this VM has for the way."""
        if way.straight:
            alone = number % 2 and number == self.settings.vms
            return [] if alone else [number]
        return [number, SELF] if number == 1 else [number]

    def _more(self, number, board):
        """The NICs of VM `number`, beside its VIF."""
        nics, netdevs = [], []
        for way in self.settings.ways:
            for one in self.numbers_of(way, number):
                if way is SVIO:
                    if one == SELF:
                        nics.append(fleet.vif_device("svio1", board, way.mac(SELF)))
                    continue
                netdevs.append(self.wires.netdev(way, one))
                # Nothing boots from the network: without its boot ROM a NIC needs no further package.
                nics.append(f"virtio-net-pci,netdev={way.name}-{one},mac={way.mac(one)},romfile=")
        # See latency.py for the clock.
        return {"nics": nics, "netdevs": netdevs, "append": "tsc=reliable"}

    def _prepare(self, vm):
        words = [GUEST_SH]
        if vm.number == 1:
            words.append("ip netns add self && ip -n self link set lo up")
        for way in self.settings.ways:
            for one in self.numbers_of(way, vm.number):
                card = self.mac(way, one)
                words.append(f"{'second' if one == SELF else 'own'} {card} {way.ip(one)}")
        words += ["serve '' 0", "mkdir -p /tmp/cells"]
        if vm.number == 1:
            words.append("serve 'ip netns exec self' 1")
        vm.run("\n".join(words), timeout=300)
        vm.put("/tmp/cells.sh", CELLS_SH.encode())

    @staticmethod
    def mac(way, number):
        """The first VIF of a VM has its address from the fleet."""
        return fleet.mac(number) if way is SVIO and number != SELF else way.mac(number)

    def _each(self, vms, task):
        return list(self.pool.map(task, vms))

    def possible(self, way, count):
        return not (way.straight and count == 1)

    def _check(self):
        """Each pair reaches each other in each way."""
        for way in self.settings.ways:
            for count in self.settings.counts:
                if self.possible(way, count):
                    for source, target in pairs(count):
                        self.fleet.vm(source).run(f"ping -c 2 -i 0.2 -W 5 -q {way.ip(target)}", timeout=60)

    # --- measuring --------------------------------------------------------------------------------

    def arm(self, way):
        """All programs of this way started and held, in each VM that sends."""
        programs = {}
        for count in self.settings.counts:
            if self.possible(way, count):
                for source, target in pairs(count):
                    common = f"-i {way.ip(target)} -p {SOCKPERF_PORT} -t {self.settings.seconds}"
                    programs[source] = programs.get(source, "") + (
                        f"trip-{count} sockperf ping-pong {common} -m {RTT_SIZE} --full-rtt\n"
                        f"rate-{count} sockperf throughput {common} -m {TX_SIZE}\n")
        self._each(sorted(programs), lambda number: latency.arm(self.fleet.vm(number), programs[number]))

    def cell(self, way, count, kind):
        """One measurement: of all pairs at once."""
        both = pairs(count)
        before = self._counted(both)
        spawned = [self.fleet.vm(source).spawn(
            f"iperf3 -J -c {way.ip(target)} -t {self.settings.seconds} --connect-timeout 5000"
            if kind == "tcp" else latency.go_words(f"{kind}-{count}")) for source, target in both]
        time.sleep(self.settings.seconds)       # questions to the guests would disturb it
        results = [process.wait(self.settings.seconds + 60) for process in spawned]
        time.sleep(0.1)                         # what is on its way yet
        after = self._counted(both)
        texts = []
        for result, (source, _) in zip(results, both):
            if result.rc:
                raise SvioError(f"Measuring {way.name} with {count} VMs failed in VM {source}",
                                result.out[-2000:] + result.err)
            texts.append(result.out)
        cell = {"way": way.name, "vms": count,
                "cpu_s": {name: after["cpu"][name] - before["cpu"][name] for name in after["cpu"]}}
        if kind == "trip":
            return {**cell, "size": RTT_SIZE, **trips_of(texts)}
        if kind == "tcp":
            return {**cell, **streams_of(texts)}
        received = [new - old for new, old in zip(after["received"], before["received"])]
        return {**cell, "size": TX_SIZE, **rates_of(texts, received)}

    def _counted(self, both):
        def received(target):
            where = "ip netns exec self " if target == SELF else ""
            return udp_received(self.fleet.vm(1 if target == SELF else target).run(
                f"{where}cat /proc/net/snmp").out)
        return {"received": self._each([target for _, target in both], received), "cpu": self.cpu_s()}

    def cpu_s(self):
        """CPU seconds so far."""
        return {"vms": sum(vm.process_cpu_seconds() for vm in self.fleet.vms),
                "board": cpu_seconds_of(f"/proc/{self.fleet.board.process.pid}/stat"),
                "hub": cpu_seconds_of(f"/proc/{self.wires.process.pid}/stat")}

    def problems(self):
        return [f"VM {vm.number}: {line}" for vm in self.fleet.vms for line in vm.kernel_problems()]


def measure(lab, rounds, seed, on_round):
    """on_round gets {kind: cells} of the whole rounds so far."""
    shuffle, cells = random.Random(seed), {kind: [] for kind in KINDS}
    for number in range(1, rounds + 1):
        words = f"VM to VM, round {number} of {rounds}"
        found = {kind: [] for kind in KINDS}
        with ui.Progress(words) as progress:
            for way in shuffle.sample(lab.settings.ways, len(lab.settings.ways)):
                progress.title = f"{words}: {way.name}, start-up of the guests' programs"
                lab.arm(way)
                plan = [(count, kind) for count in lab.settings.counts for kind in found
                        if lab.possible(way, count)]
                for count, kind in shuffle.sample(plan, len(plan)):
                    progress.title = f"{words}: {way.name}, {kind}, {count} VMs"
                    found[kind].append({"round": number, **lab.cell(way, count, kind)})
            progress.title = words
        for kind, more in found.items():
            cells[kind] += more
        on_round(cells)
