/**
 * Ranks the features and concepts in a region by how active they are there, and how little elsewhere.
 *
 * @typedef {object} Score
 * @property {number} here  Mean over the region's cells.
 * @property {number} elsewhere  Mean over all other cells.
 * @property {number} specificity  0 to 1; 1 means active nowhere else.
 * @property {number} score  The value for ranking: here * specificity.
 *
 * @typedef {Score & {feature: number}} FeatureScore
 * @typedef {Score & {name: string, alternatives: string[]}} ConceptScore
 *   alternatives: concepts of the same kind that are about as strong at this concept's strongest cell.
 * @typedef {ConceptScore & {number: number, index: number}} Candidate
 *   number: number of the concept; index: step * cells + cell of its strongest value.
 * @typedef {import('./codes.js').Codes} Codes
 * @typedef {import('./presence.js').Presence} Presence
 */
import {entriesOf} from './codes.js'

/** A concept counts as present if it reaches this share of its usual amount. */
const LEAST_PRESENCE = 0.04

/**
 * A concept (blue hair) rules out another of its kind (red hair) at a cell if it is this many times stronger.
 * On 96 images of the bundled model, at output_blocks.4.1 one colour was ahead by this factor in 58 images,
 * and right in all 58. At output_blocks.2.1, which does not represent the colour, one was ahead in only 13
 * images, and the strongest colour was right in 26 of 96.
 */
const AHEAD = 1.25

/**
 * Return the features that are active in a region, and less so elsewhere, in the order of their score.
 * @param {Codes} codes
 * @param {Uint8Array} inside  1 for the region's cells.
 * @param {number | null} step  Index into the recorded steps; null means all steps.
 * @param {number} count
 * @returns {FeatureScore[]}
 */
export function rankFeatures(codes, inside, step, count) {
  const {tokens, values} = codes
  const steps = step === null ? codes.steps.length : 1
  const cells = inside.length
  const within = sumOf(inside)
  /** @type {FeatureScore[]} */
  const found = []
  for (let feature = 0; feature < codes.features; feature++) {
    const {first, end} = entriesOf(codes, feature, step ?? 0, steps)
    let here = 0
    let total = 0
    for (let entry = first; entry < end; entry++) {
      const value = values[entry] ?? 0
      total += value
      if (inside[tokens[entry] ?? 0]) here += value
    }
    if (here <= 0) continue
    const unit = (codes.scale[feature] ?? 0) / steps
    found.push({feature, ...scoreOf(here * unit, (total - here) * unit, within, cells)})
  }
  return best(found, count)
}

/**
 * Return the concepts that are present in a region and less elsewhere; for the whole image, all present ones.
 * Of several concepts of one kind at a cell, only the strongest is listed; similarly strong concepts are its
 * `alternatives`.
 * @param {Presence} presence
 * @param {Uint8Array} inside
 * @param {number | null} step
 * @param {number} count
 * @returns {ConceptScore[]}
 */
export function rankConcepts(presence, inside, step, count) {
  const steps = step === null ? [...Array(presence.steps).keys()] : [step]
  const cells = inside.length
  const within = sumOf(inside)
  /** @type {Candidate[]} */
  const found = []
  presence.names.forEach((name, number) => {
    const {here, total, highest, index} = measure(presence, number, inside, steps)
    const scale = presence.scale[number] ?? 0
    const unit = scale / steps.length
    const score =
      within < cells
        ? scoreOf(here * unit, (total - here) * unit, within, cells)
        : scoreOf(highest * scale * cells, 0, cells, cells) // whole image: rank by the peak, not by size
    if (score.here >= LEAST_PRESENCE && score.score > 0) {
      found.push({name, alternatives: [], number, index, ...score})
    }
  })
  return withoutRivals(presence, best(found, found.length)).slice(0, count)
}

/**
 * Measure one concept over some steps, in units of its scale.
 * @param {Presence} presence
 * @param {number} number
 * @param {Uint8Array} inside
 * @param {number[]} steps
 */
function measure(presence, number, inside, steps) {
  const cells = inside.length
  let here = 0
  let total = 0
  let highest = 0
  let index = 0
  for (const step of steps) {
    const start = (number * presence.steps + step) * cells
    for (let cell = 0; cell < cells; cell++) {
      const value = presence.maps[start + cell] ?? 0
      total += value
      if (!inside[cell]) continue
      here += value
      if (value > highest) [highest, index] = [value, step * cells + cell]
    }
  }
  return {here, total, highest, index}
}

/**
 * Keep only the strongest concept of each kind at each cell; similarly strong concepts are its alternatives.
 * @param {Presence} presence
 * @param {Candidate[]} ranked  Best first.
 */
function withoutRivals(presence, ranked) {
  const size = presence.steps * presence.height * presence.width
  /** @type {Candidate[]} */
  const distinct = []
  for (const concept of ranked) {
    const valueThere = (/** @type {number} */ number) =>
      (presence.maps[number * size + concept.index] ?? 0) * (presence.scale[number] ?? 0)
    const stronger = distinct.find(
      other =>
        sameKind(other.name, concept.name) && valueThere(other.number) * AHEAD >= valueThere(concept.number),
    )
    if (!stronger) distinct.push(concept)
    else if (concept.score * AHEAD >= stronger.score) stronger.alternatives.push(concept.name)
  }
  return distinct
}

/**
 * Whether two names share their last word, like "blue hair" and "red hair", and so are variants of one thing.
 * @param {string} a
 * @param {string} b
 */
function sameKind(a, b) {
  const wordsOfA = a.toLowerCase().split(/\s+/)
  const wordsOfB = b.toLowerCase().split(/\s+/)
  return wordsOfA.length > 1 && wordsOfB.length > 1 && wordsOfA.at(-1) === wordsOfB.at(-1)
}

/**
 * @param {number} sumInside
 * @param {number} sumOutside
 * @param {number} within  Number of cells in the region.
 * @param {number} cells  Number of all cells.
 * @returns {Score}
 */
function scoreOf(sumInside, sumOutside, within, cells) {
  const here = within ? sumInside / within : 0
  const elsewhere = cells > within ? sumOutside / (cells - within) : 0
  const specificity = here > 0 ? Math.max(0, (here - elsewhere) / (here + Math.max(elsewhere, 0))) : 0
  // the whole image has no "elsewhere": rank by strength alone
  return {here, elsewhere, specificity, score: cells > within ? here * specificity : here}
}

/**
 * @template {Score} T
 * @param {T[]} found
 * @param {number} count
 */
const best = (found, count) => found.sort((a, b) => b.score - a.score).slice(0, count)

/** @param {Uint8Array} inside */
const sumOf = inside => inside.reduce((sum, cell) => sum + cell, 0)
