# SPDX-License-Identifier: Apache-2.0
"""Debian packages for an image, fetched by apt but apart from the machine's own apt.

An image must not depend on what happens to be installed here, nor need root: apt runs on a state
folder of its own (lists, archives, an empty dpkg status) inside the cache folder. Where packages
come from is what the machine's own sources say for the suite, unless a mirror is given.
"""

import fcntl
import glob
import os
import re
import shlex
import subprocess
import time
import urllib.parse

from run import Failure, output_of, run, say

LISTS_AGE_LIMIT = 24 * 3600  # seconds after which the package lists are fetched anew
# What of the machine's own configuration also holds for an image: how to reach the archive.
INHERITED = re.compile(r'^(Acquire::(?!Languages)\S+) "(.+)";$', re.M)
DEPENDENCY = re.compile(r"^ *\|?(?:Pre)?Depends: ([a-z0-9][a-z0-9.+-]*)$", re.M)


def sources_of_machine(suite):
    """The lines of this machine's apt sources for a suite, its updates and security."""
    wanted = {suite, suite + "-updates", suite + "-security"}
    lines = []
    listing = output_of(["apt-get", "indextargets", "--format",
                         "$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)"])
    for line in sorted(set(listing.splitlines())):
        kind, uri, release, component = (line.split(" ") + [""] * 4)[:4]
        if kind != "Packages" or release not in wanted:
            continue
        if "@" in urllib.parse.urlsplit(uri).netloc:
            say("leaving out a source whose address holds a password: it would be in the image")
            continue
        lines.append(f"deb {uri} {release} {component}")
    if not lines:
        raise Failure(f"this machine's apt sources have no suite {suite}",
                      "give --mirror URL, or another --suite")
    return lines


class Apt:
    """apt on a state folder of its own, one per set of sources."""

    def __init__(self, cache, suite, mirror):
        self.sources = [f"deb {mirror} {suite} main"] if mirror else sources_of_machine(suite)
        self.suite = suite
        self.versions = {}
        self.inherited = INHERITED.findall(output_of(["apt-config", "dump"]))
        name = re.sub(r"[^a-z0-9]+", "-", f"{suite} {mirror or 'own'}".lower()).strip("-")
        self.folder = os.path.join(os.path.abspath(cache), "apt-" + name)
        self.archives = os.path.join(self.folder, "archives")
        for folder in ("archives/partial", "lists/partial", "none"):
            os.makedirs(os.path.join(self.folder, folder), exist_ok=True)
        self.lock = open(os.path.join(self.folder, "lock"), "w", encoding="ascii")
        fcntl.flock(self.lock, fcntl.LOCK_EX)  # two builds share one cache, one after the other
        self._write("sources.list", "".join(line + "\n" for line in self.sources))
        self._write("status", "")
        self._write("apt.conf", self._configuration())
        self.environment = dict(os.environ, APT_CONFIG=os.path.join(self.folder, "apt.conf"),
                                LC_ALL="C.UTF-8")
        self._update(LISTS_AGE_LIMIT)

    def close(self):
        self.lock.close()

    def _write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def _configuration(self):
        settings = {
            # The machine's own configuration, which would come after this one and win: not read.
            "Dir::Etc::Parts": f"{self.folder}/none",
            "Dir::Etc::Main": "/dev/null",
            "Dir::Etc::TrustedParts": "/etc/apt/trusted.gpg.d",
            "Dir::Etc::SourceList": f"{self.folder}/sources.list",
            "Dir::Etc::SourceParts": f"{self.folder}/none",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": f"{self.folder}/none",
            "Dir::State": self.folder,
            "Dir::State::Lists": f"{self.folder}/lists",
            "Dir::State::Status": f"{self.folder}/status",
            "Dir::Cache": self.folder,
            "Dir::Cache::Archives": self.archives,
            # Without them each call of apt-cache parses all lists again, for seconds.
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        return "".join(f'{name} "{value}";\n'
                       for name, value in [*settings.items(), *self.inherited])

    def _update(self, age_limit):
        stamp = os.path.join(self.folder, "updated")
        try:
            with open(stamp, encoding="utf-8") as file:
                same = file.read() == "\n".join(self.sources)
            if same and time.time() - os.stat(stamp).st_mtime < age_limit:
                return
        except FileNotFoundError:
            pass
        say(f"fetching the package lists of {self.suite}")
        run(["apt-get", "update", "-q", "--error-on=any"], env=self.environment,
            hint="check the network, --suite and --mirror")
        self.versions.clear()
        self._write("updated", "\n".join(self.sources))

    def knows(self, package):
        shown = subprocess.run(["apt-cache", "show", "--no-all-versions", package],
                               env=self.environment, capture_output=True, check=False)
        return shown.returncode == 0 and bool(shown.stdout.strip())

    def require(self, packages):
        """Fails with the names of those packages that the suite does not have."""
        unknown = [name for name in packages if not self.knows(name)]
        if unknown:
            raise Failure(f"no such package in {self.suite}: {' '.join(unknown)}",
                          f"look for the right name: apt-cache search {shlex.quote(unknown[0])}")

    def depends(self, package):
        """The names in the package's own Depends and Pre-Depends, alternatives included."""
        text = output_of(["apt-cache", "depends", "--no-recommends", "--no-suggests",
                          "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances",
                          package], env=self.environment)
        return DEPENDENCY.findall(text)

    def version(self, package):
        if package not in self.versions:
            text = output_of(["apt-cache", "show", "--no-all-versions", package],
                             env=self.environment)
            self.versions[package] = re.search(r"^Version: (\S+)$", text, re.M)[1]
        return self.versions[package]

    def fetch(self, package):
        """Downloads the package unless the cache has this very version; returns its path."""
        found = self._archive(package)
        if found is None:
            say(f"fetching {package}")
            try:
                self._download(package)
            except Failure:
                self._update(0)  # lists older than the archive name versions that are gone
                self._download(package)
            found = self._archive(package)
        return found

    def _archive(self, package):
        version = self.version(package).replace(":", "%3a")
        found = glob.glob(os.path.join(self.archives, f"{package}_{glob.escape(version)}_*.deb"))
        return found[0] if found else None

    def _download(self, package):
        partial = os.path.join(self.archives, "partial")
        run(["apt-get", "download", "-q", package], env=self.environment, cwd=partial,
            hint="check the network, --suite and --mirror")
        for name in os.listdir(partial):  # complete files only: apt has checked their sums
            if name.startswith(package + "_") and name.endswith(".deb"):
                os.rename(os.path.join(partial, name), os.path.join(self.archives, name))
