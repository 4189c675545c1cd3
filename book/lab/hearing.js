/** From what a reader asks for to what is heard: filters, sounds, and what to know about them. */

/**
 * Compute what a state asks for.
 * @param {Object} model @param {Object} wanted the page's state
 * @returns {Promise<Object>} all that the view shows
 */
export async function hear(model, wanted) {
  const network = model.networks.get(wanted.network);
  const layer = Math.min(Math.max(wanted.layer, 1), network.layers.length);
  const ranking = await model.ranking(wanted.network, wanted.clip, layer);
  const clip = await model.clip(wanted.clip);
  const notices = [...clip.notices];
  if (clip.samples.length < network.leastLength) {
    const seconds = (network.leastLength / model.rate).toFixed(2);
    notices.push(`It is short: zeros were added, to the ${seconds} s that the network needs.`);
  }
  let { filter } = wanted;
  if (!ranking.some((entry) => entry.filter === filter)) {
    if (filter !== null && ranking.length) {
      notices.push(`Filter ${filter} is silent here: the one with the most energy is taken.`);
    }
    filter = ranking[Math.min(wanted.rank, ranking.length - 1)]?.filter ?? 0;
  }
  const count = network.layers[layer - 1].channels;
  const chosen = new Set([...wanted.chosen].filter((one) => one < count));
  const beside = wanted.beside === wanted.network ? "" : wanted.beside;
  const now = { ...wanted, layer, filter, chosen, beside, rank: 0 };
  const mine = await voice(model, now, network, filter, chosen);
  return {
    state: now, clip, ranking, notices, rate: model.rate, input: clip.samples, ...mine,
    other: beside ? await second(model, now, ranking) : null,
  };
}

/** What one network keeps, and which filters it would miss on the way up. */
async function voice(model, { way, layer }, network, filter, chosen) {
  const all = Array(network.layers[layer - 1].channels).keys();
  const filters = {
    one: [filter],
    only: [...chosen],
    without: [...all].filter((one) => !chosen.has(one)),
    layer: null,
  }[way];
  const lost = { one: [filter], layer: [] }[way] ?? [...chosen];
  const removed = lost.length ? { layer, filters: lost } : null;
  return { network, filter, filters, removed, ...await model.sonify(network.name, layer, filters) };
}

/** Another network's filters of the same ranks: filters of two networks share no numbers. */
async function second(model, state, ranking) {
  const network = model.networks.get(state.beside);
  const layer = Math.min(state.layer, network.layers.length);
  const theirs = await model.ranking(state.beside, state.clip, layer);
  const twin = (one) => theirs[ranking.findIndex(({ filter }) => filter === one)]?.filter;
  const chosen = new Set([...state.chosen].map(twin).filter((one) => one !== undefined));
  return voice(model, { ...state, layer }, network, twin(state.filter) ?? theirs.at(-1)?.filter ?? 0, chosen);
}
