"""tinygrad on the processor: a step is compiled by clang when it is first taken. A short last batch is left out."""
import importlib.metadata
import time

import numpy as np
from tinygrad import Tensor, TinyJit, nn

from data import answer, flags, load

f = flags()
Tensor.manual_seed(f.seed)
x, y, x_test, y_test = (Tensor(array.astype(np.int32) if array.ndim == 1 else array).realize() for array in load(f.data_dir))
widths = [784, *f.hidden, 10]
layers = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in zip(widths, widths[1:])]
optimizer = nn.optim.Adam(nn.state.get_parameters(layers), lr=1e-3, eps=1e-7)


def logits(x):
    for layer in layers[:-1]:
        x = layer(x).relu().dropout(0.2)
    return layers[-1](x)


@TinyJit
def step(batch):
    optimizer.zero_grad()
    loss = logits(x[batch]).sparse_categorical_crossentropy(y[batch]).backward()
    return loss.realize(*optimizer.schedule_step())


seconds = []
for epoch in range(f.epochs):
    order = np.random.default_rng([f.seed, epoch]).permutation(len(x.numpy())).astype(np.int32)
    begin = time.perf_counter()
    with Tensor.train():
        for first in range(0, len(order) - f.batch + 1, f.batch):
            step(Tensor(order[first:first + f.batch]).realize())
    seconds.append(time.perf_counter() - begin)
accuracy = (logits(x_test).argmax(1) == y_test).mean().item()
answer(seconds, accuracy, "tinygrad " + importlib.metadata.version("tinygrad"))
