/** The worker: keeps a network's engine for each that was used, and answers one question at a time. */

import { Engine } from "./engine.js";
import { resample } from "./resample.js";
import { peakOf } from "../../src/sonibook/widgets/sound.js";
import { meanTopCoherence, scaledToPeak } from "./signal.js";

/* global self */
const engines = new Map();
let program = null;
let clip = null;

/** The engine of a network, with the clip that is heard now. */
function engineOf(name) {
  const engine = engines.get(name);
  if (engine.clip !== clip) engine.setClip(clip);
  return engine;
}

/** What the page may ask, by name; each takes and returns plain data. */
const answers = {
  /** Compile the engine. @param {{wasm: Uint8Array}} question */
  start({ wasm }) {
    program = new WebAssembly.Module(wasm);
  },

  /** Make room for a network. @param {{name: string, layers: Object[], leastLength: number}} question */
  network({ name, layers, leastLength }) {
    if (!engines.has(name)) engines.set(name, new Engine(program, layers, leastLength));
  },

  /** Take a layer's weights. @param {{name: string, layer: number, half: Uint16Array}} question */
  weights({ name, layer, half }) {
    engines.get(name).setWeights(layer, half);
  },

  /** Take the clip that all networks hear. @param {{samples: Float32Array}} question */
  clip({ samples }) {
    clip = samples;
  },

  /** How active each filter is. @param {{name: string, layer: number}} question */
  energies({ name, layer }) {
    return engineOf(name).energies(layer);
  },

  /** Sonify filters together; null for all. @param {{name: string, layer: number, filters: ?number[]}} q */
  sonify({ name, layer, filters }) {
    const sound = scaledToPeak(engineOf(name).sonify(layer, filters), peakOf(clip));
    const residual = clip.map((sample, t) => sample - sound[t]);
    return {
      sound,
      residual,
      coherence: meanTopCoherence(clip, sound),
    };
  },

  /** What a classifier goes on from: of a sound, or of the clip, whole or without some filters. */
  pooled({ name, samples, removed }) {
    if (!samples) return engineOf(name).pooled(removed);
    engines.get(name).setClip(samples);
    return engines.get(name).pooled();
  },

  /** Resample a recording. @param {{samples: Float32Array, from: number, to: number}} question */
  resample({ samples, from, to }) {
    return resample(samples, from, to);
  },
};

self.onmessage = ({ data: { id, ask, question } }) => {
  try {
    self.postMessage({ id, answer: answers[ask](question) });
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};
