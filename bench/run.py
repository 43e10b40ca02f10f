#!/usr/bin/env python3
"""Measures `mnist train` against what a user would pick instead, in one run on one machine, and writes a record.

    python3 bench/run.py --data_dir=workspace/data --pytorch=VENV/bin/python --jax=VENV/bin/python --keras=VENV/bin/python

DATA_DIR holds MNIST as `mnist download` leaves it. Each peer is given as the Python that has it (`pip install torch numpy`,
`pip install jax optax`, `pip install tensorflow-cpu`); one that is not given is left out. Some twenty minutes on two cores,
of which nothing else should use any; `--only=epoch,process` runs some parts. On a machine with a GPU,
`--only=gpu --gpu=gpu` measures that instead (`mnist devices` says what `--gpu` takes), with a PyTorch and a JAX for CUDA.

Programs take turns, so that a machine that slows down slows all of them; figures are medians of RUNS runs. The record,
README.md with the tables and raw.jsonl with each run, goes into bench/records/DATE-CPU/ (or --out).
"""
import argparse
import datetime
import gzip
import hashlib
import json
import os
import pathlib
import platform
import re
import statistics
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNS = 5
PARTS = ["limits", "epoch", "process", "sets", "growth", "seeds", "threads"]
GPU_PARTS = ["gpu"]


