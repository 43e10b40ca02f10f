"use strict";
// The network in this page. Its parameters are float32, little-endian, layer by layer: the weights (I,O) row by row,
// then the biases (O). An ensemble has several networks, one after the other.
const mnist = (() => {
  const { widths, parameters: text } = JSON.parse(document.getElementById("network").textContent);
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

  return { SIDE, widths, parameters, probabilities, prepare };
})();

// ---- the drawing

(() => {
  const pad = document.getElementById("pad"), seen = document.getElementById("seen");
  const answer = document.getElementById("answer"), spoken = document.getElementById("spoken");
  const bars = [...document.querySelectorAll("#bars li")];
  const pen = pad.getContext("2d", { willReadFrequently: true });
  pen.lineCap = pen.lineJoin = "round";
  pen.lineWidth = 24; // a digit is drawn some 200 pixels tall; scaled down, this is the stroke width of MNIST
  pen.strokeStyle = pen.fillStyle = "#fff";
  // The pointer that draws (others are ignored), its position, and whether an answer is due at the next frame.
  let active = null, last = null, waiting = false;

  const percent = (share) => (100 * share).toFixed(1) + " %";

  // Shows the network's answer for `pixels` (D), or that nothing is drawn.
  function show(pixels) {
    const context = seen.getContext("2d");
    const image = context.createImageData(mnist.SIDE, mnist.SIDE);
    for (let i = 0; i < mnist.SIDE ** 2; i++) {
      const grey = pixels ? pixels[i] : 0;
      image.data.set([grey, grey, grey, 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
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

  function look() {
    const { data } = pen.getImageData(0, 0, pad.width, pad.height);
    const ink = new Float32Array(pad.width * pad.height);
    for (let i = 0; i < ink.length; i++) ink[i] = data[4 * i + 3] / 255;
    show(mnist.prepare(ink, pad.width, pad.height));
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
    last = place(event);
    pen.beginPath();
    pen.arc(...last, pen.lineWidth / 2, 0, 2 * Math.PI);
    pen.fill();
    lookSoon();
  });
  pad.addEventListener("pointermove", (event) => {
    if (event.pointerId !== active) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    for (const moved of moves.length ? moves : [event]) {
      const to = place(moved);
      pen.beginPath();
      pen.moveTo(...last);
      pen.lineTo(...to);
      pen.stroke();
      last = to;
    }
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

  function clear() {
    pen.clearRect(0, 0, pad.width, pad.height);
  }
  document.getElementById("clear").addEventListener("click", () => { clear(); show(null); say(); });
  for (const button of document.querySelectorAll(".sample")) {
    button.addEventListener("click", () => {
      clear();
      show(Uint8Array.from(atob(button.dataset.pixels), (c) => c.charCodeAt(0)));
      say();
    });
  }
  show(null);
})();

// ---- the first layer's weights

(() => {
  const canvas = document.getElementById("first-layer");
  const SIDE = mnist.SIDE, GAP = 2, MOST = 256, ZOOM = 2;
  const units = Math.min(mnist.widths[1], MOST), outputs = mnist.widths[1];
  const columns = Math.min(units, 16), rows = Math.ceil(units / columns);
  canvas.width = columns * (SIDE + GAP) + GAP;
  canvas.height = rows * (SIDE + GAP) + GAP;
  canvas.style.width = ZOOM * canvas.width + "px";
  const context = canvas.getContext("2d");
  for (let unit = 0; unit < units; unit++) {
    let largest = 0;
    for (let i = 0; i < SIDE * SIDE; i++) largest = Math.max(largest, Math.abs(mnist.parameters[i * outputs + unit]));
    const image = context.createImageData(SIDE, SIDE);
    for (let i = 0; i < SIDE * SIDE; i++) {
      const grey = 127.5 * (1 + mnist.parameters[i * outputs + unit] / (largest || 1));
      image.data.set([grey, grey, grey, 255], 4 * i);
    }
    context.putImageData(image, GAP + (unit % columns) * (SIDE + GAP), GAP + Math.floor(unit / columns) * (SIDE + GAP));
  }
})();
window.mnist = mnist;
