# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM of "bench scaling", and the measurements on it.

One guest has a board with many VFs, each with a VIF; its native wire ends in a svio-wire-peer. A second
board on a wire of its own takes floods that the first does not see, and two virtio-net NICs on a QEMU hub
are what two VIFs of the board are compared with. A fixed set of programs with one UDP socket each sends
all the time; the guest's routes say which VIF a socket goes through, so the programs are the same for any
number of VIFs.
"""
import random
import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from svio_tool import latency, scaling_stats, ui
from svio_tool.latency import CELLS_SH, DISCARD_PORT, SOCKPERF_PORT, WARM_SH, WirePeer, \
    cpu_difference
from svio_tool.management import ManagementSocket
from svio_tool.ui import SvioError
from svio_tool.vm import Vm

FIRST_PORT = 20000          # flow k sends from this + k
PF, PF_MAC, OTHER_MAC = "pf0", "52:54:00:73:77:01", "52:54:00:73:77:02"
PEER, OTHER_PEER, OTHER_IP = "10.77.0.1", "10.79.0.1", "10.79.0.2"     # the peer on the two wires
FLOOD_SIZE = 64
QUIET, FLOODED = 1, 2       # slots
PAIR = ("10.80.0.1", "10.80.0.2")               # two VIFs in namespaces of their own
HUB_PAIR = ("10.81.0.1", "10.81.0.2")           # two virtio-net NICs likewise

# (load, size, namespace, address, what floods meanwhile)
TRIPS = (("alone", 64, None, PEER, None), ("flood-here", 64, None, PEER, "here"),
         ("flood-elsewhere", 64, None, PEER, "elsewhere"),
         ("vifs-64", 64, "vif-a", PAIR[1], None), ("hub-64", 64, "hub-a", HUB_PAIR[1], None),
         ("vifs-1400", 1400, "vif-a", PAIR[1], None), ("hub-1400", 1400, "hub-a", HUB_PAIR[1], None))

# Starts every program and stops it at once: all together they would not let the last ones start. sockperf
# pauses for two seconds before it sends, and that passes while it is stopped.
FLOWS_SH = WARM_SH + r"""
mkdir -p /tmp/flows && cd /tmp/flows || exit 1
while read -r name line; do
    $line >"$name.out" 2>&1 </dev/null &
    pid=$!
    warm "$name"
    kill -STOP $pid && echo $pid >"$name.pid" || exit 1
