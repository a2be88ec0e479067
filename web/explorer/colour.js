/** The colours of the heat, as in the figures (comfy_revelio/render/colours.py), and number formatting. */

/** @typedef {readonly [number, readonly [number, number, number]]} Anchor  Position 0 to 1, sRGB colour. */

/**
 * The colour ramp for positive values: equal differences in value look like equal differences in brightness.
 * @type {readonly Anchor[]}
 */
export const HEAT = [
  [0, [44, 26, 120]],
  [0.12, [98, 22, 152]],
  [0.254, [158, 30, 148]],
  [0.388, [208, 58, 112]],
  [0.537, [238, 106, 70]],
  [0.697, [250, 160, 48]],
  [0.858, [250, 212, 76]],
  [1, [252, 250, 190]],
]
/** @type {readonly Anchor[]} */
export const COLD = [
  [0, [20, 34, 92]],
  [0.211, [28, 72, 150]],
  [0.423, [34, 118, 190]],
  [0.631, [64, 166, 212]],
  [0.827, [130, 208, 228]],
  [1, [206, 240, 244]],
]
/** Opacity is the value to the power of this exponent; below 1, so that weak activity is visible. */
const ALPHA_CURVE = 0.5
const ENTRIES = 256

const LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1

/**
 * @param {number} value  0 to 1.
 * @param {readonly Anchor[]} [ramp]
 * @returns {number[]} sRGB, 0 to 255.
 */
export function heatColour(value, ramp = HEAT) {
  const found = ramp.findIndex(([position]) => position >= value)
  const upper = Math.max(1, found)
  const [low, from] = /** @type {Anchor} */ (ramp[upper - 1])
  const [high, to] = /** @type {Anchor} */ (ramp[upper])
  const share = Math.min(1, Math.max(0, (value - low) / (high - low)))
  return from.map((channel, i) => Math.round(channel + ((to[i] ?? 0) - channel) * share))
}

/**
 * Return the heat's RGBA palette: for values 0 to 1, then (from entry 256) 0 to -1; value 0 is transparent.
 * @param {number} opacity  Opacity of the hottest heat.
 */
export function heatPalette(opacity) {
  const colours = [...rampColours(HEAT), ...rampColours(COLD)]
  return Uint32Array.from(colours, ([red = 0, green = 0, blue = 0], entry) => {
    const value = (entry % ENTRIES) / (ENTRIES - 1)
    const alpha = Math.round(255 * opacity * value ** ALPHA_CURVE)
    return LITTLE_ENDIAN
      ? ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0
      : ((red << 24) | (green << 16) | (blue << 8) | alpha) >>> 0
  })
}

/** @param {readonly Anchor[]} ramp */
const rampColours = ramp => Array.from({length: ENTRIES}, (_, i) => heatColour(i / (ENTRIES - 1), ramp))

/**
 * Return the index of a value between -1 and 1 in the palette.
 * @param {number} value
 */
export function paletteIndex(value) {
  const size = Math.min(1, Math.abs(value)) * (ENTRIES - 1)
  return (value < 0 ? ENTRIES : 0) + Math.round(size)
}

/** The heat's colours from 0 to the top, as a CSS gradient. */
export const GRADIENT = `linear-gradient(to top, ${HEAT.map(([p, c]) => `rgb(${c}) ${100 * p}%`).join(', ')})`

/**
 * Write a number with three significant digits.
 * @param {number} value
 */
export function formatNumber(value) {
  if (!Number.isFinite(value)) return '–'
  if (value === 0) return '0'
  const size = Math.abs(value)
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1)
  return String(Number(value.toPrecision(3)))
}

/** @param {number} share */
export const formatPercent = share => `${share > 0 && share < 0.01 ? '<1' : Math.round(100 * share)} %`
