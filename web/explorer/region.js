/**
 * Parts of an image: the inspected box, and a region painted with a brush.
 *
 * @typedef {[number, number]} Point  x and y as shares of the image, 0 to 1.
 * @typedef {{left: number, top: number, right: number, bottom: number}} Box  As shares of the image, 0 to 1.
 * @typedef {{width: number, height: number, cells: Uint8Array}} Painted
 */

/** The number of cells along a painted region's longer side. */
const PAINTED_SIDE = 96

/**
 * Return the box between two points, in any order. For a mere click, return a small box around the point.
 * @param {Point} from
 * @param {Point} to
 * @param {number} least  The smallest width and height of a box.
 * @returns {Box}
 */
export function boxBetween([x0, y0], [x1, y1], least) {
  const [left, right] = widened(x0, x1, least)
  const [top, bottom] = widened(y0, y1, least)
  return {left, top, right, bottom}
}

/**
 * @param {number} a
 * @param {number} b
 * @param {number} least
 * @returns {[number, number]}
 */
function widened(a, b, least) {
  let low = Math.min(a, b)
  let high = Math.max(a, b)
  if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2]
  return [Math.max(0, low), Math.min(1, high)]
}

/**
 * Mark the grid cells whose centres are inside a box, or else the one cell at the box's centre.
 * @param {Box} box
 * @param {number} height
 * @param {number} width
 */
export function cellsInBox(box, height, width) {
  const inside = new Uint8Array(height * width)
  const [top, bottom] = coveredRange(box.top, box.bottom, height)
  const [left, right] = coveredRange(box.left, box.right, width)
  for (let y = top; y <= bottom; y++) inside.fill(1, y * width + left, y * width + right + 1)
  return inside
}

/**
 * Return the first and the last cell that a range covers along one side of the grid.
 * @param {number} from
 * @param {number} to
 * @param {number} count
 * @returns {[number, number]}
 */
function coveredRange(from, to, count) {
  const first = Math.ceil(from * count - 0.5)
  const last = Math.ceil(to * count - 0.5) - 1
  if (first <= last) return [Math.max(0, first), Math.min(count - 1, last)]
  const only = Math.min(count - 1, Math.max(0, Math.floor(((from + to) / 2) * count)))
  return [only, only]
}

/**
 * Create an empty region with the image's aspect ratio.
 * @param {number} aspect  Width / height.
 * @returns {Painted}
 */
export function emptyPainted(aspect) {
  const width = aspect >= 1 ? PAINTED_SIDE : Math.max(1, Math.round(PAINTED_SIDE * aspect))
  const height = aspect >= 1 ? Math.max(1, Math.round(PAINTED_SIDE / aspect)) : PAINTED_SIDE
  return {width, height, cells: new Uint8Array(width * height)}
}

/**
 * Draw a stroke of a round brush from one point to another into `painted`.
 * @param {Painted} painted
 * @param {Point} from
 * @param {Point} to
 * @param {number} radius  As a share of the longer side.
 * @param {0 | 1} value  1 paints, 0 erases.
 */
export function stroke(painted, from, to, radius, value) {
  const {width, height, cells} = painted
  const reach = radius * Math.max(width, height)
  const [x0, y0, x1, y1] = [from[0] * width, from[1] * height, to[0] * width, to[1] * height]
  const lengthSquared = (x1 - x0) ** 2 + (y1 - y0) ** 2
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const dx = x + 0.5 - x0
      const dy = y + 0.5 - y0
      const projected = dx * (x1 - x0) + dy * (y1 - y0)
      const along = lengthSquared ? Math.min(1, Math.max(0, projected / lengthSquared)) : 0
      const distanceSquared = (dx - along * (x1 - x0)) ** 2 + (dy - along * (y1 - y0)) ** 2
      if (distanceSquared <= reach ** 2) cells[y * width + x] = value
    }
  }
}

/**
 * Return the text that the node stores for a region: size and run lengths, or "" for an empty region.
 * @param {Painted | null} painted
 */
export function formatPainted(painted) {
  if (!painted || !painted.cells.includes(1)) return ''
  const lengths = []
  let value = 0
  let length = 0
  for (const cell of painted.cells) {
    if (cell !== value) {
      lengths.push(length)
      value = cell
      length = 0
    }
    length++
  }
  return `${painted.width}x${painted.height}:${[...lengths, length].join(',')}`
}

/**
 * Return the region in the node's text, or null if the text is empty or broken.
 * @param {string} text
 * @returns {Painted | null}
 */
export function parsePainted(text) {
  const found = /^(\d{1,3})x(\d{1,3}):([\d,]+)$/.exec(text ?? '')
  if (!found) return null
  const [, width, height, lengths = ''] = found
  const cells = new Uint8Array(Number(width) * Number(height))
  let end = 0
  lengths.split(',').forEach((length, number) => {
    cells.fill(number % 2, end, end + Number(length))
    end += Number(length)
  })
  return end === cells.length ? {width: Number(width), height: Number(height), cells} : null
}

/** @param {Painted | null} painted */
export const paintedShare = painted =>
  painted ? painted.cells.reduce((sum, cell) => sum + cell, 0) / painted.cells.length : 0
