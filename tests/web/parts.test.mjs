import assert from 'node:assert/strict'
import test from 'node:test'
import {formatChoice, parseChoice, withChosen} from '../../web/explorer/choice.js'
import {findSubjects} from '../../web/explorer/find.js'
import {Labels, builtInLabel, userDataStorage} from '../../web/explorer/labels.js'
import {
  boxBetween,
  cellsInBox,
  parsePainted,
  paintedShare,
  formatPainted,
  stroke,
  emptyPainted,
} from '../../web/explorer/region.js'
import {Run, openRun} from '../../web/explorer/run.js'
import {openExamples} from '../../web/explorer/examples.js'
import {initialState, savedFields, validFields} from '../../web/explorer/store.js'
import {codesFile, safetensors} from './fixtures.mjs'

test('a click selects a small box inside the image', () => {
  const box = boxBetween([0.02, 0.5], [0.02, 0.5], 0.1)
  assert.deepEqual(
    [box.left, box.top, box.bottom].map(side => Number(side.toFixed(3))),
    [0, 0.45, 0.55],
  )
  assert.deepEqual(boxBetween([0.8, 0.9], [0.2, 0.1], 0.1), {left: 0.2, right: 0.8, top: 0.1, bottom: 0.9})
})

test('cells of a box on grids that are not square', () => {
  const cells = (box, height, width) =>
    [...cellsInBox(box, height, width)].flatMap((cell, at) => (cell ? [at] : []))
  assert.deepEqual(cells({left: 0, top: 0, right: 0.5, bottom: 1}, 2, 4), [0, 1, 4, 5])
  assert.deepEqual(cells({left: 0.4, top: 0.4, right: 0.42, bottom: 0.42}, 2, 2), [0])
  assert.deepEqual(cells({left: 0.99, top: 0.99, right: 1, bottom: 1}, 3, 2), [5])
  assert.equal(cells({left: 0, top: 0, right: 1, bottom: 1}, 3, 5).length, 15)
})

test('a painted region survives as text', () => {
  const painted = emptyPainted(2)
  assert.deepEqual([painted.width, painted.height], [96, 48])
  assert.equal(formatPainted(painted), '')
  stroke(painted, [0.2, 0.5], [0.8, 0.5], 0.05, 1)
  const share = paintedShare(painted)
  assert.ok(share > 0.1 && share < 0.2)
  assert.deepEqual(parsePainted(formatPainted(painted)), painted)
  stroke(painted, [0.5, 0.5], [0.5, 0.5], 0.05, 0)
  assert.ok(paintedShare(painted) < share)
  assert.equal(parsePainted('4x2:1,2,5').cells.join(''), '01100000')
  for (const broken of ['', 'x', '4x2:1,2', '4x2:9', undefined]) assert.equal(parsePainted(broken), null)
})

test('a choice is written as the nodes read it', () => {
  const chosen = parseChoice('glasses:-4, 1203:-1.5, red hair ; ratio 2:1:0.5')
  assert.deepEqual(
    chosen.map(({name, strength}) => [name, strength]),
    [
      ['glasses', -4],
      ['1203', -1.5],
      ['red hair', 1],
      ['ratio 2:1', 0.5],
    ],
  )
  assert.equal(formatChoice(parseChoice(formatChoice(chosen))), formatChoice(chosen))
  assert.equal(
    formatChoice(withChosen(chosen, 'glasses', 2)),
    'glasses:2, 1203:-1.5, red hair:1, ratio 2:1:0.5',
  )
  assert.equal(formatChoice(withChosen(withChosen([], '7', -4), '7', null)), '')
})

const HOOK_POINT = {
  name: 'middle_block.1',
  features: 40,
  roles: ['uncond', 'cond'],
  labels: {'red hair': [7, 3], glasses: [3, 9]},
  concepts: [
    {name: 'sunglasses', features: [3]},
    {name: 'glasses', features: [3, 9]},
  ],
}
const storage = () => {
  const files = {}
  return {
    files,
    load: async name => files[name] ?? null,
    save: async (name, text) => {
      files[name] = text
    },
  }
}

