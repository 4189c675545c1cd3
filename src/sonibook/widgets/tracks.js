/** The sounds of a page's players, and their one way out. */

import { peakOf, powerSpectrogram, wavOf } from "./sound.js";

/** What is started or stopped within a sound fades for so long, in s: no click. */
export const FADE = 0.015;
/** What all players of a page share: the way out, its gain in dB, who plays, and who played last. */
export const shared = { context: null, output: null, gain: 0, playing: null, last: null, all: new Set() };

/** The page's one gain, which it keeps when it is loaded again. @param {number} decibels */
export function setGain(decibels) {
  shared.gain = decibels;
  shared.output?.gain.setTargetAtTime(10 ** (decibels / 20), shared.context.currentTime, 0.01);
  try {
    sessionStorage.setItem("sonibook-gain", decibels);
  } catch { /* A page may have nothing to keep it in. */ }
  for (const player of shared.all) player.showGain();
}

/** The way out, from the first sound on. */
export function audio() {
  if (!shared.context) {
    shared.context = new AudioContext();
    shared.output = shared.context.createGain();
    shared.output.gain.value = 10 ** (shared.gain / 20);
    shared.output.connect(shared.context.destination);
  }
  shared.context.resume(); // waits for a reader who touches the page, where a browser demands it
  return shared.context;
}

/** One sound, fetched and decoded once, when it is first wanted. */
export class Track {
  constructor({ name, sound, about = "" }, rate) {
    Object.assign(this, { name, sound, about, rate });
  }

  /** The sound as a file. @returns {Promise<ArrayBuffer>} a copy, for decoding takes it away */
  async file() {
    this.given ??= typeof this.sound === "function" ? this.sound() : this.sound;
    const given = await this.given;
    if (given instanceof Float32Array) return wavOf(given, { rate: this.rate, gain: 1 }).arrayBuffer();
    if (given instanceof Blob) return given.arrayBuffer();
    if (given instanceof ArrayBuffer) return given.slice(0);
    if (ArrayBuffer.isView(given)) {
      return given.buffer.slice(given.byteOffset, given.byteOffset + given.byteLength);
    }
    const reply = await fetch(given);
    if (!reply.ok) throw new Error(`${reply.status} ${reply.statusText}`);
    return reply.arrayBuffer();
  }

  /** @returns {Promise<Float32Array>} the samples at the sound's own rate, to look at */
  samples() {
    this.seen ??= this.file()
      .then((file) => new OfflineAudioContext(1, 1, this.rate).decodeAudioData(file))
      .then((buffer) => {
        const x = buffer.getChannelData(0);
        Object.assign(this, { duration: buffer.duration, peak: peakOf(x), power: powerSpectrogram(x) });
        return x;
      });
    return this.seen;
  }

  /** @returns {Promise<AudioBuffer>} at the rate of the way out, resampled well, to play */
  buffer() {
    this.heard ??= this.file().then((file) => audio().decodeAudioData(file));
    return this.heard;
  }
}
