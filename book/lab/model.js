/** What the page knows: networks and clips by name, and the worker that computes. */

import { fromBase64, load, loadBytes } from "./pieces.js";
import { decode } from "./recordings.js";
import { probabilities, scaledToPeak } from "./signal.js";
import { peakOf } from "../../src/sonibook/widgets/sound.js";

/* global ENGINE, WORKER -- the engine as base64 and the worker's source: see tools/lab.py */

/** The name of a clip that the reader brought. */
export const OWN = "own";

/** A worker, and what it was given. */
class Hand {
  /** @param {string} source the address of the worker's script */
  constructor(source) {
    this.pending = new Map();
    this.questions = 0;
    this.given = new Map();
    this.samples = null;
    this.worker = new Worker(source);
    this.worker.onmessage = ({ data: { id, answer, error } }) => {
      const { resolve, reject } = this.pending.get(id);
      this.pending.delete(id);
      if (error) reject(new Error(error));
      else resolve(answer);
    };
  }

  /** @param {string} ask @param {Object} question @returns {Promise} the worker's answer */
  ask(ask, question) {
    return new Promise((resolve, reject) => {
      const id = this.questions++;
      this.pending.set(id, { resolve, reject });
      this.worker.postMessage({ id, ask, question });
    });
  }

  /** Give what `get` gives, once; what fails is tried again. @returns {Promise} */
  give(key, get) {
    if (!this.given.has(key)) {
      const done = get();
      done.catch(() => this.given.delete(key));
      this.given.set(key, done);
    }
    return this.given.get(key);
  }

  /** Take the clip that all networks hear. @param {Float32Array} samples */
  async hear(samples) {
    if (this.samples === samples) return;
    this.samples = samples; // at once: questions are answered in order
    await this.ask("clip", { samples });
  }
}

/** The networks, the clips, and answers about them. */
export class Model {
  /** @param {string} base the address of the folder that holds the pieces, with its slash */
  constructor(base) {
    this.base = base;
    this.clips = new Map();
    this.pieces = new Map();
  }

  /** Start the worker and read the manifest. @throws {Error} if this browser cannot run the engine */
  async start() {
    const wasm = fromBase64(ENGINE);
    if (typeof WebAssembly !== "object" || !WebAssembly.validate(wasm)) {
      throw new Error(
        "This browser cannot run the network, because it lacks WebAssembly SIMD: use a newer one "
        + "(Chrome and Firefox have it since 2021, Safari since 2023).",
      );
    }
    const source = URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" }));
    // Sounds are made by one, and classes by another: no sound waits for a class.
    this.maker = new Hand(source);
    this.judge = new Hand(source);
    const begun = [this.maker, this.judge].map((hand) => hand.ask("start", { wasm }));
    const [manifest] = await Promise.all([load(this.base, "manifest"), ...begun]);
    URL.revokeObjectURL(source);
    this.rate = manifest.sampleRate;
    this.networks = new Map(manifest.networks.map((entry) => [entry.name, entry]));
    this.shipped = new Map(manifest.clips.map((entry) => [entry.name, entry]));
  }

  /** The bytes of a piece, loaded once. @returns {Promise<ArrayBuffer>} */
  bytes(entry) {
    if (!this.pieces.has(entry.piece)) {
      const loading = loadBytes(this.base, entry);
      loading.catch(() => this.pieces.delete(entry.piece)); // to be tried again
      this.pieces.set(entry.piece, loading);
    }
    return this.pieces.get(entry.piece);
  }

  /**
   * Keep a sound that the reader brought.
   * @param {string} title @param {Float32Array} samples with unit peak @param {string[]} notices
   */
  addOwn(title, samples, notices) {
    this.clips.set(OWN, { title, samples, notices });
  }

  /**
   * Fetch a clip of an atlas beside the lab.
   * @param {string} name as links call it @param {{folder: string, number: string}} place
   * @returns {Promise<string>} its title
   */
  async adopt(name, { folder, number }) {
    if (!this.clips.has(name)) {
      const piece = await load(`${this.base}../${folder}/`, `clips/${number}`);
      const { samples } = await decode(new File([fromBase64(piece.flac)], `${number}.flac`));
      const title = `${piece.classes.join(", ") || piece.id} (atlas: ${piece.id})`;
      const notices = piece.credit ? [`${piece.credit}.`] : [];
      if (piece.start) notices.push(`Of the clip, a stretch from ${(piece.start / this.rate).toFixed(2)} s on is here.`);
      this.clips.set(name, { title, samples: scaledToPeak(samples, 1), notices });
      this.shipped.set(name, { name, title });
    }
    return this.clips.get(name).title;
  }

