/** The page of one feature or concept: its maps over all steps, its curve, its likes, its name. */
import {heatPixels, percent, written} from './colour.js'
import {curveOf, peakOf} from './codes.js'
import {drawCurve} from './curve.js'
import {exampleCrops} from './examples.js'
import {el, icon, put} from './dom.js'
import {drawStrip} from './heat.js'
import {mapsOf, meansOf, nameOf} from './subject.js'

const CELL = 54
const PER_ROW = 7
const MEMBERS = 12

/**
 * @typedef {import('./view.js').Context} Context
 * @typedef {import('./store.js').Subject} Subject
 */

/** @param {Context} context */
export function createPage(context) {
  const {store, t} = context,
    {state} = store
  const element = el('div', {class: 'rv-page', hidden: true})
  const strip = el('canvas', {
    class: 'rv-strip',
    role: 'img',
    'aria-label': t('Maps of all steps; click on one to go there'),
  })
  const curve = el('canvas', {
    class: 'rv-page-curve',
    role: 'img',
    'aria-label': t('Activation over the steps'),
  })
  const mark = el('div', {class: 'rv-strip-mark'})
  const pixels = heatPixels(0.95)
  let perRow = PER_ROW

  const trace = () => {
    if (state.subject) drawCurve(curve, meansOf(state.subject, state.codes, state.presence), state.step)
  }
  new ResizeObserver(trace).observe(curve)
  strip.addEventListener('click', event => {
    const room = strip.getBoundingClientRect(),
      count = state.codes?.steps.length ?? 0
    const column = Math.floor(((event.clientX - room.left) / room.width) * perRow)
    const row = Math.floor(((event.clientY - room.top) / room.height) * Math.ceil(count / perRow))
    const step = row * perRow + column
    if (step < count) store.set({step, playing: false})
  })

  return {
    element,
    /** @param {Set<string>} changed */
    update(changed) {
      element.hidden = !state.page || !state.subject || Boolean(state.search)
      if (element.hidden || !state.subject) return
      const maps = mapsOf(state.subject, state.codes, state.presence)
      if (
        ['all', 'page', 'subject', 'codes', 'presence', 'search', 'chosen'].some(name => changed.has(name))
      ) {
        build(context, element, state.subject, el('div', {class: 'rv-strip-frame'}, strip, mark), curve)
        perRow = Math.min(PER_ROW, maps?.steps ?? 1)
        if (maps) {
          const all = Array.from({length: maps.steps}, (_, step) => maps.map(step))
          drawStrip(strip, all, maps.height, maps.width, maps.peak, pixels, CELL, perRow)
        }
      }
      trace()
      const lines = Math.ceil((maps?.steps ?? 1) / perRow)
      Object.assign(mark.style, {
        left: `${(100 * (state.step % perRow)) / perRow}%`,
        top: `${(100 * Math.floor(state.step / perRow)) / lines}%`,
        width: `${100 / perRow}%`,
        height: `${100 / lines}%`,
      })
    },
  }
}

/**
 * @param {Context} context
 * @param {HTMLElement} element
 * @param {Subject} subject
 * @param {HTMLElement} strip
 * @param {HTMLElement} curve
 */
function build(context, element, subject, strip, curve) {
  const {store, t} = context,
    {state} = store
  const silent = mapsOf(subject, state.codes, state.presence)?.peak === 0
  const chosen =
    state.chosenPlace === state.place && state.chosen.some(entry => entry.name === nameOf(subject))
  put(
    element,
    el(
      'div',
      {class: 'rv-page-head'},
      el(
        'button',
        {
          type: 'button',
          class: 'rv-button rv-square',
          title: t('Back to the list (Esc)'),
          'aria-label': t('Back to the list (Esc)'),
          onclick: () => store.set({page: false}),
        },
        icon('back'),
      ),
      el(
        'div',
        {class: 'rv-page-title'},
        el('h3', {}, subject.kind === 'concept' ? subject.name : `${t('Feature')} #${subject.feature}`),
        el('span', {class: 'rv-quiet'}, subject.kind === 'concept' ? t('concept') : state.place),
      ),
      el(
        'button',
        {
          type: 'button',
          class: 'rv-button rv-primary rv-steer',
          disabled: chosen,
          onclick: () => context.choose(subject),
        },
        chosen ? t('chosen') : t('Steer'),
      ),
    ),
    subject.kind === 'feature' && naming(context, subject.feature),
    el(
      'div',
      {class: 'rv-facts'},
      ...(silent ? [el('div', {}, t('It does not fire in this run.'))] : facts(context, subject)),
    ),
    subject.kind === 'feature' && examples(context, subject.feature),
    ...(silent
      ? []
      : [
          el('div', {class: 'rv-group'}, el('span', {}, t('At every step'))),
          strip,
          el('div', {class: 'rv-group'}, el('span', {}, t('Mean over the picture, step by step'))),
          curve,
        ]),
    related(context, subject),
  )
}

