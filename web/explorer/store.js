/**
 * The state of one explorer. Changes made together are drawn together, in the next frame.
 *
 * @typedef {{kind: 'feature', feature: number} | {kind: 'concept', name: string}} Subject
 *
 * @typedef {object} State
 * @property {string} place
 * @property {string} role
 * @property {number} item
 * @property {number} step  Number among the recorded steps.
 * @property {Subject | null} subject  Whose heat is shown.
 * @property {import('./region.js').Box | null} region
 * @property {boolean} everyStep  Whether lists look at all steps, not at the one shown.
 * @property {number} opacity
 * @property {'look' | 'paint' | 'erase'} tool
 * @property {boolean} page  Whether the subject's page is open.
 * @property {string} search
 * @property {boolean} playing
 * @property {number} zoom
 * @property {number} panX  In shares of the stage.
 * @property {number} panY
 * @property {import('./choice.js').Chosen[]} chosen
 * @property {string} chosenPlace
 * @property {import('./region.js').Painted | null} painted
 * @property {import('./codes.js').Codes | null} codes  Of the run, at this place, role and item.
 * @property {import('./presence.js').Presence | null} presence
 * @property {import('./codes.js').Codes | null} beside  Of the compared run.
 * @property {import('./presence.js').Presence | null} besidePresence
 */

/** @returns {State} */
export const initialState = () => ({
  place: '',
  role: 'cond',
  item: 0,
  step: 0,
  subject: null,
  region: null,
  everyStep: false,
  opacity: 0.9,
  tool: 'look',
  page: false,
  search: '',
  playing: false,
  zoom: 1,
  panX: 0,
  panY: 0,
  chosen: [],
  chosenPlace: '',
  painted: null,
  codes: null,
  presence: null,
  beside: null,
  besidePresence: null,
})

/** What is kept in the workflow; what is chosen and painted is kept by the node's own inputs. */
const KEPT = /** @type {const} */ ([
  'place',
  'role',
  'item',
  'step',
  'subject',
  'region',
  'everyStep',
  'opacity',
  'page',
])

/** @param {State} state */
export const keptOf = state => Object.fromEntries(KEPT.map(name => [name, state[name]]))

/**
 * The part of a kept state that can be trusted: the right names with the right kinds of values.
 * @param {unknown} kept
 * @returns {Partial<State>}
 */
export function trusted(kept) {
  const plain = /** @type {Record<string, unknown>} */ (initialState()),
    given = /** @type {any} */ (kept ?? {})
  /** @type {Record<string, unknown>} */
  const good = {}
  for (const name of KEPT) {
    if (['subject', 'region'].includes(name)) continue
    if (typeof given[name] === typeof plain[name]) good[name] = given[name]
  }
  const {subject, region} = given
  if (subject?.kind === 'feature' && Number.isInteger(subject.feature))
    good.subject = {kind: 'feature', feature: subject.feature}
  if (subject?.kind === 'concept' && typeof subject.name === 'string')
    good.subject = {kind: 'concept', name: subject.name}
  const sides = region && [region.left, region.top, region.right, region.bottom]
  if (sides?.every((/** @type {unknown} */ side) => typeof side === 'number' && side >= 0 && side <= 1)) {
    good.region = {left: region.left, top: region.top, right: region.right, bottom: region.bottom}
  }
  return good
}

/**
 * @param {(state: State, changed: Set<string>) => void} draw
 */
export function createStore(draw) {
  const state = initialState()
  /** @type {Set<string>} */
  let changed = new Set()
  let waiting = 0
  const flush = () => {
    waiting = 0
    const now = changed
    changed = new Set()
    draw(state, now)
  }
  return {
    state,
    /** @param {Partial<State>} patch */
    set(patch) {
      for (const [name, value] of Object.entries(patch)) {
        const target = /** @type {Record<string, unknown>} */ (/** @type {unknown} */ (state))
        if (target[name] === value) continue
        target[name] = value
        changed.add(name)
      }
      if (changed.size && !waiting) waiting = requestAnimationFrame(flush)
    },
    /** Draw everything in the next frame. */
    refresh() {
      changed.add('all')
      if (!waiting) waiting = requestAnimationFrame(flush)
    },
  }
}

/** @typedef {ReturnType<typeof createStore>} Store */
