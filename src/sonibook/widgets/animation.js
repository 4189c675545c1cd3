/* <sonibook-animation>: a sound on its way up a network, and one filter back down, step by step. */

import { closeUp, ease } from "./closeup.js";
import { BACK, INPUT, Layers, NEGATIVE, SOUND, UP, bytes, make, paint } from "./layers.js";

const ICONS = {
  play: "M3 1l11 7-11 7z", pause: "M3 1h4v14H3zM9 1h4v14H9z", back: "M13 1v14L4 8zM2 1h2v14H2z",
  next: "M3 1l9 7-9 7zM12 1h2v14h-2z",
  sound: "M1 5h3l4-4v14l-4-4H1zM10 4q4 4 0 8l1 1q6-5 0-10zM13 2q6 6 0 12l1 1q7-7 0-14z",
};
const icon = (name) => `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${ICONS[name]}"/></svg>`;

/** Signed bytes as samples, each held for some. */
function held(values, stride) {
  return Float32Array.from({ length: values.length * stride }, (_, at) => values[Math.floor(at / stride)] / 160);
}

class Animation extends Layers {
  begin() {
    this.quiet = matchMedia("(prefers-reduced-motion: reduce)");
    this.way = 0;
    this.fresh = true;
    this.at = this.data.acts.length - 1;
    this.along = 1;
    this.build();
    this.shut(!this.quiet.matches);
    this.show();
    new ResizeObserver(() => closeUp(this)).observe(this.lens);
  }

  get act() { return this.data.acts[this.at]; }

  get back() { return this.data.ways[this.way]; }

  // ---- what is there

  build() {
    const { layers } = this.data;
    this.stack.append(make("div", "head", "The way up ↑"), make("div", "head", "Layer"),
      make("div", "head", "The way back ↓"));
    for (let number = layers.length; number >= 0; number -= 1) this.rows.set(number, this.row(number));
    this.lens = make("canvas", "near");
    this.lens.setAttribute("role", "img");
    this.live.append(this.stack, this.say, this.lens, this.controls());
    this.live.addEventListener("keydown", (event) => {
      if (event.key !== " " || this.player.contains(event.target) || event.target.closest("button, input[type=radio]")) return;
      event.preventDefault();
      this.play(!this.running);
    });
    this.player = this.querySelector("sonibook-player");
    this.live.append(this.player);
    this.player.addEventListener("track", () => {
      if (this.player.track) this.exchange(this.player.track - 1);
    });
    this.follow(this.player);
  }

  row(number) {
    const { layers, layer } = this.data, one = layers[number - 1];
    const kind = number === 0 ? "strip low" : number > layer ? "strip beyond" : "strip";
    const row = { mid: make("div", "mid") };
    [row.up, row.upMap] = this.strip(kind, number, "up");
    [row.back, row.backMap] = this.strip(kind, number, "back");
    if (one) {
      row.mid.append(make("b", "", number));
      row.mid.title = `Layer ${number}: ${one.filters} filters, ${one.steps} steps`;
      row.dots = make("span", "dots", "<i></i>".repeat(one.pool > 1 ? 16 : 0));
      row.mid.append(row.dots);
      row.sound = this.speaker("", `Hear layer ${number} on the way back: its strongest channel, `
        + `each value held for ${one.stride} samples`, (button) => this.hear(button, this.stages(), number - 1));
      row.mid.append(row.sound);
    } else {
      row.input = this.speaker("Input", "Hear the input", (button) => this.hear(button, this.player, 0));
      row.sound = this.speaker("Sonification", "Hear the sonification",
        (button) => this.hear(button, this.player, this.way + 1));
      row.mid = make("div", "mid words", "<small>Dots: eight of the switches. Each keeps which of two "
        + "neighbours won.</small>");
      row.up.append(row.input);
      row.back.append(row.sound);
    }
    this.stack.append(row.up, row.mid, row.back);
    return row;
  }

