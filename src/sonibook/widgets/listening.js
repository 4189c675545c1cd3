/** Three players at one gain. One that is started takes over from the one that plays. */

const NAMES = { input: "Input", sonification: "Sonification", residual: "Input − sonification" };

/** Let a player go on from a place, as soon as it can. */
function resume(player, seconds) {
  const go = () => {
    player.currentTime = Math.min(seconds, player.duration || seconds);
    player.play();
  };
  if (player.readyState >= 1) go();
  else player.addEventListener("loadedmetadata", go, { once: true });
}

function render({ model, el }) {
  el.classList.add("sonibook-listening");
  const style = document.createElement("style");
  style.textContent = `
    .sonibook-listening { width: 100%; }
    .sonibook-listening .three { display: grid; gap: 0.5rem;
      grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); max-width: 60rem; }
    .sonibook-listening figure { margin: 0; }
    .sonibook-listening audio { display: block; width: 100%; height: 2.4rem; }
    .sonibook-listening .bar { display: flex; gap: 1rem; align-items: center; margin: 0.4rem 0; }`;
  const three = document.createElement("div");
  three.className = "three";
  const players = {};
  const urls = {};
  for (const [name, title] of Object.entries(NAMES)) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    const player = document.createElement("audio");
    player.controls = true;
    player.preload = "auto";
    player.dataset.name = name;
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
    for (const [name, title] of Object.entries(NAMES)) {
      const about = name === "input" ? "" : ` (${model.get("about")})`;
      players[name].setAttribute("aria-label", title + about);
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

  el.append(style, three, bar);
  label();
  Object.keys(NAMES).forEach(load);
  model.on("change:about", label);
  for (const name of Object.keys(NAMES)) model.on(`change:${name}`, () => load(name));
  return () => Object.values(urls).forEach((url) => URL.revokeObjectURL(url));
}

export default { render };
