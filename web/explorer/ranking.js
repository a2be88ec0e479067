/**
 * What is active in a region: by how much, and by how much more than elsewhere.
 *
 * @typedef {object} Score
 * @property {number} here  Mean over the region's cells.
 * @property {number} elsewhere  Mean over all other cells.
 * @property {number} only  How specific it is, 0 to 1: 1 = active nowhere else.
 * @property {number} score  What it is ranked by: here * only.
 * @typedef {Score & {feature: number}} FeatureScore
 * @typedef {Score & {name: string}} ConceptScore
 * @typedef {import('./codes.js').Codes} Codes
 * @typedef {import('./presence.js').Presence} Presence
 */

/** A concept below this share of its usual amount is not called present. */
const LEAST_PRESENCE = 0.04

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
  const steps = codes.steps.length, span = step === null ? steps : 1
  const cells = inside.length, within = sumOf(inside)
  /** @type {FeatureScore[]} */
  const found = []
  for (let feature = 0; feature < features; feature++) {
    const at = feature * steps + (step ?? 0)
    const end = starts[at + span]
    let here = 0, all = 0
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
 * @param {Presence} presence
 * @param {Uint8Array} inside
 * @param {number | null} step
 * @param {number} count
 * @returns {ConceptScore[]}
 */
export function rankConcepts(presence, inside, step, count) {
  const cells = presence.height * presence.width, within = sumOf(inside)
  const steps = step === null ? [...Array(presence.steps).keys()] : [step]
  /** @type {ConceptScore[]} */
  const found = []
  presence.names.forEach((name, number) => {
    let here = 0, all = 0, most = 0
    for (const at of steps) {
      const start = (number * presence.steps + at) * cells
      for (let cell = 0; cell < cells; cell++) {
        all += presence.maps[start + cell]
        if (inside[cell]) here += presence.maps[start + cell]
        most = Math.max(most, presence.maps[start + cell])
      }
    }
    const unit = presence.scale[number] / steps.length
    const score = within < cells
      ? scored(here * unit, (all - here) * unit, within, cells)
      : scored(most * presence.scale[number] * cells, 0, cells, cells)  // a small part is there as well as a large one
    if (score.here >= LEAST_PRESENCE && score.score > 0) found.push({name, ...score})
  })
  return best(found, count)
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
