/**
 * Names that the user has given to features, kept by ComfyUI with the user's data, for each dictionary.
 *
 * @typedef {object} Shelf
 * @property {(file: string) => Promise<string | null>} load  null only where there is no such file; else it throws.
 * @property {(file: string, text: string) => Promise<void>} save
 */

const LONGEST = 60

/** Changes wait for one another, so that two explorers of one page never work on the same file at once. */
let turn = Promise.resolve()

/**
 * The user's data of ComfyUI.
 * @param {Pick<import('@comfyorg/comfyui-frontend-types').ComfyApi, 'getUserData' | 'storeUserData'>} api
 * @returns {Shelf}
 */
export const userShelf = api => ({
  async load(file) {
    const answer = await api.getUserData(file)
    if (answer.status === 404) return null
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`)
    return answer.text()
  },
  async save(file, text) {
    await api.storeUserData(file, text, {stringify: false, throwOnError: true, overwrite: true})
  },
})

export class Labels {
  /** @param {Shelf} shelf */
  constructor(shelf) {
    this._shelf = shelf
    this._dictionary = ''
    this._read = false
    /** @type {Map<number, string>} */
    this._own = new Map()
  }

  /**
   * Bring the names for another dictionary; throws where they are there and cannot be read.
   * @param {string} dictionary
   */
  async open(dictionary) {
    if (dictionary === this._dictionary && this._read) return
    this._dictionary = dictionary
    this._read = false
    this._own = new Map()
    const kept = await this._kept(dictionary)
    if (dictionary === this._dictionary) this._take(kept)
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
   * Name a feature; an empty name takes the user's away. Names that were given elsewhere meanwhile stay.
   * Throws, and changes nothing, where the names cannot be read or saved.
   * @param {number} feature
   * @param {string} label
   */
  set(feature, label) {
    const dictionary = this._dictionary,
      text = label.trim().slice(0, LONGEST)
    const done = turn.then(async () => {
      const kept = await this._kept(dictionary)
      if (text) kept[feature] = text
      else delete kept[feature]
      await this._shelf.save(fileOf(dictionary), JSON.stringify(kept, null, 1))
      if (dictionary === this._dictionary) this._take(kept)
    })
    turn = done.catch(() => {})
    return done
  }

  /**
   * What the file holds now.
   * @param {string} dictionary
   * @returns {Promise<Record<string, unknown>>}
   */
  async _kept(dictionary) {
    const kept = JSON.parse((await this._shelf.load(fileOf(dictionary))) || '{}')
    if (typeof kept !== 'object' || kept === null || Array.isArray(kept))
      throw new Error('The file holds no names.')
    return kept
  }

  /** @param {Record<string, unknown>} kept */
  _take(kept) {
    this._own = new Map()
    for (const [feature, label] of Object.entries(kept)) {
      if (/^\d+$/.test(feature) && typeof label === 'string')
        this._own.set(Number(feature), label.slice(0, LONGEST))
    }
    this._read = true
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
  let best = '',
    rank = Infinity
  for (const [label, features] of Object.entries(place?.labels ?? {})) {
    const at = features.indexOf(feature)
    if (at >= 0 && at < rank) [best, rank] = [label, at]
  }
  return best
}
