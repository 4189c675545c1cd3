/* <sonibook-walks>: coherence at one frequency as a walk, a step for each piece of a pair of sounds. */

import { make } from "./layers.js";

const INKS = ["#56b4e9", "#f08a24", "#2fbf8f", "#e6c229", "#e08fc0", "#b9c6d0"];

class Walks extends HTMLElement {
  connectedCallback() {
    if (this.live) return;
    this.walks = JSON.parse(this.querySelector("script").textContent).walks;
    this.quiet = matchMedia("(prefers-reduced-motion: reduce)");
    this.last = Math.max(...this.walks.map(({ x }) => x.length)) - 1;
    this.live = make("div", "live");
    this.live.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take keys for its own
    this.panels = make("div", "panels");
    for (const { name } of this.walks) {
      const figure = make("figure"), canvas = make("canvas");
      canvas.setAttribute("role", "img");
      figure.append(canvas, make("figcaption"));
      figure.lastChild.dataset.name = name;
      this.panels.append(figure);
    }
    const bar = make("div", "bar");
    this.button = make("button");
    this.button.type = "button";
    this.button.addEventListener("click", () => this.play(!this.running));
    this.range = make("input");
    Object.assign(this.range, { type: "range", min: 0, max: this.last, step: 1, value: this.last });
    this.range.setAttribute("aria-label", "Pieces of the sounds");
    this.range.addEventListener("input", () => { this.play(false); this.show(); });
    this.count = make("output");
    bar.append(this.button, this.range, this.count);
    this.live.append(this.panels, bar);
    this.prepend(this.live);
    this.querySelector(".still").toggleAttribute("data-shut", true);
    this.play(false);
    new ResizeObserver(() => this.show()).observe(this.panels);
  }

  play(yes) {
    this.running = yes;
    this.button.textContent = yes ? "‖ Pause" : "▶ Walk";
    cancelAnimationFrame(this.frame);
    if (!yes) return;
    if (Number(this.range.value) === this.last) this.range.value = 0;
    let before = 0;
    const tick = (now) => {
      if (now - before > (this.quiet.matches ? 500 : 60)) {
        before = now;
        this.range.value = Number(this.range.value) + 1;
        this.show();
      }
      if (Number(this.range.value) >= this.last) this.play(false);
      else this.frame = requestAnimationFrame(tick);
    };
    this.frame = requestAnimationFrame(tick);
  }

  show() {
    const upTo = Number(this.range.value);
    this.count.textContent = `${upTo} of ${this.last} pieces`;
    this.range.setAttribute("aria-valuetext", this.count.textContent);
    this.walks.forEach(({ name, x, y }, number) => {
      const figure = this.panels.children[number], canvas = figure.firstChild, scale = devicePixelRatio || 1;
      const size = canvas.clientWidth, end = Math.min(upTo, x.length - 1);
      const far = Math.hypot(x[end], y[end]);
      const words = end === x.length - 1 ? `coherence ${(far ** 2).toFixed(2)}` : `${far.toFixed(2)} from its start`;
      figure.lastChild.textContent = `${name}: ${words}`;
      canvas.setAttribute("aria-label", `${name}: a walk that ${end} steps took ${far.toFixed(2)} from its start.`);
      if (!size) return;
      Object.assign(canvas, { width: size * scale, height: size * scale });
      const draw = canvas.getContext("2d");
      draw.scale(scale, scale);
      const at = (n) => [size * (.5 + .44 * x[n]), size * (.5 - .44 * y[n])];
      const ring = (radius, colour, filled) => {
        draw.beginPath();
        draw.arc(...(filled ?? at(0)), radius, 0, 7);
        draw[filled ? "fillStyle" : "strokeStyle"] = colour;
        if (filled) draw.fill(); else draw.stroke();
      };
      ring(size * .44, "#5b6b78");
      draw.strokeStyle = INKS[number % INKS.length];
      draw.lineWidth = 1.6;
      draw.beginPath();
      draw.moveTo(...at(0));
      for (let n = 1; n <= end; n += 1) draw.lineTo(...at(n));
      draw.stroke();
      draw.setLineDash([3, 4]);
      draw.strokeStyle = "#fff9";
      draw.beginPath();
      draw.moveTo(...at(0));
      draw.lineTo(...at(end));
      draw.stroke();
      ring(3.5, "#fff", at(0));
      ring(4.5, INKS[number % INKS.length], at(end));
    });
  }
}

if (!customElements.get("sonibook-walks")) customElements.define("sonibook-walks", Walks);
