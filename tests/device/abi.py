# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract as Python: constants, macros and structures of svio_abi.h and svio_attach.h, read from
the headers themselves.

`abi.SVIO_REG_STATUS` is a number, `abi.SVIO_QUEUE_REG(0, 1, 4)` a call, `abi.svio_entry` a Struct. What the
header asserts about sizes and offsets is checked against what was understood here.
"""
import re
import struct

from svio_tool.paths import ABI_HEADER, ATTACH_HEADER

_SCALARS = {"__u8": "B", "__le16": "H", "__le32": "I", "__le64": "Q"}


class Struct:
    """A flat structure; arrays are bytes. Unknown unions are read as their member `raw`."""

    def __init__(self, name, fields):
        self.name = name
        self.names = [field for field, _ in fields]
        self.formats = dict(fields)
        self.packer = struct.Struct("<" + "".join(form for _, form in fields))
        self.size = self.packer.size

    def pack(self, **values):
        unknown = values.keys() - self.formats.keys()
        assert not unknown, f"{self.name} has no {unknown}"
        default = {"s": b""}
        return self.packer.pack(*(values.get(field, default.get(self.formats[field][-1], 0))
                                  for field in self.names))

    def unpack(self, data):
        return dict(zip(self.names, self.packer.unpack(data)))

    def offset(self, field):
        before = self.names[:self.names.index(field)]
        return struct.calcsize("<" + "".join(self.formats[name] for name in before))


def _without_comments(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S).replace("\\\n", " ")


def _expression(text):
    return re.sub(r"\b(0x[0-9a-fA-F]+|\d+)(?:ULL|UL|u|U)\b", r"\1", text.strip())


def _macros(text, known):
    """Constants and functions; lists of names and other macros that are no arithmetic are left out."""
    for name, arguments, body in re.findall(r"^#define (SVIO_\w+)(\([\w, ]*\))?[ \t]+(.+)$", text, re.M):
        try:
            code = compile(_expression(body), name, "eval")
            if not arguments:
                known[name] = eval(code, known)
                continue
        except (SyntaxError, NameError):
            continue
        parameters = [word.strip() for word in arguments[1:-1].split(",")]
        known[name] = (lambda *values, code=code, parameters=parameters:
                       eval(code, known, dict(zip(parameters, values))))


def _fields(body):
    """(name, format) of each member; the header's only union is taken as its member `raw`."""
    union = re.search(r"\bunion \{.*?\} u;", body, re.S)
    if union:
        size = re.search(r"__u8 raw\[(\d+)\]", union[0])[1]
        body = body.replace(union[0], f"__u8 u[{size}];")
    for kind, name, dimensions in re.findall(r"(__\w+) (\w+)((?:\[\d+\])*);", body):
        size = 1
        for dimension in re.findall(r"\d+", dimensions):
            size *= int(dimension)
        yield name, f"{size}s" if dimensions else _SCALARS[kind]


def _structs(text, known):
    for name, body in re.findall(r"^struct (\w+) \{\n(.*?)^\};", text, re.M | re.S):
        known[name] = Struct(name, list(_fields(body)))
    for name, size in re.findall(r"^SVIO_SIZE\((\w+), (\d+)\);", text, re.M):
        assert known[name].size == int(size), name
    for name, field, offset in re.findall(r"^SVIO_AT\((\w+), (\w+), (\d+)\);", text, re.M):
        assert known[name].offset(field) == int(offset), (name, field)


def _load():
    text = _without_comments(ABI_HEADER.read_text() + ATTACH_HEADER.read_text())
    known = {"__builtins__": {}}
    _macros(text, known)
    _structs(text, known)
    for name in ("SVIO_STATS", "SVIO_QSTATS"):
        body = re.search(rf"^#define {name}\(X\)(.*)$", text, re.M)[1]
        known[name] = [word for _, word in re.findall(r"X\((\w+), (\w+)\)", body)]
    del known["__builtins__"]
    return known


globals().update(_load())


def lap(position, size):
    return 0 if position & size else 1


def crossed(at, begin, end):
    return (at - begin) & 0xffffffff < (end - begin) & 0xffffffff


def posted(position, size):
    """The bit of `flags` that hands the entry of this position to the device."""
    return globals()["SVIO_ENTRY_POSTED"] if lap(position, size) else 0


def name_of(prefix, value):
    """For messages: the name of the constant with this prefix and value."""
    found = [name for name, number in globals().items() if name.startswith(prefix) and number == value]
    return found[0] if found else str(value)