test('labels are kept for each dictionary', async () => {
  const kept = storage()
  const labels = new Labels(kept)
  await labels.open('abc')
  assert.equal(labels.of(HOOK_POINT, 3), 'glasses')
  await labels.set(3, '  frames ')
  assert.equal(labels.of(HOOK_POINT, 3), 'frames')
  const later = new Labels(kept)
  await later.open('abc')
  assert.equal(later.of(HOOK_POINT, 3), 'frames')
  await later.open('other')
  assert.equal(later.of(HOOK_POINT, 3), 'glasses')
  await later.open('abc')
  await later.set(3, '')
  assert.equal(later.of(HOOK_POINT, 3), 'glasses')
  assert.equal(builtInLabel(HOOK_POINT, 8), '')
})

test('two explorers keep each other’s names', async () => {
  const kept = storage()
  const [one, two] = [new Labels(kept), new Labels(kept)]
  await Promise.all([one.open('abc'), two.open('abc')])
  await Promise.all([one.set(3, 'frames'), two.set(9, 'nose')])
  await one.set(4, 'ear')
  const later = new Labels(kept)
  await later.open('abc')
  assert.deepEqual(later.own, [
    [3, 'frames'],
    [4, 'ear'],
    [9, 'nose'],
  ])
})

test('names that cannot be read are not overwritten', async () => {
  const user = {status: 200, text: '{"3": "frames"}', saved: 0}
  const labels = new Labels(
    userDataStorage({
      getUserData: async () => new Response(user.status === 200 ? user.text : '', {status: user.status}),
      storeUserData: async (file, text) => {
        user.saved++
        user.text = text
      },
    }),
  )
  for (const [status, text] of [
    [500, user.text],
    [403, user.text],
    [200, '{"3": "fra'],
    [200, '[]'],
  ]) {
    Object.assign(user, {status, text})
    await assert.rejects(labels.open('abc'))
    await assert.rejects(labels.set(9, 'nose'))
  }
  assert.deepEqual([user.saved, labels.own], [0, []])
  Object.assign(user, {status: 200, text: '{"3": "frames"}'})
  await labels.open('abc') // the same dictionary: read now that it can be
  await labels.set(9, 'nose')
  assert.deepEqual(labels.own, [
    [3, 'frames'],
    [9, 'nose'],
  ])
  user.status = 404
  await labels.open('other')
  assert.deepEqual(labels.own, [])
  await labels.set(1, 'hat')
  assert.deepEqual(JSON.parse(user.text), {1: 'hat'})
})

test('search by number, concept, label and own name', async () => {
  const labels = new Labels(storage())
  await labels.open('abc')
  await labels.set(21, 'round frames')
  const found = text =>
    findSubjects(text, HOOK_POINT, labels, 9).map(subject => subject.name ?? subject.feature)
  assert.deepEqual(found('#12'), [12])
  assert.deepEqual(found('99'), [])
  assert.deepEqual(found('gla'), ['glasses', 3, 9])
  assert.deepEqual(found('hair red'), [7, 3])
  assert.deepEqual(found('frames'), [21])
  assert.deepEqual(found('  '), [])
})

test('workflows keep the names under which they were saved first', () => {
  const old = {
    place: 'middle_block.1',
    role: 'uncond',
    item: 1,
    step: 3,
    everyStep: true,
    opacity: 0.5,
    page: true,
  }
  const {place, ...same} = old
  assert.deepEqual(validFields(old), {hookPoint: place, ...same})
  assert.deepEqual(savedFields({...initialState(), ...validFields(old)}), {
    ...old,
    subject: null,
    region: null,
  })
})

