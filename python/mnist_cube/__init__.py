"""Trains and asks a network for handwritten digits, by the program ``mnist`` that this package brings.

>>> import mnist_cube
>>> mnist_cube.download()
>>> run = mnist_cube.train({"train_epochs": 5, "hidden_layers": [256]})
>>> run.metrics["test"]["accuracy"]
>>> run.predict(["seven.png"])[0].digit

Places that are not given are those of the program, in ``./workspace``. Messages go to stderr as they come.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    Images = Union["numpy.typing.NDArray[numpy.uint8]", Sequence[Union[str, os.PathLike[str]]]]

__all__ = ["Answer", "MnistError", "Run", "download", "train"]

PathLike = Union[str, "os.PathLike[str]"]
#: How long the program may take to end after Ctrl-C, in seconds.
PATIENCE = 10.0
#: How many pictures one call of the program takes: systems limit the length of a command line.
AT_ONCE = 1000


class MnistError(Exception):
    """The program failed; the message is its own.

    ``exit_code`` is the program's: 1 for a failure, 2 for wrong arguments, 130 and 143 after SIGINT and SIGTERM; negative
    where a signal killed it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Answer:
    """What the network says of one image."""

    #: The class with the highest probability: a digit, or the number of a class of another data set.
    digit: int
    #: Its probability, from 0 to 1.
    confidence: float
    #: The next classes with their probabilities, most probable first.
    others: Sequence[tuple[int, float]]
    #: Why not to trust the answer, such as "several shapes"; None where nothing speaks against it.
    doubt: Optional[str]


@dataclass(frozen=True)
class Run:
    """A trained model in its directory."""

    model_dir: Path

    @property
    def model_path(self) -> Path:
        """The file with the weights, ``model.safetensors``."""
        return self.model_dir / "model.safetensors"

    @property
    def metrics(self) -> dict[str, Any]:
        """``metrics.json``: epochs, scores, parameters, times; ``mnist schema metrics`` describes it."""
        metrics: dict[str, Any] = json.loads((self.model_dir / "metrics.json").read_bytes())
        return metrics

    def load_safetensors(self) -> dict[str, numpy.typing.NDArray[numpy.float32]]:
        """The weights (outputs, inputs) and biases (outputs) of all layers, by name. Needs numpy."""
        import numpy

        data = self.model_path.read_bytes()
        # https://github.com/huggingface/safetensors#format: length of the header (8 bytes), header, numbers.
        begin = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:begin])
        header.pop("__metadata__", None)
        tensors = {}
        for name, tensor in header.items():
            first, last = tensor["data_offsets"]
            numbers = numpy.frombuffer(data[begin + first : begin + last], dtype="<f4")
            tensors[name] = numbers.reshape(tensor["shape"])
        return tensors

    def predict(self, images: Images) -> list[Answer]:
        """What the network says of each image, in their order.

        ``images`` are the paths of pictures with one digit each, or a uint8 array (N, height, width) of them. Raises
        MnistError if one cannot be read; the message names one of an array by its index, such as ``images[3]``.
        """
        answers: list[Answer] = []
        with tempfile.TemporaryDirectory() as directory:
            paths = _written(images, Path(directory))
            file = re.compile(re.escape(os.path.join(directory, "")) + r"(\d+)\.pgm")
            for begin in range(0, len(paths), AT_ONCE):
                flags = ["--json", f"--model_dir={self.model_dir}", "--"]
                arguments = ["predict", *flags, *paths[begin : begin + AT_ONCE]]
                output = _call(*arguments, rename=lambda line: file.sub(r"images[\1]", line))
                answers += (_answer(line) for line in output.splitlines())
        return answers


def download(data_dir: Optional[PathLike] = None, *, synthetic: bool = False) -> None:
    """Fetches the four files of MNIST, or draws synthetic digits in their place. What is there is used."""
    _call("download", *_flags(data_dir=data_dir), *(["--synthetic"] if synthetic else []))


def train(
    parameters: Optional[Mapping[str, Any]] = None,
    *,
    data_dir: Optional[PathLike] = None,
    model_dir: Optional[PathLike] = None,
    log_dir: Optional[PathLike] = None,
) -> Run:
    """Trains with ``parameters``, those of a parameters file; the others have their defaults.

    Raises MnistError, for example where a parameter is wrong or the data is missing.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "parameters.yaml")
        file.write_text(json.dumps(dict(parameters or {})))  # JSON is YAML
        flags = _flags(data_dir=data_dir, model_dir=model_dir, log_dir=log_dir, parameters_file=file)

        def rename(line: str) -> str:
            # The file has one line.
            return line.replace(f"{file}:1: ", "parameters: ").replace(str(file), "parameters")

        _call("train", *flags, rename=rename)
    # The program takes ~ as the home directory, so the same is done here.
    return Run(Path(model_dir if model_dir is not None else "workspace/model").expanduser().resolve())


def _written(images: Images, directory: Path) -> list[str]:
    """The paths of ``images``; those of an array are written into ``directory`` first, as PGM."""
    if isinstance(images, (str, bytes, os.PathLike)):
        raise TypeError(f"expected several images, found {images!r}: put it into a list")
    if isinstance(images, Sequence):
        return [os.fspath(path) for path in images]
    if images.dtype != "uint8" or images.ndim != 3:
        raise TypeError(f"expected a uint8 array (N, height, width), found {images.dtype} {images.shape}")
    paths = []
    for number, image in enumerate(images):
        path = directory / f"{number}.pgm"
        path.write_bytes(b"P5 %d %d 255\n" % (image.shape[1], image.shape[0]) + image.tobytes())
        paths.append(str(path))
    return paths


def _answer(line: str) -> Answer:
    answer = json.loads(line)
    others = [(other["digit"], other["confidence"]) for other in answer["others"]]
    return Answer(answer["digit"], answer["confidence"], others, answer["doubt"])


def _flags(**places: Optional[PathLike]) -> list[str]:
    return [f"--{name}={os.fspath(place)}" for name, place in places.items() if place is not None]


def _program() -> str:
    """The program that was installed with this module, else the one in PATH."""
    name = "mnist" + (sysconfig.get_config_var("EXE") or "")
    installed = Path(sysconfig.get_path("scripts"), name)
    found = str(installed) if installed.is_file() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{installed}: expected the program mnist there or in PATH, found none")
    return found


def _call(*arguments: str, rename: Callable[[str], str] = str) -> str:
    """Runs the program to its end and returns its stdout; its messages are shown as they come.

    ``rename`` puts the caller's names into a message, in place of temporary files that the caller does not know.
    """
    messages: list[str] = []
    # A file, since a pipe that nobody reads would stop the program when it is full.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        command = [_program(), *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace")
        try:
            assert process.stderr is not None
            with process.stderr as stderr:
                for line in map(rename, stderr):
                    messages.append(line)
                    sys.stderr.write(line)
            code = process.wait()
        except BaseException:  # such as KeyboardInterrupt: the program ends with this call
            process.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
            finally:
                process.kill()
                process.wait()
            raise
        output.seek(0)
        answer = output.read()
    if code != 0:
        raise MnistError(_error(messages) or f"mnist {arguments[0]}: exit code {code}", code)
    return answer


def _error(messages: list[str]) -> str:
    """The messages from the first error on."""
    errors = [nth for nth, line in enumerate(messages) if line.startswith("error: ")]
    return "".join(messages[errors[0] :]).removeprefix("error: ").strip() if errors else ""
