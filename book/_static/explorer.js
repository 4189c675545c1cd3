/* Static explorers move: whatever has a data-slider is moved between its children that have a
   data-stop. Without this script they are sections to open, one by one. And one sound plays at a
   time on a page, whoever started it. */

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

  /** Let a player go on from a place, as soon as it can. */
  function resume(player, seconds) {
    const go = () => {
      player.currentTime = Math.min(seconds, player.duration || seconds);
      player.play();
    };
    if (player.readyState >= 1) go();
    else {
      player.addEventListener("loadedmetadata", go, { once: true });
      player.load();
    }
  }

  function enhance(section, number) {
    const sliders = slidersOf(section);
    if (!sliders.size) return;
    const state = {};
    const isShown = (element) => !element.closest("[hidden]");
    const sound = (kind) => (
      [...section.querySelectorAll(`[data-sound="${kind}"] audio`)].find(isShown)
    );

    /** Show what the sliders stand at; what plays goes on, at the same place. */
    function show() {
      const playing = [...section.querySelectorAll("audio")].find((each) => !each.paused);
      for (const slider of section.querySelectorAll("[data-slider]")) {
        for (const stop of slider.children) {
          if (stop.dataset.stop) stop.hidden = stop.dataset.stop !== state[slider.dataset.slider];
        }
      }
      if (playing && !isShown(playing)) {
        const kind = playing.closest("[data-sound]")?.dataset.sound;
        const next = kind ? sound(kind) : [...section.querySelectorAll("audio")].find(isShown);
        const place = playing.currentTime;
        playing.pause();
        if (next) resume(next, place);
      }
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
        range.value = values.indexOf(state[name]);
        output.htmlFor = id;
        const tell = () => {
          state[name] = values[range.value];
          output.textContent = state[name];
          range.setAttribute("aria-valuetext", `${name} ${state[name]}`);
        };
        range.oninput = () => {
          tell();
          show();
        };
        tell();
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
    function point() {
      const filter = [...section.querySelectorAll("[data-filter]")].find(isShown);
      const network = filter?.closest("[data-lab]");
      link.hidden = !page || !network;
      if (link.hidden) return;
      const parts = { network: network.dataset.lab, layer: state.Layer, filter: filter.dataset.filter };
      link.href = `${page.split("#")[0]}#${new URLSearchParams(parts)}`;
    }

    if (sound("input")) {
      const end = document.createElement("div");
      end.className = "explorer-end";
      const swap = document.createElement("button");
      swap.type = "button";
      swap.textContent = "A/B";
      swap.title = "Go on with the other of input and sonification, at the same place";
      swap.onclick = () => {
        const input = sound("input");
        (input.paused ? input : sound("sonification")).play();
      };
      end.append(swap, link);
      section.querySelector("[data-slider]").after(end);
    }
    for (const details of section.querySelectorAll("details")) details.open = true;
    section.classList.add("explorer-moves");
    show();
  }

  /** What is started silences what plays; within an explorer it takes over, at the same place. */
  function takeOver({ target }) {
    const section = target.closest("section.explorer");
    for (const other of document.querySelectorAll("audio")) {
      if (other === target || other.paused) continue;
      const place = other.currentTime;
      other.pause();
      if (section && other.closest("section.explorer") === section) resume(target, place);
    }
  }

  function begin() {
    document.addEventListener("play", takeOver, true);
    document.querySelectorAll("section.explorer").forEach(enhance);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
