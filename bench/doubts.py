#!/usr/bin/env python3
"""Counts what `mnist predict` doubts: digits that it should not, and pictures of everything else, which it should.

    python3 bench/doubts.py --data_dir=workspace/data --model_dir=workspace/model

Needs Pillow, numpy, scipy and the fonts of tests/fonts.rs. Draws every picture from seeds of its own, so that two runs ask the
same. The photographs are made of test images: enlarged, sharpened to the edge of a pen, set somewhere on a sheet in uneven
light, blurred, with paper's texture and a sensor's grain, compressed as JPEG. The record goes into
bench/records/DATE-CPU-doubts/ (or --out).
"""
import argparse
import collections
import concurrent.futures
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

from machine import ROOT, cpu, described, invocation, program, record, revision

sys.path.insert(0, str(ROOT / "bench/peers"))
from data import load  # noqa: E402

FONTS = ["/usr/share/fonts/" + font for font in re.findall(r'", "(.*\.[ot]tf)"\)', (ROOT / "tests/fonts.rs").read_text())]
PAPER, INK = 235, 25
PHOTOGRAPHS = 4000


def written(text, font, margin=60):
    """`text` in a font, dark on light."""
    font = ImageFont.truetype(font, 160)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin), PAPER)
    ImageDraw.Draw(image).text((margin - left, margin - top), text, font=font, fill=INK)
    return image


def drawn(draw):
    """An empty sheet on which `draw` has drawn."""
    image = Image.new("L", (240, 240), PAPER)
    draw(ImageDraw.Draw(image))
    return image


def with_lines(image, lines, shade=60):
    """`image` with (from, to, width) lines drawn on it."""
    draw = ImageDraw.Draw(image)
    for begin, end, width in lines:
        draw.line([begin, end], fill=shade, width=width)
    return image


def boxed(image, margin, width):
    corner = (image.width - 1 - margin, image.height - 1 - margin)
    ImageDraw.Draw(image).rectangle([(margin, margin), corner], outline=40, width=width)
    return image


def picture(brightness):
    """Brightness from 0 to 1 as a picture."""
    return Image.fromarray((np.clip(brightness, 0, 1) * 255).astype(np.uint8))


def photograph(digit, seed):
    """A test image as if written on paper and photographed."""
    random = np.random.default_rng(seed)
    size = int(random.integers(110, 240))
    width, height = (int(size * random.uniform(1, 1.7)) for _ in range(2))
    pen = np.asarray(Image.fromarray(digit).resize((size, size), Image.BICUBIC), np.float32) / 255
    ink = np.zeros((height, width), np.float32)
    left, top = int(random.integers(0, width - size + 1)), int(random.integers(0, height - size + 1))
    ink[top:top + size, left:left + size] = np.clip((pen - 0.25) / 0.35, 0, 1)
    y, x = np.mgrid[0:height, 0:width]
    angle = random.uniform(0, 2 * np.pi)
    light = np.cos(angle) * x / width + np.sin(angle) * y / height
    paper = random.uniform(0.55, 0.9) + random.uniform(0, 0.22) * (light - light.mean())
    paper -= random.uniform(0, 0.16) * ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2)
    shot = paper * (1 - ink) + random.uniform(0.1, 0.35) * ink * paper / 0.8
    shot = gaussian_filter(shot, random.uniform(0.3, 2))
    shot += gaussian_filter(random.normal(0, 1, shot.shape), 2) * random.uniform(0, 0.03)
    shot += random.normal(0, 1, shot.shape) * random.uniform(0.005, 0.04)
    return picture(shot).convert("RGB"), int(random.integers(50, 92))


def shadow(random):
    """A sheet that half lies in the shade, as brightness."""
    y, x = np.mgrid[0:240, 0:240] - 120
    angle = random.uniform(0, 2 * np.pi)
    shade = np.where(x * np.cos(angle) + y * np.sin(angle) > random.uniform(-60, 60), random.uniform(0.4, 0.7), 1)
    return gaussian_filter(0.85 * shade, random.uniform(0.3, 2)) + random.normal(0, 0.02, shade.shape)


