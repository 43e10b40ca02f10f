"""Runs model.onnx in onnxruntime and compares logits. Usage: run_onnx.py MODEL IMAGES LOGITS

IMAGES: bytes (N,784), LOGITS: float32 (N,10), both without any header. Fails if a logit differs by more than 1e-4,
the largest one is another, a probability is not the softmax of its logits, or another batch size gives other values.
"""
import sys

import numpy
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = numpy.fromfile(sys.argv[2], dtype=numpy.uint8).reshape(-1, 28, 28)
expected = numpy.fromfile(sys.argv[3], dtype="<f4").reshape(-1, 10)
[taken] = session.get_inputs()
assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["batch", 28, 28]), taken
assert [(o.name, o.shape) for o in session.get_outputs()] == [("logits", ["batch", 10]), ("probabilities", ["batch", 10])]

logits, probabilities = session.run(["logits", "probabilities"], {"images": images})
powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
assert numpy.abs(powers / powers.sum(axis=1, keepdims=True) - probabilities).max() < 1e-5
[one] = session.run(["logits"], {"images": images[:1]})
assert numpy.abs(one - logits[:1]).max() < 1e-5
difference = numpy.abs(logits - expected).max()
same = int((logits.argmax(axis=1) == expected.argmax(axis=1)).sum())
print(f"onnxruntime {onnxruntime.__version__}: largest difference {difference:.2e}, {same} answers the same over {len(images)} images")
sys.exit(0 if difference <= 1e-4 and same == len(images) else 1)
