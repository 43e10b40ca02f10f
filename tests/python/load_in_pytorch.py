"""Loads model.safetensors into PyTorch's nn.Linear and compares logits. Usage: load_in_pytorch.py MODEL IMAGES LOGITS

IMAGES: bytes (N,784), LOGITS: float32 (N,10), both without any header. Fails if a logit differs by more than
1e-4, or the largest one is another.
"""
import sys

import numpy
import torch
from safetensors.torch import load_file

tensors = load_file(sys.argv[1])
layers = []
for index in range(len(tensors) // 2):
    weight, bias = tensors[f"layers.{index}.weight"], tensors[f"layers.{index}.bias"]
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    layers += [linear, torch.nn.ReLU()]
network = torch.nn.Sequential(*layers[:-1])

images = torch.from_numpy(numpy.fromfile(sys.argv[2], dtype=numpy.uint8).reshape(-1, 784))
expected = torch.from_numpy(numpy.fromfile(sys.argv[3], dtype="<f4").reshape(-1, 10))
with torch.no_grad():
    logits = network(images.float() / 255)
difference = (logits - expected).abs().max().item()
same = int((logits.argmax(dim=1) == expected.argmax(dim=1)).sum())
print(f"PyTorch {torch.__version__}: largest difference {difference:.2e}, {same} answers the same over {len(images)} images")
sys.exit(0 if difference <= 1e-4 and same == len(images) else 1)
