/** What the page measures of sounds: spectra, coherence, peaks. The same definitions as in Python. */

/** Samples in a segment of a spectrum (32 ms at 8 kHz), and from a spectrogram's frame to the next. */
export const FRAME = 256;
export const HOP = 64;
/** Frequencies of a segment, from 0 to half the sampling rate. */
export const BINS = FRAME / 2 + 1;
/** How many of the most coherent frequencies are averaged. */
const COHERENT = 5;

const HANN = Float64Array.from(
  { length: FRAME }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / FRAME),
);
const COSINES = HANN.map((_, n) => Math.cos((2 * Math.PI * n) / FRAME));
const SINES = HANN.map((_, n) => -Math.sin((2 * Math.PI * n) / FRAME));
/** Where each sample stands once the bits of its number are read backwards. */
const REVERSED = Uint8Array.from({ length: FRAME }, (_, n) => {
  let reversed = 0;
  for (let bit = 1; bit < FRAME; bit *= 2) reversed = reversed * 2 + (n & bit ? 1 : 0);
  return reversed;
});

/**
 * The discrete Fourier transform (Cooley and Tukey 1965), in place.
 * @param {Float64Array} re real parts, FRAME of them @param {Float64Array} im imaginary parts
 */
export function fourier(re, im) {
  for (let n = 0; n < FRAME; n++) {
    const m = REVERSED[n];
    if (m <= n) continue;
    const [real, imaginary] = [re[n], im[n]];
    re[n] = re[m];
    im[n] = im[m];
    re[m] = real;
    im[m] = imaginary;
  }
  for (let half = 1; half < FRAME; half *= 2) {
    const stride = FRAME / (2 * half);
    for (let start = 0; start < FRAME; start += 2 * half) {
      for (let k = 0; k < half; k++) {
        const a = start + k;
        const b = a + half;
        const cosine = COSINES[k * stride];
        const sine = SINES[k * stride];
        const real = re[b] * cosine - im[b] * sine;
        const imaginary = re[b] * sine + im[b] * cosine;
        re[b] = re[a] - real;
        im[b] = im[a] - imaginary;
        re[a] += real;
        im[a] += imaginary;
      }
    }
  }
}

/**
 * Power in short overlapping frames, as sonibook.plots.sound.power_spectrogram.
 * @param {Float32Array} x
 * @returns {Float32Array} shape (frame, BINS); frame t is centred at sample t * HOP
 */
export function powerSpectrogram(x) {
  const frames = Math.floor(x.length / HOP) + 1;
  const power = new Float32Array(frames * BINS);
  const re = new Float64Array(FRAME);
  const im = new Float64Array(FRAME);
  for (let t = 0; t < frames; t++) {
    const start = t * HOP - FRAME / 2;
    let live = false;
    for (let n = 0; n < FRAME; n++) {
      const sample = x[start + n] || 0; // undefined beyond the ends
      if (sample) live = true;
      re[n] = sample * HANN[n];
    }
    if (!live) continue;
    im.fill(0);
    fourier(re, im);
    for (let k = 0; k < BINS; k++) power[t * BINS + k] = re[k] * re[k] + im[k] * im[k];
  }
  return power;
}

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

/** @param {Float32Array} x @returns {number} the largest magnitude */
export function peakOf(x) {
  let peak = 0;
  for (let t = 0; t < x.length; t++) peak = Math.max(peak, Math.abs(x[t]));
  return peak;
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
