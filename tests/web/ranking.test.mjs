import assert from 'node:assert/strict'
import test from 'node:test'
import {openCodes} from '../../web/explorer/codes.js'
import {openPresence} from '../../web/explorer/presence.js'
import {rankConcepts, rankFeatures} from '../../web/explorer/ranking.js'
import {codesFile, safetensors} from './fixtures.mjs'

// 2 steps, 2 by 2 cells: feature 0 is in the first cell, 1 everywhere and stronger, 2 elsewhere, 3 comes late
const DENSE = [
  [
    [2, 3, 0, 0],
    [0, 3, 0, 0],
    [0, 3, 5, 0],
    [0, 3, 0, 0],
  ],
  [
    [2, 3, 0, 9],
    [0, 3, 0, 0],
    [0, 3, 5, 0],
    [0, 3, 0, 0],
  ],
]
const FIRST = Uint8Array.of(1, 0, 0, 0)
const codes = openCodes(codesFile(DENSE, 2, 2))
const near = (a, b) => assert.ok(Math.abs(a - b) < 1e-3, `${a} is not ${b}`)

test('what is active only here comes before what is active everywhere', () => {
  const [first, second, ...more] = rankFeatures(codes, FIRST, 0, 8)
  assert.deepEqual([first.feature, second.feature, more.length], [0, 1, 0])
  near(first.here, 2)
  near(first.specificity, 1)
  near(second.here, 3)
  near(second.elsewhere, 3)
  near(second.specificity, 0)
})

test('over all steps the means cover all steps', () => {
  const ranked = rankFeatures(codes, FIRST, null, 8)
  assert.equal(ranked[0].feature, 3)
  near(ranked[0].here, 4.5)
})

test('the whole image is ranked by activation alone', () => {
  const all = Uint8Array.of(1, 1, 1, 1)
  assert.deepEqual(
    rankFeatures(codes, all, 0, 2).map(({feature}) => feature),
    [1, 2],
  )
})

test('features below 0 in the region are not active there', () => {
  const negative = openCodes(codesFile([[[-2], [0]]], 1, 2))
  assert.deepEqual(rankFeatures(negative, Uint8Array.of(1, 0), 0, 4), [])
})

test('concepts that are here, without faint traces of others', () => {
  const maps = Int16Array.from([900, 0, 0, 0, 800, 800, 800, 800, 10, 0, 0, 0])
  const presence = openPresence(
    safetensors({maps, scale: Float32Array.of(0.001, 0.001, 0.001)}, {maps: [3, 1, 2, 2]}),
    ['glasses', 'pink skin', 'hat'],
  )
  const ranked = rankConcepts(presence, FIRST, 0, 4)
  assert.deepEqual(
    ranked.map(({name}) => name),
    ['glasses'],
  )
  near(ranked[0].here, 0.9)
  const everywhere = rankConcepts(presence, Uint8Array.of(1, 1, 1, 1), 0, 4)
  assert.deepEqual(
    everywhere.map(({name}) => name),
    ['glasses', 'pink skin'],
  )
})

/** Concepts on 2 by 2 cells at one step, in thousandths of their usual amount. */
const present = concepts => {
  const names = Object.keys(concepts)
  const maps = Int16Array.from(Object.values(concepts).flat())
  const scale = new Float32Array(names.length).fill(0.001)
  return openPresence(safetensors({maps, scale}, {maps: [names.length, 1, 2, 2]}), names)
}
const ALL = Uint8Array.of(1, 1, 1, 1)
const namesOf = (presence, inside, count = 4) =>
  rankConcepts(presence, inside, 0, count).map(({name, alternatives}) => [name, ...alternatives])

test('of one kind only the strongest is listed, the others as alternatives', () => {
  const presence = present({
    'red hair': [700, 100, 0, 0],
    'blue hair': [800, 100, 0, 0],
    hat: [750, 0, 0, 0],
    'green hair': [500, 0, 0, 0],
    'Black Hair': [650, 0, 0, 0],
  })
  for (const inside of [ALL, FIRST]) {
    const found = Object.fromEntries(
      namesOf(presence, inside).map(([name, ...others]) => [name, others.sort()]),
    )
    assert.deepEqual(found, {'blue hair': ['Black Hair', 'red hair'], hat: []})
  }
  const clear = present({'blue hair': [900, 0, 0, 0], 'red hair': [700, 0, 0, 0]})
  assert.deepEqual(namesOf(clear, ALL), [['blue hair']])
})

test('of one kind in two cells both are listed', () => {
  const presence = present({
    'red hat': [900, 0, 0, 100],
    'blue hat': [100, 0, 0, 600],
    sunglasses: [0, 500, 0, 0],
    glasses: [0, 450, 0, 0],
  })
  assert.deepEqual(namesOf(presence, ALL), [['red hat'], ['blue hat'], ['sunglasses'], ['glasses']])
})
