/**
 * What is active in a region: by how much, and by how much more than elsewhere.
 *
 * @typedef {object} Score
 * @property {number} here  Mean over the region's cells.
 * @property {number} elsewhere  Mean over all other cells.
 * @property {number} only  How specific it is, 0 to 1: 1 = active nowhere else.
 * @property {number} score  What it is ranked by: here * only.
 * @typedef {Score & {feature: number}} FeatureScore
 * @typedef {Score & {name: string, like: string[]}} ConceptScore  like: others of its kind that it may as well be.
 * @typedef {import('./codes.js').Codes} Codes
 * @typedef {import('./presence.js').Presence} Presence
 */

/** A concept below this share of its usual amount is not called present. */
const LEAST_PRESENCE = 0.04

/**
 * How much stronger one of a kind (blue hair) must be than another (red hair) at the same place to be told from it.
 * On 96 pictures of the bundled model the colour that was ahead by this was right in 58 of 58 at output_blocks.4.1;
 * at output_blocks.2.1, which does not know, one was ahead in 13 only, and the strongest was right in 26 of 96.
 */
const AHEAD = 1.25

/**
 * The features that are most active in a region, and not everywhere.
 * @param {Codes} codes
 * @param {Uint8Array} inside  1 for the region's cells.
 * @param {number | null} step  Number among the recorded steps; null = all of them.
 * @param {number} count
 * @returns {FeatureScore[]}
 */
export function rankFeatures(codes, inside, step, count) {
  const {starts, tokens, values, scale, features} = codes
  const steps = codes.steps.length,
    span = step === null ? steps : 1
  const cells = inside.length,
    within = sumOf(inside)
  /** @type {FeatureScore[]} */
  const found = []
  for (let feature = 0; feature < features; feature++) {
    const at = feature * steps + (step ?? 0)
    const end = starts[at + span]
    let here = 0,
      all = 0
    for (let entry = starts[at]; entry < end; entry++) {
      all += values[entry]
      if (inside[tokens[entry]]) here += values[entry]
    }
    if (here <= 0) continue
    const unit = scale[feature] / span
    found.push({feature, ...scored(here * unit, (all - here) * unit, within, cells)})
  }
  return best(found, count)
}

/**
 * The concepts that are in a region, and less elsewhere; of the whole picture, those that are anywhere in it.
 * Of one kind at one place there is only the strongest, with those that are about as strong as `like`.
 * @param {Presence} presence
 * @param {Uint8Array} inside
 * @param {number | null} step
 * @param {number} count
 * @returns {ConceptScore[]}
 */
export function rankConcepts(presence, inside, step, count) {
  const cells = presence.height * presence.width,
    within = sumOf(inside)
  const steps = step === null ? [...Array(presence.steps).keys()] : [step]
  /** @type {(ConceptScore & {number: number, at: number})[]} */
  const found = []
  presence.names.forEach((name, number) => {
    let here = 0,
      all = 0,
      most = 0,
      at = 0
    for (const step of steps) {
      const start = (number * presence.steps + step) * cells
      for (let cell = 0; cell < cells; cell++) {
        all += presence.maps[start + cell]
        if (!inside[cell]) continue
        here += presence.maps[start + cell]
        if (presence.maps[start + cell] > most)
          [most, at] = [presence.maps[start + cell], step * cells + cell]
      }
    }
    const unit = presence.scale[number] / steps.length
    const score =
      within < cells
        ? scored(here * unit, (all - here) * unit, within, cells)
        : scored(most * presence.scale[number] * cells, 0, cells, cells) // a small part is there as well as a large one
    if (score.here >= LEAST_PRESENCE && score.score > 0) found.push({name, like: [], number, at, ...score})
  })
  /** @type {typeof found} */
  const told = []
  for (const one of best(found, found.length)) {
    const value = (/** @type {number} */ number) =>
      presence.maps[number * presence.steps * cells + one.at] * presence.scale[number]
    const stronger = told.find(
      other => ofOneKind(other.name, one.name) && value(other.number) * AHEAD >= value(one.number),
    )
    if (!stronger) told.push(one)
    else if (one.score * AHEAD >= stronger.score) stronger.like.push(one.name)
  }
  return told.slice(0, count)
}

/**
 * Whether two names say the same thing of different looks, as "blue hair" and "red hair" do.
 * @param {string} a
 * @param {string} b
 */
function ofOneKind(a, b) {
  const [one, other] = [a, b].map(name => name.toLowerCase().split(/\s+/))
  return one.length > 1 && other.length > 1 && one.at(-1) === other.at(-1)
}

/**
 * @param {number} here  Sum inside.
 * @param {number} elsewhere  Sum outside.
 * @param {number} within  Cells inside.
 * @param {number} cells  All cells.
 * @returns {Score}
 */
function scored(here, elsewhere, within, cells) {
  const a = within ? here / within : 0
  const b = cells > within ? elsewhere / (cells - within) : 0
  const only = a > 0 ? Math.max(0, (a - b) / (a + Math.max(b, 0))) : 0
  // all of the picture has no elsewhere: what is strongest counts there
  return {here: a, elsewhere: b, only, score: cells > within ? a * only : a}
}

/**
 * @template {Score} T
 * @param {T[]} found
 * @param {number} count
 */
const best = (found, count) => found.sort((a, b) => b.score - a.score).slice(0, count)

/** @param {Uint8Array} inside */
function sumOf(inside) {
  let sum = 0
  for (const cell of inside) sum += cell
  return sum
}
