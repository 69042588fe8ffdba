"""Empties a library of what one kind of GPU does not need, in place, so that it packs to half: machine code of other architectures and the symbols
of debuggers become zeros. Offsets stay, so nothing is linked anew.

python3 scripts/cuda/slim.py 90 libtensorflow_cc.so.2 libtensorflow_framework.so.2     (90: compute capability 9.0)
"""
import mmap
import re
import struct
import subprocess
import sys

FATBIN = struct.pack('<I', 0xBA55ED50)
MACHINE_CODE = 2  # the other kind is PTX, which only an architecture without machine code needs


def slim(memory, begin, size, arch):
    """Of the fat binaries in a section, keeps machine code of one architecture. Returns bytes kept and emptied."""
    kept = emptied = 0
    at = begin
    while at < begin + size:
        if memory[at:at + 4] != FATBIN:
            at += 8
            continue
        header, length = struct.unpack_from('<HQ', memory, at + 6)
        entry, end = at + header, at + header + length
        while entry < end:
            kind, _, own_header, own_length = struct.unpack_from('<HHIQ', memory, entry)
            of = struct.unpack_from('<I', memory, entry + 28)[0]
            if (kind, of) == (MACHINE_CODE, arch):
                kept += own_length
            else:
                memory[entry + own_header:entry + own_header + own_length] = bytes(own_length)
                emptied += own_length
            entry += own_header + own_length
        at = (end + 7) & ~7
    return kept, emptied


for path in sys.argv[2:]:
    sections = subprocess.run(['readelf', '-SW', path], capture_output=True, text=True, check=True).stdout
    with open(path, 'r+b') as file, mmap.mmap(file.fileno(), 0) as memory:
        for line in sections.splitlines():
            found = re.match(r'\s*\[\s*\d+\]\s+(\S+)\s+\S+\s+[0-9a-f]+\s+([0-9a-f]+)\s+([0-9a-f]+)', line)
            if not found:
                continue
            name, begin, size = found[1], int(found[2], 16), int(found[3], 16)
            if name in ('.symtab', '.strtab'):
                memory[begin:begin + size] = bytes(size)
            if name == '.nv_fatbin':
                kept, emptied = slim(memory, begin, size, int(sys.argv[1]))
                if kept == 0:
                    sys.exit(f'{path}: no machine code of architecture {sys.argv[1]}')
                print(f'{path}: {kept} bytes of GPU code kept, {emptied} emptied')
