/** Maps of a coarse grid drawn as smooth heat. */
import {entryOf} from './colour.js'

/**
 * Heat of one map on a canvas, which takes the size that suits.
 * @param {HTMLCanvasElement} canvas
 * @param {Float32Array} map  [height, width]
 * @param {number} height
 * @param {number} width
 * @param {number} peak  Value of the hottest colour.
 * @param {Uint32Array} pixels  See heatPixels.
 * @param {number} side  Pixels of the longer side.
 */
export function drawHeat(canvas, map, height, width, peak, pixels, side) {
  const scale = Math.max(1, side / Math.max(height, width))
  const rows = Math.round(height * scale),
    columns = Math.round(width * scale)
  if (canvas.width !== columns || canvas.height !== rows)
    Object.assign(canvas, {width: columns, height: rows})
  const context = canvas.getContext('2d')
  if (!context) return
  const image = context.createImageData(columns, rows)
  fill(new Uint32Array(image.data.buffer), columns, 0, rows, columns, map, height, width, peak, pixels)
  context.putImageData(image, 0, 0)
}

/**
 * Maps side by side, each in a cell of its own.
 * @param {HTMLCanvasElement} canvas
 * @param {Float32Array[]} maps
 * @param {number} height
 * @param {number} width
 * @param {number} peak
 * @param {Uint32Array} pixels
 * @param {number} cell  Pixels of a cell's longer side.
 * @param {number} perRow
 */
export function drawStrip(canvas, maps, height, width, peak, pixels, cell, perRow) {
  const scale = cell / Math.max(height, width),
    gap = 2
  const rows = Math.max(1, Math.round(height * scale)),
    columns = Math.max(1, Math.round(width * scale))
  const lines = Math.ceil(maps.length / perRow)
  Object.assign(canvas, {width: perRow * (columns + gap) - gap, height: lines * (rows + gap) - gap})
  const context = canvas.getContext('2d')
  if (!context) return
  const image = context.createImageData(canvas.width, canvas.height)
  const out = new Uint32Array(image.data.buffer)
  maps.forEach((map, number) => {
    const start =
      Math.floor(number / perRow) * (rows + gap) * canvas.width + (number % perRow) * (columns + gap)
    fill(out, canvas.width, start, rows, columns, map, height, width, peak, pixels)
  })
  context.putImageData(image, 0, 0)
}

/**
 * Values between the cells' middles are mixed before they are coloured: colours mixed would lie.
 * @param {Uint32Array} out
 * @param {number} stride
 * @param {number} start
 * @param {number} rows
 * @param {number} columns
 * @param {Float32Array} map
 * @param {number} height
 * @param {number} width
 * @param {number} peak
 * @param {Uint32Array} pixels
 */
function fill(out, stride, start, rows, columns, map, height, width, peak, pixels) {
  const unit = peak > 0 ? 1 / peak : 0
  const across = positions(columns, width)
  for (let y = 0; y < rows; y++) {
    const at = Math.min(height - 1, Math.max(0, ((y + 0.5) * height) / rows - 0.5))
    const top = Math.floor(at),
      down = at - top
    const upper = top * width,
      lower = Math.min(height - 1, top + 1) * width
    for (let x = 0; x < columns; x++) {
      const left = across.left[x],
        right = across.right[x],
        share = across.share[x]
      const a = map[upper + left] + (map[upper + right] - map[upper + left]) * share
      const b = map[lower + left] + (map[lower + right] - map[lower + left]) * share
      out[start + y * stride + x] = pixels[entryOf((a + (b - a) * down) * unit)]
    }
  }
}

/**
 * @param {number} columns
 * @param {number} width
 */
function positions(columns, width) {
  const left = new Int32Array(columns),
    right = new Int32Array(columns),
    share = new Float32Array(columns)
  for (let x = 0; x < columns; x++) {
    const at = Math.min(width - 1, Math.max(0, ((x + 0.5) * width) / columns - 0.5))
    left[x] = Math.floor(at)
    right[x] = Math.min(width - 1, left[x] + 1)
    share[x] = at - left[x]
  }
  return {left, right, share}
}
