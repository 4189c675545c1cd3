/** What a network says it hears: of all that is played, and of the clip without some filters. */

import { part, percent, say } from "./view.js";

/** So many classes are shown of each sound. */
const SHOWN = 5;

/** The classes by probability. @returns {Object[]} {name, share} each, the likeliest first */
function ranked(classes, shares) {
  return shares.map((share, n) => ({ name: classes[n], share })).sort((a, b) => b.share - a.share);
}

/** Asks the network, and shows its answers as they come. */
export class Classes {
  constructor(model, view) {
    Object.assign(this, { model, view, said: null, mine: null });
  }

  /** Ask about what is heard now; what was asked before is given up. @param {Object} mine of the page */
  async ask(mine) {
    const { state: { way, layer, filter, chosen }, network, input, sound, residual } = mine;
    const filters = way === "one" ? [filter] : [...chosen];
    const asked = {
      input: {},
      without: way !== "layer" && filters.length > 0 && { removed: { layer, filters } },
      sound: { samples: sound },
      residual: { samples: residual },
    };
    const words = this.view.filters(mine.state);
    const titles = {
      input: "Input",
      sound: "Sonification",
      residual: "Input − sonification",
      without: asked.without && `Input, ${words} removed`,
    };
    const before = this.said;
    const same = before?.input === input && before.network === network;
    const shares = same ? { input: before.shares.input } : {};
    Object.assign(this, { mine, said: null });
    show(network, titles, shares);
    if (!network.head) {
      say("verdict", "This network has learned no classes: it cannot say what it hears.");
      return;
    }
    if (!same) say("verdict");
    try {
      for (const [key, what] of Object.entries(asked)) {
        if (!what) continue;
        shares[key] ??= await this.model.classify(network.name, input, what);
        if (mine !== this.mine) return;
        show(network, titles, shares);
        if (key === "without" || !asked.without) say("verdict", verdict(network, shares, words));
      }
      this.said = { input, network, shares };
    } catch (error) {
      if (mine === this.mine) say("verdict", error.message);
    }
  }
}

/** Five bars for each sound; what has not come yet is as before, and dim. */
function show({ title: name, head }, titles, said) {
  const box = part("classes");
  box.hidden = !head;
  if (!head) return;
  box.setAttribute("aria-label", `What ${name} says`);
  const first = said.input && ranked(head.classes, said.input)[0].name;
  for (const [key, title] of Object.entries(titles)) {
    const column = box.querySelector(`[data-of=${key}]`) ?? add(box, key);
    column.hidden = !title;
    column.firstChild.textContent = title;
    column.setAttribute("aria-label", title);
    column.classList.toggle("lab-dim", !said[key]);
    const top = said[key] && ranked(head.classes, said[key]);
    if (top) [...column.lastChild.children].forEach((row, n) => fill(row, top[n], first));
  }
}

/** A column of bars. */
function add(box, key) {
  const column = box.appendChild(document.createElement("div"));
  column.dataset.of = key;
  column.setAttribute("role", "group");
  const row = "<li><span></span><span></span><i></i></li>";
  column.innerHTML = `<strong></strong><ol>${row.repeat(SHOWN)}</ol>`;
  return column;
}

/** A class in its row; the one that the network says of the input stands out. */
function fill(row, one, first) {
  row.hidden = !one;
  if (!one) return;
  row.classList.toggle("lab-first", one.name === first);
  row.children[0].textContent = one.name;
  row.children[1].textContent = percent(one.share);
  row.children[2].style.transform = `scaleX(${one.share})`;
}

/** In a sentence: what the network says, and what it says without the filters. */
function verdict({ head: { classes } }, { input, without }, words) {
  const [before] = ranked(classes, input);
  if (!without) return `The network says ${before.name} (${percent(before.share)}).`;
  const [after] = ranked(classes, without);
  const left = percent(without[classes.indexOf(before.name)]);
  return after.name === before.name
    ? `Without ${words}, the network still says ${after.name}: ${left} instead of ${percent(before.share)}.`
    : `Without ${words}, the network says ${after.name} (${percent(after.share)}) instead of ${before.name} `
      + `(${percent(before.share)}, now ${left}).`;
}
