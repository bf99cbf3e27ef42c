#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the migrations of schema/ as a C table: embed.py OUTPUT FILE.sql..."""

import hashlib
import os
import sys


def literal(text):
    """C string literals, one a line."""
    lines = text.splitlines(keepends=True)
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
               for line in lines)
    return "\n".join(f'\t\t"{line}"' for line in escaped)


def main():
    output, files = sys.argv[1], sorted(sys.argv[2:])
    rows = []
    for position, path in enumerate(files, 1):
        stem = os.path.basename(path).removesuffix(".sql")
        number, _, name = stem.partition("_")
        if int(number) != position:
            sys.exit(f"embed.py: {path}: expected number {position}: no gaps, no doubles")
        with open(path, encoding="ascii") as source:
            text = source.read()
        checksum = hashlib.sha256(text.encode()).hexdigest()
        rows.append(f'\t{{{position}, "{name}", "{checksum}",\n{literal(text)}}},\n')
    with open(output, "w", encoding="ascii") as out:
        out.write('#include "store/migrate.h"\n\n'
                  "const struct store_migration store_migrations[] = {\n"
                  + "".join(rows) + "};\n"
                  f"const unsigned int store_migration_count = {len(rows)};\n")


if __name__ == "__main__":
    main()
