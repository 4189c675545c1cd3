/** The engine's memory and the order of its steps: forward once a clip, then any way back. */

const LANES = 4;

/** @param {number} channels @returns {number} channels with the padding to whole vectors */
export function padded(channels) {
  return Math.ceil(channels / LANES) * LANES;
}

/** One network in WebAssembly, with the maps and switches of one clip. */
export class Engine {
  /**
   * @param {WebAssembly.Module} module engine.wasm
   * @param {Object[]} layers of the manifest: {channels, taps, pool} each
   * @param {number} leastLength samples that the deepest layer needs
   */
  constructor(module, layers, leastLength) {
    this.wasm = new WebAssembly.Instance(module).exports;
    this.top = this.wasm.__heap_base.value;
    this.leastLength = leastLength;
    this.clip = null;
    let deep = 1;
    this.layers = layers.map(({ channels, taps, pool }) => {
      const wide = padded(channels);
      const size = 4 * taps * padded(deep) * wide;
      const layer = {
        channels, taps, pool, inputs: deep, deep: padded(deep), wide, ready: false,
        up: this.reserve(size), down: this.reserve(size), bias: this.reserve(4 * wide),
      };
      deep = channels;
      return layer;
    });
    this.clipsBegin = this.top;
  }

  /** @param {number} bytes @returns {number} where they lie; they hold anything */
  reserve(bytes) {
    const place = Math.ceil(this.top / 16) * 16;
    this.top = place + bytes;
    const missing = this.top - this.wasm.memory.buffer.byteLength;
    if (missing > 0) this.wasm.memory.grow(Math.ceil(missing / 65536));
    return place;
  }

  /** @param {number} place @param {number} count @returns {Float32Array} a view, until memory grows */
  floats(place, count) {
    return new Float32Array(this.wasm.memory.buffer, place, count);
  }

  /**
   * Take a layer's weights.
   * @param {number} layer from 1
   * @param {Uint16Array} half float16: a bias for each filter, then weights (filter, channel, tap)
   */
  setWeights(layer, half) {
    const own = this.layers[layer - 1];
    if (half.length !== own.channels * (1 + own.inputs * own.taps)) {
      throw new Error(`The weights of layer ${layer} are damaged: build the book again.`);
    }
    // Beyond all that is in use, and free again as soon as they are arranged.
    const used = this.top;
    const source = this.reserve(half.byteLength);
    this.top = used;
    new Uint16Array(this.wasm.memory.buffer, source, half.length).set(half);
    this.wasm.widen(source, own.channels, own.bias);
    this.wasm.arrange(
      source + 2 * own.channels, own.channels, own.inputs, own.taps, own.up, own.down,
    );
    own.ready = true;
  }

  /**
   * Take a clip; what was computed of the one before is forgotten.
   * @param {Float32Array} samples padded with zeros where the network needs more
   */
  setClip(samples) {
    this.clip = samples;
    this.top = this.clipsBegin;
    this.done = 0;
    this.length = Math.max(samples.length, this.leastLength);
    this.input = this.reserve(4 * LANES * this.length);
    let steps = this.length;
    let dense = LANES * steps;
    let sparse = LANES * steps;
    for (const layer of this.layers) {
      layer.rows = steps - layer.taps + 1;
      layer.steps = Math.floor(layer.rows / layer.pool);
      dense = Math.max(dense, layer.rows * layer.wide);
      sparse = Math.max(sparse, layer.steps * layer.wide);
      layer.map = this.reserve(4 * layer.steps * layer.wide);
      layer.switches = layer.pool > 1 ? this.reserve(layer.steps * layer.wide) : 0;
      steps = layer.steps;
    }
    this.scratch = this.reserve(4 * dense);
    this.values = this.reserve(4 * (sparse + 1));
    this.indices = this.reserve(2 * (sparse + 1));
    this.starts = this.reserve(4 * (this.length + 2));
    this.kept = this.reserve(Math.max(...this.layers.map((layer) => layer.wide)));
    const input = this.floats(this.input, LANES * this.length).fill(0);
    for (let t = 0; t < samples.length; t++) input[LANES * t] = samples[t];
  }

