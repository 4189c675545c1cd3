/** Bars on a canvas, in the colours of the page. */

/** A canvas as large as it is shown, cleared, in CSS pixels. */
function prepare(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * ratio); // which clears it, too
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return { context, width, height };
}

/** @param {Element} element @param {string} name of a CSS variable @returns {string} its value */
function colour(element, name) {
  return getComputedStyle(element).getPropertyValue(name).trim();
}

/**
 * The energy of filters as bars, one after the other.
 * @param {HTMLCanvasElement} canvas
 * @param {Object[]} ranking of the model
 * @param {function(number): string} ink the CSS variable that colours a filter's bar
 */
export function drawBars(canvas, ranking, ink) {
  const { context, width, height } = prepare(canvas);
  const slot = width / ranking.length;
  const inks = new Map();
  ranking.forEach(({ filter, share }, rank) => {
    const name = ink(filter);
    if (!inks.has(name)) inks.set(name, colour(canvas, name));
    context.fillStyle = inks.get(name);
    // The root, for energy is a square: soft filters show, too.
    const tall = Math.max(height * Math.sqrt(share / ranking[0].share), 3);
    const gap = slot > 4 ? 1 : 0;
    // A marked bar is seen among hundreds.
    const wide = Math.max(slot - gap, name === "--lab-bar" ? 0.5 : 3);
    context.fillRect(rank * slot - (wide - slot + gap) / 2, height - tall, wide, tall);
  });
}
