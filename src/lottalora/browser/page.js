"use strict";
// Rebuild the network from its seed, check it against its fingerprints, and run it. See docs/format.md.

const $ = (id) => document.getElementById(id);
const settings = JSON.parse($("settings").textContent);

function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

async function inflate(text) {
  const stream = new Blob([fromBase64(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// SHA-256 of bytes, as hexadecimal digits: the browser's own, or ours on pages without it (plain http).

async function sha256(bytes) {
  const digest = globalThis.crypto?.subtle
    ? new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)) : ownSha256(bytes);
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const PRIMES = Array.from({ length: 312 }, (_, i) => i).filter((n) => n > 1 && ![2, 3, 5, 7, 11, 13, 17].some((p) => n > p && n % p === 0));
const firstBits = (x) => (Math.floor((x - Math.floor(x)) * 2 ** 32)) | 0;
const ROUND = PRIMES.slice(0, 64).map((p) => firstBits(Math.cbrt(p)));
const START = PRIMES.slice(0, 8).map((p) => firstBits(Math.sqrt(p)));

function ownSha256(bytes) {
  const padded = new Uint8Array(((bytes.length + 8 >> 6) + 1) << 6);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, bytes.length << 3);
  const h = Int32Array.from(START), w = new Int32Array(64);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let at = 0; at < padded.length; at += 64) {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15], y = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
    }
    let [a, b, c, d, e, f, g, k] = h;
    for (let i = 0; i < 64; i++) {
      const t = (k + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUND[i] + w[i]) | 0;
      const u = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [k, g, f, e, d, c, b, a] = [g, f, e, (d + t) | 0, c, b, a, (t + u) | 0];
    }
    [a, b, c, d, e, f, g, k].forEach((value, i) => { h[i] += value; });
  }
  const out = new DataView(new ArrayBuffer(32));
  h.forEach((value, i) => out.setInt32(4 * i, value));
  return new Uint8Array(out.buffer);
}

// Philox4x32-10: the words of a matrix are a function of its key and of their position alone.

function highHalf(a, b) { // of the 64-bit product of two 32-bit words
  const a0 = a & 0xffff, a1 = a >>> 16, b0 = b & 0xffff, b1 = b >>> 16;
  const low = a0 * b0, middle = a1 * b0 + (low >>> 16), other = a0 * b1 + (middle & 0xffff);
  return (a1 * b1 + Math.floor(middle / 65536) + Math.floor(other / 65536)) >>> 0;
}

