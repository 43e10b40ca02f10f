"""PyTorch, eager. --mode=ftz flushes denormals; --mode=plain leaves PyTorch's defaults."""
import time

import torch
from torch import nn

from data import answer, flags, load

f = flags()
if f.threads:
    torch.set_num_threads(f.threads)
if f.mode == "ftz":
    torch.set_flush_denormal(True)
torch.manual_seed(f.seed)
x, y, x_test, y_test = (torch.from_numpy(array) for array in load(f.data_dir))
layers, width = [], 784
for hidden in f.hidden:
    layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(0.2)]
    width = hidden
model = nn.Sequential(*layers, nn.Linear(width, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=f.mode != "plain" or None)
loss = nn.CrossEntropyLoss()

seconds = []
for _ in range(f.epochs):
    order = torch.randperm(len(x))
    begin = time.perf_counter()
    for batch in order.split(f.batch):
        optimizer.zero_grad(set_to_none=True)
        loss(model(x[batch]), y[batch]).backward()
        optimizer.step()
    seconds.append(time.perf_counter() - begin)
model.eval()
with torch.no_grad():
    accuracy = (model(x_test).argmax(1) == y_test).float().mean()
answer(seconds, accuracy, "PyTorch " + torch.__version__)
