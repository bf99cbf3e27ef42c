# SPDX-License-Identifier: Apache-2.0
"""A bootable disk from files, without root, loop devices or mounts.

Layout, in 512-byte sectors (the same for every recipe):

    0                  MBR: syslinux's boot code and a table of two partitions
    2048               partition 1, FAT, active: syslinux, kernel, initramfs, its configuration
    2048 + boot size   partition 2, ext4, to the end: the root file system

Each tool writes at its offset straight into the one raw file, which then becomes a qcow2 file.
Everything that tools would make up (UUIDs, serial numbers, times) is derived from the epoch and
a name, so that equal input gives equal disks.
"""

import os
import re
import shutil
import struct
import tarfile
import uuid

from run import Failure, run

SECTOR = 512
MIB = 1 << 20
BOOT_START = 1 * MIB
FAT_TYPE, LINUX_TYPE = 0x0E, 0x83
MBR_CODE = "/usr/lib/syslinux/mbr/mbr.bin"
LDLINUX = "/usr/lib/syslinux/modules/bios/ldlinux.c32"
BOOT_LABEL = "SOSIEBOOT"
ROOT_LABEL = "sosie-root"
ROOT_INODE, FIRST_INODE = 2, 11
PROGRAMS = ["mke2fs", "dumpe2fs", "debugfs", "mcopy", "mformat", "syslinux", "qemu-img", "tar"]


def identity(name):
    """A UUID that depends on nothing but the name."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def require_boot_files():
    for path in (MBR_CODE, LDLINUX):
        if not os.path.exists(path):
            raise Failure(f"{path} is missing", "install it: apt-get install syslinux-common")


def partition_entry(active, kind, start, size):
    """One entry; cylinders are out of range as usual, what counts is the sector numbers."""
    return struct.pack("<B3sB3sII", 0x80 if active else 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff",
                       start // SECTOR, size // SECTOR)


def write_table(raw, boot_size, size, serial):
    with open(MBR_CODE, "rb") as file:
        code = file.read(440)
    root_start = BOOT_START + boot_size
    entries = (partition_entry(True, FAT_TYPE, BOOT_START, boot_size)
               + partition_entry(False, LINUX_TYPE, root_start, size - root_start))
    with open(raw, "r+b") as file:
        file.truncate(size)
        file.write(code.ljust(440, b"\0") + serial + bytes(2) + entries + bytes(32) + b"\x55\xaa")


def write_boot(raw, boot_size, files, serial, env):
    """files: name on the boot partition → path here."""
    at = f"{raw}@@{BOOT_START}"
    run(["mformat", "-i", at, "-T", str(boot_size // SECTOR), "-h", "255", "-s", "63", "-c", "8",
         "-H", str(BOOT_START // SECTOR), "-N", serial.hex(), "-v", BOOT_LABEL, "::"], env=env)
    for name, path in files.items():
        os.utime(path, (int(env["SOURCE_DATE_EPOCH"]),) * 2)
        run(["mcopy", "-m", "-i", at, path, "::" + name], env=env,
            hint="the kernel and its initramfs do not fit the boot partition")
    run(["syslinux", "--install", "--offset", str(BOOT_START), raw], env=env)


def write_root(raw, boot_size, size, archive, work, name, env):
    """The ext4 file system from a tar archive, whose owners it keeps."""
    tree = os.path.join(work, "root")
    os.mkdir(tree)
    start = BOOT_START + boot_size
    # Owners must survive on the way through a folder: as root they do, else fakeroot pretends.
    script = ('tar --numeric-owner -xpf "$1" -C "$2" --exclude="./dev/*" && '
              'exec mke2fs -q -F -t ext4 -b 4096 -L "$3" -U "$4" -m 1 '
              '-E "offset=$5,hash_seed=$4,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0" '
              '-d "$2" "$6" "$7"')
    prefix = [] if os.geteuid() == 0 else ["fakeroot", "--"]
    try:
        run([*prefix, "sh", "-ec", script, "sh", archive, tree, ROOT_LABEL, identity(name),
             str(start), raw, f"{(size - start) // 1024}k"], env=env,
            hint="if the files do not fit the disk, give a larger --size")
    finally:
        run(["chmod", "-R", "u+rwX", tree])  # fakeroot leaves folders that their owner cannot enter
        shutil.rmtree(tree)


def level_times(raw, start, epoch, work, env):
    """mke2fs copies when each file of the folder was made and looked at; these times go.

    It numbers inodes without gaps; below FIRST_INODE all but the root folder are reserved.
    """
    device = f"{raw}?offset={start}"
    described = run(["dumpe2fs", "-h", device], env=env).decode(errors="replace")
    count, free = (int(re.search(rf"^{name} *(\d+)$", described, re.M)[1])
                   for name in ("Inode count:", "Free inodes:"))
    script = os.path.join(work, "times")
    with open(script, "w", encoding="ascii") as file:
        for inode in [ROOT_INODE, *range(FIRST_INODE, count - free + 1)]:
            for field in ("atime", "ctime", *(["mtime"] if inode == ROOT_INODE else [])):
                file.write(f"sif <{inode}> {field} @{epoch}\nsif <{inode}> {field}_extra 0\n")
    run(["debugfs", "-w", "-f", script, device], env=env)


def make_image(work, archive, boot_files, boot_size, size, name, epoch, qcow2, compressed):
    """Assembles work/raw and converts it to the qcow2 file."""
    if size < BOOT_START + boot_size + 16 * MIB or size % MIB:
        raise Failure(f"a disk of {size} bytes is too small", "give a larger --size")
    env = dict(os.environ, SOURCE_DATE_EPOCH=str(epoch), E2FSPROGS_FAKE_TIME=str(max(epoch, 1)),
               MTOOLS_SKIP_CHECK="1", TZ="UTC", LC_ALL="C.UTF-8")
    raw = os.path.join(work, "raw")
    serial = uuid.UUID(identity(name)).bytes[:4]
    with open(raw, "wb"):
        pass
    write_table(raw, boot_size, size, serial)
    write_boot(raw, boot_size, boot_files, serial, env)
    write_root(raw, boot_size, size, archive, work, name, env)
    level_times(raw, BOOT_START + boot_size, epoch, work, env)
    packing = ["-c", "-o", "compression_type=zstd"] if compressed else []
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *packing, raw, qcow2], env=env)
    os.unlink(raw)


def cpio(members, epoch):
    """A "newc" archive as the kernel unpacks it, owned by root.

    members: [(name, mode with its type, data)], for a device (name, mode, (major, minor)).
    """
    out = bytearray()
    for inode, (name, mode, data) in enumerate([*members, ("TRAILER!!!", 0, b"")], 1):
        device, data = ((0, 0), data) if isinstance(data, bytes) else (data, b"")
        fields = (inode, mode, 0, 0, 1, epoch & 0xFFFFFFFF, len(data), 0, 0, *device,
                  len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def add_file(archive, name, path, mode, epoch):
    """Adds one file of this machine to an open tar archive, owned by root."""
    entry = tarfile.TarInfo("." + name)
    entry.size = os.stat(path).st_size
    entry.mode = mode
    entry.mtime = epoch
    with open(path, "rb") as file:
        archive.addfile(entry, file)
