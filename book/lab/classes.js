/** What a network says it hears: of all that is played, and of the clip without some filters. */

import { called, part, percent, say } from "./view.js";

/** So many classes are shown of each sound. */
const SHOWN = 5;
/** The network is asked once a slider has rested for so long, in ms: a sound never waits for it. */
const REST = 150;

/** The classes by probability. @returns {Object[]} {name, share} each, the likeliest first */
function ranked(classes, shares) {
  return shares.map((share, n) => ({ name: classes[n], share })).sort((a, b) => b.share - a.share);
}

/** Asks the networks, and shows their answers as they come. */
export class Classes {
  constructor(model) {
    Object.assign(this, { model, said: null, mine: null, known: new WeakMap() });
  }

  /** Ask about what is heard now; what was asked before is given up. @param {Object} mine of the page */
  async ask(mine) {
    Object.assign(this, { mine, said: null });
    if (!this.known.has(mine.input)) this.known.set(mine.input, {});
    const voices = [mine, ...(mine.other ? [mine.other] : [])];
    const asks = voices.map(({ network, sound, residual, removed }, n) => {
      const asked = {
        input: {},
        without: removed && { removed },
        sound: { samples: sound },
        residual: { samples: residual },
      };
      const titles = {
        input: "Input",
        sound: "Sonification",
        residual: "Input − sonification",
        without: removed && `Input, ${called(removed.filters)} removed`,
      };
      const words = removed && called(removed.filters);
      const answer = { network, asked, titles, words, said: {}, box: boxOf(n) };
      const input = this.known.get(mine.input)[network.name];
      if (input) answer.said.input = input;
      show(answer, mine.other?.network.head);
      return answer;
    });
    boxOf(1).hidden ||= !mine.other;
    if (!mine.network.head) {
      say("verdict", "This network has learned no classes: it cannot say what it hears.");
    } else if (!asks[0].said.input) say("verdict");
    await new Promise((rested) => setTimeout(rested, REST));
    if (mine !== this.mine) return;
    try {
      for (const each of asks) await this.answer(each, mine);
      if (mine === this.mine && voices.some(({ network }) => network.head)) this.said = asks.map(({ said }) => said);
    } catch (error) {
      if (mine === this.mine) say("verdict", error.message);
    }
  }

  /** One network's answers. */
  async answer(each, mine) {
    const { network, asked, said, words } = each;
    if (!network.head) return;
    for (const [key, what] of Object.entries(asked)) {
      if (!what) continue;
      said[key] ??= await this.model.classify(network.name, mine.input, what);
      if (mine !== this.mine) return;
      if (key === "input") this.known.get(mine.input)[network.name] = said.input;
      show(each, mine.other?.network.head);
      if (mine.network === network && key === (asked.without ? "without" : "input")) {
        say("verdict", verdict(network, said, words));
      }
    }
  }
}

/** The rows of bars of the first network, or of the second. */
function boxOf(n) {
  const all = part("classes");
  while (all.children.length <= n) {
    const box = all.appendChild(document.createElement("div"));
    box.className = "lab-classes";
    box.setAttribute("role", "group");
  }
  return all.children[n];
}

/** Five bars for each sound; what has not come yet is as before, and dim. */
function show({ network: { title: name, head }, titles, said, box }, several) {
  box.hidden = !head;
  if (!head) return;
  box.setAttribute("aria-label", `What ${name} says`);
  const first = said.input && ranked(head.classes, said.input)[0].name;
  for (const [key, words] of Object.entries(titles)) {
    const column = box.querySelector(`[data-of=${key}]`) ?? add(box, key);
    const title = several ? `${name}: ${words}` : words;
    column.hidden = !words;
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
  const was = percent(before.share);
  const left = percent(without[classes.indexOf(before.name)]);
  if (after.name !== before.name) {
    return `Without ${words}, the network says ${after.name} (${percent(after.share)}) instead of `
      + `${before.name} (${was}, now ${left}).`;
  }
  return left === was
    ? `Without ${words}, the network says the same: ${after.name} (${was}).`
    : `Without ${words}, the network still says ${after.name}: ${left} instead of ${was}.`;
}
