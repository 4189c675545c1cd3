/** What the player draws of a sound, and how loud it says it is. */

import { BINS } from "./sound.js";

/* global MAGMA -- the colour map of levels, 256 times red, green, blue, alpha: see players.py */

/** Levels are drawn down to this, in dB below the loudest of a player. */
const FLOOR_DB = 80;
/** How wide a waveform is drawn, in pixels; the page scales it. */
export const WAVE = [800, 48];

/** @returns {HTMLElement} a new element in `parent` */
export function add(parent, tag, properties = {}, attributes = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return parent.appendChild(made);
}

/** @returns {string} seconds, such as "0.6" or "2.0" */
export const inSeconds = (time) => (time < 1 ? String(Number(time.toPrecision(2))) : time.toFixed(1));

/** The level around a time, in dB re full scale. @param {AudioBuffer} buffer */
export function levelAt(buffer, time) {
  const x = buffer.getChannelData(0);
  const middle = Math.floor(time * buffer.sampleRate);
  const half = Math.floor(0.02 * buffer.sampleRate);
  return rootMeanSquare(x.subarray(Math.max(middle - half, 0), middle + half));
}

function rootMeanSquare(x) {
  let sum = 0;
  for (let t = 0; t < x.length; t++) sum += x[t] * x[t];
  return 10 * Math.log10(sum / Math.max(x.length, 1));
}

export function levelWords(x) {
  const level = rootMeanSquare(x);
  return Number.isFinite(level) ? `${Math.round(level)} dB`.replace("-", "−") : "silent";
}

/** A pixel for each frame and frequency. */
export function paintSpectrogram(canvas, power, reference) {
  const colours = new Uint32Array(Uint8Array.from(atob(MAGMA), (one) => one.charCodeAt(0)).buffer);
  const frames = power.length / BINS;
  const image = new ImageData(frames, BINS);
  const pixels = new Uint32Array(image.data.buffer);
  for (let t = 0; t < frames; t++) {
    for (let k = 0; k < BINS; k++) {
      const level = 1 + (10 * Math.log10(power[t * BINS + k] / reference)) / FLOOR_DB;
      pixels[(BINS - 1 - k) * frames + t] = colours[level > 0 ? Math.min(Math.round(255 * level), 255) : 0];
    }
  }
  Object.assign(canvas, { width: frames, height: BINS });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** The range of each stretch of a waveform. */
export function paintWave(canvas, x, peak, ink) {
  const [width, height] = WAVE;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  context.fillStyle = ink;
  for (let column = 0; column < width; column++) {
    const start = Math.floor((column * x.length) / width);
    const end = Math.max(Math.floor(((column + 1) * x.length) / width), start + 1);
    let [low, high] = [Infinity, -Infinity];
    for (let t = start; t < end; t++) {
      low = Math.min(low, x[t]);
      high = Math.max(high, x[t]);
    }
    const tall = Math.max((height / 2) * ((high - low) / peak), 1);
    context.fillRect(column, (height / 2) * (1 - high / peak), 1, tall);
  }
}

export function tickSeconds(line, duration) {
  line.replaceChildren();
  const step = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2].find((size) => duration / size <= 5) ?? 5 * Math.ceil(duration / 25);
  for (let count = 0; count * step <= duration * 1.001; count++) {
    const last = (count + 1) * step > duration * 1.001;
    const share = (count * step) / duration;
    const text = `${Number((count * step).toPrecision(3))}${last ? " s" : ""}`;
    add(line, "span", { textContent: text, className: share > 0.95 ? "end" : "" }).style.left = `${100 * share}%`;
  }
}
