/** Files as the server sends them, made here without it. */

/** A safetensors file of typed arrays. */
export function safetensors(tensors, shapes = {}, metadata = {}) {
  const kinds = {Uint8Array: 'U8', Int16Array: 'I16', Int32Array: 'I32', Float32Array: 'F32'}
  const names = Object.keys(tensors).sort(
    (a, b) => tensors[b].BYTES_PER_ELEMENT - tensors[a].BYTES_PER_ELEMENT,
  )
  const header = {__metadata__: metadata}
  let end = 0
  for (const name of names) {
    const start = end
    end += tensors[name].byteLength
    header[name] = {
      dtype: kinds[tensors[name].constructor.name],
      shape: shapes[name] ?? [tensors[name].length],
      data_offsets: [start, end],
    }
  }
  let text = JSON.stringify(header)
  text += ' '.repeat((8 - (text.length % 8)) % 8)
  const out = new Uint8Array(8 + text.length + end)
  new DataView(out.buffer).setBigUint64(0, BigInt(text.length), true)
  out.set(new TextEncoder().encode(text), 8)
  for (const name of names) {
    const {buffer, byteOffset, byteLength} = tensors[name]
    out.set(new Uint8Array(buffer, byteOffset, byteLength), 8 + text.length + header[name].data_offsets[0])
  }
  return out.buffer
}

/** Codes from dense maps: dense[step][cell][feature]. */
export function codesFile(dense, height, width) {
  const steps = dense.length
  const features = dense[0][0].length
  const starts = [0]
  const tokens = []
  const values = []
  const scale = []
  for (let f = 0; f < features; f++) {
    const peak = Math.max(...dense.flat().map(cell => Math.abs(cell[f])))
    scale.push(peak / 32767)
    for (let s = 0; s < steps; s++) {
      dense[s].forEach((cell, token) => {
        if (!cell[f]) return
        tokens.push(token)
        values.push(Math.round(cell[f] / scale[f]))
      })
      starts.push(tokens.length)
    }
  }
  return safetensors(
    {
      starts: Int32Array.from(starts),
      tokens: Int16Array.from(tokens),
      values: Int16Array.from(values),
      scale: Float32Array.from(scale),
      steps: Int32Array.from({length: steps}, (_, s) => s),
      sigmas: Float32Array.from({length: steps}, (_, s) => steps - s),
    },
    {},
    {grid: `${height}x${width}`, features: String(features)},
  )
}
