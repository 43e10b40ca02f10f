#!/usr/bin/env python3
"""Measures `mnist train` against the programs a user would take instead, and writes a record.

    python3 bench/run.py --data_dir=workspace/data --pytorch=VENV/bin/python --jax=VENV/bin/python --keras=VENV/bin/python

DATA_DIR holds MNIST as `mnist download` leaves it. Each peer is given as the Python that has it (`pip install torch
numpy`, `pip install jax optax`, `pip install tensorflow-cpu`, `pip install scikit-learn`, `pip install tinygrad numpy`);
a peer that is not given is left out. PyTorch compiles with g++, tinygrad with clang. All parts take up to an hour on two
cores, which nothing else should use. `--only=epoch,process` runs some. On a machine with a GPU,
`--only=gpu,networks,kernels --gpu=gpu` measures the GPU instead, with a PyTorch and a JAX for CUDA (`mnist devices` lists values for `--gpu`).
Where there is no cargo, `--mnist=PROGRAM` names a program that is built already, and the part limits is left out; without
the feature burn, the part epoch leaves out that engine, and the parts for GPUs need the feature gpu.

In the parts epoch, sets, wide, threads, gpu and networks programs take turns, so that a machine that slows down slows all of
them; figures are medians of up to RUNS runs. In growth they take turns too, with one run a cell. In process and seeds one
program runs after the other. The record goes into bench/records/DATE-CPU-N-cores/ (or --out): README.md with the tables,
raw.jsonl with each run. The second record of a day gets a further number. The directory is DATE-GPU where all parts are those
of GPUs.
"""
import argparse
import collections
import datetime
import gzip
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import limit
from machine import (ROOT, cpu, described, gpu, invocation, load, megabytes, multiplies_bf16, output, processors, program, record,
                     revision)

RUNS = 5
# Runs of tasks that take milliseconds.
ANSWERS = 31
PARTS = ["limits", "epoch", "process", "sets", "growth", "wide", "seeds", "threads"]
PEERS = ["pytorch", "jax", "keras", "sklearn", "tinygrad"]
GPU_PARTS = ["gpu", "networks", "kernels"]
# Features of the crate that a part needs.
FEATURES = {"epoch": "burn", **dict.fromkeys(GPU_PARTS, "gpu")}

# The rows of the tables: our program's flags, and for each peer its mode.
FUSED = "fused, 2 threads"
EPOCH_ROWS = {
    FUSED: ["--threads=2"],
    "fused, 1 thread": ["--threads=1"],
    "engine burn, 2 threads": ["--threads=2", "--engine=burn"],
}
EPOCH_PEERS = {
    "PyTorch, fused Adam, denormals flushed": ("pytorch", "ftz"),
    "PyTorch as it is": ("pytorch", "plain"),
    "PyTorch, compiled, fused Adam, denormals flushed": ("pytorch", "inductor"),
    "JAX, one scan an epoch": ("jax", ""),
    "JAX, images laid out before the scan": ("jax", "laid_out"),
    "Keras on TensorFlow": ("keras", ""),
    "scikit-learn (no dropout)": ("sklearn", ""),
    "tinygrad": ("tinygrad", ""),
}
FUSED_GPU, FUSED_ALL = "fused, GPU", "fused, all processors"
GPU_PEERS = {
    "PyTorch, fused Adam, CUDA": ("pytorch", "cuda"),
    "PyTorch, compiled": ("pytorch", "compile"),
    "PyTorch, CUDA graph": ("pytorch", "graph"),
    "JAX, one scan an epoch": ("jax", ""),
}
# Hidden layers and batch. PyTorch takes half a minute to compile, so it does where small and where large steps show.
GPU_CELLS = [(hidden, batch) for hidden in ("128", "800", "1024,1024") for batch in (32, 256, 1024, 4096)]
GPU_COMPILED = [("128", 32), ("1024,1024", 1024)]
# How many networks are trained at a time, and on how many images.
NETWORKS, NETWORKS_IMAGES = [1, 4, 16, 64], 12000
# Steps of an epoch whose kernels are timed. In longer epochs the program records steps, and a recording has no time of its kernels.
KERNEL_STEPS = 16
# Images for each batch size: enough for a steady time, few enough that no cell takes minutes.
GROWTH_IMAGES = {1: 1000, 8: 4000, 32: 12000, 256: 12000, 4096: 12288}
GROWTH_WIDTHS = ["32", "128", "512", "2048", "1024,1024"]
WIDE = "1024,1024"
# Wide networks: our program's flags, and PyTorch's modes.
WIDE_CELLS = [(hidden, batch) for hidden in ("2048", WIDE, "1500,1000,500") for batch in (64, 128, 256, 1024)]
WIDE_ROWS = {"float32": ["--precision=float32"], "bf16": ["--precision=bf16"]}
WIDE_PEERS = {"PyTorch": "ftz", "PyTorch, bf16": "bf16"}
WIDE_IMAGES = 12288
# Where numbers of threads are compared: small and large steps of a small and of a wide network, the shortest epochs first.
THREADS_CELLS = [("128", 4096), ("128", 32), (WIDE, 1024), (WIDE, 32)]


