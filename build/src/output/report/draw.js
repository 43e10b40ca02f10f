"use strict";
// The network in this page. Its parameters are float32, little-endian, layer by layer: the weights (I,O) row by row,
// then the biases (O). An ensemble has several networks, one after the other.
const mnist = (() => {
  const { widths, shown, silent, parameters: text } = JSON.parse(document.getElementById("network").textContent);
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const parameters = Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  const seen = document.getElementById("seen");
  const SIDE = seen.width, BOX = Number(seen.dataset.box);

  // The probabilities (K) for an image (D) of bytes, 0 black: the mean over all networks.
  function probabilities(pixels) {
    const sums = new Float64Array(widths.at(-1));
    let networks = 0;
    for (let at = 0; at < parameters.length; networks++) {
      const answer = logits(pixels, at);
      softmax(answer.logits).forEach((share, digit) => { sums[digit] += share; });
      at = answer.end;
    }
    return Array.from(sums, (sum) => sum / networks);
  }

  // The logits (K) of the network whose parameters begin at `at`, and where they end.
  function logits(pixels, at) {
    let from = Float64Array.from(pixels, (value) => value / 255);
    for (let layer = 0; layer + 1 < widths.length; layer++) {
      const [inputs, outputs] = [widths[layer], widths[layer + 1]];
      const to = new Float64Array(outputs);
      const biases = at + inputs * outputs;
      for (let o = 0; o < outputs; o++) to[o] = parameters[biases + o];
      for (let i = 0; i < inputs; i++) {
        if (from[i] === 0) continue;
        const row = at + i * outputs;
        for (let o = 0; o < outputs; o++) to[o] += from[i] * parameters[row + o];
      }
      at = biases + outputs;
      const last = layer + 2 === widths.length;
      from = last ? to : to.map((sum) => Math.max(sum, 0));
    }
    return { logits: Array.from(from), end: at };
  }

  function softmax(values) {
    const highest = Math.max(...values);
    const powers = values.map((value) => Math.exp(value - highest));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  }

  // Prepares ink (height, width), 0 to 1, like MNIST. The digit's box is scaled to BOX pixels on its longer side; each
  // new pixel is the mean of the area it covers. The centre of mass is put in the image's centre. Null if nothing is
  // drawn.
  function prepare(ink, width, height) {
    let [left, right, top, bottom] = [width, -1, height, -1];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (ink[y * width + x] < 0.5) continue;
        left = Math.min(left, x); right = Math.max(right, x);
        top = Math.min(top, y); bottom = Math.max(bottom, y);
      }
    }
    if (right < 0) return null;
    const [boxWidth, boxHeight] = [right - left + 1, bottom - top + 1];
    const scale = BOX / Math.max(boxWidth, boxHeight);
    const columns = Math.max(1, Math.round(boxWidth * scale)), rows = Math.max(1, Math.round(boxHeight * scale));
    const small = new Float64Array(columns * rows);
    let [mass, xMoment, yMoment] = [0, 0, 0];
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const value = mean(ink, width, left + column * boxWidth / columns, left + (column + 1) * boxWidth / columns,
          top + row * boxHeight / rows, top + (row + 1) * boxHeight / rows);
        small[row * columns + column] = value;
        mass += value; xMoment += value * column; yMoment += value * row;
      }
    }
    // A digit with its mass at one end would leave the image; it is kept inside.
    const shift = (moment, length) => Math.min(Math.max(Math.round(SIDE / 2 - moment / mass), 0), SIDE - length);
    const xShift = shift(xMoment, columns), yShift = shift(yMoment, rows);
    const image = new Uint8Array(SIDE * SIDE);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        image[(row + yShift) * SIDE + column + xShift] = Math.round(255 * small[row * columns + column]);
      }
    }
    return image;
  }

  // The mean of `ink` over a rectangle, whose sides may lie inside pixels.
  function mean(ink, width, x0, x1, y0, y1) {
    let [sum, area] = [0, 0];
    for (let y = Math.floor(y0); y < y1; y++) {
      const tall = Math.min(y + 1, y1) - Math.max(y, y0);
      for (let x = Math.floor(x0); x < x1; x++) {
        const share = tall * (Math.min(x + 1, x1) - Math.max(x, x0));
        area += share;
        sum += share * ink[y * width + x];
      }
    }
    return sum / area;
  }

  return { SIDE, BOX, widths, shown, silent, parameters, probabilities, prepare };
})();

