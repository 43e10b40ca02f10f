"""Makes the pictures of the README, from a real run: the terminal in the last epoch, and the report in light and dark.

    python docs/pictures/make.py --program=target/release/mnist --mirror=URL_OR_DIRECTORY

Needs Chromium with its driver, and `pip install selenium pillow pyte`.
"""

import argparse
import html
import io
import itertools
import os
import pathlib
import pty
import subprocess
import sys
import tempfile

import pyte
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests/python"))
import browser  # noqa: E402

COLUMNS, ROWS = 80, 24
# Pixels on the page of the report that its picture shows.
WIDTH, HEIGHT = 1080, 720
# Of the picture, which is shown at half its width or less.
PICTURE_WIDTH, PICTURE_COLOURS = 900, 48
EPOCHS = 12
# The corners of a seven on the pad, in pixels from its middle.
SEVEN = [(-70, -70), (65, -75), (30, 0), (-10, 90)]


def screens_of(command, directory):
    """Runs `command` in a terminal, and yields its screen after each piece that it writes."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    subprocess.run(["stty", "rows", str(ROWS), "cols", str(COLUMNS)], stdin=theirs, check=True)
    process = subprocess.Popen(command, cwd=directory, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # nobody has the terminal open any more
            break
        stream.feed(piece)
        yield screen
    if process.wait() != 0:
        sys.exit(f"{command}: exit code {process.returncode}")


def styled(screen, row):
    """The text of a row, as SVG."""
    spans = []
    for column in range(COLUMNS):
        cell = screen.buffer[row][column]
        bar = {"█": "done", "░": "todo"}.get(cell.data, "plain")
        kind = cell.fg if cell.fg in ("green", "yellow", "red") else bar
        if spans and spans[-1][0] == kind:
            spans[-1][1].append(cell.data)
        else:
            spans.append((kind, [cell.data]))
    texts = ((kind, html.escape("".join(text))) for kind, text in spans)
    return "".join(text if kind == "plain" else f'<tspan class="{kind}">{text}</tspan>' for kind, text in texts).rstrip()


def terminal_picture(rows):
    """An SVG that shows `rows` in the colours that the reader's system prefers."""
    height = 20 * len(rows) + 24
    lines = "\n".join(f'<text x="14" y="{28 + 20 * nth}" xml:space="preserve">{row}</text>' for nth, row in enumerate(rows))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 {height}" width="700" height="{height}">
<style>
rect {{ fill: #f6f8fa }} text {{ font: 14px ui-monospace, Menlo, Consolas, monospace; fill: #1f2328 }}
.green, .done {{ fill: #1a7f37 }} .todo {{ fill: #afb8c1 }} .yellow {{ fill: #9a6700 }} .red {{ fill: #cf222e }}
@media (prefers-color-scheme: dark) {{
rect {{ fill: #161b22 }} text {{ fill: #e6edf3 }} .green, .done {{ fill: #3fb950 }} .todo {{ fill: #484f58 }}
.yellow {{ fill: #d29922 }} .red {{ fill: #f85149 }} }}
</style>
<rect width="100%" height="100%" rx="8"/>
{lines}
</svg>
"""


def terminal(program, mirror, directory):
    """Trains in `directory`, and keeps the terminal as it is in the middle of the last epoch."""
    subprocess.run([program, "-q", "download", f"--mirror={mirror}"], cwd=directory, check=True, stdout=subprocess.DEVNULL)
    kept = None
    for screen in screens_of([program, "train", f"--train_epochs={EPOCHS}"], directory):
        if any(line.startswith(f"{EPOCHS}/{EPOCHS} ") for line in screen.display):
            kept = [styled(screen, row) for row in range(ROWS)]
    if kept is None:
        sys.exit("the bar of the last epoch was not seen")
    rows = [f"$ mnist train --train_epochs={EPOCHS}"] + [row for row in kept if row.strip()]
    (HERE / "terminal.svg").write_text(terminal_picture(rows))


def report(page, scheme):
    """Keeps the top of the page as a PNG with few colours."""
    with browser.opened(page) as driver:
        browser.look(driver, WIDTH, scheme)
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        pad = driver.find_element("id", "pad")
        pen = ActionChains(driver, duration=50).move_to_element_with_offset(pad, *SEVEN[0]).click_and_hold()
        for (x, y), (next_x, next_y) in itertools.pairwise(SEVEN):
            pen.move_by_offset(next_x - x, next_y - y)
        pen.release().perform()
        picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB").crop((0, 0, WIDTH, HEIGHT))
    picture = picture.resize((PICTURE_WIDTH, round(HEIGHT * PICTURE_WIDTH / WIDTH)), Image.LANCZOS)
    picture.quantize(PICTURE_COLOURS, dither=Image.Dither.NONE).save(HERE / f"report-{scheme}.png", optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=pathlib.Path, default="target/release/mnist")
    parser.add_argument("--mirror", required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        terminal(arguments.program.resolve(), arguments.mirror, directory)
        page = pathlib.Path(directory, "workspace/model/report.html")
        for scheme in ("light", "dark"):
            report(page, scheme)


if __name__ == "__main__":
    main()
