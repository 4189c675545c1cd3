/** From any sampling rate to the network's, by a windowed sinc. */

/** Zero crossings of the sinc on each side, and the shape of its Kaiser window: 100 dB down. */
const CROSSINGS = 72;
const KAISER_BETA = 10.06;
/** Where the pass band ends, as a share of the lower rate's half: the window needs the rest. */
const CUTOFF = 0.955;

/** The modified Bessel function of order zero (its power series). */
function bessel(x) {
  let sum = 1;
  for (let k = 1, term = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/** The greatest common divisor. */
function divisor(a, b) {
  return b ? divisor(b, a % b) : a;
}

/**
 * Resample a sound (J. O. Smith, "Digital audio resampling"; J. F. Kaiser's window).
 * @param {Float32Array} x
 * @param {number} from its rate, in Hz, a whole number
 * @param {number} to the rate wanted, in Hz
 * @returns {Float32Array} sample n stands where x[n * from / to] does
 */
export function resample(x, from, to) {
  if (from === to) return x;
  const common = divisor(from, to);
  const [up, down] = [to / common, from / common];
  // Both in samples of x: the sinc's half period, and half the window.
  const period = Math.max(1, from / to) / CUTOFF;
  const reach = Math.ceil(CROSSINGS * Math.max(1, from / to));
  const taps = 2 * reach;
  const tables = new Array(up);
  const result = new Float32Array(Math.round((x.length * to) / from));
  for (let n = 0; n < result.length; n++) {
    const phase = (n * down) % up;
    const table = (tables[phase] ??= kernel(phase / up, period, reach));
    const first = Math.floor((n * down) / up) - reach + 1;
    const begin = Math.max(0, -first);
    const end = Math.min(taps, x.length - first);
    let sum = 0;
    for (let k = begin; k < end; k++) sum += table[k] * x[first + k];
    result[n] = sum;
  }
  return result;
}

/** The weights of the samples around a point that lies `fraction` after one of them; sum 1. */
function kernel(fraction, period, reach) {
  const scale = 1 / bessel(KAISER_BETA);
  const table = new Float64Array(2 * reach);
  let sum = 0;
  for (let k = 0; k < table.length; k++) {
    const away = k - reach + 1 - fraction;
    const inside = 1 - (away / reach) ** 2;
    const angle = (Math.PI * away) / period;
    if (inside <= 0) continue;
    table[k] = (angle ? Math.sin(angle) / angle : 1) * bessel(KAISER_BETA * Math.sqrt(inside)) * scale;
    sum += table[k];
  }
  return table.map((weight) => weight / sum);
}
