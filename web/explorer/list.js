/** The list of concepts, then features, that are active in the region, each with a small map. */
import {formatPercent, heatPalette} from './colour.js'
import {button, el, replaceChildren} from './dom.js'
import {findSubjects} from './find.js'
import {drawHeat} from './heat.js'
import {rankConcepts, rankFeatures} from './ranking.js'
import {cellsInBox} from './region.js'
import {anyChanged} from './store.js'
import {mapsOf, nameOf, sameSubject} from './subject.js'

const CONCEPTS = 4
const FEATURES = 8
const FOUND = 24
const WHOLE_IMAGE = {left: 0, top: 0, right: 1, bottom: 1}
const THUMB = 40

/** @type {(keyof import('./store.js').State)[]} */
const WATCHED = ['codes', 'presence', 'region', 'step', 'everyStep', 'subject', 'search', 'chosen', 'page']

/**
 * @typedef {import('./store.js').Subject} Subject
 * @typedef {import('./view.js').Context} Context
 *
 * @typedef {object} Entry
 * @property {Subject} subject
 * @property {number} share  Activity relative to the strongest entry; 0 hides the meter.
 * @property {string} note
 * @property {string[]} [alternatives]  Concepts that are about equally likely.
 *
 * @typedef {{title: string, aside: string, entries: Entry[], empty?: string}} Group
 *   empty: the text to show if there are no entries.
 */

/** @param {Context} context */
export function createList(context) {
  const {store, t} = context
  const {state} = store
  const element = el('div', {class: 'rv-list'})
  const palette = heatPalette(0.95)
  /** @type {Subject[]} */
  let shown = []

  return {
    element,
    /** The listed subjects, in order; the number keys act on them. */
    get shown() {
      return shown
    },
    /** @param {import('./store.js').Changed} changed */
    update(changed) {
      const hookPoint = context.run()?.hookPoint(state.hookPoint)
      if (!hookPoint || (state.page && !state.search) || !anyChanged(changed, WATCHED)) return
      const groups = state.search
        ? [searchGroup(context, hookPoint)]
        : [conceptGroup(context, hookPoint), featureGroup(context)].filter(group => group !== null)
      shown = groups.flatMap(group => group.entries.map(entry => entry.subject))
      replaceChildren(
        element,
        state.search ? null : createHeading(context),
        ...groups.flatMap(({title, aside, entries, empty = t('Nothing found.')}) => [
          el(
            'div',
            {class: 'rv-group'},
            el('span', {}, title),
            aside && el('span', {class: 'rv-quiet'}, aside),
          ),
          ...entries.map(entry => createCard(context, entry, palette)),
          entries.length ? null : el('div', {class: 'rv-empty'}, empty),
        ]),
      )
    },
  }
}

/** @param {Context} context */
function createHeading({store, t}) {
  const {state} = store
  const stepsTab = (/** @type {boolean} */ everyStep, /** @type {string} */ text) =>
    button(
      {
        class: 'rv-tab',
        'aria-pressed': String(state.everyStep === everyStep),
        onclick: () => store.set({everyStep}),
      },
      text,
    )
  return el(
    'div',
    {class: 'rv-heading'},
    el('h3', {}, state.region ? t('What is active here') : t('What is active in the image')),
    el(
      'div',
      {class: 'rv-switch', role: 'group', 'aria-label': t('Steps to include')},
      stepsTab(false, t('this step')),
      stepsTab(true, t('all steps')),
    ),
    state.region && button({class: 'rv-link', onclick: () => store.set({region: null})}, t('whole image')),
  )
}

/**
 * @param {Context} context
 * @param {import('./run.js').HookPoint} hookPoint
 * @returns {Group | null} null if there are no concepts, unless connecting the SAE may help.
 */
