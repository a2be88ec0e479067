/** Everything with the keyboard. */

const NUDGE = 0.06

/**
 * @param {KeyboardEvent} event
 * @param {{context: import('./view.js').Context, list: {shown: import('./store.js').Subject[]}, stage: {element: HTMLElement}, toggleFull: () => void}} parts
 */
export function onKey(event, {context, list, stage, toggleFull}) {
  const {store} = context,
    {state} = store
  const typing = event.target instanceof HTMLInputElement && ['text', 'search'].includes(event.target.type)
  if (event.ctrlKey || event.metaKey) {
    if (event.key !== 'Enter') return
    event.stopPropagation()
    return context.queue()
  }
  event.stopPropagation() // the graph has keys of its own
  if (typing) {
    if (
      event.key === 'Enter' &&
      event.target instanceof HTMLInputElement &&
      event.target.type === 'search' &&
      list.shown[0]
    )
      context.open(list.shown[0])
    if (event.key === 'Escape' && state.search) {
      event.preventDefault()
      store.set({search: ''})
    }
    return
  }
  const slider = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement
  if (slider && /^(Arrow|Page|Home|End)/.test(event.key)) return
  if (event.target instanceof HTMLButtonElement && (event.key === 'Enter' || event.key === ' ')) return
  const done = event.shiftKey && event.key.startsWith('Arrow') ? nudge(event.key, store) : act(event.key)
  if (done) event.preventDefault()

  /**
   * @param {string} key
   * @returns {boolean} Whether the key means anything here.
   */
  function act(key) {
    const last = Math.max(0, (state.codes?.steps.length ?? 1) - 1)
    const to = (/** @type {number} */ step) =>
      store.set({step: Math.min(last, Math.max(0, step)), playing: false})
    /** @type {Record<string, () => void>} */
    const meanings = {
      ArrowLeft: () => to(state.step - 1),
      ArrowRight: () => to(state.step + 1),
      Home: () => to(0),
      End: () => to(last),
      ' ': () => store.set({playing: !state.playing}),
      v: () => store.set({tool: 'look'}),
      b: () => store.set({tool: 'paint'}),
      e: () => store.set({tool: 'erase'}),
      f: toggleFull,
      h: () => store.set({opacity: state.opacity ? 0 : 0.9}),
      s: () => {
        if (state.subject) context.choose(state.subject)
      },
      '+': () => store.set({zoom: Math.min(12, state.zoom * 1.25)}),
      '-': () => store.set({zoom: Math.max(1, state.zoom / 1.25)}),
      0: () => store.set({zoom: 1, panX: 0, panY: 0}),
      '/': () => focusSearch(stage.element),
    }
    if (key === 'Escape') return goBack()
    if (/^[1-9]$/.test(key)) {
      const subject = list.shown[Number(key) - 1]
      if (subject) context.open(subject)
      return Boolean(subject)
    }
    meanings[key]?.()
    return key in meanings
  }

  /** One thing at a time: the page, then the box, then (not handled here) the full size. */
  function goBack() {
    if (state.page) store.set({page: false})
    else if (state.region || state.subject) store.set({region: null, subject: null})
    else return false
    return true
  }
}

/** @param {HTMLElement} inside */
function focusSearch(inside) {
  const search = inside.closest('.rv-explorer')?.querySelector('.rv-search')
  if (search instanceof HTMLElement) search.focus()
}

/**
 * Move the box that is looked at, or put one into the middle.
 * @param {string} key
 * @param {import('./store.js').Store} store
 */
function nudge(key, {state, set}) {
  const box = state.region ?? {left: 0.4, top: 0.4, right: 0.6, bottom: 0.6}
  const dx = state.region ? ({ArrowLeft: -NUDGE, ArrowRight: NUDGE}[key] ?? 0) : 0
  const dy = state.region ? ({ArrowUp: -NUDGE, ArrowDown: NUDGE}[key] ?? 0) : 0
  const x = Math.min(1 - box.right, Math.max(-box.left, dx)),
    y = Math.min(1 - box.bottom, Math.max(-box.top, dy))
  set({
    region: {left: box.left + x, right: box.right + x, top: box.top + y, bottom: box.bottom + y},
    page: false,
  })
  return true
}
