# SPDX-License-Identifier: GPL-2.0-or-later
"""Request/response latency and transmit rate of several NICs in one VM, against one peer process.

All NICs sit in the same guest, each on a wire of its own, and every wire ends in the same svio-wire-peer
process. A round visits every NIC in a shuffled order; sockperf in the guest measures, the peer counts
what arrived, and QEMU's threads and the board's counters are read before and after each measurement.
Latencies are full round trips in microseconds.
"""
import functools
import json
import math
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from svio_tool import ui
from svio_tool.paths import WIRE_PEER
from svio_tool.ui import SvioError
from svio_tool.vm import Vm

SIZES = (64, 1400)
TX_SIZE = 1400
HEADERS = 42                # Ethernet, IPv4, UDP
SECONDS = 1                 # of each measurement; of a ping-pong sockperf drops the first 400 ms
DISCARD_PORT = 9
SOCKPERF_PORT = 11111
BASELINE = ("virtio-net-pci", "netdev")

# sockperf sleeps for two seconds between its start and its test. The processes of a round take that pause
# together: each is stopped in its sleep and continued when its turn comes, and then starts at once. They are
# started one after the other: all at once, on a busy host, the first would wake before it is stopped.
WARM_SH = r"""
warm() {        # until NAME.out says that sockperf sleeps
    tries=0
    until grep -q "Warmup stage" "$1.out" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -gt 1000 ] && { cat "$1.out" >&2; exit 1; }
        usleep 20000
    done
}
"""

CELLS_SH = WARM_SH + r"""
cd /tmp/cells || exit 1
start() {
    mkfifo "$1.done"
    ( $2 >"$1.out" 2>&1 & echo $! >"$1.pid"; wait $!; echo $? >"$1.done" ) >/dev/null 2>&1 </dev/null &
}
launch() {      # lines "name command"
    while read -r name line; do
        start "$name" "$line"
        warm "$name"
        kill -STOP "$(cat "$name.pid")" || exit 1
    done
}
held() { ! grep -l "Starting test" ./*.out >&2; }
arm() {
    begin=$(cut -d. -f1 /proc/uptime)
    launch
    # The sleep of the first is over before its turn comes, and that of each of the others in the second or
    # more that each turn before its own takes: unless there are few, or they were started quickly.
    set -- ./*.pid
    [ $# -ge 6 ] && [ $(($(cut -d. -f1 /proc/uptime) - begin)) -ge 4 ] || sleep 2.1
    held
}
go() {
    pid=$(cat "$1.pid")
    cat /proc/interrupts; echo =====
    kill -CONT "$pid"; read -r status <"$1.done"
    cat /proc/interrupts; echo =====
    cat "$1.out"
    return "$status"
}
clean() {
    for pid in $(cat ./*.pid 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
    rm -f ./*
}
"""

PAUSE = 2.1                 # seconds: sockperf's own sleep is over


def go_words(name, first=""):
    """As the go of CELLS_SH, but nothing else runs in the guest: with more of them than CPUs that delays
    those who have begun. `first` is run before, and nothing is started between it and the program."""
    return f"cd /tmp/cells && read -r pid <{name}.pid || exit 1; {first}kill -CONT $pid && " \
        f"read -r rc <{name}.done; cat {name}.out; exit $rc"