def scribble(random):
    points = random.uniform(20, 220, (int(random.integers(12, 30)), 2))
    curve = CubicSpline(np.arange(len(points)), points)(np.linspace(0, len(points) - 1, 600))
    return drawn(lambda draw: draw.line([tuple(at) for at in curve], fill=INK, width=int(random.integers(4, 10)), joint="curve"))


def zigzag(random):
    x = np.linspace(30, 210, int(random.integers(7, 14)))
    y = np.where(np.arange(len(x)) % 2, 50, 190) + random.uniform(-25, 25, len(x))
    return drawn(lambda draw: draw.line(list(zip(x, y)), fill=INK, width=7, joint="curve"))


def grid(random):
    spacing, width = int(random.integers(12, 45)), int(random.integers(1, 4))
    places = range(spacing // 2, 240, spacing)
    across = [((0, at), (240, at), width) for at in places]
    return with_lines(drawn(lambda _: None), across + [((at, 0), (at, 240), width) for at in places])


def lone_digits():
    """Pictures of one digit: name of the set -> list of (picture, digit)."""
    sets = collections.defaultdict(list)
    random = np.random.default_rng(1)
    for at, font in enumerate(FONTS):
        for digit in range(10):
            image = lambda margin=60: written(str(digit), font, margin)
            sets["handwriting fonts"].append((image(), digit))
            sets["in a printed box"].append((boxed(image(), [0, 4, 15, 30][(at + digit) % 4], 1 + (at + digit) % 6), digit))
        for digit in (2, 5, 8):
            image = written(str(digit), font)
            width, height = image.size
            ruled = [((0, height - 40), (width, height - 40), 2)]
            sets["in a tight box"].append((boxed(written(str(digit), font, 14), 3, 3), digit))
            sets["on one ruled line"].append((with_lines(image.copy(), ruled, 120), digit))
            corner = [((20, 0), (20, height), 3), ((0, height - 25), (width, height - 25), 3)]
            sets["between two lines"].append((with_lines(image.copy(), corner), digit))
            pen = np.asarray(image.resize((240, 240)), np.float32) / PAPER
            sets["across the edge of a shadow"].append((picture(shadow(random) * pen), digit))
    return sets


def no_digits():
    """Pictures of something else: name of the set -> list of pictures."""
    random = np.random.default_rng(2)
    sets = {
        "numbers (42, 17, 90, 356)": [written(text, font) for font in FONTS for text in ("42", "17", "90", "356")],
        "the letter A": [written("A", font) for font in FONTS],
        "the letters B E H K M R W X Z": [written(letter, font) for font in FONTS for letter in "BEHKMRWXZ"],
        "noise": [picture(random.random((side, side))) for side in [200] * 20 + [28] * 10],
        "smooth noise": [],
        "scribbles": [scribble(random) for _ in range(20)],
        "zigzags": [zigzag(random) for _ in range(20)],
        "the edge of a shadow": [picture(shadow(random)) for _ in range(20)],
        "line grids": [grid(random) for _ in range(10)],
        "empty boxes": [boxed(drawn(lambda _: None), int(random.integers(0, 40)), int(random.integers(1, 6))) for _ in range(10)],
        "filled squares and discs": [],
        "dots": [],
    }
    for _ in range(20):
        smooth = gaussian_filter(random.normal(0, 1, (200, 200)), random.uniform(1, 6))
        sets["smooth noise"].append(picture((smooth - smooth.min()) / np.ptp(smooth)))
    for _ in range(10):
        far, wide = 20 + int(random.integers(40, 170)), 100 + int(random.integers(2, 12))
        sets["filled squares and discs"] += [drawn(lambda draw: draw.rectangle([20, 20, far, far], fill=INK)),
                                             drawn(lambda draw: draw.ellipse([20, 20, far, far], fill=INK))]
        sets["dots"].append(drawn(lambda draw: draw.ellipse([100, 100, wide, wide], fill=INK)))
    return sets


def ask(mnist, model_dir, images):
    """What the program says of images: a picture, or a picture and its JPEG quality."""
    with tempfile.TemporaryDirectory() as work:
        names = []
        for at, image in enumerate(images):
            image, quality = image if isinstance(image, tuple) else (image, None)
            names.append(f"{at}.jpg" if quality else f"{at}.png")
            image.save(pathlib.Path(work) / names[-1], **({"quality": quality} if quality else {}))
        command = [mnist, "predict", "--json", f"--model_dir={model_dir}"]
        answers = []
        for first in range(0, len(names), 1000):
            said = subprocess.run(command + names[first:first + 1000], cwd=work, capture_output=True, text=True).stdout
            answers += [json.loads(line) for line in said.splitlines()]
    assert len(answers) == len(images), f"expected {len(images)} answers, found {len(answers)}"
    return answers


def row(name, answers, digits=None):
    """A row of the table."""
    doubts = collections.Counter(answer["doubt"] for answer in answers if answer.get("doubt"))
    refused = sum("digit" not in answer for answer in answers)
    right = sum(answer.get("digit") == digit for answer, digit in zip(answers, digits)) if digits is not None else ""
    doubted = sum(doubts.values()) + (0 if digits is not None else refused)
    kinds = ", ".join([f"{kind} {count}" for kind, count in doubts.most_common()] + ([f"not read {refused}"] if refused else []))
    return f"| {name} | {len(answers)} | {right} | {doubted} ({100 * doubted / len(answers):.2f} %) | {kinds} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--model_dir", required=True, help="a trained model")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--mnist", metavar="PROGRAM", help="a program that is built already, where there is no cargo")
    flags = parser.parse_args()
    out = flags.out or record(cpu(), "doubts")
    model = os.path.abspath(flags.model_dir)
    measured = revision()
    mnist = program(flags.mnist)
    measured_program = described(mnist)
    if missing := [font for font in FONTS if not os.path.isfile(font)]:
        sys.exit(f"{missing[0]}: expected a font; tests/fonts.rs names Debian's packages")
    *_, test, labels = load(flags.data_dir)
    test = (np.asarray(test).reshape(-1, 28, 28) * 255).round().astype(np.uint8)

    with concurrent.futures.ProcessPoolExecutor() as pool:
        shots = list(pool.map(photograph, test[:PHOTOGRAPHS], range(PHOTOGRAPHS), chunksize=50))
    rows = [row("test images", ask(mnist, model, [Image.fromarray(image) for image in test]), labels),
            row("photographs made of them", ask(mnist, model, shots), labels)]
    for name, pairs in lone_digits().items():
        rows.append(row(name, ask(mnist, model, [image for image, _ in pairs]), [digit for _, digit in pairs]))
    other = [row(name, ask(mnist, model, images)) for name, images in no_digits().items()]

    metrics = json.loads((pathlib.Path(model) / "metrics.json").read_text())
    text = "\n".join([
        f"# Doubts, {datetime.date.today()}, {cpu()}", "", f"- command: `{invocation()}`", f"- revision: {measured}",
        f"- program: {measured_program}",
        f"- model: {100 * metrics['test']['accuracy']:.2f} % on test", "",
        "One digit each; a doubt is a false alarm, except where the box or the lines cannot be taken away:", "",
        "| pictures | number | right | doubted | kinds |", "|---|---|---|---|---|", *rows, "",
        "No digit, or several; a picture that is not read counts as doubted:", "",
        "| pictures | number | right | doubted | kinds |", "|---|---|---|---|---|", *other, ""])
    out.mkdir(parents=True, exist_ok=True)
    (out / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
