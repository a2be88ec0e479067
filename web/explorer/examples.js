/** The image crops in the feature index on which a feature fires most, strongest first. */
import {el} from './dom.js'
import {formatNumber} from './colour.js'
import {parseSafetensors} from './safetensors.js'

/**
 * @typedef {object} Examples
 * @property {number} bytes
 * @property {number} side  Side of a crop in pixels.
 * @property {Uint8ClampedArray[]} crops  Each crop's RGBA pixels, row by row.
 * @property {number[]} values  The activation on each crop.
 * @property {string} label  The index's label for the feature, or "".
 * @property {string} by  How the label was found.
 * @property {string} score
 */

/**
 * @param {ArrayBuffer} buffer
 * @returns {Examples}
 */
export function openExamples(buffer) {
  const {tensors, shapes, metadata} = parseSafetensors(buffer)
  const [count = 0, side = 0] = shapes.crops ?? []
  const rgb = tensors.crops ?? new Uint8Array()
  const crops = Array.from({length: side ? count : 0}, (_, number) => toRgba(rgb, number, side * side))
  const {label = '', by = '', score = ''} = metadata
  const bytes = buffer.byteLength + 4 * side * side * crops.length
  return {bytes, side, crops, values: [...(tensors.value ?? [])], label, by, score}
}

/**
 * @param {import('./safetensors.js').Numbers} rgb  RGB values of all crops.
 * @param {number} number  Number of the crop.
 * @param {number} pixels  Pixels per crop.
 */
function toRgba(rgb, number, pixels) {
  const rgba = new Uint8ClampedArray(4 * pixels).fill(255)
  for (let pixel = 0; pixel < pixels; pixel++) {
    const start = 3 * (number * pixels + pixel)
    rgba.set(rgb.subarray(start, start + 3), 4 * pixel)
  }
  return rgba
}

/**
 * Create one canvas for each crop.
 * @param {Examples} examples
 * @param {import('./texts.js').Translate} t
 */
export function createCrops({crops, side, values}, t) {
  return crops.map((rgba, number) => {
    const text = `${t('activation')} ${formatNumber(values[number] ?? 0)}`
    const canvas = el('canvas', {
      class: 'rv-example',
      width: side,
      height: side,
      title: text,
      role: 'img',
      'aria-label': text,
    })
    const context = canvas.getContext('2d')
    context?.putImageData(new ImageData(/** @type {any} */ (rgba), side, side), 0, 0)
    return canvas
  })
}
