/** The page of one feature or concept: maps at all steps, curve, similar features, name. */
import {activationCurve, peakActivation} from './codes.js'
import {formatNumber, formatPercent, heatPalette} from './colour.js'
import {drawCurve} from './curve.js'
import {button, el, icon, replaceChildren} from './dom.js'
import {createCrops} from './examples.js'
import {drawStrip} from './heat.js'
import {createSteerButton} from './list.js'
import {anyChanged} from './store.js'
import {mapsOf, meanCurve} from './subject.js'

const CELL = 54
const PER_ROW = 7
const MEMBERS = 12

/**
 * @typedef {import('./view.js').Context} Context
 * @typedef {import('./store.js').Subject} Subject
 */

/** @param {Context} context */
export function createPage(context) {
  const {store, t} = context
  const {state} = store
  const element = el('div', {class: 'rv-page', hidden: true})
  const strip = el('canvas', {
    class: 'rv-strip',
    role: 'img',
    'aria-label': t('Maps at all steps; click one to go there'),
  })
  const mark = el('div', {class: 'rv-strip-mark'})
  const frame = el('div', {class: 'rv-strip-frame'}, strip, mark)
  const curve = el('canvas', {
    class: 'rv-page-curve',
    role: 'img',
    'aria-label': t('Activation over the steps'),
  })
  const palette = heatPalette(0.95)
  let perRow = PER_ROW

  const redrawCurve = () => {
    const {subject, codes, presence, step} = state
    if (subject) drawCurve(curve, meanCurve(subject, codes, presence), step)
  }
  new ResizeObserver(redrawCurve).observe(curve)
  strip.addEventListener('click', event => {
    const area = strip.getBoundingClientRect()
    const count = state.codes?.steps.length ?? 0
    const column = Math.floor(((event.clientX - area.left) / area.width) * perRow)
    const row = Math.floor(((event.clientY - area.top) / area.height) * Math.ceil(count / perRow))
    const step = row * perRow + column
    if (step < count) store.set({step, playing: false})
  })

  return {
    element,
    /** @param {import('./store.js').Changed} changed */
    update(changed) {
      element.hidden = !state.page || !state.subject || Boolean(state.search)
      if (element.hidden || !state.subject) return
      const maps = mapsOf(state.subject, state.codes, state.presence)
      const count = maps?.steps ?? 1
      if (anyChanged(changed, ['page', 'subject', 'codes', 'presence', 'search', 'chosen'])) {
        replaceChildren(element, ...pageParts(context, state.subject, frame, curve))
        perRow = Math.min(PER_ROW, count)
        if (maps) {
          const everyMap = Array.from({length: count}, (_, step) => maps.heatMap(step))
          drawStrip(strip, everyMap, palette, {cell: CELL, perRow})
        }
      }
      redrawCurve()
      const rows = Math.ceil(count / perRow)
      Object.assign(mark.style, {
        left: `${(100 * (state.step % perRow)) / perRow}%`,
        top: `${(100 * Math.floor(state.step / perRow)) / rows}%`,
        width: `${100 / perRow}%`,
        height: `${100 / rows}%`,
      })
    },
  }
}

/**
 * @param {Context} context
 * @param {Subject} subject
 * @param {HTMLElement} strip
 * @param {HTMLElement} curve
 * @returns {import('./dom.js').Child[]}
 */
function pageParts(context, subject, strip, curve) {
  const {store, t} = context
  const {state} = store
  const silent = mapsOf(subject, state.codes, state.presence)?.peak === 0
  const isFeature = subject.kind === 'feature'
  const backTitle = t('Back to the list (Esc)')
  const head = el(
    'div',
    {class: 'rv-page-head'},
    button(
      {
        class: 'rv-button rv-square',
        title: backTitle,
        'aria-label': backTitle,
        onclick: () => store.set({page: false}),
      },
      icon('back'),
    ),
    el(
      'div',
      {class: 'rv-page-title'},
      el('h3', {}, isFeature ? t('Feature #{number}', {number: subject.feature}) : subject.name),
      el('span', {class: 'rv-quiet'}, isFeature ? state.hookPoint : t('concept')),
    ),
    createSteerButton(context, subject, '', 'rv-button rv-primary rv-steer'),
  )
  const facts = silent ? [el('div', {}, t('It does not fire in this run.'))] : factBoxes(context, subject)
  return [
    head,
    isFeature && nameField(context, subject.feature),
    el('div', {class: 'rv-facts'}, ...facts),
    isFeature && exampleRow(context, subject.feature),
    ...(silent
      ? []
      : [groupTitle(t('At every step')), strip, groupTitle(t('Mean over the image, step by step')), curve]),
    relatedFeatures(context, subject),
  ]
}

