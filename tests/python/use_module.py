"""Trains and asks a network through the module mnist_cube, in the current directory with its data."""

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
    assert "unknown key batchsize" in str(error) and "optimizer: expected adam" in str(error), error
else:
    raise AssertionError("a wrong parameter was taken")
print("done")
