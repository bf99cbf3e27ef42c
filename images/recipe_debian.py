# SPDX-License-Identifier: Apache-2.0
"""debian: a Debian system with systemd, made by mmdebstrap without root if need be.

mmdebstrap leaves the system as a tar archive; from it come the kernel and the initramfs for the
boot partition, the list of packages, and by way of `disk` the root file system. Files of this
recipe (debian/overlay) are in place before the first package is, since the kernel's own package
already builds the initramfs that they shape.
"""

import os
import re
import shlex
import tarfile

import disk
from recipe_mini import COMMAND_LINE, SYSLINUX_CFG
from run import Failure, run, say

PROGRAMS_NEEDED = ["mmdebstrap", "openssl"]
BOOT_SIZE = 128 * disk.MIB
DEFAULT_SIZE = 2048 * disk.MIB
COMPRESSED = True
PACKAGES = ["linux-image-cloud-amd64", "initramfs-tools", "lz4", "systemd-sysv",
            "udev", "dbus", "kmod", "fdisk", "e2fsprogs", "login", "passwd",
            "iproute2", "iputils-ping", "procps", "ca-certificates"]
# Documentation stays out, licences stay in.
DPKG_OPTIONS = ["path-exclude=/usr/share/man/*", "path-exclude=/usr/share/info/*",
                "path-exclude=/usr/share/locale/*", "path-exclude=/usr/share/doc/*",
                "path-include=/usr/share/doc/*/copyright"]
LINKS_FOLLOWED = 4


def place(path):
    """Where a path of the user's lies: a Debian system has links for /bin, /sbin and /lib*."""
    return "/usr" + path if path.startswith(("/bin/", "/sbin/", "/lib/", "/lib64/")) else path


def make_overlay(own, archive, epoch, packages):
    def owned_by_root(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
        entry.mtime = epoch
        return entry

    overlay = os.path.join(own, "overlay")
    with tarfile.open(archive, "w") as tar:
        for base, folders, files in os.walk(overlay):
            folders.sort()
            for name in sorted(folders + files):
                path = os.path.join(base, name)
                tar.add(path, "./" + os.path.relpath(path, overlay), recursive=False,
                        filter=owned_by_root)
        if "cloud-init" in packages:
            disk.add_file(tar, "/etc/cloud/cloud.cfg.d/90_sosie.cfg",
                          os.path.join(own, "cloud.cfg"), 0o644, epoch)


def bootstrap(job, apt, archive, uuid):
    overlay = os.path.join(job.work, "overlay.tar")
    own = os.path.join(job.recipes, "debian")
    make_overlay(own, overlay, job.epoch, job.packages)
    with open(os.path.join(own, "customize"), encoding="utf-8") as file:
        script = file.read()  # handed over as text: mmdebstrap's user may not enter our folders
    command = ["mmdebstrap", "--mode=" + ("root" if os.geteuid() == 0 else "auto"),
               "--variant=minbase", "--architectures=amd64", "--format=tar",
               "--include=" + ",".join([*PACKAGES, *job.packages]),
               f"--setup-hook=tar-in {overlay} /",
               f'--customize-hook=sh -c {shlex.quote(script)} customize "$1" {job.hostname}'
               f' {uuid} {disk.BOOT_LABEL}',
               *[f"--dpkgopt={option}" for option in DPKG_OPTIONS],
               *[f'--aptopt={name} "{value}"' for name, value in apt.inherited],
               job.suite, archive, "-"]
    env = dict(os.environ, SOURCE_DATE_EPOCH=str(job.epoch), LC_ALL="C.UTF-8",
               ROOT_PASSWORD=job.root_password())
    if os.geteuid() == 0:
        env["TMPDIR"] = job.work  # goes with the work folder, whatever happens
    run(command, input="".join(line + "\n" for line in apt.sources).encode(), env=env,
        hint="check the names of the packages; without root, mmdebstrap needs the package uidmap"
        " and your user in /etc/subuid")


def follow(tar, name):
    """The regular file that a name in the archive leads to."""
    path = "./" + name
    for _ in range(LINKS_FOLLOWED):
        try:
            entry = tar.getmember(path)
        except KeyError:
            raise Failure(f"the new system has no {name}", "this is a defect of the recipe"
                          ) from None
        if entry.isfile():
            return tar.extractfile(entry).read(), os.path.basename(path)
        path = os.path.normpath(os.path.join(
            "/" + os.path.dirname(path) if not entry.linkname.startswith("/") else "/",
            entry.linkname))
        path = "." + path
    raise Failure(f"too many links at {name} in the new system", "this is a defect of the recipe")


def installed(status):
    """{name: version} from dpkg's status file."""
    return {match[1]: match[2] for match in re.finditer(
        r"^Package: (\S+)\nStatus: install ok installed\n(?:.*\n)*?Version: (\S+)$", status, re.M)}


def build(job):
    """Fills in the work folder; returns what the manifest says about the image."""
    apt = job.apt()
    apt.require([*PACKAGES, *job.packages])
    apt.close()
    uuid = disk.identity(job.name)
    say(f"installing {len(PACKAGES) + len(job.packages)} packages and what they need:"
        " some minutes")
    bootstrap(job, apt, job.archive, uuid)
    with tarfile.open(job.archive) as tar:
        kernel, kernel_name = follow(tar, "vmlinuz")
        initramfs, _ = follow(tar, "initrd.img")
        packages = installed(follow(tar, "var/lib/dpkg/status")[0].decode())
    job.boot_file("vmlinuz", kernel)
    job.boot_file("initrd.img", initramfs)
    command_line = f"root=UUID={uuid} ro {COMMAND_LINE}"
    job.boot_file("syslinux.cfg", SYSLINUX_CFG.format(command_line=command_line).encode())
    return {"kernel": kernel_name[len("vmlinuz-"):], "packages": packages}