// ---- the drawing

(() => {
  const pad = document.getElementById("pad"), seen = document.getElementById("seen");
  const answer = document.getElementById("answer"), spoken = document.getElementById("spoken");
  const hint = document.getElementById("hint"), undo = document.getElementById("undo");
  const bars = [...document.querySelectorAll("#bars li")];
  const PEN = 11;
  // What the network sees is drawn again with this pen, so large that the drawing's longer side is LARGE: scaled down, that
  // is the stroke width of MNIST, and small drawings do not clog.
  const THICK = 24, LARGE = pad.width * mnist.BOX / mnist.SIDE - THICK, SMALLEST = 20;
  const sheet = document.createElement("canvas");
  sheet.width = pad.width;
  sheet.height = pad.height;
  // The strokes, each a list of points (x, y), and the sample that lies over them, as bytes (D).
  let strokes = [], sample = null;
  // The pointer that draws (others are ignored), and whether an answer is due at the next frame.
  let active = null, waiting = false;

  const percent = (share) => (100 * share).toFixed(1) + "\u00a0%";

  // Puts an image (D) on a canvas of its size.
  function put(canvas, pixels) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(mnist.SIDE, mnist.SIDE);
    for (let i = 0; i < mnist.SIDE ** 2; i++) {
      const grey = pixels ? pixels[i] : 0;
      image.data.set([grey, grey, grey, 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
  }

  // Shows the network's answer for `pixels` (D), or that nothing is drawn.
  function show(pixels) {
    put(seen, pixels);
    const shares = pixels && mnist.probabilities(pixels);
    const best = shares ? shares.indexOf(Math.max(...shares)) : null;
    const name = (bar) => bar.querySelector(".digit").textContent;
    bars.forEach((bar, digit) => {
      bar.classList.toggle("best", digit === best);
      bar.querySelector(".bar").style.width = shares ? 100 * shares[digit] + "%" : "0";
      bar.querySelector(".share").textContent = shares ? percent(shares[digit]) : "–";
    });
    answer.textContent = shares ? `This is a ${name(bars[best])}, ${percent(shares[best])} sure` : "Nothing drawn yet";
  }

  // Speaks to screen readers: once a stroke ends, not at every move.
  function say() {
    spoken.textContent = answer.textContent;
  }

  // Draws the strokes with a pen of `width`, each point where `place` puts it.
  function draw(canvas, width, place) {
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = width;
    pen.strokeStyle = "#fff";
    for (const stroke of strokes) {
      pen.beginPath();
      pen.moveTo(...place(stroke[0]));
      // A line to where it begins is a dot.
      for (const point of stroke) pen.lineTo(...place(point));
      pen.stroke();
    }
    return pen;
  }

  // The drawing (height, width) as the network gets it: 0 to 1, as large as it can be.
  function ink() {
    const points = strokes.flat();
    const ends = [0, 1].map((axis) => points.reduce(
      ([low, high], point) => [Math.min(low, point[axis]), Math.max(high, point[axis])], [Infinity, -Infinity]));
    const scale = LARGE / Math.max(SMALLEST, ...ends.map(([low, high]) => high - low));
    const place = (point) => point.map((at, axis) => (at - (ends[axis][0] + ends[axis][1]) / 2) * scale + sheet.width / 2);
    const { data } = draw(sheet, THICK, place).getImageData(0, 0, sheet.width, sheet.height);
    return Float32Array.from({ length: data.length / 4 }, (_, i) => data[4 * i + 3] / 255);
  }

  function look() {
    const pen = draw(pad, PEN, (point) => point);
    if (sample) {
      put(sheet, sample);
      pen.clearRect(0, 0, pad.width, pad.height);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(sheet, 0, 0, mnist.SIDE, mnist.SIDE, 0, 0, pad.width, pad.height);
    }
    hint.hidden = Boolean(sample || strokes.length);
    undo.disabled = hint.hidden === false;
    show(sample ?? (strokes.length ? mnist.prepare(ink(), sheet.width, sheet.height) : null));
  }

  function place(event) {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
  }

  function lookSoon() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; look(); });
  }

  pad.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || active !== null) return;
    event.preventDefault();
    pad.setPointerCapture(event.pointerId);
    active = event.pointerId;
    // A drawing begins anew after a sample.
    if (sample) [sample, strokes] = [null, []];
    strokes.push([place(event)]);
    lookSoon();
  });
  pad.addEventListener("pointermove", (event) => {
    if (event.pointerId !== active) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    strokes.at(-1)?.push(...(moves.length ? moves : [event]).map(place));
    lookSoon();
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
    pad.addEventListener(name, (event) => {
      if (event.pointerId !== active) return;
      active = null;
      look();
      say();
    });
  }

  function change(how) {
    active = null;
    how();
    look();
    say();
  }
  document.getElementById("clear").addEventListener("click", () => change(() => { [sample, strokes] = [null, []]; }));
  // Without the sample, what was drawn before is there again.
  undo.addEventListener("click", () => change(() => { if (sample) sample = null; else strokes.pop(); }));
  for (const button of document.querySelectorAll(".sample")) {
    const pixels = () => Uint8Array.from(atob(button.dataset.pixels), (c) => c.charCodeAt(0));
    button.addEventListener("click", () => change(() => { sample = pixels(); }));
  }
  look();
})();

