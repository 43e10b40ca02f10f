"""Trains and asks a network through the module mnist_cube, in the current directory with its data."""

import contextlib
import io
import os
import pathlib
import signal
import sys

import mnist_cube
import numpy

run = mnist_cube.train(
    {"train_epochs": 12, "hidden_layers": [64], "batch_size": 16}, data_dir="data", model_dir="model", log_dir="logs"
)
assert run.model_path.is_file(), run.model_path
assert len(run.metrics["epochs"]) == 12, run.metrics
shapes = {name: tensor.shape for name, tensor in run.load_safetensors().items()}
expected = {"layers.0.weight": (64, 784), "layers.0.bias": (64,), "layers.1.weight": (10, 64), "layers.1.bias": (10,)}
assert shapes == expected, shapes

images = numpy.fromfile("data/t10k-images-idx3-ubyte", numpy.uint8, offset=16).reshape(-1, 28, 28)
labels = numpy.fromfile("data/t10k-labels-idx1-ubyte", numpy.uint8, offset=8)
answers = run.predict(images)
right = sum(answer.digit == label for answer, label in zip(answers, labels))
assert len(answers) == len(images) and right > len(images) / 2, (right, len(images))
assert all(0 < answer.confidence <= 1 and len(answer.others) == 2 for answer in answers)
assert run.predict([sys.argv[1]])[0].confidence > 0
assert run.predict(images[:0]) == []

blank = images[:5].copy()
blank[[1, 3]] = 0
shown = io.StringIO()
try:
    with contextlib.redirect_stderr(shown):
        run.predict(blank)
except mnist_cube.MnistError as error:
    assert error.exit_code == 1, error.exit_code
    assert str(error).startswith("images[1]: has no digit in it"), error
    for text in (str(error), shown.getvalue()):
        assert "error: images[3]: has no digit in it" in text and ".pgm" not in text, text
else:
    raise AssertionError("blank images were taken for digits")

try:
    run.predict(sys.argv[1])
except TypeError as error:
    assert "put it into a list" in str(error), error
else:
    raise AssertionError("one path was taken for several")

try:
    mnist_cube.train({"batchsize": 3, "optimizer": "lion"}, data_dir="data", model_dir="model", log_dir="logs")
except mnist_cube.MnistError as error:
    assert error.exit_code == 1, error.exit_code
    assert str(error).startswith("parameters: ") and "tmp" not in str(error), error
    assert "unknown key batchsize" in str(error) and "optimizer: expected adam" in str(error), error
else:
    raise AssertionError("a wrong parameter was taken")
# The program takes ~ as the home directory.
os.environ["HOME"] = os.getcwd()
at_home = mnist_cube.train({"train_epochs": 1}, data_dir="~/data", model_dir="~/at_home", log_dir="~/logs")
assert at_home.model_path == pathlib.Path("at_home/model.safetensors").resolve(), at_home
assert len(at_home.metrics["epochs"]) == 1, at_home.metrics


class CtrlC(io.StringIO):
    """Takes the program's messages, and answers the first epoch with the signal that Ctrl-C sends."""

    def write(self, line: str) -> int:
        if line.startswith("epoch 1/"):
            os.kill(os.getpid(), signal.SIGINT)
        return super().write(line)


try:
    with contextlib.redirect_stderr(CtrlC()):
        mnist_cube.train({"train_epochs": 100000}, data_dir="data", model_dir="stopped", log_dir="logs")
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("the training was not interrupted")
try:
    left = os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    pass
else:
    raise AssertionError(f"the program outlived the call: {left}")
print("done")
