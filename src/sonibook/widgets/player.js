/** <sonibook-player>: sounds to see and to hear, as tracks at one place. See sonibook.widgets.players. */

import {
  WAVE, add, inSeconds, levelAt, levelWords, paintSpectrogram, paintWave, tickSeconds,
} from "./pictures.js";
import { described, peakOf } from "./sound.js";
import { FADE, Track, audio, setGain, shared } from "./tracks.js";

/* global STYLE -- player.css, which players.py puts here */

/** The first track is an input, the others were made of it; both are seen on white and on black. */
const INKS = ["#2b8cc4", "#d55e00"];
const STILL = window.matchMedia("(prefers-reduced-motion: reduce)");

class Player extends HTMLElement {
  #tracks = [];
  #number = 0;
  #place = 0;
  #loop = false;
  #turn = 0;
  #sounding = null;
  #near = false;
  #parts = null;

  connectedCallback() {
    shared.all.add(this);
    this.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take keys for its own
    if (!this.#parts) this.#build();
    this.#watch.observe(this);
    // A parser may not have come to what is inside yet.
    const begin = () => {
      if (!this.#tracks.length && this.querySelector("audio")) this.tracks = this.querySelectorAll("figure");
    };
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin, { once: true });
    else queueMicrotask(begin);
  }

  disconnectedCallback() {
    this.pause();
    this.#watch.disconnect();
    shared.all.delete(this);
  }

  get label() { return this.getAttribute("label") ?? ""; }
  set label(text) {
    this.setAttribute("label", text);
    if (this.#parts) this.#show();
  }

  get rate() { return Number(this.getAttribute("rate")) || 8000; }
  set rate(hertz) { this.setAttribute("rate", hertz); }

  get tracks() { return this.#tracks; }
  /** Other sounds: what plays goes on in the one of the same number, at the same place. */
  set tracks(list) {
    const rate = Math.max(this.rate, 8000); // browsers decode to no lower one
    this.#tracks = Array.from(list, (one, n) => {
      const given = one instanceof Element
        ? { name: one.querySelector("figcaption").textContent, sound: one.querySelector("audio").src }
        : one;
      const old = this.#tracks[n];
      return old?.sound === given.sound ? Object.assign(old, given) : new Track(given, rate);
    });
    this.#number = Math.min(this.#number, Math.max(this.#tracks.length - 1, 0));
    if (!this.#parts) this.#build();
    this.#show();
    if (this.#near) this.#draw();
    if (!this.paused) this.play();
  }

  get track() { return this.#number; }
  set track(number) {
    if (!this.#tracks[number] || number === this.#number) return;
    const place = this.currentTime;
    this.#number = number;
    if (this.paused) this.#place = place;
    else this.play();
    this.#show();
    this.dispatchEvent(new Event("track"));
  }

  get paused() { return shared.playing !== this; }
  get duration() { return this.#tracks[this.#number]?.duration ?? 0; }
  get loop() { return this.#loop; }
  set loop(on) {
    this.currentTime = this.currentTime; // counts from here, not from rounds ago
    this.#loop = Boolean(on);
    if (this.#sounding) this.#sounding.source.loop = this.#loop;
    this.#show();
  }

  get currentTime() {
    if (!this.#sounding) return this.#place;
    const { since, buffer } = this.#sounding;
    const time = Math.max(shared.context.currentTime - since, 0);
    return this.#loop ? time % buffer.duration : Math.min(time, buffer.duration);
  }
  set currentTime(seconds) {
    this.#place = Math.min(Math.max(seconds, 0), this.duration || seconds);
    if (this.#sounding) this.#start(this.#sounding.buffer, this.#place);
    this.#tick();
  }

  /** Play from where it stands; what else plays on the page stops. */
  async play() {
    const turn = ++this.#turn;
    for (const other of document.querySelectorAll("audio")) other.pause();
    if (shared.playing !== this) shared.playing?.pause();
    const begins = this.paused;
    shared.playing = shared.last = this;
    if (begins) this.dispatchEvent(new Event("play"));
    this.#show();
    try {
      const track = this.#tracks[this.#number];
      audio();
      const buffer = await track.buffer();
      track.duration ??= buffer.duration;
      if (turn !== this.#turn) return;
      const place = this.currentTime;
      this.#start(buffer, place < buffer.duration - 0.01 ? place : 0);
      this.#tick();
    } catch (error) {
      if (turn !== this.#turn) return;
      this.pause();
      this.#tell(this.#number, error);
    }
  }

  pause() {
    this.#turn++;
    this.#place = this.currentTime;
    this.#stop();
    if (this.paused) return;
    shared.playing = null;
    this.#show();
    this.dispatchEvent(new Event("pause"));
  }

  #start(buffer, from) {
    this.#stop();
    const { context, output } = shared;
    const source = new AudioBufferSourceNode(context, { buffer, loop: this.#loop });
    const fade = new GainNode(context, { gain: from > 0 ? 0 : 1 });
    if (from > 0) fade.gain.linearRampToValueAtTime(1, context.currentTime + FADE);
    source.connect(fade).connect(output);
    source.onended = () => {
      if (this.#sounding?.source !== source) return;
      this.pause();
      this.currentTime = 0;
    };
    source.start(0, from);
    this.#sounding = { source, fade, buffer, since: context.currentTime - from };
  }

  #stop() {
    if (!this.#sounding) return;
    const { source, fade } = this.#sounding;
    const now = shared.context.currentTime;
    this.#sounding = null;
    fade.gain.setTargetAtTime(0, now, FADE / 3);
    source.stop(now + 2 * FADE);
  }

  /** Follow the sound for as long as it plays. */
  #tick() {
    cancelAnimationFrame(this.frame);
    const time = this.currentTime;
    const now = performance.now();
    // With less motion the playhead steps, four times a second.
    if (!STILL.matches || !this.#sounding || !(now - this.told < 250)) {
      this.told = now;
      const { seek, clock, panels, level } = this.#parts;
      seek.value = time;
      const words = `${this.duration < 1 ? time.toFixed(2) : time.toFixed(1)} of ${inSeconds(this.duration)} s`;
      clock.textContent = words;
      seek.setAttribute("aria-valuetext", words);
      panels.forEach(({ figure, head }, n) => {
        head.hidden = time === 0 && this.paused;
        figure.style.setProperty("--at", Math.min(time / (this.#tracks[n]?.duration || 1), 1));
      });
      if (!STILL.matches) {
        const loud = this.#sounding ? levelAt(this.#sounding.buffer, time) : -Infinity;
        level.style.transform = `scaleX(${Math.max(1 + loud / 60, 0)})`;
      }
      if (this.#sounding) this.dispatchEvent(new Event("timeupdate"));
    }
    if (this.#sounding) this.frame = requestAnimationFrame(() => this.#tick());
  }

  // What is seen.

  #watch = new IntersectionObserver((entries) => {
    if (this.#near || !entries.some((entry) => entry.isIntersecting)) return;
    this.#near = true;
    this.#draw();
  }, { rootMargin: "800px" });

  #build() {
    const root = this.attachShadow({ mode: "open" });
    root.append(Object.assign(document.createElement("style"), { textContent: STYLE }));
    const group = add(root, "div", {}, { role: "group" });
    const title = add(group, "p");
    const bar = add(group, "div", { className: "bar" });
    const play = add(bar, "button", { type: "button", className: "play" });
    play.onclick = () => this.#toggle();
    const seek = add(bar, "input", { type: "range", className: "seek", min: 0 }, { "aria-label": "Position" });
    seek.oninput = () => { this.currentTime = Number(seek.value); };
    const clock = add(bar, "span", { className: "clock" });
    const loop = add(bar, "button", { type: "button", className: "loop", textContent: "Loop" });
    loop.onclick = () => { this.loop = !this.loop; };
    const label = add(bar, "label", { className: "gain", textContent: "Gain" });
    const gain = add(label, "input", { type: "range", min: -40, max: 0, step: 1 });
    gain.oninput = () => setGain(Number(gain.value));
    const levels = add(bar, "span", { className: "level" });
    const level = add(add(levels, "span", { className: "meter" }, { "aria-hidden": "true" }), "i");
    const loudness = add(levels, "span");
    const tracks = add(group, "div", { className: "tracks" });
    this.#parts = { group, title, play, seek, clock, loop, gain, level, loudness, tracks, panels: [] };
    this.addEventListener("keydown", (event) => this.#key(event));
    this.showGain();
  }

  #panel(number) {
    const figure = add(this.#parts.tracks, "figure");
    figure.style.setProperty("--ink", INKS[Math.min(number, 1)]);
    const caption = add(figure, "figcaption");
    const button = add(caption, "button", { type: "button" });
    button.onclick = () => this.#toggle(number);
    const length = add(caption, "span");
    const axes = add(figure, "div", { className: "axes", hidden: this.hasAttribute("compact") });
    const hertz = add(axes, "div", { className: "hertz" }, { "aria-hidden": "true" });
    const plot = add(axes, "div", { className: "plot" });
    const spectrogram = add(plot, "canvas", { className: "spectrogram" }, { role: "img" });
    const wave = add(plot, "canvas", { className: "wave", width: WAVE[0], height: WAVE[1] }, { "aria-hidden": "true" });
    const head = add(plot, "div", { className: "head" });
    const seconds = add(axes, "div", { className: "seconds" }, { "aria-hidden": "true" });
    const go = (event) => {
      const { left, width } = plot.getBoundingClientRect();
      this.track = number;
      this.currentTime = Math.min(Math.max((event.clientX - left) / width, 0), 1) * this.duration;
    };
    plot.onpointerdown = (event) => {
      if (event.button) return;
      shared.last = this;
      plot.setPointerCapture(event.pointerId);
      go(event);
    };
    plot.onpointermove = (event) => {
      if (plot.hasPointerCapture(event.pointerId)) go(event);
    };
    return { figure, button, length, hertz, head, spectrogram, wave, seconds };
  }

  /** Play or pause; with a number, that track. */
  #toggle(number = this.#number) {
    if (!this.paused && number === this.#number) this.pause();
    else {
      this.track = number;
      if (this.paused) this.play();
    }
  }

  #key(event) {
    const target = event.composedPath()[0];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    shared.last = this;
    if (/^[1-9]$/.test(event.key)) this.track = Number(event.key) - 1;
    else if (event.key === " " && target.tagName !== "BUTTON") this.#toggle();
    else if (event.key === "l") this.loop = !this.loop;
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Names, buttons and lengths as they are now. */
  #show() {
    const { group, title, play, seek, loop, loudness, tracks, panels } = this.#parts;
    const names = this.#tracks.map(({ name }) => name);
    group.setAttribute("aria-label", this.label || names.join(", "));
    title.textContent = this.label;
    title.hidden = !this.label || (names.length === 1 && names[0] === this.label);
    play.textContent = this.paused ? "▶ Play" : "‖ Pause";
    loop.setAttribute("aria-pressed", this.#loop);
    seek.max = this.duration;
    seek.step = Math.min(0.05, this.duration / 20) || 0.05;
    const most = Number(this.getAttribute("columns")) || 3;
    tracks.style.setProperty("--columns", Math.min(names.length || 1, most));
    while (panels.length > names.length) panels.pop().figure.remove();
    names.forEach((name, n) => {
      panels[n] ??= this.#panel(n);
      const { figure, button, length, spectrogram } = panels[n];
      spectrogram.ariaLabel ??= `Log spectrogram of ${name}`; // until it is drawn, and measured
      const { duration } = this.#tracks[n];
      figure.classList.toggle("here", n === this.#number);
      button.textContent = "";
      if (names.length > 1 && n < 9) {
        add(button, "kbd", { textContent: n + 1 });
        button.append(" ");
      }
      button.append(name);
      button.setAttribute("aria-pressed", !this.paused && n === this.#number);
      length.textContent = duration < 1 ? `${inSeconds(duration)}\u00a0s` : "";
    });
    loudness.textContent = this.#tracks[this.#number]?.level ?? "";
    this.#tick();
  }

  showGain() {
    this.#parts.gain.value = shared.gain;
    this.#parts.gain.setAttribute("aria-valuetext", `${shared.gain} dB`);
  }

  /** A sound that cannot be had is told where it would be. */
  #tell(number, error) {
    this.#parts.panels[number].length.textContent = `This sound could not be loaded: ${error.message}`;
  }

  /** Draw every track at one scale: 0 dB is the loudest point of all, or of the first. */
  async #draw() {
    const tracks = this.#tracks;
    const rate = Math.max(this.rate, 8000);
    const loaded = await Promise.allSettled(tracks.map((track) => track.samples()));
    if (tracks !== this.#tracks) return; // others have come
    const sounds = loaded.map(({ value }) => value);
    const had = tracks.filter((_, n) => sounds[n]);
    const peak = Math.max(...had.map((track) => track.peak)) || 1;
    const scale = this.getAttribute("reference") === "first" ? had.slice(0, 1) : had;
    const reference = Math.max(...scale.map((track) => peakOf(track.power))) || 1;
    sounds.forEach((x, n) => {
      const { figure, hertz, spectrogram, wave, seconds } = this.#parts.panels[n];
      const track = tracks[n];
      figure.classList.toggle("drawn", Boolean(x));
      if (!x) return;
      track.level = levelWords(x);
      paintSpectrogram(spectrogram, track.power, reference);
      paintWave(wave, x, peak, INKS[Math.min(n, 1)]);
      const words = track.about || described(track.power, rate);
      spectrogram.setAttribute("aria-label", `Log spectrogram of ${track.name}, 0 to ${rate / 2000} kHz: ${words}.`);
      hertz.replaceChildren();
      const [top, middle] = [rate / 2000, rate / 4000].map((kilohertz) => Number(kilohertz.toPrecision(3)));
      for (const text of [`${top} kHz`, `${middle}`, "0"]) add(hertz, "span", { textContent: text });
      tickSeconds(seconds, track.duration);
    });
    this.#show();
    loaded.forEach(({ reason }, n) => reason && this.#tell(n, reason));
  }
}

/** Once a page, however often its script stands there. */
function define() {
  if (customElements.get("sonibook-player")) return;
  try {
    shared.gain = Number(sessionStorage.getItem("sonibook-gain")) || 0;
  } catch { /* A page may have nothing to keep it in. */ }
  customElements.define("sonibook-player", Player);
  document.addEventListener("play", ({ target }) => {
    if (!(target instanceof HTMLMediaElement)) return;
    shared.playing?.pause();
    for (const other of document.querySelectorAll("audio")) if (other !== target) other.pause();
  }, true);
  // Digits, while nothing is focused, are for whom the reader used last.
  document.addEventListener("keydown", (event) => {
    const player = shared.last?.isConnected ? shared.last : null;
    if (event.target !== document.body || !player || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^[1-9]$/.test(event.key)) player.track = Number(event.key) - 1;
  });
}

define();
