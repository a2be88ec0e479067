/**
 * Names that the user has given to features, kept by ComfyUI with the user's data, for each dictionary.
 *
 * @typedef {{load: (file: string) => Promise<string | null>, save: (file: string, text: string) => Promise<void>}} Shelf
 */

const LONGEST = 60

export class Labels {
  /** @param {Shelf} shelf */
  constructor(shelf) {
    this._shelf = shelf
    this._dictionary = ''
    /** @type {Map<number, string>} */
    this._own = new Map()
  }

  /**
   * Bring the names for another dictionary.
   * @param {string} dictionary
   */
  async open(dictionary) {
    if (dictionary === this._dictionary) return
    this._dictionary = dictionary
    this._own = new Map()
    const text = await this._shelf.load(fileOf(dictionary))
    if (dictionary !== this._dictionary || !text) return
    for (const [feature, label] of Object.entries(JSON.parse(text))) {
      if (/^\d+$/.test(feature) && typeof label === 'string') this._own.set(Number(feature), label.slice(0, LONGEST))
    }
  }

  /**
   * The user's name for a feature, else the one it came with, else "".
   * @param {import('./run.js').Place | undefined} place
   * @param {number} feature
   */
  of(place, feature) {
    return this._own.get(feature) ?? builtIn(place, feature)
  }

  /**
   * Name a feature; an empty name takes the user's away.
   * @param {number} feature
   * @param {string} label
   */
  async set(feature, label) {
    const text = label.trim().slice(0, LONGEST)
    if (text) this._own.set(feature, text)
    else this._own.delete(feature)
    await this._shelf.save(fileOf(this._dictionary), JSON.stringify(Object.fromEntries(this._own), null, 1))
  }

  /** All names by the user: [feature, name]. */
  get own() {
    return [...this._own]
  }
}

/** @param {string} dictionary */
const fileOf = dictionary => `revelio/labels_${dictionary}.json`

/**
 * The label under which a feature ranks highest.
 * @param {import('./run.js').Place | undefined} place
 * @param {number} feature
 */
export function builtIn(place, feature) {
  let best = '', rank = Infinity
  for (const [label, features] of Object.entries(place?.labels ?? {})) {
    const at = features.indexOf(feature)
    if (at >= 0 && at < rank) [best, rank] = [label, at]
  }
  return best
}
