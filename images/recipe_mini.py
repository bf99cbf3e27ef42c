# SPDX-License-Identifier: Apache-2.0
"""mini: Debian's cloud kernel, busybox, a few real programs; starts in seconds without KVM.

The root file system is made file by file, never by installing packages: only what a program's
own ELF header asks for comes along. Programs that busybox has too are there as Debian's dynamic
ones (PROGRAMS), since a preload library can only reach into those.
"""

import io
import os
import stat
import subprocess
import tarfile

import disk
import elf
from run import Failure, run, say

KERNEL = "linux-image-cloud-amd64"
BUSYBOX = "busybox-static"
BOOT_SIZE = 24 * disk.MIB
DEFAULT_SIZE = 256 * disk.MIB
COMPRESSED = False
LIBRARY_ROUNDS = 8  # how deep libraries that need libraries are followed

# Package → its programs that the image has, by their place in it.
PROGRAMS = {
    "bash": ["bin/bash"],
    "dash": ["bin/dash"],
    "coreutils": ["bin/date", "bin/mktemp", "usr/bin/shuf", "usr/bin/od", "usr/bin/sha256sum",
                  "usr/bin/env"],
    "uuid-runtime": ["usr/bin/uuidgen"],
    "openssl": ["usr/bin/openssl"],
}
# All are in the initramfs: the root file system then fits any kernel that the loader starts.
MODULES = ["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev",
           "virtio_pci", "virtio_blk", "failover", "net_failover", "virtio_net", "virtio_console",
           "virtio-rng", "button", "evdev"]
# Module → what it needs, as in the kernel's modules.dep: the last to be loaded comes first.
VIRTIO = ["virtio", "virtio_ring"]
DEPENDENCIES = {
    "virtio": ["virtio_ring"],
    "virtio_pci": ["virtio_pci_legacy_dev", "virtio_pci_modern_dev", *VIRTIO],
    "virtio_blk": VIRTIO,
    "net_failover": ["failover"],
    "virtio_net": ["net_failover", "failover", *VIRTIO],
    "virtio_console": VIRTIO,
    "virtio-rng": VIRTIO,
}
# cryptomgr.notests: the ciphers' self-tests at each start cost 0.3 s without KVM.
COMMAND_LINE = "console=ttyS0 quiet net.ifnames=0 cryptomgr.notests edd=off"

SYSLINUX_CFG = """\
DEFAULT sosie
PROMPT 0
LABEL sosie
LINUX vmlinuz
INITRD initrd.img
APPEND {command_line}
"""

# Place in the image → (file beside this one, mode).
OWN_FILES = {
    "etc/inittab": ("inittab", 0o644),
    "etc/rc": ("rc", 0o755),
    "etc/rc.down": ("rc.down", 0o755),
    "etc/profile": ("profile", 0o644),
    "etc/udhcpc.script": ("udhcpc.script", 0o755),
    "etc/acpi/PWRF/00000080": ("power", 0o755),
}
FOLDERS = {"dev": 0o755, "proc": 0o555, "sys": 0o555, "run": 0o755, "tmp": 0o1777,
           "root": 0o700, "mnt": 0o755, "var": 0o755, "var/lib": 0o755, "var/log": 0o755,
           "var/tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755,
           "usr/lib": 0o755, "usr/lib64": 0o755, "etc": 0o755, "etc/acpi": 0o755,
           "etc/acpi/PWRF": 0o755}
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64",
         "usr/bin/sh": "dash", "etc/mtab": "/proc/mounts", "var/run": "/run"}


PROGRAMS_NEEDED = []


def place(path):
    """Where a path of the user's lies: the file system has links for /bin, /sbin and /lib*."""
    return "/" + merged(path[1:]) if path.startswith(("/bin/", "/sbin/", "/lib/", "/lib64/")) \
        else path


def merged(path):
    """A package's path in a file system where /bin, /sbin and /lib* lie under /usr."""
    return path if path.startswith(("usr/", "etc/", "var/")) else "usr/" + path


class Tree:
    """The root file system to be: path → (mode with its type, bytes or link target)."""

    def __init__(self):
        self.entries = {}

    def folder(self, path, mode=0o755):
        self.entries.setdefault(path, (stat.S_IFDIR | mode, b""))

    def file(self, path, data, mode):
        parent = os.path.dirname(path)
        while parent and parent not in self.entries:
            self.folder(parent)
            parent = os.path.dirname(parent)
        self.entries[path] = (stat.S_IFREG | mode, data)

    def link(self, path, target):
        self.entries.setdefault(path, (stat.S_IFLNK | 0o777, target))

    def save(self, archive, epoch):
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(self.entries):
                mode, content = self.entries[path]
                entry = tarfile.TarInfo("./" + path)
                entry.mode, entry.mtime = stat.S_IMODE(mode), epoch
                if stat.S_ISDIR(mode):
                    entry.type = tarfile.DIRTYPE
                    tar.addfile(entry)
                elif stat.S_ISLNK(mode):
                    entry.type, entry.linkname = tarfile.SYMTYPE, content
                    tar.addfile(entry)
                else:
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