@dataclass(frozen=True)
class Row:
    """One NIC on one kind of wire: a row of the tables."""
    nic: str
    port: str               # "netdev": a QEMU netdev; "native": the on-board core owns the wire
    wire: str               # name of the wire at the peer
    index: int
    folder: Path
    on_board: bool

    @property
    def key(self):
        return f"{self.nic}/{self.port}"

    @property
    def on_tap(self):
        """Its wire is a TAP interface, of which the peer has the kernel's end."""
        return False

    @property
    def mac(self):
        return f"52:54:00:73:76:{self.index:02x}"

    @property
    def guest_ip(self):
        return f"10.77.{self.index}.2"

    @property
    def peer_ip(self):
        return f"10.77.{self.index}.1"

    @property
    def qom_id(self):
        return f"nic-{self.wire}"

    def _ends(self):
        return f"{self.folder}/{self.wire}.vm", f"{self.folder}/{self.wire}.peer"

    def netdev(self):
        if self.port == "native":
            return None
        near, far = self._ends()
        return (f"dgram,id=wire-{self.wire},local.type=unix,local.path={near},"
                f"remote.type=unix,remote.path={far}")

    def wire_words(self):
        """The device's property that joins it to its wire."""
        near, far = self._ends()
        # A comma inside of a value is written twice on QEMU's command line.
        return f"port=dgram:{near},,{far}" if self.port == "native" else f"netdev=wire-{self.wire}"

    def device(self):
        # Nothing boots from the network: without its boot ROM a NIC needs no further package.
        rom = "" if self.on_board or self.nic == "xen-net-device" else ",romfile="
        return f"{self.nic},id={self.qom_id},{self.wire_words()},mac={self.mac}{rom}"

    def peer_argument(self):
        near, far = self._ends()
        return f"{self.wire},{far},{near},{self.peer_ip}"


def standard_rows(folder, on_board=True):
    rows = [Row("virtio-net-pci", "netdev", "virtio", 1, folder, False)]
    if on_board:
        rows += [Row("svio-nic", "netdev", "svio", 2, folder, True),
                 Row("svio-nic", "native", "svio-native", 3, folder, True)]
    return rows


class WirePeer:
    """The peer process. It ends with us in any case: the end of its standard input ends it.

    Its wires are rows of the table, or texts as the program takes them; "before" are words before the
    program's own."""

    def __init__(self, rows, program=WIRE_PEER, before=()):
        if not Path(program).exists():
            raise SvioError("The wire peer is not built yet: run scripts/svio setup.")
        words = [*before, str(program)]
        for row in rows:
            words += ["--wire", row if isinstance(row, str) else row.peer_argument()]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *ignored):
        self.close()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SvioError("The wire peer ended unexpectedly", self.process.stderr.read().strip())
        return json.loads(line)

    def ask(self, command):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except OSError:
            pass            # the missing answer says it
        return self._answer()

    def close(self):
        try:
            self.process.stdin.close()
        except OSError:
            pass
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


# --- reading what programs print -----------------------------------------------------------------

def parse_ping_pong(text):
    """What sockperf ping-pong --full-rtt says: percentiles, mean, longest, and how many it looked at."""
    mean = re.search(r"Summary: Round trip is ([\d.]+) usec", text)
    valid = re.search(r"\[Valid Duration\].*ReceivedMessages=(\d+)", text)
    dropped = re.search(r"# dropped messages = (\d+)", text)
    longest = re.search(r"<MAX> observation\s*=\s*([\d.]+)", text)
    found = {float(part): float(value) for part, value in
             re.findall(r"percentile\s+([\d.]+)\s*=\s*([\d.]+)", text)}
    if not (mean and valid and dropped and longest and {50.0, 90.0, 99.0} <= found.keys()):
        raise SvioError("sockperf in the guest did not measure round trips", text.strip()[-2000:])
    return {"p50_us": found[50.0], "p90_us": found[90.0], "p99_us": found[99.0], "mean_us": float(mean[1]),
            "max_us": float(longest[1]), "samples": int(valid[1]), "dropped": int(dropped[1])}


def parse_throughput(text):
    """What sockperf throughput says: (datagrams that the guest's socket took, seconds)."""
    sent = re.search(r"Total of (\d+) messages sent in ([\d.]+) sec", text)
    if not sent:
        raise SvioError("sockperf in the guest did not send", text.strip()[-2000:])
    return int(sent[1]), float(sent[2])


