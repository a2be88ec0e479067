/**
 * The whole explorer, without anything of ComfyUI in it: it is handed what it needs.
 *
 * @typedef {import('./run.js').Run} Run
 * @typedef {import('./store.js').Subject} Subject
 * @typedef {{trace: string, images: string[], compareTrace: string, compareImages: string[]}} Shown  Keys and addresses.
 * @typedef {{connected: boolean, strength: number, fix?: () => void}} Target  The Steer Features node behind FEATURES.
 *
 * @typedef {object} Host
 * @property {import('./run.js').Fetch} fetch
 * @property {import('./labels.js').Shelf} shelf
 * @property {(text: string) => string} t
 * @property {(severity: 'info' | 'warn' | 'error' | 'success', text: string) => void} toast
 * @property {() => void} queue  Run the workflow.
 * @property {() => Target} target
 * @property {(state: import('./store.js').State) => void} keep  Called after changes, to store them in the workflow.
 * @property {() => void} toggleFull
 *
 * @typedef {object} Context
 * @property {import('./store.js').Store} store
 * @property {import('./labels.js').Labels} labels
 * @property {(text: string) => string} t
 * @property {() => Run | null} run
 * @property {() => boolean} compared
 * @property {(item: number, second: boolean) => string} picture
 * @property {(subject: Subject) => void} open
 * @property {(subject: Subject) => void} choose
 * @property {(name: string, strength: number | null) => void} setStrength
 * @property {(feature: number, label: string) => Promise<void>} rename
 * @property {() => void} queue
 * @property {() => Target} target
 */
import {createBar} from './bar.js'
import {withChosen} from './choice.js'
import {el} from './dom.js'
import {onKey} from './keys.js'
import {Labels} from './labels.js'
import {createList} from './list.js'
import {createNotice} from './notice.js'
import {createPage} from './page.js'
import {Refused, openRun} from './run.js'
import {createStage} from './stage.js'
import {createSteps} from './steps.js'
import {createStore} from './store.js'
import {nameOf} from './subject.js'
import {createTray} from './tray.js'

/** Strength at which something is chosen: it goes away. */
const FIRST_STRENGTH = -2
const WHERE = ['place', 'role', 'item']

/** @typedef {ReturnType<typeof createView>} View */

/** @param {Host} host */
export function createView(host) {
  const {t} = host
  /** @type {Run | null} */
  let run = null
  /** @type {Run | null} */
  let second = null
  /** @type {Shown} */
  let shown = {trace: '', images: [], compareTrace: '', compareImages: []}
  const store = createStore(draw), {state} = store
  const labels = new Labels(host.shelf)

  /** @type {Context} */
  const context = {
    store, labels, t,
    run: () => run,
    compared: () => second !== null,
    picture: (item, other) => {
      const pictures = other ? shown.compareImages : shown.images
      return pictures[item] ?? pictures[0] ?? ''
    },
    open: subject => store.set({subject, page: true, search: ''}),
    choose(subject) {
      if (state.chosen.length && state.chosenPlace !== state.place) {
        host.toast('info', t('A new choice was begun: features of two places cannot be steered together.'))
        store.set({chosen: []})
      }
      store.set({subject, chosen: withChosen(state.chosen, nameOf(subject), FIRST_STRENGTH), chosenPlace: state.place})
    },
    setStrength: (name, strength) => store.set({chosen: withChosen(state.chosen, name, strength)}),
    async rename(feature, label) {
      try {
        await labels.set(feature, label)
      } catch (problem) {
        host.toast('error', `${t('The name could not be saved.')} ${sentenceOf(problem)}`)
      }
      store.refresh()
    },
    queue: host.queue,
    target: host.target,
  }

  const stage = createStage(context), steps = createSteps(context), list = createList(context)
  const page = createPage(context), tray = createTray(context)
  const bar = createBar(context, host.toggleFull), notice = createNotice(context)
  const body = el('div', {class: 'rv-body'},
    el('div', {class: 'rv-left'}, stage.element, steps.element),
    el('div', {class: 'rv-right'}, el('div', {class: 'rv-scroll', 'data-capture-wheel': 'true'}, list.element, page.element), tray.element))
  const element = el('div', {class: 'rv-explorer', tabIndex: -1}, bar.element, body, notice.element)
  element.addEventListener('keydown', event => onKey(event, {context, list, stage, toggleFull: host.toggleFull}))

  /**
   * @param {import('./store.js').State} now
   * @param {Set<string>} changed
   */
  function draw(now, changed) {
    if (WHERE.some(name => changed.has(name)) || changed.has('all')) void bring()
    for (const part of [bar, stage, steps, list, page, tray]) part.update(changed)
    list.element.hidden = !page.element.hidden
    host.keep(now)
  }

  /** Fetch what the chosen place needs, and show it unless the user has gone on meanwhile. */
  async function bring() {
    if (!run) return
    const asked = run, {place, role, item} = state
    try {
      const beside = second?.place(place)?.roles.includes(role) ? second : null
      const [codes, presence, besideCodes, besidePresence] = await Promise.all([
        asked.codes(place, role, item), asked.presence(place, role, item),
        beside?.codes(place, role, 0) ?? null, beside?.presence(place, role, 0) ?? null,
        labels.open(asked.place(place)?.dictionary ?? '').catch(problem =>
          host.toast('error', `${t('Your names of features could not be read.')} ${sentenceOf(problem)}`)),
      ])
      if (asked !== run || place !== state.place || role !== state.role || item !== state.item) return
      store.set({codes, presence, beside: besideCodes, besidePresence, step: Math.min(state.step, codes.steps.length - 1)})
    } catch (problem) {
      if (problem instanceof Refused && problem.status === 404) lost()
      else host.toast('error', sentenceOf(problem))
    }
  }

  function lost() {
    run = second = null
    notice.tell(shown.trace ? 'lost' : 'new')
  }

  return {
    element,
    store,
    /**
     * Show a run; where it is not on the server any more, say so and offer to run.
     * @param {Shown} wanted
     */
    async show(wanted) {
      shown = wanted
      if (!shown.trace) return lost()
      if (!run) notice.tell('loading')
      try {
        const opened = await openRun(shown.trace, host.fetch)
        second = shown.compareTrace ? await openRun(shown.compareTrace, host.fetch).catch(() => null) : null
        run = opened
      } catch {
        return lost()
      }
      const {places} = run.info
      const place = run.place(state.place) ?? places.find(one => one.concepts.length) ?? places[0]
      if (!place) return lost()
      store.set({
        place: place.name,
        role: place.roles.includes(state.role) ? state.role : place.roles[0],
        item: Math.min(state.item, place.items - 1),
        // a first look is at a late step, where things can be recognised
        step: state.codes || state.region || state.subject ? state.step : Math.round(0.7 * (place.steps.length - 1)),
      })
      notice.tell('')
      store.refresh()
    },
    /** Say anew where the choice goes: the graph may have changed. */
    aim: () => tray.aim(),
    stop: () => steps.stop(),
  }
}

/** @param {unknown} problem */
const sentenceOf = problem => (problem instanceof Error ? problem.message : String(problem))
