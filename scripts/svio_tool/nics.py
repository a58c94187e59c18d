# SPDX-License-Identifier: GPL-2.0-or-later
"""The NICs that a test VM can have, by the names that people type."""
from svio_tool.ui import SvioError

MODELS = {"svio": "svio-nic", "virtio": "virtio-net-pci", "e1000": "e1000", "e1000e": "e1000e",
          "vmxnet3": "vmxnet3", "igb": "igb", "rtl8139": "rtl8139", "pcnet": "pcnet"}
NAMES = tuple(MODELS) + ("none",)
MAC = "52:54:00:5a:10:01"


# VFs need PCI Express: a port, and the card in it.
PORT = "pcie-root-port,id=svio-port,chassis=60,slot=60"


def escaped(value):
    """A comma inside a value of a QEMU option is written twice."""
    return str(value).replace(",", ",,")


def device(nic, netdev="n0", mac=MAC, cores=None, queues=None, queue_size=None, poll_us=None, port=None,
           vifs=None, extra=""):
    """The text after -device. For svio "port" replaces the netdev by a wire that a core polls itself."""
    if nic not in MODELS:
        raise SvioError(f"Unknown NIC {nic}: {', '.join(NAMES)}.")
    words = [MODELS[nic]]
    own = {"cores": cores, "queues": queues, "queue-size": queue_size, "poll-us": poll_us, "port": port,
           "vifs": vifs}
    given = {key: value for key, value in own.items() if value is not None}
    if nic == "svio":
        # With this id the counters are at /machine/peripheral/svio0.
        words.append("id=svio0")
    elif given:
        raise SvioError(f"--{next(iter(given))} is for --nic svio only.")
    if port is None:
        words.append(f"netdev={netdev}")
    words.append(f"mac={mac}")
    words += [f"{key}={escaped(value)}" for key, value in given.items()]
    if vifs:
        words.append("bus=svio-port")
    if nic != "svio":
        # Nothing boots from the network here; without its ROM the NIC needs no further package.
        words.append("romfile=")
    return ",".join(words) + (f",{extra}" if extra else "")
