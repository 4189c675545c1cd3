/** What the lab measures of sounds beyond what the player does: coherence and scale. */

import { BINS, FRAME, HANN, fourier, peakOf } from "../../src/sonibook/widgets/sound.js";

/** How many of the most coherent frequencies are averaged. */
const COHERENT = 5;

/**
 * The mean of the five most coherent frequencies, as sonibook.analysis.coherence: magnitude-squared
 * coherence by Welch's method, segments of 256 with half overlap, Hann window, means taken away.
 * @param {Float32Array} x @param {Float32Array} y as long as x
 * @returns {number} from 0 to 1; NaN where one of the two is silent, or there are no two segments
 */
export function meanTopCoherence(x, y) {
  const step = FRAME / 2;
  if (x.length < FRAME + step) return NaN;
  const powerX = new Float64Array(BINS);
  const powerY = new Float64Array(BINS);
  const crossRe = new Float64Array(BINS);
  const crossIm = new Float64Array(BINS);
  const [a, b, c, d] = [0, 1, 2, 3].map(() => new Float64Array(FRAME));
  for (let start = 0; start + FRAME <= x.length; start += step) {
    segment(x, start, a, b);
    segment(y, start, c, d);
    for (let k = 0; k < BINS; k++) {
      powerX[k] += a[k] * a[k] + b[k] * b[k];
      powerY[k] += c[k] * c[k] + d[k] * d[k];
      crossRe[k] += a[k] * c[k] + b[k] * d[k];
      crossIm[k] += a[k] * d[k] - b[k] * c[k];
    }
  }
  const values = powerX.map((power, k) => {
    const both = power * powerY[k];
    return both > 0 ? Math.min((crossRe[k] ** 2 + crossIm[k] ** 2) / both, 1) : NaN;
  });
  if (values.every(Number.isNaN)) return NaN;
  const top = values.map((value) => value || 0).sort().slice(-COHERENT);
  return top.reduce((sum, value) => sum + value, 0) / COHERENT;
}

/** The spectrum of one segment without its mean, into `re` and `im`. */
function segment(x, start, re, im) {
  let mean = 0;
  for (let n = 0; n < FRAME; n++) mean += x[start + n];
  mean /= FRAME;
  for (let n = 0; n < FRAME; n++) re[n] = (x[start + n] - mean) * HANN[n];
  im.fill(0);
  fourier(re, im);
}

/**
 * Scale a sound to a peak; silence stays silence.
 * @param {Float32Array} x @param {number} peak @returns {Float32Array}
 */
export function scaledToPeak(x, peak) {
  const loudest = peakOf(x);
  // To unit peak first: a tiny one would overflow the quotient.
  return loudest > 0 ? x.map((sample) => Math.fround(sample / loudest) * peak) : x;
}

/**
 * What a network says.
 * @param {Float64Array} pooled the last layer's maps, averaged over time
 * @param {{values: Float32Array, classes: string[], several: boolean}} head
 * @returns {number[]} each class's probability: of one among all, or where several are heard on its own
 */
export function probabilities(pooled, { values, classes, several }) {
  const logits = classes.map((_, n) => {
    const row = classes.length + n * pooled.length;
    return pooled.reduce((sum, mean, channel) => sum + mean * values[row + channel], values[n]);
  });
  if (several) return logits.map((logit) => 1 / (1 + Math.exp(-logit)));
  const most = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - most));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}
