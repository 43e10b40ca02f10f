"""Opens report.html in Chromium, from disk, and uses it. Usage: open_report.py REPORT IMAGES [SHOTS]

IMAGES: bytes (N,784) without any header. Prints JSON: the page's probabilities for each image, its answers to the first ten drawn
with pointer events, and all console messages and network requests, of which there should be none. SHOTS is a directory for
screenshots.
"""
import base64
import json
import pathlib
import sys
import tempfile

from selenium import webdriver
from selenium.webdriver.common.by import By

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


def draw(driver, image):
    """Draws `image` on the page with the mouse, a pixel being ten wide, and returns what the page answers."""
    driver.find_element(By.ID, "clear").click()
    box = driver.execute_script("const b = document.getElementById('pad').getBoundingClientRect(); return [b.left, b.top, b.width / 28];")

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


def screen(driver, width):
    """Makes the screen so wide, a phone's if it is narrow."""
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600})


def overflow(driver, width):
    """How many pixels the page is wider than a screen of `width`."""
    screen(driver, width)
    return driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth;")


def main():
    report = pathlib.Path(sys.argv[1]).resolve()
    images = pathlib.Path(sys.argv[2]).read_bytes()
    images = [list(images[i:i + 784]) for i in range(0, len(images), 784)]
    shots = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
                     "disable-component-update", "disable-sync", "disable-dev-shm-usage", "window-size=1280,900", f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        try:
            driver.get(report.as_uri())
            probabilities = driver.execute_script("return arguments[0].map((image) => window.mnist.probabilities(image));", images)
            answers = [draw(driver, image) for image in images[:DRAWN]]
            driver.find_element(By.CSS_SELECTOR, ".sample").click()
            sample = driver.find_element(By.ID, "answer").text
            if shots:
                shoot(driver, shots, images[0])
            wide = [overflow(driver, width) for width in (1280, 390)]
            console = [entry["message"] for entry in driver.get_log("browser")]
            events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        finally:
            driver.quit()
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    # chrome: is the browser's own first page.
    asked = [url for url in asked if url != report.as_uri() and not url.startswith(("data:", "chrome:"))]
    print(json.dumps({"probabilities": probabilities, "answers": answers, "sample": sample, "console": console, "requests": asked, "overflow": wide}))


def shoot(driver, shots, image):
    """Screenshots of the whole page: desktop, dark, phone; and the page as paper."""
    def look(name, width, scheme):
        screen(driver, width)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
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