def steady(metrics):
    """The median seconds of an epoch, without the first one."""
    return statistics.median(epoch["seconds"] for epoch in metrics["epochs"][1:])


def runs_of(values):
    """The beginning of a sentence on medians over runs."""
    return "One run:" if len(values) == 1 else f"Median over {len(values)} runs, each"


def layers(hidden):
    """Hidden layers as the documents write them."""
    return f"[{hidden.replace(',', ', ')}]"


def kernel_times(log, steps):
    """The kernels that each of `steps` steps launches, in their order, with the median of their seconds."""
    units, seconds = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1}, collections.defaultdict(list)
    for number, unit, name in re.findall(r"^\| ([\d.]+)(ns|µs|ms|s) *\| (\w+)$", log, re.MULTILINE):
        seconds[name].append(float(number) * units[unit])
    words = lambda name: re.sub(r"(?<!^)(?=[A-Z])", "_", name.rsplit("_", 1)[0]).lower()
    # An evaluation's kernels are fewer.
    return [(words(name), statistics.median(of)) for name, of in seconds.items() if len(of) >= steps]


class Samples:
    """Seconds and accuracy of several programs over several runs."""

    def __init__(self):
        self.seconds, self.accuracy = {}, {}

    def add(self, name, seconds, accuracy):
        self.seconds.setdefault(name, []).append(seconds)
        self.accuracy[name] = accuracy

    def median(self, name):
        return statistics.median(self.seconds[name])

    def rows(self, base, digits):
        """Table rows; `base` names the program that the others are multiples of."""
        for name, s in self.seconds.items():
            span = f"{min(s):.{digits}f} to {max(s):.{digits}f}"
            times = f"{self.median(name) / self.median(base):.1f}"
            yield [name, f"{self.median(name):.{digits}f}", span, times, f"{100 * self.accuracy[name]:.2f} %"]


def measured(cells):
    """The cells for which there was time, with their samples."""
    return [(cell, samples) for cell, samples in cells.items() if samples.seconds]


