#!/usr/bin/env python3
"""Writes bench/records/README.md: the main figures of all records in one table each for processors, GPUs and accuracies.

    python3 bench/overview.py

With `--check` it writes nothing, and fails if the file is not what the records give. Figures come from each record's
raw.jsonl; a record without one, or with figures of another kind, is named below the tables. A directory without README.md
is left out: its measurement goes on, or was broken off before the first part ended.
"""
import argparse
import collections
import json
import statistics

import limit
from machine import ROOT

RECORDS = ROOT / "bench/records"
HEAD = """# All records

The main figures of each record, by `python3 bench/overview.py`. Compare only figures of one row: machines differ, and
one machine differs from hour to hour. What was measured, and how, stands in each record and in
[docs/benchmarks.md](../../docs/benchmarks.md).
"""
FUSED, FUSED_ALL, FUSED_GPU = "fused, 2 threads", "fused, all processors", "fused, GPU"


def link(record):
    return f"[{record.name[:10]}]({record.name}/README.md)"


def machine(record):
    """The record's title without its date, which the link has."""
    title = (record / "README.md").read_text().splitlines()[0].lstrip("# ")
    return title.replace(f"{record.name[:10]}, ", "").removeprefix("Time to accuracy, ")


def table(head, rows):
    return ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows), ""]


def seconds(lines):
    """The median seconds of each program; a line has one run or the list of all."""
    runs = collections.defaultdict(list)
    for line in lines:
        found = line["seconds"]
        runs[line["what"]] += found if isinstance(found, list) else [found]
    return {what: statistics.median(found) for what, found in runs.items()}


def times(medians, base, names):
    """How many times `base` the fastest takes of those whose names begin so."""
    found = [value for what, value in medians.items() if what.startswith(names)]
    return f"{min(found) / medians[base]:.1f}" if found else ""


def accuracy(lines, what):
    return f"{100 * [line['accuracy'] for line in lines if line['what'] == what][-1]:.2f} %"


def of_processors(record, parts):
    """A row for the default network at batch 32. What was not measured stays empty."""
    medians = seconds(parts["epoch"])
    instructions, *distances = of_limits(parts["limits"], medians[FUSED])
    alone = medians.get("fused, 1 thread")
    # The peers take all processors.
    base = FUSED_ALL if FUSED_ALL in medians else FUSED
    yield [link(record), machine(record), instructions, f"{medians[FUSED]:.3f}",
           f"{alone / medians[FUSED]:.2f}" if alone else "", *distances,
           times(medians, base, "PyTorch"), times(medians, base, "JAX"), accuracy(parts["epoch"], FUSED),
           of_process(parts["process"])]


def of_limits(lines, epoch):
    """The instruction set, and how many times the least time a step takes: by the rate in registers where an epoch takes
    `epoch` seconds, by the rates of the cache in turns, and by the highest of these undisturbed."""
    if not lines:
        return "", "", "", ""
    limits = lines[-1]
    rates, step = limit.rates_of(limits, 2), limits["step"]
    turns, undisturbed = limit.in_turns(limits), limit.undisturbed(limits)
    return (limits["instruction_set"],
            f"{epoch / step['steps_per_epoch'] / max(limit.in_registers(rates, step)):.2f}" if rates else "",
            f"{statistics.median(ratio for _, ratio in turns[2]):.2f}" if 2 in turns else "",
            f"{undisturbed[2][1]:.2f}" if 2 in undisturbed else "")


def of_process(lines):
    """The seconds and the memory of the whole process."""
    if not lines:
        return ""
    whole = statistics.median(line["seconds"] for line in lines)
    return f"{whole:.2f} s, {max(line['megabytes'] for line in lines):.0f} MB"


def of_gpus(record, parts):
    """A row for each network and batch."""
    cells = collections.defaultdict(list)
    for line in parts["gpu"]:
        cells[line.get("hidden", "128"), line["batch"]].append(line)
    for (hidden, batch), lines in cells.items():
        medians = seconds(lines)
        yield [link(record), machine(record), f"[{hidden}]", str(batch), f"{medians[FUSED_GPU]:.3f}",
               times(medians, FUSED_GPU, "PyTorch"), times(medians, FUSED_GPU, "JAX"),
               times(medians, FUSED_GPU, "fused, all"), accuracy(lines, FUSED_GPU)]


def of_accuracies(record, lines):
    """A row for each target accuracy."""
    for target in dict.fromkeys(line["target"] for line in lines):
        row = [link(record), machine(record), f"{target} %"]
        for who in ("mnist", "PyTorch"):
            runs = [line for line in lines if (line["target"], line["who"]) == (target, who)]
            if not runs:
                row += ["", "", ""]
                continue
            median = statistics.median(line["seconds"] for line in runs)
            mean = 100 * statistics.mean(line["accuracy"] for line in runs)
            # Whoever did not reach it took that long nevertheless.
            missed = ", not reached" if mean < float(target) else ""
            row += [f"{median:.2f}", f"{mean:.2f} %{missed}", str(len(runs))]
        yield row


def overview():
    processors, gpus, accuracies, others = [], [], [], []
    for record in sorted(page.parent for page in RECORDS.glob("*/README.md")):
        raw = record / "raw.jsonl"
        lines = [json.loads(line) for line in raw.read_text().splitlines()] if raw.exists() else []
        parts = collections.defaultdict(list)
        for line in lines:
            parts[line.get("part", "")].append(line)
        found = len(processors) + len(gpus) + len(accuracies)
        if any(line["what"] == FUSED for line in parts["epoch"]):
            processors += of_processors(record, parts)
        if any(line["what"] == FUSED_GPU for line in parts["gpu"]):
            gpus += of_gpus(record, parts)
        if lines and "target" in lines[0]:
            accuracies += of_accuracies(record, lines)
        if len(processors) + len(gpus) + len(accuracies) == found:
            others.append(f"- [{record.name}]({record.name}/README.md)")
    return "\n".join([
        HEAD, "## Processors", "",
        "The default network at batch 32: seconds of an epoch, the gain by the second thread, how many times the",
        "least time of a step it takes by three measures, how many times as long the fastest of PyTorch and JAX take, accuracy, and",
        "the whole process. Where there are more than two processors, PyTorch and JAX are compared with ours on all of them.",
        "The measures: by the rate in registers, which no program reaches; by the rates of the cache in the moment before each",
        "epoch; by the fastest steps and the highest of those rates, when others disturbed least.",
        *table(["record", "machine", "instructions", "s/epoch", "gain", "registers", "cache", "undisturbed", "PyTorch", "JAX",
                "accuracy", "process"], processors),
        "## GPUs", "",
        "Seconds of an epoch, and how many times as long the fastest of others and our engine on all processors take.",
        *table(["record", "machine", "hidden layers", "batch", "s/epoch", "PyTorch", "JAX", "processors", "accuracy"], gpus),
        "## Time to an accuracy", "",
        "Seconds of the whole process, the median, the mean accuracy, and the number of seeds.",
        *table(["record", "machine", "target", "mnist, s", "accuracy", "seeds", "PyTorch, s", "accuracy", "seeds"], accuracies),
        "## Others", "", *others, ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    path = RECORDS / "README.md"
    if parser.parse_args().check:
        if path.read_text() != overview():
            parser.exit(1, f"{path}: expected what the records give; run python3 bench/overview.py\n")
        return
    path.write_text(overview())


if __name__ == "__main__":
    main()
