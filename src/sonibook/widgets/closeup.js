/* Twelve steps of one channel, large: what a pool, its switches and the way back do to them. */

import { bytes } from "./layers.js";

const BLUE = "#56b4e9", ORANGE = "#f08a24", VIOLET = "#c482d6", PALE = "#9fb0bd";

export const ease = (p) => (p < .5 ? 2 * p * p : 1 - (2 - 2 * p) ** 2 / 2);
const between = (p, from, to) => Math.min(Math.max((p - from) / (to - from), 0), 1);

/** The waveform, and over it what has come back. */
function waves(shown, draw, width, height) {
  const end = shown.act.act === "end";
  const both = [[shown.data.wave, BLUE, "the sound"]];
  if (end) both.push([shown.back.wave, ORANGE, "its sonification"]);
  draw.textAlign = "left";
  both.forEach(([wave, colour, name], number) => {
    const values = bytes(wave), gap = (width - 28) / values.length;
    draw.globalAlpha = number ? .9 : 1;
    draw.fillStyle = colour;
    draw.fillText(name, 14 + 90 * number, 18);
    values.forEach((value, at) => {
      const tall = value / 255 * height * .4 * (number ? ease(Math.min(shown.along, 1)) : 1);
      draw.fillRect(14 + at * gap, height * .55 - tall, Math.max(gap * .6, 1), 2 * tall + 1);
    });
  });
  draw.globalAlpha = 1;
}

/** The close-up: twelve steps of one channel, and what happens to them. */
export function closeUp(shown) {
  const { lens, act, data } = shown, scale = devicePixelRatio || 1;
  const width = lens.clientWidth, height = lens.clientHeight;
  if (!width) return;
  Object.assign(lens, { width: width * scale, height: height * scale });
  const draw = lens.getContext("2d");
  draw.scale(scale, scale);
  draw.font = `12px ${getComputedStyle(lens).fontFamily}`;
  const p = ease(Math.min(shown.along, 1)), number = act.layer, one = data.layers[number - 1];
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
  lens.setAttribute("aria-label", `Close-up: ${shown.say.textContent}`);
  if (!number) return waves(shown, draw, width, height);
  const near = data.near[number - 1], back = shown.back.layers[number - 1], { pool } = one;
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
