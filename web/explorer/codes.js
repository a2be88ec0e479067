/**
 * Which features fire where, at every step of a run, sorted by feature: a map is one short slice.
 *
 * @typedef {object} Codes
 * @property {number} height  Cells of the grid, top to bottom.
 * @property {number} width
 * @property {number} features  Size of the dictionary.
 * @property {Int32Array} steps  The recorded steps, in order.
 * @property {Float32Array} sigmas  Their noise levels.
 * @property {Int32Array} starts  Entry number at which (feature * steps + step) begins.
 * @property {Uint16Array | Int32Array} tokens  Cell of each entry: row * width + column.
 * @property {Int16Array} values  Times the feature's scale it is the activation.
 * @property {Float32Array} scale
 * @property {number} bytes
 */
import {parseSafetensors} from './safetensors.js'

/** Steps of a value's scale: the largest value of a feature is this many times its scale. */
export const LEVELS = 32767

/**
 * @param {ArrayBuffer} buffer  As the server sends it.
 * @returns {Codes}
 */
export function openCodes(buffer) {
  const {metadata, tensors} = parseSafetensors(buffer)
  const [height, width] = metadata.grid.split('x').map(Number)
  const {tokens} = tensors
  return {
    height,
    width,
    features: Number(metadata.features),
    steps: /** @type {Int32Array} */ (tensors.steps),
    sigmas: /** @type {Float32Array} */ (tensors.sigmas),
    starts: /** @type {Int32Array} */ (tensors.starts),
    // 16 bits hold unsigned cell numbers, which the file format's plain types cannot say
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
 * One feature at one step, for every cell.
 * @param {Codes} codes
 * @param {number} feature
 * @param {number} step  Number among the recorded steps.
 * @param {Float32Array} [out]  Memory to use again.
 */
export function mapOf(codes, feature, step, out = new Float32Array(codes.height * codes.width)) {
  const {starts, tokens, values, scale} = codes
  const at = feature * codes.steps.length + step
  out.fill(0)
  for (let entry = starts[at]; entry < starts[at + 1]; entry++)
    out[tokens[entry]] = values[entry] * scale[feature]
  return out
}

/**
 * The largest activation of a feature in the run, whatever its sign.
 * @param {Codes} codes
 * @param {number} feature
 */
export const peakOf = (codes, feature) => codes.scale[feature] * LEVELS

/**
 * Mean over the picture at each step, and the share of cells on which the feature fires.
 * @param {Codes} codes
 * @param {number} feature
 */
export function curveOf(codes, feature) {
  const count = codes.steps.length,
    cells = codes.height * codes.width
  const means = new Float32Array(count),
    shares = new Float32Array(count)
  for (let step = 0; step < count; step++) {
    const at = feature * count + step
    let sum = 0
    for (let entry = codes.starts[at]; entry < codes.starts[at + 1]; entry++) sum += codes.values[entry]
    means[step] = (sum * codes.scale[feature]) / cells
    shares[step] = (codes.starts[at + 1] - codes.starts[at]) / cells
  }
  return {means, shares}
}
