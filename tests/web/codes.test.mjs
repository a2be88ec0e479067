import assert from 'node:assert/strict'
import test from 'node:test'
import {activationCurve, activationMap, openCodes, peakActivation} from '../../web/explorer/codes.js'
import {openPresence, presenceMap, presencePeak} from '../../web/explorer/presence.js'
import {codesFile, safetensors} from './fixtures.mjs'

const DENSE = [
  // 2 steps, a grid of 2 by 3, 3 features
  [
    [0, 1, 0],
    [2, 0, 0],
    [0, 0, 0],
    [0, 0, 0],
    [0, 0, -4],
    [0, 0, 0],
  ],
  [
    [0, 0, 0],
    [0, 0, 0],
    [8, 0, 0],
    [0, 0, 2],
    [0, 0, 0],
    [1, 3, 0],
  ],
]
const close = (found, expected) =>
  found.forEach((value, at) =>
    assert.ok(Math.abs(value - expected[at]) < 1e-3, `${found} is not ${expected}`),
  )

test('every map comes back from the file', () => {
  const codes = openCodes(codesFile(DENSE, 2, 3))
  assert.deepEqual([codes.height, codes.width, codes.features, [...codes.steps]], [2, 3, 3, [0, 1]])
  for (const feature of [0, 1, 2])
    for (const step of [0, 1]) {
      close(
        activationMap(codes, feature, step),
        DENSE[step].map(cell => cell[feature]),
      )
    }
})

test('memory is used again and cleared first', () => {
  const codes = openCodes(codesFile(DENSE, 2, 3))
  const out = new Float32Array(6).fill(9)
  assert.equal(activationMap(codes, 1, 1, out), out)
  close(out, [0, 0, 0, 0, 0, 3])
})

test('peak, means and shares', () => {
  const codes = openCodes(codesFile(DENSE, 2, 3))
  close([peakActivation(codes, 0), peakActivation(codes, 2)], [8, 4])
  const {means, shares} = activationCurve(codes, 0)
  close(means, [2 / 6, 9 / 6])
  close(shares, [1 / 6, 2 / 6])
})

test('cell numbers above 32,767 are unsigned', () => {
  const file = safetensors(
    {
      starts: Int32Array.of(0, 1),
      tokens: Int16Array.of(40000 - 65536),
      values: Int16Array.of(32767),
      scale: Float32Array.of(1 / 32767),
      steps: Int32Array.of(0),
      sigmas: Float32Array.of(1),
    },
    {},
    {grid: '250x250', features: '1'},
  )
  const map = activationMap(openCodes(file), 0, 0)
  assert.equal(
    map.findIndex(value => value > 0.9),
    40000,
  )
})

test('presence of concepts', () => {
  const maps = Int16Array.of(0, 32767, 0, 0, 100, 0, 0, 0) // 2 concepts, 1 step, 2 by 2
  const file = safetensors({maps, scale: Float32Array.of(2 / 32767, 1)}, {maps: [2, 1, 2, 2]})
  const presence = openPresence(file, ['glasses', 'hat'])
  close(presenceMap(presence, 'glasses', 0), [0, 2, 0, 0])
  close([presencePeak(presence, 'glasses'), presencePeak(presence, 'beard')], [2, 0])
  close(presenceMap(presence, 'beard', 0), [0, 0, 0, 0])
})

test('a file of unknown types is refused', () => {
  const text = JSON.stringify({x: {dtype: 'F64', shape: [1], data_offsets: [0, 8]}})
  const bytes = new Uint8Array(8 + text.length + 8)
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true)
  bytes.set(new TextEncoder().encode(text), 8)
  assert.throws(() => openCodes(bytes.buffer), /F64/)
})
