/** A button that records from the microphone, as it is, at the sound device's own rate. */

/** Runs in the browser's audio thread, and hands on what it hears. */
const TAP = `registerProcessor("tap", class extends AudioWorkletProcessor {
  process([channels]) {
    if (channels.length) this.port.postMessage(channels[0].slice());
    return true;
  }
});`;
const AS_IS = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
const REASONS = {
  NotAllowedError: "The microphone was refused: allow it for this page, and record again.",
  NotFoundError: "There is no microphone: plug one in, and record again.",
};
const PATIENCE = 5000; // ms without a sample

async function record(seconds, tell) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("The browser lends its microphone to pages from this machine or over https only.");
  }
  const stream = await navigator.mediaDevices.getUserMedia({ audio: AS_IS });
  const context = new AudioContext();
  const url = URL.createObjectURL(new Blob([TAP], { type: "text/javascript" }));
  try {
    await context.audioWorklet.addModule(url);
    const tap = new AudioWorkletNode(context, "tap", { channelCount: 1, channelCountMode: "explicit" });
    const samples = new Float32Array(Math.round(seconds * context.sampleRate));
    let filled = 0;
    await new Promise((done, fail) => {
      const nothing = () => fail(new Error("Nothing comes from the microphone: see to the sound devices."));
      let patience = setTimeout(nothing, PATIENCE);
      tap.port.onmessage = ({ data }) => {
        clearTimeout(patience);
        samples.set(data.subarray(0, samples.length - filled), filled);
        filled = Math.min(filled + data.length, samples.length);
        tell(Math.ceil((samples.length - filled) / context.sampleRate));
        if (filled < samples.length) {
          patience = setTimeout(nothing, PATIENCE);
        } else {
          tap.port.onmessage = null; // what is still on its way would count down at 0 s
          done();
        }
      };
      context.createMediaStreamSource(stream).connect(tap);
    });
    return { samples, rate: Math.round(context.sampleRate) };
  } finally {
    URL.revokeObjectURL(url);
    stream.getTracks().forEach((track) => track.stop());
    context.close();
  }
}

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
      model.set("rate", rate);
      model.set("trouble", "");
      model.set("take", model.get("take") + 1);
    } catch (error) {
      model.set("trouble", ""); // the same trouble again is news
      model.save_changes();
      model.set("trouble", REASONS[error.name] ?? error.message);
    }
    model.save_changes();
    button.textContent = title();
    button.disabled = false;
  };
  model.on("change:seconds", () => { button.textContent = title(); });
  el.append(button);
}

export default { render };
