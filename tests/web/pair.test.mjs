import assert from 'node:assert/strict'
import test from 'node:test'
import {createPair} from '../../web/explorer/pair.js'
import {codesFile, safetensors} from './fixtures.mjs'

const hookPoint = (more = {}) => ({
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

/** A server with runs "a" and "b"; `broken` responds first: [status, sentence] by a part of the address. */
function server(broken = {}, hookPoints = {}) {
  const requested = []
  const fetch = async path => {
    requested.push(path)
    const known = Object.entries(broken).find(([part]) => path.includes(part))
    if (known) return new Response(JSON.stringify({error: known[1][1]}), {status: known[1][0]})
    const [, key, what] = /traces\/(\w+)(?:\/(\w+))?/.exec(path)
    if (!what)
      return new Response(
        JSON.stringify({key, total_steps: 1, sigmas: [1, 0], places: [hookPoints[key] ?? hookPoint()]}),
      )
    return new Response(what === 'codes' ? CODES[path.at(-1)] : EMPTY)
  }
  return {requested, fetch}
}

test('both runs show the same image of the batch, or the only one', async () => {
  const {requested, fetch} = server()
  const pair = createPair(fetch)
  assert.deepEqual(await pair.open('a', 'b'), [])
  const {codes, comparedCodes, problems} = await pair.fetchData('m', 'cond', 1)
  assert.ok(codes && comparedCodes)
  assert.deepEqual([codes.scale, problems], [comparedCodes.scale, []])
  assert.ok(requested.includes(`/revelio/traces/b/codes?${question(1)}`))
  const single = createPair(server({}, {b: hookPoint({items: 1})}).fetch)
  await single.open('a', 'b')
  assert.equal(single.comparedItem('m', 1), 0)
  assert.ok((await single.fetchData('m', 'cond', 1)).comparedCodes)
})

test('a failure of the second run leaves the first', async () => {
  const cases = [
    ['/b/codes', 400, false],
    ['/b/concepts', 500, false],
    ['/b/codes', 404, true],
    ['/b/concepts', 404, true],
  ]
  for (const [part, status, gone] of cases) {
    const pair = createPair(server({[part]: [status, 'Broken.']}).fetch)
    await pair.open('a', 'b')
    const data = await pair.fetchData('m', 'cond', 0)
    assert.ok(data.codes && data.presence, part)
    assert.deepEqual(data.problems, [{second: true, gone, sentence: 'Broken.'}])
    assert.equal(pair.second === null, gone)
    assert.ok(pair.first)
  }
  const pair = createPair(server({'/b': [404, 'Gone.']}).fetch)
  assert.deepEqual(await pair.open('a', 'b'), [{second: true, gone: true, sentence: 'Gone.'}])
  assert.ok((await pair.fetchData('m', 'cond', 0)).codes)
})

test('concepts that fail leave the codes; a run that is gone is closed', async () => {
  const pair = createPair(server({'/a/concepts': [400, 'Of another size.']}).fetch)
  await pair.open('a', '')
  const data = await pair.fetchData('m', 'cond', 0)
  assert.ok(data.codes)
  assert.deepEqual(
    [data.presence, data.problems],
    [null, [{second: false, gone: false, sentence: 'Of another size.'}]],
  )
  const gone = createPair(server({'/a/codes': [404, 'Gone.']}).fetch)
  await gone.open('a', 'b')
  assert.deepEqual((await gone.fetchData('m', 'cond', 0)).problems, [
    {second: false, gone: true, sentence: 'Gone.'},
  ])
  assert.deepEqual([gone.first, gone.second], [null, null])
})

test('without its SAE a run is not asked for concepts, and another SAE is not compared', async () => {
  const {requested, fetch} = server(
    {},
    {a: hookPoint({missing: 'Run again.'}), b: hookPoint({dictionary: 'other'})},
  )
  const pair = createPair(fetch)
  await pair.open('a', 'b')
  const data = await pair.fetchData('m', 'cond', 0)
  assert.deepEqual([data.presence, data.comparedCodes, data.problems], [null, null, []])
  assert.deepEqual(
    requested.filter(path => path.includes('?')),
    [`/revelio/traces/a/codes?${question(0)}`],
  )
})

test('an earlier call that is slower does not win', async () => {
  const held = {}
  const {fetch} = server()
  const pair = createPair(path =>
    path.endsWith('/a') || path.includes('/b/codes')
      ? new Promise(resolve => {
          held[path] = () => resolve(fetch(path))
        })
      : fetch(path),
  )
  const early = pair.open('a', '')
  assert.deepEqual(await pair.open('b', ''), [])
  held['/revelio/traces/a']()
  assert.equal(await early, null)
  assert.equal(pair.first.info.key, 'b')
  const fetching = pair.fetchData('m', 'cond', 0)
  await pair.open('c', '')
  held[`/revelio/traces/b/codes?${question(0)}`]()
  assert.equal(await fetching, null)
  assert.equal(pair.first.info.key, 'c')
  const late = pair.open('b', '')
  pair.close()
  assert.equal(await late, null)
  assert.equal(pair.first, null)
})
