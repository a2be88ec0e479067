/** The explorer inside a node of the graph: its widget, its inputs, what the workflow keeps. */
import {choiceText, parseChoice} from './choice.js'
import {api, app} from './comfy.js'
import {el} from './dom.js'
import {createFull} from './full.js'
import {userShelf} from './labels.js'
import {paintedOf, paintedText} from './region.js'
import {keptOf, trusted} from './store.js'
import {createView} from './view.js'
import {translate} from './words.js'

/** The node class, and what its outputs and its properties are called. */
export const NODE = 'RevelioExplorer'
const OUTPUT = 'revelio_explorer'
const VIEW = 'revelio_view'
const RUN = 'revelio_run'

const SIZE = [860, 720]
const LEAST_HEIGHT = 480

/** @typedef {Parameters<NonNullable<import('@comfyorg/comfyui-frontend-types').ComfyExtension['nodeCreated']>>[0]} Node */

/** @param {Node} node */
export function fitExplorer(node) {
  const host = el('div', {class: 'rv-host widget-expands'})
  const view = createView({
    fetch: path => api.fetchApi(path),
    shelf: userShelf(api),
    t: translate,
    toast: (severity, detail) =>
      app.extensionManager.toast.add({severity, summary: 'Revelio', detail, life: 5000}),
    queue: () => void app.queuePrompt(0),
    target: () => steeredNode(node),
    keep: state => keep(node, state),
    toggleFull: () => full.toggle(),
  })
  const full = createFull(host, view.element, translate)
  host.append(view.element)
  for (const kind of ['pointerdown', 'dblclick', 'contextmenu', 'paste', 'copy']) {
    host.addEventListener(kind, event => event.stopPropagation()) // the graph must not drag the node by it
  }

  const widget = /** @type {any} */ (node).addDOMWidget('explorer', 'revelio_explorer', host, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => LEAST_HEIGHT,
  })
  widget.serialize = false
  for (const name of ['chosen', 'hook_point', 'painted']) hide(node, name)
  node.setSize([Math.max(node.size[0], SIZE[0]), Math.max(node.size[1], SIZE[1])])

  chain(node, 'onExecuted', (/** @type {any} */ output) => {
    const [shown] = output?.[OUTPUT] ?? []
    if (!shown) return
    node.properties[RUN] = shown
    void view.show(addressed(shown))
  })
  chain(node, 'onConfigure', () => {
    view.store.set({
      ...trusted(node.properties[VIEW]),
      chosen: parseChoice(String(input(node, 'chosen')?.value ?? '')),
      chosenPlace: String(input(node, 'hook_point')?.value ?? ''),
      painted: paintedOf(String(input(node, 'painted')?.value ?? '')),
    })
    void view.show(addressed(/** @type {any} */ (node.properties[RUN])))
  })
  chain(node, 'onConnectionsChange', () => queueMicrotask(() => view.aim()))
  chain(node, 'onRemoved', () => {
    view.stop()
    full.close()
  })
  app.canvas?.canvas.addEventListener('pointerup', () => view.aim())
}

/**
 * Store a state: what steers in the node's inputs, the rest in its properties, which run nothing anew.
 * @param {Node} node
 * @param {import('./store.js').State} state
 */
function keep(node, state) {
  node.properties[VIEW] = /** @type {any} */ (keptOf(state))
  const texts = {
    chosen: choiceText(state.chosen),
    hook_point: state.chosen.length ? state.chosenPlace : '',
    painted: paintedText(state.painted),
  }
  for (const [name, text] of Object.entries(texts)) {
    const widget = input(node, name)
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
const input = (node, name) => node.widgets?.find(widget => widget.name === name)

/**
 * The explorer writes these inputs; as plain text they would only be in the way.
 * @param {Node} node
 * @param {string} name
 */
function hide(node, name) {
  const widget = input(node, name)
  if (!widget) return
  widget.hidden = true
  Object.assign(widget.options, {hidden: true})
  widget.computeSize = () => [0, -4]
}

/**
 * The Steer Features node that FEATURES leads to, also through Select Features, and its strength.
 * @param {Node} node
 * @param {number} [depth]
 * @returns {import('./view.js').Target}
 */
function steeredNode(node, depth = 0) {
  for (const id of node.outputs?.[0]?.links ?? []) {
    const link = node.graph?.links.get(id)
    const target = link && node.graph?.getNodeById(link.target_id)
    if (target && target.type === 'RevelioSelectFeatures' && depth < 8) {
      const further = steeredNode(target, depth + 1)
      if (further.connected) return further
    }
    const strength = target && target.type === 'RevelioSteerFeatures' && input(target, 'strength')
    if (strength) {
      const fix = () => {
        strength.value = 1
        strength.callback?.(1)
        app.graph.setDirtyCanvas(true, true)
      }
      return {connected: true, strength: Number(strength.value), fix}
    }
  }
  return {connected: false, strength: 1}
}

/**
 * What a run's output says, as addresses; anything else that a file may hold counts as nothing.
 * @param {any} shown
 * @returns {import('./view.js').Shown}
 */
function addressed(shown) {
  const key = (/** @type {unknown} */ value) =>
    typeof value === 'string' && /^[0-9a-f]{32}$/.test(value) ? value : ''
  const urls = (/** @type {any} */ files) =>
    (Array.isArray(files) ? files : []).map(({filename, subfolder, type}) =>
      api.apiURL(
        `/view?${new URLSearchParams({filename: String(filename), subfolder: String(subfolder), type: String(type)})}`,
      ),
    )
  const remarks = (Array.isArray(shown?.warnings) ? shown.warnings : []).filter(
    (/** @type {unknown} */ text) => typeof text === 'string',
  )
  return {
    trace: key(shown?.trace),
    images: urls(shown?.images),
    compareTrace: key(shown?.compare_trace),
    compareImages: urls(shown?.compare_images),
    remarks,
  }
}

/**
 * Do something after what a node does already.
 * @param {any} node
 * @param {string} name
 * @param {(...given: any[]) => void} more
 */
function chain(node, name, more) {
  const before = node[name]
  node[name] = function (/** @type {any[]} */ ...given) {
    const result = before?.apply(this, given)
    more(...given)
    return result
  }
}