  controls() {
    const bar = make("div", "bar"), last = this.data.acts.length - 1;
    const press = (name, label, act) => {
      const button = make("button", "", icon(name));
      button.type = "button";
      button.setAttribute("aria-label", label);
      button.addEventListener("click", act);
      return button;
    };
    this.playButton = press("play", "Watch the animation", () => this.play(!this.running));
    this.playButton.append("Watch");
    this.range = make("input");
    Object.assign(this.range, { type: "range", min: 0, max: last, step: 1 });
    this.range.setAttribute("aria-label", "Step of the animation");
    this.range.addEventListener("input", () => this.go(Number(this.range.value)));
    this.count = make("output");
    const all = make("button", "", "All stages");
    all.type = "button";
    all.addEventListener("click", () => this.shut(!this.still.hasAttribute("data-shut")));
    this.allButton = all;
    bar.append(this.playButton, press("back", "Step back", () => this.go(this.at - 1)),
      press("next", "Step forward", () => this.go(this.at + 1)), this.range, this.count, all);
    const choice = make("fieldset", "", "<legend>Switches</legend>");
    const name = `switches-${Math.random().toString(36).slice(2)}`;
    this.radios = this.data.ways.map((way, number) => {
      const label = make("label"), radio = make("input");
      Object.assign(radio, { type: "radio", name, checked: number === 0 });
      radio.addEventListener("change", () => this.exchange(number));
      label.append(radio, way.name);
      choice.append(label);
      return radio;
    });
    const whole = make("div");
    whole.append(bar, choice);
    return whole;
  }

