/** The lab: what the reader does, what is computed then, and what is shown. */

import { Classes } from "./classes.js";
import { hear } from "./hearing.js";
import { WAYS, fromLink, ofAtlas, toLink } from "./link.js";
import { Model, OWN } from "./model.js";
import { receive } from "./pieces.js";
import { RECORD_SECONDS, decode, prepared } from "./recordings.js";
import { record } from "../../src/sonibook/widgets/recorder.js";
import { Round } from "./round.js";
import { View, part, say } from "./view.js";
import { wavOf } from "../../src/sonibook/widgets/sound.js";

const root = document.getElementById("lab");
const model = new Model(new URL(".", document.currentScript.src).href);
const view = new View();
const classes = new Classes(model);
/** What to play next, what was heard last, and whether it is being computed. */
let state = {
  network: "", beside: "", clip: "", layer: 8, filter: null, rank: 0, way: "one", chosen: new Set(),
};
let heard = null;
let busy = false;
let again = false;
let linking = 0;
const round = new Round(model, view, change);

/** For the pieces, which call `receive`, and for scripts that look at what is heard. */
window.sonibookLab = {
  receive,
  get heard() {
    return busy ? null : heard;
  },
  get said() {
    return busy ? null : classes.said;
  },
};

/** Hear what the state says; where it changes meanwhile, hear that next. */
async function refresh() {
  again = true;
  if (busy) return;
  busy = true;
  root.setAttribute("aria-busy", "true");
  try {
    while (again) {
      again = false;
      const fresh = await hear(model, state);
      if (!again) state = fresh.state;
      heard = fresh;
      view.show(heard);
      clearTimeout(linking);
      if (round.live) continue; // nothing tells which network it is
      classes.ask(heard);
      offerTop(heard);
      // Browsers ignore a page that changes its address with every step of a slider.
      linking = setTimeout(() => history.replaceState(null, "", toLink(heard.state)), 200);
    }
  } catch (error) {
    say("alert", error.message);
    if (heard) {
      state = heard.state;
      view.controls(heard);
    }
  }
  busy = false;
  root.removeAttribute("aria-busy");
  if (heard) round.heard(heard);
  root.dispatchEvent(new CustomEvent("heard"));
}

/** Offer the clips that activate the filter most, as far as the atlas beside the lab knows them. */
async function offerTop(mine) {
  const { network, layer, filter, way } = mine.state;
  const { atlas } = root.dataset;
  const known = atlas && way === "one" ? model.topClips(atlas, network, layer, filter) : [];
  const clips = await Promise.resolve(known).catch(() => []); // there need be no atlas
  if (mine === heard) view.offerTop(clips);
}

/** Change the state as the reader asks, and hear it. */
function change(changes) {
  say("alert", "");
  state = { ...state, ...changes };
  refresh();
}

/** Another layer or network: its filters are others. */
function changeLayer(changes) {
  const way = state.way === "layer" ? "layer" : "one";
  change({ ...changes, filter: null, way, chosen: new Set() });
}

/** Take a filter: alone, or into the chosen and out again. */
function pick(filter) {
  if (state.way === "one" || state.way === "layer") change({ filter, way: "one" });
  else toggle(filter);
}

/** Put a filter among the chosen, or take it out. */
function toggle(filter) {
  const chosen = new Set(state.chosen);
  if (!chosen.delete(filter)) chosen.add(filter);
  change({ filter, chosen });
}

/** The neighbour in the ranking. @param {number} by -1 or 1 */
function step(by) {
  const rank = heard.ranking.findIndex(({ filter }) => filter === heard.state.filter) + by;
  if (heard.ranking[rank]) pickRank(rank);
}

/** Go to a filter by its rank, from 0, without choosing it. */
function pickRank(rank) {
  const way = state.way === "layer" ? "one" : state.way;
  change({ filter: heard.ranking[rank].filter, way });
}

/** Take a recording of the reader's own, and hear it. @param {function(): Promise<Object>} get */
async function take(name, title, get) {
  say("alert", "");
  try {
    const recording = await get();
    const resample = (samples, rate) => model.resample(samples, rate);
    const { samples, notices } = await prepared(name, recording, resample);
    model.addOwn(title, samples, notices);
    view.offerOwn(OWN, title);
    change({ clip: OWN, filter: null });
  } catch (error) {
    say("alert", error.message);
  }
}

/** Take a file. @param {?File} file */
function takeFile(file) {
  if (file) take(file.name, `Your file: ${file.name}`, () => decode(file));
}

/** Listen to the microphone. */
async function listen() {
  const button = part("record");
  button.disabled = true;
  button.classList.add("lab-live");
  await take("The recording", "Your recording", () => record(RECORD_SECONDS, (left) => {
    const text = `Recording: ${left} s`;
    if (button.textContent !== text) button.textContent = text;
  }));
  button.textContent = `Record ${RECORD_SECONDS} s`;
  button.classList.remove("lab-live");
  button.disabled = false;
}

/** Save the sonification at its own loudness. */
function save() {
  const { network, layer } = heard.state;
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(wavOf(heard.sound, { rate: model.rate, gain: 1 }));
  const what = view.words(heard).toLowerCase().replace(/[^a-z0-9]+/g, "-");
  anchor.download = `${network}-${what}.wav`;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
}

