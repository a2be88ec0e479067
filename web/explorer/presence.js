/**
 * Where each whole concept is at every step, as the server has worked it out.
 *
 * @typedef {object} Presence
 * @property {string[]} names
 * @property {number} height
 * @property {number} width
 * @property {number} steps
 * @property {Int16Array} maps  [concepts, steps, height, width]; times the concept's scale: 1 = as much as usual.
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
  const [, steps, height, width] = shapes.maps
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
 * One concept at one step, for every cell.
 * @param {Presence} presence
 * @param {string} name
 * @param {number} step
 */
export function presenceMap(presence, name, step) {
  const cells = presence.height * presence.width,
    number = presence.names.indexOf(name)
  const out = new Float32Array(cells)
  if (number < 0) return out
  const start = (number * presence.steps + step) * cells
  for (let cell = 0; cell < cells; cell++) out[cell] = presence.maps[start + cell] * presence.scale[number]
  return out
}

/**
 * @param {Presence} presence
 * @param {string} name
 */
export const presencePeak = (presence, name) => (presence.scale[presence.names.indexOf(name)] ?? 0) * LEVELS
