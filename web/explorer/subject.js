/** What the heat shows, a feature or a concept, asked in the same way. */
import {curveOf, mapOf, peakOf} from './codes.js'
import {presenceMap, presencePeak} from './presence.js'

/**
 * @typedef {import('./store.js').Subject} Subject
 * @typedef {import('./codes.js').Codes} Codes
 * @typedef {import('./presence.js').Presence} Presence
 * @typedef {{map: (step: number) => Float32Array, peak: number, steps: number, height: number, width: number}} Maps
 */

/**
 * Maps of a subject over the recorded steps; null where the run does not know it.
 * @param {Subject | null} subject
 * @param {Codes | null} codes
 * @param {Presence | null} presence
 * @returns {Maps | null}
 */
export function mapsOf(subject, codes, presence) {
  if (subject?.kind === 'feature' && codes && subject.feature < codes.features) {
    const {feature} = subject,
      {height, width} = codes
    return {
      map: step => mapOf(codes, feature, step),
      peak: peakOf(codes, feature),
      steps: codes.steps.length,
      height,
      width,
    }
  }
  if (subject?.kind === 'concept' && presence?.names.includes(subject.name)) {
    const {name} = subject,
      {height, width, steps} = presence
    return {
      map: step => presenceMap(presence, name, step),
      peak: presencePeak(presence, name),
      steps,
      height,
      width,
    }
  }
  return null
}

/**
 * Mean over the picture at each step.
 * @param {Subject} subject
 * @param {Codes | null} codes
 * @param {Presence | null} presence
 */
export function meansOf(subject, codes, presence) {
  if (subject.kind === 'feature') return codes ? curveOf(codes, subject.feature).means : new Float32Array()
  const maps = mapsOf(subject, codes, presence)
  return Float32Array.from({length: maps?.steps ?? 0}, (_, step) =>
    mean(maps ? maps.map(step) : new Float32Array(1)),
  )
}

/** @param {Float32Array} values */
const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length

/**
 * How a subject is named in the steering text.
 * @param {Subject} subject
 */
export const nameOf = subject => (subject.kind === 'feature' ? String(subject.feature) : subject.name)

/**
 * @param {Subject | null} a
 * @param {Subject | null} b
 */
export const same = (a, b) =>
  a === b || (a !== null && b !== null && a.kind === b.kind && nameOf(a) === nameOf(b))
