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
import html
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
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
LICENCES = re.compile(r"(licen[cs]e|copying|notice|unlicense|copyright).*(?<!\.rs)", re.IGNORECASE)


def output(*command, **options):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, **options).stdout


def sysroot():
    return pathlib.Path(output("rustc", "--print", "sysroot", text=True).strip())


def without_paths():
    """The environment in which compilers leave out the paths of this machine."""
    cargo_home = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    # Of several that match, the compilers take the last. A registry's directory is named for its address.
    places = {ROOT: ".", sysroot(): "rust", cargo_home: "cargo"}
    places.update({registry: "cargo" for registry in cargo_home.glob("registry/src/*")})
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
    """The packages that are linked into the program for `target`: of `cargo metadata`, by name and version, with those that
    each `uses`. The first is the program itself.
    """
    # Only `tree` knows which optional packages are there without the tests.
    flags = ["--locked", f"--target={target}", "--edges=normal,no-proc-macro", "--prefix=none", "--format={p}"]
    linked = {tuple(line.split()[:2]) for line in output("cargo", "tree", *flags, text=True).splitlines() if line}
    metadata = json.loads(output("cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={target}"))
    known = {package["id"]: package for package in metadata["packages"]}
    found = {name: package for name, package in known.items() if (package["name"], f"v{package['version']}") in linked}
    for node in metadata["resolve"]["nodes"]:
        if node["id"] in found:
            normal = [use["pkg"] for use in node["deps"] if any(kind["kind"] is None for kind in use["dep_kinds"])]
            found[node["id"]]["uses"] = [found[name] for name in normal if name in found]
    program = found.pop(metadata["resolve"]["root"])
    return [program, *sorted(found.values(), key=lambda package: (package["name"], package["version"]))]


def linked_besides():
    """Titles and licences of what is linked without being a package: Rust's library, and what stands in for the system's."""
    library = (sysroot() / "share/doc/rust/COPYRIGHT-library.html").read_text()
    title = output("rustc", "--version", text=True).strip()
    yield f"The standard library of {title}", html.unescape(re.sub(r"<style.*?</style>|<[^>]*>", "", library, flags=re.DOTALL))
    if zig := importlib.util.find_spec("ziglang"):
        directory = pathlib.Path(zig.origin).parent
        yield "compiler-rt of Zig", (directory / "LICENSE").read_text()
        yield "libunwind of LLVM", (directory / "lib/libunwind/LICENSE.TXT").read_text()


def third_party(linked):
    """The licences of the packages; a text that several have stands once."""
    texts = {}
    for package in linked:
        directory = pathlib.Path(package["manifest_path"]).parent
        title = f"{package['name']} {package['version']} ({package['license']})"
        files = sorted(file for file in directory.rglob("*") if file.is_file() and LICENCES.fullmatch(file.name))
        for file in files:
            texts.setdefault(file.read_text(errors="replace").strip(), []).append(title)
        if not files:
            texts.setdefault("(comes without a licence file; the licence is named above)", []).append(title)
    for title, text in linked_besides():
        texts.setdefault(text.strip(), []).append(title)
    parts = ["\n".join(titles) + "\n\n" + text for text, titles in texts.items()]
    return ("\n\n" + "=" * 100 + "\n\n").join(parts) + "\n"


def sbom(program, linked, time):
    """The packages in CycloneDX 1.5: https://cyclonedx.org/docs/1.5/json/"""
    lock = tomllib.loads((ROOT / "build/Cargo.lock").read_text())
    sums = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}

    def purl(package):
        return f"pkg:cargo/{package['name']}@{package['version']}"

    def component(package):
        name, number = package["name"], package["version"]
        made = {"type": "library", "bom-ref": purl(package), "name": name, "version": number, "purl": purl(package)}
        if package["license"]:
            made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        if sums.get((name, number)):
            made["hashes"] = [{"alg": "SHA-256", "content": sums[name, number]}]
        return made

    subject = {**component(program), "type": "application"}
    head = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "metadata": {"timestamp": time, "component": subject}}
    uses = [{"ref": purl(package), "dependsOn": sorted(map(purl, package["uses"]))} for package in (program, *linked)]
    return json.dumps({**head, "components": list(map(component, linked)), "dependencies": uses}, indent=1) + "\n"


def contents(program, time):
    """The files of the archive: names, bytes and whether they can be run."""
    pages = ROOT / "target/archive/man"
    shutil.rmtree(pages, ignore_errors=True)
    output(program, "man", pages)
    this, *linked = packages(TARGET)
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
    yield "mnist.cdx.json", sbom(this, linked, time).encode(), False


def rfc3339(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_archive(version, commit):
    name = f"mnist-{version}-x86_64-linux"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, data, runs in contents(build(), rfc3339(commit)):
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mtime, entry.mode = len(data), commit, 0o755 if runs else 0o644
            archive.addfile(entry, io.BytesIO(data))
    data = gzip.compress(packed.getvalue(), mtime=0)
    DIST.mkdir(exist_ok=True)
    (DIST / f"{name}.tar.gz").write_bytes(data)
    line = f"{hashlib.sha256(data).hexdigest()}  {name}.tar.gz\n"
    (DIST / f"{name}.tar.gz.sha256").write_text(line)
    print(line, end="")


def make_wheel(commit):
    host = re.search("^host: (.*)$", output("rustc", "-vV", text=True), re.MULTILINE)[1]
    this, *linked = packages(host)
    # pyproject.toml takes it as a licence of the wheel.
    licences = ROOT / "LICENSE-THIRD-PARTY"
    licences.write_text(third_party(linked))
    with tempfile.TemporaryDirectory() as directory:
        parts = pathlib.Path(directory, "mnist.cdx.json")
        parts.write_text(sbom(this, linked, rfc3339(commit)))
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
    commit = int(output("git", "log", "-1", "--format=%ct"))
    if what == "archive":
        version = tomllib.loads((ROOT / "build/Cargo.toml").read_text())["package"]["version"]
        make_archive(version, commit)
    else:
        make_wheel(commit)


if __name__ == "__main__":
    main()