class Packages:
    """The packages taken so far, unpacked one folder each."""

    def __init__(self, apt, work):
        self.apt, self.work = apt, work
        self.versions = {}

    def take(self, package):
        folder = os.path.join(self.work, "deb-" + package)
        if package not in self.versions:
            run(["dpkg", "-x", self.apt.fetch(package), folder])
            self.versions[package] = self.apt.version(package)
        return folder

    def library(self, name):
        """The path of a library in what is unpacked, or None."""
        for package in self.versions:
            folder = os.path.join(self.work, "deb-" + package)
            for place in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
                path = os.path.join(folder, place, name)
                if os.path.exists(path):
                    return path
        return None

    def find_library(self, name):
        """As library(), taking what the packages so far depend on until one has it."""
        stem = name.split(".so")[0]
        for _ in range(LIBRARY_ROUNDS):
            path = self.library(name)
            if path:
                return path
            near = {dependency for package in list(self.versions)
                    for dependency in self.apt.depends(package)
                    if dependency.startswith("lib") and dependency not in self.versions}
            alike = {package for package in near if package.startswith(stem)}
            if not near:
                break
            for package in sorted(alike or near):
                self.take(package)
        raise Failure(f"no package has the library {name}", "this is a defect of the recipe")


def read(*parts):
    with open(os.path.join(*parts), "rb") as file:
        return file.read()


def add_programs(tree, packages):
    """PROGRAMS with all the libraries that they need, and those that these need."""
    wanted = []
    for package, paths in PROGRAMS.items():
        folder = packages.take(package)
        for path in paths:
            tree.file(merged(path), read(folder, path), 0o755)
            wanted.append(os.path.join(folder, path))
    seen = set()
    while wanted:
        interpreter, names = elf.needs(wanted.pop())
        if interpreter:
            linker = packages.find_library(os.path.basename(interpreter))
            tree.file("usr" + interpreter, read(linker), 0o755)
        for name in names:
            if name not in seen:
                seen.add(name)
                path = packages.find_library(name)
                tree.file("usr/lib/x86_64-linux-gnu/" + name, read(path), 0o644)
                wanted.append(path)


def add_busybox(tree, busybox):
    tree.file("usr/bin/busybox", read(busybox), 0o755)
    listing = subprocess.run([busybox, "--list-full"], capture_output=True, check=True).stdout
    for path in listing.decode().split():
        if merged(path) not in tree.entries and "usr/bin/" + path.split("/")[-1] not in tree.entries:
            tree.link(merged(path), "/usr/bin/busybox")
    tree.link("usr/sbin/init", "/usr/bin/busybox")


def add_modules(store, folder, release, names, place):
    """Calls store(path, data) for the modules and the modules.dep by which modprobe finds them."""
    place = f"{place}/{release}"
    kernel = os.path.join(folder, "lib/modules", release, "kernel")
    paths = {name: os.path.join(base, name) for base, _, files in os.walk(kernel)
             for name in files}
    for name in names:
        if name + ".ko" not in paths:
            raise Failure(f"the kernel {release} has no module {name}",
                          "this recipe does not know that kernel: try another --suite")
        store(f"{place}/{name}.ko", read(paths[name + ".ko"]))
    dependencies = {name: DEPENDENCIES.get(name, []) for name in names}
    store(f"{place}/modules.dep",
          "".join(f"{name}.ko:{''.join(f' {other}.ko' for other in others)}\n"
                  for name, others in dependencies.items()).encode())


def make_initramfs(own, busybox, kernel, release, epoch):
    members = [(name, stat.S_IFDIR | 0o755, b"")
               for name in ("bin", "dev", "lib", "lib/modules", "lib/modules/" + release, "proc",
                            "root", "sys")]
    members += [("dev/console", stat.S_IFCHR | 0o600, (5, 1)),
                ("bin/busybox", stat.S_IFREG | 0o755, read(busybox)),
                ("bin/sh", stat.S_IFLNK | 0o777, b"busybox"),
                ("init", stat.S_IFREG | 0o755, read(own, "init"))]
    add_modules(lambda path, data: members.append((path, stat.S_IFREG | 0o644, data)),
                kernel, release, MODULES, "lib/modules")
    return disk.cpio(members, epoch)


def build(job):
    """Fills in the work folder; returns what the manifest says about the image."""
    apt = job.apt()
    depends = [name for name in apt.depends(KERNEL) if name.startswith("linux-image-")]
    if not depends:
        raise Failure(f"{KERNEL} names no kernel in {job.suite}", "try another --suite")
    say("unpacking packages")
    packages = Packages(apt, job.work)
    kernel = packages.take(depends[0])
    busybox = os.path.join(packages.take(BUSYBOX), "bin/busybox")
    release = os.listdir(os.path.join(kernel, "lib/modules"))[0]
    own = os.path.join(job.recipes, "mini")

    tree = Tree()
    for path, mode in FOLDERS.items():
        tree.folder(path, mode)
    for path, target in LINKS.items():
        tree.link(path, target)
    for path, (name, mode) in OWN_FILES.items():
        tree.file(path, read(own, name), mode)
    hostname = job.hostname.encode()
    tree.file("etc/hostname", hostname + b"\n", 0o644)
    tree.file("etc/hosts", b"127.0.0.1 localhost\n127.0.1.1 " + hostname + b"\n", 0o644)
    tree.file("etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n", 0o644)
    tree.file("etc/group", b"root:x:0:\n", 0o644)
    add_programs(tree, packages)
    add_busybox(tree, busybox)
    tree.save(job.archive, job.epoch)

    command_line = f"root=UUID={disk.identity(job.name)} {COMMAND_LINE}"
    job.boot_file("vmlinuz", read(kernel, "boot/vmlinuz-" + release))
    job.boot_file("initrd.img", make_initramfs(own, busybox, kernel, release, job.epoch))
    job.boot_file("syslinux.cfg", SYSLINUX_CFG.format(command_line=command_line).encode())
    return {"kernel": release, "packages": packages.versions}
