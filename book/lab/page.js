/** The lab: what the reader does, what is computed then, and what is shown. */

import { Classes } from "./classes.js";
import { WAYS, fromLink, ofAtlas, toLink } from "./link.js";
import { Model, OWN } from "./model.js";
import { receive } from "./pieces.js";
import { RECORD_SECONDS, decode, prepared } from "./recordings.js";
import { record } from "../../src/sonibook/widgets/recorder.js";
import { View, part, say } from "./view.js";
import { wavOf } from "../../src/sonibook/widgets/sound.js";

const root = document.getElementById("lab");
const model = new Model(new URL(".", document.currentScript.src).href);
const view = new View();
const classes = new Classes(model, view);
/** What to play next, what was heard last, and whether it is being computed. */
let state = { network: "", clip: "", layer: 8, filter: null, way: "one", chosen: new Set() };
let heard = null;
let busy = false;
let again = false;
let linking = 0;

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

/** Compute what a state asks for. @returns {Promise<Object>} all that the view shows */
async function hear(wanted) {
  const network = model.networks.get(wanted.network);
  const layer = Math.min(Math.max(wanted.layer, 1), network.layers.length);
  const ranking = await model.ranking(wanted.network, wanted.clip, layer);
  const clip = await model.clip(wanted.clip);
  const notices = [...clip.notices];
  if (clip.samples.length < network.leastLength) {
    const seconds = (network.leastLength / model.rate).toFixed(2);
    notices.push(`It is short: zeros were added, to the ${seconds} s that the network needs.`);
  }
  let { filter } = wanted;
  if (!ranking.some((entry) => entry.filter === filter)) {
    if (filter !== null && ranking.length) {
      notices.push(`Filter ${filter} is silent here: the one with the most energy is taken.`);
    }
    filter = ranking[0]?.filter ?? 0;
  }
  const count = network.layers[layer - 1].channels;
  const chosen = new Set([...wanted.chosen].filter((one) => one < count));
  const now = { ...wanted, layer, filter, chosen };
  const filters = {
    one: [filter],
    only: [...chosen],
    without: [...Array(count).keys()].filter((one) => !chosen.has(one)),
    layer: null,
  }[now.way];
  const sounds = await model.sonify(now.network, layer, filters);
  return { state: now, network, clip, ranking, filters, notices, rate: model.rate, ...sounds };
}

/** Hear what the state says; where it changes meanwhile, hear that next. */
async function refresh() {
  again = true;
  if (busy) return;
  busy = true;
  root.setAttribute("aria-busy", "true");
  try {
    while (again) {
      again = false;
      const fresh = await hear(state);
      if (!again) state = fresh.state;
      heard = fresh;
      view.show(heard);
      classes.ask(heard);
      clearTimeout(linking);
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
  root.dispatchEvent(new CustomEvent("heard"));
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
    change({ clip: OWN });
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
  if (asked.network && !model.networks.has(asked.network)) {
    unknown.push(`This book has no network ${asked.network}.`);
    delete asked.network;
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
  change(asked);
  say("alert", ...unknown);
}

const keys = {
  b: () => view.swap(),
  n: () => step(1),
  p: () => step(-1),
  d: () => changeLayer({ layer: state.layer + 1 }),
  u: () => changeLayer({ layer: state.layer - 1 }),
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
    if (typed || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
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
  connect();
  follow(location.hash);
}

begin();
