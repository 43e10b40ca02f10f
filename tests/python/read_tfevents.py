"""Reads event files with TensorBoard's own reader. Usage: read_tfevents.py LOG_DIR

Prints JSON: each tag with its [step, value] pairs.
"""
import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

accumulator = EventAccumulator(sys.argv[1])
accumulator.Reload()
tags = {}
for tag in accumulator.Tags()["scalars"]:
    tags[tag] = [[event.step, event.value] for event in accumulator.Scalars(tag)]
print(json.dumps(tags))
