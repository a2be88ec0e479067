/** One interface for both kinds of subject that the heat can show: features and concepts. */
import {activationCurve, activationMap, peakActivation} from './codes.js'
import {presenceMap, presencePeak} from './presence.js'

/**
 * @typedef {import('./store.js').Subject} Subject
 * @typedef {import('./codes.js').Codes} Codes
 * @typedef {import('./heat.js').HeatMap} HeatMap
 * @typedef {import('./presence.js').Presence} Presence
 *
 * @typedef {object} SubjectMaps  The maps of one subject at all recorded steps; they share one colour scale.
 * @property {number} steps
 * @property {number} height
 * @property {number} width
 * @property {number} peak
 * @property {(step: number) => HeatMap} heatMap
 */

/**
 * Return the maps of a subject at the recorded steps, or null if the run has no data for the subject.
 * @param {Subject | null} subject
 * @param {Codes | null} codes
 * @param {Presence | null} presence
 * @returns {SubjectMaps | null}
 */
export function mapsOf(subject, codes, presence) {
  if (subject?.kind === 'feature' && codes && subject.feature < codes.features) {
    const {feature} = subject
    const size = {height: codes.height, width: codes.width, peak: peakActivation(codes, feature)}
    return {
      ...size,
      steps: codes.steps.length,
      heatMap: step => ({...size, values: activationMap(codes, feature, step)}),
    }
  }
  if (subject?.kind === 'concept' && presence?.names.includes(subject.name)) {
    const {name} = subject
    const size = {height: presence.height, width: presence.width, peak: presencePeak(presence, name)}
    return {
      ...size,
      steps: presence.steps,
      heatMap: step => ({...size, values: presenceMap(presence, name, step)}),
    }
  }
  return null
}

/**
 * Return a subject's mean over the image at each step.
 * @param {Subject} subject
 * @param {Codes | null} codes
 * @param {Presence | null} presence
 */
export function meanCurve(subject, codes, presence) {
  if (subject.kind === 'feature')
    return codes ? activationCurve(codes, subject.feature).means : new Float32Array()
  const maps = mapsOf(subject, codes, presence)
  return maps
    ? Float32Array.from({length: maps.steps}, (_, step) => mean(maps.heatMap(step).values))
    : new Float32Array()
}

/** @param {Float32Array} values */
const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length

/**
 * Return a subject's name as written in the text that steers it.
 * @param {Subject} subject
 */
export const nameOf = subject => (subject.kind === 'feature' ? String(subject.feature) : subject.name)

/**
 * @param {Subject | null} a
 * @param {Subject | null} b
 */
export const sameSubject = (a, b) =>
  a === b || (a !== null && b !== null && a.kind === b.kind && nameOf(a) === nameOf(b))