// ---- the first layer's weights

(() => {
  const canvas = document.getElementById("first-layer");
  const { SIDE, shown, silent, parameters } = mnist;
  const GAP = 2, ZOOM = 2, outputs = mnist.widths[1];
  const columns = Math.min(shown, canvas.parentElement.clientWidth < 600 ? 12 : 16), rows = Math.ceil(shown / columns);
  canvas.width = columns * (SIDE + GAP) + GAP;
  canvas.height = rows * (SIDE + GAP) + GAP;
  canvas.style.width = ZOOM * canvas.width + "px";
  const context = canvas.getContext("2d");
  for (let unit = 0; unit < shown; unit++) {
    const [x, y] = [GAP + (unit % columns) * (SIDE + GAP), GAP + Math.floor(unit / columns) * (SIDE + GAP)];
    if (silent.includes(unit)) {
      cross(x, y);
      continue;
    }
    let largest = 0;
    for (let i = 0; i < SIDE * SIDE; i++) largest = Math.max(largest, Math.abs(parameters[i * outputs + unit]));
    const image = context.createImageData(SIDE, SIDE);
    for (let i = 0; i < SIDE * SIDE; i++) {
      const grey = 127.5 * (1 + parameters[i * outputs + unit] / (largest || 1));
      image.data.set([grey, grey, grey, 255], 4 * i);
    }
    context.putImageData(image, x, y);
  }

  // In the place of a unit that is never active: its weights are those of the beginning, and mean nothing.
  function cross(x, y) {
    context.fillStyle = "#2b2b2b";
    context.fillRect(x, y, SIDE, SIDE);
    context.strokeStyle = "#8a8a8a";
    context.beginPath();
    for (const [from, to] of [[0.3, 0.7], [0.7, 0.3]]) {
      context.moveTo(x + 0.3 * SIDE, y + from * SIDE);
      context.lineTo(x + 0.7 * SIDE, y + to * SIDE);
    }
    context.stroke();
  }
})();
window.mnist = mnist;