  /**
   * Forward, as far as it has not gone yet.
   * @param {number} depth the last layer to compute
   * @param {?{layer: number, filters: number[]}} removed whose maps the next layer does not see
   */
  forward(depth, removed = null) {
    const { wasm, scratch } = this;
    for (; this.done < depth; this.done++) {
      const layer = this.layers[this.done];
      const below = this.layers[this.done - 1];
      const rows = below ? below.steps : this.length;
      const source = below ? below.map : this.input;
      const kept = removed?.layer === this.done ? this.mark(layer.deep, removed.filters, 1) : 0;
      this.gather(source, rows, layer.deep, 0, kept, below ? 1 : 0, rows);
      wasm.convolve(
        this.starts, this.indices, this.values, rows, 0, layer.taps, layer.up,
        layer.deep, layer.wide, layer.bias, layer.rows, scratch,
      );
      wasm.rectify(scratch, layer.steps, layer.wide, layer.map, layer.switches);
    }
  }

  /** Mark some channels of many, or with `others` all but them. @returns {number} where the marks lie */
  mark(count, filters, others = 0) {
    const marks = new Uint8Array(this.wasm.memory.buffer, this.kept, count).fill(others);
    for (const filter of filters) marks[filter] = 1 - others;
    return this.kept;
  }

  /** engine.c's gather, into the rows that convolve reads. */
  gather(map, steps, channels, switches, kept, rectify, rows) {
    this.wasm.gather(
      map, steps, channels, switches, kept, rectify, rows, this.starts, this.indices, this.values,
    );
  }

  /**
   * How active each filter of a layer is.
   * @param {number} layer from 1
   * @returns {Float64Array} the mean square of each map
   */
  energies(layer) {
    this.forward(layer);
    const { map, steps, wide, channels } = this.layers[layer - 1];
    this.wasm.energy(map, steps, wide, this.scratch);
    return new Float64Array(this.wasm.memory.buffer, this.scratch, channels).slice();
  }

  /**
   * The last layer's maps, averaged over time, which a classifier goes on from.
   * @param {?{layer: number, filters: number[]}} removed filters whose maps are zero on the way up
   * @returns {Float64Array}
   */
  pooled(removed = null) {
    const depth = this.layers.length;
    if (removed) {
      this.forward(removed.layer);
      this.done = removed.layer;
    }
    this.forward(depth, removed);
    const { map, steps, wide, channels } = this.layers[depth - 1];
    const values = this.floats(map, steps * wide);
    const means = new Float64Array(channels);
    for (let n = 0; n < values.length; n++) if (n % wide < channels) means[n % wide] += values[n] / steps;
    if (removed?.layer === depth) for (const filter of removed.filters) means[filter] = 0;
    else if (removed) this.done = removed.layer; // what lies above is not the clip's
    return means;
  }

  /**
   * Sonify some filters of a layer together.
   * @param {number} layer from 1
   * @param {(number[]|null)} filters from 0; null for all of the layer
   * @returns {Float32Array} as long as the clip, not rescaled
   */
  sonify(layer, filters) {
    this.forward(layer);
    const { wasm, scratch } = this;
    let kept = filters ? this.mark(this.layers[layer - 1].wide, filters) : 0;
    let source = this.layers[layer - 1].map;
    for (let index = layer - 1; index >= 0; index--) {
      const own = this.layers[index];
      this.gather(source, own.steps, own.wide, own.switches, kept, 1, own.rows);
      wasm.convolve(
        this.starts, this.indices, this.values, own.rows, 1 - own.taps, own.taps, own.down,
        own.wide, own.deep, 0, own.rows + own.taps - 1, scratch,
      );
      source = scratch;
      kept = 0;
    }
    const result = new Float32Array(this.clip.length);
    const sound = this.floats(scratch, LANES * this.length);
    for (let t = 0; t < result.length; t++) result[t] = sound[LANES * t];
    return result;
  }
}
