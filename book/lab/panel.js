/** One sound on the page: its name, its pictures, its player. */

import { drawSpectrogram, drawWaveform, timePlace, timeShare } from "./drawing.js";
import { described, wavOf } from "../../src/sonibook/widgets/sound.js";

/** All players play at this gain: a residual may reach twice the peak of its input. */
const PLAY_GAIN = 0.5;

/** @returns {HTMLElement} a new element in `parent` */
function add(parent, tag, properties = {}) {
  return parent.appendChild(Object.assign(document.createElement(tag), properties));
}

/** A figure with waveform, spectrogram and player. */
export class Panel {
  /**
   * @param {Element} parent
   * @param {string} title
   * @param {string} ink the CSS variable that its waveform is drawn in
   */
  constructor(parent, title, ink) {
    this.title = title;
    this.ink = ink;
    const figure = add(parent, "figure", { className: "lab-panel" });
    const caption = add(figure, "figcaption", { textContent: title });
    caption.style.setProperty("--lab-ink", `var(${ink})`);
    const view = add(figure, "div", { className: "lab-view" });
    this.wave = add(view, "canvas", { className: "lab-wave" });
    this.picture = add(view, "canvas", { className: "lab-spectrogram" });
    this.wave.setAttribute("aria-hidden", "true");
    this.picture.setAttribute("role", "img");
    this.head = add(view, "div", { className: "lab-head", hidden: true });
    this.player = add(figure, "audio", { controls: true });
    this.player.setAttribute("aria-label", title);
    this.player.addEventListener("play", () => this.follow());
    this.player.addEventListener("seeked", () => this.follow());
    view.addEventListener("click", (event) => {
      const left = event.clientX - this.picture.getBoundingClientRect().left;
      this.player.currentTime = timeShare(this.picture, left) * (this.player.duration || 0);
    });
  }

  /** Show where the player stands, for as long as it plays. */
  follow() {
    const { currentTime, duration, paused } = this.player;
    this.head.hidden = !(duration > 0);
    this.head.style.left = timePlace(currentTime / duration);
    cancelAnimationFrame(this.frame);
    if (!paused) this.frame = requestAnimationFrame(() => this.follow());
  }

  /**
   * Show a sound; one that is being played goes on where it was.
   * @param {Float32Array} x
   * @param {Float32Array} power of powerSpectrogram
   * @param {{reference: number, peak: number, rate: number}} scales that the panels share
   */
  show(x, power, scales) {
    const before = this.shown;
    this.shown = { x, power, scales };
    if (x !== before?.x) {
      const { currentTime, paused } = this.player;
      const address = URL.createObjectURL(wavOf(x, { rate: scales.rate, gain: PLAY_GAIN }));
      if (this.player.src) URL.revokeObjectURL(this.player.src);
      this.player.src = address;
      this.player.currentTime = Math.min(currentTime, x.length / scales.rate);
      if (!paused) this.play();
      this.head.hidden = true;
      this.picture.setAttribute(
        "aria-label", `Log spectrogram of ${this.title}: ${described(power, scales.rate)}.`,
      );
      this.drawPicture();
    }
    if (x !== before?.x || scales.peak !== before?.scales.peak) this.drawWave();
  }

  /** Draw again what is shown, as after a change of size or colours. */
  draw() {
    this.drawWave();
    this.drawPicture();
  }

  drawWave() {
    drawWaveform(this.wave, this.shown.x, { peak: this.shown.scales.peak, ink: this.ink });
  }

  drawPicture() {
    drawSpectrogram(this.picture, this.shown.power, this.shown.scales);
  }

  /** Play; a new sound or a pause that comes between is no error. */
  play() {
    this.player.play().catch(() => {});
  }
}
