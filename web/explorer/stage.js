/** The images of one run or two runs side by side, with clicks, boxes, painting, zooming and panning. */
import {GRADIENT, formatNumber, heatPalette} from './colour.js'
import {el} from './dom.js'
import {createPane} from './pane.js'
import {boxBetween, emptyPainted, stroke} from './region.js'
import {anyChanged} from './store.js'
import {mapsOf} from './subject.js'

const CLICK_SIDE = 0.12
const BRUSH_RADIUS = 0.05
const MAX_ZOOM = 12
const PANE_GAP = 12
const CAPTION_HEIGHT = 22

/** @type {(keyof import('./store.js').State)[]} */
const WATCHED = ['codes', 'presence', 'comparedCodes', 'comparedPresence', 'subject', 'step', 'opacity']

/**
 * @typedef {import('./view.js').Context} Context
 * @typedef {import('./region.js').Point} Point
 * @typedef {import('./pane.js').Pane} Pane
 * @typedef {import('./store.js').Store} Store
 */

/** @param {Context} context */
export function createStage(context) {
  const {store, t} = context
  const {state} = store
  const main = createPane(t('The image of this run'), '')
  const other = createPane(t('The image of the second run'), t('second run'))
  const scaleTop = el('span')
  const scaleMiddle = el('span')
  const scaleTitle = el('span', {class: 'rv-scale-title'})
  const scale = el(
    'div',
    {class: 'rv-scale', 'aria-hidden': 'true'},
    el('div', {class: 'rv-scale-bar', style: {backgroundImage: GRADIENT}}),
    el('div', {class: 'rv-scale-ticks'}, scaleTop, scaleMiddle, el('span', {}, '0')),
  )
  const panes = el('div', {class: 'rv-panes'}, main.element, other.element)
  const hint = el('div', {class: 'rv-hint'}, t('Click something in the image, or drag a box around it.'))
  const element = el(
    'div',
    {
      class: 'rv-stage',
      tabIndex: 0,
      role: 'application',
      'aria-label': t('Image: click to inspect; Shift and the arrow keys move the box'),
    },
    panes,
    hint,
    scale,
    scaleTitle,
  )
  let palette = heatPalette(state.opacity)
  let paletteOpacity = state.opacity

  const fit = () => {
    const two = !other.element.hidden
    const width = two ? (panes.clientWidth - PANE_GAP) / 2 : panes.clientWidth
    const height = panes.clientHeight - (two ? CAPTION_HEIGHT : 0)
    main.fit(width, height)
    other.fit(width, height)
  }
  new ResizeObserver(fit).observe(panes)
  addPointerListeners(store, element, main, [main, other])
  addWheelListeners(store, element, main, other)

  function showImages() {
    const hookPoint = context.run()?.hookPoint(state.hookPoint)
    const gridAspect = hookPoint ? hookPoint.grid[1] / hookPoint.grid[0] : 1
    main.show(context.imageUrl(state.item, false), gridAspect, fit)
    other.element.hidden = !context.compared()
    if (context.compared()) other.show(context.imageUrl(state.item, true), gridAspect, fit)
    fit()
  }

  function drawHeat() {
    const {subject, step, opacity} = state
    if (opacity !== paletteOpacity) [palette, paletteOpacity] = [heatPalette(opacity), opacity]
    const maps = mapsOf(subject, state.codes, state.presence)
    const comparedMaps = mapsOf(subject, state.comparedCodes, state.comparedPresence)
    // one colour scale for both images, so that they can be compared
    const peak = Math.max(maps?.peak ?? 0, comparedMaps?.peak ?? 0)
    main.drawHeat(heatMapAt(maps, step, peak), palette, opacity)
    other.drawHeat(heatMapAt(comparedMaps, step, peak), palette, opacity)
    scale.hidden = scaleTitle.hidden = !peak
    scaleTop.textContent = formatNumber(peak)
    scaleMiddle.textContent = formatNumber(peak / 2)
    scaleTitle.textContent = subject?.kind === 'concept' ? t('1 = usual amount') : t('activation')
  }

  return {
    element,
    /** @param {import('./store.js').Changed} changed */
    update(changed) {
      if (anyChanged(changed, ['item', 'hookPoint'])) showImages()
      if (anyChanged(changed, WATCHED)) drawHeat()
      if (anyChanged(changed, ['region', 'tool'])) {
        main.drawBox(state.region)
        other.drawBox(state.region)
      }
      if (anyChanged(changed, ['painted'])) main.drawPaint(state.painted)
      if (anyChanged(changed, ['zoom', 'panX', 'panY'])) {
        for (const pane of [main, other]) {
          const {panX, panY, zoom} = state
          pane.layers.style.transform = `translate(${100 * panX}%, ${100 * panY}%) scale(${zoom})`
        }
      }
      element.dataset.tool = state.tool
      hint.hidden = Boolean(state.region || state.subject || state.tool !== 'inspect')
    },
  }
}

