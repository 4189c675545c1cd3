/** Waveforms, spectrograms and bars on canvases, in the colours of the page. */

import { fromBase64 } from "./pieces.js";
import { BINS, HOP } from "../../src/sonibook/widgets/sound.js";

/* global MAGMA -- the colour map of levels, 256 times red, green, blue, alpha: see tools/lab.py */

/** Levels are drawn down to this, in dB below the loudest. */
const FLOOR_DB = 80;
/** Room for the numbers of the axes, in CSS pixels. */
const LEFT = 26;
const BELOW = 18;

const COLOURS = new Uint32Array(fromBase64(MAGMA).buffer);

/** A canvas as large as it is shown, cleared, in CSS pixels. */
function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * ratio); // which clears it, too
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { context, width, height };
}

/** @param {Element} element @param {string} name of a CSS variable @returns {string} its value */
function colour(element, name) {
  return getComputedStyle(element).getPropertyValue(name).trim();
}

/** @param {HTMLCanvasElement} canvas @param {number} x in CSS px @returns {number} share of its time */
export function timeShare(canvas, x) {
  return Math.min(Math.max((x - LEFT) / (canvas.clientWidth - LEFT), 0), 1);
}

/** @param {number} share of the time @returns {string} where that is, as CSS */
export function timePlace(share) {
  return `calc(${LEFT}px + ${share} * (100% - ${LEFT}px))`;
}

/**
 * @param {HTMLCanvasElement} canvas @param {Float32Array} x
 * @param {{peak: number, ink: string}} options the end of the axis, and a CSS variable
 */
export function drawWaveform(canvas, x, { peak, ink }) {
  const { context, width, height } = prepare(canvas);
  const middle = height / 2;
  const columns = Math.max(1, Math.floor((width - LEFT) * (window.devicePixelRatio || 1)));
  const wide = (width - LEFT) / columns;
  context.fillStyle = colour(canvas, "--lab-axis");
  context.fillRect(LEFT, middle - 0.25, width - LEFT, 0.5);
  context.fillStyle = colour(canvas, ink);
  for (let column = 0; column < columns; column++) {
    const end = Math.max(Math.floor(((column + 1) * x.length) / columns), 1);
    let low = Infinity;
    let high = -Infinity;
    for (let t = Math.min(Math.floor((column * x.length) / columns), end - 1); t < end; t++) {
      low = Math.min(low, x[t]);
      high = Math.max(high, x[t]);
    }
    const top = middle * (1 - high / peak);
    context.fillRect(LEFT + column * wide, top, wide, Math.max((middle * (high - low)) / peak, 0.6));
  }
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {Float32Array} power of powerSpectrogram
 * @param {{reference: number, rate: number}} options the power at 0 dB, and the sound's rate in Hz
 */
export function drawSpectrogram(canvas, power, { reference, rate }) {
  const { context, width, height } = prepare(canvas);
  const frames = power.length / BINS;
  const image = new ImageData(frames, BINS);
  const pixels = new Uint32Array(image.data.buffer);
  const scale = 10 / Math.LN10 / FLOOR_DB;
  for (let t = 0; t < frames; t++) {
    for (let k = 0; k < BINS; k++) {
      const level = 1 + scale * Math.log(power[t * BINS + k] / reference); // 0 at the floor, 1 on top
      const shade = level > 0 ? Math.min(Math.round(255 * level), 255) : 0;
      pixels[(BINS - 1 - k) * frames + t] = COLOURS[shade];
    }
  }
  const exact = new OffscreenCanvas(frames, BINS);
  exact.getContext("2d").putImageData(image, 0, 0);
  const inner = { width: width - LEFT, height: height - BELOW };
  context.imageSmoothingQuality = "high";
  context.drawImage(exact, LEFT, 0, inner.width, inner.height);
  drawAxes(context, inner, { seconds: ((frames - 1) * HOP) / rate, rate, ink: colour(canvas, "--lab-axis") });
}

/** Seconds below, kilohertz at the left. */
function drawAxes(context, inner, { seconds, rate, ink }) {
  context.fillStyle = ink;
  context.font = `11px ${getComputedStyle(context.canvas).fontFamily}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  const most = rate / 2000;
  for (let kilohertz = 0; kilohertz <= most; kilohertz++) {
    const y = inner.height * (1 - kilohertz / most);
    context.fillRect(LEFT - 4, Math.min(Math.max(y - 0.5, 0), inner.height - 1), 4, 1);
    context.fillText(kilohertz || "", LEFT - 7, Math.max(y, 6));
  }
  context.fillText("kHz", LEFT - 1, inner.height + 9);
  context.textAlign = "center";
  const step = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2].find((size) => seconds / size <= 6) ?? 5;
  for (let count = 1; count * step <= seconds * 1.0001; count++) {
    const x = LEFT + (inner.width * count * step) / seconds;
    context.fillRect(x - 1, inner.height, 1, 4);
    const last = (count + 1) * step > seconds * 1.0001;
    const text = `${Number((count * step).toPrecision(3))}${last ? " s" : ""}`;
    context.fillText(text, Math.min(x, LEFT + inner.width - 10), inner.height + 10);
  }
}

/**
 * The energy of filters as bars, one after the other.
 * @param {HTMLCanvasElement} canvas
 * @param {Object[]} ranking of the model
 * @param {function(number): string} ink the CSS variable that colours a filter's bar
 */
export function drawBars(canvas, ranking, ink) {
  const { context, width, height } = prepare(canvas);
  const slot = width / ranking.length;
  const inks = new Map();
  ranking.forEach(({ filter, share }, rank) => {
    const name = ink(filter);
    if (!inks.has(name)) inks.set(name, colour(canvas, name));
    context.fillStyle = inks.get(name);
    // The root, for energy is a square: soft filters show, too.
    const tall = Math.max(height * Math.sqrt(share / ranking[0].share), 3);
    const gap = slot > 4 ? 1 : 0;
    // A marked bar is seen among hundreds.
    const wide = Math.max(slot - gap, name === "--lab-bar" ? 0.5 : 3);
    context.fillRect(rank * slot - (wide - slot + gap) / 2, height - tall, wide, tall);
  });
}
