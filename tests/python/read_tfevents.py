"""Reads event files with TensorBoard's own reader. Usage: read_tfevents.py LOG_DIR

Prints JSON: each tag with its [step, value] pairs.
"""
import json
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

accumulator = EventAccumulator(sys.argv[1])
accumulator.Reload()
tags = {}
for tag in accumulator.Tags()["scalars"]:
    tags[tag] = [[event.step, event.value] for event in accumulator.Scalars(tag)]
for tag in accumulator.Tags()["tensors"]:
    tags[tag] = [[event.step, float(make_ndarray(event.tensor_proto))] for event in accumulator.Tensors(tag)]
print(json.dumps(tags))