/**
 * @param {import('./subject.js').SubjectMaps | null} maps
 * @param {number} step
 * @param {number} peak
 */
function heatMapAt(maps, step, peak) {
  return maps && step < maps.steps ? {...maps.heatMap(step), peak} : null
}

/**
 * @param {Store} store
 * @param {HTMLElement} element
 * @param {Pane} main
 * @param {Pane[]} panes
 */
function addPointerListeners(store, element, main, panes) {
  const {state} = store
  /** @type {Point | null} */
  let start = null
  /** @type {Point} */
  let last = [0, 0]
  let panning = false
  let pane = main

  element.addEventListener('pointerdown', event => {
    const found = panes.find(candidate => event.composedPath().includes(candidate.element))
    if (!found || event.button > 1) return
    pane = found
    element.focus({preventScroll: true})
    element.setPointerCapture(event.pointerId)
    event.preventDefault()
    start = last = pane.pointOf(event)
    panning = event.button === 1 || event.altKey
    if (panning) last = [event.clientX, event.clientY]
    else if (state.tool !== 'inspect') paintTo(last)
  })
  element.addEventListener('pointermove', event => {
    if (!start) return
    if (panning) {
      const {width, height} = pane.layers.getBoundingClientRect()
      store.set({
        panX: state.panX + ((event.clientX - last[0]) / width) * state.zoom,
        panY: state.panY + ((event.clientY - last[1]) / height) * state.zoom,
      })
      last = [event.clientX, event.clientY]
    } else if (state.tool !== 'inspect') paintTo(pane.pointOf(event))
    else inspectTo(pane.pointOf(event))
  })
  element.addEventListener('pointerup', event => {
    if (start && !panning && state.tool === 'inspect') inspectTo(pane.pointOf(event))
    start = null
  })
  element.addEventListener('pointercancel', () => {
    start = null
  })

  /** @param {Point} point */
  function inspectTo(point) {
    if (start) store.set({region: boxBetween(start, point, CLICK_SIDE), page: false, search: ''})
  }

  /** @param {Point} point */
  function paintTo(point) {
    const old = state.painted ?? emptyPainted(main.aspect)
    const painted = {...old, cells: old.cells.slice()}
    stroke(painted, last, point, BRUSH_RADIUS, state.tool === 'paint' ? 1 : 0)
    last = point
    store.set({painted: painted.cells.includes(1) ? painted : null})
  }
}

/**
 * Zoom the image with the wheel if the stage has the focus; otherwise the wheel zooms the graph.
 * @param {Store} store
 * @param {HTMLElement} element
 * @param {Pane} main
 * @param {Pane} other
 */
function addWheelListeners(store, element, main, other) {
  // ComfyUI gives the wheel to the graph unless an element has data-capture-wheel (frontend 1.32.9,
  // useCanvasInteractions.ts): https://github.com/Comfy-Org/ComfyUI_frontend/pull/5821
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
      if (!element.dataset.captureWheel && !element.closest('dialog')) return
      event.preventDefault()
      event.stopPropagation()
      const pane = event.composedPath().includes(other.element) ? other : main
      zoomAt(store, pane.pointOf(event), Math.exp(-event.deltaY / 400))
    },
    {passive: false},
  )
}

/**
 * Zoom by a factor while the given point of the image stays where it is on the screen.
 * @param {Store} store
 * @param {Point} point
 * @param {number} factor
 */
export function zoomAt({state, set}, [x, y], factor) {
  const zoom = Math.min(MAX_ZOOM, Math.max(1, state.zoom * factor))
  if (zoom === 1) {
    set({zoom, panX: 0, panY: 0})
    return
  }
  const panX = state.panX - (x - 0.5) * (zoom - state.zoom)
  const panY = state.panY - (y - 0.5) * (zoom - state.zoom)
  set({zoom, panX, panY})
}