def interrupts(text, numbers):
    """Sum over the CPUs of the interrupts with these numbers in /proc/interrupts."""
    total = 0
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        if number.strip() in numbers:
            for word in rest.split():
                if not word.isdigit():
                    break
                total += int(word)
    return total


def flat(value, prefix=""):
    """{"a.b.0.c": number} of nested counters."""
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    else:
        return {prefix[:-1]: value} if isinstance(value, (int, float)) and not isinstance(value, bool) else {}
    total = {}
    for key, part in pairs:
        total.update(flat(part, f"{prefix}{key}."))
    return total


def board_difference(before, after):
    """{counter name: increase}, summed over queues and cores; what a table or a JSON reader looks for."""
    old, totals = flat(before), {}
    for path, value in flat(after).items():
        name = path.rsplit(".", 1)[-1]
        if "stage_times" in path:       # histograms: their buckets have numbers for names
            continue
        totals[name] = totals.get(name, 0) + value - old.get(path, 0)
    return totals


def cpu_difference(before, after):
    """CPU seconds of QEMU's threads by what they are for."""
    total = {"vcpu": 0.0, "on_board": 0.0, "qemu_other": 0.0}
    for name, seconds in after.items():
        if name.startswith("svio-"):
            kind = "on_board"
        elif name.startswith("CPU "):
            kind = "vcpu"
        else:
            kind = "qemu_other"
        total[kind] += seconds - before.get(name, 0.0)
    return total


# --- the host's own speed ------------------------------------------------------------------------

PROBE_STEPS = 20_000


@functools.lru_cache(None)
def _probe_chain():
    order = list(range(1 << 15))        # a megabyte of numbers, more than a core's first cache
    random.Random(1).shuffle(order)
    return order


def probe_ms():
    """How long this host takes for always the same chain of reads, milliseconds: the least of three. What
    /proc/stat does not know, neighbours of a virtual machine in the caches of its CPUs, shows here."""
    chain, least = _probe_chain(), math.inf
    for _ in range(3):
        begin, at = time.perf_counter(), 0
        for _ in range(PROBE_STEPS):
            at = chain[at]
        least = min(least, time.perf_counter() - begin)
    return least * 1000


def speed_spread(cells):
    """How many times as long the slowest tenth of the probes beside these cells took as the quickest."""
    values = sorted(cell["probe_ms"] for cell in cells if "probe_ms" in cell)
    if not values:
        return None
    edge = len(values) // 10
    return values[-1 - edge] / values[edge]


# --- measuring -----------------------------------------------------------------------------------

TRIES = 3


def _armed(attempt):
    """attempt(): the GuestResult of one that failed, or None."""
    for _ in range(TRIES):
        failed = attempt()
        if not failed:
            return
    raise SvioError(f"The programs in the guest could not be started in time {TRIES} times: the host is too "
                    "busy to measure anything.", (failed.out + failed.err).strip())


def _in_cells(vm, words, **options):
    done = vm.run(f"cd /tmp/cells && . /tmp/cells.sh && {words}", timeout=300, check=False, **options)
    return done if done.rc else None


def arm(vm, programs):
    """All programs ("name command" lines) started and held; again where one was not held in time."""
    _armed(lambda: _in_cells(vm, "clean && arm", stdin=programs.encode()))


def arm_each(programs):
    """The same of {VM: its programs} for VMs that share a CPU: one after the other starts its own, and all
    wait together."""
    def attempt():
        for vm, lines in programs.items():
            failed = _in_cells(vm, "clean && launch", stdin=lines.encode())
            if failed:
                return failed
        time.sleep(PAUSE)
        return next(filter(None, (_in_cells(vm, "held") for vm in programs)), None)
    if programs:
        _armed(attempt)


