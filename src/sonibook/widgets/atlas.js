/** The atlas: every filter of a layer, to see and to hear; see sonibook.widgets.atlas. */

(() => {
  "use strict";

  const base = new URL(".", document.currentScript.src).href;
  const root = document.getElementById("atlas");
  /** How long the mouse rests on a filter before it is heard, in ms. */
  const REST = 150;
  /** Thumbnails are shown at twice their size. */
  const SCALE = 2;
  /** What filters can be sorted by: a name, and a filter's value. */
  const SORTS = {
    number: ["number", (one) => one.filter],
    energy: ["energy", (one) => one.tops[0]?.energy ?? null],
    centroid: ["centroid", (one) => one.centroid],
    bandwidth: ["bandwidth", (one) => one.bandwidth],
    agreement: ["class agreement", (one) => one.agreement],
  };

  // Pieces are scripts, because a page opened from disk may load nothing else.

  const received = new Map();
  const loading = new Map();
  window.sonibookLab = { receive: (name, content) => received.set(name, content) };

  /** @param {string} name of a piece @returns {Promise} what it hands over */
  function load(name) {
    if (!loading.has(name)) {
      loading.set(name, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `${base}${name}.js`;
        script.onload = script.onerror = () => {
          script.remove();
          if (received.has(name)) return resolve(received.get(name));
          loading.delete(name); // to be tried again
          reject(new Error(`A part of the atlas (${name}.js) cannot be loaded: make the atlas again.`));
        };
        document.head.append(script);
      }));
    }
    return loading.get(name);
  }

  /** @param {string} flac in base64 @returns {ArrayBuffer} */
  function bytes(flac) {
    return Uint8Array.from(atob(flac), (letter) => letter.charCodeAt(0)).buffer;
  }

  /** A stretch of a clip. @returns {Promise<Float32Array>} */
  async function stretchOf({ clip, start, samples }) {
    const piece = await load(`clips/${clip}`);
    const context = new OfflineAudioContext(1, 1, manifest.rate);
    const whole = await context.decodeAudioData(bytes(piece.flac));
    const first = start - piece.start;
    return whole.getChannelData(0).slice(first, first + samples);
  }



  let manifest;
  const state = {
    network: 0, layer: 1, filter: null, sort: "energy", up: false, live: true, of: "", hover: true,
  };
  /** The filters of the layer, with their numbers; those that are shown; and the turn of loading. */
  let filters = [];
  let shown = [];
  let turn = 0;
  const parts = {};

  /** @returns {HTMLElement} a new element in `parent` */
  function add(parent, tag, properties = {}, attributes = {}) {
    const made = Object.assign(document.createElement(tag), properties);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return parent.appendChild(made);
  }

  const hertz = (value) => (value === null ? "–" : `${Math.round(value)}\u00a0Hz`);
  const seconds = (samples) => (samples / manifest.rate).toFixed(2);
  const network = () => manifest.networks[state.network];
  const other = () => manifest.networks[(state.network + 1) % manifest.networks.length];
  const classesOf = ({ clip }) => manifest.clips[clip].classes.join(", ") || manifest.clips[clip].id;
  const stem = ({ folder }, layer) => `${folder}/${String(layer).padStart(2, "0")}`;
  const pieceOf = (one, layer, filter) => load(`${stem(one, layer)}-${String(filter).padStart(4, "0")}`);

  /** @returns {Promise<Object[]>} the filters of a layer of a network */
  async function table(one, layer) {
    const rows = await load(stem(one, layer));
    return rows.map(([live, agreement, centroid, bandwidth, tops], filter) => ({
      filter,
      live,
      agreement,
      centroid,
      bandwidth,
      tops: tops.map(([clip, energy, start, samples]) => ({ clip, energy, start, samples })),
    }));
  }

  /** Where the lab hears a filter on one of its top clips; "" where it cannot. */
  function labLink(filter, top) {
    if (!root.dataset.lab || !network().lab || !top) return "";
    const lab = new URL(root.dataset.lab, document.baseURI);
    const beside = new URL(".", lab).href;
    const asked = { network: network().lab, layer: state.layer, filter, hear: "one" };
    // The lab loads clips from folders below its own.
    if (base.startsWith(beside)) asked.clip = `${base.slice(beside.length)}${top.clip}`;
    return `${lab.href}#${new URLSearchParams(asked)}`;
  }

  /** A filter in words. */
  function words(one) {
    if (!one.tops.length) return `Filter ${one.filter}: dead, silent on every clip`;
    const classes = one.tops.map(classesOf).join("; ");
    return `Filter ${one.filter}: ${classes}. Centroid ${hertz(one.centroid)}, bandwidth ${hertz(one.bandwidth)}`;
  }

  function build() {
    const bar = add(root, "div", { className: "atlas-bar" });
    const networks = add(bar, "fieldset", {}, { "aria-label": "Network" });
    manifest.networks.forEach(({ name }, n) => {
      const label = add(networks, "label");
      add(label, "input", { type: "radio", name: "atlas-network", value: n, checked: n === 0 })
        .onchange = () => change({ network: n });
      label.append(` ${name}`);
    });
    parts.layer = choose(bar, "Layer", [], (value) => change({ layer: Number(value), of: "" }));
    parts.sort = choose(bar, "Sort by", Object.entries(SORTS).map(([value, [name]]) => [name, value]),
      (value) => change({ sort: value, up: value === "number" }));
    parts.up = add(bar, "button", { type: "button", onclick: () => change({ up: !state.up }) });
    parts.of = choose(bar, "Class", [], (value) => change({ of: value }));
    parts.live = check(bar, "live filters only", "live");
    parts.hover = check(bar, "play what the mouse rests on", "hover");
    parts.facts = add(root, "p", { className: "atlas-quiet" });
    parts.status = add(root, "p", { className: "atlas-quiet" }, { role: "status" });
    const body = add(root, "div", { className: "atlas-body" });
    parts.list = add(body, "ul", { className: "atlas-filters" }, { "aria-label": "Filters" });
    parts.panel = add(body, "section", { className: "atlas-panel" }, { "aria-label": "What is heard" });
    parts.title = add(parts.panel, "h2", { textContent: "Choose a filter" });
    parts.measures = add(parts.panel, "p", { textContent: "What you choose is seen and heard here." });
    parts.player = add(parts.panel, "sonibook-player", {}, { columns: 2, rate: manifest.rate });
    parts.player.remove(); // until there is something to play
    parts.tops = add(parts.panel, "ol");
    parts.credits = add(root, "p", { className: "atlas-quiet" });
    const { clips, size, skipped, dataset, split, missing } = manifest.data;
    const gone = Object.entries(skipped).map(([reason, count]) => `, ${count} ${reason}`).join("");
    parts.credits.textContent = `Top clips among ${clips} of the ${size} clips of ${dataset} (${split})${gone}`
      + `${missing ? `, ${missing} missing` : ""}. Of each clip at most ${manifest.most} s are taken, and of each `
      + `sonification the ${Number(manifest.seconds.toFixed(2))} s around the largest value of the filter's map are kept. `
      + `Centroid and bandwidth are means over the top clips, of whole sonifications. `
      + (manifest.licence ? `Recordings: ${manifest.licence}.` : "");
    parts.list.onkeydown = keys;
    root.onkeydown = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
      if (event.key === "r") change({ network: (state.network + 1) % manifest.networks.length });
      else if (event.key === "d") change({ layer: state.layer + 1 });
      else if (event.key === "u") change({ layer: state.layer - 1 });
      else if (/^[1-9]$/.test(event.key) && !parts.player.contains(event.target)) hear(Number(event.key) - 1);
      else return;
      event.preventDefault();
    };
    // A mouse that rests on a filter leaves the focus where it was.
    document.addEventListener("keydown", (event) => {
      if (event.target === document.body && root.matches(":hover") && /^[rdu]$/.test(event.key)) root.onkeydown(event);
    });
  }

  function choose(bar, name, options, act) {
    const label = add(bar, "label", { textContent: `${name} ` });
    const select = add(label, "select", {}, { "aria-label": name });
    for (const [text, value] of options) select.append(new Option(text, value));
    select.onchange = () => act(select.value);
    return select;
  }

  function check(bar, name, key) {
    const label = add(bar, "label");
    const box = add(label, "input", { type: "checkbox", checked: state[key] });
    box.onchange = () => change({ [key]: box.checked });
    label.append(` ${name}`);
    return box;
  }

  /** Show what the state becomes. */
  async function change(changes) {
    const before = { ...state };
    Object.assign(state, changes);
    const { layers } = network();
    state.layer = Math.min(Math.max(state.layer || 1, 1), layers.length);
    const moved = before.layer !== state.layer || before.network !== state.network || !filters.length;
    const mine = ++turn;
    root.setAttribute("aria-busy", "true");
    try {
      const found = moved ? await table(network(), state.layer) : filters;
      if (mine !== turn) return;
      filters = found;
      const inside = parts.list.contains(document.activeElement);
      list();
      if (moved && filters[state.filter]) await select(filters[state.filter], { play: false });
      if (inside) cardOf(state.filter)?.focus({ preventScroll: true });
      note();
    } catch (error) {
      parts.status.textContent = error.message;
    }
    if (mine === turn) root.removeAttribute("aria-busy");
  }

  /** The controls, and the filters that they let through, in their order. */
  function list() {
    const { layers, facts } = network();
    parts.facts.textContent = facts.join(" ");
    for (const radio of root.querySelectorAll("[name=atlas-network]")) {
      radio.checked = Number(radio.value) === state.network;
    }
    parts.layer.replaceChildren(...layers.map(({ filters: count, dead }, n) => (
      new Option(`${n + 1}: ${count} filters${dead ? `, ${dead} dead` : ""}`, n + 1)
    )));
    parts.layer.value = state.layer;
    const known = new Set(filters.flatMap(({ tops }) => tops.flatMap(({ clip }) => manifest.clips[clip].classes)));
    parts.of.replaceChildren(new Option("any", ""), ...[...known].sort().map((name) => new Option(name)));
    if (!known.has(state.of)) state.of = "";
    parts.of.value = state.of;
    parts.sort.value = state.sort;
    parts.up.textContent = state.up ? "ascending" : "descending";
    const [, value] = SORTS[state.sort];
    shown = filters.filter(({ tops }) => (
      (!state.live || tops.length)
      && (!state.of || tops.some(({ clip }) => manifest.clips[clip].classes.includes(state.of)))
    ));
    const sign = state.up ? 1 : -1;
    shown.sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      if (left === right) return a.filter - b.filter;
      if (left === null || right === null) return left === null ? 1 : -1; // not measured: last
      return sign * (left - right);
    });
    parts.list.replaceChildren(...shown.map(card));
    if (!shown.some(({ filter }) => filter === state.filter)) mark(shown[0]?.filter);
    else mark(state.filter);
    const { milliseconds } = layers[state.layer - 1];
    const agreements = filters.map(({ agreement }) => agreement).filter((one) => one !== null);
    const mean = agreements.reduce((sum, one) => sum + one, 0) / agreements.length;
    parts.status.textContent = `Layer ${state.layer} of ${network().name}: ${shown.length} of ${filters.length} filters shown; `
      + `each hears ${milliseconds} ms.${agreements.length ? ` Mean class agreement ${mean.toFixed(2)}.` : ""}`;
  }

  /** A filter among the others: a link to the lab where there is one. */
  function card(one) {
    const item = document.createElement("li");
    const link = labLink(one.filter, one.tops[0]);
    const made = add(item, link ? "a" : "button", { className: "atlas-card", tabIndex: -1 });
    if (link) made.href = link;
    else made.type = "button";
    made.dataset.filter = one.filter;
    made.setAttribute("aria-label", `${words(one)}${link ? ". Opens the lab" : ""}`);
    const [width, height, row] = manifest.thumbnail;
    const picture = add(made, "span", { className: "atlas-picture" });
    picture.style.width = `${SCALE * width}px`;
    picture.style.height = `${SCALE * height}px`;
    if (one.tops.length) {
      const columns = Math.min(filters.length, row);
      const [x, y] = [one.filter % row, Math.floor(one.filter / row)];
      picture.style.backgroundImage = `url("${base}${stem(network(), state.layer)}.webp")`;
      picture.style.backgroundSize = `${SCALE * width * columns}px auto`;
      picture.style.backgroundPosition = `${-SCALE * width * x}px ${-SCALE * height * y}px`;
    } else picture.textContent = "dead";
    add(made, "b", { textContent: one.filter });
    add(made, "span", { className: "atlas-class", textContent: one.tops.length ? classesOf(one.tops[0]) : "" });
    made.onpointermove = ({ pointerType, movementX, movementY }) => {
      // Where the list changes under a mouse that lies still, nothing is asked for.
      if (pointerType !== "mouse" || !state.hover || !(movementX || movementY)) return;
      clearTimeout(card.resting);
      if (state.filter !== one.filter || parts.player.paused) {
        card.resting = setTimeout(() => select(one, { play: true }), REST);
      }
    };
    made.onpointerleave = () => clearTimeout(card.resting);
    made.onkeydown = () => { card.touched = false; };
    made.onfocus = () => {
      if (made.matches(":focus-visible") && state.filter !== one.filter) select(one, { play: true });
    };
    made.onpointerdown = ({ pointerType }) => { card.touched = pointerType === "touch"; };
    made.onclick = (event) => {
      clearTimeout(card.resting);
      // A finger cannot rest on a filter: its first touch is for hearing.
      const heard = state.filter === one.filter && parts.player.isConnected;
      if (link && (heard || !card.touched)) return;
      event.preventDefault();
      select(one, { play: true });
    };
    return item;
  }

  const cardOf = (filter) => parts.list.querySelector(`[data-filter="${filter}"]`);

  /** Let Tab come to one filter of the list: arrows go on from there. */
  function mark(filter) {
    for (const one of parts.list.querySelectorAll("[tabindex='0'], [aria-current]")) {
      one.tabIndex = -1;
      one.removeAttribute("aria-current");
    }
    const here = cardOf(filter);
    if (!here) return;
    here.tabIndex = 0;
    if (filter === state.filter) here.setAttribute("aria-current", "true");
  }

  /** Show a filter's sounds in the player, and what the same place of the other network keeps. */
  async function select(one, { play }) {
    state.filter = one.filter;
    mark(one.filter);
    note();
    const { player } = parts;
    parts.panel.classList.add("atlas-chosen");
    parts.title.textContent = `Layer ${state.layer}, filter ${one.filter}`;
    const [top] = one.tops;
    parts.measures.textContent = top
      ? `Live on ${one.live} clips. Centroid ${hertz(one.centroid)}, bandwidth ${hertz(one.bandwidth)}, energy `
        + `${top.energy.toPrecision(3)}${one.agreement === null ? "" : `, class agreement ${one.agreement.toFixed(2)}`}.`
      : "Dead: its map is zero throughout on every clip.";
    parts.tops.replaceChildren(...one.tops.map((each) => {
      const item = document.createElement("li");
      const { id, credit } = manifest.clips[each.clip];
      const stretch = `${seconds(each.start)} to ${seconds(each.start + each.samples)} s`;
      item.append(`${classesOf(each)}: clip ${id}, ${stretch}. `);
      const link = labLink(one.filter, each);
      if (link) add(item, "a", { href: link, textContent: "Open in the lab" });
      if (credit) add(item, "small", { textContent: ` ${credit}` });
      return item;
    }));
    const [mine, theirs, layer] = [network(), other(), state.layer];
    const beside = theirs.layers[layer - 1] ? (await table(theirs, layer))[one.filter] : null;
    if (state.filter !== one.filter || network() !== mine || state.layer !== layer) return;
    const kept = (owner, rank) => async () => bytes((await pieceOf(owner, layer, one.filter))[rank]);
    const tracks = one.tops.flatMap((each, rank) => [
      { name: `Clip: ${classesOf(each)}`, sound: () => stretchOf(each) },
      { name: "Sonification", sound: kept(mine, rank) },
    ]);
    if (theirs !== mine && beside) {
      tracks.push(...beside.tops.map((each, rank) => (
        { name: `${theirs.name}: ${classesOf(each)}`, sound: kept(theirs, rank) }
      )));
    }
    player.pause?.();
    if (!tracks.length) player.remove();
    else if (!player.isConnected) parts.tops.before(player);
    player.label = `Layer ${layer}, filter ${one.filter} of ${mine.name}`;
    player.tracks = tracks;
    if (play && one.tops.length) hear(1);
  }

  /** Play a track of the filter from its beginning. */
  function hear(number) {
    const { player } = parts;
    if (!player.tracks?.[number]) return;
    if (navigator.userActivation?.hasBeenActive === false) {
      parts.status.textContent = "Click anywhere once: before that, the browser lets no page play a sound.";
    }
    player.track = number;
    player.currentTime = 0;
    if (player.paused) player.play();
  }

  /** Arrows go from filter to filter. */
  function keys(event) {
    const here = shown.findIndex(({ filter }) => String(filter) === event.target.dataset.filter);
    if (here < 0) return;
    const cards = [...parts.list.children];
    const across = cards.filter(({ offsetTop }) => offsetTop === cards[0].offsetTop).length;
    const next = {
      ArrowRight: here + 1, ArrowLeft: here - 1, ArrowDown: here + across, ArrowUp: here - across,
      Home: 0, End: shown.length - 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    if (shown[next]) cardOf(shown[next].filter).focus();
  }

  /** Keep what is shown in the page's address, so that a link brings it back. */
  function note() {
    const kept = { network: network().folder, layer: state.layer };
    if (state.filter !== null) kept.filter = state.filter;
    history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
  }

  /** What the page's address asks for. */
  function asked() {
    const given = new URLSearchParams(location.hash.slice(1));
    const number = manifest.networks.findIndex(({ folder }) => folder === given.get("network"));
    const filter = /^\d+$/.test(given.get("filter") ?? "") ? Number(given.get("filter")) : null;
    return { network: Math.max(number, 0), layer: Number.parseInt(given.get("layer"), 10) || 1, filter };
  }

  async function begin() {
    try {
      manifest = await load("manifest");
    } catch (error) {
      add(root, "p", { textContent: error.message }, { role: "alert" });
      return;
    }
    build();
    await change(asked());
    window.addEventListener("hashchange", () => change(asked()));
  }

  begin();
})();
