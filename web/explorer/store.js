/**
 * The state of one explorer. All changes made before the next frame are drawn together in that frame.
 *
 * @typedef {{kind: 'feature', feature: number} | {kind: 'concept', name: string}} Subject
 * @typedef {'inspect' | 'paint' | 'erase'} Tool
 *
 * @typedef {object} State
 * @property {string} hookPoint  Name of the shown hook point.
 * @property {string} role
 * @property {number} item  Number of the image in the batch.
 * @property {number} step  Index into the recorded steps.
 * @property {Subject | null} subject  The feature or concept whose heat is shown.
 * @property {import('./region.js').Box | null} region
 * @property {boolean} everyStep  Whether the list covers all steps instead of only the shown one.
 * @property {number} opacity
 * @property {Tool} tool
 * @property {boolean} page  Whether the subject's page is open.
 * @property {string} search
 * @property {boolean} playing
 * @property {number} zoom
 * @property {number} panX  As a share of the stage's size.
 * @property {number} panY
 * @property {import('./choice.js').Chosen[]} chosen
 * @property {string} chosenHookPoint  The hook point to which the choice belongs.
 * @property {import('./region.js').Painted | null} painted
 * @property {import('./codes.js').Codes | null} codes  Codes of the run at this hook point, role and item.
 * @property {import('./presence.js').Presence | null} presence
 * @property {import('./codes.js').Codes | null} comparedCodes  Codes of the second run.
 * @property {import('./presence.js').Presence | null} comparedPresence
 *
 * @typedef {Set<string>} Changed  Names of the state's fields, or "all".
 */

/** @returns {State} */
export const initialState = () => ({
  hookPoint: '',
  role: 'cond',
  item: 0,
  step: 0,
  subject: null,
  region: null,
  everyStep: false,
  opacity: 0.9,
  tool: 'inspect',
  page: false,
  search: '',
  playing: false,
  zoom: 1,
  panX: 0,
  panY: 0,
  chosen: [],
  chosenHookPoint: '',
  painted: null,
  codes: null,
  presence: null,
  comparedCodes: null,
  comparedPresence: null,
})

/**
 * The fields that the workflow stores: {field: its name there}. The node's inputs store choice and paint.
 * @type {Partial<Record<keyof State, string>>}
 */
const SAVED = {
  hookPoint: 'place', // its name when the first workflows were saved
  role: 'role',
  item: 'item',
  step: 'step',
  subject: 'subject',
  region: 'region',
  everyStep: 'everyStep',
  opacity: 'opacity',
  page: 'page',
}
const SAVED_NAMES = /** @type {[keyof State, string][]} */ (Object.entries(SAVED))

/** @param {State} state */
export const savedFields = state =>
  Object.fromEntries(SAVED_NAMES.map(([field, name]) => [name, state[field]]))

/**
 * Return the valid part of a saved state: known names with values of the right type.
 * @param {unknown} saved
 * @returns {Partial<State>}
 */
export function validFields(saved) {
  const defaults = initialState()
  const given = /** @type {any} */ (saved ?? {})
  /** @type {Record<string, unknown>} */
  const valid = {}
  for (const [field, name] of SAVED_NAMES) {
    if (field === 'subject' || field === 'region') continue
    if (typeof given[name] === typeof defaults[field]) valid[field] = given[name]
  }
  const {subject, region} = given
  if (subject?.kind === 'feature' && Number.isInteger(subject.feature)) {
    valid.subject = {kind: 'feature', feature: subject.feature}
  }
  if (subject?.kind === 'concept' && typeof subject.name === 'string') {
    valid.subject = {kind: 'concept', name: subject.name}
  }
  const sides = region && [region.left, region.top, region.right, region.bottom]
  if (sides?.every((/** @type {unknown} */ side) => typeof side === 'number' && side >= 0 && side <= 1)) {
    valid.region = {left: region.left, top: region.top, right: region.right, bottom: region.bottom}
  }
  return valid
}

/**
 * Whether any of these fields has changed or everything must be drawn.
 * @param {Changed} changed
 * @param {(keyof State)[]} fields
 */
export const anyChanged = (changed, fields) => changed.has('all') || fields.some(field => changed.has(field))

/**
 * @param {(state: State, changed: Changed) => void} draw
 */
export function createStore(draw) {
  const state = initialState()
  /** @type {Changed} */
  let changed = new Set()
  let requested = 0
  const flush = () => {
    requested = 0
    const now = changed
    changed = new Set()
    draw(state, now)
  }
  const requestDraw = () => {
    if (changed.size && !requested) requested = requestAnimationFrame(flush)
  }
  return {
    state,
    /** @param {Partial<State>} patch */
    set(patch) {
      const target = /** @type {Record<string, unknown>} */ (/** @type {unknown} */ (state))
      for (const [field, value] of Object.entries(patch)) {
        if (target[field] === value) continue
        target[field] = value
        changed.add(field)
      }
      requestDraw()
    },
    /** Draw everything in the next frame. */
    refresh() {
      changed.add('all')
      requestDraw()
    },
  }
}

/** @typedef {ReturnType<typeof createStore>} Store */