class Bench:
    def __init__(self, flags, work):
        self.data_dir, self.work, self.out = flags.data_dir, work, flags.out
        self.peers = {name: getattr(flags, name) for name in ("pytorch", "jax", "keras") if getattr(flags, name)}
        self.lines, self.versions = [], {}
        self.out.mkdir(parents=True, exist_ok=True)
        self.raw = open(self.out / "raw.jsonl", "w")
        self.parameters = work / "parameters.yaml"
        self.parameters.write_text((ROOT / "workspace/parameters/default.parameters.yaml").read_text())

    def note(self, part, what, **values):
        self.raw.write(json.dumps({"part": part, "what": what, **values}) + "\n")
        self.raw.flush()
        print(part, what, values, file=sys.stderr)

    def say(self, *lines):
        self.lines += lines

    def table(self, head, rows):
        self.say("", "| " + " | ".join(head) + " |", "|" + "---|" * len(head))
        self.say(*("| " + " | ".join(row) + " |" for row in rows), "")

    def mnist(self, *flags, data_dir=None, set_=None):
        """Trains; returns metrics, seconds and peak memory of the whole process, and the model's bytes."""
        logs, model = self.work / "logs", self.work / "model"
        command = [ROOT / "target/release/mnist", "train", f"--data_dir={data_dir or self.data_dir}", f"--log_dir={logs}",
                   f"--model_dir={model}", f"--parameters_file={self.parameters}", *flags]
        environment = {**os.environ, **({"MNIST_INSTRUCTION_SET": set_} if set_ else {})}
        begin = datetime.datetime.now()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        error = child.stderr.read().decode()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = (datetime.datetime.now() - begin).total_seconds()
        if status:
            sys.exit(f"{command}: {error}")
        metrics = json.loads((model / "metrics.json").read_text())
        return metrics, seconds, usage.ru_maxrss / 1000, (model / "model.safetensors").read_bytes()

    def peer(self, name, *flags, data_dir=None):
        command = [self.peers[name], ROOT / f"bench/peers/train_{name}.py", f"--data_dir={data_dir or self.data_dir}", *flags]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        self.versions[name] = answer["version"]
        return answer

    def limits(self):
        command = ["cargo", "bench", "--locked", "--quiet", "--features", "bench", "--bench", "limits", "--", self.data_dir]
        out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        limits = json.loads(out.splitlines()[-1])
        self.note("limits", limits["instruction_set"], **limits)
        return limits

    def epoch(self, limits):
        """Seconds for an epoch of the default network at batch 32, steady state."""
        samples, accuracy = {}, {}

        def add(what, seconds, score):
            samples.setdefault(what, []).append(seconds)
            accuracy[what] = score
            self.note("epoch", what, seconds=seconds, accuracy=score)

        for _ in range(RUNS):
            for what, flags in (("fused, 2 threads", ["--threads=2"]), ("fused, 1 thread", ["--threads=1"]),
                                ("engine burn, 2 threads", ["--threads=2", "--engine=burn"])):
                metrics, *_ = self.mnist(*flags)
                steady = [epoch["seconds"] for epoch in metrics["epochs"][1:]]
                add(what, statistics.median(steady), metrics["test"]["accuracy"])
            for name, mode in (("pytorch", "ftz"), ("pytorch", "plain"), ("jax", ""), ("keras", "")):
                if name in self.peers:
                    answer = self.peer(name, f"--mode={mode}", "--epochs=5")
                    what = {"ftz": "PyTorch, fused Adam, denormals flushed", "plain": "PyTorch as it is",
                            "": {"jax": "JAX, one scan an epoch", "keras": "Keras on TensorFlow"}[name] if not mode else ""}[mode]
                    add(what, statistics.median(answer["seconds"][1:]), answer["accuracy"])
        best = statistics.median(samples["fused, 2 threads"])
        self.say("## An epoch of the default network, batch 32",
                 "", "Median over the runs, each the median of its epochs 2 to 5; the clock covers the training steps alone, not",
                 "loading, compiling or evaluating. Accuracy on the test set after 5 epochs, of the last run.")
        self.table(["", "s/epoch", "lowest and highest", "times fused", "accuracy"],
                   [[what, f"{statistics.median(s):.3f}", f"{min(s):.3f} to {max(s):.3f}", f"{statistics.median(s) / best:.1f}",
                     f"{100 * accuracy[what]:.2f} %"] for what, s in samples.items()])
        if limits:
            rates = limits["rates"][-1]
            step = limits["step"]
            by = {"operations": step["operations"] / rates["fma_per_s"], "bytes": step["l2_bytes"] / rates["l2_bytes_per_s"]}
            floor, measured = max(by.values()), best / step["steps_per_epoch"]
            self.say("### The distance to the limit", "",
                     f"A step must make {step['operations'] / 1e6:.2f} million operations (a multiply-add is one): on pixels that are lit,",
                     f"{step['lit_pixels_per_image']:.0f} of an image, and on the weights of the {step['pixels_lit_in_any']:.0f} pixels lit in any of the batch. At the",
                     f"{rates['fma_per_s'] / 1e9:.0f} billion a second that {rates['threads']} threads reach in registers, {by['operations'] * 1e6:.1f} µs. It must move {step['l2_bytes'] / 1e6:.2f} MB between the",
                     f"caches of first and second level: at {rates['l2_bytes_per_s'] / 1e9:.0f} GB/s, {by['bytes'] * 1e6:.1f} µs. Measured: {measured * 1e6:.1f} µs, **{measured / floor:.2f} times** the larger.", "")

    def process(self):
        runs = [self.mnist() for _ in range(RUNS)]
        for metrics, seconds, megabytes, _ in runs:
            self.note("process", "default.parameters.yaml", seconds=seconds, megabytes=megabytes,
                      accuracy=metrics["test"]["accuracy"])
        seconds = statistics.median(run[1] for run in runs)
        self.say("## The whole process", "",
                 "`mnist train` with `default.parameters.yaml`, five epochs, from start to exit with everything written and synced:",
                 f"**{seconds:.2f} s** ({min(r[1] for r in runs):.2f} to {max(r[1] for r in runs):.2f}), peak memory **{max(r[2] for r in runs):.0f} MB**, test accuracy",
                 f"{100 * runs[-1][0]['test']['accuracy']:.2f} %. The original `mnist.py` on TensorFlow 2.1 took 15.5 s and 1,120 MB on another machine of two cores: {15.5 / seconds:.0f} times", "as long.", "")

    def sets(self):
        """One thread against two, and each instruction set against the others."""
        names = subprocess.run([ROOT / "target/release/mnist", "train", f"--data_dir={self.data_dir}", f"--log_dir={self.work}/l",
                                f"--model_dir={self.work}/m", f"--parameters_file={self.parameters}"],
                               env={**os.environ, "MNIST_INSTRUCTION_SET": "?"}, capture_output=True, text=True).stderr
        names = re.search(r"one of (.*), which", names)[1].split(", ")
        samples = {}
        for _ in range(RUNS):
            for name in names:
                for threads in (1, 2):
                    metrics, *_ = self.mnist(f"--threads={threads}", set_=name)
                    seconds = statistics.median(epoch["seconds"] for epoch in metrics["epochs"][1:])
                    samples.setdefault((name, threads), []).append(seconds)
                    self.note("sets", name, threads=threads, seconds=seconds, accuracy=metrics["test"]["accuracy"])
        self.say("## Threads and instruction sets", "", "Seconds per epoch as above.")
        mid = {key: statistics.median(values) for key, values in samples.items()}
        self.table(["instruction set", "1 thread", "2 threads", "gain"],
                   [[name, f"{mid[name, 1]:.3f}", f"{mid[name, 2]:.3f}", f"{mid[name, 1] / mid[name, 2]:.2f}"] for name in names])

    def growth(self, limits):
        """Against PyTorch over widths, batches and threads."""
        images = {1: 1000, 8: 4000, 32: 12000, 256: 12000, 4096: 12288}
        rows, wide = [], []
        for widths in ("32", "128", "512", "2048", "1024,1024"):
            for batch, n in images.items():
                row = [f"[{widths.replace(',', ', ')}]", str(batch)]
                for threads in (1, 2):
                    small = self.subset(n)
                    flags = [f"--threads={threads}", f"--hidden_layers={widths}", f"--batch_size={batch}", "--train_epochs=6"]
                    metrics, *_ = self.mnist(*flags, data_dir=small)
                    ours = statistics.median(epoch["seconds"] for epoch in metrics["epochs"][1:]) / n * 1e6
                    values = {"fused": ours}
                    row.append(f"{ours:.2f}")
                    if "pytorch" in self.peers:
                        answer = self.peer("pytorch", "--mode=ftz", f"--hidden={widths}", f"--batch={batch}", "--epochs=6",
                                           f"--threads={threads}", data_dir=small)
                        theirs = statistics.median(answer["seconds"][1:]) / n * 1e6
                        values["pytorch"] = theirs
                        row += [f"{theirs:.2f}", f"{theirs / ours:.1f}"]
                    self.note("growth", widths, batch=batch, threads=threads, images=n, microseconds_per_image=values)
                    if limits and widths == "1024,1024" and batch >= 256:
                        rate = next(r for r in limits["rates"] if r["threads"] == threads)["gemm_fma_per_s"]
                        lit = limits["step"]["lit_pixels_per_image"]
                        must = (3 * 1024 * 1024 + 2 * lit * 1024 + 3 * 1024 * 10) / rate * 1e6
                        wide.append(f"batch {batch}, {threads} thread{'s' * (threads > 1)}: {ours / must:.2f} ({ours:.1f} µs for {must:.1f})")
                rows.append(row)
        self.say("## How it grows", "", "Microseconds per training image, medians of five epochs after a first one, on the first images of MNIST (1,000 for",
                 "batch 1, 4,000 for 8, 12,000 for more). PyTorch with fused Adam and denormals flushed.")
        head = ["hidden layers", "batch"]
        for threads in ("1 thread", "2 threads"):
            head += [f"fused, {threads}"] + (["PyTorch", "times"] if "pytorch" in self.peers else [])
        self.table(head, rows)
        if wide:
            self.say("Wide layers at large batches, [1024, 1024], as a multiple of the time that `gemm`, at the rate it reaches on",
                     "(512, 1024) x (1024, 1024), would need for the products that must be made (three of the second layer, those with lit",
                     "pixels of the first, the output layer), everything else coming on top: " + "; ".join(wide) + ".", "")

    def subset(self, n):
        """A data set of the first n training images and the first 1,000 test images."""
        directory = self.work / f"first-{n}"
        if not directory.exists():
            directory.mkdir()
            for name, count in (("train", n), ("t10k", 1000)):
                for kind, size, header in (("images-idx3", 784, 16), ("labels-idx1", 1, 8)):
                    path = pathlib.Path(self.data_dir) / f"{name}-{kind}-ubyte"
                    file = open(path, "rb") if path.exists() else gzip.open(f"{path}.gz")
                    content = file.read(header + size * count)
                    (directory / path.name).write_bytes(content[:4] + struct.pack(">I", count) + content[8:])
        return directory

    def seeds(self):
        """Test accuracy after five epochs over many seeds."""
        rows = []

        def row(what, scores):
            rows.append([what, str(len(scores)), f"{100 * statistics.mean(scores):.3f} %", f"{100 * statistics.stdev(scores):.3f}",
                         f"{100 * min(scores):.2f} to {100 * max(scores):.2f} %"])

        ours = [self.mnist(f"--seed={seed}")[0]["test"]["accuracy"] for seed in range(1, 21)]
        self.note("seeds", "fused", accuracy=ours)
        row("fused", ours)
        if "keras" in self.peers:
            theirs = [self.peer("keras", f"--seed={seed}", "--epochs=5")["accuracy"] for seed in range(1, 11)]
            self.note("seeds", "keras", accuracy=theirs)
            row("Keras", theirs)
        self.say("## Accuracy over seeds", "", "Test accuracy after 5 epochs, default parameters. The spread is the standard deviation, in percentage points.")
        self.table(["", "seeds", "mean", "spread", "range"], rows)
        if len(rows) > 1:
            gap = 100 * (statistics.mean(ours) - statistics.mean(theirs))
            error = 100 * (statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)) ** 0.5
            self.say(f"The means differ by {gap:+.3f} percentage points (standard error {error:.3f}).", "")

    def threads(self):
        hashes = {threads: hashlib.sha256(self.mnist(f"--threads={threads}")[3]).hexdigest() for threads in (1, 2, 3, 8)}
        self.note("threads", "model.safetensors", sha256=hashes)
        same = len(set(hashes.values())) == 1
        self.say("## The same bytes", "", "SHA-256 of `model.safetensors` with 1, 2, 3 and 8 threads: "
                 + (f"the same, `{hashes[1][:16]}…`." if same else f"NOT the same: {hashes}"), "")


    def gpu(self, device):
        """Both engines on the GPU, the processor, and what others do with the GPU."""
        self.say("## On a GPU", "", "Seconds per epoch, medians over the runs, each the median of its epochs 2 to 5, of the training steps alone;",
                 "the images are on the device before. Accuracy on the test set after 5 epochs, of the last run.")
        for batch in (32, 1024):
            samples, accuracy, backend = {}, {}, ""
            for _ in range(RUNS):
                for what, flags in (("fused, GPU", [f"--device={device}"]), ("engine burn, GPU", [f"--device={device}", "--engine=burn"]),
                                    ("fused, all processors", ["--device=cpu"])):
                    metrics, *_ = self.mnist(f"--batch_size={batch}", *flags)
                    backend = metrics["backend"] if what == "fused, GPU" else backend
                    samples.setdefault(what, []).append(statistics.median(e["seconds"] for e in metrics["epochs"][1:]))
                    accuracy[what] = metrics["test"]["accuracy"]
                for name, mode, what in (("pytorch", "cuda", "PyTorch, fused Adam, CUDA"), ("pytorch", "graph", "PyTorch, CUDA graph"),
                                         ("jax", "", "JAX, one scan an epoch")):
                    if name in self.peers:
                        answer = self.peer(name, f"--mode={mode}", f"--batch={batch}", "--epochs=5")
                        samples.setdefault(what, []).append(statistics.median(answer["seconds"][1:]))
                        accuracy[what] = answer["accuracy"]
            best = statistics.median(samples["fused, GPU"])
            for what, seconds in samples.items():
                self.note("gpu", what, batch=batch, seconds=seconds, accuracy=accuracy[what])
            self.say("", f"### Batch {batch}, {backend}")
            self.table(["", "s/epoch", "lowest and highest", "times fused on the GPU", "accuracy"],
                       [[what, f"{statistics.median(s):.4f}", f"{min(s):.4f} to {max(s):.4f}", f"{statistics.median(s) / best:.1f}",
                         f"{100 * accuracy[what]:.2f} %"] for what, s in samples.items()])


