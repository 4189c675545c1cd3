/* <sonibook-animation>: a sound on its way up a network and back, drawn from numbers that Python
   computed (animation.py). The layers stand above each other, and time runs from left to right in
   all of them, so that what one value hears lies right below it. */

(() => {
  "use strict";

  if (customElements.get("sonibook-animation")) return;

  const ICONS = {
    play: "M3 1l11 7-11 7z", pause: "M3 1h4v14H3zM9 1h4v14H9z", back: "M13 1v14L4 8zM2 1h2v14H2z",
    next: "M3 1l9 7-9 7zM12 1h2v14h-2z",
    sound: "M1 5h3l4-4v14l-4-4H1zM10 4q4 4 0 8l1 1q6-5 0-10zM13 2q6 6 0 12l1 1q7-7 0-14z",
  };
  const icon = (name) => `<svg viewBox="0 0 16 16" aria-hidden="true"><path d="${ICONS[name]}"/></svg>`;

  /** A colour for each byte, from dark to light. */
  function palette(power, ...stops) {
    return Array.from({ length: 256 }, (_, byte) => {
      const place = (byte / 255) ** power * (stops.length - 1);
      const low = Math.min(Math.floor(place), stops.length - 2);
      return stops[low].map((from, n) => from + (stops[low + 1][n] - from) * (place - low));
    });
  }
  const DARK = [11, 16, 22];
  const BLUES = [DARK, [10, 74, 120], [86, 180, 233], [244, 251, 255]];
  const ORANGES = [DARK, [138, 61, 0], [240, 138, 36], [255, 244, 224]];
  const UP = palette(.7, ...BLUES), BACK = palette(.7, ...ORANGES);
  const NEGATIVE = palette(.7, DARK, [86, 52, 110], [196, 130, 214], [238, 214, 246]);
  // Levels in dB are even already: what is soft shall be dark.
  const INPUT = palette(1.6, ...BLUES), SOUND = palette(1.6, ...ORANGES);
  const BLUE = "#56b4e9", ORANGE = "#f08a24", VIOLET = "#c482d6", PALE = "#9fb0bd";

  const bytes = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
  const ease = (p) => (p < .5 ? 2 * p * p : 1 - (2 - 2 * p) ** 2 / 2);
  const between = (p, from, to) => Math.min(Math.max((p - from) / (to - from), 0), 1);

  function make(kind, name = "", content = "") {
    const element = document.createElement(kind);
    if (name) element.className = name;
    element.innerHTML = content;
    return element;
  }

  /** Paint bytes, row by row, by a cell's number and row; one row, if told, five times as thick. */
  function paint(canvas, count, rows, colour, thick = -1) {
    const columns = count / rows, order = Array.from({ length: rows }, (_, row) => row);
    if (thick >= 0) order.splice(thick, 1, ...Array(5).fill(thick));
    Object.assign(canvas, { width: columns, height: order.length });
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, order.length);
    order.forEach((row, line) => {
      for (let column = 0; column < columns; column += 1) {
        const rgb = colour(row * columns + column, row);
        image.data.set([...rgb, 255], 4 * (line * columns + column));
      }
    });
    context.putImageData(image, 0, 0);
  }

  /** Signed bytes as samples, each held for some. */
  function held(values, stride) {
    return Float32Array.from({ length: values.length * stride }, (_, at) => values[Math.floor(at / stride)] / 160);
  }

  class Animation extends HTMLElement {
    connectedCallback() {
      if (this.live) return;
      this.data = JSON.parse(this.querySelector("script").textContent);
      this.quiet = matchMedia("(prefers-reduced-motion: reduce)");
      this.still = this.querySelector(".still");
      this.live = make("div", "live");
      this.live.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take keys for its own
      this.live.setAttribute("role", "group");
      this.live.setAttribute("aria-label", this.data.label);
      this.prepend(this.live);
      this.way = 0;
      this.fresh = true;
      this.at = this.data.acts.length - 1;
      this.part = 1;
      this.build();
      this.shut(!this.quiet.matches);
      this.show();
      new ResizeObserver(() => this.near()).observe(this.lens);
    }

    get act() { return this.data.acts[this.at]; }

    get back() { return this.data.ways[this.way]; }

    // ---- what is there

    build() {
      const { layers } = this.data;
      this.stack = make("div", "stack");
      this.stack.tabIndex = 0;
      this.stack.setAttribute("role", "group");
      this.stack.setAttribute("aria-label", "Maps of all layers. Arrow keys mark a value and what "
        + "it hears.");
      this.stack.append(make("div", "head", "The way up ↑"), make("div", "head", "layer"),
        make("div", "head", "The way back ↓"));
      this.rows = new Map();
      for (let number = layers.length; number >= 0; number -= 1) this.rows.set(number, this.row(number));
      this.say = make("p", "say");
      this.say.setAttribute("aria-live", "polite");
      this.lens = make("canvas", "near");
      this.lens.setAttribute("role", "img");
      this.live.append(this.stack, this.say, this.lens, this.controls());
      this.stack.addEventListener("pointermove", (event) => this.point(event));
      this.stack.addEventListener("pointerleave", () => this.mark(null));
      this.stack.addEventListener("keydown", (event) => this.walk(event));
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
      const row = { up: make("div", kind), mid: make("div", "mid"), back: make("div", kind) };
      for (const side of ["up", "back"]) {
        const strip = row[side], canvas = make("canvas");
        if (one) {
          const start = (one.field - one.stride) / 2;
          canvas.style.left = `${100 * start / this.data.samples}%`;
          canvas.style.width = `${100 * one.steps * one.stride / this.data.samples}%`;
        }
        Object.assign(strip.dataset, { layer: number, side });
        strip.append(canvas, make("div", "mark"), make("div", "head-line"));
        row[`${side}Map`] = canvas;
      }
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
      this.playButton = press("play", "Play the animation", () => this.play(!this.running));
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
      this.part = tween ? 0 : 1;
      if (tween) this.run(false);
      this.show();
    }

    play(yes) {
      this.running = yes;
      if (yes) this.fresh = false;
      cancelAnimationFrame(this.frame);
      if (yes) {
        if (this.at === this.data.acts.length - 1 && this.part >= 1) this.at = this.part = 0;
        this.run(true);
      }
      this.playButton.innerHTML = icon(yes ? "pause" : "play");
      this.playButton.setAttribute("aria-label", `${yes ? "Pause" : "Play"} the animation`);
    }

    run(on) {
      cancelAnimationFrame(this.frame);
      const lasts = { input: 1800, up: 1300, choose: 2600, unpool: 2600, rectify: 1800, paint: 2600, end: 900 };
      let before = performance.now();
      const tick = (now) => {
        const beyond = this.act.act === "up" && this.act.layer > this.data.layer ? .4 : 1;
        // Each step rests before the next, so that it can be read.
        this.part += Math.max(now - before, 0) / (lasts[this.act.act] * beyond);
        before = now;
        if (this.part >= 1.35 && on && this.at < this.data.acts.length - 1) {
          this.at += 1;
          this.part = 0;
        }
        this.show();
        const over = this.part >= 1 && (!on || this.at === this.data.acts.length - 1);
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
      return at < this.at ? 1 : at > this.at ? 0 : Math.min(ease(Math.min(this.part, 1)), 1);
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
      this.near();
    }

    tell(text) {
      const words = text.replace("{cut}", this.back.layers[this.act.layer - 1]?.cut);
      if (this.say.textContent !== words) this.say.textContent = words;
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

    /** The close-up: twelve steps of one channel, and what happens to them. */
    near() {
      const { lens, act, data } = this, scale = devicePixelRatio || 1;
      const width = lens.clientWidth, height = lens.clientHeight;
      if (!width) return;
      Object.assign(lens, { width: width * scale, height: height * scale });
      const draw = lens.getContext("2d");
      draw.scale(scale, scale);
      draw.font = `12px ${getComputedStyle(this).fontFamily}`;
      const p = ease(Math.min(this.part, 1)), number = act.layer, one = data.layers[number - 1];
      const high = height * .34, low = height * .8, tall = height * .2, left = 14, right = width - 14;
      const words = (text, x, y, colour = PALE) => { draw.fillStyle = colour; draw.fillText(text, x, y); };
      const line = (y) => { draw.fillStyle = "#3a4854"; draw.fillRect(left, y, right - left, 1); };
      const bar = (x, y, value, colour, wide = 5) => {
        draw.fillStyle = colour;
        const size = tall * value;
        if (value) draw.fillRect(x - wide / 2, y - Math.max(size, 0), wide, Math.abs(size));
        draw.beginPath();
        draw.arc(x, y - size, value ? wide * .55 : 2, 0, 7);
        draw.fill();
      };
      const loudest = (...lists) => Math.max(...lists.flat().map(Math.abs)) || 1;
      lens.setAttribute("aria-label", `Close-up: ${this.say.textContent}`);
      if (!number) return this.waves(draw, width, height, act.act === "end");
      const near = data.near[number - 1], back = this.back.layers[number - 1], { pool } = one;
      const places = near.kept.length * pool, gap = (right - left) / (places + one.kernel - 1);
      const x = (place) => left + gap * (place + one.kernel / 2);
      const centre = (step) => x(step * pool + (pool - 1) / 2);
      const stretch = `${near.kept.length} steps, ${1000 * near.kept.length * one.stride / data.rate} ms`;
      const wide = Math.min(gap * .6, 8);
      draw.textAlign = "right";
      words(stretch, right, height - 6);
      draw.textAlign = "left";
      line(high);
      if (act.act === "choose") {
        const peak = loudest(near.kept);
        words(`filter ${near.channel} of layer ${number}: kept`, left, 16, ORANGE);
        near.kept.forEach((value, step) => bar(centre(step), high, value / peak, p > .5 ? ORANGE : BLUE, wide));
        words("all other filters: zero", left, low - tall - 8, PALE);
        line(low);
        near.kept.forEach((value, step) => bar(centre(step), low, 0, PALE, wide));
        return undefined;
      }
      line(low);
      if (act.act === "up") {
        const peak = loudest(near.before);
        words(`layer ${number}, filter ${near.channel}${pool > 1 ? ": the larger of two goes up" : ""}`, left, 16, BLUE);
        near.before.forEach((value, place) => {
          const step = Math.floor(place / pool), wins = pool === 1 || place % pool === near.switches[step];
          const grown = value / peak * between(p, 0, .3);
          bar(x(place), low, grown, wins ? "#2f7db0" : "#34434f", wide);
          const risen = between(p, .35, .95);
          if (wins && risen) {
            bar(x(place) + (centre(step) - x(place)) * risen, low + (high - low) * risen, value / peak, BLUE, wide);
          }
          if (wins && pool > 1 && p > .3) words("▲", x(place) - 5, low + 14, BLUE);
        });
        return undefined;
      }
      const peak = loudest(back.arrived, back.unpooled);
      const tint = (value) => (value < 0 ? VIOLET : ORANGE);
      if (act.act === "unpool") {
        words(`layer ${number}, channel ${near.channel}: each value to its switch`, left, 16, ORANGE);
        back.unpooled.forEach((_, place) => bar(x(place), low, 0, "#53636f", wide));
        back.arrived.forEach((value, step) => {
          const fallen = between(p, step / 24, step / 24 + .5), to = x(step * pool + back.switches[step]);
          words("▼", to - 5, low + 14, ORANGE);
          bar(centre(step), high, value / peak, "#4a3f35", wide);
          bar(centre(step) + (to - centre(step)) * fallen, high + (low - high) * fallen, value / peak, tint(value), wide);
        });
      } else if (act.act === "rectify") {
        words(`layer ${number}, channel ${near.channel}: rectified`, left, 16, ORANGE);
        back.unpooled.forEach((value, place) => {
          bar(x(place), high, value / peak, value < 0 ? "#4b3a55" : "#4a3f35", wide);
          bar(x(place), low, (value < 0 ? value * (1 - p) : value) / peak, tint(value), wide);
        });
      } else {
        const under = loudest(back.below), first = x(0) - gap * (one.kernel - 1) / 2;
        const to = number > 1 ? `layer ${number - 1}, channel ${data.near[number - 2].channel}` : "the sound";
        words(`layer ${number}: spread by its weights, down to ${to}`, left, 16, ORANGE);
        back.unpooled.forEach((value, place) => {
          const lit = between(p, place / places * .8, place / places * .8 + .2);
          bar(x(place), high, Math.max(value, 0) / peak, ORANGE, wide);
          if (value <= 0 || !lit) return;
          draw.strokeStyle = `rgba(240, 138, 36, ${.45 * lit})`;
          for (let tap = 0; tap < one.kernel; tap += 1) {
            draw.beginPath();
            draw.moveTo(x(place), high + 3);
            draw.lineTo(first + gap * (place + tap), low - tall * .9);
            draw.stroke();
          }
        });
        back.below.forEach((value, place) => {
          const grown = between(p, place / places * .8, place / places * .8 + .2);
          bar(first + gap * place, low, value / under * grown, tint(value), wide);
        });
      }
      return undefined;
    }

    /** The waveform, and over it what has come back. */
    waves(draw, width, height, end) {
      const both = [[this.data.wave, BLUE, "the sound"]];
      if (end) both.push([this.back.wave, ORANGE, "its sonification"]);
      draw.textAlign = "left";
      both.forEach(([wave, colour, name], number) => {
        const values = bytes(wave), gap = (width - 28) / values.length;
        draw.globalAlpha = number ? .9 : 1;
        draw.fillStyle = colour;
        draw.fillText(name, 14 + 90 * number, 18);
        values.forEach((value, at) => {
          const tall = value / 255 * height * .4 * (number ? ease(Math.min(this.part, 1)) : 1);
          draw.fillRect(14 + at * gap, height * .55 - tall, Math.max(gap * .6, 1), 2 * tall + 1);
        });
      });
      draw.globalAlpha = 1;
    }

    // ---- what a value hears

    point(event) {
      const strip = event.target.closest?.(".strip");
      if (!strip) return this.mark(null);
      const number = Number(strip.dataset.layer), box = strip.getBoundingClientRect();
      if (!number) return this.mark(null);
      const one = this.data.layers[number - 1];
      const at = (event.clientX - box.left) / box.width * this.data.samples;
      const step = Math.round((at - one.field / 2) / one.stride);
      return this.mark(step >= 0 && step < one.steps ? { number, step } : null);
    }

    walk(event) {
      if (event.target !== this.stack) return;
      const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0] };
      const [up, along] = moves[event.key] ?? [];
      if (up === undefined && event.key !== "Home" && event.key !== "End") return;
      event.preventDefault();
      const { layers, layer, samples } = this.data;
      const old = this.marked ?? { number: layer, step: Math.floor(layers[layer - 1].steps / 2) };
      const number = Math.min(Math.max(old.number + (up ?? 0), 1), layers.length);
      const one = layers[number - 1], was = layers[old.number - 1];
      const jump = Math.max(Math.round(samples / 80 / one.stride), 1);
      let step = Math.round((old.step * was.stride + (was.field - one.field) / 2) / one.stride);
      step += jump * (along ?? 0);
      if (event.key === "Home") step = 0;
      if (event.key === "End") step = one.steps;
      this.mark({ number, step: Math.min(Math.max(step, 0), one.steps - 1) });
    }

    /** Mark a value, and all that it hears in the layers below. */
    mark(place) {
      this.marked = place;
      const { layers, samples, rate } = this.data;
      for (const [number, row] of this.rows) {
        for (const strip of [row.up, row.back]) {
          const mark = strip.querySelector(".mark");
          mark.style.display = place && number <= place.number ? "block" : "none";
          if (!place) continue;
          const one = layers[place.number - 1], field = number ? layers[number - 1].field : 1;
          const start = place.step * one.stride + field / 2 - .5;
          mark.style.left = `${100 * start / samples}%`;
          mark.style.width = `${100 * Math.max(one.field - field, 1) / samples}%`;
        }
      }
      if (!place) { this.show(); return; }
      const one = layers[place.number - 1], start = place.step * one.stride;
      this.tell(`Step ${place.step} of layer ${place.number} hears ${one.field} samples `
        + `(${(1000 * one.field / rate).toFixed(1)} ms): ${(start / rate).toFixed(3)} to `
        + `${((start + one.field) / rate).toFixed(3)} s of the sound.`);
    }
  }

  customElements.define("sonibook-animation", Animation);
})();