test('what somebody else’s workflow holds is checked', () => {
  const state = {
    ...initialState(),
    hookPoint: 'x',
    step: 4,
    subject: {kind: 'concept', name: 'glasses'},
    region: {left: 0, top: 0, right: 1, bottom: 1},
  }
  const saved = JSON.parse(JSON.stringify(savedFields(state)))
  const {hookPoint, role, item, step, subject, region, everyStep, opacity, page} = state
  assert.deepEqual(validFields(saved), {
    hookPoint,
    role,
    item,
    step,
    subject,
    region,
    everyStep,
    opacity,
    page,
  })
  assert.deepEqual(
    validFields({
      place: 5,
      step: 'x',
      subject: {kind: 'feature', feature: 1.5},
      region: {left: -3},
      chosen: 'x',
    }),
    {},
  )
  assert.deepEqual(validFields(null), {})
})

const examplesFile = () =>
  safetensors(
    {crops: Uint8Array.from({length: 2 * 2 * 2 * 3}, (_, at) => at), value: new Float32Array([2, 0.5])},
    {crops: [2, 2, 2, 3]},
    {label: 'hat', by: 'captions', score: '3.1'},
  )

test('crops of an index become pixels', () => {
  const found = openExamples(examplesFile())
  assert.deepEqual(
    [found.side, found.values, found.label, found.by, found.score],
    [2, [2, 0.5], 'hat', 'captions', '3.1'],
  )
  assert.deepEqual([...found.crops[1]], [12, 13, 14, 255, 15, 16, 17, 255, 18, 19, 20, 255, 21, 22, 23, 255])
  const none = openExamples(
    safetensors({crops: new Uint8Array(), value: new Float32Array(2)}, {crops: [2, 0, 0, 3]}),
  )
  assert.deepEqual([none.crops, none.label], [[], ''])
})

test('a run is fetched part by part, once, and a refusal is reported', async () => {
  const requested = []
  const info = {
    key: 'k',
    total_steps: 1,
    sigmas: [1, 0],
    places: [
      {...HOOK_POINT, name: 'output_blocks.10.1'},
      {...HOOK_POINT, name: 'output_blocks.2.1'},
      {...HOOK_POINT, neighbours: true, examples: true},
    ],
  }
  const answers = {
    '/revelio/traces/k': JSON.stringify(info),
    '/revelio/traces/k/codes?hook_point=middle_block.1&role=cond&item=0': codesFile([[[1], [0]]], 1, 2),
    '/revelio/traces/k/concepts?hook_point=middle_block.1&role=cond&item=0': safetensors(
      {maps: new Int16Array(4), scale: new Float32Array(2)},
      {maps: [2, 1, 1, 2]},
    ),
    '/revelio/traces/k/examples?hook_point=middle_block.1&feature=3': examplesFile(),
    '/revelio/traces/k/neighbours?hook_point=middle_block.1&feature=3':
      '{"neighbours":[{"feature":9,"cosine":0.5}]}',
  }
  const fetch = async path => {
    requested.push(path)
    return path in answers ? new Response(answers[path]) : new Response('{"error":"Gone."}', {status: 404})
  }
  const run = await openRun('k', fetch)
  assert.equal(requested.length, 1)
  assert.deepEqual(
    run.info.hookPoints.map(({name}) => name),
    ['middle_block.1', 'output_blocks.2.1', 'output_blocks.10.1'],
  )
  assert.deepEqual(run.info.hookPoints[0].roles, ['cond', 'uncond'])
  const [a, b] = await Promise.all([
    run.codes('middle_block.1', 'cond', 0),
    run.codes('middle_block.1', 'cond', 0),
  ])
  assert.equal(a, b)
  assert.equal(requested.length, 2)
  assert.deepEqual((await run.presence('middle_block.1', 'cond', 0)).names, ['sunglasses', 'glasses'])
  assert.deepEqual(await run.neighbours('middle_block.1', 3), [{feature: 9, cosine: 0.5}])
  assert.equal((await run.examples('middle_block.1', 3))?.label, 'hat')
  assert.equal(await run.examples('output_blocks.2.1', 3), null)
  await assert.rejects(run.codes('middle_block.1', 'uncond', 0), /Gone/)
  await assert.rejects(openRun('gone', fetch), error => error.status === 404)
  assert.ok(run instanceof Run)
})
