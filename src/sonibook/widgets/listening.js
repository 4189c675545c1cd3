/** Players at one gain. One that is started takes over from the one that plays. */

const NAMES = ["input", "sonification", "residual"];

/** Let a player go on from a place, as soon as it can. */
function resume(player, seconds) {
  const go = () => {
    player.currentTime = Math.min(seconds, player.duration || seconds);
    player.play();
  };
  if (player.readyState >= 1) go();
  else player.addEventListener("loadedmetadata", go, { once: true });
}

/** One sound at a time on a page, whoever plays it; within a widget one takes over (below). */
function silenceOthers({ target }) {
  const group = target.closest(".sonibook-listening");
  for (const other of document.querySelectorAll("audio")) {
    if (other === target || other.paused) continue;
    if (!group || other.closest(".sonibook-listening") !== group) other.pause();
  }
}
if (!window.sonibookOneSound) {
  window.sonibookOneSound = true;
  document.addEventListener("play", silenceOthers, true);
}

function render({ model, el }) {
  el.classList.add("sonibook-listening");
  const style = document.createElement("style");
  style.textContent = `
    .sonibook-listening { width: 100%; }
    .sonibook-listening .three { display: grid; gap: 0.5rem;
      grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); max-width: 60rem; }
    .sonibook-listening figure { margin: 0; }
    .sonibook-listening audio { display: block; width: 100%; height: 2.4rem; }
    .sonibook-listening .bar { display: flex; gap: 1rem; align-items: center; margin: 0.4rem 0; }`;
  const three = document.createElement("div");
  three.className = "three";
  const players = {};
  const urls = {};
  const captions = {};
  const names = NAMES.filter((name) => name in model.get("titles"));
  for (const name of names) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    captions[name] = caption;
    const player = document.createElement("audio");
    player.controls = true;
    player.preload = "auto";
    player.dataset.name = name;
    player.onloadedmetadata = label; // a player says 0:00 of what is shorter than a second
    player.onplay = () => {
      const other = Object.values(players).find((each) => each !== player && !each.paused);
      if (!other) return;
      const place = other.currentTime;
      other.pause();
      resume(player, place);
    };
    players[name] = player;
    figure.append(caption, player);
    three.append(figure);
  }

  function load(name) {
    const bytes = model.get(name);
    if (!bytes?.byteLength) return;
    const player = players[name];
    const place = player.paused ? null : player.currentTime;
    const old = urls[name];
    urls[name] = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
    player.src = urls[name];
    if (old) URL.revokeObjectURL(old);
    if (place !== null) resume(player, place); // a slider that is moved while one listens
  }

  function label() {
    for (const name of names) {
      const title = model.get("titles")[name];
      const about = model.get("about") && name !== "input" ? ` (${model.get("about")})` : "";
      const { duration } = players[name];
      players[name].setAttribute("aria-label", title + about);
      captions[name].textContent = duration < 1 ? `${title} (${duration.toPrecision(2)} s)` : title;
    }
  }

  const bar = document.createElement("div");
  bar.className = "bar";
  const swap = document.createElement("button");
  swap.type = "button";
  swap.className = "jupyter-button widget-button";
  swap.textContent = "A/B";
  swap.title = "Go on with the other of input and sonification, at the same place";
  swap.onclick = () => {
    const { input, sonification } = players;
    (input.paused ? input : sonification).play();
  };
  const looping = document.createElement("label");
  const box = document.createElement("input");
  box.type = "checkbox";
  box.onchange = () => {
    for (const player of Object.values(players)) player.loop = box.checked;
  };
  looping.append(box, " loop");
  bar.append(swap, looping);

  el.append(style, three);
  if (players.input && players.sonification) el.append(bar);
  label();
  names.forEach(load);
  model.on("change:about", label);
  model.on("change:titles", label);
  for (const name of names) model.on(`change:${name}`, () => load(name));
  return () => Object.values(urls).forEach((url) => URL.revokeObjectURL(url));
}

export default { render };