done
sleep 2.1
"""

GUEST_SH = r"""
set -e
find_dev() {
    for path in /sys/class/net/*; do
        read -r mac <$path/address
        [ "$mac" = "$1" ] && { echo "${path##*/}"; return; }
    done
    echo "no interface has $1" >&2; exit 1
}
into() {        # device, its new name, namespace, address
    on=
    if [ -n "$3" ]; then
        ip netns add $3
        ip link set $1 netns $3
        on="-n $3"
    fi
    ip $on link set $1 name $2
    ip $on address add $4 dev $2
}
for name in all default; do echo 1 >/proc/sys/net/ipv6/conf/$name/disable_ipv6; done
"""


@dataclass(frozen=True)
class Settings:
    counts: tuple = (1, 2, 4, 8, 16, 32)
    flows: int = 32
    size: int = 1400            # of a datagram
    equal: int = 8              # VIFs of the same weight
    weights: tuple = (1, 2, 3, 4)
    seconds: float = 2          # of each window in which datagrams are counted
    settle: float = 0.7         # before it
    trip_seconds: int = 2       # of each ping-pong; sockperf drops the first 400 ms
    kernel: str = "6.12"

    @property
    def vifs(self):
        """Of the board: those that send to the wire, and two that talk to each other."""
        return max(*self.counts, self.equal, len(self.weights), FLOODED) + 2


def flow_ip(flow):
    return f"10.77.{1 + flow // 250}.{1 + flow % 250}"


def vif_ip(vif):
    return f"10.77.0.{vif + 1}"


class Lab:
    """The VM and the peer. "port_mbps" limits what the board sends to its wire; with "others" the VM has
    the second board and the NICs on the hub as well."""

    def __init__(self, settings, port_mbps=0, others=True, name="scaling"):
        self.settings, self.port_mbps, self.others, self.name = settings, port_mbps, others, name
        self.stack = ExitStack()
        self.folder = self.vm = self.peer = self.flooded_mac = None

    def __enter__(self):
        with ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="svio-wire-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.peer = stack.enter_context(WirePeer(self._wires()))
            self.vm = stack.enter_context(self._vm())
            self._prepare_guest()
            self._start_flows()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *what):
        return self.stack.__exit__(*what)

    # --- what it is made of -----------------------------------------------------------------------

    def _ends(self, wire):
        return f"{self.folder}/{wire}.vm", f"{self.folder}/{wire}.peer"

    def _wires(self):
        wires = [("main", f"{PEER}/16"), ("other", OTHER_PEER)]
        return [f"{wire},{self._ends(wire)[1]},{self._ends(wire)[0]},{ip}" for wire, ip in wires]

    def _board(self, name, wire, mac, more=""):
        return f"svio-nic,id={name},port=dgram:{self._ends(wire)[0]},,{self._ends(wire)[1]},mac={mac}{more}"

    def _vm(self):
        limit = f",port-mbps={self.port_mbps}" if self.port_mbps else ""
        nics = ["pcie-root-port,id=scaling-port,chassis=61,slot=61",
                self._board("svio0", "main", PF_MAC, f",bus=scaling-port,vifs={self.settings.vifs},queues=1,"
                                                     f"mgmt={self.folder}/mgmt{limit}")]
        netdevs = []
        if self.others:
            nics.append(self._board("svio1", "other", OTHER_MAC, ",queues=1"))
            for number in range(2):
                netdevs.append(f"hubport,id=hub{number},hubid=1")
                nics.append(f"virtio-net-pci,netdev=hub{number},mac=52:54:00:73:77:1{number},romfile=")
        # See latency.py for the clock.
        return Vm(self.name, nics=nics, netdevs=netdevs, kernel=self.settings.kernel, smp=1, memory=1024,
                  append="tsc=reliable")

    def management(self):
        return ManagementSocket(f"{self.folder}/mgmt")

    # --- the guest --------------------------------------------------------------------------------

    def _prepare_guest(self):
        count = self.settings.vifs
        words = [GUEST_SH, f"ip link set $(find_dev {PF_MAC}) name {PF}; ip link set {PF} up",
                 f"folder=/sys/class/net/{PF}/device; echo {count} >$folder/sriov_numvfs",
                 # Devices are probed while that is written; their names may come a moment later.
                 f"for n in $(seq 0 {count - 1}); do for try in $(seq 500); do",
                 "[ -d $folder/virtfn$n/net ] && break; usleep 20000; done",
                 "ip link set $(ls $folder/virtfn$n/net) name vf$((n + 1)) txqueuelen 4000; done"]
        for vif in range(1, count - 1):
            words.append(f"ip address add {vif_ip(vif)}/32 dev vf{vif}")
        words += [f"into vf{count - 1} vf-a vif-a {PAIR[0]}/24", f"into vf{count} vf-b vif-b {PAIR[1]}/24"]
        if self.others:
            words += [f"into $(find_dev {OTHER_MAC}) other '' {OTHER_IP}/24"]
            words += [f"into $(find_dev 52:54:00:73:77:1{number}) hub-{end} hub-{end} {HUB_PAIR[number]}/24"
                      for number, end in enumerate("ab")]
        words.append(f"cat /sys/class/net/vf{FLOODED}/address")
        self.flooded_mac = self.vm.run("\n".join(words), timeout=300).out.split()[-1]
        self._use(1)

    def _use(self, count, pair=False):
        """The first VIFs are up, all flows have a route through them, the rest of the VIFs is down."""
        last = self.settings.vifs - 2
        placed = scaling_stats.spread_flows(self.settings.flows, count)
        lines = [f"link set vf{vif} up" for vif in range(1, count + 1)]
        lines.append(f"route replace {PEER}/32 dev vf{QUIET} src {vif_ip(QUIET)}")
        lines += [f"route replace {flow_ip(flow)}/32 via {PEER} dev vf{vif} onlink src {vif_ip(vif)}"
                  for flow, vif in placed.items()]
        lines += [f"link set vf{vif} down" for vif in range(count + 1, last + 1)]
        state = "up" if pair else "down"
        words = ["ip -batch - || exit 1"]
        ends = [(f"-n vif-{end}", f"vf-{end}") for end in "ab"]
        if self.others:
            ends += [(f"-n hub-{end}", f"hub-{end}") for end in "ab"] + [("", "other")]
        words += [f"ip {where} link set {dev} {state}" for where, dev in ends]
        used = " ".join(f"vf{vif}" for vif in range(1, count + 1))
        words.append(f"for dev in {used}; do for try in $(seq 500); do "
                     "read -r on </sys/class/net/$dev/carrier; [ $on = 1 ] && break; usleep 20000; "
                     "done; done")
        self.vm.run("\n".join(words), timeout=300, stdin=("\n".join(lines) + "\n").encode())
        return placed

    def _start_flows(self):
        settings = self.settings
        lines = [f"{flow} sockperf throughput -i {flow_ip(flow)} -p {DISCARD_PORT} -m {settings.size} "
                 f"-t 36000 --client_port {FIRST_PORT + flow}\n" for flow in range(1, settings.flows + 1)]
        self.vm.put("/tmp/flows.sh", FLOWS_SH.encode())
        self.vm.run("sh /tmp/flows.sh", timeout=600, stdin="".join(lines).encode())
        self.vm.run("mkdir -p /tmp/cells")
        self.vm.put("/tmp/cells.sh", CELLS_SH.encode())
        if self.others:
            for where, ip in (("vif-b", PAIR[1]), ("hub-b", HUB_PAIR[1])):
                self.vm.run(f"ip netns exec {where} sockperf server -i {ip} -p {SOCKPERF_PORT} "
                            f">/tmp/{where}.out 2>&1 </dev/null &")

    def _signal_flows(self, name):
        self.vm.run(f"kill -{name} $(cat /tmp/flows/*.pid)", timeout=120)

    # --- datagrams that the guest sends -------------------------------------------------------------

    def _counted(self):
        peer = self.peer.ask("counters")
        return {"sink": peer["wires"]["main"]["sink"]["datagrams"], "peer_ns": peer["now_ns"],
                "peer_cpu": peer["cpu_s"], "board": self.vm.stats("svio0"), "at": time.monotonic(),
                "threads": self.vm.thread_cpu_seconds()}

    def send(self, count):
        """All flows at once through so many VIFs: what arrived, and how it was shared."""
        placed = self._use(count)
        ports = {flow: FIRST_PORT + flow for flow in placed}
        self._signal_flows("CONT")
        try:
            time.sleep(self.settings.settle)
            waiting = [self._backlog(ports, placed)]
            before = self._counted()
            time.sleep(self.settings.seconds)
            after = self._counted()
            waiting.append(self._backlog(ports, placed))
        finally:
            self._signal_flows("STOP")
        return self._sent(count, before, after, waiting)

    def _backlog(self, ports, placed):
        return scaling_stats.backlog(self.vm.run("cat /proc/net/udp").out, ports, placed)

    def _sent(self, count, before, after, waiting):
        seconds = (after["peer_ns"] - before["peer_ns"]) / 1e9
        board_seconds = after["at"] - before["at"]
        found = {name: {slot: value for slot, value in
                        scaling_stats.vif_difference(before["board"], after["board"], f"tx_{name}").items()
                        if 0 < slot <= count} for name in ("frames", "bytes")}
        silent = [slot for slot in range(1, count + 1) if not found["frames"].get(slot)]
        if silent:
            raise SvioError(f"Nothing was sent through VIF {silent[0]} of {count}",
                            self.vm.run("ip -s link; tail -n 3 /tmp/flows/*.out").out[-3000:])
        cpu = cpu_difference(before["threads"], after["threads"])
        cpu["peer"] = after["peer_cpu"] - before["peer_cpu"]
        rate = (after["sink"] - before["sink"]) / seconds
        return {"vifs": count, "seconds": seconds, "per_s": rate,
                "mbit_per_s": latency.mbit_per_s(rate, self.settings.size),
                "board_per_s": sum(found["frames"].values()) / board_seconds,
                "board_mbit_per_s": sum(found["bytes"].values()) * 8e-6 / board_seconds,
                "frames": found["frames"], "bytes": found["bytes"], "cpu_s": cpu,
                "backlogged": all(row.get(slot, 0) > 0 for row in waiting for slot in range(1, count + 1))}

    def share(self, load, weights):
        """All flows through VIFs with these weights, against the port's limit."""
        with self.management() as management:
            for slot, weight in enumerate(weights, 1):
                management.ask("vif-set", slot=slot, set={"weight": weight})
        cell = {"load": load, "weights": list(weights), **self.send(len(weights))}
        cell["port_used"] = cell["board_mbit_per_s"] / self.port_mbps
        return cell

    # --- round trips --------------------------------------------------------------------------------

    def prepare_trips(self):
        """Everything up, and all programs started and held."""
        self._use(FLOODED, pair=True)
        for where, ip in {(where, ip) for _, _, where, ip, _ in TRIPS}:
            self.vm.run((f"ip netns exec {where} " if where else "") + f"ping -c 3 -i 0.2 -W 5 -q {ip}")
        programs = "".join(
            f"{load} {f'ip netns exec {where} ' if where else ''}sockperf ping-pong -i {ip} "
            f"-t {self.settings.trip_seconds} -p {SOCKPERF_PORT} -m {size} --full-rtt\n"
            for load, size, where, ip, _ in TRIPS)
        latency.arm(self.vm, programs)

    def trip(self, load, size, flood):
        """One ping-pong, with its flood."""
        wire = "other" if flood == "elsewhere" else "main"
        with self._flood(flood, wire):
            before = self._flooding(wire)
            process = self.vm.spawn(f". /tmp/cells.sh && go {load}")
            time.sleep(self.settings.trip_seconds)
            after = self._flooding(wire)
            result = process.wait(self.settings.trip_seconds + 60)
        if result.rc:
            raise SvioError(f"The ping-pong \"{load}\" failed in the guest", result.out[-2000:] + result.err)
        cell = {"load": load, "size": size, **latency.parse_ping_pong(result.out.split("=====\n", 2)[2])}
        cpu = cpu_difference(before["threads"], after["threads"])
        cell["cpu_s"] = {**cpu, "peer": after["peer_cpu"] - before["peer_cpu"]}
        if flood:
            spent = after["at"] - before["at"]
            cell.update({f"flood_{name}_per_s": (after[name] - before[name]) / spent
                         for name in ("sent", "delivered", "dropped")})
        return cell

    @contextmanager
    def _flood(self, flood, wire):
        if not flood:
            yield
            return
        target = (self.flooded_mac, vif_ip(FLOODED)) if flood == "here" else (OTHER_MAC, OTHER_IP)
        answer = self.peer.ask(f"flood {wire} {target[0]} {target[1]} {FLOOD_SIZE}")
        if "error" in answer:
            raise SvioError(f"The wire peer does not flood: {answer['error']}")
        try:
            time.sleep(self.settings.settle)
            yield
        finally:
            self.peer.ask(f"flood {wire} off")

    def _flooding(self, wire):
        """Of the VIF that is flooded: the second of the first board, or the second board's own."""
        name, slot = ("svio0", str(FLOODED)) if wire == "main" else ("svio1", "0")
        vif = self.vm.stats(name)["vifs"][slot]
        peer = self.peer.ask("counters")
        return {"at": time.monotonic(), "delivered": vif["rx_frames"], "dropped": vif["drop_rx_no_buffer"],
                "sent": peer["wires"][wire]["flood_sent"], "peer_cpu": peer["cpu_s"],
                "threads": self.vm.thread_cpu_seconds()}


