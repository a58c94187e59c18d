# SPDX-License-Identifier: GPL-2.0-or-later
"""An XDP program without a compiler: BPF instructions put together by hand, in the ELF object that ip wants.

The program looks at the frames of the tests alone (their ethertype), and does what their first byte says.
"""
import struct

ABORTED, DROP, PASS, TX, REDIRECT, UNKNOWN = range(6)
# More than verdicts: room before the frame is used, and the frame is sent back with it.
GROW = 8
GROWN_BY, GROWN_HEAD = 200, b"SVIOXDP!" * 2

KIND = b"\x88\xb5"
ADJUST_HEAD, REDIRECT_CALL = 44, 23


def _insn(code, dst=0, src=0, off=0, imm=0):
    return struct.pack("<BBhi", code, src << 4 | dst, off, imm)


def _assemble(lines):
    """[(label or None, code, dst, src, off or label, imm)] as bytes; jumps go by labels."""
    places = {line[0]: number for number, line in enumerate(lines) if line[0]}
    out = b""
    for number, (_, code, dst, src, off, imm) in enumerate(lines):
        out += _insn(code, dst, src, places[off] - number - 1 if isinstance(off, str) else off, imm)
    return out


def program(ifindex=0):
    """The program as bytes; REDIRECT goes to the interface with this index."""
    mov, movi, addi, exit_, call = 0xbf, 0xb7, 0x07, 0x95, 0x85
    load32, load16, load8, store64 = 0x61, 0x69, 0x71, 0x7b
    greater, equali, differi, always = 0x2d, 0x15, 0x55, 0x05
    word, = struct.unpack("<i", GROWN_HEAD[:4])
    high, = struct.unpack("<i", GROWN_HEAD[4:8])
    return _assemble([
        (None, mov, 6, 1, 0, 0),                    # r6: the context
        (None, load32, 2, 6, 0, 0),                 # r2: data
        (None, load32, 3, 6, 4, 0),                 # r3: its end
        (None, mov, 4, 2, 0, 0),
        (None, addi, 4, 0, 0, 15),
        (None, greater, 4, 3, "pass", 0),
        (None, load16, 5, 2, 12, 0),
        (None, differi, 5, 0, "pass", int.from_bytes(KIND, "little")),
        (None, load8, 0, 2, 14, 0),
        (None, equali, 0, 0, "redirect", REDIRECT),
        (None, equali, 0, 0, "grow", GROW),
        (None, exit_, 0, 0, 0, 0),
        ("redirect", movi, 1, 0, 0, ifindex),
        (None, movi, 2, 0, 0, 0),
        (None, call, 0, 0, 0, REDIRECT_CALL),
        (None, exit_, 0, 0, 0, 0),
        ("grow", mov, 1, 6, 0, 0),
        (None, movi, 2, 0, 0, -GROWN_BY),
        (None, call, 0, 0, 0, ADJUST_HEAD),
        (None, differi, 0, 0, "aborted", 0),
        (None, load32, 2, 6, 0, 0),
        (None, load32, 3, 6, 4, 0),
        (None, mov, 4, 2, 0, 0),
        (None, addi, 4, 0, 0, 16),
        (None, greater, 4, 3, "aborted", 0),
        (None, 0x18, 5, 0, 0, word),                # a 64-bit immediate takes two
        (None, 0, 0, 0, 0, high),
        (None, store64, 2, 5, 0, 0),
        (None, store64, 2, 5, 8, 0),
        (None, movi, 0, 0, 0, TX),
        (None, exit_, 0, 0, 0, 0),
        ("aborted", movi, 0, 0, 0, ABORTED),
        (None, always, 0, 0, "end", 0),
        ("pass", movi, 0, 0, 0, PASS),
        ("end", exit_, 0, 0, 0, 0)])


def elf(code):
    """A relocatable ELF object with the program in section xdp, as libbpf reads it."""
    names = b"\0.strtab\0.symtab\0xdp\0license\0svio_xdp\0_license\0"
    symbols = bytes(24) + struct.pack("<IBBHQQ", names.index(b"svio_xdp"), 0x12, 0, 2, 0, len(code)) \
        + struct.pack("<IBBHQQ", names.index(b"_license"), 0x11, 0, 3, 0, 4)
    parts = [names, code, b"GPL\0", symbols]
    at, places = 64, []
    for part in parts:
        places.append(at)
        at += (len(part) + 7) & ~7
    body = b"".join(part + bytes(-len(part) % 8) for part in parts)

    def section(name, kind, flags, index, link=0, info=0, align=8, size=0):
        return struct.pack("<IIQQQQIIQQ", names.index(name), kind, flags, 0, places[index], len(parts[index]),
                           link, info, align, size)
    sections = bytes(64) + section(b".strtab", 3, 0, 0, align=1) + section(b"xdp", 1, 6, 1) \
        + section(b"license", 1, 3, 2, align=1) + section(b".symtab", 2, 0, 3, link=1, info=1, size=24)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH", 1, 247, 1, 0, 0, at, 0, 64, 0, 0, 64, 5, 1)
    return head + body + sections