  /**
   * A filter's top clips, where the atlas beside the lab has the network.
   * @param {string} folder of the atlas @returns {Promise<Object[]>} {name, title} each, for links
   */
  async topClips(folder, network, layer, filter) {
    const base = `${this.base}../${folder}/`;
    this.atlas ??= load(base, "manifest");
    const { networks, clips } = await this.atlas;
    const known = networks.find(({ lab }) => lab === network);
    if (!known?.layers[layer - 1]) return [];
    const table = `${known.folder}/${String(layer).padStart(2, "0")}`;
    if (!this.pieces.has(table)) this.pieces.set(table, load(base, table));
    const tops = (await this.pieces.get(table))[filter]?.at(-1) ?? []; // a row ends in them
    return tops.map(([clip]) => ({
      name: `${folder}/${clip}`, title: clips[clip].classes.join(", ") || clips[clip].id,
    }));
  }

  /** A clip by name. @param {string} name @returns {Promise<Object>} {title, samples, notices} */
  async clip(name) {
    if (!this.clips.has(name)) {
      const entry = this.shipped.get(name);
      const whole = new Int16Array(await loadBytes(this.base, entry));
      const peak = peakOf(whole);
      const samples = Float32Array.from(whole, (sample) => sample / peak);
      const notices = entry.credit ? [`Recording: ${entry.credit}.`] : [];
      this.clips.set(name, { title: entry.title, samples, notices });
    }
    return this.clips.get(name);
  }

  /** See that a worker has a network's weights up to a layer. */
  async prepare(hand, name, layer) {
    const { layers, leastLength } = this.networks.get(name);
    const shapes = layers.map(({ channels, taps, pool }) => ({ channels, taps, pool }));
    await hand.give(name, () => hand.ask("network", { name, layers: shapes, leastLength }));
    await Promise.all(layers.slice(0, layer).map((entry, index) => hand.give(entry.piece, async () => {
      const half = new Uint16Array(await this.bytes(entry));
      return hand.ask("weights", { name, layer: index + 1, half });
    })));
  }

  /**
   * The filters of a layer that respond to a clip, most energy first.
   * @param {string} network @param {string} clip @param {number} layer from 1
   * @returns {Promise<Object[]>} {filter, share} each; share of the layer's energy, from 0 to 1
   */
  async ranking(network, clip, layer) {
    const [{ samples }] = await Promise.all([
      this.clip(clip), this.prepare(this.maker, network, layer),
    ]);
    await this.maker.hear(samples);
    const energies = await this.maker.ask("energies", { name: network, layer });
    const total = energies.reduce((sum, energy) => sum + energy, 0);
    return [...energies]
      .map((energy, filter) => ({ filter, share: energy / total }))
      .filter(({ share }) => share > 0)
      .sort((a, b) => b.share - a.share);
  }

  /**
   * Sonify filters of the clip that was ranked last.
   * @returns {Promise<Object>} {sound, residual, coherence}
   */
  sonify(network, layer, filters) {
    return this.maker.ask("sonify", { name: network, layer, filters });
  }

  /**
   * What a network that has classes says of a clip, or of a sound that was made of it.
   * @param {string} name of the network @param {Float32Array} clip
   * @param {{samples: ?Float32Array, removed: ?Object}} what `removed` as the engine takes it
   * @returns {Promise<number[]>} a probability for each class
   */
  async classify(name, clip, what) {
    const { head, layers } = this.networks.get(name);
    const [bytes] = await Promise.all([this.bytes(head), this.prepare(this.judge, name, layers.length)]);
    await this.judge.hear(clip);
    const pooled = await this.judge.ask("pooled", { name, ...what });
    return probabilities(pooled, { ...head, values: new Float32Array(bytes) });
  }

  /** Resample a recording to the networks' rate. */
  resample(samples, from) {
    return this.maker.ask("resample", { samples, from, to: this.rate });
  }
}