  speaker(text, label, act) {
    const button = make("button", "speaker", icon("sound") + text);
    button.type = "button";
    button.setAttribute("aria-label", label);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => act(button));
    return button;
  }

  shut(yes) {
    this.still.toggleAttribute("data-shut", yes);
    this.allButton.setAttribute("aria-expanded", String(!yes));
  }

  // ---- sound

  /** Play what a loudspeaker stands for: a track of a player, at the place where it plays. */
  hear(button, player, track) {
    if (!player.paused && player.track === track) {
      player.pause();
      return;
    }
    if (player.paused) player.currentTime = 0;
    player.track = track;
    this.heard = button;
    player.play();
  }

  /** The strongest channel of each layer on the way back, as tracks of a player that is not seen. */
  stages() {
    if (!this.held) {
      this.held = document.createElement("sonibook-player");
      this.held.hidden = true;
      this.live.append(this.held);
      this.follow(this.held);
    }
    this.held.tracks = this.back.layers.map((one, n) => ({
      name: `Layer ${n + 1}`,
      sound: held(new Int8Array(bytes(one.held).buffer), this.data.layers[n].stride),
    }));
    return this.held;
  }

  /** Draw where a player is, in all layers, and light the loudspeaker. */
  follow(player) {
    const show = () => {
      const lines = this.live.querySelectorAll(".head-line");
      const left = `${100 * player.currentTime * this.data.rate / this.data.samples}%`;
      for (const line of lines) Object.assign(line.style, { display: player.paused ? "none" : "block", left });
      if (player === this.player) {
        const { input, sound } = this.rows.get(0);
        this.heard = player.track ? sound : input;
      }
      for (const each of this.live.querySelectorAll(".speaker")) {
        each.setAttribute("aria-pressed", String(!player.paused && each === this.heard));
      }
    };
    for (const event of ["play", "pause", "track", "timeupdate"]) player.addEventListener(event, show);
  }

  exchange(number) {
    this.way = number;
    this.radios[number].checked = true;
    if (this.player.track > 0 || this.player.paused) this.player.track = number + 1;
    if (this.held) this.stages();
    this.show();
  }

  // ---- time

  go(to) {
    this.play(false);
    this.fresh = false;
    const next = Math.min(Math.max(to, 0), this.data.acts.length - 1);
    const tween = next === this.at + 1 && !this.quiet.matches;
    this.at = next;
    this.along = tween ? 0 : 1;
    if (tween) this.run(false);
    this.show();
  }

  play(yes) {
    this.running = yes;
    if (yes) this.fresh = false;
    cancelAnimationFrame(this.frame);
    if (yes) {
      if (this.at === this.data.acts.length - 1 && this.along >= 1) this.at = this.along = 0;
      this.run(true);
    }
    this.playButton.innerHTML = yes ? `${icon("pause")}Pause` : `${icon("play")}Watch`;
    this.playButton.setAttribute("aria-label", `${yes ? "Pause" : "Watch"} the animation`);
  }

  run(on) {
    cancelAnimationFrame(this.frame);
    const lasts = { input: 1800, up: 1300, choose: 2600, unpool: 2600, rectify: 1800, paint: 2600, end: 900 };
    let before = performance.now();
    const tick = (now) => {
      const beyond = this.act.act === "up" && this.act.layer > this.data.layer ? .4 : 1;
      // Each step rests before the next, so that it can be read.
      this.along += Math.max(now - before, 0) / (lasts[this.act.act] * beyond);
      before = now;
      if (this.along >= 1.35 && on && this.at < this.data.acts.length - 1) {
        this.at += 1;
        this.along = 0;
      }
      this.show();
      const over = this.along >= 1 && (!on || this.at === this.data.acts.length - 1);
      if (!over) this.frame = requestAnimationFrame(tick);
      else if (on) this.play(false);
    };
    this.frame = requestAnimationFrame(tick);
  }

  // ---- drawing

  /** The step in which something happens in a layer. */
  when(act, layer) {
    return this.data.acts.findIndex((each) => each.act === act && each.layer === layer);
  }

  /** How far a step is done, from 0 to 1. */
  done(at) {
    if (at < 0) return 1;
    return at < this.at ? 1 : at > this.at ? 0 : Math.min(ease(Math.min(this.along, 1)), 1);
  }

  show() {
    const { data, act } = this, { layer: top } = data, chosen = this.done(this.when("choose", top));
    for (const [number, row] of this.rows) {
      row.mid.classList.toggle("now", act.layer === number && number > 0);
      const drawn = number ? this.done(this.when("up", number)) : 1;
      row.upMap.style.opacity = number > top ? 1 - .65 * chosen : 1;
      row.upMap.style.transform = `translateY(${60 * (1 - drawn)}%)`;
      row.upMap.style.clipPath = `inset(0 0 ${100 * (1 - drawn)}% 0)`;
      const painted = number === top ? chosen : this.done(this.when("paint", number + 1));
      row.backMap.style.clipPath = `inset(0 ${100 * (1 - painted)}% 0 0)`;
      const stored = number ? this.done(this.when("up", number)) : 0;
      const used = number && number <= top ? this.done(this.when("unpool", number)) : 0;
      row.mid.classList.toggle("used", used > 0);
      row.sound.classList.toggle("hidden", painted < 1);
      row.sound.hidden = number > top;
      if (row.dots) {
        const places = used ? this.back.layers[number - 1].switches : data.near[number - 1].switches;
        [...row.dots.children].forEach((dot, n) => {
          // Eight pools side by side; above, the last step won, below, the first.
          const place = places[n % 8];
          dot.classList.toggle("on", stored > .5 && (place > 0) === (n < 8));
        });
      }
      this.map(number, row, chosen);
    }
    this.range.value = this.at;
    this.range.setAttribute("aria-valuetext", act.text);
    this.count.textContent = `${this.at + 1} / ${data.acts.length}`;
    if (!this.marked) this.tell(this.fresh ? data.intro : act.text);
    closeUp(this);
  }

  tell(text) {
    super.tell(text.replace("{cut}", this.back.layers[this.act.layer - 1]?.cut));
  }

  map(number, row, chosen) {
    const { data } = this, one = data.layers[number - 1], rectified = this.done(this.when("rectify", number));
    const state = [this.way, number === data.layer && chosen, rectified].join();
    if (row.state === state) return;
    row.state = state;
    if (!one) {
      const input = bytes(data.input), sound = bytes(this.back.sound);
      paint(row.upMap, input.length, data.bins, (cell) => INPUT[input[cell]]);
      paint(row.backMap, sound.length, data.bins, (cell) => SOUND[sound[cell]]);
      return;
    }
    const up = bytes(one.map), rows = one.shown.length;
    const thick = number === data.layer ? data.row : -1;
    const dim = number === data.layer ? 1 - .85 * chosen : 1;
    paint(row.upMap, up.length, rows, 
      (cell, at) => UP[Math.round(up[cell] * (at === data.row ? 1 : dim ** 2))], thick);
    if (number > data.layer) return;
    const { map, negative } = this.back.layers[number - 1], above = bytes(map), under = bytes(negative);
    paint(row.backMap, above.length, rows, (cell) => (
      under[cell] * (1 - rectified) > above[cell] ? NEGATIVE[Math.round(under[cell] * (1 - rectified))]
        : BACK[above[cell]]), thick);
  }
}

if (!customElements.get("sonibook-animation")) customElements.define("sonibook-animation", Animation);
