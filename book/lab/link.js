/** What is heard, as the end of the page's address, so that a link brings it back. */

/** The ways of hearing a layer: one filter, only the chosen, all but the chosen, all. */
export const WAYS = ["one", "only", "without", "layer"];

/** Clips of an atlas that lies in a folder beside the lab's: the folder, and the clip's number. */
const OF_ATLAS = /^(atlas(?:\/[\w-][\w.-]*)*)\/(\d{1,7})$/;

/** @param {string} clip @returns {?{folder: string, number: string}} null if it is of no atlas */
export function ofAtlas(clip) {
  const [, folder, number] = OF_ATLAS.exec(clip ?? "") ?? [];
  return folder ? { folder, number } : null;
}

/**
 * @param {Object} state {network, clip, layer, filter, way, chosen, beside}
 * @returns {string} such as "#network=supervised&clip=scene-3&layer=8&filter=17&hear=one"
 */
export function toLink({ network, clip, layer, filter, way, chosen, beside }) {
  const parts = new URLSearchParams({ network, clip, layer });
  if (filter !== null) parts.set("filter", filter);
  parts.set("hear", way);
  if (way === "only" || way === "without") parts.set("chosen", [...chosen].join("."));
  if (beside) parts.set("beside", beside);
  return `#${parts}`;
}

/**
 * @param {string} link the end of an address, with its "#"
 * @returns {Object} what of a state it tells, of the right kinds; the names may be of nothing here
 */
export function fromLink(link) {
  const parts = new URLSearchParams(link.slice(1));
  const state = {};
  for (const name of ["network", "clip", "beside"]) if (parts.get(name)) state[name] = parts.get(name);
  for (const name of ["layer", "filter"]) {
    if (/^\d{1,6}$/.test(parts.get(name) ?? "")) state[name] = Number(parts.get(name));
  }
  if (WAYS.includes(parts.get("hear"))) state.way = parts.get("hear");
  if (/^\d{1,6}(\.\d{1,6})*$/.test(parts.get("chosen") ?? "")) {
    state.chosen = new Set(parts.get("chosen").split(".").map(Number));
  }
  return state;
}
