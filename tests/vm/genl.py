# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions to the guest's netdev-genl (linux/netdev.h), for which Debian 12 has no tool: the message is made
here, and the guest's socat carries it to a netlink socket and back."""
import base64
import struct

GENERIC, CONTROL, DONE, ERROR = 16, 16, 3, 2
REQUEST, DUMP = 1, 0x300
GET_FAMILY, FAMILY_ID, FAMILY_NAME = 3, 1, 2
QUEUE_GET, NAPI_GET, QSTATS_GET = 10, 11, 12
QUEUE = {1: "id", 2: "ifindex", 3: "type", 4: "napi"}
NAPI = {1: "ifindex", 2: "id", 3: "irq"}
QSTATS = {1: "ifindex", 2: "type", 3: "id", 8: "rx_packets", 9: "rx_bytes", 10: "tx_packets",
          11: "tx_bytes"}
SCOPE, SCOPE_QUEUE = 4, 1
# socat's own way to say: PF_NETLINK, SOCK_RAW, NETLINK_GENERIC; the kernel's address.
SOCKET = "SOCKET-DATAGRAM:16:3:16:x00000000000000000000"


def attribute(kind, data):
    return (struct.pack("<HH", 4 + len(data), kind) + data).ljust(4 + (len(data) + 3 & ~3), b"\0")


def attributes(data):
    while len(data) >= 4:
        length, kind = struct.unpack_from("<HH", data)
        yield kind & 0x3fff, data[4:length]
        data = data[length + 3 & ~3:]


def ask(vm, family, command, payload, flags=0):
    """The attributes of each answer as {number: value}; None if the answer is not whole."""
    body = struct.pack("<BBH", command, 1, 0) + payload
    message = struct.pack("<IHHII", 16 + len(body), family, REQUEST | flags, 1, 0) + body
    out = base64.b64decode(vm.run(f"socat -t 1 - {SOCKET} | busybox base64", stdin=message).out)
    found, whole = [], not flags
    while len(out) >= 16:
        length, kind = struct.unpack_from("<IH", out)
        if kind == ERROR:
            raise AssertionError(f"netlink says {struct.unpack_from('<i', out, 16)[0]}")
        if kind == DONE:
            whole = True
        else:
            found.append({key: int.from_bytes(value, "little") for key, value in attributes(out[20:length])})
        out = out[length + 3 & ~3:]
    return found if whole and found else None


class NetdevGenl:
    """wait(condition, what) is the test's own."""

    def __init__(self, vm, wait):
        self.vm, self.wait = vm, wait
        answer = wait(lambda: ask(vm, CONTROL, GET_FAMILY, attribute(FAMILY_NAME, b"netdev\0")),
                      "the family netdev")
        self.family = answer[0][FAMILY_ID]

    def dump(self, command, names, ifindex, payload=b""):
        """The objects of one interface, as dictionaries."""
        found = self.wait(lambda: ask(self.vm, self.family, command, payload, DUMP), "a whole answer")
        rows = [{names[key]: value for key, value in row.items() if key in names} for row in found]
        return [row for row in rows if row["ifindex"] == ifindex]

    def queues(self, ifindex):
        return self.dump(QUEUE_GET, QUEUE, ifindex)

    def napi(self, ifindex):
        return self.dump(NAPI_GET, NAPI, ifindex)

    def queue_stats(self, ifindex):
        scope = attribute(SCOPE, struct.pack("<I", SCOPE_QUEUE))
        return self.dump(QSTATS_GET, QSTATS, ifindex, scope)
