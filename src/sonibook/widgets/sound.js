/** What the player, the lab and its worker measure of sounds, and sounds as WAV files. The same
    definitions as in Python. */

/** Samples in a segment of a spectrum (32 ms at 8 kHz), and from a spectrogram's frame to the next. */
export const FRAME = 256;
export const HOP = 64;
/** Frequencies of a segment, from 0 to half the sampling rate. */
export const BINS = FRAME / 2 + 1;

export const HANN = Float64Array.from(
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

/** @param {Float32Array} x @returns {number} the largest magnitude */
export function peakOf(x) {
  let peak = 0;
  for (let t = 0; t < x.length; t++) peak = Math.max(peak, Math.abs(x[t]));
  return peak;
}

/**
 * What a spectrogram shows, in words measured as sonibook.plots.sound.describe does.
 * @param {Float32Array} power @param {number} rate in Hz @returns {string}
 */
export function described(power, rate) {
  const byBin = new Float64Array(BINS);
  let loudest = { power: 0, frame: 0 };
  for (let frame = 0; frame < power.length / BINS; frame++) {
    let here = 0;
    for (let k = 0; k < BINS; k++) {
      byBin[k] += power[frame * BINS + k];
      here += power[frame * BINS + k];
    }
    if (here > loudest.power) loudest = { power: here, frame };
  }
  const total = byBin.reduce((sum, value) => sum + value, 0);
  if (total === 0) return "silence";
  const reached = (share) => {
    let sum = 0;
    const bin = byBin.findIndex((value) => (sum += value) >= share * total);
    return ((bin * rate) / 2000 / (BINS - 1)).toFixed(2);
  };
  const seconds = ((loudest.frame * HOP) / rate).toFixed(2);
  return `loudest at ${seconds} s, most of its power between ${reached(0.1)} and ${reached(0.9)} kHz`;
}

/**
 * @param {Float32Array} x
 * @param {{rate: number, gain: number}} options in Hz; what the sound is multiplied by
 * @returns {Blob} a mono WAV file of 16 bits
 */
export function wavOf(x, { rate, gain }) {
  const bytes = new ArrayBuffer(44 + 2 * x.length);
  const view = new DataView(bytes);
  const text = (place, letters) => {
    for (let n = 0; n < letters.length; n++) view.setUint8(place + n, letters.charCodeAt(n));
  };
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * x.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // plain samples
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * x.length, true);
  for (let t = 0; t < x.length; t++) {
    const sample = Math.round(x[t] * gain * 32768);
    view.setInt16(44 + 2 * t, Math.min(Math.max(sample, -32768), 32767), true);
  }
  return new Blob([bytes], { type: "audio/wav" });
}