class Bench:
    """The VM, its peer and what to measure on them."""

    def __init__(self, on_board=True, kernel="6.12", seconds=SECONDS, name="latency", peer_program=WIRE_PEER):
        self.on_board, self.kernel, self.seconds, self.name = on_board, kernel, seconds, name
        self.peer_program = peer_program
        self.stack = ExitStack()
        self.rows, self.device_irqs = [], {}
        self.vm = self.peer = self.folder = None

    def __enter__(self):
        with ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="svio-wire-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.rows = self._rows(self.folder)
            self.peer = stack.enter_context(self._peer())
            self.vm = stack.enter_context(self._vm())
            self._prepare_guest()
            self.stack = stack.pop_all()
        return self

    def _rows(self, folder):
        return standard_rows(folder, self.on_board)

    def _peer(self):
        return WirePeer(self.rows, self.peer_program)

    def _vm(self):
        # On a busy host the guest may find its TSC late against the HPET and go over to that: each look
        # at the clock would then be a device access, for all NICs alike, and figures a lottery.
        return Vm(self.name, nics=[row.device() for row in self.rows],
                  netdevs=[row.netdev() for row in self.rows if row.netdev()], kernel=self.kernel,
                  smp=1, memory=768, append="tsc=reliable")

    def __exit__(self, *what):
        return self.stack.__exit__(*what)

    def _prepare_guest(self):
        for row in self.rows:
            # Nothing but what is measured travels on the wires: no router solicitations.
            self.vm.run(f"""
                for path in /sys/class/net/*; do
                    read -r mac <$path/address; [ "$mac" = {row.mac} ] && dev=${{path##*/}}
                done
                [ -n "$dev" ] || {{ echo "no interface has {row.mac}: {row.nic} has no driver" >&2; exit 1; }}
                echo 1 >/proc/sys/net/ipv6/conf/$dev/disable_ipv6
                ip address add {row.guest_ip}/24 dev $dev && ip link set $dev up""")
        for row in self.rows:
            self.vm.run(f"ping -c 3 -i 0.2 -W 5 -q {row.peer_ip}")
            self.device_irqs[row.key] = set(self.vm.run(
                f"dev=$(ip -o -4 address show to {row.guest_ip} | awk '{{print $2}}')\n"
                "path=$(readlink -f /sys/class/net/$dev/device)\n"
                'while [ "$path" != / ] && [ ! -d $path/msi_irqs ]; do path=$(dirname $path); done\n'
                "ls $path/msi_irqs").out.split())
        self.vm.run("mkdir -p /tmp/cells")
        self.vm.put("/tmp/cells.sh", CELLS_SH.encode())

    def guest_program(self, row, what):
        common = f"-i {row.peer_ip} -t {self.seconds}"
        if what == "tx":
            return f"sockperf throughput {common} -p {DISCARD_PORT} -m {TX_SIZE}"
        return f"sockperf ping-pong {common} -p {SOCKPERF_PORT} -m {what} --full-rtt"

    def round(self, number, order, report=lambda text: None):
        """Measure every NIC once: a list of cells."""
        plan = [(row, what) for row in order for what in (*SIZES, "tx")]
        report("start-up of the guest's programs")
        arm(self.vm, "".join(f"{row.wire}-{what} {self.guest_program(row, what)}\n" for row, what in plan))
        cells = []
        for row, what in plan:
            report(f"{row.nic}, {row.port}, " + (f"{TX_SIZE} B datagrams" if what == "tx" else f"{what} B"))
            cells.append({"round": number, **self.cell(row, what)})
        return cells

    def _snapshot(self, row):
        peer = self.peer.ask("counters")
        return {"board": self.vm.stats(row.qom_id) if row.on_board else None,
                "threads": self.vm.thread_cpu_seconds(), "peer_cpu": peer["cpu_s"],
                "wire": peer["wires"][row.wire], "probe_ms": probe_ms()}

    def cell(self, row, what):
        """One measurement of one NIC; everything that was counted meanwhile."""
        self.peer.ask("reset")
        before = self._snapshot(row)
        process = self.vm.spawn(f". /tmp/cells.sh && go {row.wire}-{what}")
        time.sleep(self.seconds)        # questions to the guest would disturb it
        result = process.wait(self.seconds + 30)
        after = self._snapshot(row)
        if result.rc:
            raise SvioError(f"Measuring {row.key} failed in the guest", result.out[-2000:] + result.err)
        old, new, text = result.out.split("=====\n", 2)
        wire = after["wire"]
        cell = {"nic": row.nic, "port": row.port, "size": TX_SIZE if what == "tx" else what,
                "kind": "tx" if what == "tx" else "rtt"}
        if what == "tx":
            cell.update(tx_rate(wire["sink"], *parse_throughput(text)))
            messages = cell["datagrams"]
        else:
            cell.update(parse_ping_pong(text))
            messages = wire["udp_echo"]
        if not messages:
            raise SvioError(f"Nothing of {row.key} arrived at the wire peer", text[-2000:])
        numbers = self.device_irqs[row.key]
        cpu = cpu_difference(before["threads"], after["threads"])
        cpu["peer"] = after["peer_cpu"] - before["peer_cpu"]
        cell.update(messages=messages, cpu_s=cpu, probe_ms=mean_probe(before, after),
                    interrupts=interrupts(new, numbers) - interrupts(old, numbers))
        if row.on_board:
            cell["board"] = board_difference(before["board"], after["board"])
        return cell


