# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM of "svio bench": one guest that has a NIC of every approach, and what is measured on each.

Each NIC is on a wire of its own; all wires end in the same svio-wire-peer. What a host, a QEMU or a guest
kernel lacks is a reason in `not_run`, and the others are measured.
"""
import re
import subprocess
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from svio_tool import lab_host, latency
from svio_tool.counting import Counting
from svio_tool.latency import CELLS_SH, DISCARD_PORT, SOCKPERF_PORT, Row, WirePeer, \
    board_difference, cpu_difference, flat, interrupts, parse_ping_pong, parse_throughput, tx_rate
from svio_tool.paths import QEMU
from svio_tool.several import udp_counters
from svio_tool.ui import SvioError
from svio_tool.vm import Vm, VmDied

BIG, SMALL = 1400, 64
LEAST = 18                  # bytes of UDP in the shortest frame of Ethernet
LOAD_RATE = 2000            # datagrams a second that come in during a loaded round trip
HEADLINES = ("64", "tx", "rx")      # of which the verdicts are made: in every round
TCP = ("tcp-tx", "tcp-rx")
WHATS = HEADLINES + ("1400", "loaded", "both", "packets") + TCP
UNARMED = ("rx", "packets", *TCP)   # nothing waits in the guest for its turn
FLOODS = {"loaded": f"{SMALL} {LOAD_RATE}", "rx": f"{BIG}", "both": f"{BIG}"}
# A TAP drops what it has no room for, where a dgram wire lets its sender wait: so there a flood has a rate,
# which is more than guests take, and not as many frames as a CPU can throw away.
TAP_FLOOD = {"tcg": 150_000, "kvm": 1_000_000}
STEPS = 16                  # of the histogram, in each doubling of the time


@dataclass(frozen=True)
class Approach:
    """One way to give a guest a NIC."""
    name: str
    title: str
    family: str
    model: str
    port: str = "netdev"            # "native": an on-board core owns the wire; "tap", "vhost", "native-tap"
    options: str = ""               # of the device
    vf: str = ""                    # driver of the VF that the guest uses, in place of the PF
    driver: str = ""                # which the guest does not load by itself


EMULATED, PARAVIRTUAL, SELF = "full emulation", "paravirtual", "self-virtualizing"
APPROACHES = (
    Approach("pcnet", "AMD pcnet (Am79C970A)", EMULATED, "pcnet"),
    Approach("e1000", "Intel e1000", EMULATED, "e1000"),
    Approach("e1000e", "Intel e1000e", EMULATED, "e1000e"),
    Approach("virtio", "virtio-net, in QEMU", PARAVIRTUAL, "virtio-net-pci"),
    Approach("virtio-tap", "virtio-net on a TAP, in QEMU", PARAVIRTUAL, "virtio-net-pci", "tap"),
    Approach("vhost", "virtio-net on a TAP, vhost", PARAVIRTUAL, "virtio-net-pci", "vhost"),
    Approach("vmxnet3", "vmxnet3", PARAVIRTUAL, "vmxnet3"),
    Approach("igb-vf", "igb VF (QEMU's SR-IOV)", SELF, "igb", vf="igbvf"),
    Approach("svio-netdev", "svio VIF, netdev", SELF, "svio-nic"),
    Approach("svio-native", "svio VIF, native port", SELF, "svio-nic", "native"),
    Approach("svio-tap", "svio VIF on a TAP, native port", SELF, "svio-nic", "native-tap"),
    Approach("svio-sleep", "svio VIF, sleeping core", SELF, "svio-nic", "native", "poll-us=0"),
    Approach("svio-two", "svio VIF, two cores", SELF, "svio-nic", "native", "cores=2"),
    Approach("svio-shared", "svio VF, shared signals", SELF, "svio-nic", "native", "vifs=1,signals=shared",
             "svio"),
)
# Of a guest of QEMU's emulated Xen, which is a machine of its own.
EMULATED_XEN = Approach("xen-net-device", "xen-net-device (QEMU's emulated Xen; not Linux netback)",
                        PARAVIRTUAL, "xen-net-device", driver="xen-netfront")
NAMES = tuple(approach.name for approach in APPROACHES)


@dataclass(frozen=True)
class Nic(Row):
    """An approach on its wire."""
    approach: Approach = None
    timed: bool = False             # the board keeps stage times

    @property
    def key(self):
        return self.approach.name

    @property
    def pf_mac(self):
        return f"52:54:00:73:78:{self.index:02x}"

    @property
    def on_tap(self):
        return self.port in ("tap", "vhost", "native-tap")

    def netdev(self):
        if self.port not in ("tap", "vhost"):
            return None if self.on_tap else super().netdev()
        return (f"tap,id=wire-{self.wire},ifname={lab_host.wire_tap_of(self)},script=no,downscript=no"
                + (",vhost=on" if self.port == "vhost" else ""))

    def wire_words(self):
        return f"port=tap:{lab_host.wire_tap_of(self)}" if self.port == "native-tap" else super().wire_words()

    def peer_argument(self):
        if self.on_tap:
            return f"{self.wire},if:{lab_host.wire_tap_of(self)},{self.peer_ip}"
        return super().peer_argument()

    def device(self):
        text = super().device()
        if self.approach.vf:
            text = text.replace(f"mac={self.mac}", f"mac={self.pf_mac}") + f",bus=lab-port-{self.index}"
        text += f",{self.approach.options}" if self.approach.options else ""
        return text + (",stage-times=on" if self.timed and self.on_board else "")

    def devices(self):
        """VFs need PCI Express: a port, and the NIC in it."""
        number = 64 + self.index
        port = [f"pcie-root-port,id=lab-port-{self.index},chassis={number},slot={number}"]
        return (port if self.approach.vf else []) + [self.device()]


def nics(names, folder, timed=False):
    return [Nic(one.model, one.port, one.name, index, folder, one.model == "svio-nic", one, timed)
            for index, one in enumerate((*APPROACHES, EMULATED_XEN), 1) if one.name in names]


def models_missing(rows):
    """{approach: reason} for models that this QEMU does not have; ours come with the plugin."""
    text = subprocess.run([QEMU, "-device", "help"], capture_output=True, text=True, check=False).stdout
    return {row.key: f"this QEMU has no {row.nic}" for row in rows
            if not row.on_board and f'"{row.nic}"' not in text}


FIND_SH = r"""
find_dev() {
    for path in /sys/class/net/*; do
        read -r mac <$path/address
        [ "$mac" = "$1" ] && { echo "${path##*/}"; return; }
    done
    return 1
}
await_dev() { for try in $(seq 250); do find_dev $1 >/dev/null && break; usleep 20000; done; }
load_driver() { modprobe $1 || { echo "the guest has no driver $1" >&2; exit 1; }; }
"""

VF_SH = r"""
pf=$(find_dev {pf_mac}) || {{ echo "the PF has no driver" >&2; exit 1; }}
load_driver {driver}
ip link set $pf up
folder=$(readlink -f /sys/class/net/$pf/device)
# Its MAC is set before its driver looks. Without "autoprobe" the kernel would not let it look at all.
echo 0 >$folder/sriov_drivers_autoprobe && echo 1 >$folder/sriov_numvfs || exit 1
ip link set $pf vf 0 mac {mac} || exit 1
bdf=$(basename $(readlink -f $folder/virtfn0))
echo 1 >$folder/sriov_drivers_autoprobe
echo $bdf >/sys/bus/pci/drivers_probe
await_dev {mac}
"""

UP_SH = r"""
dev=$(find_dev {mac}) || {{ echo "no interface has {mac}: the guest has no driver for it" >&2; exit 1; }}
ip address add {ip}/24 dev $dev && ip link set $dev up || exit 1
# A VF's link comes some seconds later.
for try in 1 2 3 4 5 6 7 8 9 10; do ping -c 2 -i 0.2 -W 1 -q {peer} >/dev/null && break; done
[ $try -lt 10 ] || {{ echo "no answer from the wire" >&2; exit 1; }}
path=$(readlink -f /sys/class/net/$dev/device)
case ${{path##*/}} in virtio*) path=${{path%/*}};; esac
if [ -d $path/msi_irqs ]; then ls $path/msi_irqs; elif [ -e $path/irq ]; then cat $path/irq
else        # event channels of Xen's, with the name of the interface when they are not split
    sed -nE "s/^ *([0-9]+):.* (vif${{path##*-}}-.*|$dev)\$/\1/p" /proc/interrupts
fi
echo =====
[ ! -e $path/resource ] || cat $path/resource
echo =====
basename $(readlink -f $path/driver)
"""

# What a person would do with a NIC that hangs.
REVIVE_SH = r"""
dev=$(find_dev {mac}) || exit 1
for name in tx_packets rx_packets rx_dropped rx_missed_errors rx_errors tx_errors; do
    echo "$name $(cat /sys/class/net/$dev/statistics/$name)"
done
ip link set $dev down; ip link set $dev up
for try in 1 2 3 4 5 6; do ping -c 2 -i 0.2 -W 1 -q {peer} >/dev/null && exit 0; done
exit 1
"""

# The kernel's packet generator, which needs neither sockets nor programs: the driver's own limit. Each frame
# is one of its own (clone_skb 0), as not every driver may be given the same one twice.
PKTGEN_SH = r"""
modprobe pktgen || exit 1
dev=$(find_dev {mac}) && ping -c 1 -W 1 -q {peer} >/dev/null
peer=$(ip neigh show {peer} dev $dev | sed -n 's/.*lladdr \([^ ]*\).*/\1/p')
[ -n "$peer" ] || {{ echo "no MAC of the peer is known" >&2; exit 1; }}
cd /proc/net/pktgen
set_up() {{ echo "$2" >$1 || {{ echo "pktgen refuses $2" >&2; exit 1; }} }}
set_up kpktgend_0 rem_device_all
set_up kpktgend_0 "add_device $dev"
for words in "count 0" "delay 0" "clone_skb 0" "pkt_size 60" "src_min {ip}" "src_max {ip}" \
        "dst {peer}" "dst_mac $peer" "udp_src_min {port}" "udp_src_max {port}" "udp_dst_min {port}" \
        "udp_dst_max {port}"; do
    set_up $dev "$words"
done
echo $dev >/tmp/cells/pktgen
"""
PKTGEN_GO_SH = r"""
cd /proc/net/pktgen; echo start >pgctrl & sleep {seconds}; echo stop >pgctrl; wait
cat $(cat /tmp/cells/pktgen); echo rem_device_all >kpktgend_0
"""

# sockperf's full log has a line for each message after its warm-up: number, sent, answered, round trip in us.
# busybox's awk has no logarithm here.
HISTOGRAM_SH = rf"""
[ -s {{log}} ] && awk -F, -v root={2 ** (1 / STEPS)} '/^[0-9]+, / {{{{
        step = 0; value = $4 + 0
        while (value >= 2) {{{{ value /= 2; step += {STEPS} }}}}
        while (value >= root) {{{{ value /= root; step++ }}}}
        count[step]++ }}}}
    END {{{{ for (step in count) print step, count[step] }}}}' {{log}}
