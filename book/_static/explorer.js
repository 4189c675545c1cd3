/* Static explorers move: whatever has a data-slider is moved between its children that have a
   data-stop. Without this script they are sections to open, one by one. Their one player takes the
   sounds of the stop that is shown, or the track of its number. */

(() => {
  "use strict";

  /** All values of each slider of an explorer, in order. */
  function slidersOf(section) {
    const sliders = new Map();
    for (const slider of section.querySelectorAll("[data-slider]")) {
      const values = sliders.get(slider.dataset.slider) ?? [];
      for (const { dataset } of slider.children) {
        if (dataset.stop && !values.includes(dataset.stop)) values.push(dataset.stop);
      }
      sliders.set(slider.dataset.slider, values);
    }
    return sliders;
  }

  function enhance(section, number) {
    const sliders = slidersOf(section);
    if (!sliders.size) return;
    const state = {};
    const isShown = (element) => !element.closest("[hidden]");
    const player = section.querySelector("sonibook-player");
    const input = player?.querySelector("figure");
    const figures = [...section.querySelectorAll("[data-stop] figure:has(audio)")];

    /** Show what the sliders stand at; what plays goes on, at the same place. */
    function show() {
      for (const slider of section.querySelectorAll("[data-slider]")) {
        for (const stop of slider.children) {
          if (stop.dataset.stop) stop.hidden = stop.dataset.stop !== state[slider.dataset.slider];
        }
      }
      if (player && figures.length) player.tracks = [input, ...figures.filter(isShown)];
      else if (player) player.track = [...sliders.values()][0].indexOf(Object.values(state)[0]);
      point();
    }

    const bar = document.createElement("div");
    bar.className = "explorer-bar";
    for (const [name, values] of sliders) {
      const first = section.querySelector(`[data-slider="${name}"] > details[open]`);
      state[name] = first?.dataset.stop ?? values[0];
      const id = `explorer-${number}-${name.replace(/\W+/g, "-").toLowerCase()}`;
      const label = document.createElement("label");
      label.htmlFor = id;
      label.textContent = name;
      bar.append(label);
      if (values.every((value) => Number.isFinite(Number(value)))) {
        const range = document.createElement("input");
        const output = document.createElement("output");
        Object.assign(range, { id, type: "range", min: 0, max: values.length - 1 });
        output.htmlFor = id;
        const tell = (value) => {
          state[name] = value;
          range.value = values.indexOf(value);
          output.textContent = value;
          range.setAttribute("aria-valuetext", `${name} ${value}`);
        };
        range.oninput = () => {
          tell(values[range.value]);
          show();
        };
        if (player && !figures.length) {
          player.addEventListener("track", () => {
            tell(values[player.track]);
            show();
          });
        }
        tell(state[name]);
        bar.append(range, output);
      } else {
        const choice = document.createElement("select");
        choice.id = id;
        choice.append(...values.map((value) => new Option(value)));
        choice.value = state[name];
        choice.onchange = () => {
          state[name] = choice.value;
          show();
        };
        bar.append(choice, document.createElement("span"));
      }
    }
    section.prepend(bar);

    /** A link to this filter in the lab, where the lab has the network. */
    const page = document.querySelector('nav a[href$="lab.html"]')?.href;
    const link = document.createElement("a");
    link.className = "explorer-lab";
    link.textContent = "This filter in the lab";
    section.querySelector("[data-slider]").after(link);
    function point() {
      const filter = [...section.querySelectorAll("[data-filter]")].find(isShown);
      const network = filter?.closest("[data-lab]");
      link.hidden = !page || !network;
      if (link.hidden) return;
      const parts = { network: network.dataset.lab, layer: state.Layer, filter: filter.dataset.filter };
      link.href = `${page.split("#")[0]}#${new URLSearchParams(parts)}`;
    }

    if (figures.length) player.setAttribute("reference", "first"); // as in the lab
    for (const details of section.querySelectorAll("details")) details.open = true;
    section.classList.add("explorer-moves");
    show();
  }

  const begin = () => document.querySelectorAll("section.explorer").forEach(enhance);
  // Players take what stands inside them first.
  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", () => setTimeout(begin));
  } else setTimeout(begin);
})();