def mean_probe(before, after):
    """Of two snapshots."""
    return (before["probe_ms"] + after["probe_ms"]) / 2


def mbit_per_s(per_s, size):
    """Of the frames of so many datagrams of this size, headers included."""
    return per_s * (size + HEADERS) * 8 / 1e6


def tx_rate(sink, sent, seconds):
    """Datagrams per second as the peer saw them, from the first to the last arrival.

    The time is never shorter than that for which the guest tried to send: a NIC that stops in the
    middle is not taken for one that sent fast until then, and its silence is its longest gap.
    """
    if sink["datagrams"] < 2:
        raise SvioError("Hardly any datagram arrived at the wire peer")
    arriving = (sink["last_ns"] - sink["first_ns"]) / 1e9
    span = max(arriving, seconds)
    silence = max(sink["longest_gap_ns"] / 1e9, seconds - arriving)
    return {"per_s": sink["datagrams"] / span, "datagrams": sink["datagrams"], "sent": sent,
            "lost": sent - sink["datagrams"], "seconds": span, "longest_gap_ms": silence * 1000}


def measure(bench, rounds, seed, on_round=lambda cells: None):
    """All rounds; on_round gets the cells so far after each. Ctrl-C leaves whole rounds only."""
    shuffle = random.Random(seed)
    cells = []
    for number in range(1, rounds + 1):
        order = list(bench.rows)
        shuffle.shuffle(order)
        title = f"latency and rate, round {number} of {rounds}"
        with ui.Progress(title) as progress:
            def report(text):
                progress.title = f"{title}: {text}"
            cells += bench.round(number, order, report)
            progress.title = title
        on_round(cells)
    return cells


# --- figures -------------------------------------------------------------------------------------

def pick(cells, key, kind, size):
    """{round: cell} of one row and load."""
    return {cell["round"]: cell for cell in cells
            if f"{cell['nic']}/{cell['port']}" == key and cell["kind"] == kind and cell["size"] == size}


def keys_of(cells):
    """Rows in a stable order, the baseline first."""
    found = {f"{cell['nic']}/{cell['port']}" for cell in cells}
    return sorted(found, key=lambda key: (key != "/".join(BASELINE), key.endswith("native"), key))


def median(cells, name):
    return statistics.median(cell[name] for cell in cells.values())


def ratio(mine, base, name):
    """Ratio of the medians, with the smallest and largest ratio of a single round."""
    both = sorted(mine.keys() & base.keys())
    if not both:
        return None
    single = [mine[number][name] / base[number][name] for number in both]
    return {"value": median(mine, name) / median(base, name), "min": min(single), "max": max(single)}