function philox(block, k0, k1, out) {
  let c0 = block >>> 0, c1 = Math.floor(block / 2 ** 32), c2 = 0, c3 = 0;
  for (let round = 0; round < 10; round++) {
    const h0 = highHalf(0xd2511f53, c0), l0 = Math.imul(0xd2511f53, c0) >>> 0;
    const h2 = highHalf(0xcd9e8d57, c2), l2 = Math.imul(0xcd9e8d57, c2) >>> 0;
    c0 = (h2 ^ c1 ^ k0) >>> 0; c1 = l2; c2 = (h0 ^ c3 ^ k1) >>> 0; c3 = l0;
    k0 = (k0 + 0x9e3779b9) >>> 0; k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}

async function draw(matrix, seed) {
  const [rows, columns] = matrix.shape;
  const text = `lottalora/1/${seed}/${matrix.redraw}/${matrix.stream}/${rows}x${columns}/${matrix.family}`;
  const key = await sha256(new TextEncoder().encode(text));
  const word = (at) => parseInt(key.slice(at, at + 8).match(/../g).reverse().join(""), 16);
  const [k0, k1] = [word(0), word(8)];
  const { table, multipliers } = tables.find((each) => matrix.name in each.multipliers);
  const scaled = table.map((value) => Math.fround(value * multipliers[matrix.name]));
  const W = new Float32Array(rows * columns), words = new Uint32Array(4);
  for (let block = 0, j = 0; j < W.length; block++) {
    philox(block, k0, k1, words);
    for (let i = 0; i < 8 && j < W.length; i++, j++) {
      W[j] = scaled[i & 1 ? words[i >> 1] >>> 16 : words[i >> 1] & 0xffff];
    }
  }
  return W;
}

async function unpack({ table, multipliers }) {
  const words = new Uint32Array((await inflate(table)).buffer);
  for (let pass = 0; pass < 2; pass++) for (let i = 1; i < words.length; i++) words[i] += words[i - 1];
  return { table: new Float32Array(words.buffer), multipliers };
}

// The file. A BF16 is the upper half of a float32's bits; int8 and int4 have a scale for each group of numbers.

const ARRAYS = { F32: Float32Array, BF16: Uint16Array, F16: Uint16Array, I8: Int8Array, U8: Uint8Array };

function fromBf16(words) {
  return new Float32Array(Uint32Array.from(words, (word) => word << 16).buffer);
}

function fromFp16(words) {
  return Float32Array.from(words, (word) => {
    const exponent = (word >> 10) & 31, fraction = (word & 1023) / 1024;
    const size = exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14;
    return word & 0x8000 ? -size : size;
  });
}

function decode({ name, shape, precision, group }, stored) {
  const { values } = stored[name];
  if (precision === "bf16") return fromBf16(values);
  if (precision === "fp16") return fromFp16(values);
  const scales = fromBf16(stored[`scale/${name}`].values), length = shape.reduce((a, b) => a * b, 1);
  const half = (i) => (((values[i >> 1] >> (i & 1 ? 4 : 0)) & 15) ^ 8) - 8;
  const code = precision === "int4" ? half : (i) => values[i];
  return Float32Array.from({ length }, (_, i) => scales[Math.floor(i / group)] * code(i));
}

function readFile(bytes) {
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const metadata = head.__metadata__, header = JSON.parse(metadata.lottalora);
  delete head.__metadata__;
  const stored = {}, tensors = {};
  for (const [name, { dtype, shape, data_offsets: [first, last] }] of Object.entries(head)) {
    if (!ARRAYS[dtype]) continue;
    const values = new ARRAYS[dtype](bytes.slice(8 + length + first, 8 + length + last).buffer);
    stored[name] = { shape, values };
    if (dtype === "F32") tensors[name] = stored[name];
  }
  for (const record of header.compressed ?? []) {
    tensors[record.name] = { shape: record.shape, values: decode(record, stored) };
  }
  return { header, tensors, seal: metadata.seal, length };
}

async function isSealed(bytes, seal, length) {
  const blanked = bytes.slice();
  const text = new TextDecoder("latin1").decode(bytes.subarray(8, 8 + length));
  const at = 8 + text.indexOf(`"seal":"${seal}"`) + 8;
  blanked.fill(48, at, at + 64);
  return (await sha256(blanked)) === seal;
}

// The network: h = β W_seed x + s B A x + b, then max(h, 0); the head is dense.

function times(matrix, x, columns) {
  const out = new Float32Array(matrix.length / columns);
  for (let i = 0; i < out.length; i++) {
    let sum = 0;
    for (let j = 0; j < columns; j++) sum += matrix[i * columns + j] * x[j];
    out[i] = sum;
  }
  return out;
}

function logitsOf(x, weights) {
  const part = (name) => file.tensors[name];
  let h = x;
  file.header.matrices.forEach((matrix, i) => {
    const [A, B, beta, bias] = ["A", "B", "beta", "bias"].map((name) => part(`${matrix.name}.${name}`));
    const frozen = weights ? times(weights[i], h, matrix.shape[1]) : new Float32Array(matrix.shape[0]);
    const update = A ? times(B.values, times(A.values, h, matrix.shape[1]), matrix.rank) : null;
    const last = matrix.name === "head";
    h = frozen.map((value, j) => {
      const sum = (beta ? beta.values[0] : 1) * value + (update ? matrix.scale * update[j] : 0) + (bias ? bias.values[j] : 0);
      return last ? sum : Math.max(sum, 0);
    });
  });
  if (!part("head.weight")) return h;
  return times(part("head.weight").values, h, h.length).map((value, j) => value + part("head.bias").values[j]);
}

// The file's first inputs must give the output that was stored with them; a file without them passes.

function answersAsStored(weights) {
  const input = file.tensors["probe/input/0"]?.values, output = file.tensors["probe/output"]?.values;
  if (!input || !output) return true;
  const count = output.length / file.outputs, size = input.length / count;
  const largest = output.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
  return Number.isFinite(largest) && Array.from({ length: count }, (_, i) => logitsOf(input.slice(i * size, (i + 1) * size), weights))
    .every((logits, i) => logits.every((value, j) => Math.abs(value - output[i * file.outputs + j]) <= 1e-4 * largest));
}

function shares(logits) {
  const largest = Math.max(...logits), parts = Array.from(logits, (value) => Math.exp(value - largest));
  const sum = parts.reduce((a, b) => a + b, 0);
  return parts.map((value) => value / sum);
}

const normalised = (pixels) => Float32Array.from(pixels, (value) => (value - settings.data.mean) / settings.data.std);

// Drawing. A digit is cut out, scaled into the box that the data's digits fill, and centred as they are.

const pad = $("pad"), pen = pad.getContext("2d", { willReadFrequently: true });
let side = 28, strokes = [], cursor = { x: 140, y: 140, down: false };

function repaint(showPen) {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, 280, 280);
  pen.strokeStyle = "#fff";
  pen.lineWidth = 22;
  pen.lineCap = pen.lineJoin = "round";
  for (const stroke of strokes) {
    pen.beginPath();
    stroke.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    if (stroke.length === 1) pen.lineTo(stroke[0][0] + 0.1, stroke[0][1]);
    pen.stroke();
  }
  if (showPen) {
    pen.strokeStyle = cursor.down ? "#ff5" : "#888";
    pen.lineWidth = 2;
    pen.strokeRect(cursor.x - 6, cursor.y - 6, 12, 12);
  }
}

