/** The page's elements, and what they show. */

import { drawBars } from "./drawing.js";

/** How many filters have a button of their own. */
const BUTTONS = 6;
/** So many chosen filters are named one by one. */
const NAMED = 12;
/** All sounds are played at this gain: a residual may reach twice the peak of its input. */
const PLAY_GAIN = 0.5;

/** @param {string} name @returns {HTMLElement} the element of the lab with that name */
export function part(name) {
  return document.getElementById(`lab-${name}`);
}

/** Set an element's text. @param {string} name of the element @param {...string} sentences */
export function say(name, ...sentences) {
  part(name).textContent = sentences.filter(Boolean).join(" ");
}

/** @param {number} share from 0 to 1 @returns {string} */
export function percent(share) {
  const value = 100 * share;
  const digits = value < 0.1 && value > 0 ? "< 0.1" : value.toFixed(value < 9.95 ? 1 : 0);
  return `${digits}\u00a0%`; // a number and its sign stay on one line
}

/** Shows what is heard, and where the controls stand. */
export class View {
  constructor() {
    this.player = null;
    const again = () => this.heard && this.bars();
    new ResizeObserver(again).observe(part("bars"));
    new MutationObserver(again).observe(
      document.documentElement, { attributeFilter: ["data-theme"] },
    );
  }

  /** Fill the choosers. @param {Object} model */
  offer(model) {
    for (const { name, title } of model.networks.values()) {
      part("network").append(new Option(title, name));
      part("beside").append(new Option(title, name));
    }
    for (const { name, title } of model.shipped.values()) part("clip").append(new Option(title, name));
  }

  /** Offer the reader's own clip. */
  offerOwn(name, title) {
    const known = [...part("clip").options].find((option) => option.value === name);
    if (known) known.text = title;
    else part("clip").append(new Option(title, name));
  }

  /**
   * Show what is heard.
   * @param {Object} heard {state, network, clip, ranking, filters, notices, rate, …} of the page
   */
  show(heard) {
    const first = !this.player;
    if (first) {
      this.player = document.createElement("sonibook-player");
      this.player.setAttribute("reference", "first"); // one filter is compared with the next
      part("player").append(this.player);
      for (const event of ["play", "pause", "track"]) this.player.addEventListener(event, () => this.says());
    }
    const before = this.heard;
    this.heard = heard;
    this.controls(heard);
    const { other, network } = heard;
    const sounds = [
      ["Input", heard.input],
      [other ? network.title : "Sonification", heard.sound],
      ...(other ? [[other.network.title, other.sound]] : []),
      ["Input − sonification", heard.residual],
    ];
    const kept = before?.input === heard.input && this.player.tracks[0].sound;
    this.player.setAttribute("columns", sounds.length);
    this.player.tracks = sounds.map(([name, x], n) => ({
      name,
      sound: (n === 0 && kept) || x.map((sample) => sample * PLAY_GAIN),
    }));
    this.says();
    say("coherence", Number.isNaN(heard.coherence) ? "none, for one of the two is silent"
      : heard.coherence.toFixed(2));
    say("notice", ...heard.notices);
    if (!first) say("status", `${this.words(heard)}: coherence ${part("coherence").textContent}.`);
  }

