/**
 * The whole explorer, independent of ComfyUI: a Host provides everything that it needs from outside.
 *
 * @typedef {import('./run.js').Run} Run
 * @typedef {import('./store.js').Store} Store
 * @typedef {import('./store.js').Subject} Subject
 * @typedef {import('./texts.js').Translate} Translate
 *
 * @typedef {object} Shown  What the node's last execution sent.
 * @property {string} trace  Key of the run.
 * @property {string[]} images  Addresses of the run's images.
 * @property {string} compareTrace
 * @property {string[]} compareImages
 * @property {string[]} warnings
 *
 * @typedef {object} SteerTarget  The Steer Features node that FEATURES is connected to.
 * @property {boolean} connected
 * @property {number} strength
 * @property {() => void} [resetStrength]  Sets the node's strength to 1.
 *
 * @typedef {object} Host
 * @property {import('./run.js').Fetch} fetch
 * @property {import('./labels.js').LabelStorage} labelStorage
 * @property {Translate} t
 * @property {(severity: 'info' | 'warn' | 'error', text: string) => void} toast
 * @property {() => void} queue  Run the workflow.
 * @property {() => SteerTarget} steerTarget
 * @property {(state: import('./store.js').State) => void} save  Called after changes, to store them in the workflow.
 * @property {() => void} toggleFull
 *
 * @typedef {object} Context  What all parts of the explorer have access to.
 * @property {Store} store
 * @property {Labels} labels
 * @property {Translate} t
 * @property {() => Run | null} run
 * @property {() => boolean} compared
 * @property {(item: number, second: boolean) => string} imageUrl
 * @property {(subject: Subject) => void} open
 * @property {(subject: Subject) => void} choose
 * @property {(name: string, strength: number | null) => void} setStrength
 * @property {(feature: number, label: string) => Promise<void>} rename
 * @property {() => void} queue
 * @property {() => SteerTarget} steerTarget
 */
import {createBar} from './bar.js'
import {withChosen} from './choice.js'
import {el, replaceChildren} from './dom.js'
import {onKey} from './keys.js'
import {Labels} from './labels.js'
import {createList} from './list.js'
import {createNotice} from './notice.js'
import {createPage} from './page.js'
import {createPair} from './pair.js'
import {createStage} from './stage.js'
import {createSteps} from './steps.js'
import {anyChanged, createStore} from './store.js'
import {nameOf} from './subject.js'
import {createTray, FIRST_STRENGTH} from './tray.js'

/** The step to show first, as a share of all steps: late, so that the image can be recognised. */
const FIRST_STEP = 0.7

