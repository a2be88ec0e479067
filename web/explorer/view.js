/**
 * The whole explorer, without anything of ComfyUI in it: it is handed what it needs.
 *
 * @typedef {import('./run.js').Run} Run
 * @typedef {import('./store.js').Subject} Subject
 * @typedef {{trace: string, images: string[], compareTrace: string, compareImages: string[], remarks: string[]}} Shown  Keys, addresses and what the node has to say.
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
import {el, put} from './dom.js'
import {onKey} from './keys.js'
import {Labels} from './labels.js'
import {createList} from './list.js'
import {createNotice} from './notice.js'
import {createPage} from './page.js'
import {createPair} from './pair.js'
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
  const pair = createPair(host.fetch)
  /** @type {Shown} */
  let shown = {trace: '', images: [], compareTrace: '', compareImages: [], remarks: []}
  const store = createStore(draw),
    {state} = store
  const labels = new Labels(host.shelf)

  /** @type {Context} */
  const context = {
    store,
    labels,
    t,
    run: () => pair.first,
    compared: () => pair.second !== null,
    picture: (item, other) => {
      const pictures = other ? shown.compareImages : shown.images
      return pictures[other ? pair.itemBeside(state.place, item) : item] ?? pictures[0] ?? ''
    },
    open: subject => store.set({subject, page: true, search: ''}),
    choose(subject) {
      if (state.chosen.length && state.chosenPlace !== state.place) {
        host.toast('info', t('A new choice was begun: features of two places cannot be steered together.'))
        store.set({chosen: []})
      }
      store.set({
        subject,
        chosen: withChosen(state.chosen, nameOf(subject), FIRST_STRENGTH),
        chosenPlace: state.place,
      })
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

  const stage = createStage(context),
    steps = createSteps(context),
    list = createList(context)
  const page = createPage(context),
    tray = createTray(context)
  const bar = createBar(context, host.toggleFull),
    notice = createNotice(context)
  const remarks = el('div', {class: 'rv-remarks', role: 'status', hidden: true})
  const body = el(
    'div',
    {class: 'rv-body'},
    el('div', {class: 'rv-left'}, stage.element, steps.element),
    el(
      'div',
      {class: 'rv-right'},
      el('div', {class: 'rv-scroll', 'data-capture-wheel': 'true'}, list.element, page.element),
      tray.element,
    ),
  )
  const element = el('div', {class: 'rv-explorer', tabIndex: -1}, bar.element, remarks, body, notice.element)
  element.addEventListener('keydown', event =>
    onKey(event, {context, list, stage, toggleFull: host.toggleFull}),
  )

  /**
   * @param {import('./store.js').State} now
   * @param {Set<string>} changed
   */
  function draw(now, changed) {
    if (WHERE.some(name => changed.has(name)) || changed.has('all')) void bring()
    const held = element.contains(document.activeElement)
    for (const part of [bar, stage, steps, list, page, tray]) part.update(changed)
    list.element.hidden = !page.element.hidden
    // what was pressed may be gone: the next key is still meant for the explorer
    if (held && !element.contains(document.activeElement)) stage.element.focus({preventScroll: true})
    if (changed.has('all') || changed.has('place'))
      remark([...shown.remarks, pair.first?.place(now.place)?.missing ?? ''].filter(Boolean))
    host.keep(now)
  }

  /** @param {string[]} sentences */
  function remark(sentences) {
    put(remarks, ...sentences.map(text => el('p', {}, text)))
    remarks.hidden = !sentences.length
  }

  /** Fetch what the chosen place needs, and show it unless the user has gone on meanwhile. */
  async function bring() {
    if (!pair.first) return
    const {place, role, item} = state,
      dictionary = pair.first.place(place)?.dictionary ?? ''
    const [seen] = await Promise.all([
      pair.look(place, role, item),
      labels
        .open(dictionary)
        .catch(problem =>
          host.toast('error', `${t('Your names of features could not be read.')} ${sentenceOf(problem)}`),
        ),
    ])
    if (!seen) return
    const {problems, codes, ...more} = seen
    tell(problems)
    if (!pair.first || place !== state.place || role !== state.role || item !== state.item) return
    if (codes) store.set({codes, ...more, step: Math.min(state.step, codes.steps.length - 1)})
  }

  /**
   * Say what could not be had; without the run itself, offer to run.
   * @param {import('./pair.js').Problem[]} problems
   */
  function tell(problems) {
    for (const {second, gone, sentence} of problems) {
      if (second) {
        host.toast('warn', `${t('The second run cannot be shown.')} ${sentence}`)
        if (gone) store.refresh() // its pane goes
      } else if (gone) notice.tell('lost')
      else if (pair.first) host.toast('error', sentence)
      else notice.tell('failed', sentence, () => void show(shown))
    }
  }

  /**
   * Show a run; where it is not on the server any more, say so and offer to run.
   * @param {Shown} wanted
   */
  async function show(wanted) {
    if (!wanted.trace) {
      pair.close()
      return notice.tell('new')
    }
    if (!pair.first) notice.tell('loading')
    const problems = await pair.open(wanted.trace, wanted.compareTrace)
    if (!problems) return // another run is to be shown by now
    shown = wanted
    const places = pair.first?.info.places ?? []
    const place = pair.first?.place(state.place) ?? places.find(one => one.concepts.length) ?? places[0]
    if (!place) return problems.length ? tell(problems) : notice.tell('lost')
    store.set({
      place: place.name,
      role: place.roles.includes(state.role) ? state.role : place.roles[0],
      item: Math.min(state.item, place.items - 1),
      // a first look is at a late step, where things can be recognised
      step:
        state.codes || state.region || state.subject
          ? state.step
          : Math.round(0.7 * (place.steps.length - 1)),
    })
    notice.tell('')
    tell(problems)
    store.refresh()
  }

  return {
    element,
    store,
    show,
    /** Say anew where the choice goes: the graph may have changed. */
    aim: () => tray.aim(),
    stop: () => steps.stop(),
  }
}

/** @param {unknown} problem */
const sentenceOf = problem => (problem instanceof Error ? problem.message : String(problem))
