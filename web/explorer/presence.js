/**
 * Where each concept is present at every step, computed by the server from all of the concept's features.
 *
 * @typedef {object} Presence
 * @property {string[]} names
 * @property {number} height
 * @property {number} width
 * @property {number} steps
 * @property {Int16Array} maps  Presence [concepts, steps, height, width] divided by the concept's scale.
 *   A presence of 1 is the usual amount.
 * @property {Float32Array} scale
 * @property {number} bytes
 */
import {LEVELS} from './codes.js'
import {parseSafetensors} from './safetensors.js'

/**
 * @param {ArrayBuffer} buffer
 * @param {string[]} names
 * @returns {Presence}
 */
export function openPresence(buffer, names) {
  const {tensors, shapes} = parseSafetensors(buffer)
  const [, steps = 0, height = 0, width = 0] = shapes.maps ?? []
  return {
    names,
    height,
    width,
    steps,
    maps: /** @type {Int16Array} */ (tensors.maps),
    scale: /** @type {Float32Array} */ (tensors.scale),
    bytes: buffer.byteLength,
  }
}

/**
 * Return the presence of one concept at one step, for every cell.
 * @param {Presence} presence
 * @param {string} name
 * @param {number} step
 */
export function presenceMap(presence, name, step) {
  const cells = presence.height * presence.width
  const number = presence.names.indexOf(name)
  if (number < 0) return new Float32Array(cells)
  const start = (number * presence.steps + step) * cells
  const scale = presence.scale[number] ?? 0
  return Float32Array.from(presence.maps.subarray(start, start + cells), value => value * scale)
}

/**
 * @param {Presence} presence
 * @param {string} name
 */
export const presencePeak = (presence, name) => (presence.scale[presence.names.indexOf(name)] ?? 0) * LEVELS