"""


def udp_received(text):
    """Datagrams that came to the guest's UDP, of /proc/net/snmp: taken, for no port, and in error."""
    found = udp_counters(text)
    return sum(found[name] for name in ("InDatagrams", "NoPorts", "InErrors"))


def parse_pktgen(text):
    """Of a device in /proc/net/pktgen after its run: (frames that the driver took, seconds)."""
    taken = re.search(r"pkts-sofar: (\d+)", text)
    spent = re.search(r"Result: OK: (\d+)\(", text)
    if not (taken and spent and int(spent[1])):
        raise SvioError("pktgen in the guest did not send", text.strip()[-2000:])
    return int(taken[1]), int(spent[1]) / 1e6


# Of QEMU's threads: context switches, and those after which a thread waited until it was woken up.
SCHEDULED = ("switches", "wakeups")


def scheduled(pid):
    """{"switches": {thread name: context switches}, "wakeups": {thread name: the voluntary ones of them}}"""
    total = {name: {} for name in SCHEDULED}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            text, name = (task / "status").read_text(), (task / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        counts = dict(re.findall(r"^(\w+)_ctxt_switches:\s+(\d+)", text, re.M))
        waited = int(counts["voluntary"])
        for found, value in zip(total.values(), (waited + int(counts["nonvoluntary"]), waited)):
            found[name] = found.get(name, 0) + value
    return total


def stage_difference(before, after):
    """{stage: {least nanoseconds of the bucket: how many}} of the board's histograms, all cores."""
    old, found = flat(before), {}
    for path, value in flat(after).items():
        if ".stage_times." not in path or value == old.get(path, 0):
            continue
        stage, bucket = path.split(".stage_times.")[1].rsplit(".", 1)
        counts = found.setdefault(stage.replace(".", "/"), {})
        counts[int(bucket)] = counts.get(int(bucket), 0) + value - old.get(path, 0)
    return {stage: dict(sorted(counts.items())) for stage, counts in found.items()}


class Lab(Counting, latency.Bench):
    """The VM with a NIC for each row that works here; `not_run` has the reason for each of the others."""

    smp, streams = 1, 1         # vCPUs, and TCP streams at once

    def __init__(self, names=NAMES, seconds=1, kernel="6.12", name="bench", append="", counting=False,
                 tcp=False, accel=None):
        super().__init__(kernel=kernel, seconds=seconds, name=name)
        self.accel = accel
        self.names, self.append = names, append
        self.counting = counting        # for the anatomy: what is counted slows the machine
        self.tcp, self.no_tcp = tcp, None       # whether it is wanted, and why there is none
        self.not_run, self.stalled, self.resources, self.drivers = {}, {}, {}, {}

    def _rows(self, folder):
        rows = nics(self.names, folder, self.counting)
        self.not_run = models_missing(rows)
        why = lab_host.vhost_missing()
        if why:
            self.not_run.update({row.key: why for row in rows if row.port == "vhost"})
        return [row for row in rows if row.key not in self.not_run]

    def _vm(self):
        return Vm(self.name, nics=[device for row in self.rows for device in row.devices()],
                  netdevs=[row.netdev() for row in self.rows if row.netdev()], kernel=self.kernel,
                  smp=self.smp, memory=1024, accel=self.accel, append=f"tsc=reliable {self.append}".strip(),
                  extra=self.counting_arguments(), before=self._before())

    def _peer(self):
        """With a host behind it where one is wanted; and a host is wanted where a wire is its own."""
        if not self.tcp and not any(row.on_tap for row in self.rows):
            return super()._peer()
        peer, why = lab_host.attempt(self.rows, self.peer_program)
        if peer:
            return peer
        self.no_tcp = why
        self.not_run.update({row.key: why for row in self.rows if row.on_tap})
        self.rows = [row for row in self.rows if not row.on_tap]
        return super()._peer()

    def _before(self):
        """Words before QEMU's: into the namespace that has its TAPs, with what counts its copies."""
        words = self.peer.within() if any(row.on_tap for row in self.rows) else []
        return words + self.counting_before()

    def _prepare_guest(self):
        self.vm.run("for name in all default; do echo 1 >/proc/sys/net/ipv6/conf/$name/disable_ipv6; done\n"
                    "for path in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 >$path; done")
        for row in self.rows:
            words = FIND_SH
            if row.approach.vf:
                words += VF_SH.format(pf_mac=row.pf_mac, mac=row.mac, driver=row.approach.vf)
            if row.approach.driver:
                words += f"load_driver {row.approach.driver}; await_dev {row.mac}\n"
            words += UP_SH.format(mac=row.mac, ip=row.guest_ip, peer=row.peer_ip)
            done = self.vm.run(words, check=False)
            if done.rc:
                self.not_run[row.key] = (done.err.strip().splitlines() or ["it could not be set up"])[-1]
                continue
            numbers, resources, driver = done.out.split("=====\n")
            self.device_irqs[row.key] = set(numbers.split())
            self.resources[row.key] = ranges(resources)
            self.drivers[row.key] = driver.strip()
        self.rows = [row for row in self.rows if row.key not in self.not_run]
        if not self.rows:
            raise SvioError("No approach works here",
                            "\n".join(f"{name}: {why}" for name, why in self.not_run.items()))
        self.vm.run("mkdir -p /tmp/cells")
        self.vm.put("/tmp/cells.sh", CELLS_SH.encode())

    # --- one measurement --------------------------------------------------------------------------

    def guest_program(self, row, what):
        common = f"-i {row.peer_ip} -t {self.seconds}"
        if what in ("tx", "both"):
            return f"sockperf throughput {common} -p {DISCARD_PORT} -m {BIG}"
        return f"sockperf ping-pong {common} -p {SOCKPERF_PORT} -m {SIZES[what]} --full-rtt " \
               f"{self.trips_limit()} --full-log /tmp/cells/{row.wire}-{what}.csv"

    def plan(self, order, shuffle, whats):
        """[(row, what)] of a round; the measurements of a NIC follow each other."""
        whats = [what for what in whats if not (self.no_tcp and what in TCP)]
        return [(row, what) for row in order for what in shuffle.sample(whats, len(whats))]

    def arm(self, plan):
        latency.arm(self.vm, "".join(f"{row.wire}-{what} {self.guest_program(row, what)}\n"
                                     for row, what in plan if what not in UNARMED))

    @contextmanager
    def _flood(self, row, what):
        """What the other end of the wire does meanwhile."""
        if what not in FLOODS:
            yield
            return
        words = FLOODS[what]
        if row.on_tap and what != "loaded":
            words += f" {TAP_FLOOD['kvm' if self.under_kvm() else 'tcg']}"
        answer = self.peer.ask(f"flood {row.wire} {row.mac} {row.guest_ip} {words}")
        if "error" in answer:
            raise SvioError(f"The wire peer does not flood: {answer['error']}")
        try:
            yield
        finally:
            self.peer.ask(f"flood {row.wire} off")

    def _snapshot(self, row):
        found = {**super()._snapshot(row), **scheduled(self.vm.pid)}
        if row.port == "vhost":
            found["threads"].update(lab_host.vhost_threads(self.vm.pid))
        return found

    def _looked_at(self, row):
        """(datagrams that the guest's UDP got so far, interrupts of the NIC so far). The agent reads files by
        itself, and starts no program for it."""
        snmp, irqs = (self.vm.get(f"/proc/{name}").decode() for name in ("net/snmp", "interrupts"))
        return udp_received(snmp), interrupts(irqs, self.device_irqs[row.key])

    def _histogram(self, row, what):
        text = self.vm.run(HISTOGRAM_SH.format(log=f"/tmp/cells/{row.wire}-{what}.csv"), timeout=120,
                           check=False).out
        return {int(step): int(count) for step, count in (line.split() for line in text.splitlines())}

    def _windows(self, row, what, wait):
        """One measurement runs: (what the program in the guest printed, seconds with the flood on). A flood
        can leave a guest no time for anything but its NIC: so nothing is started there while one comes in,
        and nothing looked at."""
        process = None
        if what == "packets":
            process = self.vm.spawn(PKTGEN_GO_SH.format(seconds=self.seconds))
        elif what in TCP:
            process = self.vm.spawn(lab_host.program(row, self.seconds, what == "tcp-rx",
                                                     streams=self.streams))
        elif what != "rx":
            process = self.vm.spawn(f"cd /tmp/cells; . /tmp/cells.sh; go {row.wire}-{what}")
        begin = time.monotonic()
        with self._flood(row, what):
            wait(self.seconds)          # a look at the guest would disturb it
            spent = time.monotonic() - begin
        if not process:
            return "", spent
        result = process.wait(self.seconds + 30)
        if result.rc:
            raise SvioError(f"{row.key}: the measurement \"{what}\" failed in the guest",
                            result.out[-1500:] + result.err)
        return result.out.split("=====\n", 2)[-1], spent

    def cell(self, row, what, wait=time.sleep, during=nullcontext()):
        """What one measurement of one NIC gave, and all that was counted meanwhile: with that context around
        the measurement itself."""
        if what == "packets":
            self.vm.run(FIND_SH + PKTGEN_SH.format(mac=row.mac, ip=row.guest_ip, peer=row.peer_ip,
                                                   port=DISCARD_PORT))
        self.peer.ask("reset")
        first = self._looked_at(row)
        before = self._snapshot(row)
        with during, self.peer.server(row) if what in TCP else nullcontext():
            text, spent = self._windows(row, what, wait)
        after = self._snapshot(row)
        last = self._looked_at(row)
        return self._cell(row, what, text, [first, last], before, after, spent)

    def _cell(self, row, what, text, looks, before, after, spent):
        received, signals = (looks[1][n] - looks[0][n] for n in (0, 1))
        wire, size = after["wire"], SIZES[what]
        cell = {"approach": row.key, "kind": KINDS[what], "size": size}
        if what in ("tx", "both", "packets"):
            parse = parse_pktgen if what == "packets" else parse_throughput
            cell.update(tx_rate(wire["sink"], *parse(text)))
            messages = cell["datagrams"]
            if what == "both":
                cell["tx_per_s"], cell["rx_per_s"] = cell["per_s"], received / spent
                cell["per_s"] = cell["tx_per_s"] + cell["rx_per_s"]
                messages += received
        elif what in TCP:
            cell.update(lab_host.parse(text))
            messages = wire["tap_in"] + wire["tap_out"]
        elif what == "rx":
            cell.update(per_s=received / spent, seconds=spent, offered_per_s=wire["flood_sent"] / spent)
            messages = received
        else:
            cell.update(parse_ping_pong(text))
            cell["histogram"] = self._histogram(row, what)
            messages = wire["udp_echo"]
        if not messages:
            raise SvioError(f"{row.key}: nothing arrived in the measurement \"{what}\"", text[-1500:])
        if "per_s" in cell:
            cell["mbit_per_s"] = latency.mbit_per_s(cell["per_s"], size)
        cpu = cpu_difference(before["threads"], after["threads"])
        cpu["peer"] = after["peer_cpu"] - before["peer_cpu"]
        cell.update(messages=messages, cpu_s=cpu, interrupts=signals,
                    probe_ms=latency.mean_probe(before, after),
                    **{name: cpu_difference(before[name], after[name]) for name in SCHEDULED})
        if row.on_board:
            cell["board"] = board_difference(before["board"], after["board"])
            if self.counting:
                cell["stage_times"] = stage_difference(before["board"], after["board"])
        return cell

    def try_cell(self, row, what):
        """The cell; or None when this NIC did not do it, and `stalled` says so. It is set up again, and when
        even that is in vain it does not run any more. A dead VM is no such reason."""
        try:
            return self.cell(row, what)
        except VmDied:
            raise
        except SvioError as error:
            self.vm.check_alive()
            sentence = error.sentence
        wire = self.peer.ask("counters")["wires"][row.wire]
        words = FIND_SH + REVIVE_SH.format(mac=row.mac, peer=row.peer_ip)
        done = self.vm.run(words, check=False, timeout=120)
        # Where it stopped: what the peer saw in this measurement, and the driver's counters since the start.
        self.stalled.setdefault(row.key, []).append(
            f"{what}: {sentence}; the peer received {wire['received']} frames and sent {wire['sent']}; "
            f"the driver counts {', '.join(done.out.splitlines())}")
        if done.rc:
            self.not_run[row.key] = f"it stalled for good ({self.stalled[row.key][-1]})"
        return None


KINDS = {"64": "rtt", "1400": "rtt", "loaded": "loaded", "tx": "tx", "rx": "rx", "both": "both",
         "packets": "packets", "tcp-tx": "tcp_tx", "tcp-rx": "tcp_rx"}
SIZES = {**dict.fromkeys(WHATS, BIG), "64": SMALL, "loaded": SMALL, "packets": LEAST,
         **dict.fromkeys(TCP, lab_host.PAYLOAD)}        # bytes of a message


def ranges(text):
    """[(first, last)] of the memory and ports of a PCI function, of its sysfs file "resource"."""
    found = []
    for line in text.splitlines():
        begin, end, _ = (int(word, 16) for word in line.split())
        if end:
            found.append((begin, end))
    return found


__all__ = ["Lab", "APPROACHES", "NAMES", "WirePeer"]
