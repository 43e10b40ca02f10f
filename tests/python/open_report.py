"""Opens report.html in Chromium, from disk, and uses it. Usage: open_report.py REPORT IMAGES [SHOTS]

IMAGES: bytes (N,784) without any header. Prints JSON: the page's probabilities for each image, its answers to the first ten drawn
with pointer events, large and small, what the pad and the charts show, and all console messages, network requests and words broken on a
phone, of which there should be none. SHOTS is a directory for screenshots.
"""
import base64
import json
import pathlib
import sys

from selenium.webdriver.common.by import By

import browser

DRAWN = 10


def thinned(image):
    """The bright pixels of `image` (784 bytes), thinned to lines one pixel wide (Zhang and Suen, 1984)."""
    bright = {(i % 28, i // 28) for i, value in enumerate(image) if value > 127}

    def ring(x, y):
        # Clockwise from the top.
        steps = ((0, -1), (1, -1), (1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1))
        return [(x + dx, y + dy) in bright for dx, dy in steps]

    changed = True
    while changed:
        changed = False
        for first in (True, False):
            gone = set()
            for x, y in bright:
                n = ring(x, y)
                turns = sum(not a and b for a, b in zip(n, n[1:] + n[:1]))
                sides = (n[0] and n[2] and n[4], n[2] and n[4] and n[6]) if first else (n[0] and n[2] and n[6], n[0] and n[4] and n[6])
                if 2 <= sum(n) <= 6 and turns == 1 and not any(sides):
                    gone.add((x, y))
            bright -= gone
            changed |= bool(gone)
    return bright


def strokes(image):
    """The lines of `image` as the pen would go along them: a list of lists of points."""
    left, result = thinned(image), []
    near = lambda x, y: [(x + dx, y + dy) for dx, dy in ((0, -1), (1, 0), (0, 1), (-1, 0), (1, -1), (1, 1), (-1, 1), (-1, -1))]
    everything = set(left)
    while left:
        ends = [p for p in sorted(left) if sum(q in left for q in near(*p)) == 1]
        at = (ends or sorted(left))[0]
        # A stroke begins where an earlier one passed, so that no gap stays.
        stroke = [q for q in near(*at) if q in everything - left][:1] + [at]
        left.discard(at)
        while following := [q for q in near(*at) if q in left]:
            at = following[0]
            stroke.append(at)
            left.discard(at)
        stroke += [q for q in near(*at) if q in everything - left and q not in stroke][:1]
        result.append(stroke)
    return result


def draw(driver, image, parts=1):
    """Draws `image` on the page with the mouse, so that it fills the pad, or less by so many `parts`. Returns what the page answers."""
    driver.find_element(By.ID, "clear").click()
    box = driver.execute_script("const b = document.getElementById('pad').getBoundingClientRect(); return [b.left, b.top, b.width / 28];")
    box[2] /= parts

    def mouse(kind, point, buttons):
        driver.execute_cdp_cmd("Input.dispatchMouseEvent", {
            "type": kind, "x": box[0] + (point[0] + 0.5) * box[2], "y": box[1] + (point[1] + 0.5) * box[2],
            "button": "left", "buttons": buttons, "clickCount": 1})

    for stroke in strokes(image):
        mouse("mousePressed", stroke[0], 1)
        for point in stroke[1:]:
            mouse("mouseMoved", point, 1)
        mouse("mouseReleased", stroke[-1], 0)
    return driver.find_element(By.ID, "answer").text


def use_pad(driver, image):
    """What the pad shows in turn: at first, drawn on, with a sample over it, without that again, and once all strokes are undone. A
    pair each time: whether it asks to draw, and its pixels that are not black."""
    def state():
        return driver.execute_script("""
            const pad = document.getElementById("pad"), { data } = pad.getContext("2d").getImageData(0, 0, pad.width, pad.height);
            const lit = data.filter((value, i) => i % 4 === 0 && value > 0 && data[i + 3] > 0).length;
            return [document.getElementById("hint").getClientRects().length > 0, lit];""")

    driver.find_element(By.ID, "clear").click()
    states = [state()]
    undo = driver.find_element(By.ID, "undo")
    draw(driver, image)
    states.append(state())
    driver.find_element(By.CSS_SELECTOR, ".sample").click()
    states.append(state())
    undo.click()
    states.append(state())
    for _ in strokes(image):
        undo.click()
    return states + [state()]


def hover(driver):
    """The values that the first chart shows with the mouse in its middle."""
    box = driver.execute_script("""
        const chart = document.querySelector(".chart");
        chart.scrollIntoView({ block: "center" });
        const b = chart.getBoundingClientRect();
        return [b.left + b.width / 2, b.top + b.height / 2];""")
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": box[0], "y": box[1]})
    return driver.execute_script("""
        return [...document.querySelectorAll(".readout text")].filter((text) => getComputedStyle(text).visibility === "visible")
            .map((text) => text.textContent);""")


def broken_words(driver):
    """The words that a phone's narrow screen breaks in their middle: those with more than one box. Hashes may."""
    return driver.execute_script("""
        document.querySelectorAll("details").forEach((details) => { details.open = true; });
        const walker = document.createTreeWalker(document.querySelector("body"), NodeFilter.SHOW_TEXT), range = document.createRange();
        const broken = [];
        while (walker.nextNode()) {
            const node = walker.currentNode;
            if (node.parentElement.closest("script, style")) continue;
            for (const { 0: word, index } of node.data.matchAll(/[\\w.,%]+/g)) {
                range.setStart(node, index);
                range.setEnd(node, index + word.length);
                const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.top)));
                if (lines.size > 1 && !/^[0-9a-f]{64}$/.test(word)) broken.push(word);
            }
        }
        return broken;""")


def overflow(driver, width):
    """How many pixels the page is wider than a screen of `width`."""
    browser.look(driver, width)
    return driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth;")


def main():
    report = pathlib.Path(sys.argv[1]).resolve()
    images = pathlib.Path(sys.argv[2]).read_bytes()
    images = [list(images[i:i + 784]) for i in range(0, len(images), 784)]
    shots = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
    with browser.opened(report) as driver:
        probabilities = driver.execute_script("return arguments[0].map((image) => window.mnist.probabilities(image));", images)
        answers = [draw(driver, image) for image in images[:DRAWN]]
        small = [draw(driver, image, 4) for image in images[:DRAWN]]
        pad = use_pad(driver, images[0])
        driver.find_element(By.CSS_SELECTOR, ".sample").click()
        sample = driver.find_element(By.ID, "answer").text
        values = hover(driver)
        if shots:
            shoot(driver, shots, images[0])
        wide = [overflow(driver, width) for width in (1280, 390)]
        broken = broken_words(driver)
        console = [entry["message"] for entry in driver.get_log("browser")]
        events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    # chrome: is the browser's own first page.
    asked = [url for url in asked if url != report.as_uri() and not url.startswith(("data:", "chrome:"))]
    print(json.dumps({"probabilities": probabilities, "answers": answers, "small": small, "pad": pad, "sample": sample, "values": values,
                      "console": console, "requests": asked, "overflow": wide, "broken": broken}))


def shoot(driver, shots, image):
    """Screenshots of the whole page: desktop, dark, phone; and the page as paper."""
    def look(name, width, scheme):
        browser.look(driver, width, scheme)
        draw(driver, image)
        height = driver.execute_script("return document.documentElement.scrollHeight;")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        (shots / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    look("desktop", 1280, "light")
    look("dark", 1280, "dark")
    look("phone", 390, "light")
    (shots / "paper.pdf").write_bytes(base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]))


main()
