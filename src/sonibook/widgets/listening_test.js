/** The blind listening test; see sonibook.widgets.listening_test. It does not know the answers. */

(() => {
  "use strict";

  const TASKS = {
    clip: ["Which of the three clips was the sound made from?", ["The sound", "Clip A", "Clip B", "Clip C"]],
    class: ["What do you hear? Guess if you are not sure.", ["The sound"]],
    closer: ["Which of the two sounds is closer to the clip?", ["The clip", "Sound A", "Sound B"]],
  };
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  /** So many other trials there are for each catch trial. */
  const BETWEEN = 9;
  const simulation = location.hash === "#simulation";
  const stage = document.getElementById("stage");

  const received = new Map();
  window.sonibookLab = { receive: (name, content) => received.set(name, content) };

  let test; // what trials.js hands over
  let session; // who listens, which trials are offered in which order, and the answers
  let keys = null; // what keys do now

  /** @returns {HTMLElement} a new element in `parent` */
  function add(parent, tag, properties = {}, attributes = {}) {
    const made = Object.assign(document.createElement(tag), properties);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return parent.appendChild(made);
  }

  const store = {
    read() {
      try {
        const kept = JSON.parse(localStorage.getItem(`sonibook-listening-${test.test}`));
        return kept?.simulation === simulation ? kept : null;
      } catch { return null; }
    },
    write() {
      try {
        localStorage.setItem(`sonibook-listening-${test.test}`, JSON.stringify(session));
      } catch { /* A page may have nothing to keep it in. */ }
    },
  };

  function shuffled(list) {
    const mixed = [...list];
    for (let n = mixed.length - 1; n > 0; n--) {
      const other = Math.floor(Math.random() * (n + 1));
      [mixed[n], mixed[other]] = [mixed[other], mixed[n]];
    }
    return mixed;
  }

  /** One trial of each cell, on clips drawn by turns; a catch trial among each ten. */
  function draw() {
    const clips = shuffled(Array(test.clips).keys());
    const cells = shuffled(new Set(test.trials.map(({ cell }) => cell)));
    const drawn = cells.map((cell, n) => (
      test.trials.find((one) => one.cell === cell && one.clip === clips[n % clips.length])
    ));
    const order = drawn.filter((one) => !one.catch);
    drawn.filter((one) => one.catch).forEach((one, n) => {
      order.splice(n * (BETWEEN + 1) + Math.floor(Math.random() * (BETWEEN + 1)), 0, one);
    });
    return order.map(({ id }) => id);
  }

  /** A FLAC file. @param {number} number of a sound */
  function sound(number) {
    const piece = received.get(`sounds-${Math.floor(number / test.piece)}`);
    return Uint8Array.from(atob(piece[number % test.piece]), (letter) => letter.charCodeAt(0));
  }

  /** A player that shows nothing of its sounds: neither pictures nor levels. */
  function player(names, numbers) {
    const made = add(stage, "sonibook-player", {}, { columns: 4, rate: test.rate, compact: "", blind: "" });
    made.tracks = names.map((name, n) => ({ name, sound: sound(numbers[n]) }));
    return made;
  }

  /** A new screen, whose heading gets the focus. */
  function screen(heading) {
    stage.replaceChildren();
    keys = null;
    const title = add(stage, "h2", { textContent: heading, tabIndex: -1 });
    title.focus();
    scrollTo(0, 0);
    return title;
  }

  function button(text, act, first = false) {
    return add(stage, "button", { type: "button", textContent: text, className: first ? "first" : "", onclick: act });
  }

  const say = (text, className = "") => add(stage, "p", { textContent: text, className });

  function welcome() {
    screen("Before you begin");
    say(`There are ${draw().length} short trials, which take about ten minutes. Some are hard, and some are meant `
      + "to be impossible: guess then. You may stop at any time, and what you have answered counts.");
    say("Nothing is sent anywhere. Your answers stay in this browser until you save them as a file, which says "
      + "nothing about you.");
    say("Use headphones if you can.");
    const kept = store.read();
    if (kept?.answers.length) {
      const done = kept.answers.length === kept.offered.length;
      button(done ? "Save what you answered" : `Go on at trial ${kept.answers.length + 1}`, () => {
        session = kept;
        if (done) end();
        else level(() => trial());
      }, true);
    }
    button("Begin", () => {
      const listener = [...crypto.getRandomValues(new Uint8Array(8))].map((one) => one.toString(16).padStart(2, "0"));
      session = { listener: listener.join(""), simulation, offered: draw(), answers: [] };
      level(() => practise(0));
    }, !stage.querySelector(".first"));
  }

  function level(next) {
    screen("Set the level");
    say("Play the noise (key 1), and set the volume of your device so that it is comfortable. All sounds of the "
      + "test are about as loud: leave the volume as it is from here on.");
    const made = player(["Noise"], [test.noise]);
    button("It is comfortable (Enter)", next, true);
    keys = { player: made, choices: [], enter: next };
  }

  function practise(number) {
    const one = test.practice[number];
    if (!one) return begin();
    return ask(one, `Practice ${number + 1} of ${test.practice.length}`, ({ choice }, names) => {
      const right = choice === one.answer;
      screen(right ? "Right" : "Not this time");
      say(`The answer is ${names[one.answer]}. From the test itself on, you are not told.`);
      button("Go on (Enter)", () => practise(number + 1), true);
      keys = { choices: [], enter: () => practise(number + 1) };
    });
  }

  function begin() {
    store.write();
    screen("Now the test");
    say(`The practice is over, and ${session.offered.length} trials follow.`);
    button("Begin the test (Enter)", () => trial(), true);
    keys = { choices: [], enter: () => trial() };
  }

  function trial() {
    const number = session.answers.length;
    if (number === session.offered.length) return end();
    const one = test.trials.find(({ id }) => id === session.offered[number]);
    ask(one, `Trial ${number + 1} of ${session.offered.length}`, ({ choice, milliseconds, plays }) => {
      session.answers.push({ trial: one.id, choice, milliseconds, plays });
      store.write();
      trial();
    });
    add(stage, "progress", { max: session.offered.length, value: number }, { "aria-label": "Progress" });
    button("Stop here", number ? end : welcome);
    return undefined;
  }

  /** Ask one trial, and hand over what was chosen. */
  function ask({ task, sounds }, heading, done) {
    const [question, names] = TASKS[task];
    const choices = task === "class" ? test.classes : names.slice(1);
    screen(heading);
    const made = player(names, sounds);
    const since = performance.now();
    let plays = 0;
    made.addEventListener("play", () => { plays += 1; });
    const field = add(stage, "fieldset");
    add(field, "legend", { textContent: question });
    const list = add(field, "div", { className: "choices" });
    const radios = choices.map((name, n) => {
      const label = add(list, "label");
      const radio = add(label, "input", { type: "radio", name: "choice", value: n });
      add(label, "kbd", { textContent: LETTERS[n] }, { "aria-hidden": "true" });
      label.append(name);
      radio.onchange = ready;
      return radio;
    });
    const last = names.length > 1 ? ` to ${names.length}` : "";
    const letters = [...LETTERS.slice(0, choices.length)].join(", ");
    say(`Keys: 1${last} to listen, ${letters} to answer, Enter to go on.`, "quiet");
    const told = add(stage, "p", { className: "told" }, { role: "status" });
    const missing = () => {
      if (!plays) return "Play the sound first.";
      return radios.some(({ checked }) => checked) ? "" : "Choose an answer first.";
    };
    const go = () => {
      told.textContent = missing();
      if (told.textContent) return;
      const choice = radios.findIndex(({ checked }) => checked);
      done({ choice, plays, milliseconds: Math.round(performance.now() - since) }, choices);
    };
    const next = button("Next (Enter)", go, true);
    function ready() {
      next.setAttribute("aria-disabled", Boolean(missing()));
      told.textContent = "";
    }
    made.addEventListener("play", ready);
    ready();
    keys = { player: made, choices: radios, enter: go };
  }

  function end() {
    screen("Thank you");
    say(`You answered ${session.answers.length} of ${session.offered.length} trials. Save your answers, and send the `
      + "file to whoever asked you to listen. Until you save them they are in this browser alone.");
    if (simulation) say("The file says that it is a simulation.");
    const save = () => {
      add(stage, "a", { href: URL.createObjectURL(new Blob([saved()], { type: "application/json" })),
        download: `listening-${session.listener}.json`, hidden: true }).click();
      told.textContent = "Saved among your downloads.";
    };
    button("Save my answers (Enter)", save, true);
    if (session.answers.length < session.offered.length) button("Go on after all", () => trial());
    const told = add(stage, "p", { className: "told" }, { role: "status" });
    keys = { choices: [], enter: save };
    if (!test.licence) return;
    const about = add(stage, "details", { className: "quiet" });
    add(about, "summary", { textContent: "Where the clips come from" });
    add(about, "p", { textContent: [test.licence, ...test.credits].join("; ") });
  }

  /** The file; its checksum is `ListenerFile.sum` of sonibook.analysis.listening. */
  function saved() {
    const { listener, offered, answers } = session;
    const lines = [test.version, test.test, listener, simulation, offered.join(" "),
      ...answers.map((one) => `${one.trial} ${one.choice} ${one.milliseconds} ${one.plays}`)];
    let crc = -1;
    for (const letter of lines.join("\n")) {
      crc ^= letter.charCodeAt(0);
      for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
    }
    const file = { kind: "sonibook listening test", version: test.version, test: test.test, listener, simulation,
      offered, answers, checksum: ~crc >>> 0 };
    return `${JSON.stringify(file, null, 1)}\n`;
  }

  // Before the player, which has digits of its own.
  document.addEventListener("keydown", (event) => {
    if (!keys || event.ctrlKey || event.metaKey || event.altKey) return;
    const { target, key } = event;
    const letter = /^[a-z]$/i.test(key) ? keys.choices[key.toLowerCase().charCodeAt(0) - 97] : null;
    if (/^[1-9]$/.test(key) && keys.player?.tracks[key - 1]) {
      keys.player.track = key - 1;
      keys.player.currentTime = 0;
      keys.player.play();
    } else if (letter) letter.click();
    else if (key === "Enter" && !target.closest("button, a, summary, sonibook-player")) keys.enter();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }, true);

  window.addEventListener("load", () => {
    test = received.get("trials");
    document.getElementById("simulation").hidden = !simulation;
    welcome();
  });
})();
