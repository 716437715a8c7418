#!/usr/bin/env python3
"""Installs clayer, and verifies it: install.sh for machines that have Python and no more.

  install.py [--version VERSION] [--pins "SHA256..."] [--dir DIR]

It asks the same hosts in the same order, and reads the same variables: see install.sh.
Prints the path of the program, and nothing else, to stdout.
"""

import argparse
import hashlib
import html.parser
import io
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile

RELEASE, RELEASE_PINS = "", ""

ARCHS = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
TAGS = {
    "darwin-amd64": "macosx_10_12_x86_64",
    "darwin-arm64": "macosx_11_0_arm64",
    "linux-amd64": "manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64",
    "linux-arm64": "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
}


class NoNetwork(Exception):
    """A host was not reached."""


def fetch(url):
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url}: not a URL of HTTP")
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read()
    except urllib.error.URLError as e:
        refused = isinstance(e, urllib.error.HTTPError) or isinstance(e.reason, (ConnectionRefusedError, ssl.SSLError)) or "unnel connection failed" in str(e)
        raise (ValueError if refused else NoNetwork)(f"cannot download {url}: {e}") from e


class Links(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def from_pypi(system, arch, version):
    index, name = os.environ.get("CLAYER_PYPI_URL", "https://pypi.org/simple"), os.environ.get("CLAYER_PYPI_NAME") or "container-layer"
    if not index or not version:
        return None
    page = f"{index.rstrip('/')}/{name}/"
    python_version = re.sub(r"-(a|b|rc)[a-z]*\.", r"\1", version)  # 1.2.3rc1
    stem = f"{name.replace('-', '_')}-{python_version}"
    file = f"{stem}-py3-none-{TAGS[system + '-' + arch]}.whl"
    for link in Links(fetch(page).decode()).found:
        url = urllib.parse.urldefrag(urllib.parse.urljoin(page, link)).url
        if url.split("?")[0].endswith("/" + file):
            return zipfile.ZipFile(io.BytesIO(fetch(url))).read(f"{stem}.data/scripts/clayer")
    raise ValueError(f"{page} does not list {file}")


def unpack(url, member):
    with tarfile.open(fileobj=io.BytesIO(fetch(url)), mode="r:gz") as archive:
        return archive.extractfile(member).read()


def from_npm(system, arch, version):
    registry, scope = os.environ.get("CLAYER_NPM_URL", "https://registry.npmjs.org"), os.environ.get("CLAYER_NPM_SCOPE") or "@container-layer"
    if not registry or not version:
        return None
    package = f"{system}-{'x64' if arch == 'amd64' else arch}"
    return unpack(f"{registry.rstrip('/')}/{scope}/{package}/-/{package}-{version}.tgz", "package/bin/clayer")


def from_releases(url, system, arch, version):
    if not url:
        return None
    at = f"download/v{version}" if version else "latest/download"
    return unpack(f"{url.rstrip('/')}/{at}/clayer_{system}_{arch}.tar.gz", "clayer")


def from_github(*machine):
    return from_releases(os.environ.get("CLAYER_GITHUB_URL", "https://github.com/clayer/clayer/releases"), *machine)


def from_url(*machine):
    return from_releases(os.environ.get("CLAYER_DOWNLOAD_URL"), *machine)


def say(text):
    print(f"clayer: {text}", file=sys.stderr)


def is_version(program, version):
    try:
        out = subprocess.run([program, "version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.decode()
    except OSError:
        return False
    return bool(re.match(rf"clayer v?{re.escape(version)} ", out))


def install(version, pins, directory):
    """Return the path of clayer, which is installed in directory if that version is not on this machine."""
    version, path = version[version.startswith("v"):], os.path.join(directory, "clayer")
    for program in (shutil.which("clayer"), path):
        if version and program and is_version(program, version):
            return program
    if os.environ.get("CLAYER_OFFLINE", "").lower() not in ("", "0", "f", "false"):
        raise SystemExit(f"clayer: offline (CLAYER_OFFLINE): no clayer {version} on PATH or in {directory}, and none is downloaded")
    system, arch = platform.system().lower(), ARCHS.get(platform.machine().lower())
    if f"{system}-{arch}" not in TAGS:
        raise SystemExit(f"clayer: no release for {platform.system()} {platform.machine()}")
    hosts, started = [from_pypi, from_npm, from_github, from_url], time.monotonic()
    while True:
        dead = []
        for host in hosts:
            try:
                data = host(system, arch, version)
            except NoNetwork as e:
                dead.append((host, e))
                continue
            except Exception as e:  # refused, or an archive that is none
                say(e)
                continue
            if data is None:
                continue
            digest = hashlib.sha256(data).hexdigest()
            if pins and digest not in pins:
                say(f"checksum mismatch: {host.__name__} has SHA-256 {digest}, which is none of the pins: {' '.join(pins)}")
                continue
            os.makedirs(directory, exist_ok=True)
            handle, temp = tempfile.mkstemp(prefix=".clayer-", dir=directory)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temp, 0o755)
            os.replace(temp, path)
            return path
        # What could not be asked gets 30 s in all: the network may not be up yet.
        if not dead or time.monotonic() - started > 2 * int(os.environ.get("CLAYER_TRIES") or 15):
            break
        hosts = [host for host, _ in dead]
        time.sleep(2)
    for _, e in dead:
        say(e)
    raise SystemExit(f"clayer: no clayer {version} could be had from PyPI, npm, GitHub or CLAYER_DOWNLOAD_URL; nothing was installed")


def main():
    parser = argparse.ArgumentParser(description="Install clayer, and verify it.")
    parser.add_argument("--version", default=os.environ.get("CLAYER_VERSION") or RELEASE)
    parser.add_argument("--pins", default=os.environ.get("CLAYER_PINS", ""))
    parser.add_argument("--dir", default=os.environ.get("CLAYER_INSTALL_DIR") or os.path.join(os.environ.get("HOME") or "/root", ".local", "bin"))
    args = parser.parse_args()
    version = args.version[args.version.startswith("v"):]
    pins = args.pins or (RELEASE_PINS if version == RELEASE else "")
    print(install(version, pins.split(), args.dir))


if __name__ == "__main__":
    main()