  /** Set the controls to a state. */
  controls({ state, network, ranking, other }) {
    const { layer, filter, way, chosen } = state;
    const geometry = network.layers[layer - 1];
    part("network").value = state.network;
    part("beside").value = state.beside;
    part("clip").value = state.clip;
    part("layer").max = network.layers.length;
    part("layer").value = layer;
    const field = (geometry.receptiveField / 8).toPrecision(3);
    say("layer-text", `Layer ${layer}: ${geometry.channels} filters, each hears ${Number(field)} ms`);
    say("facts", ...network.facts.map((fact) => fact.replaceAll(" %", "\u00a0%")));
    const rank = ranking.findIndex((entry) => entry.filter === filter) + 1;
    part("filter").max = Math.max(ranking.length, 1);
    part("filter").value = Math.max(rank, 1);
    part("filter").disabled = ranking.length === 0;
    const twin = other && state.way === "one" ? `; beside it filter ${other.filter}, of the same rank` : "";
    const text = rank
      ? `Filter ${filter}: rank ${rank} of ${ranking.length}, ${percent(ranking[rank - 1].share)} of the energy${twin}`
      : "No filter of this layer responds to the clip";
    say("filter-text", text);
    part("filter").setAttribute("aria-valuetext", text);
    for (const radio of document.getElementsByName("lab-way")) radio.checked = radio.value === way;
    const several = way === "only" || way === "without";
    part("chooser").hidden = !several;
    say("toggle", `${chosen.has(filter) ? "Take out" : "Add"} filter ${filter}`);
    say("chosen", `Chosen: ${named(chosen)}`);
    this.top(ranking, several ? (one) => chosen.has(one) : (one) => way === "one" && one === filter);
    this.bars();
  }

  /** A button for each of the filters with the most energy. */
  top(ranking, isPressed) {
    const buttons = ranking.slice(0, BUTTONS).map(({ filter, share }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.filter = filter;
      button.setAttribute("aria-pressed", isPressed(filter));
      button.append(`${filter} `, Object.assign(document.createElement("small"), {
        textContent: percent(share),
      }));
      button.setAttribute("aria-label", `Filter ${filter}, ${percent(share)} of the energy`);
      return button;
    });
    const focused = document.activeElement?.dataset?.filter;
    part("top").replaceChildren(...buttons);
    buttons.find((button) => button.dataset.filter === focused)?.focus();
  }

  /** The strip of energies. */
  bars() {
    const { state: { filter, way, chosen }, ranking } = this.heard;
    part("bars").setAttribute(
      "aria-label",
      `Energy of the ${ranking.length} filters that respond, most first; the slider below goes through them.`,
    );
    drawBars(part("bars"), ranking, (one) => {
      if (way === "layer" || (way !== "one" && chosen.has(one))) return "--lab-picked";
      return one === filter && way === "one" ? "--lab-here" : "--lab-bar";
    });
  }

  /** What is heard, in words. */
  words({ state: { layer, filter, way, chosen } }) {
    return `Layer ${layer}, ${{
      one: `filter ${filter}`,
      only: `only the filters ${named(chosen)}`,
      without: `all filters but ${named(chosen)}`,
      layer: "all filters",
    }[way]}`;
  }

  /** Go on with the other of input and sonification, or of two networks, at the same place (A/B). */
  swap() {
    const { player } = this;
    const [a, b] = this.heard.other ? [1, 2] : [0, 1];
    if (!player.paused || player.track > b) player.track = player.track === a ? b : a;
    if (player.paused) player.play();
    say("status", `Playing: ${player.tracks[player.track].name}.`);
  }

  /** A button for each top clip that the atlas has of the filter. @param {Object[]} clips {name, title} */
  offerTop(clips) {
    part("clips").hidden = !clips.length;
    part("clips").replaceChildren("Its top clips in the atlas:", ...clips.map(({ name, title }) => (
      Object.assign(document.createElement("button"), { type: "button", value: name, textContent: title })
    )));
  }

  /** What plays, on the button that swaps it. */
  says() {
    const { paused, tracks, track } = this.player;
    say("swap", paused ? "A/B" : `A/B: ${tracks[track].name}`);
  }
}

/** @param {number[]} filters @returns {string} what a sentence calls them */
export function called(filters) {
  if (filters.length === 1) return `filter ${filters[0]}`;
  return `filters ${named(new Set(filters)).replace(/, (\d+)$/, " and $1")}`;
}

/** @param {Set<number>} filters @returns {string} */
function named(filters) {
  const sorted = [...filters].sort((a, b) => a - b);
  const more = sorted.length > NAMED ? ` and ${sorted.length - NAMED} more` : "";
  return sorted.slice(0, NAMED).join(", ") + more || "none";
}
