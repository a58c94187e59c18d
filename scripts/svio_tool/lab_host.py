# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux host for "svio bench", in a network namespace of its own.

It is behind the wires of svio-wire-peer: the peer hands what it does not answer itself to a TAP interface
of the wire, and iperf3's server runs behind those. And it has the TAP interfaces that are wires themselves:
QEMU, which runs in the namespace then, has one end, and the peer the other. An ordinary user gets the
namespace with a user namespace around it.
"""
import contextlib
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from svio_tool import host
from svio_tool.latency import WirePeer
from svio_tool.paths import WIRE_PEER
from svio_tool.ui import SvioError
from svio_tool.vm import cpu_seconds_of

PORT = 5201
PAYLOAD = 1448              # bytes of TCP in a frame of 1514
# Nothing but what is measured travels on the wires: no router solicitations.
NAMESPACE_SH = r"""
for name in all default; do echo 1 >/proc/sys/net/ipv6/conf/$name/disable_ipv6; done 2>/dev/null
while [ "$1" != -- ]; do
    ip tuntap add dev "$1" mode tap || exit 1
    if [ "$2" = - ]; then       # a wire: the peer answers there, and not this kernel
        ip link set dev "$1" arp off up || exit 1
    else
        ip link set dev "$1" address "$2" && ip address add "$3/24" dev "$1" &&
            ip link set dev "$1" up || exit 1
    fi
    shift 3
done
shift
exec "$@"
"""


def tap_of(row):
    return f"wire{row.index}"


def wire_tap_of(row):
    """The TAP interface that is the wire of this row."""
    return f"nic{row.index}"


def tun_missing():
    """Why there can be no TAP interfaces; None when there can."""
    return host.device_missing("/dev/net/tun", "tun")


def vhost_missing():
    """Why this host has no vhost for virtio-net; None when it has."""
    return host.device_missing("/dev/vhost-net", "vhost_net")


def vhost_threads(pid):
    """{name: CPU seconds} of the kernel's threads that work for this QEMU. Since Linux 6.4 they are threads
    of QEMU's own and counted there."""
    name, found = f"vhost-{pid}", {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text().strip() == name:
                found[name] = found.get(name, 0) + cpu_seconds_of(folder / "stat")
    return found


def mac_of(number):
    """MAC of the peer on its wire of this number, from 0 on."""
    return f"02:73:76:69:6f:{number + 1:02x}"


def attempt(rows, program=WIRE_PEER):
    """(A HostPeer, None), or (None, why this host can have none)."""
    try:
        return HostPeer(rows, program), None
    except SvioError as error:
        return None, error.sentence + (f" ({error.detail.splitlines()[-1]})" if error.detail else "")


class HostPeer(WirePeer):
    """The peer with a kernel behind it."""

    def __init__(self, rows, program=WIRE_PEER):
        for tool in ("unshare", "nsenter", "setpriv", "ip", "iperf3"):
            if not shutil.which(tool):
                raise SvioError(f"{tool} is not installed (apt-get install util-linux iproute2 iperf3)")
        why = tun_missing()
        if why:
            raise SvioError(why)
        self.root = os.geteuid() == 0
        taps = [word for number, row in enumerate(rows)
                for word in (tap_of(row), mac_of(number), row.peer_ip)]
        taps += [word for row in rows if row.on_tap
                 for word in (wire_tap_of(row), "-", "-")]
        super().__init__([f"{row.peer_argument()},{tap_of(row)}" for row in rows], program,
                         ["unshare", *([] if self.root else ["--map-root-user"]), "--net",
                          "sh", "-c", NAMESPACE_SH, "sh", *taps, "--"])

    def within(self):
        """Words before those of a program that runs in the namespace. To go into a user namespace makes a
        process forget that it is to end with us: it is told once more."""
        words = ["nsenter", "--target", str(self.process.pid), "--net"]
        return words if self.root else [*words, "--user", "--preserve-credentials",
                                        "setpriv", "--pdeathsig", "KILL"]

    @contextmanager
    def servers(self, row, count):
        """iperf3's servers for as many tests at once on this wire."""
        with contextlib.ExitStack() as stack:
            for number in range(count):
                stack.enter_context(self.server(row, PORT + number))
            yield

    @contextmanager
    def server(self, row, port=PORT):
        """iperf3's server for one test on this wire."""
        words = [*self.within(), "iperf3", "--server", "--one-off", "--forceflush", "--bind", row.peer_ip,
                 "--port", str(port)]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, start_new_session=True)
        try:
            said = ""
            while "listening" not in said:
                line = process.stdout.readline()
                if not line:
                    raise SvioError("iperf3 does not serve behind the wire", said.strip())
                said += line
            yield
        finally:
            process.kill()
            process.communicate()


def program(row, seconds, reverse, port=PORT, streams=1):
    return f"iperf3 -c {row.peer_ip} -p {port} -t {seconds} -J" + (" -R" if reverse else "") \
        + (f" -P {streams}" if streams > 1 else "")


def parse(text):
    """{"stream_mbit_per_s": what the receiver got, "retransmits"} of iperf3's JSON."""
    try:
        found = json.loads(text)
        if "error" in found:
            raise SvioError(f"iperf3 in the guest: {found['error']}")
        end = found["end"]
        return {"stream_mbit_per_s": end["sum_received"]["bits_per_second"] / 1e6,
                "retransmits": end["sum_sent"]["retransmits"]}
    except (ValueError, KeyError, TypeError) as error:
        raise SvioError("iperf3 in the guest did not measure", text.strip()[-2000:]) from error
