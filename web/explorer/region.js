/**
 * Parts of a picture: boxes that are looked at, and regions painted with a brush.
 *
 * @typedef {{left: number, top: number, right: number, bottom: number}} Box  In shares of the picture, 0 to 1.
 * @typedef {{width: number, height: number, cells: Uint8Array}} Painted
 */

/** Cells of a painted region's longer side. */
export const PAINTED_SIDE = 96

/**
 * The box between two points, whichever way it was drawn; a mere click takes the box around it.
 * @param {number} x0
 * @param {number} y0
 * @param {number} x1
 * @param {number} y1
 * @param {number} least  Side that a click gets.
 * @returns {Box}
 */
export function boxBetween(x0, y0, x1, y1, least) {
  const [left, right] = grown(x0, x1, least),
    [top, bottom] = grown(y0, y1, least)
  return {left, top, right, bottom}
}

/**
 * @param {number} a
 * @param {number} b
 * @param {number} least
 */
function grown(a, b, least) {
  let low = Math.min(a, b),
    high = Math.max(a, b)
  if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2]
  return [Math.max(0, low), Math.min(1, high)]
}

/**
 * The cells of a grid that a box covers, by their middles; at least one.
 * @param {Box} box
 * @param {number} height
 * @param {number} width
 */
export function cellsIn(box, height, width) {
  const inside = new Uint8Array(height * width)
  const [top, bottom] = covered(box.top, box.bottom, height),
    [left, right] = covered(box.left, box.right, width)
  for (let y = top; y <= bottom; y++) inside.fill(1, y * width + left, y * width + right + 1)
  return inside
}

/**
 * @param {number} from
 * @param {number} to
 * @param {number} count
 */
function covered(from, to, count) {
  const first = Math.ceil(from * count - 0.5),
    last = Math.ceil(to * count - 0.5) - 1
  if (first <= last) return [Math.max(0, first), Math.min(count - 1, last)]
  const only = Math.min(count - 1, Math.max(0, Math.floor(((from + to) / 2) * count)))
  return [only, only]
}

/**
 * An empty region with the picture's aspect.
 * @param {number} aspect  Width by height.
 * @returns {Painted}
 */
export function unpainted(aspect) {
  const width = aspect >= 1 ? PAINTED_SIDE : Math.max(1, Math.round(PAINTED_SIDE * aspect))
  const height = aspect >= 1 ? Math.max(1, Math.round(PAINTED_SIDE / aspect)) : PAINTED_SIDE
  return {width, height, cells: new Uint8Array(width * height)}
}

/**
 * A stroke of a round brush from one point to another, in place.
 * @param {Painted} painted
 * @param {number[]} from  x and y in shares of the picture.
 * @param {number[]} to
 * @param {number} radius  In shares of the longer side.
 * @param {0 | 1} value  1 paints, 0 rubs out.
 */
export function stroke(painted, from, to, radius, value) {
  const {width, height, cells} = painted
  const reach = radius * Math.max(width, height)
  const [x0, y0, x1, y1] = [from[0] * width, from[1] * height, to[0] * width, to[1] * height]
  const length = (x1 - x0) ** 2 + (y1 - y0) ** 2
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const px = x + 0.5 - x0,
        py = y + 0.5 - y0
      const along = length ? Math.min(1, Math.max(0, (px * (x1 - x0) + py * (y1 - y0)) / length)) : 0
      if ((px - along * (x1 - x0)) ** 2 + (py - along * (y1 - y0)) ** 2 <= reach ** 2)
        cells[y * width + x] = value
    }
  }
}

/**
 * A region as the node's text: size and lengths of runs; empty for an empty region.
 * @param {Painted | null} painted
 */
export function paintedText(painted) {
  if (!painted || !painted.cells.includes(1)) return ''
  const runs = []
  let value = 0,
    run = 0
  for (const cell of painted.cells) {
    if (cell !== value) {
      runs.push(run)
      value = cell
      run = 0
    }
    run++
  }
  return `${painted.width}x${painted.height}:${[...runs, run].join(',')}`
}

/**
 * The region of a node's text; null for an empty or a broken one.
 * @param {string} text
 * @returns {Painted | null}
 */
export function paintedOf(text) {
  const found = /^(\d{1,3})x(\d{1,3}):([\d,]+)$/.exec(text ?? '')
  if (!found) return null
  const width = Number(found[1]),
    height = Number(found[2]),
    cells = new Uint8Array(width * height)
  let at = 0
  found[3].split(',').forEach((run, number) => {
    cells.fill(number % 2, at, at + Number(run))
    at += Number(run)
  })
  return at === cells.length ? {width, height, cells} : null
}

/** @param {Painted | null} painted */
export const paintedShare = painted =>
  painted ? painted.cells.reduce((sum, cell) => sum + cell, 0) / painted.cells.length : 0