def ratios(cells):
    """{row: {"p50_64", "p50_1400", "tx"}} against virtio-net-pci on the netdev."""
    base = "/".join(BASELINE)
    total = {}
    for key in keys_of(cells):
        if key == base:
            continue
        mine = {f"p50_{size}": ratio(pick(cells, key, "rtt", size), pick(cells, base, "rtt", size), "p50_us")
                for size in SIZES}
        mine["tx"] = ratio(pick(cells, key, "tx", TX_SIZE), pick(cells, base, "tx", TX_SIZE), "per_s")
        total[key] = mine
    return total


BOARD_COUNTERS = {"doorbells": "bells", "signals": "signals", "signals_suppressed": "signals_suppressed",
                  "sleeps": "sleeps", "polls": "polls", "empty_polls": "empty_polls"}


def per_message(cell):
    """What one message (a round trip, or a datagram) cost."""
    messages = cell["messages"]
    found = {"messages": messages, "interrupts": cell["interrupts"] / messages}
    for name, counter in BOARD_COUNTERS.items():
        if "board" in cell and counter in cell["board"]:
            found[name] = cell["board"][counter] / messages
    for name, seconds in cell["cpu_s"].items():
        found[f"cpu_us_{name}"] = seconds * 1e6 / messages
    return found


def counters(cells):
    """{row: {"rtt_64", "rtt_1400", "tx_1400": {counter: median over the rounds, per message}}}."""
    total = {}
    for key in keys_of(cells):
        total[key] = {}
        for kind, size in [("rtt", size) for size in SIZES] + [("tx", TX_SIZE)]:
            found = [per_message(cell) for cell in pick(cells, key, kind, size).values()]
            if found:
                total[key][f"{kind}_{size}"] = {
                    name: statistics.median(one.get(name, 0) for one in found) for name in found[0]}
    return total


# --- an idle VM ----------------------------------------------------------------------------------

def idle_cost(rounds=3, seconds=10, settle=5, kernel="6.12"):
    """CPU of an idle VM with the NIC (driver loaded, interface up) and of the same VM without it.

    Both run all the time; each window measures one of them, and the order turns around every round.
    Percent of one core; "difference" is in percentage points.
    """
    nic = "svio-nic,id=nic-idle,netdev=user0,mac=52:54:00:73:76:e0"
    plain = Vm("idle-without", kernel=kernel, smp=1, memory=512)
    card = Vm("idle-with", nics=[nic], netdevs=["user,id=user0"], kernel=kernel, smp=1, memory=512)
    found = {"seconds": seconds, "with": [], "without": [], "on_board": []}
    with ExitStack() as stack:
        with ui.Progress("two idle VMs boot, one with the card and one without"):
            stack.enter_context(plain)
            stack.enter_context(card)
            card.run("ip address add 10.0.2.15/24 dev eth0 && ip link set eth0 up && "
                     "ping -c 2 -i 0.2 -W 5 -q 10.0.2.2")
            time.sleep(settle)
        for number in range(rounds):
            order = [("with", card), ("without", plain)]
            with ui.Progress(f"{seconds} s each of the idle VMs, round {number + 1} of {rounds}"):
                for name, vm in order[::-1] if number % 2 else order:
                    _idle_window(found, name, vm, seconds)
    single = [one - other for one, other in zip(found["with"], found["without"])]
    found["difference"] = {"value": statistics.median(single), "min": min(single), "max": max(single)}
    return found


def _idle_window(found, name, vm, seconds):
    begin, cpu, threads = time.monotonic(), vm.process_cpu_seconds(), vm.thread_cpu_seconds()
    time.sleep(seconds)
    spent, span = vm.process_cpu_seconds() - cpu, time.monotonic() - begin
    found[name].append(100 * spent / span)
    if name == "with":
        found["on_board"].append(100 * cpu_difference(threads, vm.thread_cpu_seconds())["on_board"] / span)
