/* A network as layers above each other, in all of which time runs from left to right, so that what
   one value hears lies right below it. Numbers come from Python (stages.py). */

/** A colour for each byte, from dark to light. */
function palette(power, ...stops) {
  return Array.from({ length: 256 }, (_, byte) => {
    const place = (byte / 255) ** power * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    return stops[low].map((from, n) => from + (stops[low + 1][n] - from) * (place - low));
  });
}
const DARK = [11, 16, 22];
const BLUES = [DARK, [10, 74, 120], [86, 180, 233], [244, 251, 255]];
const ORANGES = [DARK, [138, 61, 0], [240, 138, 36], [255, 244, 224]];
export const UP = palette(.7, ...BLUES), BACK = palette(.7, ...ORANGES);
export const NEGATIVE = palette(.7, DARK, [86, 52, 110], [196, 130, 214], [238, 214, 246]);
// Levels in dB are even already: what is soft should be dark.
export const INPUT = palette(1.6, ...BLUES), SOUND = palette(1.6, ...ORANGES);

export const bytes = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));

export function make(kind, name = "", content = "") {
  const element = document.createElement(kind);
  if (name) element.className = name;
  element.innerHTML = content;
  return element;
}

/** Paint bytes, row by row, by a cell's number and row; one row, if told, five times as thick. */
export function paint(canvas, count, rows, colour, thick = -1) {
  const columns = count / rows, order = Array.from({ length: rows }, (_, row) => row);
  if (thick >= 0) order.splice(thick, 1, ...Array(5).fill(thick));
  Object.assign(canvas, { width: columns, height: order.length });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, order.length);
  order.forEach((row, line) => {
    for (let column = 0; column < columns; column += 1) {
      const rgb = colour(row * columns + column, row);
      image.data.set([...rgb, 255], 4 * (line * columns + column));
    }
  });
  context.putImageData(image, 0, 0);
}

/** The layers of a clip: strips to draw maps on, and marks of what one value hears. */
export class Layers extends HTMLElement {
  connectedCallback() {
    if (this.live) return;
    this.data = JSON.parse(this.querySelector("script").textContent);
    this.still = this.querySelector(".still");
    this.live = make("div", "live");
    this.live.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take keys for its own
    this.live.setAttribute("role", "group");
    this.live.setAttribute("aria-label", this.data.label);
    this.prepend(this.live);
    this.stack = make("div", "stack");
    this.stack.tabIndex = 0;
    this.stack.setAttribute("role", "group");
    this.stack.setAttribute("aria-label", "Maps of all layers. Arrow keys mark a value and what it hears.");
    this.stack.addEventListener("pointermove", (event) => this.point(event));
    this.stack.addEventListener("pointerleave", () => this.mark(null));
    this.stack.addEventListener("keydown", (event) => this.walk(event));
    this.rows = new Map();
    this.say = make("p", "say");
    this.say.setAttribute("aria-live", "polite");
    this.begin();
  }

  /** A strip of a layer, with its canvas; layer 0 is the sound. */
  strip(kind, number, side) {
    const strip = make("div", kind), canvas = make("canvas"), one = this.data.layers[number - 1];
    if (one) {
      canvas.style.left = `${50 * (one.field - one.stride) / this.data.samples}%`;
      canvas.style.width = `${100 * one.steps * one.stride / this.data.samples}%`;
    }
    Object.assign(strip.dataset, { layer: number, side });
    strip.append(canvas, make("div", "mark"), make("div", "head-line"));
    return [strip, canvas];
  }

  tell(words) {
    if (this.say.textContent !== words) this.say.textContent = words;
  }

  // ---- what a value hears

  point(event) {
    const strip = event.target.closest?.(".strip");
    if (!strip) return this.mark(null);
    const number = Number(strip.dataset.layer), box = strip.getBoundingClientRect();
    if (!number) return this.mark(null);
    const one = this.data.layers[number - 1];
    const at = (event.clientX - box.left) / box.width * this.data.samples;
    const step = Math.round((at - one.field / 2) / one.stride);
    return this.mark(step >= 0 && step < one.steps ? { number, step } : null);
  }

  walk(event) {
    if (event.target !== this.stack) return;
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };
    const [up, along] = moves[event.key] ?? [];
    if (up === undefined && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    const { layers, layer, samples } = this.data;
    const old = this.marked ?? { number: layer, step: Math.floor(layers[layer - 1].steps / 2) };
    const number = Math.min(Math.max(old.number + (up ?? 0), 1), layers.length);
    const one = layers[number - 1], was = layers[old.number - 1];
    const jump = Math.max(Math.round(samples / 80 / one.stride), 1);
    let step = Math.round((old.step * was.stride + (was.field - one.field) / 2) / one.stride);
    step += jump * (along ?? 0);
    if (event.key === "Home") step = 0;
    if (event.key === "End") step = one.steps;
    this.mark({ number, step: Math.min(Math.max(step, 0), one.steps - 1) });
  }

  /** Mark a value, and all that it hears in the layers below. */
  mark(place) {
    this.marked = place;
    const { layers, samples, rate } = this.data;
    for (const strip of this.stack.querySelectorAll(".strip")) {
      const number = Number(strip.dataset.layer), mark = strip.querySelector(".mark");
      mark.style.display = place && number <= place.number ? "block" : "none";
      if (!place) continue;
      const one = layers[place.number - 1], field = number ? layers[number - 1].field : 1;
      const start = place.step * one.stride + field / 2 - .5;
      mark.style.left = `${100 * start / samples}%`;
      mark.style.width = `${100 * Math.max(one.field - field, 1) / samples}%`;
    }
    if (!place) { this.show(); return; }
    const one = layers[place.number - 1], start = place.step * one.stride;
    this.tell(`Step ${place.step} of layer ${place.number} hears ${one.field} samples `
      + `(${(1000 * one.field / rate).toFixed(1)} ms): ${(start / rate).toFixed(4)} to `
      + `${((start + one.field) / rate).toFixed(4)} s of the sound.`);
  }
}
