#!/usr/bin/env python3
"""Measures how long `mnist train` takes to reach a test accuracy: the whole process, from start to exit.

    python3 bench/time_to_accuracy.py --data_dir=workspace/data --pytorch=VENV/bin/python

The rules, for our records and for anyone else's:

1. The data are MNIST's 60,000 training and 10,000 test images. Nothing else is learnt from, not even an earlier model.
2. All choices are made on a part of the training images. The test set decides nothing: neither settings, nor seeds, nor the
   epoch whose model counts.
3. An entry reaches an accuracy if the mean over its seeds, 1 to 20, is at least that. No seed is left out.
4. The clock covers the whole process: reading the files, training, evaluating, writing the model. Only the download and the
   compilation before are not counted.
5. Two cores, which nothing else uses. The record names the processor.

The time of an entry is the median over its seeds. With --pytorch, the same recipes run there too, with fewer seeds, in turns
with ours. The record goes into bench/records/DATE-CPU-time-to-accuracy/ (or --out): README.md with the table, raw.jsonl with
each run.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from machine import ROOT, cpu, described, invocation, output, processors, program, record, revision

sys.path.insert(0, str(ROOT / "bench/peers"))
import recipe  # noqa: E402

THREADS = 2
# The accuracy in percent, and the parameters file that reaches it.
ENTRIES = {
    "97.5": "workspace/parameters/default.parameters.yaml",
    "98.0": "workspace/parameters/fast.parameters.yaml",
    "98.5": "bench/recipes/98.5.yaml",
    "99.0": "bench/recipes/99.0.yaml",
    "99.2": "bench/recipes/99.2.yaml",
    "99.3": "workspace/parameters/accurate.parameters.yaml",
    "99.6": "workspace/parameters/best.parameters.yaml",
}
# Takes 53 minutes a seed on two cores with AMX: measured only where it is asked for, as by --only=99.6 --seeds=1.
LONG = "99.6"


def ours(flags, work, parameters, seed):
    """Trains once; returns the seconds of the process and the test accuracy."""
    command = [flags.mnist, "train", f"--data_dir={flags.data_dir}", f"--log_dir={work}/logs", f"--model_dir={work}/model",
               f"--parameters_file={parameters}", f"--seed={seed}", f"--threads={THREADS}"]
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    metrics = json.loads((work / "model/metrics.json").read_text())
    return seconds, metrics["test"]["accuracy"]


def pytorch(flags, parameters, seed):
    """The same in PyTorch."""
    script = ROOT / "bench/peers/train_pytorch_recipe.py"
    command = [flags.pytorch, script, f"--data_dir={flags.data_dir}", f"--recipe={parameters}", f"--seed={seed}",
               f"--threads={THREADS}"]
    begin = time.perf_counter()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - begin
    answer = json.loads(out.splitlines()[-1])
    flags.versions.add(answer["version"])
    return seconds, answer["accuracy"]


def row(target, who, parameters, runs):
    """A row of the table."""
    seconds, accuracies = [s for s, _ in runs], [100 * a for _, a in runs]
    mean = statistics.mean(accuracies)
    reached = "yes" if mean >= float(target) else "**no**"
    return (f"| {target} % | {who} | {statistics.median(seconds):.2f} | {min(seconds):.2f} to {max(seconds):.2f} | "
            f"{mean:.3f} % | {min(accuracies):.2f} to {max(accuracies):.2f} | {len(runs)} | {reached} | {parameters} |")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--pytorch", metavar="PYTHON")
    parser.add_argument("--only", default=",".join(target for target in ENTRIES if target != LONG), metavar="ACCURACY,...")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--pytorch_seeds", type=int, default=1)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--mnist", metavar="PROGRAM", help="a program that is built already, where there is no cargo")
    flags = parser.parse_args()
    flags.data_dir = os.path.abspath(flags.data_dir)
    flags.targets = flags.only.split(",")
    if unknown := set(flags.targets) - set(ENTRIES):
        parser.error(f"--only: expected some of {','.join(ENTRIES)}, found {','.join(unknown)}")
    for target in flags.targets if flags.pytorch else []:
        if unknown := recipe.unknown(ROOT / ENTRIES[target]):
            parser.error(f"--pytorch: {ENTRIES[target]} has keys that the peer does not know: {', '.join(unknown)}; leave out"
                         f" --pytorch, or {target} of --only")
    flags.out = flags.out or record(cpu(), "time to accuracy")
    flags.versions = set()
    return flags


def main():
    flags = arguments()
    measured = revision()
    flags.mnist = program(flags.mnist)
    measured_program = described(flags.mnist)
    flags.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as work, open(flags.out / "raw.jsonl", "w") as raw:
        work = pathlib.Path(work)
        for target in flags.targets:
            parameters = ENTRIES[target]
            runs = {"mnist": [], "PyTorch": []}
            for seed in range(1, flags.seeds + 1):
                for who in runs:
                    if who == "PyTorch" and (not flags.pytorch or seed > flags.pytorch_seeds):
                        continue
                    path = ROOT / parameters
                    run = ours(flags, work, path, seed) if who == "mnist" else pytorch(flags, path, seed)
                    runs[who].append(run)
                    line = {"target": target, "who": who, "seed": seed, "seconds": run[0], "accuracy": run[1]}
                    raw.write(json.dumps(line) + "\n")
                    raw.flush()
                    print(line, file=sys.stderr)
            rows += [row(target, who, parameters, runs[who]) for who in runs if runs[who]]
    text = "\n".join([
        f"# Time to accuracy, {datetime.date.today()}, {cpu()}, {processors(flags.mnist)} cores", "",
        f"- command: `{invocation()}`",
        f"- revision: {measured}",
        f"- program: {measured_program}; {THREADS} threads",
        f"- {output('rustc', '--version')}; peers: {', '.join(sorted(flags.versions)) or 'none'}", "",
        "The rules stand in the program's text. Seconds are those of the whole process.", "",
        "| target | who | seconds, median | range | accuracy, mean | range | seeds | reached | recipe |",
        "|---|---|---|---|---|---|---|---|---|", *rows, ""])
    (flags.out / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
