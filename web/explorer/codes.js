/**
 * Which features fire where at every step of a run. Sorted by feature, so a feature's map is one short slice.
 *
 * @typedef {object} Codes
 * @property {number} height  Rows of the grid.
 * @property {number} width
 * @property {number} features  Number of features in the dictionary.
 * @property {Int32Array} steps  The recorded steps, in order.
 * @property {Float32Array} sigmas  The noise levels of these steps.
 * @property {Int32Array} starts  At feature * steps + step: the index of its first entry.
 * @property {Uint16Array | Int32Array} tokens  Cell of each entry: row * width + column.
 * @property {Int16Array} values  The activation of each entry, divided by the feature's scale.
 * @property {Float32Array} scale
 * @property {number} bytes
 */
import {parseSafetensors} from './safetensors.js'

/** A feature's largest activation, divided by the feature's scale. */
export const LEVELS = 32767

/**
 * @param {ArrayBuffer} buffer  The server's response.
 * @returns {Codes}
 */
export function openCodes(buffer) {
  const {metadata, tensors} = parseSafetensors(buffer)
  const [height = 0, width = 0] = (metadata.grid ?? '').split('x').map(Number)
  const {tokens} = tensors
  return {
    height,
    width,
    features: Number(metadata.features),
    steps: /** @type {Int32Array} */ (tensors.steps),
    sigmas: /** @type {Float32Array} */ (tensors.sigmas),
    starts: /** @type {Int32Array} */ (tensors.starts),
    // 16-bit cell numbers are unsigned, which the parsed file's types cannot express
    tokens:
      tokens instanceof Int16Array
        ? new Uint16Array(tokens.buffer, tokens.byteOffset, tokens.length)
        : /** @type {Int32Array} */ (tokens),
    values: /** @type {Int16Array} */ (tensors.values),
    scale: /** @type {Float32Array} */ (tensors.scale),
    bytes: buffer.byteLength,
  }
}

/**
 * Return the activation of one feature at one step, for every cell.
 * @param {Codes} codes
 * @param {number} feature
 * @param {number} step  Index into the recorded steps.
 * @param {Float32Array} [out]  Array to reuse for the result.
 */
export function activationMap(codes, feature, step, out = new Float32Array(codes.height * codes.width)) {
  const {tokens, values} = codes
  const {first, end} = entriesOf(codes, feature, step)
  const scale = codes.scale[feature] ?? 0
  out.fill(0)
  for (let entry = first; entry < end; entry++) out[tokens[entry] ?? 0] = (values[entry] ?? 0) * scale
  return out
}

/**
 * Return the range of a feature's entries, [first, one past the last], for one or more consecutive steps.
 * @param {Codes} codes
 * @param {number} feature
 * @param {number} step
 * @param {number} [count]  Number of steps.
 */
export function entriesOf({starts, steps}, feature, step, count = 1) {
  const number = feature * steps.length + step
  return {first: starts[number] ?? 0, end: starts[number + count] ?? 0}
}

/**
 * Return the largest absolute activation of a feature in the run.
 * @param {Codes} codes
 * @param {number} feature
 */
export const peakActivation = (codes, feature) => (codes.scale[feature] ?? 0) * LEVELS

/**
 * Return a feature's mean over the image at each step, and the share of cells on which it fires.
 * @param {Codes} codes
 * @param {number} feature
 */
export function activationCurve(codes, feature) {
  const cells = codes.height * codes.width
  const means = new Float32Array(codes.steps.length)
  const shares = new Float32Array(codes.steps.length)
  for (let step = 0; step < codes.steps.length; step++) {
    const {first, end} = entriesOf(codes, feature, step)
    let sum = 0
    for (let entry = first; entry < end; entry++) sum += codes.values[entry] ?? 0
    means[step] = (sum * (codes.scale[feature] ?? 0)) / cells
    shares[step] = (end - first) / cells
  }
  return {means, shares}
}
