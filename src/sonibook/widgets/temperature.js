/* <sonibook-temperature>: who is taken for the partner at a temperature of NT-Xent, and who is pushed
   away. The cosine similarities of one batch were kept; all else is computed here as the slider moves. */

import { SOUND, make, paint } from "./layers.js";

/** Each row's softmax over its candidates, every row but itself. @returns {number[][]} */
export function probabilities(similarity, temperature) {
  return similarity.map((row, n) => {
    const peak = Math.max(...row.filter((_, m) => m !== n));
    const grown = row.map((one, m) => (m === n ? 0 : Math.exp((one - peak) / temperature)));
    const sum = grown.reduce((a, b) => a + b);
    return grown.map((one) => one / sum);
  });
}

const mean = (list) => list.reduce((a, b) => a + b) / list.length;
const percent = (share) => `${Math.round(100 * share)}%`;

class Temperature extends HTMLElement {
  connectedCallback() {
    if (this.live) return;
    const { similarity, temperature } = JSON.parse(this.querySelector("script").textContent);
    Object.assign(this, { similarity });
    this.live = make("div", "live");
    this.live.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take keys for its own
    const label = make("label", "bar", "<b>Temperature</b>");
    this.range = make("input");
    Object.assign(this.range, { type: "range", min: -2, max: 1, step: .05, value: Math.log10(temperature) });
    this.range.addEventListener("input", () => this.show());
    this.value = make("output");
    label.append(this.range, this.value);
    this.words = make("p", "say");
    this.words.setAttribute("aria-live", "polite");
    const both = make("div", "both"), left = make("figure"), right = make("figure");
    this.map = make("canvas");
    this.map.setAttribute("role", "img");
    this.map.setAttribute("aria-label", "Probabilities of all pairs of rows; the text has the numbers.");
    this.bars = make("div", "bars");
    this.bars.setAttribute("role", "img");
    this.bars.setAttribute("aria-label", "Each negative's share of the push; the text has the numbers.");
    left.append(make("figcaption", "head", "Who is taken for the partner"), this.map,
      make("small", "", "A row is a view; a column, whom it might belong to. Light is likely. "
        + `The partner is ${this.similarity.length / 2} columns away.`));
    right.append(make("figcaption", "head", "Who is pushed away"), this.bars,
      make("small", "", "Each negative's share of the push, the hardest first. A full bar would be all of it."));
    both.append(left, right);
    this.live.append(label, both, this.words);
    this.prepend(this.live);
    this.querySelector(".still").toggleAttribute("data-shut", true);
    this.show();
  }

  show() {
    const temperature = 10 ** Number(this.range.value), rows = this.similarity.length;
    const chances = probabilities(this.similarity, temperature);
    const partner = (n) => (n + rows / 2) % rows;
    const pushed = chances.map((row, n) => {
      const negatives = row.filter((_, m) => m !== n && m !== partner(n)).sort((a, b) => b - a);
      const sum = negatives.reduce((a, b) => a + b) || 1;
      return negatives.map((one) => one / sum);
    });
    const shares = pushed[0].map((_, m) => mean(pushed.map((row) => row[m])));
    const found = chances.map((row, n) => row[partner(n)]);
    const loss = -mean(found.map((one) => Math.log(Math.max(one, 1e-300))));
    const peak = Math.max(...chances.flat());
    paint(this.map, rows * rows, rows, (cell, row) => (
      SOUND[Math.round(255 * (chances[row][cell % rows] / peak) ** .6)]));
    if (!this.bars.children.length) this.bars.innerHTML = "<i></i>".repeat(shares.length);
    shares.forEach((share, m) => { this.bars.children[m].style.height = `${100 * share}%`; });
    this.value.textContent = String(Number(temperature.toPrecision(3)));
    this.range.setAttribute("aria-valuetext", this.value.textContent);
    this.words.textContent = `At temperature ${this.value.textContent} the loss is ${loss.toFixed(2)} nats. `
      + `A row gives its partner a probability of ${percent(mean(found))} on average, and the hardest of `
      + `its ${shares.length} negatives takes ${percent(shares[0])} of the push.`;
  }
}

if (!customElements.get("sonibook-temperature")) customElements.define("sonibook-temperature", Temperature);
