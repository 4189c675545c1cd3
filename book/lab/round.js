/** A blind round: ten sounds, each kept by a filter of a trained network or of a random one. */

import { toLink } from "./link.js";
import { part, say } from "./view.js";

const TRIALS = 10;
/** Filters are drawn from so many with the most energy. */
const RANKS = 8;

/** @returns {number} how likely `right` or more of `count` are, for one who guesses (binomial) */
export function byGuessing(right, count) {
  let [ways, sum] = [1, 0];
  for (let n = 0; n <= count; n++) {
    if (n >= right) sum += ways;
    ways *= (count - n) / (n + 1);
  }
  return sum / 2 ** count;
}

/** Asks, keeps the answers, and tells the score at the end. */
export class Round {
  /** @param {Object} model @param {Object} view @param {function(Object): void} change the page's */
  constructor(model, view, change) {
    Object.assign(this, { model, view, change, live: false, trial: null });
    this.keys = { t: () => this.answer(true), r: () => this.answer(false), b: () => view.swap() };
  }

  /** The networks that are told apart: the one that is chosen, if it was trained, and a random one. */
  pair(chosen) {
    const all = [...this.model.networks.values()];
    const trained = all.filter((one) => one.trained);
    return [trained.find(({ name }) => name === chosen) ?? trained[0], all.find((one) => !one.trained)];
  }

  start(state) {
    const networks = this.pair(state.network);
    Object.assign(this, { live: true, back: state, trials: [], networks });
    part("trials").replaceChildren();
    this.show();
    this.next();
  }

  next() {
    const clips = [...this.model.shipped.keys()];
    const drawn = (count) => Math.floor(Math.random() * count);
    const trained = drawn(2) === 0;
    const { name } = this.networks[trained ? 0 : 1];
    const clip = clips[drawn(clips.length)];
    this.trial = { trained, name, clip, ready: false };
    this.change({
      network: name, clip, layer: this.back.layer, filter: null, rank: drawn(RANKS), way: "one",
      chosen: new Set(), beside: "",
    });
  }

  /** The sound of a trial is there: play it. @param {Object} state that is heard */
  heard({ state, clip }) {
    if (!this.live || this.trial.ready) return;
    if (state.network !== this.trial.name || state.clip !== this.trial.clip) {
      this.stop(); // it could not be loaded, as the alert says
      return;
    }
    Object.assign(this.trial, { ready: true, link: toLink(state) });
    const number = `Trial ${this.trials.length + 1} of ${TRIALS}`;
    say("round-text", `${number}: what a filter of layer ${state.layer} keeps of “${clip.title}”. `
      + `Is the network trained (${this.networks[0].title}) or random?`);
    this.view.player.track = 1;
    this.view.player.currentTime = 0;
    this.view.player.play();
  }

  answer(trained) {
    if (!this.trial.ready) return;
    this.trials.push({ ...this.trial, said: trained });
    if (this.trials.length < TRIALS) this.next();
    else this.end();
  }

  end() {
    const right = this.trials.filter((one) => one.said === one.trained).length;
    const p = byGuessing(right, TRIALS);
    this.stop();
    part("round").hidden = false;
    part("round").focus();
    say("round-text", `${right} of ${TRIALS} right. Guessing gets ${right} or more right with `
      + `probability ${p.toFixed(3)} (exact binomial test): ${p < 0.05 ? "this is hardly luck." : "this may be luck."}`);
    const words = (trained) => this.networks[trained ? 0 : 1].title;
    part("trials").replaceChildren(...this.trials.map(({ trained, said, link }) => {
      const line = document.createElement("li");
      const anchor = Object.assign(document.createElement("a"), { href: link, textContent: words(trained) });
      line.append(anchor, said === trained ? ": right" : `: you said ${words(said)}`);
      return line;
    }));
  }

  /** Back to what was heard before. */
  stop() {
    if (this.live) this.view.player.pause();
    this.live = false;
    this.show();
    this.change(this.back);
  }

  /** Blind while it goes on: what would tell the network is not there. */
  show() {
    document.getElementById("lab").classList.toggle("lab-blind", this.live);
    part("round").hidden = part("answers").hidden = !this.live;
    part(this.live ? "trained" : "blind").focus({ preventScroll: true });
  }
}
