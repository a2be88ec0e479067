import assert from 'node:assert/strict'
import test from 'node:test'
import {createPair} from '../../web/explorer/pair.js'
import {codesFile, safetensors} from './made.mjs'

const place = (more = {}) => ({
  name: 'm',
  roles: ['cond'],
  items: 2,
  dictionary: 'abc',
  labels: {},
  concepts: [],
  missing: '',
  ...more,
})
const question = item => `hook_point=m&role=cond&item=${item}`
const CODES = {0: codesFile([[[1], [0]]], 1, 2), 1: codesFile([[[5], [0]]], 1, 2)}
const EMPTY = safetensors({maps: new Int16Array(0), scale: new Float32Array(0)}, {maps: [0, 1, 1, 2]})

/** A server with runs "a" and "b"; `broken` answers first: [status, sentence] by a part of the address. */
function server(broken = {}, places = {}) {
  const asked = []
  const fetch = async path => {
    asked.push(path)
    const known = Object.entries(broken).find(([part]) => path.includes(part))
    if (known) return new Response(JSON.stringify({error: known[1][1]}), {status: known[1][0]})
    const [, key, what] = /traces\/(\w+)(?:\/(\w+))?/.exec(path)
    if (!what)
      return new Response(
        JSON.stringify({key, total_steps: 1, sigmas: [1, 0], places: [places[key] ?? place()]}),
      )
    return new Response(what === 'codes' ? CODES[path.at(-1)] : EMPTY)
  }
  return {asked, fetch}
}

test('both runs show the same picture of the batch, or the only one', async () => {
  const {asked, fetch} = server(),
    pair = createPair(fetch)
  assert.deepEqual(await pair.open('a', 'b'), [])
  const {codes, beside, problems} = await pair.look('m', 'cond', 1)
  assert.ok(codes && beside)
  assert.deepEqual([codes.scale, problems], [beside.scale, []])
  assert.ok(asked.includes(`/revelio/traces/b/codes?${question(1)}`))
  const single = createPair(server({}, {b: place({items: 1})}).fetch)
  await single.open('a', 'b')
  assert.equal(single.itemBeside('m', 1), 0)
  assert.ok((await single.look('m', 'cond', 1)).beside)
})

test('what fails of the second run leaves the first', async () => {
  const cases = [
    ['/b/codes', 400, false],
    ['/b/concepts', 500, false],
    ['/b/codes', 404, true],
    ['/b/concepts', 404, true],
  ]
  for (const [part, status, gone] of cases) {
    const pair = createPair(server({[part]: [status, 'Broken.']}).fetch)
    await pair.open('a', 'b')
    const seen = await pair.look('m', 'cond', 0)
    assert.ok(seen.codes && seen.presence, part)
    assert.deepEqual(seen.problems, [{second: true, gone, sentence: 'Broken.'}])
    assert.equal(pair.second === null, gone)
    assert.ok(pair.first)
  }
  const pair = createPair(server({'/b': [404, 'Gone.']}).fetch)
  assert.deepEqual(await pair.open('a', 'b'), [{second: true, gone: true, sentence: 'Gone.'}])
  assert.ok((await pair.look('m', 'cond', 0)).codes)
})

test('concepts that fail leave the codes; a run that is gone is closed', async () => {
  const pair = createPair(server({'/a/concepts': [400, 'Of another size.']}).fetch)
  await pair.open('a', '')
  const seen = await pair.look('m', 'cond', 0)
  assert.ok(seen.codes)
  assert.deepEqual(
    [seen.presence, seen.problems],
    [null, [{second: false, gone: false, sentence: 'Of another size.'}]],
  )
  const gone = createPair(server({'/a/codes': [404, 'Gone.']}).fetch)
  await gone.open('a', 'b')
  assert.deepEqual((await gone.look('m', 'cond', 0)).problems, [
    {second: false, gone: true, sentence: 'Gone.'},
  ])
  assert.deepEqual([gone.first, gone.second], [null, null])
})

test('without its SAE a run is not asked for concepts, and another SAE is not compared', async () => {
  const {asked, fetch} = server({}, {a: place({missing: 'Run again.'}), b: place({dictionary: 'other'})})
  const pair = createPair(fetch)
  await pair.open('a', 'b')
  const seen = await pair.look('m', 'cond', 0)
  assert.deepEqual([seen.presence, seen.beside, seen.problems], [null, null, []])
  assert.deepEqual(
    asked.filter(path => path.includes('?')),
    [`/revelio/traces/a/codes?${question(0)}`],
  )
})

test('a slower earlier call does not win', async () => {
  const held = {},
    {fetch} = server()
  const pair = createPair(path =>
    path.endsWith('/a') || path.includes('/b/codes')
      ? new Promise(go => {
          held[path] = () => go(fetch(path))
        })
      : fetch(path),
  )
  const early = pair.open('a', '')
  assert.deepEqual(await pair.open('b', ''), [])
  held['/revelio/traces/a']()
  assert.equal(await early, null)
  assert.equal(pair.first.info.key, 'b')
  const looking = pair.look('m', 'cond', 0)
  await pair.open('c', '')
  held[`/revelio/traces/b/codes?${question(0)}`]()
  assert.equal(await looking, null)
  assert.equal(pair.first.info.key, 'c')
  const late = pair.open('b', '')
  pair.close()
  assert.equal(await late, null)
  assert.equal(pair.first, null)
})
