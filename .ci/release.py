"""Builds what others install, into dist/.

    python .ci/release.py archive    # program, manual pages, completions, licences, SBOM, and its SHA-256; for x86-64
    python .ci/release.py wheel      # program and Python module; for this machine's system

Needs `pip install cargo-zigbuild maturin ziglang`. The same revision gives the same archive in any directory: paths are left
out of the program, and all times are that of the last commit.
"""

import argparse
import datetime
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
TARGET = "x86_64-unknown-linux-gnu"
# The oldest that the program runs with, and that Rust supports.
GLIBC = (2, 17)
SHELLS = {"bash": "mnist.bash", "zsh": "_mnist", "fish": "mnist.fish", "powershell": "_mnist.ps1", "elvish": "mnist.elv"}
LICENCES = re.compile(r"(licen[cs]e|copying|notice|unlicense|copyright)", re.IGNORECASE)


def output(*command, **options):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, **options).stdout


def without_paths():
    """The environment in which compilers leave out the paths of this machine."""
    cargo_home = os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo")
    sysroot = output("rustc", "--print", "sysroot", text=True).strip()
    places = {ROOT: ".", cargo_home: "cargo", sysroot: "rust"}
    flags = [f"--remap-path-prefix={place}={name}" for place, name in places.items()]
    c_flags = [f"-ffile-prefix-map={place}={name}" for place, name in places.items()]
    return {**os.environ, "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags), "CFLAGS": " ".join(c_flags)}


def build():
    """Builds the program without symbols, for all systems since `GLIBC`. Returns where it is."""
    target = ROOT / "target/archive"
    glibc = ".".join(map(str, GLIBC))
    command = ["cargo", "zigbuild", "--release", "--locked", f"--target={TARGET}.{glibc}", f"--target-dir={target}"]
    subprocess.run([*command, "--config=profile.release.strip=true"], cwd=ROOT, check=True, env=without_paths())
    program = target / TARGET / "release/mnist"
    symbols = output("objdump", "-T", program, text=True)
    newest = max(tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([0-9.]+)", symbols))
    if newest > GLIBC:
        sys.exit(f"{program}: expected glibc {glibc} or older, found symbols of {newest}")
    return program


def packages(target):
    """The packages that are linked into the program for `target`, without itself, by name and version."""
    metadata = json.loads(output("cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={target}"))
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    found, waiting = set(), [root]
    while waiting:
        node = nodes[waiting.pop()]
        for dependency in node["deps"]:
            normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if normal and dependency["pkg"] not in found:
                found.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    linked = [package for package in metadata["packages"] if package["id"] in found]
    return sorted(linked, key=lambda package: (package["name"], package["version"]))


def third_party(linked):
    """The licences of the packages; a text that several have stands once."""
    texts = {}
    for package in linked:
        directory = pathlib.Path(package["manifest_path"]).parent
        title = f"{package['name']} {package['version']} ({package['license']})"
        files = sorted(file for file in directory.iterdir() if file.is_file() and LICENCES.match(file.name))
        for file in files:
            texts.setdefault(file.read_text(errors="replace").strip(), []).append(title)
        if not files:
            texts.setdefault("(comes without a licence file; the licence is named above)", []).append(title)
    parts = ["\n".join(titles) + "\n\n" + text for text, titles in texts.items()]
    return ("\n\n" + "=" * 100 + "\n\n").join(parts) + "\n"


def sbom(linked, version, time):
    """The packages in CycloneDX 1.5: https://cyclonedx.org/docs/1.5/json/"""
    lock = tomllib.loads((ROOT / "build/Cargo.lock").read_text())
    sums = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}

    def component(package):
        name, number = package["name"], package["version"]
        purl = f"pkg:cargo/{name}@{number}"
        made = {"type": "library", "bom-ref": purl, "name": name, "version": number, "purl": purl}
        if package["license"]:
            made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        if sums.get((name, number)):
            made["hashes"] = [{"alg": "SHA-256", "content": sums[name, number]}]
        return made

    program = {"type": "application", "bom-ref": "mnist", "name": "mnist", "version": version}
    head = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"timestamp": time, "component": program}}
    return json.dumps({**head, "components": [component(package) for package in linked]}, indent=1) + "\n"


def contents(program, version, time):
    """The files of the archive: names, bytes and whether they can be run."""
    pages = ROOT / "target/archive/man"
    output(program, "man", pages)
    linked = packages(TARGET)
    yield "mnist", program.read_bytes(), True
    for page in sorted(pages.iterdir()):
        yield f"man/man1/{page.name}", page.read_bytes(), False
    for shell, name in SHELLS.items():
        yield f"completions/{name}", output(program, "completions", shell), False
    for file in ("LICENSE-APACHE", "LICENSE-MIT", "README.md"):
        yield file, (ROOT / file).read_bytes(), False
    for file in sorted((ROOT / "workspace/parameters").iterdir()):
        yield f"workspace/parameters/{file.name}", file.read_bytes(), False
    yield "examples/seven.png", (ROOT / "examples/seven.png").read_bytes(), False
    yield "THIRD-PARTY.txt", third_party(linked).encode(), False
    yield "mnist.cdx.json", sbom(linked, version, time).encode(), False


def rfc3339(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_archive(version, commit):
    name = f"mnist-{version}-x86_64-linux"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, data, runs in contents(build(), version, rfc3339(commit)):
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mtime, entry.mode = len(data), commit, 0o755 if runs else 0o644
            archive.addfile(entry, io.BytesIO(data))
    data = gzip.compress(packed.getvalue(), mtime=0)
    DIST.mkdir(exist_ok=True)
    (DIST / f"{name}.tar.gz").write_bytes(data)
    line = f"{hashlib.sha256(data).hexdigest()}  {name}.tar.gz\n"
    (DIST / f"{name}.tar.gz.sha256").write_text(line)
    print(line, end="")


def make_wheel(version, commit):
    host = re.search("^host: (.*)$", output("rustc", "-vV", text=True), re.MULTILINE)[1]
    linked = packages(host)
    # pyproject.toml takes it as a licence of the wheel.
    licences = ROOT / "LICENSE-THIRD-PARTY"
    licences.write_text(third_party(linked))
    with tempfile.TemporaryDirectory() as directory:
        parts = pathlib.Path(directory, "mnist.cdx.json")
        parts.write_text(sbom(linked, version, rfc3339(commit)))
        options = [f"--sbom-include={parts}", f"--out={DIST}"]
        if "linux" in host:
            options += ["--zig", "--compatibility=manylinux2014"]
        environment = {**without_paths(), "SOURCE_DATE_EPOCH": str(commit)}
        try:
            subprocess.run(["maturin", "build", "--release", "--locked", *options], cwd=ROOT, check=True, env=environment)
        finally:
            licences.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["archive", "wheel"])
    what = parser.parse_args().what
    version = tomllib.loads((ROOT / "build/Cargo.toml").read_text())["package"]["version"]
    commit = int(output("git", "log", "-1", "--format=%ct"))
    if what == "archive":
        make_archive(version, commit)
    else:
        make_wheel(version, commit)


if __name__ == "__main__":
    main()
