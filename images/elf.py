# SPDX-License-Identifier: Apache-2.0
"""What a 64-bit ELF file asks the dynamic linker for: its interpreter and NEEDED libraries."""

import struct

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB = 1, 5


def _string(data, offset):
    return data[offset:data.index(b"\0", offset)].decode()


def needs(path):
    """(interpreter or None, [names of libraries]); (None, []) for what is no dynamic ELF file."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:5] != b"\x7fELF\x02":
        return None, []
    table, = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
    interpreter = next((_string(data, h[2]) for h in headers if h[0] == PT_INTERP), None)
    dynamic = next((h for h in headers if h[0] == PT_DYNAMIC), None)
    if dynamic is None:
        return interpreter, []
    entries = list(struct.iter_unpack("<QQ", data[dynamic[2]:dynamic[2] + dynamic[5] // 16 * 16]))
    address = dict(entries)[DT_STRTAB]
    load = next(h for h in headers if h[0] == PT_LOAD and h[3] <= address < h[3] + h[5])
    strings = address - load[3] + load[2]
    names = []
    for tag, value in entries:
        if tag == 0:
            break
        if tag == DT_NEEDED:
            names.append(_string(data, strings + value))
    return interpreter, names
