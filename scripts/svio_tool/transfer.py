# SPDX-License-Identifier: GPL-2.0-or-later
"""A file travels from the host into a VM and back, and its SHA-256 sums are compared on both sides.

The wire is QEMU's user network (libslirp), where the guest reaches the host's 127.0.0.1 as 10.0.2.2.
"""
import hashlib
import http.server
import os
import re
import threading
import time
from contextlib import contextmanager

from svio_tool import ui
from svio_tool.ui import SvioError
from svio_tool.vm import Vm

MIB = 1 << 20
SIZE = 64 * MIB
CHUNK = 256 * 1024
MAC = "52:54:00:73:76:f0"
TIMEOUT = 300


class _Handler(http.server.BaseHTTPRequestHandler):
    """GET gives the file, PUT takes one and remembers its sum."""

    protocol_version = "HTTP/1.1"
    timeout = 60            # a guest that fell silent does not keep the thread

    def do_GET(self):
        content = self.server.content
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        view = memoryview(content)
        for start in range(0, len(content), CHUNK):
            self.wfile.write(view[start:start + CHUNK])

    def do_PUT(self):
        left = int(self.headers.get("Content-Length", -1))
        if left < 0:
            self.send_error(411)
            return
        total, length = hashlib.sha256(), left
        while left:
            part = self.rfile.read(min(CHUNK, left))
            if not part:
                return      # cut off; no sum is kept, and the caller says so
            total.update(part)
            left -= len(part)
        self.server.uploads.append({"sha256": total.hexdigest(), "bytes": length})
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *ignored):
        pass


@contextmanager
def server(content):
    """An HTTP server on 127.0.0.1 for one file; ends with the block."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as daemon:
        daemon.daemon_threads = True
        daemon.content, daemon.uploads = content, []
        thread = threading.Thread(target=daemon.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield daemon
        finally:
            daemon.shutdown()
            thread.join()


def prepare_guest(vm):
    vm.run(f"""
        for path in /sys/class/net/*; do
            read -r mac <$path/address; [ "$mac" = {MAC} ] && dev=${{path##*/}}
        done
        [ -n "$dev" ] || {{ echo "no interface has {MAC}" >&2; exit 1; }}
        ip address add 10.0.2.15/24 dev $dev && ip link set $dev up && ip route add default via 10.0.2.2""")


def _curl(vm, words):
    """Seconds that curl itself counted."""
    command = f"curl -sS --fail --max-time {TIMEOUT} -w '%{{time_total}}' {words}"
    out = vm.run(command, timeout=TIMEOUT + 10).out
    found = re.search(r"([\d.]+)\s*$", out)
    if not found:
        raise SvioError("curl in the guest did not say how long it took", out)
    return float(found[1])


def _guest_sum(vm, path):
    return vm.run(f"sha256sum {path}", timeout=120).out.split()[0]


def exchange(vm, size=SIZE, host="10.0.2.2"):
    """Download and upload between a guest and the host, which it knows by that address; the figures, or
    SvioError when the sums differ."""
    content = os.urandom(size)
    figures = {"bytes": size, "sha256": {"host": hashlib.sha256(content).hexdigest()}}
    sums = figures["sha256"]
    with server(content) as daemon:
        url = f"http://{host}:{daemon.server_address[1]}/file"
        figures["download_s"] = _curl(vm, f"-o /tmp/file {url}")
        sums["guest"] = _guest_sum(vm, "/tmp/file")
        figures["upload_s"] = _curl(vm, f"-T /tmp/file {url}")
        if not daemon.uploads:
            raise SvioError("The upload from the guest was cut off")
        sums["host_after_upload"] = daemon.uploads[-1]["sha256"]
    vm.run("rm -f /tmp/file")
    for direction in ("download", "upload"):
        figures[f"{direction}_mib_per_s"] = size / MIB / figures[f"{direction}_s"]
    if len(set(sums.values())) != 1:
        raise SvioError("The file did not arrive as it was sent: the SHA-256 sums differ",
                        "\n".join(f"{where}: {value}" for where, value in sums.items()))
    figures["agree"] = True
    return figures


def measure(nic="svio-nic", size=SIZE, kernel="6.12", name="transfer"):
    """Boot a VM with this NIC on the user network and move the file both ways."""
    vm = Vm(name, nics=[f"{nic},id=nic-user,netdev=user0,mac={MAC}"], netdevs=["user,id=user0"],
            kernel=kernel, smp=1, memory=512)
    title = f"{size // MIB} MiB down and up through {nic} on the user network"
    with ui.Progress(title) as progress:
        begin = time.monotonic()
        progress.title = f"{title}: the VM boots"
        with vm:
            found = {"nic": nic, "netdev": "user", "boot_s": time.monotonic() - begin, "qemu": vm.command()}
            progress.title = title
            prepare_guest(vm)
            found.update(exchange(vm, size))
            if nic.startswith("svio"):
                # That it went through the on-board cores, and nothing was lost on the way.
                found["board"] = vm.stats("nic-user")
            problems = vm.kernel_problems()
    if problems:
        raise SvioError("The guest's kernel complained during the transfer", "\n".join(problems))
    return found


def show(figures):
    """What people read."""
    sums = figures["sha256"]
    ui.say(f"  sent by the host      {sums['host']}")
    for words, direction, where in (("came to the guest  ", "download", "guest"),
                                    ("and back to the host", "upload", "host_after_upload")):
        ui.say(f"  {words:20}  {sums[where]}  {figures['bytes'] // MIB} MiB in "
               f"{figures[f'{direction}_s']:.1f} s, {figures[f'{direction}_mib_per_s']:.0f} MiB/s")
    ui.say("  The three SHA-256 sums agree." if figures["agree"] else "  The SHA-256 sums DIFFER.")
