import assert from 'node:assert/strict'
import {readFileSync, readdirSync} from 'node:fs'
import test from 'node:test'
import {createTranslate, english, explorerTexts} from '../../web/explorer/texts.js'

const PACK = new URL('../../', import.meta.url)
const read = path => readFileSync(new URL(path, PACK), 'utf8')

/** The translations by language, in the form in which ComfyUI's /i18n sends them. */
const locales = Object.fromEntries(
  readdirSync(new URL('locales/', PACK))
    .filter(language => readdirSync(new URL(`locales/${language}/`, PACK)).includes('main.json'))
    .map(language => [language, JSON.parse(read(`locales/${language}/main.json`))]),
)

const modules = readdirSync(new URL('web/explorer/', PACK)).filter(name => name.endsWith('.js'))
const calls = modules.flatMap(name =>
  [...read(`web/explorer/${name}`).matchAll(/(?<![\w.$])t\(|\.t\(/g)].map(call => [name, call]),
)

/** The text that a call of t begins with; null where it is not a plain string. */
const textOf = ([name, call]) => {
  const rest = read(`web/explorer/${name}`).slice(call.index + call[0].length)
  return /^\s*'([^'\\\n]*)'/.exec(rest)?.[1] ?? null
}
const used = new Set(calls.map(textOf))
const placeholders = text => [...text.matchAll(/\{\w+\}/g)].map(String).sort()

test('every text of the explorer is a plain string, and all of them are found', () => {
  for (const call of calls) assert.notEqual(textOf(call), null, `${call[0]}: t() without a plain string`)
  assert.ok(used.size > 90)
  assert.ok(used.has('Nothing found.'))
})

test('every language has every text, and none that is not used', () => {
  assert.ok('zh' in locales)
  for (const [language, texts] of Object.entries(explorerTexts(locales))) {
    assert.deepEqual(Object.keys(texts).sort(), [...used].sort(), language)
    for (const [text, translation] of Object.entries(texts)) {
      assert.ok(translation.trim(), `${language}: ${text}`)
      assert.deepEqual(placeholders(translation), placeholders(text), `${language}: ${text}`)
    }
  }
})

test('values are put into a text', () => {
  assert.equal(english('{share} of the image', {share: '3 %'}), '3 % of the image')
  assert.equal(english('Step {step} of {step}', {step: 0}), 'Step 0 of 0')
  assert.equal(english('Step {step}'), 'Step {step}')
})

test('the language is that of the interface, or English', () => {
  let locale = 'zh'
  const texts = explorerTexts(locales)
  const t = createTranslate(
    () => texts,
    () => locale,
  )
  assert.equal(t('Step {step}', {step: 4}), '第 4 步')
  assert.equal(t('not translated'), 'not translated')
  locale = 'zh-TW'
  assert.equal(t('Steer'), '引导')
  for (locale of ['en', 'fr', '']) assert.equal(t('Steer'), 'Steer')
})

test('an answer of another shape leaves English', () => {
  for (const answer of [
    null,
    undefined,
    'x',
    [],
    {zh: null},
    {zh: {revelio: {explorer: 'x'}}},
    {zh: {other: {}}},
  ]) {
    assert.deepEqual(explorerTexts(answer), {})
  }
})