/** Copy the address that restores what is heard. */
async function copyLink() {
  history.replaceState(null, "", toLink(heard.state));
  try {
    await navigator.clipboard.writeText(location.href);
    say("status", "The link is copied.");
  } catch {
    say("status", "Copy the address of this page: it brings back what you hear.");
  }
}

/** What a link asks for, as far as it is to be had here; the rest is said. */
async function follow(link) {
  const asked = fromLink(link);
  const unknown = [];
  for (const name of ["network", "beside"]) {
    if (!asked[name] || model.networks.has(asked[name])) continue;
    unknown.push(`This book has no network ${asked[name]}.`);
    delete asked[name];
  }
  if (asked.clip === OWN && !model.clips.has(OWN)) {
    unknown.push("The link was made with a recording that stayed with its maker: open it here to hear the same.");
    delete asked.clip;
  } else if (ofAtlas(asked.clip)) {
    const name = asked.clip;
    try {
      view.offerOwn(name, await model.adopt(name, ofAtlas(name)));
    } catch {
      unknown.push(`No atlas beside this lab has the clip ${name}.`);
      delete asked.clip;
    }
  } else if (asked.clip && asked.clip !== OWN && !model.shipped.has(asked.clip)) {
    unknown.push(`This book has no clip ${asked.clip}.`);
    delete asked.clip;
  }
  change({ beside: "", ...asked });
  say("alert", ...unknown);
}

const keys = {
  b: () => view.swap(),
  n: () => step(1),
  p: () => step(-1),
  d: () => changeLayer({ layer: state.layer + 1 }),
  u: () => changeLayer({ layer: state.layer - 1 }),
  ...Object.fromEntries([1, 2, 3, 4].map((n) => [n, () => { view.player.track = n - 1; }])),
};

/** What can be done only once something is heard. @param {function(Event): void} act */
function afterwards(act) {
  return (event) => {
    if (heard) act(event);
  };
}

/** Answer to what the reader does. */
function connect() {
  part("network").onchange = ({ target }) => changeLayer({ network: target.value });
  part("beside").onchange = ({ target }) => change({ beside: target.value });
  part("clip").onchange = ({ target }) => change({ clip: target.value });
  part("open").onclick = () => part("file").click();
  part("file").onchange = ({ target }) => {
    takeFile(target.files[0]);
    target.value = ""; // so that the same file can be opened again
  };
  part("record").onclick = listen;
  part("layer").oninput = ({ target }) => changeLayer({ layer: Number(target.value) });
  part("filter").oninput = afterwards(({ target }) => pickRank(Number(target.value) - 1));
  part("bars").onclick = afterwards(({ offsetX }) => {
    const rank = Math.floor((offsetX / part("bars").clientWidth) * heard.ranking.length);
    if (heard.ranking[rank]) pick(heard.ranking[rank].filter);
  });
  part("top").onclick = ({ target }) => {
    const button = target.closest("button");
    if (button) pick(Number(button.dataset.filter));
  };
  part("clips").onclick = ({ target }) => {
    if (target.value) follow(toLink({ ...state, clip: target.value }));
  };
  for (const radio of document.getElementsByName("lab-way")) {
    radio.onchange = () => {
      const several = WAYS.indexOf(radio.value) % 3 > 0; // neither one filter nor the whole layer
      const chosen = several && !state.chosen.size ? new Set([state.filter]) : state.chosen;
      change({ way: radio.value, chosen });
    };
  }
  part("toggle").onclick = () => toggle(state.filter);
  part("five").onclick = afterwards(() => (
    change({ chosen: new Set(heard.ranking.slice(0, 5).map(({ filter }) => filter)) })
  ));
  part("clear").onclick = () => change({ chosen: new Set([state.filter]) });
  part("swap").onclick = afterwards(keys.b);
  part("blind").onclick = afterwards(() => round.start(heard.state));
  part("trained").onclick = round.keys.t;
  part("random").onclick = round.keys.r;
  part("stop").onclick = () => round.stop();
  part("save").onclick = afterwards(save);
  part("link").onclick = afterwards(copyLink);
  root.ondragover = (event) => {
    event.preventDefault();
    root.classList.add("lab-drop");
  };
  root.ondragleave = ({ relatedTarget }) => {
    if (!root.contains(relatedTarget)) root.classList.remove("lab-drop");
  };
  root.ondrop = (event) => {
    event.preventDefault();
    root.classList.remove("lab-drop");
    takeFile(event.dataTransfer.files[0]);
  };
  document.addEventListener("keydown", afterwards((event) => {
    if (event.target !== document.body && !root.contains(event.target)) return;
    const typed = event.ctrlKey || event.altKey || event.metaKey || event.target.matches("select");
    const act = (round.live ? round.keys : keys)[event.key];
    if (typed || !act) return;
    event.preventDefault();
    act();
  }));
  window.onhashchange = () => follow(location.hash);
}

/** Start, and hear what the link says, or the first clip. */
async function begin() {
  try {
    await model.start();
  } catch (error) {
    say("alert", error.message);
    return;
  }
  view.offer(model);
  state.network = [...model.networks.keys()][0];
  state.clip = [...model.shipped.keys()][0];
  part("blind").hidden = !round.pair("").every(Boolean);
  connect();
  follow(location.hash);
}

begin();
