"""PyTorch, eager. --mode=ftz flushes denormals; --mode=plain leaves PyTorch's defaults. --mode=inductor compiles the network,
and --mode=bf16 computes products in bf16 where it may (autocast); both flush denormals.

--mode=cuda trains on the GPU, with the images there; --mode=graph too, with a step captured as a CUDA graph, and
--mode=compile, with the network compiled for CUDA graphs of its own (both leave a short last batch out)."""
import contextlib
import time

import torch
from torch import nn

from data import answer, flags, load

f = flags()
if f.threads:
    torch.set_num_threads(f.threads)
if f.mode in ("ftz", "inductor", "bf16"):
    torch.set_flush_denormal(True)
graph = f.mode == "graph"
device = "cuda" if f.mode in ("cuda", "graph", "compile") else "cpu"
torch.manual_seed(f.seed)
x, y, x_test, y_test = (torch.from_numpy(array).to(device) for array in load(f.data_dir))
layers, width = [], 784
for hidden in f.hidden:
    layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.2)]
    width = hidden
model = nn.Sequential(*layers, nn.Linear(width, 10)).to(device)
fused = f.mode != "plain" or None
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=fused, capturable=graph)
loss = nn.CrossEntropyLoss()

run = model
if f.mode in ("compile", "inductor"):
    run = torch.compile(model, mode="reduce-overhead" if f.mode == "compile" else "default", dynamic=False)
precision = torch.autocast("cpu", torch.bfloat16) if f.mode == "bf16" else contextlib.nullcontext()


def step(batch):
    optimizer.zero_grad(set_to_none=True)
    with precision:
        error = loss(run(x[batch]), y[batch])
    error.backward()
    optimizer.step()


if graph:
    # The warm-up and the capture train on the first image, which the epochs after them outweigh.
    batch = torch.zeros(f.batch, dtype=torch.long, device=device)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(batch)
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        step(batch)

seconds = []
for _ in range(f.epochs):
    order = torch.randperm(len(x), device=device)
    begin = time.perf_counter()
    for images in order.split(f.batch):
        if len(images) < f.batch and f.mode in ("graph", "compile", "inductor"):
            continue
        if not graph:
            step(images)
        else:
            batch.copy_(images)
            captured.replay()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - begin)
model.eval()
with torch.no_grad():
    accuracy = (model(x_test).argmax(1) == y_test).float().mean()
answer(seconds, accuracy, "PyTorch " + torch.__version__)
