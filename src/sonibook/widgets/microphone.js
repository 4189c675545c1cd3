/** A button that records from the microphone; joined with recorder.js, which does it. */

function render({ model, el }) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "jupyter-button widget-button sonibook-microphone";
  const title = () => `Record ${model.get("seconds")} s`;
  button.textContent = title();
  button.onclick = async () => {
    button.disabled = true;
    try {
      const { samples, rate } = await record(model.get("seconds"), (left) => {
        button.textContent = `Recording: ${left} s`;
      });
      model.set("samples", new DataView(samples.buffer));
      model.set("rate", Math.round(rate));
      model.set("trouble", "");
      model.set("take", model.get("take") + 1);
    } catch (error) {
      model.set("trouble", ""); // the same trouble again is news
      model.save_changes();
      model.set("trouble", error.message);
    }
    model.save_changes();
    button.textContent = title();
    button.disabled = false;
  };
  model.on("change:seconds", () => { button.textContent = title(); });
  el.append(button);
}

export default { render };
