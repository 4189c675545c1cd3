/* <sonibook-encoder>: a network as a diagram. Each block can be chosen, and tells what it computes. */

import { INPUT, Layers, UP, bytes, make, paint } from "./layers.js";

const number_ = (value) => value.toLocaleString("en", { maximumSignificantDigits: 3 });

class Encoder extends Layers {
  begin() {
    const { layers } = this.data;
    this.stack.append(make("div", "head", "Feature maps of a clip"), make("div", "head", "Block"));
    for (let number = layers.length; number >= 0; number -= 1) this.row(number);
    this.card = make("div", "facts");
    this.card.setAttribute("aria-live", "polite");
    const both = make("div", "both");
    both.append(this.stack, this.card);
    this.live.append(both, this.say);
    this.still.toggleAttribute("data-shut", true);
    this.choose(this.data.layer);
  }

  row(number) {
    const { layers, input, bins } = this.data, one = layers[number - 1];
    const [strip, canvas] = this.strip(one ? "strip" : "strip low", number, "up");
    if (!one) {
      const sound = bytes(input);
      paint(canvas, sound.length, bins, (cell) => INPUT[sound[cell]]);
      this.stack.append(strip, make("div", "mid words", "<small>the sound</small>"));
      return;
    }
    const map = bytes(one.map);
    paint(canvas, map.length, one.shown.length, (cell) => UP[map[cell]]);
    const button = make("button", "block", `<b>${number}</b><i>conv ${one.kernel}</i><i>ReLU</i>`
      + (one.pool > 1 ? `<i class="pool">pool ${one.pool}</i>` : ""));
    button.type = "button";
    button.addEventListener("click", () => this.choose(number));
    this.rows.set(number, button);
    strip.addEventListener("click", () => this.choose(number));
    this.stack.append(strip, button);
  }

  /** Tell what a block computes, and mark what the middle step of its map hears. */
  choose(number) {
    const { layers, rate } = this.data, one = layers[number - 1], ms = (samples) => number_(1000 * samples / rate);
    this.data.layer = number;
    for (const [layer, button] of this.rows) button.setAttribute("aria-pressed", String(layer === number));
    const facts = [
      ["Kernel", `${one.kernel} taps on ${number > 1 ? `${layers[number - 2].filters} channels` : "the samples"}`],
      ["Channels", `${one.filters} filters, a map each`],
      ["Pool", one.pool > 1 ? `the ${one.pool === 2 ? "larger" : "largest"} of ${one.pool} steps` : "none"],
      ["Stride", `a step every ${ms(one.stride)} ms (${one.stride} sample${one.stride > 1 ? "s" : ""})`],
      ["Receptive field", `${ms(one.field)} ms (${one.field.toLocaleString("en")} samples)`],
      ["Bandwidth of a map", `0 to ${number_(rate / one.stride / 2)} Hz, half its steps per second`],
      ["This clip gives", `${one.steps.toLocaleString("en")} steps`],
    ];
    this.card.innerHTML = `<div class="head">Block ${number}</div><dl>${facts.map(([name, fact]) => (
      `<dt>${name}</dt><dd>${fact}</dd>`)).join("")}</dl>`;
    this.mark({ number, step: Math.floor(one.steps / 2) });
  }

  mark(place) {
    const { layer, layers } = this.data;
    super.mark(place ?? { number: layer, step: Math.floor(layers[layer - 1].steps / 2) });
  }
}

if (!customElements.get("sonibook-encoder")) customElements.define("sonibook-encoder", Encoder);