function drawnPixels() {
  repaint(false);
  const { data } = pen.getImageData(0, 0, 280, 280);
  const ink = (x, y) => (x < 0 || y < 0 || x > 279 || y > 279 ? 0 : data[4 * (y * 280 + x)] / 255);
  let left = 280, right = -1, top = 280, bottom = -1;
  for (let y = 0; y < 280; y++) for (let x = 0; x < 280; x++) if (ink(x, y) > 0.1) {
    left = Math.min(left, x); right = Math.max(right, x); top = Math.min(top, y); bottom = Math.max(bottom, y);
  }
  if (right < 0) return null;
  const size = Math.max(right - left, bottom - top) + 1, step = size / settings.data.box; // of a pixel of the data
  const place = (dx, dy) => Float32Array.from({ length: side * side }, (_, i) => {
    const x0 = (left + right + 1) / 2 + ((i % side) - side / 2 - dx) * step;
    const y0 = (top + bottom + 1) / 2 + (Math.floor(i / side) - side / 2 - dy) * step;
    let sum = 0;
    for (let a = 0; a < 6; a++) for (let b = 0; b < 6; b++) {
      sum += ink(Math.floor(x0 + (a + 0.5) * step / 6), Math.floor(y0 + (b + 0.5) * step / 6));
    }
    return sum / 36;
  });
  const pixels = place(0, 0);
  if (settings.data.by === "box") return pixels;
  const mass = pixels.reduce((a, b) => a + b, 0);
  const mean = (of) => pixels.reduce((sum, value, i) => sum + value * (of(i) + 0.5 - side / 2), 0) / mass;
  return place(-Math.round(mean((i) => i % side)), -Math.round(mean((i) => Math.floor(i / side))));
}

let arms = [];

function show(pixels) {
  const seen = $("seen"), to = seen.getContext("2d");
  seen.width = seen.height = side;
  const image = to.createImageData(side, side);
  (pixels || new Float32Array(side * side)).forEach((value, i) => image.data.set([value * 255, value * 255, value * 255, 255], 4 * i));
  to.putImageData(image, 0, 0);
  for (const arm of arms) {
    const found = pixels && shares(logitsOf(normalised(pixels), arm.weights));
    arm.output.textContent = found ? found.indexOf(Math.max(...found)) : "";
    arm.bars.forEach((bar, i) => { bar.style.width = `${found ? 100 * found[i] : 0}%`; });
  }
}

function element(tag, text, parent) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function addArm(title, weights) {
  const box = element("div", "", $("answers"));
  box.className = "answer";
  element("h3", title, box);
  const arm = { box, weights, output: element("output", "", box), bars: [] };
  for (let digit = 0; digit < file.outputs; digit++) {
    const row = element("div", String(digit), box);
    row.className = "bar";
    arm.bars.push(element("i", "", element("span", "", row)));
  }
  arms.push(arm);
  return arm;
}

function listen() {
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    return [(event.clientX - box.left) * 280 / box.width, (event.clientY - box.top) * 280 / box.height];
  };
  let stroke = null;
  const update = (showPen) => { const pixels = drawnPixels(); repaint(showPen); show(pixels); };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    strokes.push(stroke = [at(event)]);
    update(false);
  });
  pad.addEventListener("pointermove", (event) => { if (stroke) { stroke.push(at(event)); repaint(false); } });
  pad.addEventListener("pointerup", () => { stroke = null; update(false); });
  pad.addEventListener("pointercancel", () => { stroke = null; });
  pad.addEventListener("focus", () => repaint(pad.matches(":focus-visible")));
  pad.addEventListener("blur", () => repaint(false));
  pad.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[event.key];
    if (event.key === " ") {
      cursor.down = !cursor.down;
      if (cursor.down) strokes.push([[cursor.x, cursor.y]]);
    } else if (move) {
      cursor.x = Math.min(270, Math.max(10, cursor.x + move[0]));
      cursor.y = Math.min(270, Math.max(10, cursor.y + move[1]));
      if (cursor.down) strokes.at(-1).push([cursor.x, cursor.y]);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      strokes = [];
      cursor.down = false;
    } else return;
    event.preventDefault();
    update(true);
  });
  $("clear").addEventListener("click", () => { strokes = []; cursor.down = false; update(false); });
  let next = 0;
  $("example").hidden = settings.examples.length === 0;
  $("example").addEventListener("click", () => {
    strokes = [];
    repaint(false);
    const bytes = fromBase64(settings.examples[next++ % settings.examples.length]);
    const size = 280 / side;
    bytes.forEach((value, i) => {
      pen.fillStyle = `rgb(${value} ${value} ${value})`;
      pen.fillRect((i % side) * size, Math.floor(i / side) * size, size, size);
    });
    show(Float32Array.from(bytes, (value) => value / 255));
  });
}

