/**
 * Reads the format of the server's responses: a length, a JSON header, then the tensors one after another.
 *
 * @typedef {Uint8Array | Int16Array | Int32Array | Float32Array} Numbers
 *
 * @typedef {object} File
 * @property {Record<string, string>} metadata
 * @property {Record<string, Numbers>} tensors
 * @property {Record<string, number[]>} shapes
 */

const KINDS = /** @type {const} */ ({U8: Uint8Array, I16: Int16Array, I32: Int32Array, F32: Float32Array})

/**
 * Return the tensors of a file as views of its memory, without copying.
 * @param {ArrayBuffer} buffer
 * @returns {File}
 */
export function parseSafetensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true))
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)))
  const {__metadata__: metadata = {}, ...entries} = header
  /** @type {File} */
  const file = {metadata, tensors: {}, shapes: {}}
  for (const [name, entry] of Object.entries(entries)) {
    const kind = KINDS[/** @type {keyof typeof KINDS} */ (entry.dtype)]
    if (!kind)
      throw new Error(
        `The server sent a tensor of type ${entry.dtype}; expected one of ${Object.keys(KINDS).join(', ')}.`,
      )
    const [start, end] = entry.data_offsets
    file.tensors[name] = new kind(buffer, 8 + length + start, (end - start) / kind.BYTES_PER_ELEMENT)
    file.shapes[name] = entry.shape
  }
  return file
}
