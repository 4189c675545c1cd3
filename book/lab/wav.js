/** Sounds as WAV files: what players play, and what is saved. */

/**
 * @param {Float32Array} x
 * @param {{rate: number, gain: number}} options in Hz; what the sound is multiplied by
 * @returns {Blob} a mono WAV file of 16 bits
 */
export function wavOf(x, { rate, gain }) {
  const bytes = new ArrayBuffer(44 + 2 * x.length);
  const view = new DataView(bytes);
  const text = (place, letters) => {
    for (let n = 0; n < letters.length; n++) view.setUint8(place + n, letters.charCodeAt(n));
  };
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * x.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // plain samples
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * x.length, true);
  for (let t = 0; t < x.length; t++) {
    const sample = Math.round(x[t] * gain * 32768);
    view.setInt16(44 + 2 * t, Math.min(Math.max(sample, -32768), 32767), true);
  }
  return new Blob([bytes], { type: "audio/wav" });
}
