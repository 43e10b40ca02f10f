#!/usr/bin/env python3
"""Compares parameters on a validation split: how the shipped parameters files and the recipes in bench/recipes were found.

    python3 bench/experiments.py --data_dir=workspace/data --only=accurate --seeds=3

Trains with each experiment of bench/recipes/experiments.json on 50,000 images, on one thread each, as many at a time
as there are processors, and scores on the 10,000 left over. The test set is never looked at. Prints a table, the best first,
and writes each run to raw.jsonl in bench/records/DATE-CPU-experiments/ (or --out).
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

from machine import ROOT, cpu, processors, program, record

VALIDATION = 10_000


def train(mnist, data_dir, settings, seed):
    """Trains once; returns accuracy, loss and seconds."""
    with tempfile.TemporaryDirectory() as work:
        parameters = pathlib.Path(work) / "parameters.yaml"
        parameters.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
        command = [mnist, "train", f"--data_dir={data_dir}", f"--log_dir={work}/logs", f"--model_dir={work}/model",
                   f"--parameters_file={parameters}", f"--validation={VALIDATION}", f"--seed={seed}", "--threads=1"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        metrics = json.loads((pathlib.Path(work) / "model/metrics.json").read_text())
    # Of the last epoch, before calibration.
    last = metrics["epochs"][-1]
    seconds = sum(epoch["seconds"] for epoch in metrics["epochs"])
    return {"accuracy": last["validation_accuracy"], "loss": last["validation_loss"], "seconds": seconds}


def table(runs, experiments):
    """The lines of the table."""
    rows = []
    for name in {run["name"] for run in runs}:
        own = [run for run in runs if run["name"] == name]
        mean = {key: statistics.mean(run[key] for run in own) for key in ("accuracy", "loss", "seconds")}
        settings = ", ".join(f"{key} {value}" for key, value in experiments[name].items())
        rows.append((-mean["accuracy"], f"| {name} | {100 * mean['accuracy']:.3f} % | {mean['loss']:.4f} | "
                     f"{mean['seconds']:.1f} | {len(own)} | {settings} |"))
    head = ["| experiment | accuracy | loss | seconds | seeds | parameters |", "|---|---|---|---|---|---|"]
    return head + [row for _, row in sorted(rows)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--only", default="", metavar="BEGINNING,...", help="the experiments whose names begin so")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--mnist", metavar="PROGRAM", help="a program that is built already, where there is no cargo")
    flags = parser.parse_args()
    experiments = json.loads((ROOT / "bench/recipes/experiments.json").read_text())
    chosen = [name for name in experiments if name.startswith(tuple(flags.only.split(",")))]
    mnist = program(flags.mnist)
    out = flags.out or record(cpu(), "experiments")
    out.mkdir(parents=True, exist_ok=True)
    data_dir, runs = os.path.abspath(flags.data_dir), []

    def run(job):
        name, seed = job
        line = {"name": name, "seed": seed, **train(mnist, data_dir, experiments[name], seed)}
        runs.append(line)
        with open(out / "raw.jsonl", "a") as raw:
            raw.write(json.dumps(line) + "\n")

    jobs = [(name, seed) for seed in range(1, flags.seeds + 1) for name in chosen]
    with concurrent.futures.ThreadPoolExecutor(processors(mnist)) as pool:
        list(pool.map(run, jobs))
    print("\n".join(table(runs, experiments)))


if __name__ == "__main__":
    main()
