"""Reads event files with TensorBoard's own reader. Usage: read_tfevents.py LOG_DIR

Prints JSON: for each run, by its directory, each tag with its [step, value] pairs.
"""
import json
import sys

from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

multiplexer = EventMultiplexer().AddRunsFromDirectory(sys.argv[1])
multiplexer.Reload()
runs = {}
for run, tags in multiplexer.Runs().items():
    scalars = {tag: multiplexer.Scalars(run, tag) for tag in tags["scalars"]}
    runs[run] = {tag: [[event.step, event.value] for event in events] for tag, events in scalars.items()}
print(json.dumps(runs))
