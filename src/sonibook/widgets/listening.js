/** The player as a widget: joined with player.js, and given its sounds by Python. */

function render({ model, el }) {
  const player = document.createElement("sonibook-player");
  player.setAttribute("reference", "first"); // one filter is compared with the next
  function show() {
    const titles = Object.entries(model.get("titles")).filter(([name]) => model.get(name)?.byteLength);
    player.label = model.get("about");
    player.rate = model.get("rate");
    player.tracks = titles.map(([name, title]) => ({ name: title, sound: model.get(name) }));
  }
  show();
  model.on("change", show);
  el.append(player);
}

export default { render };