/**
 * What the feature fires on most, where there is a feature index.
 * @param {Context} context
 * @param {number} feature
 */
function examples({run, store, t}, feature) {
  const place = store.state.place
  if (!run()?.place(place)?.examples) return null
  const called = el('span', {class: 'rv-quiet'}),
    row = el('div', {class: 'rv-examples'})
  run()
    ?.examples(place, feature)
    .then(
      found => {
        if (!found) return
        put(row, ...(found.crops.length ? exampleCrops(found, t) : [t('Nothing found.')]))
        if (found.label) put(called, `“${found.label}”`)
        called.title = found.score && `${t('score')} ${found.score} (${found.by})`
      },
      () => put(row, t('Nothing found.')),
    )
  return el(
    'div',
    {},
    el('div', {class: 'rv-group'}, el('span', {}, t('What it fires on most')), called),
    row,
  )
}

/**
 * @param {Context} context
 * @param {number} feature
 */
function naming(context, feature) {
  const {store, labels, t} = context
  const place = context.run()?.place(store.state.place)
  const input = el('input', {
    class: 'rv-input',
    type: 'text',
    maxLength: 60,
    value: labels.of(place, feature),
    placeholder: t('Give it a name'),
    'aria-label': t('Name of this feature'),
    onchange: () => context.rename(feature, input.value),
  })
  return el('label', {class: 'rv-naming'}, el('span', {class: 'rv-quiet'}, t('Name')), input)
}

/**
 * @param {Context} context
 * @param {Subject} subject
 */
function facts({store, t}, subject) {
  const {codes, presence} = store.state
  const means = meansOf(subject, codes, presence)
  const strongest = means.indexOf(Math.max(...means))
  /** @type {[string, string][]} */
  const lines = [[t('strongest at'), codes ? `${t('step')} ${codes.steps[strongest] + 1}` : '–']]
  if (subject.kind === 'feature' && codes) {
    const {shares} = curveOf(codes, subject.feature)
    lines.unshift(
      [t('fires on'), `${percent(shares.reduce((a, b) => a + b, 0) / shares.length)} ${t('of the picture')}`],
      [t('highest'), written(peakOf(codes, subject.feature))],
    )
  } else {
    const maps = mapsOf(subject, codes, presence)
    lines.unshift([t('highest'), `${written(maps?.peak ?? 0)} × ${t('the usual amount')}`])
  }
  return lines.map(([name, value]) =>
    el('div', {}, el('span', {class: 'rv-quiet'}, name), el('b', {}, value)),
  )
}

/**
 * The nearest features, or those that carry a concept.
 * @param {Context} context
 * @param {Subject} subject
 */
function related(context, subject) {
  const {store, labels, t} = context,
    {state} = store
  const run = context.run(),
    place = run?.place(state.place)
  const row = el('div', {class: 'rv-chips'})
  const chip = (/** @type {number} */ feature, /** @type {string} */ note) =>
    el(
      'button',
      {
        type: 'button',
        class: 'rv-chip',
        onclick: () => context.open({kind: 'feature', feature}),
      },
      `#${feature}`,
      labels.of(place, feature) && el('span', {class: 'rv-label'}, labels.of(place, feature)),
      note && el('span', {class: 'rv-quiet'}, note),
    )
  if (subject.kind === 'concept') {
    const members = place?.concepts.find(concept => concept.name === subject.name)?.features ?? []
    put(row, ...members.slice(0, MEMBERS).map(feature => chip(feature, '')))
    return el(
      'div',
      {},
      el(
        'div',
        {class: 'rv-group'},
        el('span', {}, t('The features that carry it')),
        el('span', {class: 'rv-quiet'}, String(members.length)),
      ),
      row,
    )
  }
  if (!place?.neighbours)
    return el('div', {class: 'rv-empty'}, t('Connect the SAE to the node to see which features are alike.'))
  run?.neighbours(state.place, subject.feature).then(
    found => put(row, ...found.map(({feature, cosine}) => chip(feature, percent(cosine)))),
    problem => put(row, problem instanceof Error ? problem.message : t('Nothing found.')),
  )
  return el(
    'div',
    {},
    el('div', {class: 'rv-group'}, el('span', {}, t('Features that point the same way'))),
    row,
  )
}