# --- rounds ----------------------------------------------------------------------------------------

def in_rounds(rounds, title, one, on_round):
    """on_round gets {kind: cells} of the whole rounds so far; one() is a round: [(kind, cell)]."""
    cells = {}
    for number in range(1, rounds + 1):
        words = f"{title}, round {number} of {rounds}"
        with ui.Progress(words) as progress:
            def report(text):
                progress.title = f"{words}: {text}"
            for kind, cell in one(report):
                cells.setdefault(kind, []).append({"round": number, **cell})
            progress.title = words
        on_round(cells)


def measure(lab, rounds, seed, on_round):
    """Rates by number of VIFs ("rate"), and round trips ("trip")."""
    shuffle = random.Random(seed)

    def one(report):
        found = []
        for count in shuffle.sample(lab.settings.counts, len(lab.settings.counts)):
            report(f"{lab.settings.flows} flows over {count} VIFs")
            found.append(("rate", lab.send(count)))
        report("start-up of the guest's programs")
        lab.prepare_trips()
        for load, size, _, _, flood in shuffle.sample(TRIPS, len(TRIPS)):
            report(f"round trips, {load}")
            found.append(("trip", lab.trip(load, size, flood)))
        return found

    in_rounds(rounds, "rate, isolation and latency", one, on_round)


def measure_fairness(lab, rounds, seed, on_round):
    """Shares of the limited port ("share")."""
    shuffle = random.Random(seed)
    loads = (("equal", (1,) * lab.settings.equal), ("weighted", lab.settings.weights))

    def one(report):
        found = []
        for load, weights in shuffle.sample(loads, len(loads)):
            report(f"{len(weights)} VIFs, {load}")
            found.append(("share", lab.share(load, weights)))
        return found

    in_rounds(rounds, f"fairness at {lab.port_mbps} Mbit/s", one, on_round)