// What was checked.

function addMatrix(matrix, W, hash, equal) {
  const row = element("tr", "", $("matrices"));
  element("td", matrix.name, row);
  element("td", matrix.shape.join(" × "), row);
  element("td", `${matrix.family}, seed ${matrix.seed}`, row);
  const canvas = element("canvas", "", element("td", "", row)), size = Math.min(48, ...matrix.shape);
  canvas.width = canvas.height = size;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Noise");
  const to = canvas.getContext("2d"), image = to.createImageData(size, size);
  const scale = 3 * Math.sqrt(W.reduce((sum, value) => sum + value * value, 0) / W.length) || 1;
  for (let i = 0; i < size * size; i++) {
    const value = 128 + 127 * W[Math.floor(i / size) * matrix.shape[1] + i % size] / scale;
    image.data.set([value, value, value, 255], 4 * i);
  }
  to.putImageData(image, 0, 0);
  const cell = element("td", "", row);
  cell.className = equal ? "good" : "bad";
  element("b", equal ? "✓ equal " : "✗ differs ", cell);
  element("code", `${hash.slice(0, 16)}…`, cell).title = hash;
}

let file, tables;

async function main() {
  const began = performance.now();
  const bytes = fromBase64($("artifact").textContent.trim());
  file = readFile(bytes);
  tables = await Promise.all(settings.tables.map(unpack));
  const { header, seal, length } = file;
  side = header.architecture.arguments.in_shape.at(-1);
  file.outputs = header.architecture.arguments.out_dim;
  const count = (n) => n.toLocaleString("en");
  const held = Object.entries(file.tensors).filter(([name]) => !name.startsWith("probe/"));
  $("held").textContent = count(held.reduce((sum, [, { values }]) => sum + values.length, 0));
  $("drawn").textContent = count(header.matrices.reduce((sum, { shape: [m, n] }) => sum + m * n, 0));
  const sealed = await isSealed(bytes, seal, length), weights = [], hashes = {};
  let good = sealed;
  for (const matrix of header.matrices) {
    const W = await draw(matrix, matrix.seed);
    const hash = await sha256(new Uint8Array(W.buffer)), equal = hash === matrix.fingerprint;
    good &&= equal;
    hashes[matrix.name] = hash;
    weights.push(W);
    addMatrix(matrix, W, hash, equal);
  }
  good &&= answersAsStored(weights);
  $("state").className = good ? "good" : "bad";
  $("state").textContent = good
    ? `✓ Drawn and checked in ${Math.round(performance.now() - began)} ms: seal and ${weights.length} matrices are equal.`
    : "✗ This file is not what was saved: do not trust its answers.";
  const { shipped } = settings;
  const frame = shipped ? ` It was shipped as a Zstandard frame, ${count(shipped.bytes)} bytes, sealed by ${shipped.seal}.` : "";
  $("about").textContent = `${settings.name}, ${count(bytes.length)} bytes, sealed by ${seal}.${frame} `
    + Object.entries(header.metrics).map(([name, value]) => `${name} ${value.toFixed(4)}`).join(", ");
  addArm("With its scaffold", weights);
  addArm("Without it (W = 0)", null);
  const other = addArm("Another seed", null), input = element("input", "", other.box);
  const redraw = async () => {
    const valid = /^\d{1,20}$/.test(input.value) && BigInt(input.value) < 2n ** 64n;
    input.setCustomValidity(valid ? "" : "A whole number below 2^64");
    if (!input.reportValidity()) return;
    other.weights = await Promise.all(header.matrices.map((matrix) => draw(matrix, input.value)));
    show(drawnPixels());
  };
  input.inputMode = "numeric";
  input.value = "7";
  input.setAttribute("aria-label", "The other seed");
  input.addEventListener("change", redraw);
  await redraw();
  listen();
  repaint(false);
  show(null);
  return { good, hashes, ownSha256, sha256, logits: (x) => Array.from(logitsOf(Float32Array.from(x), weights)),
    without: (x) => Array.from(logitsOf(Float32Array.from(x), null)), drawnPixels };
}

globalThis.lottalora = main();
lottalora.catch((error) => { $("state").className = "bad"; $("state").textContent = `✗ ${error.message}`; });
