/** What is active in the region: concepts first, then features, each with its little map. */
import {heatPixels, percent} from './colour.js'
import {el, put} from './dom.js'
import {findSubjects} from './find.js'
import {drawHeat} from './heat.js'
import {rankConcepts, rankFeatures} from './ranking.js'
import {cellsIn} from './region.js'
import {mapsOf, nameOf, same} from './subject.js'

const CONCEPTS = 4
const FEATURES = 8
const FOUND = 24
const WHOLE = {left: 0, top: 0, right: 1, bottom: 1}
const THUMB = 40
const WATCHED = [
  'all',
  'codes',
  'presence',
  'region',
  'step',
  'everyStep',
  'subject',
  'search',
  'chosen',
  'page',
]

/**
 * @typedef {import('./store.js').Subject} Subject
 * @typedef {import('./view.js').Context} Context
 * @typedef {{subject: Subject, share: number, note: string, like?: string[]}} Line  like: concepts that it may as well be.
 */

/** @param {Context} context */
export function createList(context) {
  const {store, t} = context,
    {state} = store
  const element = el('div', {class: 'rv-list'})
  const pixels = heatPixels(0.95)
  /** @type {Subject[]} */
  let shown = []

  return {
    element,
    /** The subjects in their order, for the number keys. */
    get shown() {
      return shown
    },
    /** @param {Set<string>} changed */
    update(changed) {
      const place = context.run()?.place(state.place)
      if (!place || (state.page && !state.search) || !WATCHED.some(name => changed.has(name))) return
      const groups = state.search ? [found(context, place)] : active(context)
      shown = groups.flatMap(group => group.lines.map(line => line.subject))
      put(
        element,
        state.search ? null : heading(context),
        ...groups.flatMap(group => [
          el(
            'div',
            {class: 'rv-group'},
            el('span', {}, group.title),
            group.aside && el('span', {class: 'rv-quiet'}, group.aside),
          ),
          ...group.lines.map(line => card(context, line, pixels)),
          group.lines.length ? null : el('div', {class: 'rv-empty'}, group.empty ?? t('Nothing found.')),
        ]),
      )
    },
  }
}

/** @param {Context} context */
function heading({store, t}) {
  const {state} = store
  const choice = (/** @type {boolean} */ every, /** @type {string} */ text) =>
    el(
      'button',
      {
        type: 'button',
        class: 'rv-tab',
        'aria-pressed': String(state.everyStep === every),
        onclick: () => store.set({everyStep: every}),
      },
      text,
    )
  return el(
    'div',
    {class: 'rv-heading'},
    el('h3', {}, state.region ? t('What is active here') : t('What is active in the picture')),
    el(
      'div',
      {class: 'rv-switch', role: 'group', 'aria-label': t('Steps that count')},
      choice(false, t('this step')),
      choice(true, t('all steps')),
    ),
    state.region &&
      el(
        'button',
        {type: 'button', class: 'rv-link', onclick: () => store.set({region: null})},
        t('whole picture'),
      ),
  )
}

/**
 * @param {Context} context
 * @returns {{title: string, aside: string, lines: Line[], empty?: string}[]}  empty: what is said where there are no lines.
 */
function active({store, run, t}) {
  const {state} = store
  const step = state.everyStep ? null : state.step
  const box = state.region ?? WHOLE
  const concepts = {
    title: state.region ? t('Concepts here') : t('Concepts in the picture'),
    aside: t('what people have words for'),
  }
  /** @type {ReturnType<typeof active>} */
  const groups = []
  const place = run()?.place(state.place)
  if (place && !place.neighbours && !place.missing)
    groups.push({
      ...concepts,
      lines: [],
      empty: t('Connect the SAE of this place to the node to see which concepts it knows.'),
    })
  if (state.presence?.names.length) {
    const {height, width} = state.presence
    const ranked = rankConcepts(state.presence, cellsIn(box, height, width), step, CONCEPTS)
    const most = ranked[0]?.here ?? 1
    groups.push({
      ...concepts,
      lines: ranked.map(({name, here, only, like}) => ({
        ...line({kind: 'concept', name}, here / most, only),
        like,
      })),
    })
  }
  if (state.codes) {
    const {height, width} = state.codes
    const ranked = rankFeatures(state.codes, cellsIn(box, height, width), step, FEATURES)
    const most = Math.max(...ranked.map(({here}) => here), 1e-9)
    groups.push({
      title: state.region ? t('Features here') : t('Features in the picture'),
      aside: t('the model’s own parts'),
      lines: ranked.map(({feature, here, only}) => line({kind: 'feature', feature}, here / most, only)),
    })
  }
  return groups

  /**
   * @param {Subject} subject
   * @param {number} share
   * @param {number} only
   * @returns {Line}
   */
  function line(subject, share, only) {
    return {subject, share, note: state.region ? `${percent(only)} ${t('only here')}` : ''}
  }
}

/**
 * @param {Context} context
 * @param {import('./run.js').Place} place
 */
function found({store, labels, t}, place) {
  /** @type {Line[]} */
  const lines = findSubjects(store.state.search, place, labels, FOUND).map(subject => ({
    subject,
    share: 0,
    note: '',
  }))
  return {title: t('Found'), aside: '', lines, empty: t('Nothing found.')}
}

/**
 * @param {Context} context
 * @param {Line} line
 * @param {Uint32Array} pixels
 */
function card(context, {subject, share, note, like = []}, pixels) {
  const {store, labels, t} = context,
    {state} = store
  const place = context.run()?.place(state.place)
  const canvas = el('canvas', {class: 'rv-thumb', 'aria-hidden': 'true'})
  const maps = mapsOf(subject, state.codes, state.presence)
  if (maps) drawHeat(canvas, maps.map(state.step), maps.height, maps.width, maps.peak, pixels, THUMB)
  const own = subject.kind === 'feature' ? labels.of(place, subject.feature) : ''
  const title = subject.kind === 'feature' ? `#${subject.feature}` : subject.name
  const chosen =
    state.chosen.some(entry => entry.name === nameOf(subject)) && state.chosenPlace === state.place
  return el(
    'div',
    {
      class: 'rv-card',
      'data-kind': subject.kind,
      'data-name': nameOf(subject),
      'aria-current': String(same(subject, state.subject)),
    },
    el(
      'button',
      {
        type: 'button',
        class: 'rv-card-main',
        title: t('Show where it is, and more about it'),
        onclick: () => context.open(subject),
      },
      canvas,
      el(
        'span',
        {class: 'rv-card-text'},
        el('span', {class: 'rv-card-title'}, title, own && el('span', {class: 'rv-label'}, own)),
        share > 0 && el('span', {class: 'rv-meter'}, el('span', {style: {width: `${100 * share}%`}})),
        note && el('span', {class: 'rv-note'}, note),
        like.length > 0 &&
          el(
            'span',
            {class: 'rv-note rv-like'},
            `${t('or')} ${like.join(', ')}: ${t('this place hardly tells them apart')}`,
          ),
      ),
    ),
    el(
      'button',
      {
        type: 'button',
        class: 'rv-button rv-steer',
        disabled: chosen,
        title: t('Choose it for steering'),
        onclick: () => context.choose(subject),
      },
      chosen ? t('chosen') : t('Steer'),
    ),
  )
}
