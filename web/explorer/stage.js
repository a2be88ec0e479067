/** The pictures of one run or of two, side by side: click, drag a region, paint, zoom and move. */
import {GRADIENT, heatPixels, written} from './colour.js'
import {el} from './dom.js'
import {createPane} from './pane.js'
import {boxBetween, stroke, unpainted} from './region.js'
import {mapsOf} from './subject.js'

const CLICK = 0.12
const BRUSH = 0.05
const MOST_ZOOM = 12
const WATCHED = ['all', 'codes', 'presence', 'beside', 'besidePresence', 'subject', 'step', 'opacity']

/** @typedef {import('./view.js').Context} Context */

/** @param {Context} context */
export function createStage(context) {
  const {store, t} = context,
    {state} = store
  const main = createPane(t('The picture of this run'), '')
  const other = createPane(t('The picture of the second run'), t('second run'))
  const top = el('span'),
    middle = el('span'),
    subtitle = el('span', {class: 'rv-scale-title'})
  const scale = el(
    'div',
    {class: 'rv-scale', 'aria-hidden': 'true'},
    el('div', {class: 'rv-scale-bar', style: {backgroundImage: GRADIENT}}),
    el('div', {class: 'rv-scale-ticks'}, top, middle, el('span', {}, '0')),
  )
  const room = el('div', {class: 'rv-panes'}, main.element, other.element)
  const hint = el('div', {class: 'rv-hint'}, t('Click on something in the picture, or drag a box around it.'))
  const element = el(
    'div',
    {
      class: 'rv-stage',
      tabIndex: 0,
      role: 'application',
      'aria-label': t('Picture: click to look, Shift and arrows move the box'),
    },
    room,
    hint,
    scale,
    subtitle,
  )
  let pixels = heatPixels(state.opacity),
    drawn = state.opacity

  const fit = () => {
    const two = !other.element.hidden
    const wide = room.clientWidth / (two ? 2 : 1) - (two ? 6 : 0),
      high = room.clientHeight - (two ? 22 : 0)
    main.fit(wide, high)
    other.fit(wide, high)
  }
  new ResizeObserver(fit).observe(room)
  listen(context, element, [main, other])

  return {
    element,
    /** Width by height of the picture. */
    get aspect() {
      return main.aspect
    },
    /** @param {Set<string>} changed */
    update(changed) {
      const has = (/** @type {string[]} */ names) => names.some(name => changed.has(name))
      if (has(['all', 'item', 'place'])) {
        const place = context.run()?.place(state.place),
          shape = place ? place.grid[1] / place.grid[0] : 1
        main.show(context.picture(state.item, false), shape, fit)
        other.element.hidden = !context.compared()
        if (context.compared()) other.show(context.picture(state.item, true), shape, fit)
        fit()
      }
      if (state.opacity !== drawn) [pixels, drawn] = [heatPixels(state.opacity), state.opacity]
      if (has(WATCHED)) {
        const maps = mapsOf(state.subject, state.codes, state.presence)
        const beside = mapsOf(state.subject, state.beside, state.besidePresence)
        const peak = Math.max(maps?.peak ?? 0, beside?.peak ?? 0) // one scale for both, or they could not be compared
        main.draw(maps && {...maps, peak}, state.step, pixels, state.opacity)
        other.draw(beside && {...beside, peak}, state.step, pixels, state.opacity)
        scale.hidden = subtitle.hidden = !peak
        top.textContent = written(peak)
        middle.textContent = written(peak / 2)
        subtitle.textContent = state.subject?.kind === 'concept' ? t('1 = usual amount') : t('activation')
      }
      if (has(['all', 'region', 'tool'])) [main, other].forEach(pane => pane.drawBox(state.region))
      if (has(['all', 'painted'])) main.drawPaint(state.painted)
      if (has(['all', 'zoom', 'panX', 'panY'])) {
        for (const pane of [main, other]) {
          pane.layers.style.transform = `translate(${100 * state.panX}%, ${100 * state.panY}%) scale(${state.zoom})`
        }
      }
      element.dataset.tool = state.tool
      hint.hidden = Boolean(state.region || state.subject || state.tool !== 'look')
    },
  }
}

/**
 * @param {Context} context
 * @param {HTMLElement} element
 * @param {import('./pane.js').Pane[]} panes
 */
function listen({store}, element, panes) {
  const {state} = store
  /** @type {number[] | null} */
  let start = null
  let last = [0, 0]
  let moving = false,
    pane = panes[0]

  element.addEventListener('pointerdown', event => {
    const found = panes.find(({element: its}) => event.composedPath().includes(its))
    if (!found || event.button > 1) return
    pane = found
    element.focus({preventScroll: true})
    element.setPointerCapture(event.pointerId)
    event.preventDefault()
    start = last = pane.at(event)
    moving = event.button === 1 || event.altKey
    if (moving) last = [event.clientX, event.clientY]
    else if (state.tool !== 'look') brush(last)
  })
  element.addEventListener('pointermove', event => {
    if (!start) return
    if (moving) {
      const {width, height} = pane.layers.getBoundingClientRect()
      store.set({
        panX: state.panX + ((event.clientX - last[0]) / width) * state.zoom,
        panY: state.panY + ((event.clientY - last[1]) / height) * state.zoom,
      })
      last = [event.clientX, event.clientY]
    } else if (state.tool !== 'look') brush(pane.at(event))
    else look(pane.at(event))
  })
  element.addEventListener('pointerup', event => {
    if (start && !moving && state.tool === 'look') look(pane.at(event))
    start = null
  })
  element.addEventListener('pointercancel', () => {
    start = null
  })
  // ComfyUI gives every turn of the wheel to the graph, but for elements that say so
  element.addEventListener('focus', () => {
    element.dataset.captureWheel = 'true'
  })
  element.addEventListener('blur', () => {
    delete element.dataset.captureWheel
  })
  element.addEventListener('dblclick', () => store.set({zoom: 1, panX: 0, panY: 0}))
  element.addEventListener(
    'wheel',
    event => {
      if (!element.dataset.captureWheel && !element.closest('dialog')) return // until one works here, the graph zooms
      event.preventDefault()
      event.stopPropagation()
      zoomAt(store, pane.at(event), Math.exp(-event.deltaY / 400))
    },
    {passive: false},
  )

  /** @param {number[]} to */
  function look(to) {
    if (!start) return
    store.set({region: boxBetween(start[0], start[1], to[0], to[1], CLICK), page: false, search: ''})
  }

  /** @param {number[]} to */
  function brush(to) {
    const old = state.painted ?? unpainted(panes[0].aspect)
    const painted = {...old, cells: old.cells.slice()}
    stroke(painted, last, to, BRUSH, state.tool === 'paint' ? 1 : 0)
    last = to
    store.set({painted: painted.cells.includes(1) ? painted : null})
  }
}

/**
 * Zoom so that a point of the picture stays where it is.
 * @param {import('./store.js').Store} store
 * @param {number[]} point  In shares of the picture.
 * @param {number} factor
 */
export function zoomAt({state, set}, [x, y], factor) {
  const zoom = Math.min(MOST_ZOOM, Math.max(1, state.zoom * factor))
  if (zoom === 1) return set({zoom, panX: 0, panY: 0})
  set({
    zoom,
    panX: state.panX - (x - 0.5) * (zoom - state.zoom),
    panY: state.panY - (y - 0.5) * (zoom - state.zoom),
  })
}
