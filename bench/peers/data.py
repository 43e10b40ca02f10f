"""What the peers share: their flags, the IDX files, and how they answer.

Each trains the network of `mnist train` with the same optimizer (Adam as Keras defines it: 0.001, 0.9, 0.999, 1e-7), loss
and dropout, and prints one JSON object: seconds of each epoch, the training alone, and the accuracy on the test set.
"""
import argparse
import json
import os

import numpy as np


def flags():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--hidden", default="128", help="widths, such as 1024,1024")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: the framework's own choice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", default="")
    flags = parser.parse_args()
    flags.hidden = [int(width) for width in flags.hidden.split(",")]
    return flags


def load(data_dir):
    """Returns train images (N, 784) from 0 to 1, their labels, and the same of the test set."""
    def read(name, header):
        return np.fromfile(os.path.join(data_dir, name), np.uint8)[header:]

    def images(name):
        return read(name, 16).reshape(-1, 784).astype(np.float32) / 255

    return (images("train-images-idx3-ubyte"), read("train-labels-idx1-ubyte", 8).astype(np.int64),
            images("t10k-images-idx3-ubyte"), read("t10k-labels-idx1-ubyte", 8).astype(np.int64))


def answer(seconds, accuracy, version):
    print(json.dumps({"seconds": seconds, "accuracy": float(accuracy), "version": version}))
