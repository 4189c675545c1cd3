/** Sounds that the reader brings: a file, or a recording. The rules of sonibook.audio hold here. */

import { peakOf } from "../../src/sonibook/widgets/sound.js";
import { scaledToPeak } from "./signal.js";

/** What the lab takes of a sound at most, and at least, in seconds. */
export const MOST_SECONDS = 10;
export const LEAST_SECONDS = 0.05;
/** How long the microphone is listened to, in seconds. */
export const RECORD_SECONDS = 5;
/** So much of a file is read: an hour of sound need not be decoded to hear its beginning. */
const MOST_BYTES = 8 * 2 ** 20;
/** The rate of a file that does not tell its own. */
const COMMON_RATE = 48000;

/**
 * Decode a file at its own rate: decoding straight to 8 kHz would alias.
 * @param {File} file
 * @returns {Promise<{samples: Float32Array, rate: number, more: boolean}>} mono; whether there is more
 * @throws {Error} if it is not a sound
 */
export async function decode(file) {
  if (file.size === 0) throw new Error(`${file.name} is empty: give a file that holds sound.`);
  const content = await file.slice(0, MOST_BYTES).arrayBuffer();
  const rate = nativeRate(new Uint8Array(content));
  let buffer;
  try {
    buffer = await contextAt(rate).decodeAudioData(content);
  } catch {
    throw new Error(`${file.name} cannot be read as sound: give a WAV, FLAC, OGG or MP3 file.`);
  }
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, n) => buffer.getChannelData(n));
  return { samples: mono(channels), rate: buffer.sampleRate, more: file.size > MOST_BYTES };
}

/** A context that decodes at a rate, or at the common one where the browser does not go there. */
function contextAt(rate) {
  try {
    return new OfflineAudioContext(1, 1, rate);
  } catch {
    return new OfflineAudioContext(1, 1, COMMON_RATE);
  }
}

/** @param {Float32Array[]} channels @returns {Float32Array} their mean */
function mono(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, t) => (
    channels.reduce((sum, channel) => sum + channel[t], 0) / channels.length
  ));
}

/**
 * The sampling rate that a file's header tells.
 * @param {Uint8Array} bytes @returns {number} in Hz; 48000 where it cannot be told
 */
export function nativeRate(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const head = String.fromCharCode(...bytes.subarray(0, 64));
  try {
    if (head.startsWith("RIFF") || head.startsWith("RF64")) {
      for (let place = 12; place < bytes.length; place += 8 + view.getUint32(place + 4, true)) {
        if (view.getUint32(place) === 0x666d7420) return view.getUint32(place + 12, true); // "fmt "
      }
    }
    const vorbis = head.indexOf("\x01vorbis");
    if (head.startsWith("OggS") && vorbis > 0) return view.getUint32(vorbis + 12, true);
    if (head.startsWith("fLaC")) return view.getUint32(18) >>> 12;
    return mp3Rate(bytes) || COMMON_RATE;
  } catch {
    return COMMON_RATE; // cut off within its header: decoding it will say so
  }
}

/** The rate of the first MP3 frame after the tag, or 0. */
function mp3Rate(bytes) {
  const tagged = bytes[0] === 0x49 && bytes[1] === 0x44 && bytes[2] === 0x33; // "ID3"
  const size = tagged ? bytes.subarray(6, 10).reduce((sum, byte) => sum * 128 + byte, 10) : 0;
  for (let n = size; n < Math.min(size + 8192, bytes.length - 2); n++) {
    const version = (bytes[n + 1] >> 3) & 3;
    const index = (bytes[n + 2] >> 2) & 3;
    const layer = (bytes[n + 1] >> 1) & 3;
    const isFrame = bytes[n] === 0xff && bytes[n + 1] >= 0xe0;
    if (isFrame && version !== 1 && layer === 1 && index !== 3) {
      return [44100, 48000, 32000][index] / { 3: 1, 2: 2, 0: 4 }[version];
    }
  }
  return 0;
}

/**
 * Make a recording what the network takes: cut, at its rate, with unit peak.
 * @param {string} name what it is called
 * @param {{samples: Float32Array, rate: number, more: boolean}} recording
 * @param {function(Float32Array, number): Promise<Float32Array>} resample
 * @returns {Promise<{samples: Float32Array, notices: string[]}>}
 * @throws {Error} if there is nothing to hear
 */
export async function prepared(name, { samples, rate, more }, resample) {
  if (samples.length < LEAST_SECONDS * rate) {
    const count = samples.length === 1 ? "1 sample" : `${samples.length} samples`;
    throw new Error(`${name} holds ${count}: the lab needs ${LEAST_SECONDS} s of sound at least.`);
  }
  if (!samples.every(Number.isFinite)) {
    throw new Error(`${name} holds samples that are NaN or infinite: repair or export it anew.`);
  }
  const most = Math.ceil(MOST_SECONDS * rate);
  const notices = [];
  if (more || samples.length > most) {
    const seconds = Math.min(samples.length, most) / rate;
    notices.push(`${name} is longer: its first ${seconds.toFixed(1)} s are taken.`);
  }
  const x = await resample(samples.slice(0, most), rate);
  if (peakOf(x) === 0) {
    throw new Error(`${name} is silent: every sample is zero, so there is nothing to hear.`);
  }
  return { samples: scaledToPeak(x, 1), notices };
}
