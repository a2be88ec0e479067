/** Puts the explorer into a node of the graph: adds its widget, and stores its state in the workflow. */
import {formatChoice, parseChoice} from './choice.js'
import {api, app} from './comfy.js'
import {el} from './dom.js'
import {createFull} from './full.js'
import {userDataStorage} from './labels.js'
import {formatPainted, parsePainted} from './region.js'
import {savedFields, validFields} from './store.js'
import {createView} from './view.js'

/** The name of the node class. */
export const NODE = 'RevelioExplorer'
/** The key of the node's output to the page; VIEW and RUN are keys of its properties in the workflow. */
const OUTPUT = 'revelio_explorer'
const VIEW = 'revelio_view'
const RUN = 'revelio_run'

const SIZE = [860, 720]
const MIN_HEIGHT = 480
/** The most Select Features nodes that may come between the explorer and Steer Features. */
const MAX_SELECTIONS = 8

/**
 * @typedef {import('@comfyorg/comfyui-frontend-types').ComfyExtension} ComfyExtension
 * @typedef {Parameters<NonNullable<ComfyExtension['nodeCreated']>>[0]} Node
 * @typedef {import('./view.js').SteerTarget} SteerTarget
 */

/**
 * @param {Node} node
 * @param {import('./texts.js').Translate} t
 */
export function addExplorer(node, t) {
  // Nodes 2.0 gives a widget with this class the free height of the node
  // (frontend 1.32.9, src/renderer/extensions/vueNodes/components/NodeWidgets.vue)
  const host = el('div', {class: 'rv-host widget-expands'})
  const view = createView({
    fetch: path => api.fetchApi(path),
    labelStorage: userDataStorage(api),
    t,
    toast: (severity, detail) =>
      app.extensionManager.toast.add({severity, summary: 'Revelio', detail, life: 5000}),
    queue: () => void app.queuePrompt(0),
    steerTarget: () => findSteerTarget(node),
    save: state => saveState(node, state),
    toggleFull: () => full.toggle(),
  })
  const full = createFull(host, view.element, t)
  host.append(view.element)
  // Nodes 2.0 puts the widget inside the node's element, where these events would drag the node, open its
  // menu, or copy and paste nodes (frontend 1.32.9: LGraphNode.vue, useCopy.ts, usePaste.ts; both modes
  // compared: https://github.com/Comfy-Org/ComfyUI_frontend/pull/8162)
  for (const kind of ['pointerdown', 'dblclick', 'contextmenu', 'paste', 'copy']) {
    host.addEventListener(kind, event => event.stopPropagation())
  }

  const options = {serialize: false, hideOnZoom: false, getMinHeight: () => MIN_HEIGHT}
  const widget = /** @type {any} */ (node).addDOMWidget('explorer', 'revelio_explorer', host, options)
  // options.serialize keeps the widget out of the prompt, widget.serialize keeps it out of the workflow
  // (frontend 1.32.9): https://github.com/Comfy-Org/ComfyUI_frontend/pull/9102
  widget.serialize = false
  for (const name of ['chosen', 'hook_point', 'painted']) hideWidget(node, name)
  const [width = 0, height = 0] = node.size
  node.setSize([Math.max(width, SIZE[0] ?? 0), Math.max(height, SIZE[1] ?? 0)])

  addCallback(node, 'onExecuted', (/** @type {any} */ output) => {
    const [shown] = output?.[OUTPUT] ?? []
    if (!shown) return
    node.properties[RUN] = shown
    void view.show(parseShown(shown))
  })
  addCallback(node, 'onConfigure', () => {
    view.store.set({
      ...validFields(node.properties[VIEW]),
      chosen: parseChoice(textOf(node, 'chosen')),
      chosenHookPoint: textOf(node, 'hook_point'),
      painted: parsePainted(textOf(node, 'painted')),
    })
    void view.show(parseShown(node.properties[RUN]))
  })
  // when all links are removed, the output's list of them is emptied only after this callback
  // (frontend 1.32.9, disconnectOutput in src/lib/litegraph/src/LGraphNode.ts)
  addCallback(node, 'onConnectionsChange', () => queueMicrotask(view.updateTarget))
  // no event reports a changed widget of another node, but such a change ends with the pointer on the canvas
  const removed = new AbortController()
  app.canvas?.canvas.addEventListener('pointerup', view.updateTarget, {signal: removed.signal})
  addCallback(node, 'onRemoved', () => {
    removed.abort()
    view.stop()
    full.close()
  })
}

