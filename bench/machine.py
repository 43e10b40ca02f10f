"""What records say of the machine and the program, and where they go."""
import datetime
import functools
import hashlib
import itertools
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILT = ROOT / "target/release/mnist"


def cpuinfo():
    """What Linux says of the processor; nothing elsewhere."""
    try:
        return pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def cpu():
    """The processor's name; with its family and model where the name has no number, as that of several generations."""
    said = lambda key: re.search(rf"^{key}\s*: (.*)", cpuinfo(), re.MULTILINE)
    name, family, model = said("model name"), said("cpu family"), said("model")
    if not name:
        return platform.processor() or platform.machine()
    numbers = f" (family {family[1]}, model {model[1]})" if family and model and not re.search(r"\d", name[1]) else ""
    return name[1].strip() + numbers


@functools.lru_cache(None)
def processors(program):
    """How many processors our program may use, by `mnist devices`: not all of the machine, if a mask or a control group says so."""
    listed = re.search(r"the processor: (\d+) thread", output(program, "devices"))
    return int((listed or sys.exit(f"{program}: expected the program mnist"))[1])


def gpu(program, device):
    """The GPU that `device` means, by the list of `mnist devices`: its name, and its kind, interface and driver."""
    listed = re.findall(r"^\s*gpu:(\S+)\s+(.+) \((.*)\)$", output(program, "devices"), re.MULTILINE)
    wanted = device.partition(":")[2].lower()
    by_number = not wanted or wanted.isdigit()
    meant = [(name, driver) for number, name, driver in listed
             if (number.isdigit() and wanted in ("", number) if by_number else wanted in name.lower())]
    return meant[0] if meant else (device, "driver unknown")


def multiplies_bf16():
    """Whether the processor has instructions for products of bf16 numbers."""
    return re.search(r"^(flags|Features)\s*:.*\b(avx512_bf16|bf16)\b", cpuinfo(), re.MULTILINE) is not None


def megabytes(usage):
    """The most memory that a process had, by its resource usage: Linux counts KiB, macOS bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def output(*command):
    """What a program prints; "unknown" where there is no such program or it fails."""
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def load():
    """How many programs wanted a processor in the last minute, on average; None where the system does not say."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def program(given, features=()):
    """The path of the program to measure: `given`, or the one that cargo builds here with `features`."""
    if not given:
        build(features)
    return os.path.abspath(shutil.which(given or BUILT) or sys.exit(f"{given or BUILT}: expected a program"))


def build(features):
    if not shutil.which("cargo"):
        sys.exit("cargo: expected on this machine: install Rust, or name a program that is built already with --mnist=PROGRAM")
    command = ["cargo", "build", "--release", "--locked", "--quiet", f"--features={','.join(sorted(features))}"]
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit("expected cargo to build the program: mend what it says above")


def described(program):
    """Our program's version and features, and the beginning of its SHA-256: one that is given may be of any revision."""
    digest = hashlib.sha256(pathlib.Path(program).read_bytes()).hexdigest()
    return "; ".join([*output(program, "--version").splitlines(), f"SHA-256 {digest[:12]}…"])


def record(*what):
    """The directory of a new record of today, named after a processor or GPU and what was measured. The second one of a day
    ends in -2."""
    words = re.sub(r"\([^)]*\)|\b(Processor|CPU)\b", " ", " ".join(what)).lower()
    name = f"{datetime.date.today()}-{re.sub('[^a-z0-9]+', '-', words).strip('-')}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(path for path in (ROOT / "bench/records" / name for name in names) if not path.exists())


def invocation():
    """The command that makes the record, without the paths of this machine."""
    script = pathlib.Path(sys.argv[0]).name
    return f"python3 bench/{script} {' '.join(re.sub('=/.*/', '=…/', argument) for argument in sys.argv[1:])}"


def revision():
    """The commit that is measured; "unknown" without git or a repository."""
    commit = output("git", "rev-parse", "--short=12", "HEAD")
    # Records that are not committed yet change no measurement.
    sources = ["build", "benches", "bench", "Cargo.toml", "Cargo.lock", ":!bench/records"]
    changed = " with changes" if commit != "unknown" and output("git", "status", "--porcelain", "--", *sources) != "" else ""
    return commit + changed