class Bench:
    def __init__(self, flags, work):
        self.data_dir, self.work, self.out = flags.data_dir, work, flags.out
        self.program, self.minutes = flags.mnist, flags.minutes
        self.features = flags.features
        self.on_each = {FUSED_GPU: [f"--device={flags.gpu}"], FUSED_ALL: ["--device=cpu"]}
        self.peers = {name: getattr(flags, name) for name in PEERS if getattr(flags, name)}
        self.lines, self.loads, self.versions, self.failed, self.rates = [], [], {}, {}, None
        self.flags, self.day = flags, datetime.date.today()
        self.out.mkdir(parents=True, exist_ok=True)
        self.raw = open(self.out / "raw.jsonl", "w")
        self.parameters = work / "parameters.yaml"
        self.parameters.write_text((ROOT / "workspace/parameters/default.parameters.yaml").read_text())

    # ---- the record

    def note(self, part, what, **values):
        self.raw.write(json.dumps({"part": part, "what": what, **values}) + "\n")
        self.raw.flush()
        print(part, what, values, file=sys.stderr)

    def say(self, *lines):
        self.lines += lines

    def table(self, head, rows):
        self.say("", "| " + " | ".join(head) + " |", "|" + "---|" * len(head))
        self.say(*("| " + " | ".join(row) + " |" for row in rows), "")

    def measure(self, part):
        """A part; then writes the record as far as it goes."""
        before = load()
        getattr(self, part)()
        self.note("load", part, before=before, after=load())
        self.loads.append(f"{part} {before} and {load()}")
        (self.out / "README.md").write_text(self.text())

    def text(self):
        return "\n".join(heading(self) + self.lines)

    # ---- programs

    def command(self, data_dir, logs, model):
        return [self.program, "train", f"--data_dir={data_dir}", f"--log_dir={logs}", f"--model_dir={model}",
                f"--parameters_file={self.parameters}"]

    def mnist(self, *flags, data_dir=None, set_=None, cwd=None):
        """Trains in directory `cwd`; returns metrics, seconds and peak memory of the whole process, and the model's bytes."""
        model = self.work / "model"
        command = [*self.command(data_dir or self.data_dir, self.work / "logs", model), *flags]
        environment = {**os.environ, **({"MNIST_INSTRUCTION_SET": set_} if set_ else {})}
        begin = datetime.datetime.now()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd=cwd)
        error = child.stderr.read().decode()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = (datetime.datetime.now() - begin).total_seconds()
        if status:
            sys.exit(f"{command}: {error}")
        metrics = json.loads((model / "metrics.json").read_text())
        return metrics, seconds, megabytes(usage), (model / "model.safetensors").read_bytes()

    def peer(self, name, *flags, data_dir=None):
        """What a peer answers. One that fails in a mode is left out from then on, and the record says so: then None."""
        key = " ".join([name, *(flag for flag in flags if flag.startswith("--mode=") and flag != "--mode=")])
        if key in self.failed:
            return None
        script = ROOT / f"bench/peers/train_{name}.py"
        command = [self.peers[name], script, f"--data_dir={data_dir or self.data_dir}", *flags]
        try:
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            answer = json.loads(out.splitlines()[-1])
        except (OSError, subprocess.CalledProcessError, ValueError, IndexError) as error:
            tail = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-10:]
            self.failed[key] = tail[-1].strip()
            self.note("failed", key, flags=flags, tail=tail)
            return None
        self.versions[name] = answer["version"]
        return answer

    def instruction_sets(self):
        """The sets of this machine, fastest first, as the program lists them when asked for an unknown one."""
        command = self.command(self.data_dir, self.work / "l", self.work / "m")
        environment = {**os.environ, "MNIST_INSTRUCTION_SET": "?"}
        error = subprocess.run(command, env=environment, capture_output=True, text=True).stderr
        known = [name for name in ("avx512", "avx2", "portable") if re.search(rf"\b{name}\b", error)]
        return known or sys.exit(f"{command}: no instruction sets in: {error}")

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

    def in_time(self, items, certain=1):
        """These, until the time is up; the first `certain` of them anyway."""
        end = time.monotonic() + 60 * self.minutes
        for number, item in enumerate(items):
            if number >= certain and time.monotonic() > end:
                return
            yield item

    def in_turns(self, cells):
        """The cells with their samples, one after the other, RUNS times or until the time is up."""
        return self.in_time([*cells.items()] * RUNS)

    # ---- parts

    def limits(self):
        """The rates of this machine, and the operations and bytes of a step."""
        if not shutil.which("cargo"):
            self.say("There is no cargo on this machine, so its rates were not measured.", "")
            return
        flags = ["--locked", "--quiet", "--features=bench", "--bench", "limits"]
        command = ["cargo", "bench", *flags, "--", self.data_dir]
        out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        self.rates = json.loads(out.splitlines()[-1])
        self.note("limits", self.rates["instruction_set"], **self.rates)

    def epoch(self):
        """Seconds for an epoch of the default network at batch 32, steady state."""
        samples, ours = Samples(), EPOCH_ROWS
        # The peers take all processors.
        base, most = FUSED, processors(self.program)
        if most > 2:
            base, ours = FUSED_ALL, {FUSED_ALL: [f"--threads={most}"], **EPOCH_ROWS}

        def add(name, seconds, accuracy):
            samples.add(name, seconds, accuracy)
            self.note("epoch", name, seconds=seconds, accuracy=accuracy, processors=most)

        for _ in self.in_time(range(RUNS)):
            for name, flags in ours.items():
                if "--engine=burn" in flags and "burn" not in self.features:
                    continue
                metrics, *_ = self.mnist(*flags)
                add(name, steady(metrics), metrics["test"]["accuracy"])
            for name, (peer, mode) in EPOCH_PEERS.items():
                if peer in self.peers and (answer := self.peer(peer, f"--mode={mode}", "--epochs=5")):
                    add(name, statistics.median(answer["seconds"][1:]), answer["accuracy"])
        self.say("## An epoch of the default network, batch 32", "",
                 f"{runs_of(samples.seconds[FUSED])} the median of its epochs 2 to 5; the clock covers the training steps alone, not",
                 "loading, compiling or evaluating. Accuracy on the test set after 5 epochs, of the last run. The peers take as many",
                 f"threads as their frameworks choose on {most} processor{'s' * (most > 1)}; times are those of *{base}*.")
        self.table(["", "s/epoch", "lowest and highest", "times fused", "accuracy"], samples.rows(base, 3))
        if self.rates and (rates := limit.rates_of(self.rates, 2)):
            self.distance(samples.median(FUSED), rates)

    def distance(self, seconds, rates):
        """How far an epoch of `seconds` is from the limits of this machine, by the `rates` of as many threads."""
        step = self.rates["step"]
        operations, moved = limit.in_registers(rates, step)
        reached = limit.by_the_cache(rates, step)
        measured = seconds / step["steps_per_epoch"]
        self.say("### The distance to the limit", "",
                 f"A step needs {step['operations'] / 1e6:.2f} million operations (a multiply-add counts as one):",
                 f"on the nonzero pixels, {step['lit_pixels_per_image']:.0f} in an image, and on the weights of the",
                 f"{step['pixels_lit_in_any']:.0f} pixels that are nonzero in any image of the batch. At",
                 f"{rates['fma_per_s'] / 1e9:.0f} billion a second, the rate of {rates['threads']} threads in registers,",
                 f"that takes {operations * 1e6:.1f} µs. A step moves {step['l2_bytes'] / 1e6:.2f} MB between L1 and L2:",
                 f"{moved * 1e6:.1f} µs at {rates['l2_bytes_per_s'] / 1e9:.0f} GB/s. Measured: {measured * 1e6:.1f} µs,",
                 f"**{measured / max(operations, moved):.2f} times** the larger of the two.", "",
                 "No program can reach the rate in registers: a multiply-add of the first layer reads a weight or a gradient from the",
                 "first-level cache, and Adam's estimates of a root and a quotient count as one operation but take several. With",
                 f"multiply-adds from that cache at {rates['cached_fma_per_s'] / 1e9:.0f} billion a second and Adam there at",
                 f"{rates['adam_per_s'] / 1e9:.1f} billion parameters a second, a step takes {reached * 1e6:.1f} µs. Measured:",
                 f"**{measured / max(reached, moved):.2f} times** that. A step also makes lists of nonzero pixels and the loss, mispredicts",
                 "ends of loops, and waits for the other thread.", "")
        self.turns()

    def turns(self):
        """The same by rates of the moment before each epoch."""
        turns = limit.in_turns(self.rates)
        ratios = {threads: sorted(ratio for _, ratio in of) for threads, of in turns.items()}
        threads, alone = max(turns), turns[1]
        gains = [one / team for (one, _), (team, _) in zip(alone, turns[threads])]
        self.say("Other programs on the same processor slow an epoch, but not the highest of many rates. So the rates of the cache and of",
                 f"Adam were also measured right before each of {len(alone)} epochs. An epoch took",
                 "; ".join(f"**{statistics.median(of):.2f} times** ({of[0]:.2f} to {of[-1]:.2f}) as long as by them with"
                           f" {n} thread{'s' * (n > 1)}" for n, of in ratios.items()) + ".",
                 f"{threads} threads were {statistics.median(gains):.2f} times as fast as one, the median of those turns.", "")
        self.undisturbed()

    def undisturbed(self):
        """The same by the fastest steps and the highest rates: both are of the moments in which others disturbed least."""
        fastest, rows = limit.undisturbed(self.rates), self.rates["undisturbed"]
        self.say(f"The fastest {rows['steps']} steps in a row, of {rows['epochs']} epochs, by the highest rates:",
                 "; ".join(f"{1e6 * seconds:.1f} µs a step with {n} thread{'s' * (n > 1)}, **{ratio:.2f} times** the least"
                           for n, (seconds, ratio) in fastest.items()) + ".",
                 f"There {max(fastest)} threads are {fastest[1][0] / fastest[max(fastest)][0]:.2f} times as fast as one.", "")

    def process(self):
        """The whole process with the default parameters."""
        runs = [self.mnist() for _ in range(RUNS)]
        for metrics, seconds, memory, _ in runs:
            self.note("process", "default.parameters.yaml", seconds=seconds, megabytes=memory,
                      accuracy=metrics["test"]["accuracy"])
        model = f"--model_dir={self.work / 'model'}"
        evaluate = self.answers("evaluate", f"--data_dir={self.data_dir}", f"--log_dir={self.work / 'logs'}", model)
        predict = self.answers("predict", model, ROOT / "examples/seven.png")
        seconds, memory = [run[1] for run in runs], max(run[2] for run in runs)
        median = statistics.median(seconds)
        self.say("## The whole process", "",
                 "`mnist train` with `default.parameters.yaml`, five epochs, from start to exit with all files written and",
                 f"synced: **{median:.2f} s** ({min(seconds):.2f} to {max(seconds):.2f}), peak memory **{memory:.0f} MB**,"
                 f" test accuracy {100 * runs[-1][0]['test']['accuracy']:.2f} %.", "",
                 f"Medians of {ANSWERS} runs from start to exit: `evaluate` **{evaluate:.1f} ms**, `predict` of one image"
                 f" **{predict:.1f} ms**.", "")

    def answers(self, task, *flags):
        """The median milliseconds from start to exit of a task that answers."""
        times = []
        for _ in range(ANSWERS):
            begin = time.perf_counter()
            subprocess.run([self.program, task, *flags], check=True, capture_output=True)
            times.append(1e3 * (time.perf_counter() - begin))
        self.note("answers", task, milliseconds=times)
        return statistics.median(times)

    def sets(self):
        """One thread against two, and each instruction set against the others."""
        names, samples = self.instruction_sets(), {}
        each = [(name, threads) for name in names for threads in (1, 2)]
        for name, threads in self.in_time(each * RUNS, certain=len(each)):
            metrics, *_ = self.mnist(f"--threads={threads}", set_=name)
            seconds = steady(metrics)
            samples.setdefault((name, threads), []).append(seconds)
            self.note("sets", name, threads=threads, seconds=seconds, accuracy=metrics["test"]["accuracy"])
        self.say("## Threads and instruction sets", "", "Seconds per epoch as above.")
        mid = {key: statistics.median(values) for key, values in samples.items()}
        self.table(["instruction set", "1 thread", "2 threads", "gain"],
                   [[name, f"{mid[name, 1]:.3f}", f"{mid[name, 2]:.3f}", f"{mid[name, 1] / mid[name, 2]:.2f}"]
                    for name in names])

    def growth(self):
        """Against PyTorch over widths, batches and threads."""
        rows, wide = [], []
        for batch, widths in self.in_time([(batch, widths) for batch in reversed(GROWTH_IMAGES) for widths in GROWTH_WIDTHS]):
            row = [layers(widths), str(batch)]
            for threads in (1, 2):
                ours, theirs = self.growth_cell(widths, batch, threads)
                row.append(f"{ours:.2f}")
                if "pytorch" in self.peers:
                    row += [f"{theirs:.2f}", f"{theirs / ours:.1f}"] if theirs else ["", ""]
                least = self.wide_products(threads) if self.rates and widths == WIDE and batch >= 256 else None
                if least:
                    wide.append([str(batch), str(threads), f"{ours:.1f}", f"{least:.1f}", f"{ours / least:.2f}"])
            rows.append(row)
        self.say("## Widths and batches", "",
                 "Microseconds per training image: medians of epochs 2 to 6, on the first images of MNIST (1,000 for batch 1,",
                 "4,000 for batch 8, 12,000 for 32 and 256, 12,288 for 4096). PyTorch with fused Adam and denormals flushed. Cells",
                 "for which there was no time are left out.")
        head = ["hidden layers", "batch"]
        for threads in ("1 thread", "2 threads"):
            head += [f"fused, {threads}"] + (["PyTorch", "times"] if "pytorch" in self.peers else [])
        self.table(head, rows)
        if wide:
            self.say("Network [1024, 1024] at large batches, as a multiple of the time that `gemm` needs for the products",
                     "alone: three of the second layer, the nonzero pixels' part of the first layer's, and the output",
                     "layer's. The rate of `gemm` is that for (512, 1024) x (1024, 1024). It multiplies zeros too, which",
                     "the engine skips, so that the multiple can be less than 1.")
            self.table(["batch", "threads", "µs per image", "µs for the products", "multiple"], wide)

    def growth_cell(self, widths, batch, threads):
        """Microseconds per image, ours and PyTorch's (None without PyTorch)."""
        n = GROWTH_IMAGES[batch]
        small = self.subset(n)
        flags = [f"--threads={threads}", f"--hidden_layers={widths}", f"--batch_size={batch}", "--train_epochs=6"]
        metrics, *_ = self.mnist(*flags, data_dir=small)
        values = {"fused": steady(metrics) / n * 1e6}
        if "pytorch" in self.peers:
            flags = [f"--hidden={widths}", f"--batch={batch}", "--epochs=6", f"--threads={threads}"]
            if answer := self.peer("pytorch", "--mode=ftz", *flags, data_dir=small):
                values["pytorch"] = statistics.median(answer["seconds"][1:]) / n * 1e6
        self.note("growth", widths, batch=batch, threads=threads, images=n, microseconds_per_image=values)
        return values["fused"], values.get("pytorch")

    def wide_products(self, threads):
        """Microseconds per image that `gemm` needs for the products of [1024, 1024]; none where it was not measured."""
        rates, nonzero = limit.rates_of(self.rates, threads), self.rates["step"]["lit_pixels_per_image"]
        return rates and (3 * 1024 * 1024 + 2 * nonzero * 1024 + 3 * 1024 * 10) / rates["gemm_fma_per_s"] * 1e6

    def wide(self):
        """Wide networks in float32 and bf16, and PyTorch's kinds, in turns until the time is up."""
        cells = {cell: Samples() for cell in WIDE_CELLS}
        data, units = self.subset(WIDE_IMAGES), set()
        # Without such instructions, PyTorch takes ten times as long in bf16 as in float32.
        modes = {name: mode for name, mode in WIDE_PEERS.items() if mode != "bf16" or multiplies_bf16()}
        for (hidden, batch), samples in self.in_turns(cells):
            def add(name, seconds, accuracy):
                samples.add(name, seconds / WIDE_IMAGES * 1e6, accuracy)
                self.note("wide", name, hidden=hidden, batch=batch, seconds=seconds, accuracy=accuracy)

            shape = [f"--hidden_layers={hidden}", f"--batch_size={batch}", "--train_epochs=4", "--threads=2"]
            for name, flags in WIDE_ROWS.items():
                metrics, *_ = self.mnist(*shape, *flags, data_dir=data)
                units.add(f"{name}: {metrics['instruction_set']}")
                add(name, steady(metrics), metrics["test"]["accuracy"])
            if "pytorch" in self.peers:
                for name, mode in modes.items():
                    flags = [f"--mode={mode}", f"--hidden={hidden}", f"--batch={batch}", "--epochs=4", "--threads=2"]
                    if answer := self.peer("pytorch", *flags, data_dir=data):
                        add(name, statistics.median(answer["seconds"][1:]), answer["accuracy"])
        self.say("## Wide networks in float32 and bf16", "",
                 f"Microseconds per training image with two threads ({', '.join(sorted(units))}): medians of epochs 2 to 4 on the",
                 f"first {WIDE_IMAGES:,} images, and of the runs. Programs took turns, and so did the cells. PyTorch with fused Adam and",
                 "denormals flushed; bf16 there is autocast, left out where the processor has no products of bf16 numbers. In",
                 "brackets: test accuracy on 1,000 images after 4 epochs.")
        names = [*WIDE_ROWS, *(modes if "pytorch" in self.peers else [])]
        rows = []
        for (hidden, batch), samples in measured(cells):
            text = lambda name: f"{samples.median(name):.1f} ({100 * samples.accuracy[name]:.1f} %)"
            cell = [text(name) if name in samples.seconds else "" for name in names]
            gain = samples.median("float32") / samples.median("bf16")
            rows.append([layers(hidden), str(batch), str(len(samples.seconds["bf16"])), *cell, f"{gain:.2f}"])
        self.table(["hidden layers", "batch", "runs", *names, "float32 / bf16"], rows)

    def seeds(self):
        """Test accuracy after five epochs over many seeds."""
        scores = {"fused": [self.mnist(f"--seed={seed}")[0]["test"]["accuracy"] for seed in range(1, 21)]}
        if "keras" in self.peers:
            answers = [self.peer("keras", f"--seed={seed}", "--epochs=5") for seed in range(1, 11)]
            if all(answers):
                scores["Keras"] = [answer["accuracy"] for answer in answers]
        for name, values in scores.items():
            self.note("seeds", name.lower(), accuracy=values)
        self.say("## Accuracy over seeds", "",
                 "Test accuracy after 5 epochs, default parameters. The spread is the standard deviation, in percentage",
                 "points.")
        self.table(["", "seeds", "mean", "spread", "range"],
                   [[name, str(len(s)), f"{100 * statistics.mean(s):.3f} %", f"{100 * statistics.stdev(s):.3f}",
                     f"{100 * min(s):.2f} to {100 * max(s):.2f} %"] for name, s in scores.items()])
        if "Keras" in scores:
            ours, theirs = scores["fused"], scores["Keras"]
            gap = 100 * (statistics.mean(ours) - statistics.mean(theirs))
            error = 100 * (statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)) ** 0.5
            self.say(f"The means differ by {gap:+.3f} percentage points (standard error {error:.3f}).", "")

    def threads(self):
        """Small and large steps with 1, 2, 4 and more threads, as many as the machine runs, and with the number that the program
        chooses; in turns until the time is up."""
        most = processors(self.program)
        counts = sorted({*(1 << n for n in range(most.bit_length())), most}) + [0]
        cells = {cell: Samples() for cell in THREADS_CELLS}
        for (hidden, batch), count in self.in_time([(cell, count) for cell in cells for count in counts] * RUNS):
            metrics, *_ = self.mnist(f"--hidden_layers={hidden}", f"--batch_size={batch}", f"--threads={count}")
            cells[hidden, batch].add(count, steady(metrics), metrics["test"]["accuracy"])
            self.note("threads", hidden, batch=batch, threads=count, trained_with=metrics["threads"],
                      seconds=steady(metrics), accuracy=metrics["test"]["accuracy"])
        self.say("## Threads", "",
                 "Seconds per epoch, the median of epochs 2 to 5, of 60,000 images; where there were several runs, their median. With",
                 "`threads: 0` the program measures in the first epoch which number is fastest. The accuracies of all numbers.",
                 "What there was no time for is left out.")
        names = [f"{count} thread{'s' * (count > 1)}" for count in counts[:-1]] + ["threads: 0"]
        shown = lambda samples, count: f"{samples.median(count):.4f}" if count in samples.seconds else ""
        rows = [[layers(hidden), str(batch), str(max(map(len, samples.seconds.values()))), *(shown(samples, count) for count in counts),
                 ", ".join(sorted({f"{100 * score:.2f} %" for score in samples.accuracy.values()}))]
                for (hidden, batch), samples in measured(cells)]
        self.table(["hidden layers", "batch", "runs", *names, "accuracy"], rows)
        self.same_bytes()

    def same_bytes(self):
        """The model's bytes with several numbers of threads."""
        counts = (1, 2, 3, 8)
        hashes = {threads: hashlib.sha256(self.mnist(f"--threads={threads}")[3]).hexdigest() for threads in counts}
        self.note("bytes", "model.safetensors", sha256=hashes)
        same = len(set(hashes.values())) == 1
        result = f"the same, `{hashes[1][:16]}…`." if same else f"NOT the same: {hashes}"
        self.say("## The same bytes", "", f"SHA-256 of `model.safetensors` with 1, 2, 3 and 8 threads: {result}", "")

    def gpu(self):
        """The fused engine on the GPU and on the processor, and the peers on the GPU, over networks and batches, in turns until
        the time is up. Burn takes 100 times as long, so it is left out."""
        cells = {cell: Samples() for cell in GPU_CELLS}
        backend = ""
        for (hidden, batch), samples in self.in_turns(cells):
            def add(name, seconds, accuracy):
                samples.add(name, seconds, accuracy)
                self.note("gpu", name, hidden=hidden, batch=batch, seconds=seconds, accuracy=accuracy)

            for name, flags in self.on_each.items():
                metrics, *_ = self.mnist(f"--hidden_layers={hidden}", f"--batch_size={batch}", *flags)
                backend = metrics["backend"] if name == FUSED_GPU else backend
                add(name, steady(metrics), metrics["test"]["accuracy"])
            for name, (peer, mode) in GPU_PEERS.items():
                if peer in self.peers and (mode != "compile" or (hidden, batch) in GPU_COMPILED):
                    answer = self.peer(peer, f"--mode={mode}", f"--hidden={hidden}", f"--batch={batch}", "--epochs=5")
                    if not answer:
                        continue
                    add(name, statistics.median(answer["seconds"][1:]), answer["accuracy"])
        self.gpu_table(cells, backend)

    def networks(self):
        """Ensembles of the default network at batch 32, on the GPU and on all processors, in turns until the time is up."""
        cells = {count: Samples() for count in NETWORKS}
        backend, data = "", self.subset(NETWORKS_IMAGES)
        for count, samples in self.in_turns(cells):
            for name, flags in self.on_each.items():
                metrics, *_ = self.mnist(f"--ensemble={count}", "--train_epochs=3", *flags, data_dir=data)
                backend = metrics["backend"] if name == FUSED_GPU else backend
                seconds = steady(metrics) / NETWORKS_IMAGES * 60_000
                samples.add(name, seconds, metrics["test"]["accuracy"])
                self.note("networks", name, count=count, seconds=seconds, accuracy=metrics["test"]["accuracy"])
        self.say(f"## Networks a second: {backend}", "",
                 "Networks of an ensemble, default parameters, by the epochs of 60,000 images that they do in a second (a network's",
                 f"epoch each), from medians of epochs 2 and 3 on the first {NETWORKS_IMAGES:,} images and of the runs. In brackets: the",
                 "ensemble's accuracy on 1,000 test images.")
        rate = lambda count, samples, name: f"{count / samples.median(name):.2f} ({100 * samples.accuracy[name]:.1f} %)"
        self.table(["networks", "runs", *self.on_each],
                   [[str(count), str(len(samples.seconds[FUSED_GPU])), *(rate(count, samples, name) for name in self.on_each)]
                    for count, samples in measured(cells)])

    def kernels(self):
        """The kernels of a step on the GPU, timed by the device, over networks and batches until the time is up."""
        rows, backend = [], ""
        # The library that launches the kernels reads this file where the program runs.
        directory, log = self.work / "kernels", self.work / "kernels/kernels.log"
        directory.mkdir()
        (directory / "cubecl.toml").write_text(f'[profiling]\nlogger = {{ level = "medium", file = "{log}" }}\n')
        for hidden, batch in self.in_time(GPU_CELLS):
            flags = [f"--hidden_layers={hidden}", f"--batch_size={batch}", "--train_epochs=3", *self.on_each[FUSED_GPU]]
            metrics, *_ = self.mnist(*flags)
            backend, images = metrics["backend"], metrics["data"]["train_images"]
            step = steady(metrics) / -(-images // batch)
            few = min(images, KERNEL_STEPS * batch)
            log.unlink(missing_ok=True)
            self.mnist(*flags, data_dir=self.subset(few), cwd=directory)
            times = kernel_times(log.read_text(), 3 * -(-few // batch))
            total = sum(seconds for _, seconds in times)
            self.note("kernels", FUSED_GPU, hidden=hidden, batch=batch, step=step, kernels=times)
            each = ", ".join(f"{name} {1e6 * seconds:.1f}" for name, seconds in times)
            rows.append([layers(hidden), str(batch), f"{1e6 * step:.1f}", f"{1e6 * total:.1f}", each])
        self.say(f"## The kernels of a step: {backend}", "",
                 "Microseconds of each kernel of a step in the order of their launches, by the device's timestamps where its driver has",
                 f"them: medians over the steps of three epochs of {KERNEL_STEPS} steps. Beside their sum, a step as it is in training: the",
                 "median of epochs 2 and 3 over all images, without timing the kernels.")
        self.table(["hidden layers", "batch", "a step", "its kernels", "each kernel"], rows)

    def gpu_table(self, cells, backend):
        self.say(f"## On a GPU: {backend}", "",
                 "Seconds per epoch, the median of its epochs 2 to 5, of the training steps alone; the images are on the device",
                 "before. Programs took turns, and so did the cells; where there were several runs, their median. In brackets:",
                 "times that of the fused engine on the GPU. The peers but PyTorch's first column leave out the last, short batch.")
        names = [FUSED_GPU, FUSED_ALL, *GPU_PEERS]
        rows, scores = [], []
        for (hidden, batch), samples in measured(cells):
            cell = [layers(hidden), str(batch)]
            base = samples.median(FUSED_GPU)
            times = lambda name: f"{samples.median(name):.4f} ({samples.median(name) / base:.1f})" if name in samples.seconds else ""
            rows.append([*cell, str(len(samples.seconds[FUSED_GPU])), *(times(name) for name in names)])
            score = lambda name: f"{100 * samples.accuracy[name]:.2f} %" if name in samples.accuracy else ""
            scores.append([*cell, *(score(name) for name in names)])
        self.table(["hidden layers", "batch", "runs", *names], rows)
        self.say("Accuracy on the test set after 5 epochs, of the last run:")
        self.table(["hidden layers", "batch", *names], scores)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    for peer in PEERS:
        parser.add_argument(f"--{peer}", metavar="PYTHON")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,...")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--gpu", default="gpu", metavar="DEVICE")
    parser.add_argument("--minutes", type=float, default=8, help="after which a part begins nothing further; epoch and sets measure everything"
                        " once all the same, and limits, process and seeds have no limit")
    parser.add_argument("--mnist", metavar="PROGRAM", help="a program that is built already, where there is no cargo")
    flags = parser.parse_args()
    flags.data_dir = os.path.abspath(flags.data_dir)
    flags.parts = flags.only.split(",")
    if unknown := set(flags.parts) - set(PARTS + GPU_PARTS):
        parser.error(f"--only: expected some of {','.join(PARTS + GPU_PARTS)}, found {','.join(unknown)}")
    return flags


def title(flags):
    """The machine: for parts of GPUs alone, first the GPU, after which the record is named."""
    cores = f"{processors(flags.mnist)} cores"
    if not flags.device:
        return f"{cpu()}, {cores}"
    if set(flags.parts) <= set(GPU_PARTS):
        return f"{flags.device[0]}, {cores} of {cpu()}"
    return f"{cpu()}, {cores}, {flags.device[0]}"


def heading(bench):
    """The head of the record: what was run, where, with which versions, which peers did not run, and what else was busy."""
    flags = bench.flags
    return [
        f"# {bench.day}, {title(flags)}", "",
        f"- command: `{invocation()}`",
        f"- revision: {flags.revision}",
        f"- program: {flags.program}",
        *([f"- GPU: {': '.join(flags.device)}"] if flags.device else []),
        f"- system: {platform.system()} {platform.release()}, {platform.machine()}; {output('rustc', '--version')}",
        f"- peers: {', '.join(bench.versions.values()) or 'none'}",
        *(f"- left out: {peer}, which failed: `{why}`" for peer, why in bench.failed.items()),
        f"- load average of a minute before and after each part: {'; '.join(bench.loads)}", "",
    ]


def features_of(program):
    """The features that our program was built with."""
    features = re.search(r"^features: (.*)$", output(program, "--version"), re.MULTILINE)
    return (features or sys.exit(f"{program}: expected the program mnist"))[1].split(", ")


def main():
    flags = arguments()
    # First: others may commit while the measurement goes on.
    flags.revision = revision()
    flags.mnist = program(flags.mnist, {FEATURES[part] for part in flags.parts if part in FEATURES})
    flags.program = described(flags.mnist)
    flags.features = features_of(flags.mnist)
    for part in flags.parts:
        if part in GPU_PARTS and FEATURES[part] not in flags.features:
            sys.exit(f"{flags.mnist}: expected a program built with the feature {FEATURES[part]}, for the part {part}")
    flags.device = gpu(flags.mnist, flags.gpu) if set(flags.parts) & set(GPU_PARTS) else None
    only_gpu = set(flags.parts) <= set(GPU_PARTS)
    flags.out = flags.out or (record(flags.device[0]) if only_gpu else record(cpu(), f"{processors(flags.mnist)} cores"))
    # The limits first: other parts compare with them.
    parts = [part for part in flags.parts if part == "limits"] + [part for part in flags.parts if part != "limits"]
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(flags, pathlib.Path(work))
        for part in parts:
            bench.measure(part)
    print(bench.text())


if __name__ == "__main__":
    main()