/**
 * Store the choice and the painted region in the node's inputs. Store all else in the node's
 * properties, where a change does not make ComfyUI run the node again.
 * @param {Node} node
 * @param {import('./store.js').State} state
 */
function saveState(node, state) {
  node.properties[VIEW] = /** @type {any} */ (savedFields(state))
  const texts = {
    chosen: formatChoice(state.chosen),
    hook_point: state.chosen.length ? state.chosenHookPoint : '',
    painted: formatPainted(state.painted),
  }
  for (const [name, text] of Object.entries(texts)) {
    const widget = widgetOf(node, name)
    if (widget && widget.value !== text) {
      widget.value = text
      widget.callback?.(text)
    }
  }
}

/**
 * @param {Node} node
 * @param {string} name
 */
const widgetOf = (node, name) => node.widgets?.find(widget => widget.name === name)

/**
 * @param {Node} node
 * @param {string} name
 */
const textOf = (node, name) => String(widgetOf(node, name)?.value ?? '')

/**
 * Hide an input that only the explorer writes.
 * @param {Node} node
 * @param {string} name
 */
function hideWidget(node, name) {
  const widget = widgetOf(node, name)
  if (!widget) return
  // the canvas reads widget.hidden, Nodes 2.0 reads options.hidden (frontend 1.32.9):
  // https://github.com/Comfy-Org/ComfyUI_frontend/pull/9337
  widget.hidden = true
  Object.assign(widget.options, {hidden: true})
  // the canvas reserves the height of hidden widgets too, plus 4 pixels for each widget (frontend 1.32.9,
  // #arrangeWidgets in LGraphNode.ts): https://github.com/Comfy-Org/ComfyUI_frontend/issues/2827
  widget.computeSize = () => [0, -4]
}

/**
 * Find the Steer Features node to which FEATURES leads, directly or through Select Features nodes.
 * @param {Node} node
 * @param {number} [depth]
 * @returns {SteerTarget}
 */
function findSteerTarget(node, depth = 0) {
  for (const id of node.outputs?.[0]?.links ?? []) {
    const link = node.graph?.links.get(id)
    const target = link && node.graph?.getNodeById(link.target_id)
    if (target && target.type === 'RevelioSelectFeatures' && depth < MAX_SELECTIONS) {
      const further = findSteerTarget(target, depth + 1)
      if (further.connected) return further
    }
    const strength = target && target.type === 'RevelioSteerFeatures' && widgetOf(target, 'strength')
    if (strength) {
      const resetStrength = () => {
        strength.value = 1
        strength.callback?.(1)
        app.graph.setDirtyCanvas(true, true)
      }
      return {connected: true, strength: Number(strength.value), resetStrength}
    }
  }
  return {connected: false, strength: 1}
}

/**
 * Return the valid parts of the node's output, with addresses of images. A workflow may contain anything.
 * @param {any} output
 * @returns {import('./view.js').Shown}
 */
function parseShown(output) {
  const key = (/** @type {unknown} */ value) =>
    typeof value === 'string' && /^[0-9a-f]{32}$/.test(value) ? value : ''
  const list = (/** @type {unknown} */ value) => (Array.isArray(value) ? value : [])
  const urls = (/** @type {unknown} */ files) =>
    list(files).map(({filename, subfolder, type}) => {
      const query = {filename: String(filename), subfolder: String(subfolder), type: String(type)}
      return api.apiURL(`/view?${new URLSearchParams(query)}`)
    })
  return {
    trace: key(output?.trace),
    images: urls(output?.images),
    compareTrace: key(output?.compare_trace),
    compareImages: urls(output?.compare_images),
    warnings: list(output?.warnings).filter(text => typeof text === 'string'),
  }
}

/**
 * Add a callback to a node, called after the callback that the node already has under this name.
 * @param {any} node
 * @param {string} name
 * @param {(...args: any[]) => void} callback
 */
function addCallback(node, name, callback) {
  const original = node[name]
  node[name] = function (/** @type {any[]} */ ...args) {
    const result = original?.apply(this, args)
    callback(...args)
    return result
  }
}