/**
 * @param {string} title
 * @param {...import('./dom.js').Child} more
 */
const groupTitle = (title, ...more) => el('div', {class: 'rv-group'}, el('span', {}, title), ...more)

/**
 * Create a row of the image crops on which the feature fires most, if there is a feature index.
 * @param {Context} context
 * @param {number} feature
 */
function exampleRow({run, store, t}, feature) {
  const name = store.state.hookPoint
  if (!run()?.hookPoint(name)?.examples) return null
  const label = el('span', {class: 'rv-quiet'})
  const row = el('div', {class: 'rv-examples'})
  run()
    ?.examples(name, feature)
    .then(
      examples => {
        if (!examples) return
        const {crops, score, by} = examples
        replaceChildren(row, ...(crops.length ? createCrops(examples, t) : [t('Nothing found.')]))
        if (examples.label) replaceChildren(label, `“${examples.label}”`)
        label.title = score && t('score {score} ({source})', {score, source: by})
      },
      () => replaceChildren(row, t('Nothing found.')),
    )
  return el('div', {}, groupTitle(t('What it fires on most'), label), row)
}

/**
 * @param {Context} context
 * @param {number} feature
 */
function nameField(context, feature) {
  const {store, labels, t} = context
  const hookPoint = context.run()?.hookPoint(store.state.hookPoint)
  const input = el('input', {
    class: 'rv-input',
    type: 'text',
    maxLength: 60,
    value: labels.of(hookPoint, feature),
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
function factBoxes({store, t}, subject) {
  const {codes, presence} = store.state
  const means = meanCurve(subject, codes, presence)
  const strongest = codes?.steps[means.indexOf(Math.max(...means))]
  const strongestStep = strongest === undefined ? '–' : t('step {step}', {step: strongest + 1})
  /** @type {[string, string][]} */
  let facts
  if (subject.kind === 'feature' && codes) {
    const {shares} = activationCurve(codes, subject.feature)
    const share = formatPercent(shares.reduce((sum, value) => sum + value, 0) / shares.length)
    facts = [
      [t('fires on'), t('{share} of the image', {share})],
      [t('highest'), formatNumber(peakActivation(codes, subject.feature))],
      [t('strongest at'), strongestStep],
    ]
  } else {
    const amount = formatNumber(mapsOf(subject, codes, presence)?.peak ?? 0)
    facts = [
      [t('highest'), t('{amount} × the usual amount', {amount})],
      [t('strongest at'), strongestStep],
    ]
  }
  return facts.map(([name, value]) =>
    el('div', {}, el('span', {class: 'rv-quiet'}, name), el('b', {}, value)),
  )
}

/**
 * List the features that are most similar to a feature, or the features that make up a concept.
 * @param {Context} context
 * @param {Subject} subject
 */
function relatedFeatures(context, subject) {
  const {store, labels, t} = context
  const run = context.run()
  const name = store.state.hookPoint
  const hookPoint = run?.hookPoint(name)
  const row = el('div', {class: 'rv-chips'})
  const chip = (/** @type {number} */ feature, /** @type {string} */ note) => {
    const label = labels.of(hookPoint, feature)
    return button(
      {class: 'rv-chip', onclick: () => context.open({kind: 'feature', feature})},
      `#${feature}`,
      label && el('span', {class: 'rv-label'}, label),
      note && el('span', {class: 'rv-quiet'}, note),
    )
  }
  if (subject.kind === 'concept') {
    const members = hookPoint?.concepts.find(concept => concept.name === subject.name)?.features ?? []
    replaceChildren(row, ...members.slice(0, MEMBERS).map(feature => chip(feature, '')))
    const count = el('span', {class: 'rv-quiet'}, String(members.length))
    return el('div', {}, groupTitle(t('Features that express it'), count), row)
  }
  if (!hookPoint?.neighbours) {
    return el('div', {class: 'rv-empty'}, t('Connect the SAE to the node to see similar features.'))
  }
  run?.neighbours(name, subject.feature).then(
    found => replaceChildren(row, ...found.map(({feature, cosine}) => chip(feature, formatPercent(cosine)))),
    problem => replaceChildren(row, problem instanceof Error ? problem.message : t('Nothing found.')),
  )
  return el('div', {}, groupTitle(t('Features with a similar direction')), row)
}