function conceptGroup({store, t}, hookPoint) {
  const {region, presence, everyStep, step} = store.state
  const heading = {
    title: region ? t('Concepts here') : t('Concepts in the image'),
    aside: t('what people have words for'),
  }
  if (presence?.names.length) {
    const inside = cellsInBox(region ?? WHOLE_IMAGE, presence.height, presence.width)
    const ranked = rankConcepts(presence, inside, everyStep ? null : step, CONCEPTS)
    const most = ranked[0]?.here ?? 1
    return {
      ...heading,
      entries: ranked.map(({name, here, specificity, alternatives}) => ({
        subject: {kind: 'concept', name},
        share: here / most,
        note: region ? t('{share} only here', {share: formatPercent(specificity)}) : '',
        alternatives,
      })),
    }
  }
  if (hookPoint.neighbours || hookPoint.missing) return null
  return {
    ...heading,
    entries: [],
    empty: t('Connect the SAE of this layer to the node to see which concepts it knows.'),
  }
}

/**
 * @param {Context} context
 * @returns {Group | null}
 */
function featureGroup({store, t}) {
  const {region, codes, everyStep, step} = store.state
  if (!codes) return null
  const inside = cellsInBox(region ?? WHOLE_IMAGE, codes.height, codes.width)
  const ranked = rankFeatures(codes, inside, everyStep ? null : step, FEATURES)
  const most = Math.max(...ranked.map(({here}) => here), 1e-9)
  return {
    title: region ? t('Features here') : t('Features in the image'),
    aside: t('the model’s own units'),
    entries: ranked.map(({feature, here, specificity}) => ({
      subject: {kind: 'feature', feature},
      share: here / most,
      note: region ? t('{share} only here', {share: formatPercent(specificity)}) : '',
    })),
  }
}

/**
 * @param {Context} context
 * @param {import('./run.js').HookPoint} hookPoint
 * @returns {Group}
 */
function searchGroup({store, labels, t}, hookPoint) {
  const subjects = findSubjects(store.state.search, hookPoint, labels, FOUND)
  return {title: t('Found'), aside: '', entries: subjects.map(subject => ({subject, share: 0, note: ''}))}
}

/**
 * @param {Context} context
 * @param {Entry} entry
 * @param {Uint32Array} palette
 */
function createCard(context, {subject, share, note, alternatives = []}, palette) {
  const {store, labels, t} = context
  const {state} = store
  const hookPoint = context.run()?.hookPoint(state.hookPoint)
  const canvas = el('canvas', {class: 'rv-thumb', 'aria-hidden': 'true'})
  const maps = mapsOf(subject, state.codes, state.presence)
  if (maps) drawHeat(canvas, maps.heatMap(state.step), palette, THUMB)
  const label = subject.kind === 'feature' ? labels.of(hookPoint, subject.feature) : ''
  const title = subject.kind === 'feature' ? `#${subject.feature}` : subject.name
  const text = el(
    'span',
    {class: 'rv-card-text'},
    el('span', {class: 'rv-card-title'}, title, label && el('span', {class: 'rv-label'}, label)),
    share > 0 && el('span', {class: 'rv-meter'}, el('span', {style: {width: `${100 * share}%`}})),
    note && el('span', {class: 'rv-note'}, note),
    alternatives.length > 0 &&
      el(
        'span',
        {class: 'rv-note rv-alternatives'},
        t('or {others}: this layer can hardly tell them apart', {others: alternatives.join(', ')}),
      ),
  )
  return el(
    'div',
    {
      class: 'rv-card',
      'data-kind': subject.kind,
      'data-name': nameOf(subject),
      'aria-current': String(sameSubject(subject, state.subject)),
    },
    button(
      {
        class: 'rv-card-main',
        title: t('Show where it is and learn more'),
        onclick: () => context.open(subject),
      },
      canvas,
      text,
    ),
    createSteerButton(context, subject, t('Choose for steering'), 'rv-button rv-steer'),
  )
}

/**
 * @param {Context} context
 * @param {Subject} subject
 * @param {string} title
 * @param {string} className
 */
export function createSteerButton(context, subject, title, className) {
  const {state} = context.store
  const chosen =
    state.chosenHookPoint === state.hookPoint && state.chosen.some(entry => entry.name === nameOf(subject))
  return button(
    {class: className, disabled: chosen, title, onclick: () => context.choose(subject)},
    chosen ? context.t('chosen') : context.t('Steer'),
  )
}