/** @param {Host} host */
export function createView(host) {
  const {t} = host
  const pair = createPair(host.fetch)
  /** @type {Shown} */
  let shown = {trace: '', images: [], compareTrace: '', compareImages: [], warnings: []}
  const store = createStore(draw)
  const {state} = store
  const labels = new Labels(host.labelStorage)

  /** @type {Context} */
  const context = {
    store,
    labels,
    t,
    run: () => pair.first,
    compared: () => pair.second !== null,
    imageUrl: (item, second) => {
      const urls = second ? shown.compareImages : shown.images
      return urls[second ? pair.comparedItem(state.hookPoint, item) : item] ?? urls[0] ?? ''
    },
    open: subject => store.set({subject, page: true, search: ''}),
    choose(subject) {
      const {hookPoint} = state
      if (state.chosen.length && state.chosenHookPoint !== hookPoint) {
        host.toast('info', t('Started a new choice: features of two layers cannot be steered together.'))
        store.set({chosen: []})
      }
      const chosen = withChosen(state.chosen, nameOf(subject), FIRST_STRENGTH)
      store.set({subject, chosen, chosenHookPoint: hookPoint})
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
    steerTarget: host.steerTarget,
  }

  const stage = createStage(context)
  const steps = createSteps(context)
  const list = createList(context)
  const page = createPage(context)
  const tray = createTray(context)
  const bar = createBar(context, host.toggleFull)
  const notice = createNotice(context)
  const warnings = el('div', {class: 'rv-warnings', role: 'status', hidden: true})
  const scroll = el('div', {class: 'rv-scroll', 'data-capture-wheel': 'true'}, list.element, page.element)
  const body = el(
    'div',
    {class: 'rv-body'},
    el('div', {class: 'rv-left'}, stage.element, steps.element),
    el('div', {class: 'rv-right'}, scroll, tray.element),
  )
  const element = el('div', {class: 'rv-explorer', tabIndex: -1}, bar.element, warnings, body, notice.element)
  element.addEventListener('keydown', event =>
    onKey(event, {context, list, stage, toggleFull: host.toggleFull}),
  )

  /**
   * @param {import('./store.js').State} now
   * @param {import('./store.js').Changed} changed
   */
  function draw(now, changed) {
    if (anyChanged(changed, ['hookPoint', 'role', 'item'])) void loadData()
    const hadFocus = element.contains(document.activeElement)
    for (const part of [bar, stage, steps, list, page, tray]) part.update(changed)
    list.element.hidden = !page.element.hidden
    // the focused button may be gone, but the next key is still meant for the explorer
    if (hadFocus && !element.contains(document.activeElement)) stage.element.focus({preventScroll: true})
    if (anyChanged(changed, ['hookPoint'])) showWarnings()
    host.save(now)
  }

  function showWarnings() {
    const missing = pair.first?.hookPoint(state.hookPoint)?.missing
    const sentences = missing ? [...shown.warnings, missing] : shown.warnings
    replaceChildren(warnings, ...sentences.map(text => el('p', {}, text)))
    warnings.hidden = !sentences.length
  }

  /** Fetch and show what was recorded at the chosen hook point, unless the user has chosen another since. */
  async function loadData() {
    if (!pair.first) return
    const {hookPoint, role, item} = state
    const dictionary = pair.first.hookPoint(hookPoint)?.dictionary ?? ''
    const [data] = await Promise.all([pair.fetchData(hookPoint, role, item), loadLabels(dictionary)])
    if (!data) return
    const {problems, codes, ...more} = data
    reportProblems(problems)
    if (!pair.first || hookPoint !== state.hookPoint || role !== state.role || item !== state.item) return
    if (codes) store.set({codes, ...more, step: Math.min(state.step, codes.steps.length - 1)})
  }

  /** @param {string} dictionary */
  async function loadLabels(dictionary) {
    try {
      await labels.open(dictionary)
    } catch (problem) {
      host.toast('error', `${t('Your feature names could not be read.')} ${sentenceOf(problem)}`)
    }
  }

  /**
   * Report problems; if the run is no longer on the server, offer to run the workflow.
   * @param {import('./pair.js').Problem[]} problems
   */
  function reportProblems(problems) {
    for (const {second, gone, sentence} of problems) {
      if (second) {
        host.toast('warn', `${t('The second run cannot be shown.')} ${sentence}`)
        if (gone) store.refresh() // removes its pane
      } else if (gone) notice.show('lost')
      else if (pair.first) host.toast('error', sentence)
      else notice.show('failed', sentence, () => void show(shown))
    }
  }

  /**
   * Show a run; if the run is no longer on the server, report this and offer to run the workflow.
   * @param {Shown} requested
   */
  async function show(requested) {
    if (!requested.trace) {
      pair.close()
      notice.show('new')
      return
    }
    if (!pair.first) notice.show('loading')
    const problems = await pair.open(requested.trace, requested.compareTrace)
    if (!problems) return // another run has been requested in the meantime
    shown = requested
    const hookPoints = pair.first?.info.hookPoints ?? []
    const withConcepts = hookPoints.find(({concepts}) => concepts.length)
    const hookPoint = pair.first?.hookPoint(state.hookPoint) ?? withConcepts ?? hookPoints[0]
    if (!hookPoint) {
      if (problems.length) reportProblems(problems)
      else notice.show('lost')
      return
    }
    const seenBefore = state.codes || state.region || state.subject
    store.set({
      hookPoint: hookPoint.name,
      role: hookPoint.roles.includes(state.role) ? state.role : hookPoint.roles[0],
      item: Math.min(state.item, hookPoint.items - 1),
      step: seenBefore ? state.step : Math.round(FIRST_STEP * (hookPoint.steps.length - 1)),
    })
    notice.hide()
    reportProblems(problems)
    store.refresh()
  }

  return {element, store, show, updateTarget: tray.updateTarget, stop: steps.stop}
}

/** @param {unknown} problem */
const sentenceOf = problem => (problem instanceof Error ? problem.message : String(problem))
