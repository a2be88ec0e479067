/** What a feature fires on most, from its index: small crops of pictures, the strongest first. */
import {el} from './dom.js'
import {written} from './colour.js'
import {parseSafetensors} from './safetensors.js'

/**
 * @typedef {object} Examples
 * @property {number} bytes
 * @property {number} side  Of a crop in pixels.
 * @property {Uint8ClampedArray[]} crops  RGBA, side by side.
 * @property {number[]} values
 * @property {string} label  What the index calls the feature, or "".
 * @property {string} by
 * @property {string} score
 */

/**
 * @param {ArrayBuffer} buffer
 * @returns {Examples}
 */
export function openExamples(buffer) {
  const {tensors, shapes, metadata} = parseSafetensors(buffer)
  const [count, side] = shapes.crops,
    pixels = side * side
  const crops = Array.from({length: side ? count : 0}, (_, number) => {
    const rgba = new Uint8ClampedArray(4 * pixels).fill(255)
    for (let at = 0; at < pixels; at++)
      rgba.set(tensors.crops.subarray(3 * (number * pixels + at), 3 * (number * pixels + at) + 3), 4 * at)
    return rgba
  })
  const {label = '', by = '', score = ''} = metadata
  return {
    bytes: buffer.byteLength + 4 * pixels * crops.length,
    side,
    crops,
    values: [...tensors.value],
    label,
    by,
    score,
  }
}

/**
 * One canvas for each crop.
 * @param {Examples} examples
 * @param {(text: string) => string} t
 */
export function exampleCrops({crops, side, values}, t) {
  return crops.map((rgba, number) => {
    const text = `${t('activation')} ${written(values[number])}`
    const canvas = el('canvas', {
      class: 'rv-example',
      width: side,
      height: side,
      title: text,
      role: 'img',
      'aria-label': text,
    })
    canvas.getContext('2d')?.putImageData(new ImageData(/** @type {any} */ (rgba), side, side), 0, 0)
    return canvas
  })
}
