import assert from 'node:assert/strict'
import {readFileSync} from 'node:fs'
import test from 'node:test'
import {
  COLD,
  HEAT,
  formatNumber,
  formatPercent,
  heatColour,
  heatPalette,
  paletteIndex,
} from '../../web/explorer/colour.js'
import {drawHeat, drawStrip} from '../../web/explorer/heat.js'

/** The anchors of a ramp in the Python code of the figures. */
function pythonRamp(name) {
  const file = new URL('../../comfy_revelio/render/colours.py', import.meta.url)
  const body = new RegExp(`^${name} = \\((.*?)^\\)`, 'ms').exec(readFileSync(file, 'utf8'))?.[1] ?? ''
  const anchors = [...body.matchAll(/\(([\d.]+), \((\d+), (\d+), (\d+)\)\)/g)]
  return anchors.map(([, position, ...colour]) => [Number(position), colour.map(Number)])
}

test('the heat has the colours of the figures', () => {
  assert.equal(pythonRamp('_HEAT').length, 8)
  assert.deepEqual(HEAT, pythonRamp('_HEAT'))
  assert.deepEqual(COLD, pythonRamp('_COLD'))
})

test('heat runs from violet to pale yellow, blue below 0, clear at 0', () => {
  assert.deepEqual(heatColour(0), [44, 26, 120])
  assert.deepEqual(heatColour(1), [252, 250, 190])
  const table = new Uint8Array(heatPalette(1).buffer)
  const at = value => [...table.slice(4 * paletteIndex(value), 4 * paletteIndex(value) + 4)]
  assert.deepEqual(at(1), [252, 250, 190, 255])
  assert.deepEqual(at(-1), [206, 240, 244, 255])
  assert.equal(at(0)[3], 0)
  assert.equal(paletteIndex(7), paletteIndex(1))
  const light = [...Array(20).keys()].map(i => {
    const [r, g, b] = heatColour(i / 19)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  })
  light.slice(1).forEach((value, i) => assert.ok(value > light[i]))
})

test('numbers are short', () => {
  assert.deepEqual([0, 1234.5, 0.01234, 2e-5, NaN].map(formatNumber), ['0', '1230', '0.0123', '2.0e-5', '–'])
  assert.deepEqual([0, 0.004, 0.125].map(formatPercent), ['0 %', '<1 %', '13 %'])
})

/** A canvas that keeps its pixels. */
function fakeCanvas() {
  const canvas = {width: 0, height: 0, pixels: null, getContext: () => context}
  const context = {
    createImageData: (width, height) => ({data: new Uint8ClampedArray(4 * width * height)}),
    putImageData: image => {
      canvas.pixels = [...new Uint32Array(image.data.buffer)]
    },
  }
  return canvas
}
const palette = heatPalette(1)
const colours = values => values.map(value => palette[paletteIndex(value)])

test('values between the centres of cells are interpolated, then coloured', () => {
  const canvas = fakeCanvas()
  drawHeat(canvas, {values: Float32Array.of(0, 4), height: 1, width: 2, peak: 4}, palette, 8)
  assert.deepEqual([canvas.width, canvas.height], [8, 4])
  const row = colours([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])
  assert.deepEqual(canvas.pixels, [...row, ...row, ...row, ...row])
})

test('a map without any activity is clear', () => {
  const canvas = fakeCanvas()
  drawHeat(canvas, {values: new Float32Array(6), height: 3, width: 2, peak: 0}, palette, 3)
  assert.deepEqual(new Set(canvas.pixels), new Set(colours([0])))
})

test('a strip has a cell for each map, with gaps between', () => {
  const canvas = fakeCanvas()
  const map = value => ({values: Float32Array.of(value), height: 1, width: 1, peak: 1})
  drawStrip(canvas, [map(1), map(-1), map(0.5)], palette, {cell: 1, perRow: 2})
  assert.deepEqual([canvas.width, canvas.height], [4, 4])
  const [first, second, third] = colours([1, -1, 0.5])
  const gap = [0, 0, 0, 0]
  assert.deepEqual(canvas.pixels, [first, 0, 0, second, ...gap, ...gap, third, 0, 0, 0])
})