def cpu():
    try:
        return re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())[1].strip()
    except (OSError, TypeError):
        return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--pytorch"), parser.add_argument("--jax"), parser.add_argument("--keras")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--gpu", default="gpu")
    flags = parser.parse_args()
    flags.data_dir = os.path.abspath(flags.data_dir)
    parts = flags.only.split(",")
    if unknown := set(parts) - set(PARTS + GPU_PARTS):
        parser.error(f"--only: expected some of {','.join(PARTS + GPU_PARTS)}, found {','.join(unknown)}")
    name = f"{datetime.date.today()}-{re.sub('[^a-z0-9]+', '-', cpu().lower()).strip('-')}-{os.cpu_count()}-cores"
    flags.out = flags.out or ROOT / "bench/records" / name
    features = ["--features=gpu"] if "gpu" in parts else []
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", *features], check=True, cwd=ROOT)
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(flags, pathlib.Path(work))
        limits = bench.limits() if "limits" in parts else None
        for part in parts:
            if part != "limits":
                method = getattr(bench, part)
                method(*{"epoch": [limits], "growth": [limits], "gpu": [flags.gpu]}.get(part, []))
    run = lambda *command: subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    changed = " with changes" if run("git", "status", "--porcelain", "build/src") else ""
    head = [f"# {datetime.date.today()}, {cpu()}, {os.cpu_count()} cores", "",
            f"- command: `python3 bench/run.py {' '.join(re.sub('=/.*/', '=…/', a) for a in sys.argv[1:])}`",
            f"- revision: {run('git', 'rev-parse', '--short=12', 'HEAD')}{changed}",
            f"- system: {platform.system()} {platform.release()}, {platform.machine()}; {run('rustc', '--version')}",
            f"- peers: {', '.join(bench.versions.values()) or 'none'}", ""]
    (flags.out / "README.md").write_text("\n".join(head + bench.lines))
    print("\n".join(head + bench.lines))


if __name__ == "__main__":
    main()
