/** Pieces of data, each a script of its own, because a page opened from disk may load nothing else. */

const received = new Map();

/**
 * What every piece calls.
 * @param {string} name @param {(string|Object)} content base64, or for the manifest an object
 */
export function receive(name, content) {
  received.set(name, content);
}

/**
 * Load a piece.
 * @param {string} base the address of the folder, with its slash @param {string} name
 * @returns {Promise<(string|Object)>} what it handed over
 */
export function load(base, name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const missing = () => reject(new Error(
      `A part of the lab (${name}.js) cannot be loaded: reload the page, or build the book again.`,
    ));
    script.src = `${base}${name}.js`;
    script.onload = () => {
      script.remove();
      if (!received.has(name)) return missing();
      resolve(received.get(name));
      received.delete(name);
    };
    script.onerror = () => {
      script.remove();
      missing();
    };
    document.head.append(script);
  });
}

/**
 * The bytes of a piece.
 * @param {string} base @param {{piece: string, bytes: number}} entry of the manifest
 * @returns {Promise<ArrayBuffer>}
 */
export async function loadBytes(base, entry) {
  const bytes = fromBase64(await load(base, entry.piece));
  if (bytes.length !== entry.bytes) {
    throw new Error(`A part of the lab (${entry.piece}.js) is damaged: build the book again.`);
  }
  return bytes.buffer;
}

/** @param {string} text base64 @returns {Uint8Array} */
export function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = binary.charCodeAt(n);
  return bytes;
}
