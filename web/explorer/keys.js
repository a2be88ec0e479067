/** Controls the explorer by keyboard. */
import {zoomAt} from './stage.js'

const NUDGE = 0.06
const ZOOM = 1.25

/**
 * @typedef {import('./store.js').Store} Store
 *
 * @typedef {object} Parts
 * @property {import('./view.js').Context} context
 * @property {{shown: import('./store.js').Subject[]}} list
 * @property {{element: HTMLElement}} stage
 * @property {() => void} toggleFull
 */

/**
 * @param {KeyboardEvent} event
 * @param {Parts} parts
 */
export function onKey(event, parts) {
  const {context, list} = parts
  const {target, key} = event
  if (event.ctrlKey || event.metaKey) {
    if (key !== 'Enter') return
    event.stopPropagation()
    context.queue()
    return
  }
  event.stopPropagation() // the graph would also react to the key
  if (target instanceof HTMLInputElement && ['text', 'search'].includes(target.type)) {
    const first = list.shown[0]
    if (key === 'Enter' && target.type === 'search' && first) context.open(first)
    if (key === 'Escape' && context.store.state.search) {
      event.preventDefault()
      context.store.set({search: ''})
    }
    return
  }
  const isControl = target instanceof HTMLInputElement || target instanceof HTMLSelectElement
  if (isControl && /^(Arrow|Page|Home|End)/.test(key)) return
  if (target instanceof HTMLButtonElement && (key === 'Enter' || key === ' ')) return
  const handled =
    event.shiftKey && key.startsWith('Arrow') ? nudge(key, context.store) : handleKey(key, parts)
  if (handled) event.preventDefault()
}

/**
 * @param {string} key
 * @param {Parts} parts
 * @returns {boolean} Whether the explorer uses this key.
 */
function handleKey(key, {context, list, stage, toggleFull}) {
  const {store} = context
  const {state} = store
  const last = Math.max(0, (state.codes?.steps.length ?? 1) - 1)
  const goTo = (/** @type {number} */ step) =>
    store.set({step: Math.min(last, Math.max(0, step)), playing: false})
  /** @type {Record<string, () => void>} */
  const actions = {
    ArrowLeft: () => goTo(state.step - 1),
    ArrowRight: () => goTo(state.step + 1),
    Home: () => goTo(0),
    End: () => goTo(last),
    ' ': () => store.set({playing: !state.playing}),
    v: () => store.set({tool: 'inspect'}),
    b: () => store.set({tool: 'paint'}),
    e: () => store.set({tool: 'erase'}),
    f: toggleFull,
    h: () => store.set({opacity: state.opacity ? 0 : 0.9}),
    s: () => {
      if (state.subject) context.choose(state.subject)
    },
    '+': () => zoomAt(store, [0.5, 0.5], ZOOM),
    '-': () => zoomAt(store, [0.5, 0.5], 1 / ZOOM),
    0: () => store.set({zoom: 1, panX: 0, panY: 0}),
    '/': () => focusSearch(stage.element),
  }
  if (key === 'Escape') return goBack(store)
  if (/^[1-9]$/.test(key)) {
    const subject = list.shown[Number(key) - 1]
    if (subject) context.open(subject)
    return Boolean(subject)
  }
  const action = Object.hasOwn(actions, key) ? actions[key] : undefined
  action?.()
  return Boolean(action)
}

/**
 * Close the page if it is open, else remove the box and the heat. Returns false if there is nothing to close.
 * @param {Store} store
 */
function goBack({state, set}) {
  if (state.page) set({page: false})
  else if (state.region || state.subject) set({region: null, subject: null})
  else return false
  return true
}

/** @param {HTMLElement} inside */
function focusSearch(inside) {
  const search = inside.closest('.rv-explorer')?.querySelector('.rv-search')
  if (search instanceof HTMLElement) search.focus()
}

/**
 * Move the inspected box with an arrow key, or put a box in the middle if there is none.
 * @param {string} key
 * @param {Store} store
 */
function nudge(key, {state, set}) {
  const box = state.region ?? {left: 0.4, top: 0.4, right: 0.6, bottom: 0.6}
  const dx = state.region ? ({ArrowLeft: -NUDGE, ArrowRight: NUDGE}[key] ?? 0) : 0
  const dy = state.region ? ({ArrowUp: -NUDGE, ArrowDown: NUDGE}[key] ?? 0) : 0
  const x = Math.min(1 - box.right, Math.max(-box.left, dx))
  const y = Math.min(1 - box.bottom, Math.max(-box.top, dy))
  const region = {left: box.left + x, right: box.right + x, top: box.top + y, bottom: box.bottom + y}
  set({region, page: false})
  return true
}
