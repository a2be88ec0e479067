/**
 * Draws maps on a coarse grid as smooth heat.
 *
 * @typedef {object} HeatMap
 * @property {Float32Array} values  [height, width]
 * @property {number} height
 * @property {number} width
 * @property {number} peak  The value that gets the hottest colour.
 *
 * @typedef {object} Raster  The part of an image into which a map is drawn.
 * @property {Uint32Array} pixels  Pixels of the whole image.
 * @property {number} stride  Width of the whole image in pixels.
 * @property {number} start  Pixel number of the part's upper left corner.
 * @property {number} rows
 * @property {number} columns
 */
import {paletteIndex} from './colour.js'

const GAP = 2

/**
 * Draw one map as heat on a canvas, and set the canvas's resolution.
 * @param {HTMLCanvasElement} canvas
 * @param {HeatMap} map
 * @param {Uint32Array} palette  See heatPalette.
 * @param {number} side  Length of the canvas's longer side in pixels.
 */
export function drawHeat(canvas, map, palette, side) {
  const scale = Math.max(1, side / Math.max(map.height, map.width))
  const rows = Math.round(map.height * scale)
  const columns = Math.round(map.width * scale)
  if (canvas.width !== columns || canvas.height !== rows)
    Object.assign(canvas, {width: columns, height: rows})
  const context = canvas.getContext('2d')
  if (!context) return
  const image = context.createImageData(columns, rows)
  const pixels = new Uint32Array(image.data.buffer)
  drawInto({pixels, stride: columns, start: 0, rows, columns}, map, palette)
  context.putImageData(image, 0, 0)
}

/**
 * Draw maps of equal size side by side, each in its own cell.
 * @param {HTMLCanvasElement} canvas
 * @param {HeatMap[]} maps
 * @param {Uint32Array} palette
 * @param {{cell: number, perRow: number}} layout  cell: length of a cell's longer side in pixels.
 */
export function drawStrip(canvas, maps, palette, {cell, perRow}) {
  const {height = 1, width = 1} = maps[0] ?? {}
  const scale = cell / Math.max(height, width)
  const rows = Math.max(1, Math.round(height * scale))
  const columns = Math.max(1, Math.round(width * scale))
  const lines = Math.ceil(maps.length / perRow)
  Object.assign(canvas, {width: perRow * (columns + GAP) - GAP, height: lines * (rows + GAP) - GAP})
  const context = canvas.getContext('2d')
  if (!context) return
  const image = context.createImageData(canvas.width, canvas.height)
  const pixels = new Uint32Array(image.data.buffer)
  const stride = canvas.width
  maps.forEach((map, number) => {
    const top = Math.floor(number / perRow) * (rows + GAP)
    const left = (number % perRow) * (columns + GAP)
    drawInto({pixels, stride, start: top * stride + left, rows, columns}, map, palette)
  })
  context.putImageData(image, 0, 0)
}

/**
 * Draw a map into a raster. Values, not colours, are interpolated: mixed colours would show wrong values.
 * @param {Raster} raster
 * @param {HeatMap} map
 * @param {Uint32Array} palette
 */
function drawInto({pixels, stride, start, rows, columns}, {values, height, width, peak}, palette) {
  const unit = peak > 0 ? 1 / peak : 0
  const across = interpolation(columns, width)
  const down = interpolation(rows, height)
  for (let y = 0; y < rows; y++) {
    const upper = values.subarray((down.low[y] ?? 0) * width)
    const lower = values.subarray((down.high[y] ?? 0) * width)
    const shareDown = down.share[y] ?? 0
    for (let x = 0; x < columns; x++) {
      const left = across.low[x] ?? 0
      const right = across.high[x] ?? 0
      const share = across.share[x] ?? 0
      const top = mix(upper[left] ?? 0, upper[right] ?? 0, share)
      const bottom = mix(lower[left] ?? 0, lower[right] ?? 0, share)
      pixels[start + y * stride + x] = palette[paletteIndex(mix(top, bottom, shareDown) * unit)] ?? 0
    }
  }
}

/**
 * @param {number} from
 * @param {number} to
 * @param {number} share
 */
const mix = (from, to, share) => from + (to - from) * share

/**
 * For each pixel along a side, return the two nearest cells and the second cell's share in the mix.
 * @param {number} pixels
 * @param {number} cells
 */
function interpolation(pixels, cells) {
  const low = new Int32Array(pixels)
  const high = new Int32Array(pixels)
  const share = new Float32Array(pixels)
  for (let pixel = 0; pixel < pixels; pixel++) {
    const position = Math.min(cells - 1, Math.max(0, ((pixel + 0.5) * cells) / pixels - 0.5))
    const cell = Math.floor(position)
    low[pixel] = cell
    high[pixel] = Math.min(cells - 1, cell + 1)
    share[pixel] = position - cell
  }
  return {low, high, share}
}
