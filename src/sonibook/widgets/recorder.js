/** The microphone, as it is, at the sound device's own rate: of the explorer and of the lab. */

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
/** How long the microphone may be silent altogether, in milliseconds: pulled out, or blocked. */
const PATIENCE = 5000;

/**
 * Record without echo cancellation, noise suppression or gain control.
 * @param {number} seconds
 * @param {function(number): void} tell told how many seconds are left
 * @returns {Promise<{samples: Float32Array, rate: number}>}
 * @throws {Error} if there is no microphone, or it is refused
 */
export async function record(seconds, tell) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error(
      "The microphone is unavailable here: a browser lends it to pages from this machine or over https.",
    );
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: AS_IS });
  } catch ({ name }) {
    throw new Error(
      REASONS[name] ?? `The microphone cannot be used (${name}): is another program using it?`,
    );
  }
  const context = new AudioContext();
  try {
    // A page opened from disk may load it from its own text only.
    await context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(TAP)}`);
    const tap = new AudioWorkletNode(context, "tap", { channelCount: 1, channelCountMode: "explicit" });
    const samples = new Float32Array(Math.round(seconds * context.sampleRate));
    let filled = 0;
    await new Promise((done, fail) => {
      const nothing = () => fail(new Error(
        "Nothing comes from the microphone: check the machine's sound devices, and record again.",
      ));
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
    return { samples, rate: context.sampleRate };
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    context.close();
  }
}
